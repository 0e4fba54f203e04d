"""What the stored values of an array mean: CF decoding, and which Polars type each stored type becomes.

The rules are those of the CF conventions as xarray reads them, with these differences:

- Masked values become null, and integers stay integers. Fill values are compared in the stored type, so that ``1e20``
  masks float32 data. In Zarr v2 the array's ``fill_value`` is CF's ``_FillValue``, also where an attribute of that
  name adds another. A stored bool has no value to spare for a fill, so none is honoured there.
- Packed values (``scale_factor``, ``add_offset``) are always Float64. As in xarray, ``valid_min``, ``valid_max`` and
  ``valid_range`` mask nothing.
- Times become Datetime with the calendar's own labels wherever Polars has every such date: in the Gregorian calendars
  and in noleap, where elapsed time across a 29 February follows the labels, a day longer than the calendar's own.
  Dates of 360_day, julian and all_leap, and of the standard calendar before 15 October 1582, become ISO 8601 text
  of fixed width, ``YYYY-MM-DDTHH:MM:SS``, which sorts, compares and prunes like a time. Its fraction, ``.ffffff``, is
  there always or never within one array.
- What cannot be a time stays a number: calendars and units that are unknown, epochs that do not exist, months and years
  (but a month of 360_day is thirty days), and values that the caller's sample shows to be out of every range.
- A plain unit of time, ``hours`` or ``days``, makes a coordinate a duration, and a data variable only together with the
  attribute ``dtype: timedelta64[...]``.

A null that no attribute declares comes from NaT alone, and from NaN among times.
"""

import re
import struct
from base64 import b64decode
from collections.abc import Sequence
from dataclasses import dataclass, replace
from functools import reduce
from itertools import chain
from math import isinf, isnan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.exceptions import StoreFormatError
from rainbear_dask.metadata import ArrayMeta

_Array = npt.NDArray[Any]

_COLUMN_TYPES: dict[np.dtype[Any], pl.DataType] = {
    np.dtype("bool"): pl.Boolean(),
    np.dtype("int8"): pl.Int8(),
    np.dtype("int16"): pl.Int16(),
    np.dtype("int32"): pl.Int32(),
    np.dtype("int64"): pl.Int64(),
    np.dtype("uint8"): pl.UInt8(),
    np.dtype("uint16"): pl.UInt16(),
    np.dtype("uint32"): pl.UInt32(),
    np.dtype("uint64"): pl.UInt64(),
    np.dtype("float16"): pl.Float32(),
    np.dtype("float32"): pl.Float32(),
    np.dtype("float64"): pl.Float64(),
}

_SECOND = 1_000_000_000
_DAY = 86_400 * _SECOND
_UNIT_SPELLINGS = {
    1: ("nanoseconds", "nanosecond", "ns"),
    1_000: ("microseconds", "microsecond", "microsecs", "microsec", "us"),
    1_000_000: ("milliseconds", "millisecond", "millisecs", "millisec", "msecs", "msec", "ms"),
    _SECOND: ("seconds", "second", "secs", "sec", "s"),
    60 * _SECOND: ("minutes", "minute", "mins", "min"),
    3600 * _SECOND: ("hours", "hour", "hrs", "hr", "h"),
    _DAY: ("days", "day", "d"),
}
_NANOSECONDS = {word: size for size, words in _UNIT_SPELLINGS.items() for word in words}
_NUMPY_UNITS = {"W": 7 * _DAY, "D": _DAY, "h": 3600 * _SECOND, "m": 60 * _SECOND}
_NUMPY_UNITS |= {"s": _SECOND, "ms": 1_000_000, "us": 1_000, "ns": 1}

_NAT = np.iinfo(np.int64).min  # what numpy, xarray and pandas store for "not a time"


