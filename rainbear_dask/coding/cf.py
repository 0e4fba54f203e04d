"""CF decoding: the column type of each array, and its values from stored values.

The rules are the CF conventions as xarray applies them, with these differences:

- Masked values become null, and integers stay integers. Fill values are compared in the stored type, so that ``1e20``
  masks float32 data. In Zarr v2 the array's ``fill_value`` counts as CF's ``_FillValue``, beside an attribute of that
  name. Fills of a stored bool are ignored, because a bool has no spare value.
- Packed values (``scale_factor``, ``add_offset``) are always Float64. As in xarray, ``valid_min``, ``valid_max`` and
  ``valid_range`` mask nothing.
- Times become Datetime with the calendar's own labels if Polars has every such date: in the Gregorian calendars and in
  noleap. In noleap, elapsed time across a 29 February follows the labels, one day longer than the calendar's own.
  Dates of 360_day, julian and all_leap, and of the standard calendar before 15 October 1582, become ISO 8601 text
  of fixed width, ``YYYY-MM-DDTHH:MM:SS``, which sorts, compares and prunes like a time. Within one array, either all
  texts have a fraction, ``.ffffff``, or none.
- These stay numbers: unknown calendars and units, epochs that do not exist, months and years (but a month of 360_day is
  30 days), and values that the sample shows to be out of every range.
- A plain unit of time, ``hours`` or ``days``, makes a coordinate a duration. A data variable also needs the attribute
  ``dtype: timedelta64[...]``.
- The attribute ``_Encoding`` names the text encoding of bytes. Without it, bytes that are all UTF-8 become String, and
  others Binary.

Only NaT, and NaN among times, become null without a declaration.
"""

import re
from dataclasses import dataclass, replace
from functools import reduce
from math import isnan
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.coding.attributes import declared_fills, fill_numbers, number_attribute
from rainbear_dask.coding.calendars import NANOSECONDS, NAT, NUMPY_NANOSECONDS, SECOND, Clock, clock_since
from rainbear_dask.coding.texts import as_column, encoding_of, fills_of, is_foreign
from rainbear_dask.exceptions import StoreFormatError
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.resources.buffers import borrow_array

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

_WITH_DATETIME_LABELS = ("standard", "proleptic_gregorian", "noleap")
"""Calendars whose dates Polars has."""


