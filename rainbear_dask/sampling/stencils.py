"""`Stencil`: the positions along one dimension whose values a method needs for each point, and their weights."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from typing import Any, Literal, get_args

import numpy as np
import numpy.typing as npt

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import PointsError
from rainbear_dask.indexing.index_set import Positions
from rainbear_dask.sampling.axes import Axis, Valid, Values

Method = Literal["exact", "nearest", "linear", "pchip", "akima", "makima", "cubic"]
Outside = Literal["null", "nearest", "error", "extrapolate"]

METHODS: tuple[Method, ...] = get_args(Method)
LOOKUPS: tuple[Method, ...] = ("exact", "nearest")
"""Methods that return stored values; all others interpolate."""

_WIDTHS = {"linear": 2, "pchip": 4, "akima": 6, "makima": 6}
"""Labels around a point that a method looks at."""

_TILE, _MARGIN = 256, 64
"""Labels of a cubic spline that are solved together, and labels beside them: their influence ends within 1e-36."""

_REACH = 32
"""Labels on either side of a point that a cubic spline looks at: on even steps, others weigh less than 1e-18."""


@dataclass(frozen=True)
class Stencil:
    """What a method needs along one dimension, for n points.

    Parameters
    ----------
    dim : str
        The dimension.
    method : Method
        The method.
    places : ndarray of int64, shape (n, s)
        Positions along the dimension, in the order of their labels. A position without weight equals one with weight,
        so that nothing is read for it.
    factors : ndarray of float64 or None
        For "linear", of shape (n, 1), the weight of the second position. For "cubic", of shape (n, s), all weights. For
        "pchip", "akima" and "makima", of shape (n, s), labels minus key. None for lookups.
    """

    dim: str
    method: Method
    places: Positions
    factors: npt.NDArray[np.float64] | None = None

    @property
    def width(self) -> int:
        """Number of positions per point."""
        return int(self.places.shape[1])

    def take(self, rows: npt.NDArray[Any]) -> "Stencil":
        """Return the stencil of some points."""
        return replace(self, places=self.places[rows], factors=None if self.factors is None else self.factors[rows])


def lookup(axis: Axis, keys: Values, *, exact: bool, outside: Outside) -> tuple[Stencil, Values, Valid, Valid]:
    """Find the nearest label of each key, or the equal one.

    Parameters
    ----------
    axis : Axis
        At least one label.
    keys : ndarray, shape (n,)
        In the type of the axis and on its circle, without NaN.
    exact : bool
        Whether other keys than labels match nothing.
    outside : Outside
        "nearest" finds the end label for keys beyond it.

    Returns
    -------
    stencil : Stencil
        The positions. Of two labels at the same distance, the larger one is found.
    labels : ndarray
        The labels that were found.
    found : ndarray of bool
        Which keys match a label.
    beyond : ndarray of bool
        Which keys are more than half a step beyond an end; with ``exact``, which keys are no label.
    """
    labels, last = axis.labels, len(axis.labels) - 1
    after = np.searchsorted(labels, keys)
    right = np.minimum(after, last)
    if exact:
        at, found = right, labels[right] == keys
        beyond = ~found
    else:
        left = np.maximum(after - 1, 0)
        at = np.where(keys - labels[left] < labels[right] - keys, left, right)
        beyond = _beyond_half_step(axis, keys)
        found = np.ones(len(keys), np.bool_) if outside == "nearest" else ~beyond
    return Stencil(axis.dim, "exact" if exact else "nearest", axis.positions[at][:, None]), labels[at], found, beyond


def _beyond_half_step(axis: Axis, keys: Values) -> Valid:
    labels = axis.labels
    if axis.circle is not None or len(labels) < 2:  # a single label has no step
        return np.zeros(len(keys), np.bool_)
    if labels.dtype.kind == "f":
        first, second, last_but_one, last = (float(labels[at]) for at in (0, 1, -2, -1))
        low, high = first - (second - first) / 2, last + (last - last_but_one) / 2
        return np.asarray((keys < low) | (keys > high))
    first, second, last_but_one, last = (int(labels[at]) for at in (0, 1, -2, -1))  # Python's numbers do not overflow
    return np.asarray((keys < first - (second - first) // 2) | (keys > last + (last - last_but_one) // 2))


def interpolation(axis: Axis, keys: Values, method: Method, outside: Outside) -> tuple[Stencil, Valid, Valid]:
    """Find the labels around each key.

    Parameters
    ----------
    axis : Axis
        At least one label, and no label at several positions.
    keys : ndarray, shape (n,)
        In the type of the axis and on its circle, without NaN.
    method : Method
        One that interpolates.
    outside : Outside
        "nearest" moves keys beyond an end to it; "extrapolate" continues the curve of the end.

    Returns
    -------
    stencil : Stencil
        Positions and factors.
    found : ndarray of bool
        Which keys have a value.
    beyond : ndarray of bool
        Which keys are beyond an end.

    Raises
    ------
    PointsError
        If the axis has too few labels for the method.
    MissingDependencyError
        If the method is "cubic" and SciPy is not installed.
    """
    labels, count = axis.labels, len(axis.labels)
    if method == "cubic" and count < 4:
        raise PointsError(f"Cubic needs four labels of {axis.dim!r}, which has {count}. Use method='linear'.")
    beyond = (keys < labels[0]) | (keys > labels[-1])
    found = ~beyond if outside in {"null", "error"} else np.ones(len(keys), np.bool_)
    if outside != "extrapolate" or count == 1:
        keys = np.clip(keys, labels[0], labels[-1])
    before = np.clip(np.searchsorted(labels, keys, side="right") - 1, 0, max(count - 2, 0))
    if method == "cubic":
        return _cubic(axis, keys, before), found, beyond
    if count <= 2:
        method = "linear"  # as every other method is there
    width = min(_WIDTHS[method], count)
    start = np.clip(before - (width // 2 - 1), 0, count - width)
    at = start[:, None] + np.arange(width)
    offsets = _differences(labels[at], keys[:, None])
    # A label that the key equals has all the weight.
    hit = offsets == 0
    on_label, places = hit.any(axis=1), axis.positions[at]
    places[on_label] = places[on_label, hit[on_label].argmax(axis=1)][:, None]
    if method != "linear":
        return Stencil(axis.dim, method, places, offsets), found, beyond
    if width == 1:
        return Stencil(axis.dim, method, places.repeat(2, axis=1), np.zeros((len(keys), 1))), found, beyond
    return Stencil(axis.dim, method, places, (-offsets[:, 0] / (offsets[:, 1] - offsets[:, 0]))[:, None]), found, beyond


def _differences(labels: Values, keys: Values) -> npt.NDArray[np.float64]:
    return (labels - keys).astype(np.float64, copy=False)


def _cubic(axis: Axis, keys: Values, before: Positions) -> Stencil:
    """Weigh labels as the cubic spline through all of them does, with SciPy's default ends ("not-a-knot")."""
    spline: Callable[..., Any] = require("scipy.interpolate", extra="sample").make_interp_spline
    labels, count = axis.labels, len(axis.labels)
    width = min(2 * _REACH, count)
    starts = np.clip(before - _REACH + 1, 0, count - width)
    weights = np.zeros((len(keys), width))
    tiles = before // _TILE
    for tile in np.unique(tiles):
        rows = np.flatnonzero(tiles == tile)
        low = max(int(tile) * _TILE - _MARGIN, 0)
        high = min((int(tile) + 1) * _TILE + _MARGIN, count)
        nodes = _differences(labels[low:high], labels[low])
        scale = nodes[-1]  # nanoseconds would cost digits
        all_weights = spline(nodes / scale, np.eye(len(nodes)), k=3)(_differences(keys[rows], labels[low]) / scale)
        columns = starts[rows, None] - low + np.arange(width)
        weights[rows] = np.take_along_axis(all_weights, columns, axis=1)
    weights[np.abs(weights) < 1e-18] = 0
    on_label = before + (labels[np.minimum(before + 1, count - 1)] == keys)
    rows = np.flatnonzero(labels[on_label] == keys)
    weights[rows] = 0
    weights[rows, on_label[rows] - starts[rows]] = 1
    places = axis.positions[starts[:, None] + np.arange(width)]
    heaviest = np.abs(weights).argmax(axis=1)
    places = np.where(weights == 0, places[np.arange(len(keys)), heaviest][:, None], places)
    return Stencil(axis.dim, "cubic", places, weights)


def num_corners(axis: Axis, method: Method) -> int:
    """Return the number of positions per point that a method may need along an axis."""
    width = 2 * _REACH if method == "cubic" else _WIDTHS.get(method, 1)
    return max(min(width, len(axis.labels)), 1)
