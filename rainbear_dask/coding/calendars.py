"""CF calendars and time units: from stored numbers to dates, in integer nanoseconds.

An unknown calendar has no clock; neither has an epoch that does not exist in its calendar.
"""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import chain
from typing import Any

import numpy as np
import numpy.typing as npt

_Array = npt.NDArray[Any]

SECOND = 1_000_000_000
_DAY = 86_400 * SECOND
_UNIT_SPELLINGS = {
    1: ("nanoseconds", "nanosecond", "ns"),
    1_000: ("microseconds", "microsecond", "microsecs", "microsec", "us"),
    1_000_000: ("milliseconds", "millisecond", "millisecs", "millisec", "msecs", "msec", "ms"),
    SECOND: ("seconds", "second", "secs", "sec", "s"),
    60 * SECOND: ("minutes", "minute", "mins", "min"),
    3600 * SECOND: ("hours", "hour", "hrs", "hr", "h"),
    _DAY: ("days", "day", "d"),
}
NANOSECONDS = {word: size for size, words in _UNIT_SPELLINGS.items() for word in words}
NUMPY_NANOSECONDS = {"W": 7 * _DAY, "D": _DAY, "h": 3600 * SECOND, "m": 60 * SECOND}
NUMPY_NANOSECONDS |= {"s": SECOND, "ms": 1_000_000, "us": 1_000, "ns": 1}

NAT = np.iinfo(np.int64).min  # what numpy, xarray and pandas store for "not a time"


class Cycle:
    """A calendar as a cycle of months from 1 January of year 0; it converts dates to days and days to dates.

    Parameters
    ----------
    month_lengths : sequence of int
        Days of each month of the cycle, a whole number of years.
    """

    def __init__(self, month_lengths: Sequence[int]) -> None:
        self.years = len(month_lengths) // 12
        self.month_starts = np.concatenate([[0], np.cumsum(month_lengths)])
        self.days = int(self.month_starts[-1])

    def day(self, year: Any, month: Any, day: Any) -> Any:
        """Return the days from 0000-01-01 to a date, or to each date of arrays."""
        cycle, year = divmod(year, self.years)
        return cycle * self.days + self.month_starts[year * 12 + month - 1] + day - 1

    def date(self, days: _Array) -> tuple[_Array, _Array, _Array]:
        """Return year, month and day of the month of days after 0000-01-01."""
        cycle, rest = np.divmod(days, self.days)
        month = np.searchsorted(self.month_starts, rest, side="right") - 1
        return cycle * self.years + month // 12, month % 12 + 1, rest - self.month_starts[month] + 1


def _cycle(leap_years: Sequence[bool]) -> Cycle:
    lengths = ((31, 29 if leap else 28, 31, 30, 31, 30, 31, 31, 30, 31, 30, 31) for leap in leap_years)
    return Cycle(list(chain.from_iterable(lengths)))


_GREGORIAN = _cycle([year % 4 == 0 and (year % 100 != 0 or year == 0) for year in range(400)])
_JULIAN = _cycle([True, False, False, False])
_CALENDARS = {
    "standard": _GREGORIAN,  # Julian before the reform
    "proleptic_gregorian": _GREGORIAN,
    "julian": _JULIAN,
    "noleap": _cycle([False]),
    "all_leap": _cycle([True]),
    "360_day": Cycle([30] * 12),
}
_ALIASES = {"gregorian": "standard", "365_day": "noleap", "366_day": "all_leap"}
_WITHOUT_YEAR_ZERO = ("standard", "julian")
_REFORM = int(_GREGORIAN.day(1582, 10, 15))
_JULIAN_LEAD = 2  # 0000-01-01 came two days earlier in the Julian calendar than in the Gregorian


