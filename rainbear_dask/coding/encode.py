"""CF encoding: stored values from column values, the inverse of `cf.Decoding`.

Every encoded value decodes to the same value, or is refused. Packed values are the exception: they are rounded to the
nearest stored number.
"""

from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.coding.calendars import NANOSECONDS, NAT, NUMPY_NANOSECONDS, Clock
from rainbear_dask.coding.cf import Decoding
from rainbear_dask.exceptions import RowsError

_Array = npt.NDArray[Any]

_GREGORIAN = ("standard", "proleptic_gregorian")
_FIRST_DAY = -141_427 * NANOSECONDS["days"]  # 1582-10-15, the first day of the standard calendar that Polars has


def stored_fill(decoding: Decoding) -> Any:
    """Return the stored value that decodes to null, of type ``decoding.number``; None if there is none."""
    if decoding.fills:
        fill = decoding.fills[0]
        return fill if decoding.stored.kind in "SUTO" else decoding.number.type(fill)
    if decoding.nan_is_fill or (decoding.clock is not None and decoding.number.kind == "f"):
        return decoding.number.type(np.nan)
    return decoding.number.type(NAT) if decoding.clock is not None and decoding.number == np.int64 else None


def can_encode(decoding: Decoding) -> bool:
    """Whether `encode` inverts a decoding: not for text of times, foreign encodings, bytes and other calendars."""
    if decoding.clock is not None:
        is_time = isinstance(decoding.dtype, pl.Datetime | pl.Duration)
        return (
            is_time and decoding.clock.calendar in _GREGORIAN and decoding.scale_factor is decoding.add_offset is None
        )
    if decoding.stored.kind in "SUTO":
        return decoding.dtype == pl.String and decoding.encoding in ("", "utf-8") and decoding.stored.kind != "S"
    return decoding.stored.kind == "b" or (decoding.number == decoding.stored and decoding.dtype != pl.Boolean)


def encode(values: pl.Series, decoding: Decoding) -> _Array:
    """Return the stored values of a column.

    Parameters
    ----------
    values : Series
        Values of a type that converts to ``decoding.dtype`` without loss.
    decoding : Decoding
        How readers decode the array; `can_encode` is true of it.

    Returns
    -------
    ndarray, shape (len(values),)
        Of type ``decoding.stored``. Null is the declared fill value.

    Raises
    ------
    RowsError
        If the array cannot hold a value, if null has no fill value, or if a value would be read as null.
    """
    name, fill = values.name, stored_fill(decoding)
    null = values.is_null().to_numpy() if values.has_nulls() else None
    if null is not None and fill is None:
        raise RowsError(
            f"The column {name!r} has nulls, and its array declares no fill value. Declare one, "
            f"encoding={{{name!r}: {{'_FillValue': -1}}}}, or drop the nulls."
        )
    if decoding.stored.kind in "SUTO":
        return _texts(values, decoding, null, fill)
    if values.dtype != decoding.dtype and not (values.dtype.is_numeric() and decoding.dtype.is_integer()):
        values = _converted(values, decoding.dtype)
    if decoding.clock is not None:
        numbers = _times(values, decoding, decoding.clock)
    elif decoding.scale_factor is not None or decoding.add_offset is not None:
        numbers = _packed(values, decoding)
    else:
        numbers = _exact(values.fill_null(0).to_numpy() if null is not None else values.to_numpy(), decoding, name)
    hidden = numbers == fill if fill is not None and fill == fill else None  # noqa: PLR0124  NaN
    if hidden is not None and null is not None:
        hidden &= ~null
    if hidden is not None and hidden.any() and not _is_float_text(decoding):
        raise RowsError(
            f"The column {name!r} holds {values[int(hidden.argmax())]}, which is stored as the fill value {fill} and "
            "would be read as null. Declare another _FillValue in `encoding`."
        )
    if null is not None:
        numbers = np.where(null, fill, numbers).astype(decoding.number, copy=False)
    return numbers.view(decoding.stored)


def _is_float_text(decoding: Decoding) -> bool:
    return decoding.clock is not None and decoding.number == np.int64 and not decoding.fills


def _converted(values: pl.Series, dtype: pl.DataType) -> pl.Series:
    """Return values in another type, if none is changed by it."""
    name, found = values.name, values.dtype
    kinds = {_kind(found), _kind(dtype)}
    try:
        cast = values.cast(dtype)
        back = cast.cast(found)
    except pl.exceptions.PolarsError:
        kinds, back = {"", "other"}, values
    rounded = dtype == pl.Float32 and found == pl.Float64  # a stored precision that the caller chose
    if len(kinds) > 1 or not (rounded or back.equals(values)):
        raise RowsError(
            f"The column {name!r} is {found}, and its array holds {dtype}, which changes values. Cast it first."
        )
    return cast


