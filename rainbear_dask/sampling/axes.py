"""`Axis`: the labels along one dimension, ascending, and keys of points in the same type as the labels.

Times and durations are integers here: units of time since the epoch. So a search and a distance are exact.
"""

from dataclasses import dataclass
from typing import Any, TypeGuard

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.exceptions import PointsError
from rainbear_dask.indexing.index_set import Positions
from rainbear_dask.table.model import Column

Values = npt.NDArray[Any]
Valid = npt.NDArray[np.bool_]

FULL_CIRCLE = 360.0
"""Period of a longitude, in degrees."""

_COPIES = 40
"""Labels of a circle that are repeated on either side of it, at most: more than any method looks at."""

_UNITS = {"ms": 10**3, "us": 10**6, "ns": 10**9}  # per second, coarsest first
_LARGEST = 2**63 - 1

_TEXTS = (pl.String, pl.Categorical, pl.Enum)

_NAMES = {
    "longitude": {"lon", "long", "longitude", "lng", "nav_lon", "xlong"},
    "latitude": {"lat", "latitude", "nav_lat", "xlat"},
}
_DEGREES = {  # CF's spellings, without case
    "longitude": {"degrees_east", "degree_east", "degrees_e", "degree_e", "degreese", "degreee"},
    "latitude": {"degrees_north", "degree_north", "degrees_n", "degree_n", "degreesn", "degreen"},
}


@dataclass(frozen=True)
class Axis:
    """Labels along one dimension.

    Parameters
    ----------
    dim : str
        The dimension.
    labels : ndarray, shape (n,)
        Distinct labels, ascending, without nulls and NaN. On a circle, copies continue them on both sides.
    positions : ndarray of int64, shape (n,)
        Position of each along the dimension: the first one if a label repeats.
    circle : (float, float) or None
        Least label and period of a circle; None for a line.
    has_repeats : bool
        Whether a label stands at several positions.
    """

    dim: str
    labels: Values
    positions: Positions
    circle: tuple[float, float] | None = None
    has_repeats: bool = False

    def keys_of(self, points: pl.Series, dtype: pl.DataType) -> tuple[Values, Valid]:
        """Return keys in the type of the labels, as `numbers_of` does, shifted by whole periods onto the circle.

        Keys that are there already do not change. Others are shifted before they are rounded to the type of the labels.
        """
        if self.circle is None:
            return numbers_of(points, dtype)
        keys, valid = numbers_of(points, pl.Float64())
        start, period = self.circle
        valid = valid & np.isfinite(keys)
        keys = np.where(valid, keys, start)
        return (keys - period * np.floor((keys - start) / period)).astype(self.labels.dtype), valid


def axis_of(dim: str, values: pl.Series, positions: Positions, dtype: pl.DataType, period: float | None) -> Axis:
    """Return the axis of some labels.

    Parameters
    ----------
    dim : str
        The dimension.
    values : Series
        Labels in the order of the dimension. Nulls and NaN match no point.
    positions : ndarray of int64
        Position of each label.
    dtype : DataType
        From `key_type`.
    period : float or None
        From `period_of`.
    """
    labels, valid = numbers_of(values, dtype)
    if not valid.all():
        labels, positions = labels[valid], positions[valid]
    if len(labels) > 1 and not (labels[1:] > labels[:-1]).all():
        distinct, first = np.unique(labels, return_index=True)
    else:
        distinct, first = labels, np.arange(len(labels))
    has_repeats, places = len(distinct) < len(labels), positions[first]
    if period is None or len(distinct) < 2:
        return Axis(dim, distinct, places, None, has_repeats)
    start, count = float(distinct[0]), min(len(distinct), _COPIES)
    step = np.asarray(period, distinct.dtype)
    # the labels themselves come first, so that they win if a copy is equal
    around = np.concatenate([distinct, distinct[-count:] - step, distinct[:count] + step])
    places = np.concatenate([places, places[-count:], places[:count]])
    around, first = np.unique(around, return_index=True)
    return Axis(dim, around, places[first], (start, period), has_repeats)


def numbers_of(values: pl.Series, dtype: pl.DataType) -> tuple[Values, Valid]:
    """Return values in the type of an axis, and which are neither null nor NaN; the others are undefined.

    Parameters
    ----------
    values : Series
        Labels or keys.
    dtype : DataType
        From `key_type`.
    """
    if values.dtype == pl.Null:
        return np.zeros(len(values), np.int64), np.zeros(len(values), np.bool_)
    valid = values.is_not_null().to_numpy()
    if isinstance(dtype, pl.Datetime | pl.Duration):
        return _ticks(values, dtype.time_unit), valid
    if dtype.is_numeric() or dtype == pl.Boolean:
        target = pl.UInt8() if dtype == pl.Boolean else dtype
        numbers = values.cast(target, strict=False)
        valid = numbers.is_not_null().to_numpy()
        found = numbers.fill_null(0).to_numpy()
        return found, valid & ~np.isnan(found) if found.dtype.kind == "f" else valid
    return values.cast(dtype).fill_null(b"" if dtype == pl.Binary else "").to_numpy().astype(object), valid


