"""Dates and epochs of every calendar against cftime, and exact counting against Python's own integers."""

from fractions import Fraction

import cftime
import hypothesis.strategies as st
import numpy as np
import pytest
from hypothesis import given

from rainbear_dask.coding.calendars import Clock, clock_since
from tests.support.times import CALENDARS, EPOCHS, NANOSECONDS, SPELLINGS, YEAR, labels_by_cftime

DAY = NANOSECONDS["days"]


def labels(clock, numbers):
    """Dates and times as the calendar writes them, to the microsecond."""
    return clock.texts(numbers, fraction=True).astype(str).tolist()


# Epochs and units


@pytest.mark.parametrize(
    "units",
    [
        "days since 1970-1-1",
        "days since 1970-01",
        "days since 1970",
        "days since 19700101",
        "days Since 1970-01-01",
        "  days   since  1970-01-01 00 ",
        "days since 1970-01-01T0:0:0.000000000Z",
        "days since 1970-01-01 05:30 +05:30",
        "days since 1970-01-01 05:30:00+0530",
        "days since 1969-12-31 19:00:00 -5",
        "days since 1970-01-01 00:00:00.",
        "days since 1970-01-01 GMT",
        "day since 1970-01-01",
    ],
)
def test_epochs_are_read_in_every_common_form(units):
    clock = clock_since(units, "standard")

    assert clock == Clock(DAY, 0, "standard")
    assert labels(clock, np.array([31])) == ["1970-02-01T00:00:00.000000"]


@pytest.mark.parametrize(
    "unit", ["nanoseconds", "nanosecond", "ns", "microsec", "us", "millisecs", "ms", "sec", "min", "h"]
)
def test_units_are_read_in_every_common_form(unit):
    nanoseconds = {"n": 1, "u": 10**3, "ms": 10**6, "mi": 60 * 10**9, "s": 10**9, "h": 3600 * 10**9}
    nanoseconds |= {"microsec": 10**3, "millisecs": 10**6}
    tick = next(nanoseconds[key] for key in (unit, unit[:2], unit[:1]) if key in nanoseconds)

    clock = clock_since(f"{unit} since 1970-01-01", "standard")

    assert clock.datetimes(np.array([7]), 1).tolist() == [7 * tick]


@pytest.mark.parametrize("calendar", CALENDARS)
@given(year=st.integers(1, 3000) | st.just(1582), month=st.integers(1, 12), day=st.integers(1, 31))
def test_an_epoch_is_a_date_exactly_where_the_calendar_has_it(calendar, year, month, day):
    clock = clock_since(f"days since {year:04d}-{month:02d}-{day:02d}", calendar)

    try:
        cftime.datetime(year, month, day, calendar=calendar)
    except ValueError:
        assert clock is None
    else:
        assert labels(clock, np.array([0])) == [f"{year:04d}-{month:02d}-{day:02d}T00:00:00.000000"]


@pytest.mark.filterwarnings("ignore:this date/calendar/year zero convention")
@pytest.mark.parametrize("calendar", ["standard", "julian", "proleptic_gregorian", "noleap", "360_day"])
def test_epochs_before_christ_count_years_as_the_calendar_does(calendar):
    numbers, units = np.array([2_451_545]), "days since -4713-01-01 12:00"

    assert labels(clock_since(units, calendar), numbers) == labels_by_cftime(numbers, units, calendar)


def test_months_of_360_day_have_thirty_days_and_those_of_other_calendars_no_length():
    numbers, units = np.array([0, 1, 13]), "months since 2000-01-30"

    assert labels(clock_since(units, "360_day"), numbers) == labels_by_cftime(numbers, units, "360_day")
    assert {clock_since(units, calendar) for calendar in CALENDARS if calendar != "360_day"} == {None}


# Counting


@pytest.mark.parametrize("calendar", CALENDARS)
@given(data=st.data(), unit=st.sampled_from(sorted(SPELLINGS)), epoch=st.sampled_from(EPOCHS))
def test_numbers_have_the_labels_that_cftime_gives(calendar, data, unit, epoch):
    tick = NANOSECONDS[SPELLINGS[unit]]
    low = 0 if int(epoch.split("-")[0]) < 1000 else -900 * YEAR // tick
    numbers = np.array(data.draw(st.lists(st.integers(low, 4000 * YEAR // tick), min_size=1, max_size=8)))
    units = f"{unit} since {epoch}"
    clock, expected = clock_since(units, calendar), labels_by_cftime(numbers, units, calendar)

    assert labels(clock, numbers) == expected
    if clock.calendar in ("proleptic_gregorian", "noleap") or (
        clock.calendar == "standard" and min(expected) > "1582-10-15"
    ):
        microseconds = clock.datetimes(numbers, 1_000)
        assert np.datetime_as_string(microseconds.astype("M8[us]")).tolist() == expected


@given(
    numbers=st.lists(st.integers(-(2**63), 2**63 - 1), min_size=1, max_size=8),
    tick=st.sampled_from(sorted(NANOSECONDS.values())),
    epoch=st.integers(-(2**66), 2**66),
    step=st.sampled_from([1, 10**3, 10**6]),
)
def test_integers_are_counted_exactly_or_refused(numbers, tick, epoch, step):
    expected = [(number * tick + epoch) // step for number in numbers]

    try:
        actual = Clock(tick, epoch).count(np.array(numbers), step).tolist()
    except OverflowError:
        assert min(expected) <= -(2**63) or max(expected) > 2**63 - 1
    else:
        assert actual == expected


def test_float64_days_keep_what_their_bits_hold():
    numbers = 45_000 + np.arange(1, 1000) * 2.0**-37  # steps of 0.6 us
    clock = clock_since("days since 1900-01-01", "standard")

    actual = clock.datetimes(numbers, 1) - clock.epoch

    assert actual.tolist() == [round(Fraction(number) * DAY) for number in numbers.tolist()]


def test_nanoseconds_are_cut_to_microseconds_downwards():
    clock = clock_since("nanoseconds since 2400-01-01 00:00:00.0000005", "standard")

    counts = clock.count(np.array([0, 499, 500, -501]), 1_000)

    assert ((counts - counts[0]) % 1_000_000).tolist() == [0, 0, 1, 999_999]


def test_a_calendar_is_known_by_any_of_its_names_in_any_case():
    names = [("standard", "Gregorian"), ("noleap", "365_DAY"), ("all_leap", "366_day")]

    for name, alias in names:
        assert clock_since("days since 2000-01-01", alias) == clock_since("days since 2000-01-01", name) is not None
