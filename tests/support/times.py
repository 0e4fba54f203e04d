"""Units, epochs and calendars to test, and their dates by cftime."""

import cftime
import numpy as np

NANOSECONDS = {  # units in xarray's spelling
    "nanoseconds": 1,
    "microseconds": 10**3,
    "milliseconds": 10**6,
    "seconds": 10**9,
    "minutes": 60 * 10**9,
    "hours": 3600 * 10**9,
    "days": 86_400 * 10**9,
}
YEAR = 365 * NANOSECONDS["days"]
SPELLINGS = {  # further units of cftime
    "microseconds": "microseconds",
    "msec": "milliseconds",
    "s": "seconds",
    "second": "seconds",
    "mins": "minutes",
    "Hours": "hours",
    "hr": "hours",
    "days": "days",
    "d": "days",
}
GREGORIAN = ["standard", "gregorian", "proleptic_gregorian"]
CALENDARS = [*GREGORIAN, "noleap", "365_day", "360_day", "julian", "all_leap", "366_day"]
EPOCHS = [
    "0001-01-01",
    "1-1-1 00:00:0.0",
    "1300-02-28 23:59:59",
    "1582-10-04",
    "1582-10-15 12:00",
    "1850-1-1 0:0:0",
    "1970-01-01T00:00:00Z",
    "1992-10-8 15:15:42.5 -06:00",
    "2000-02-28 06:30:00.25 +05:30",
    "2001-12-30 UTC",
]


def labels_by_cftime(numbers, units, calendar):
    return [
        f"{time.year:04d}-{time.month:02d}-{time.day:02d}T{time.hour:02d}:{time.minute:02d}:{time.second:02d}.{time.microsecond:06d}"
        for time in np.atleast_1d(cftime.num2date(numbers, units, calendar, only_use_cftime_datetimes=True))
    ]