@dataclass(frozen=True, slots=True)
class Decoding:
    """How the stored values of one array become a Polars column, as plain data that pickles, compares and hashes.

    Parameters
    ----------
    path : str
        Path of the array, for messages.
    dtype : DataType
        Type of the column.
    stored, number : numpy.dtype
        Type of the stored values, and the type as which their bytes are then read.
    fills : tuple
        Values that become null, of type ``number``. For strings, text or bytes, as in the column.
    nan_is_fill : bool
        Whether NaN becomes null as well. (``fills`` cannot hold it, because NaN equals nothing.)
    scale_factor, add_offset : float or None
        Unpacking: ``stored * scale_factor + add_offset`` in float64. Both None: none.
    clock : Clock or None
        For times and durations, the unit and the epoch.
    finer : {"ns", "us"} or None
        The unit in which times are decoded before they are rounded down to the unit of ``dtype``; None if that one.
    fraction : bool
        For times as text, whether they have microseconds.
    encoding : str
        For strings of bytes, Python's name of the codec that the attribute ``_Encoding`` declares; "" for none.
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
    finer: Literal["ns", "us", "ms"] | None = None
    fraction: bool = False
    encoding: str = ""

    def decode(self, values: _Array) -> pl.Series:
        """Decode stored values into a column.

        Parameters
        ----------
        values : ndarray
            Stored values, of any shape.

        Returns
        -------
        Series
            Of ``self.dtype``, without a name, in C order of ``values``. Masked values are null. Numbers that need no
            decoding share the memory of ``values``, which must not change afterwards.

        Raises
        ------
        StoreFormatError
            If the column cannot hold a value: a time out of range, text that is not UTF-8.

        Notes
        -----
        The tests compare results with ``xarray.decode_cf`` and cftime.
        """
        flat = values.reshape(-1).astype(self.stored, copy=False)
        if flat.dtype.kind in "SUTO":
            return self._decode_text(flat)
        flat, masked = self._unpack(flat.view(self.number))
        if self.clock is not None:
            return self._decode_time(self.clock, flat, masked)
        series = pl.Series(self._as_column(flat))
        return series.set(pl.Series(masked), None) if masked is not None and masked.any() else series

    @property
    def holds_numbers(self) -> bool:
        """Whether the column holds plain numbers or Booleans, so that `decode_numbers` works."""
        return self.clock is None and self.stored.kind not in "SUTOmM"

    @property
    def keeps_values(self) -> bool:
        """Whether the column holds the stored values, with NaN perhaps masked, so that nothing needs decoding."""
        unpacked = self.scale_factor is None and self.add_offset is None
        same = self.number == self.stored and self.number.kind in "iuf" and self.number != np.float16
        return self.holds_numbers and unpacked and same and not self.fills and self.dtype != pl.Boolean

    def decode_numbers(self, values: _Array) -> tuple[_Array, npt.NDArray[np.bool_] | None]:
        """Decode stored numbers without Polars.

        Parameters
        ----------
        values : ndarray
            Stored values, of any shape. ``holds_numbers`` is true.

        Returns
        -------
        ndarray
            The values of the column, of the same shape. Masked places hold any value.
        ndarray of bool or None
            The masked places; None if there is none.
        """
        flat = np.ascontiguousarray(values).reshape(-1).astype(self.stored, copy=False)
        numbers, masked = self._unpack(flat.view(self.number))
        if masked is not None:
            masked = masked.reshape(values.shape) if masked.any() else None
        return self._as_column(numbers).reshape(values.shape), masked

    def _unpack(self, flat: _Array) -> tuple[_Array, npt.NDArray[np.bool_] | None]:
        masked = self._masked(flat)
        if self.scale_factor is not None or self.add_offset is not None:
            packed, flat = flat, borrow_array(flat.shape, np.float64)
            flat[...] = packed
            if self.scale_factor is not None:
                flat *= self.scale_factor
            if self.add_offset is not None:
                flat += self.add_offset
        return flat, masked

    def _as_column(self, flat: _Array) -> _Array:
        if self.dtype == pl.Boolean:
            return flat.astype(np.bool_, copy=False)
        return flat.astype(np.float32) if flat.dtype == np.float16 else flat

    def _masked(self, flat: _Array) -> npt.NDArray[np.bool_] | None:
        """Return the mask of fill values; None, at no cost, if no fill is declared."""
        tests = [flat == self.number.type(fill) for fill in self.fills]
        if self.nan_is_fill:
            tests.append(np.isnan(flat))
        return reduce(np.logical_or, tests) if tests else None

    def holds_a_time(self, values: _Array) -> bool:
        """Whether any stored value is neither masked nor "not a time"."""
        flat = values.reshape(-1).astype(self.stored, copy=False).view(self.number)
        return not _absent(flat, self._masked(flat)).all()

    def _decode_time(self, clock: Clock, flat: _Array, masked: npt.NDArray[np.bool_] | None) -> pl.Series:
        absent = _absent(flat, masked)
        if absent.all():
            return pl.Series([None], dtype=self.dtype).new_from_index(0, len(flat))
        if absent.any():
            flat = np.where(absent, flat[np.argmin(absent)], flat)  # a fill value must not count as out of range
        if flat.dtype.kind == "f":
            flat = flat.astype(np.float64, copy=False)
        try:
            times: _Array
            exact = _in_unit(self.dtype, self.finer) if self.finer else self.dtype
            if isinstance(exact, pl.Datetime):
                times = clock.datetimes(flat, NUMPY_NANOSECONDS[exact.time_unit])
            elif isinstance(exact, pl.Duration):
                times = clock.count(flat, NUMPY_NANOSECONDS[exact.time_unit])
            else:
                times = clock.texts(flat, fraction=self.fraction)
        except OverflowError:
            raise StoreFormatError(
                f"Array {self.path!r} holds times from {flat.min()} to {flat.max()} as stored, and its column, "
                f"{self.dtype!r}, cannot hold all of them. Read the store with `decode=False`, or leave the array out "
                "with `variables=`."
            ) from None
        series = pl.Series(times).cast(exact).cast(self.dtype)
        return series.set(pl.Series(absent), None) if absent.any() else series

    def _decode_text(self, flat: _Array) -> pl.Series:
        series = as_column(flat, self.dtype, self.encoding, self.path)
        return series.replace(list(self.fills), [None] * len(self.fills)) if self.fills else series


def _in_unit(dtype: pl.DataType, unit: Literal["ns", "us", "ms"]) -> pl.DataType:
    return pl.Datetime(unit) if isinstance(dtype, pl.Datetime) else pl.Duration(unit)


def _absent(flat: _Array, masked: npt.NDArray[np.bool_] | None) -> npt.NDArray[np.bool_]:
    """Return the mask of absent times: NaN, NaT, or masked."""
    absent: npt.NDArray[np.bool_] = np.isnan(flat) if flat.dtype.kind == "f" else flat == NAT
    return absent if masked is None else absent | masked


def decoding_of(
    array: ArrayMeta, *, coordinate: bool, decode: bool = True, mask: bool = True, sample: _Array | None = None
) -> Decoding:
    """Choose the decoding of an array.

    Parameters
    ----------
    array : ArrayMeta
        The array; the function reads no value of it.
    coordinate : bool
        Whether the array is a coordinate. Only then does a plain unit of time make a duration.
    decode : bool
        Whether to apply attributes. If False, the column has the stored type and values.
    mask : bool
        Whether fill values become null.
    sample : ndarray, optional
        Stored values, the first and last chunk at least, if ``needs_sample`` is true. The first type that
        holds them all is chosen: Datetime("ns"), Datetime("us"), text with seconds, text with microseconds, the
        undecoded number. For bytes it is String, then Binary. Without a sample, or if all of it is masked, times are
        Datetime("ns") if the epoch is in its range, else "us". Text then has microseconds unless whole seconds are
        certain, and bytes are String.

    Returns
    -------
    Decoding
        Its ``dtype`` is the type of the column; its ``decode`` converts any part of the stored values.

    Raises
    ------
    StoreFormatError
        If no Polars type holds the values (complex, raw, structured), or an attribute is invalid.

    Notes
    -----
    The docstring of the module lists the rules, and the differences from xarray.
    """
    if array.dtype.kind in "SUTO":
        return _text_decoding(array, decode=decode, mask=mask, sample=sample)
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


def needs_sample(array: ArrayMeta, *, decode: bool = True) -> bool:
    """Whether the type of the column depends on values: for CF times, and for bytes that may not be text."""
    if array.dtype.kind in "SO":
        return not decode or "_Encoding" not in array.attributes
    return decode and array.dtype.kind in "iuf" and _time_clock(array) is not None


def _no_column(array: ArrayMeta) -> StoreFormatError:
    return StoreFormatError(f"Array {array.path!r} is of type {array.dtype}, which no Polars column can hold.")


def _text_decoding(array: ArrayMeta, *, decode: bool, mask: bool, sample: _Array | None) -> Decoding:
    encoding = encoding_of(array) if decode else ""
    fills = tuple(fills_of(array, declared_fills(array), encoding)) if decode and mask else ()
    words = tuple(word for fill in fills if (word := fill.decode(errors="ignore")).encode() == fill)
    text = Decoding(array.path, pl.String(), array.dtype, array.dtype, fills=words, encoding=encoding)
    if encoding:
        return text
    stored = replace(text, dtype=pl.Binary(), fills=fills)
    return stored if not decode and _is_declared_foreign(array) else _first_that_holds([text, stored], sample)


def _is_declared_foreign(array: ArrayMeta) -> bool:
    try:
        return is_foreign(encoding_of(array))
    except StoreFormatError:
        return True


def _numpy_time_decoding(array: ArrayMeta) -> Decoding:
    stored = array.dtype
    if stored.kind == "M" and np.datetime_data(stored)[0] in ("Y", "M"):
        stored = np.dtype("datetime64[D]")  # the first day, because years and months differ in length
    unit, multiple = np.datetime_data(stored)
    if unit not in NUMPY_NANOSECONDS:
        raise _no_column(array)
    dtype = pl.Datetime(_polars_unit(unit)) if stored.kind == "M" else pl.Duration(_polars_unit(unit))
    return Decoding(array.path, dtype, stored, np.dtype(np.int64), clock=Clock(multiple * NUMPY_NANOSECONDS[unit]))


def _polars_unit(numpy_unit: str) -> Literal["ns", "us", "ms"]:
    return "ns" if numpy_unit == "ns" else "us" if numpy_unit == "us" else "ms"


def _number_decoding(array: ArrayMeta, *, mask: bool) -> Decoding:
    number = array.dtype
    unsigned = str(array.attributes.get("_Unsigned")).lower()
    if (number.kind, unsigned) in (("i", "true"), ("u", "false")):
        number = np.dtype(f"{'u' if number.kind == 'i' else 'i'}{number.itemsize}")
    fills = fill_numbers(array, number) if mask else []
    scale_factor, add_offset = number_attribute(array, "scale_factor"), number_attribute(array, "add_offset")
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
    if sample is not None and numbers.holds_a_time(sample):
        labelled = [nanoseconds, microseconds] if clock.calendar in _WITH_DATETIME_LABELS else []
        texts = [short_text, long_text] if clock.calendar not in ("proleptic_gregorian", "noleap") else []
        return _first_that_holds([*labelled, *texts, numbers], sample)
    if clock.calendar in _WITH_DATETIME_LABELS:
        return nanoseconds if abs(clock.epoch) < -NAT else microseconds
    in_seconds = numbers.dtype.is_integer() and clock.tick % SECOND == clock.epoch % SECOND == 0
    return short_text if in_seconds else long_text


def _duration_or_flag_decoding(array: ArrayMeta, numbers: Decoding, *, coordinate: bool) -> Decoding:
    if (duration := _duration(array, coordinate=coordinate)) is not None:
        return replace(numbers, dtype=duration[0], clock=duration[1])
    if array.attributes.get("dtype") == "bool":  # the attribute with which xarray marks a bool
        return replace(numbers, dtype=pl.Boolean())
    return numbers


def _first_that_holds(decodings: list[Decoding], sample: _Array | None) -> Decoding:
    """Return the first decoding that can decode the sample, else the last; without a sample, the first."""
    for decoding in decodings[:-1]:
        try:
            if sample is not None:
                decoding.decode(sample)
        except StoreFormatError:
            continue
        return decoding
    return decodings[-1]


def _time_clock(array: ArrayMeta) -> Clock | None:
    """Return the clock of a CF time; None if the attributes declare no time."""
    return clock_since(str(array.attributes.get("units", "")), str(array.attributes.get("calendar", "standard")))


def _duration(array: ArrayMeta, *, coordinate: bool) -> tuple[pl.Duration, Clock] | None:
    """Return type and clock of a duration; None if the attributes declare no duration."""
    unit = str(array.attributes.get("units")).lower()
    tick = NANOSECONDS.get(unit)
    declared = re.fullmatch(r"timedelta64\[(\w+)\]", str(array.attributes.get("dtype")))
    if declared is not None and declared[1] in NUMPY_NANOSECONDS:
        return pl.Duration(_polars_unit(declared[1])), Clock(tick or NUMPY_NANOSECONDS[declared[1]])
    if coordinate and tick is not None and len(unit) > 1:
        return pl.Duration("ns"), Clock(tick)
    return None