def _ticks(values: pl.Series, unit: str) -> npt.NDArray[np.int64]:
    """Count times in a unit; times beyond its range become the nearest in range."""
    ticks = values.to_physical().cast(pl.Int64).fill_null(0).to_numpy()
    if isinstance(values.dtype, pl.Date):
        own, wanted = 1, _UNITS[unit] * 86_400
    else:
        own, wanted = _UNITS[values.dtype.time_unit], _UNITS[unit]  # type: ignore[attr-defined]
    if wanted < own:
        return ticks // (own // wanted)
    return (
        ticks
        if wanted == own
        else np.clip(ticks, -(_LARGEST * own // wanted), _LARGEST * own // wanted) * (wanted // own)
    )


def are_whole(values: pl.Series, dtype: pl.DataType) -> Valid:
    """Whether values are whole numbers of the unit of time of an axis, so that `numbers_of` does not round them."""
    if not is_time(dtype) or not is_time(values.dtype) or _UNITS[dtype.time_unit] >= _UNITS[values.dtype.time_unit]:
        return np.ones(len(values), np.bool_)
    whole: Valid = (
        _ticks(values, values.dtype.time_unit) % (_UNITS[values.dtype.time_unit] // _UNITS[dtype.time_unit]) == 0
    )
    return whole


def key_type(labels: pl.DataType, keys: pl.DataType, where: str, *, interpolates: bool) -> pl.DataType:
    """Return the type in which labels and keys are compared.

    Parameters
    ----------
    labels, keys : DataType
        Types of the coordinate and of the points' column.
    where : str
        Names of both, for messages.
    interpolates : bool
        Whether distances become weights. Otherwise keys of a float coordinate are rounded to its type, as in xarray.

    Raises
    ------
    PointsError
        If they cannot be compared.
    """
    if keys == pl.Null:
        return labels
    if isinstance(keys, pl.Datetime) and keys.time_zone is not None:
        raise PointsError(
            f"{where}: the points have the time zone {keys.time_zone}, and coordinates have none. Convert them: "
            "pl.col(...).dt.convert_time_zone('UTC').dt.replace_time_zone(None)."
        )
    if isinstance(labels, pl.Datetime | pl.Duration):
        if isinstance(labels, pl.Datetime) and isinstance(keys, pl.Date):
            return labels
        if isinstance(keys, pl.Datetime | pl.Duration) and isinstance(keys, type(labels)):
            return type(labels)(max(labels.time_unit, keys.time_unit, key=_UNITS.__getitem__))
    elif labels.is_numeric() and keys.is_numeric():
        if interpolates:
            return pl.Float64()
        if labels.is_float() or labels == keys:
            return labels
        return pl.Int64() if keys.is_integer() and pl.UInt64 not in (labels, keys) else pl.Float64()
    elif labels == keys or (labels == pl.String and isinstance(keys, _TEXTS)):
        return labels
    hint = "Parse the text: pl.col(...).str.to_datetime()." if keys == pl.String else f"Give the points as {labels}."
    raise PointsError(f"{where}: the coordinate is {labels}, and the points are {keys}. {hint}")


def fitting_type(labels: pl.Series, dtype: pl.DataType) -> pl.DataType:
    """Return a type from `key_type`, or the labels' own type if it cannot hold them in the finer unit of time."""
    own = labels.dtype
    if not is_time(own) or not is_time(dtype) or labels.null_count() == len(labels):
        return dtype
    ticks = labels.drop_nulls().to_physical().to_numpy()
    most = max(-int(ticks.min()), int(ticks.max()))
    return dtype if most * (_UNITS[dtype.time_unit] // _UNITS[own.time_unit]) <= _LARGEST else own


def is_time(dtype: pl.DataType) -> "TypeGuard[pl.Datetime | pl.Duration]":
    """Whether values are times or durations."""
    return isinstance(dtype, pl.Datetime | pl.Duration)


def is_sphere(column: Column, kind: str) -> bool:
    """Whether a column holds longitudes, or latitudes, in degrees: by its attributes, else by its name.

    Parameters
    ----------
    column : Column
        The column.
    kind : {"longitude", "latitude"}
        The question.
    """
    attributes = column.array.attributes if column.array is not None else {}
    standard, units = attributes.get("standard_name"), str(attributes.get("units", "")).lower()
    if standard in _NAMES:
        return bool(standard == kind) and units != "radians"
    named = column.name.rpartition("/")[2].lower() in _NAMES[kind]
    return units in _DEGREES[kind] or (named and units in {"", "degrees", "degree"})


def period_of(column: Column, values: pl.Series) -> float | None:
    """Return the period of a longitude whose labels go around a full circle in even steps; None for a line."""
    if not column.dtype.is_numeric() or not is_sphere(column, "longitude") or len(values) < 3:
        return None
    labels = np.unique(values.cast(pl.Float64).drop_nulls().drop_nans().to_numpy())
    if len(labels) < 3:
        return None
    steps = np.diff(labels)
    gap = FULL_CIRCLE - (labels[-1] - labels[0])  # 0 if the last label repeats the first one
    even = steps.max() <= 1.5 * steps.min()
    return FULL_CIRCLE if even and -0.01 * steps.min() <= gap <= 1.5 * steps.max() else None
