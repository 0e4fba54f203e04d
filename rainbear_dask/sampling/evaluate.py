"""From the values around points to values at points: one dimension after the other, the last one first.

A position without weight repeats one with weight (see `stencils.Stencil`), so no value has to be left out here.
"""

from collections.abc import Sequence
from typing import Any

import numpy as np
import numpy.typing as npt

from rainbear_dask.sampling.stencils import Stencil

Floats = npt.NDArray[np.floating[Any]]
Masked = npt.NDArray[np.bool_]


def evaluate(values: npt.NDArray[Any], masked: Masked | None, stencils: Sequence[Stencil]) -> tuple[Any, Masked | None]:
    """Interpolate.

    Parameters
    ----------
    values : ndarray, shape (n, s_0, s_1, ...)
        Values at the product of the stencils' positions, for n points.
    masked : ndarray of bool of that shape, or None
        Which of them are null; None if none is.
    stencils : sequence of Stencil
        One for each axis after the first, each of n points. If all are lookups, values do not change.

    Returns
    -------
    values : ndarray, shape (n,)
        Float64, also for Float32 values; of the same type if all stencils are lookups.
    masked : ndarray of bool, shape (n,), or None
        A value is null if any value with weight is.

    Notes
    -----
    The oracles of the tests are ``xarray.DataArray.interp`` and the classes of ``scipy.interpolate``.
    """
    with np.errstate(divide="ignore", invalid="ignore"):  # of infinite values, and where slopes vanish
        return _evaluate(values, masked, stencils)


def _evaluate(
    values: npt.NDArray[Any], masked: Masked | None, stencils: Sequence[Stencil]
) -> tuple[Any, Masked | None]:
    for stencil in reversed(stencils):
        if stencil.factors is None:
            values = values[..., 0]
        else:
            shape = (len(values), *[1] * (values.ndim - 2), stencil.factors.shape[1])
            factors = stencil.factors.reshape(shape)
            values = values.astype(np.float64, copy=False)
            if stencil.method == "linear":
                values = _weigh(values, np.concatenate([1 - factors, factors], axis=-1))
            elif stencil.method == "cubic":
                values = _weigh(values, factors)
            else:
                values = _hermite(values, np.broadcast_to(factors, values.shape), stencil.method)
        masked = None if masked is None else np.logical_or.reduce(masked, axis=-1)
    return values, masked


def _weigh(values: Floats, weights: Floats) -> Floats:
    """Sum in a fixed order. Infinity without weight adds nothing."""
    total = np.zeros(np.broadcast_shapes(values.shape, weights.shape)[:-1])
    finite = bool(np.isfinite(values).all())
    for at in range(values.shape[-1]):
        value, weight = values[..., at], weights[..., at]
        total += value * weight if finite else np.where(weight == 0, 0, value * weight)
    return total


def _hermite(values: Floats, offsets: Floats, method: str) -> Floats:
    """Evaluate the cubic between the two labels around the key; ``offsets`` are labels minus key."""
    at = np.clip((offsets <= 0).sum(axis=-1, keepdims=True) - 1, 0, offsets.shape[-1] - 2)
    steps = np.diff(offsets, axis=-1)
    chords = np.diff(values, axis=-1) / steps
    slopes = (
        _pchip_slopes(steps, chords) if method == "pchip" else _akima_slopes(chords, at, modified=method == "makima")
    )
    if method == "pchip":
        low, high = _pick(slopes, at), _pick(slopes, at + 1)
    else:
        low, high = slopes[..., 0], slopes[..., 1]
    step, chord, past = _pick(steps, at), _pick(chords, at), -_pick(offsets, at)
    bend = (low + high - 2 * chord) / step
    return _pick(values, at) + past * (low + past * ((chord - low) / step - bend + past * (bend / step)))


def _pick(values: Floats, at: npt.NDArray[np.integer[Any]]) -> Floats:
    return np.take_along_axis(values, at, axis=-1)[..., 0]


def _pchip_slopes(steps: Floats, chords: Floats) -> Floats:
    """Return the slopes of the monotone cubic of Fritsch and Carlson at each label."""
    left, right, before, after = steps[..., :-1], steps[..., 1:], chords[..., :-1], chords[..., 1:]
    by_left, by_right = 2 * right + left, right + 2 * left
    mean = (by_left + by_right) / (by_left / before + by_right / after)
    inner = np.where((np.sign(before) != np.sign(after)) | (before == 0) | (after == 0), 0.0, mean)
    first = _pchip_end(steps[..., 0], steps[..., 1], chords[..., 0], chords[..., 1])
    last = _pchip_end(steps[..., -1], steps[..., -2], chords[..., -1], chords[..., -2])
    return np.concatenate([first[..., None], inner, last[..., None]], axis=-1)


def _pchip_end(step: Floats, next_step: Floats, chord: Floats, next_chord: Floats) -> Floats:
    slope = ((2 * step + next_step) * chord - step * next_chord) / (step + next_step)
    steep = (np.sign(chord) != np.sign(next_chord)) & (np.abs(slope) > 3 * np.abs(chord))
    return np.where(np.sign(slope) != np.sign(chord), 0.0, np.where(steep, 3 * chord, slope))


def _akima_slopes(chords: Floats, at: npt.NDArray[np.integer[Any]], *, modified: bool) -> Floats:
    """Return the slopes at the two labels around the key; chords beyond the ends continue the parabola of the end."""
    count = chords.shape[-1]
    padded = np.empty((*chords.shape[:-1], count + 4))
    padded[..., 2:-2] = chords
    padded[..., 1] = 2 * padded[..., 2] - padded[..., 3]
    padded[..., 0] = 2 * padded[..., 1] - padded[..., 2]
    padded[..., -2] = 2 * padded[..., -3] - padded[..., -4]
    padded[..., -1] = 2 * padded[..., -2] - padded[..., -3]
    near = np.take_along_axis(padded, at + np.arange(5), axis=-1)
    change = np.abs(np.diff(near, axis=-1))
    if modified:
        change += np.abs(near[..., 1:] + near[..., :-1]) / 2
    before, after = change[..., 2:], change[..., :2]  # weights of the chord before a label, and of the one after it
    both = before + after
    flat = both <= 1e-9 * both.max(axis=-1, keepdims=True)
    slopes = (before * near[..., 1:3] + after * near[..., 2:4]) / both
    found: Floats = np.where(flat, (near[..., 1:3] + near[..., 2:4]) / 2, slopes)
    return found
