"""The labels of an axis as interpolars sees them, and which of them a method needs: the others change no value."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

Method = Literal["nearest", "linear", "pchip", "akima", "makima", "cubic"]

_BESIDE: dict[Method, int] = {"nearest": 0, "linear": 0, "pchip": 1, "akima": 2, "makima": 2}
"""Labels that a method needs on either side of the interval around a target. A cubic spline needs the whole axis."""


def needed_labels(
    labels: npt.NDArray[np.float64], targets: npt.NDArray[np.float64], method: Method, *, extrapolate: bool
) -> npt.NDArray[np.bool_]:
    """Return which labels of an axis the targets need: with these alone, a method gives the same values.

    Parameters
    ----------
    labels : ndarray of float64, shape (n,)
        Ascending and distinct, without NaN; at least one.
    targets : ndarray of float64, shape (m,)
        In any order. For NaN, an interpolation looks at the first two labels.
    method : Method
        The method. "nearest" takes the lower one of two labels at the same distance.
    extrapolate : bool
        Whether a method extends its curve beyond the ends. Otherwise a target beyond an end has the value of that end.

    Returns
    -------
    ndarray of bool, shape (n,)
        For a target on a label, that label; else the labels of the interval around it, and as many on both sides as the
        method looks at. Without targets, the first label, because an interpolation refuses an empty axis.
    """
    last = len(labels) - 1
    needed = np.zeros(last + 1, np.bool_)
    if last == 0 or not len(targets):
        needed[0] = True
        return needed
    left = np.clip(np.searchsorted(labels, targets, side="right") - 1, 0, last - 1)
    left[np.isnan(targets)] = 0
    right = left + 1
    single = (labels[left] == targets) | (labels[right] == targets)
    nearer = np.where(np.abs(targets - labels[left]) <= np.abs(labels[right] - targets), left, right)
    if method == "nearest":
        single |= ~np.isnan(targets)
    elif not extrapolate:
        single |= (targets < labels[0]) | (targets > labels[-1])
    needed[nearer[single]] = True
    if single.all():
        return needed
    if method not in _BESIDE:
        return np.ones_like(needed)
    _mark(needed, left[~single] - _BESIDE[method], right[~single] + _BESIDE[method])
    return needed


def _mark(mask: npt.NDArray[np.bool_], first: npt.NDArray[Any], last: npt.NDArray[Any]) -> None:
    """Set a mask from each first to each last position, both included and clipped to the mask."""
    edges = np.zeros(len(mask) + 1, np.int64)
    np.add.at(edges, np.maximum(first, 0), 1)
    np.add.at(edges, np.minimum(last + 1, len(mask)), -1)
    mask |= edges[:-1].cumsum() > 0


def as_floats(labels: pl.Series, targets: pl.Series, *, finds_units: bool) -> tuple[Any, Any]:
    """Return labels and targets as interpolars sees them: as float64, times in the finer unit. Null targets are absent."""
    if finds_units and (common := common_time(labels.dtype, targets.dtype)) is not None:
        labels, targets = labels.cast(common), targets.cast(common)
    axis = labels.cast(pl.Float64, strict=False).fill_null(float("nan")).to_numpy()
    return axis, targets.cast(pl.Float64, strict=False).drop_nulls().to_numpy()


_UNITS: tuple[Literal["ns", "us", "ms"], ...] = ("ns", "us", "ms")


def common_time(one: pl.DataType, other: pl.DataType) -> pl.DataType | None:
    """Return the type in which interpolars compares two types of time; None if it compares them as they are."""
    units = {dtype.time_unit for dtype in (one, other) if isinstance(dtype, pl.Datetime | pl.Duration)}
    finest = next((unit for unit in _UNITS if unit in units), _UNITS[0])
    if isinstance(one, pl.Duration) and isinstance(other, pl.Duration):
        return pl.Duration(finest)
    times = [dtype for dtype in (one, other) if isinstance(dtype, pl.Datetime)]
    if times and len(times) + (one == pl.Date) + (other == pl.Date) == 2:
        return pl.Datetime(finest, next((dtype.time_zone for dtype in times if dtype.time_zone), None))
    return None
