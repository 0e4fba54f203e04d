"""The labels of an axis that a method of interpolation needs: the others change no value at the targets."""

from typing import Any, Literal

import numpy as np
import numpy.typing as npt

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