class Cycle:
    """A calendar as a cycle of months, from 1 January of year 0: enough to tell dates from days, and days from dates.

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
        """Days from 0000-01-01 to a date, or to each of many."""
        cycle, year = divmod(year, self.years)
        return cycle * self.days + self.month_starts[year * 12 + month - 1] + day - 1

    def date(self, days: _Array) -> tuple[_Array, _Array, _Array]:
        """Year, month and day of the month, so many days after 0000-01-01."""
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
_WITH_DATETIME_LABELS = ("standard", "proleptic_gregorian", "noleap")
_WITHOUT_YEAR_ZERO = ("standard", "julian")
_REFORM = int(_GREGORIAN.day(1582, 10, 15))
_JULIAN_LEAD = 2  # 0000-01-01 came two days earlier in the Julian calendar than in the Gregorian


@dataclass(frozen=True, slots=True)
class Clock:
    """What a stored number of time counts.

    Parameters
    ----------
    tick : int
        Nanoseconds in one.
    epoch : int
        Nanoseconds from 1970-01-01T00:00:00 of the calendar to the time that 0 stands for; 0 for a duration.
    calendar : str
        CF name of the calendar, without its aliases.
    """

    tick: int
    epoch: int = 0
    calendar: str = "proleptic_gregorian"

    def count(self, numbers: _Array, step: int) -> npt.NDArray[np.int64]:
        """Steps of ``step`` nanoseconds from 1970 of the calendar to each stored number.

        Integers are counted exactly, downwards where a step is longer than a tick. The whole part and the fraction of a
        float are counted apart, the fraction to the nearest step. Raises OverflowError where int64 does not hold it.
        """
        fractional = numbers.dtype.kind == "f"
        whole = np.floor(numbers) if fractional else numbers
        first, last = int(whole.min()), int(whole.max())
        low, high = ((number * self.tick + self.epoch) // step for number in (first, last + fractional))
        if min(first, low - 1) < _NAT or max(last, high) > ~_NAT:
            raise OverflowError
        ticks = whole.astype(np.int64)
        if self.tick >= step:
            # The product and the epoch may each wrap around; their sum, which fits, comes out right all the same.
            epoch = (self.epoch // step - _NAT) % 2**64 + _NAT
            counts = ticks * (self.tick // step) + epoch
        else:
            quotient, remainder = divmod(self.epoch // self.tick, step // self.tick)
            steps, ticks = np.divmod(ticks, step // self.tick)
            counts = steps + (ticks + remainder) // (step // self.tick) + quotient
        if fractional:
            counts += np.rint((numbers - whole) * (self.tick / step)).astype(np.int64)
        return counts

    def datetimes(self, numbers: _Array, step: int) -> npt.NDArray[np.int64]:
        """Steps from 1970 in Polars' calendar, the proleptic Gregorian, to the date and time with the same label."""
        counts = self.count(numbers, step)
        steps_per_day = _DAY // step
        if self.calendar == "standard" and int(counts.min()) // steps_per_day + _days_to_1970("standard") < _REFORM:
            raise OverflowError
        if self.calendar == "noleap":
            days, rest = np.divmod(counts, steps_per_day)
            days = _GREGORIAN.day(*self._date(days)) - _days_to_1970("proleptic_gregorian")
            low, high = int(days.min()) * steps_per_day, (int(days.max()) + 1) * steps_per_day
            if low <= _NAT or high > ~_NAT:
                raise OverflowError
            counts = days * steps_per_day + rest
        return counts

    def texts(self, numbers: _Array, *, fraction: bool) -> pl.Series:
        """Dates and times in ISO 8601, to the second, or with ``fraction`` to the microsecond."""
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
        return pl.Series(letters.view(f"S{len(pattern)}").reshape(-1)).cast(pl.String)

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


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the stored values of one array become a Polars column: plain data that pickles, compares and hashes.

    Parameters
    ----------
    path : str
        The array's path, for messages.
    dtype : DataType
        Type of the column.
    stored, number : numpy.dtype
        Type of the values as they are stored, and the type that their bytes are then read as.
    fills : tuple
        Values that become null, as ``number`` has them; text for strings.
    nan_is_fill : bool
        Whether NaN becomes null as well. (It is no part of ``fills``, because NaN equals nothing.)
    scale_factor, add_offset : float or None
        Unpacking, where either is given: ``stored * scale_factor + add_offset`` in float64.
    clock : Clock or None
        For times and durations, what the numbers count.
    fraction : bool
        For times as text, whether they show microseconds.
    """

    path: str
    dtype: pl.DataType
    stored: np.dtype[Any]
    number: np.dtype[Any]
    fills: tuple[Any, ...] = ()
    nan_is_fill: bool = False
    scale_factor: float | None = None
    add_offset: float | None = None
    clock: Clock | None = None
    fraction: bool = False

    def decode(self, values: _Array) -> pl.Series:
        """Turn stored values into a column.

        Parameters
        ----------
        values : ndarray
            Stored values, of any shape.

        Returns
        -------
        Series
            Of ``self.dtype``, without a name, in C order of ``values``; null where a value is masked. Numbers that need
            no decoding are adopted, not copied: change ``values`` no more.

        Raises
        ------
        StoreFormatError
            If a value has no place in the column: a time out of range, text that is not UTF-8.

        Notes
        -----
        The tests compare with ``xarray.decode_cf`` and with cftime.
        """
        flat = values.reshape(-1).astype(self.stored, copy=False)
        if flat.dtype.kind in "SUTO":
            return self._decode_text(flat)
        flat = flat.view(self.number)
        masked = self._masked(flat)
        if self.scale_factor is not None or self.add_offset is not None:
            flat = flat.astype(np.float64)
            if self.scale_factor is not None:
                flat *= self.scale_factor
            if self.add_offset is not None:
                flat += self.add_offset
        if self.clock is not None:
            return self._decode_time(self.clock, flat, masked)
        if self.dtype == pl.Boolean:
            flat = flat.astype(np.bool_, copy=False)
        elif flat.dtype == np.float16:
            flat = flat.astype(np.float32)
        series = pl.Series(flat)
        return series.set(pl.Series(masked), None) if masked is not None and masked.any() else series

    def _masked(self, flat: _Array) -> npt.NDArray[np.bool_] | None:
        """Where a value is a fill value; None, at no cost, where no fill is declared."""
        tests = [flat == self.number.type(fill) for fill in self.fills]
        if self.nan_is_fill:
            tests.append(np.isnan(flat))
        return reduce(np.logical_or, tests) if tests else None

    def _decode_time(self, clock: Clock, flat: _Array, masked: npt.NDArray[np.bool_] | None) -> pl.Series:
        if flat.dtype.kind == "f":
            flat = flat.astype(np.float64, copy=False)
            absent = np.isnan(flat)
        else:
            absent = flat == _NAT
        if masked is not None:
            absent |= masked
        if absent.all():
            return pl.Series([None], dtype=self.dtype).new_from_index(0, len(flat))
        if absent.any():
            flat = np.where(absent, flat[np.argmin(absent)], flat)  # no fill value may count as out of range
        try:
            if isinstance(self.dtype, pl.Datetime):
                series = pl.Series(clock.datetimes(flat, _NUMPY_UNITS[self.dtype.time_unit])).cast(self.dtype)
            elif isinstance(self.dtype, pl.Duration):
                series = pl.Series(clock.count(flat, _NUMPY_UNITS[self.dtype.time_unit])).cast(self.dtype)
            else:
                series = clock.texts(flat, fraction=self.fraction)
        except OverflowError:
            raise StoreFormatError(
                f"array {self.path!r} holds a time that its column, {self.dtype!r}, cannot hold: {flat.min()} to "
                f"{flat.max()} as stored. Read the store with decode=False, or leave the array out (variables=)."
            ) from None
        return series.set(pl.Series(absent), None) if absent.any() else series

    def _decode_text(self, flat: _Array) -> pl.Series:
        try:
            series = pl.Series(flat.tolist() if flat.dtype.kind == "O" else flat).cast(self.dtype)
        except (TypeError, pl.exceptions.PolarsError):
            raise StoreFormatError(
                f"array {self.path!r} holds values that are not text in UTF-8, unlike those its column, {self.dtype!r}, "
                "was chosen by. Leave the array out (variables=), or write it as numbers."
            ) from None
        fills = self.fills if self.dtype == pl.String else tuple(fill.encode() for fill in self.fills)
        return series.replace(list(fills), [None] * len(fills)) if fills else series


def decoding_of(
    array: ArrayMeta, *, coordinate: bool, decode: bool = True, mask: bool = True, sample: _Array | None = None
) -> Decoding:
    """Tell how an array becomes a column.

    Parameters
    ----------
    array : ArrayMeta
        The array; nothing of it is read.
    coordinate : bool
        Whether it is a coordinate, where a plain unit of time makes a duration.
    decode : bool
        False: the stored type and the stored values, whatever the attributes say.
    mask : bool
        False: fill values are values like others.
    sample : ndarray, optional
        Stored values, all or at least those of the first and last chunk, where ``needs_sample`` asks for them. The
        first of these that holds them all is chosen: Datetime("ns"), Datetime("us"), text with seconds, text with
        microseconds, the undecoded number; for bytes, String, then Binary. Without a sample: Datetime("ns") if the
        epoch is in its range, else "us"; text shows microseconds unless whole seconds are certain; bytes are String.

    Returns
    -------
    Decoding
        Its ``dtype`` is the column's; its ``decode`` turns any part of the stored values into that column.

    Raises
    ------
    StoreFormatError
        If no Polars type holds the values (complex, raw, structured), or an attribute makes no sense.

    Notes
    -----
    See the module's docstring for the rules, and where xarray's differ.
    """
    if array.dtype.kind in "SUTO":
        return _text_decoding(array, mask=decode and mask, sample=sample)
    if array.dtype.kind in "mM":
        return _numpy_time_decoding(array)
    if array.dtype not in _COLUMN_TYPES:
        raise _no_column(array)
    if not decode or array.dtype.kind == "b":
        return Decoding(array.path, _COLUMN_TYPES[array.dtype], array.dtype, array.dtype)
    numbers = _number_decoding(array, mask=mask)
    if (clock := _time_clock(array)) is not None:
        return _time_decoding(numbers, clock, sample)
    return _duration_or_flag_decoding(array, numbers, coordinate=coordinate)


def needs_sample(array: ArrayMeta) -> bool:
    """Whether the type of the column depends on values: CF times, and strings of bytes, which may not be text."""
    return array.dtype.kind in "SO" or (array.dtype.kind in "iuf" and _time_clock(array) is not None)


def _no_column(array: ArrayMeta) -> StoreFormatError:
    return StoreFormatError(
        f"array {array.path!r} is of type {array.dtype}, which no Polars column can hold; leave it out"
    )


def _text_decoding(array: ArrayMeta, *, mask: bool, sample: _Array | None) -> Decoding:
    fills = [fill.decode(errors="replace") if isinstance(fill, bytes) else fill for fill in _declared_fills(array)]
    texts = tuple(str(fill) for fill in fills if isinstance(fill, str)) if mask else ()
    text = Decoding(array.path, pl.String(), array.dtype, array.dtype, fills=texts)
    return _first_that_holds([text, replace(text, dtype=pl.Binary())], sample)


def _numpy_time_decoding(array: ArrayMeta) -> Decoding:
    stored = array.dtype
    if stored.kind == "M" and np.datetime_data(stored)[0] in ("Y", "M"):
        stored = np.dtype("datetime64[D]")  # the first day of it; their lengths differ
    unit, multiple = np.datetime_data(stored)
    if unit not in _NUMPY_UNITS:
        raise _no_column(array)
    dtype = pl.Datetime(_polars_unit(unit)) if stored.kind == "M" else pl.Duration(_polars_unit(unit))
    return Decoding(array.path, dtype, stored, np.dtype(np.int64), clock=Clock(multiple * _NUMPY_UNITS[unit]))


def _polars_unit(numpy_unit: str) -> Literal["ns", "us", "ms"]:
    return "ns" if numpy_unit == "ns" else "us" if numpy_unit == "us" else "ms"


def _number_decoding(array: ArrayMeta, *, mask: bool) -> Decoding:
    number = array.dtype
    unsigned = str(array.attributes.get("_Unsigned")).lower()
    if (number.kind, unsigned) in (("i", "true"), ("u", "false")):
        number = np.dtype(f"{'u' if number.kind == 'i' else 'i'}{number.itemsize}")
    fills = _fill_numbers(array, number) if mask else []
    scale_factor, add_offset = _number_attribute(array, "scale_factor"), _number_attribute(array, "add_offset")
    return Decoding(
        array.path,
        _COLUMN_TYPES[number] if scale_factor is None and add_offset is None else pl.Float64(),
        array.dtype,
        number,
        fills=tuple(fill for fill in fills if not isnan(fill)),
        nan_is_fill=any(isnan(fill) for fill in fills),
        scale_factor=scale_factor,
        add_offset=add_offset,
    )


def _time_decoding(numbers: Decoding, clock: Clock, sample: _Array | None) -> Decoding:
    time = replace(numbers, clock=clock)
    nanoseconds, microseconds = replace(time, dtype=pl.Datetime("ns")), replace(time, dtype=pl.Datetime("us"))
    short_text = replace(time, dtype=pl.String())
    long_text = replace(short_text, fraction=True)
    if sample is not None and sample.size:
        labelled = [nanoseconds, microseconds] if clock.calendar in _WITH_DATETIME_LABELS else []
        texts = [short_text, long_text] if clock.calendar not in ("proleptic_gregorian", "noleap") else []
        return _first_that_holds([*labelled, *texts, numbers], sample)
    if clock.calendar in _WITH_DATETIME_LABELS:
        return nanoseconds if abs(clock.epoch) < -_NAT else microseconds
    in_seconds = numbers.dtype.is_integer() and clock.tick % _SECOND == clock.epoch % _SECOND == 0
    return short_text if in_seconds else long_text


def _duration_or_flag_decoding(array: ArrayMeta, numbers: Decoding, *, coordinate: bool) -> Decoding:
    if (duration := _duration(array, coordinate=coordinate)) is not None:
        return replace(numbers, dtype=duration[0], clock=duration[1])
    if array.attributes.get("dtype") == "bool":  # as xarray stores them
        return replace(numbers, dtype=pl.Boolean())
    return numbers


def _first_that_holds(decodings: list[Decoding], sample: _Array | None) -> Decoding:
    """The first to decode the sample, or the last, which may be as unable as the others; without a sample, the first."""
    for decoding in decodings[:-1]:
        try:
            if sample is not None:
                decoding.decode(sample)
        except StoreFormatError:
            continue
        return decoding
    return decodings[-1]


_SINCE = re.compile(r"\s*(\S+)\s+since\s+(\S.*)", re.IGNORECASE)
_EPOCH = re.compile(
    r"(?P<year>[+-]?\d{1,6}) (?:-(?P<month>0?[1-9]|1[0-2]) (?:-(?P<day>\d{1,2}))?)?"
    r"(?:[T\ ]\ *(?P<hour>[01]?\d|2[0-3]) (?::(?P<minute>[0-5]?\d) (?::(?P<second>[0-5]?\d)(?:\.(?P<fraction>\d*))?)?)?)?"
    r"\ *(?:Z|UTC|GMT|(?P<sign>[+-])(?P<zone_hours>\d{1,2})(?::?(?P<zone_minutes>\d{2}))?)?\s*",
    re.IGNORECASE | re.ASCII | re.VERBOSE,
)


def _time_clock(array: ArrayMeta) -> Clock | None:
    """The clock of CF time ``<unit> since <epoch>``, or None where the attributes give none."""
    match = _SINCE.fullmatch(str(array.attributes.get("units", "")))
    calendar = str(array.attributes.get("calendar", "standard")).lower()
    calendar = _ALIASES.get(calendar, calendar)
    if match is None or calendar not in _CALENDARS:
        return None
    unit, epoch = match[1].lower(), _epoch(match[2], calendar)
    month = 30 * _DAY if calendar == "360_day" and unit in ("month", "months") else None
    tick = _NANOSECONDS.get(unit, month)
    return None if tick is None or epoch is None else Clock(tick, epoch, calendar)


def _epoch(text: str, calendar: str) -> int | None:
    """Nanoseconds from 1970 of the calendar to a date and time, or None where the calendar has no such date."""
    match = _EPOCH.fullmatch(re.sub(r"^(\d{4})(\d{2})(\d{2})(?!\d)", r"\1-\2-\3", text))
    if match is None:
        return None
    part = {name: int(digits or 0) for name, digits in match.groupdict("").items() if name not in ("sign", "fraction")}
    year, month, day = part["year"], part["month"] or 1, 1 if match["day"] is None else part["day"]
    if calendar in _WITHOUT_YEAR_ZERO:
        if year == 0:
            return None
        year += year < 0  # 1 BC is written -1 there, and is year 0 of the arithmetic
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
    return seconds * _SECOND + int((match["fraction"] or "").ljust(9, "0")[:9])


def _duration(array: ArrayMeta, *, coordinate: bool) -> tuple[pl.Duration, Clock] | None:
    """Type and clock of a duration, or None where the attributes declare none."""
    unit = str(array.attributes.get("units")).lower()
    tick = _NANOSECONDS.get(unit)
    declared = re.fullmatch(r"timedelta64\[(\w+)\]", str(array.attributes.get("dtype")))
    if declared is not None and declared[1] in _NUMPY_UNITS:
        return pl.Duration(_polars_unit(declared[1])), Clock(tick or _NUMPY_UNITS[declared[1]])
    if coordinate and tick is not None and len(unit) > 1:
        return pl.Duration("ns"), Clock(tick)
    return None


def _declared_fills(array: ArrayMeta) -> list[Any]:
    declared = [*_as_list(array.attributes.get("_FillValue")), *_as_list(array.attributes.get("missing_value"))]
    return [*declared, array.fill_value] if array.zarr_format == 2 else declared


def _fill_numbers(array: ArrayMeta, number: np.dtype[Any]) -> list[float]:
    """Declared fills as ``number`` has them, without those that no stored value can equal."""
    fills = []
    for declared in _declared_fills(array):
        if (fill := _to_number(declared)) is None:
            continue
        if (stored := _exact(fill, array.dtype)) is not None:
            fills.append(np.array(stored, array.dtype).view(number).item())
        elif (stored := _exact(fill, number)) is not None:  # with _Unsigned, some write 255 for the byte that is -1
            fills.append(stored)
    return list(dict.fromkeys(fills))


def _exact(fill: float, dtype: np.dtype[Any]) -> float | None:
    """A fill value in a stored type: rounded to a float type, but unchanged in an integer type, or None."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            rounded = float(dtype.type(fill))
        return rounded if isinf(rounded) == isinf(fill) else None
    limits = np.iinfo(dtype)
    return int(fill) if limits.min <= fill <= limits.max and int(fill) == fill else None


def _number_attribute(array: ArrayMeta, name: str) -> float | None:
    listed = _as_list(array.attributes.get(name))
    if not listed:
        return None
    if len(listed) > 1 or (number := _to_number(listed[0])) is None:
        raise StoreFormatError(
            f"array {array.path!r} has {name} {array.attributes[name]!r}, which is not a number. "
            "Read the store with decode=False, or leave the array out (variables=)."
        )
    return float(number)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _to_number(value: Any) -> float | None:
    """A number from JSON, from text, or from base64 of a little-endian double, which is how xarray writes fills."""
    if not isinstance(value, str):
        number = value.item() if isinstance(value, np.generic) else value
        return number if isinstance(number, int | float) else None
    for parse in (int, float, lambda text: struct.unpack("<d", b64decode(text, validate=True))[0]):
        try:
            return parse(value)
        except (ValueError, struct.error):
            continue
    return None