@dataclass(frozen=True, slots=True)
class Clock:
    """The unit, epoch and calendar of stored times.

    Parameters
    ----------
    tick : int
        Nanoseconds of one unit.
    epoch : int
        Nanoseconds from 1970-01-01T00:00:00 of the calendar to the epoch; 0 for a duration.
    calendar : str
        CF name of the calendar, without its aliases.
    """

    tick: int
    epoch: int = 0
    calendar: str = "proleptic_gregorian"

    def count(self, numbers: _Array, step: int) -> npt.NDArray[np.int64]:
        """Return the time of each stored number in steps of ``step`` nanoseconds from 1970 of the calendar.

        Integers are exact; if a step is longer than a tick, they are rounded down. The whole part and the fraction of a
        float are converted separately, the fraction to the nearest step.

        Raises
        ------
        OverflowError
            If int64 cannot hold a time.
        """
        fractional = numbers.dtype.kind == "f"
        whole = np.floor(numbers) if fractional else numbers
        first, last = int(whole.min()), int(whole.max())
        low, high = ((number * self.tick + self.epoch) // step for number in (first, last + fractional))
        if min(first, low - 1) < NAT or max(last, high) > ~NAT:
            raise OverflowError
        ticks = whole.astype(np.int64)
        if self.tick >= step:
            # the product and the epoch may each wrap around, but their sum fits and is right
            epoch = (self.epoch // step - NAT) % 2**64 + NAT
            counts = ticks * (self.tick // step) + epoch
        else:
            quotient, remainder = divmod(self.epoch // self.tick, step // self.tick)
            steps, ticks = np.divmod(ticks, step // self.tick)
            counts = steps + (ticks + remainder) // (step // self.tick) + quotient
        if fractional:
            counts += np.rint((numbers - whole) * (self.tick / step)).astype(np.int64)
        return counts

    def datetimes(self, numbers: _Array, step: int) -> npt.NDArray[np.int64]:
        """Return the date and time with the same label in the proleptic Gregorian calendar, in steps from 1970.

        The clock's own calendar is proleptic Gregorian, standard or noleap, because it has all of their dates.

        Raises
        ------
        OverflowError
            If int64 cannot hold a time, or a date of the standard calendar is before the reform.
        """
        counts = self.count(numbers, step)
        steps_per_day = _DAY // step
        if self.calendar == "standard" and int(counts.min()) // steps_per_day + _days_to_1970("standard") < _REFORM:
            raise OverflowError
        if self.calendar == "noleap":
            days, rest = np.divmod(counts, steps_per_day)
            days = _GREGORIAN.day(*self._date(days)) - _days_to_1970("proleptic_gregorian")
            low, high = int(days.min()) * steps_per_day, (int(days.max()) + 1) * steps_per_day
            if low <= NAT or high > ~NAT:
                raise OverflowError
            counts = days * steps_per_day + rest
        return counts

    def texts(self, numbers: _Array, *, fraction: bool) -> npt.NDArray[np.bytes_]:
        """Return dates and times in ISO 8601, to the second, or with ``fraction`` to the microsecond.

        Raises
        ------
        OverflowError
            If a year lacks four digits, or a fraction would be lost.
        """
        days, rest = np.divmod(self.count(numbers, 1_000), _DAY // 1_000)
        year, month, day = self._date(days)
        seconds, microseconds = np.divmod(rest, 1_000_000)
        if year.min() < 0 or year.max() > 9999 or (not fraction and microseconds.any()):
            raise OverflowError
        pattern = b"0000-00-00T00:00:00.000000" if fraction else b"0000-00-00T00:00:00"
        fields = [(0, 4, year), (5, 2, month), (8, 2, day)]
        fields += [(11, 2, seconds // 3600), (14, 2, seconds // 60 % 60), (17, 2, seconds % 60)]
        fields += [(20, 6, microseconds)] if fraction else []
        letters = np.tile(np.frombuffer(pattern, np.uint8), (len(numbers), 1))
        for start, width, field in fields:
            for place in range(width):
                letters[:, start + width - 1 - place] += (field // 10**place % 10).astype(np.uint8)
        return letters.view(f"S{len(pattern)}").reshape(-1)

    def _date(self, days: _Array) -> tuple[_Array, _Array, _Array]:
        days = days + _days_to_1970(self.calendar)
        date = _CALENDARS[self.calendar].date(days)
        if self.calendar == "standard" and (before := days < _REFORM).any():
            julian = _JULIAN.date(days + _JULIAN_LEAD)
            year, month, day = (np.where(before, old, new) for old, new in zip(julian, date, strict=True))
            return year, month, day
        return date


def _days_to_1970(calendar: str) -> int:
    return int(_CALENDARS[calendar].day(1970, 1, 1))


_SINCE = re.compile(r"\s*(\S+)\s+since\s+(\S.*)", re.IGNORECASE)
_MAX_UNITS_LETTERS = 200  # the patterns take quadratic time
_EPOCH = re.compile(
    r"(?P<year>[+-]?\d{1,6}) (?:-(?P<month>0?[1-9]|1[0-2]) (?:-(?P<day>\d{1,2}))?)?"
    r"(?:[T\ ]\ *(?P<hour>[01]?\d|2[0-3]) (?::(?P<minute>[0-5]?\d) (?::(?P<second>[0-5]?\d)(?:\.(?P<fraction>\d*))?)?)?)?"
    r"\ *(?:Z|UTC|GMT|(?P<sign>[+-])(?P<zone_hours>\d{1,2})(?::?(?P<zone_minutes>\d{2}))?)?\s*",
    re.IGNORECASE | re.ASCII | re.VERBOSE,
)


def clock_since(units: str, calendar: str) -> Clock | None:
    """Return the clock of a CF time.

    Parameters
    ----------
    units : str
        ``<unit> since <epoch>``.
    calendar : str
        CF name or alias of the calendar, in any case.

    Returns
    -------
    Clock or None
        None if the unit, the calendar or the form of the epoch is unknown, or the calendar lacks that date.

    Notes
    -----
    The tests compare results with ``cftime.num2date``.
    """
    match = _SINCE.fullmatch(units) if len(units) <= _MAX_UNITS_LETTERS else None
    calendar = _ALIASES.get(calendar.lower(), calendar.lower())
    if match is None or calendar not in _CALENDARS:
        return None
    unit, epoch = match[1].lower(), _epoch(match[2], calendar)
    month = 30 * _DAY if calendar == "360_day" and unit in ("month", "months") else None
    tick = NANOSECONDS.get(unit, month)
    return None if tick is None or epoch is None else Clock(tick, epoch, calendar)


def _epoch(text: str, calendar: str) -> int | None:
    """Return the nanoseconds from 1970 of the calendar to a date and time; None if the calendar lacks that date."""
    match = _EPOCH.fullmatch(re.sub(r"^(\d{4})(\d{2})(\d{2})(?!\d)", r"\1-\2-\3", text))
    if match is None:
        return None
    part = {name: int(digits or 0) for name, digits in match.groupdict("").items() if name not in ("sign", "fraction")}
    year, month, day = part["year"], part["month"] or 1, 1 if match["day"] is None else part["day"]
    if calendar in _WITHOUT_YEAR_ZERO:
        if year == 0:
            return None
        year += year < 0  # these calendars write 1 BC as -1; the arithmetic needs 0
    cycle, lead = _CALENDARS[calendar], 0
    if calendar == "standard" and (year, month, day) < (1582, 10, 15):
        cycle, lead = _JULIAN, _JULIAN_LEAD
    days = cycle.day(year, month, day)
    if tuple(map(int, cycle.date(days))) != (year, month, day) or (lead and (year, month, day) > (1582, 10, 4)):
        return None
    minutes = part["hour"] * 60 + part["minute"]
    zone = part["zone_hours"] * 60 + part["zone_minutes"]
    minutes += zone if match["sign"] == "-" else -zone
    seconds = (int(days) - lead - _days_to_1970(calendar)) * 86_400 + minutes * 60 + part["second"]
    return seconds * SECOND + int((match["fraction"] or "").ljust(9, "0")[:9])