def _kind(dtype: pl.DataType) -> str:
    if dtype.is_numeric():
        return "number"
    return "time" if dtype == pl.Date or isinstance(dtype, pl.Datetime) else str(dtype.base_type())


def _exact(numbers: _Array, decoding: Decoding, name: str) -> _Array:
    with np.errstate(invalid="ignore", over="ignore"):
        stored = numbers.astype(decoding.number)
        same = stored == numbers
    if decoding.number.kind == "f":
        return stored  # `_converted` has compared them, and float16 is a precision that the caller chose
    if not same.all():
        raise _does_not_fit(name, numbers[int(same.argmin())], decoding)
    return stored


def _packed(values: pl.Series, decoding: Decoding) -> _Array:
    scale, offset = decoding.scale_factor, decoding.add_offset
    numbers = values.fill_null(0 if offset is None else offset).to_numpy().astype(np.float64)
    numbers = (numbers - (0 if offset is None else offset)) / (1 if scale is None else scale)
    if decoding.number.kind == "f":
        return numbers.astype(decoding.number)
    numbers = np.rint(numbers)
    limits = np.iinfo(decoding.number)
    fits = (numbers >= limits.min) & (numbers <= limits.max)
    if not fits.all():
        raise _does_not_fit(values.name, values[int(fits.argmin())], decoding)
    return numbers.astype(decoding.number)


def _times(values: pl.Series, decoding: Decoding, clock: Clock) -> _Array:
    unit: Any = decoding.dtype
    step, name = NUMPY_NANOSECONDS[unit.time_unit], values.name
    counts = values.to_physical().fill_null(clock.epoch // step).to_numpy()
    first: Any = values.to_physical().min()  # without nulls
    if clock.calendar == "standard" and first is not None and int(first) * step < _FIRST_DAY:
        raise RowsError(
            f"The column {name!r} has dates before 1582-10-15, which the standard calendar counts otherwise. Declare "
            f"encoding={{{name!r}: {{'calendar': 'proleptic_gregorian'}}}}."
        )
    if step % clock.tick == 0:  # every step is a whole number of ticks
        whole = (
            [(int(end) * step - clock.epoch) // clock.tick for end in (counts.min(), counts.max())]
            if len(counts)
            else []
        )
        if any(not NAT < number < -NAT for number in whole) or clock.epoch % clock.tick:
            raise _does_not_fit(name, values[0], decoding)
        ticks = counts * (step // clock.tick) - np.int64(clock.epoch // clock.tick)
        return _exact(ticks, decoding, name)
    steps = clock.tick // step  # of one tick; both are divided first, because their difference may overflow
    ticks, rest = np.divmod(counts, steps)
    epoch_ticks, epoch_rest = divmod(clock.epoch // step, steps)
    ticks, rest = ticks - epoch_ticks - (rest < epoch_rest), (rest - epoch_rest) % steps
    if decoding.number.kind == "f":
        return (ticks + rest / steps).astype(decoding.number)
    if clock.epoch % step or rest.any():
        raise RowsError(
            f"The column {name!r} has times between the steps of its array, {clock.tick / 1e9:g} seconds. Declare finer "
            f"units: encoding={{{name!r}: {{'units': 'seconds since 1970-01-01'}}}}."
        )
    return _exact(ticks, decoding, name)


def _texts(values: pl.Series, decoding: Decoding, null: _Array | None, fill: Any) -> _Array:
    texts = values.cast(pl.String)
    if fill is not None and (texts == fill).any():
        raise RowsError(
            f"The column {values.name!r} holds the text {fill!r}, which is the fill value and would be read as null. "
            "Declare another _FillValue in `encoding`."
        )
    if null is not None:
        texts = texts.fill_null(fill)
    if decoding.stored.kind == "U":
        letters = decoding.stored.itemsize // 4
        if (texts.str.len_chars() > letters).any():
            raise RowsError(
                f"The column {values.name!r} has texts of more than {letters} letters, the most of its array."
            )
    found = np.empty(len(texts), dtype=object)
    found[:] = texts.to_list()
    return found.astype(decoding.stored, copy=False)


def _does_not_fit(name: str, value: Any, decoding: Decoding) -> RowsError:
    return RowsError(
        f"The column {name!r} holds {value}, which its array of {decoding.number} cannot hold. Declare another dtype, "
        f"encoding={{{name!r}: {{'dtype': 'float64'}}}}, or change the values."
    )
