"""Reduce the values of one chunk group to partial states, with as few passes over the chunk as the data allows."""

from collections.abc import Collection, Iterator
from typing import Any

import numpy as np

from rainbear_dask.aggregation.groups import Array, Reducer
from rainbear_dask.aggregation.states import neutral, wide_type
from rainbear_dask.aggregation.terms import Mask, Values

_BLOCK_CELLS = 2**15
"""Cells that are squared together: their float64 deviations stay in a processor's cache."""


def reduce_values(reducer: Reducer, values: Values, mask: Mask | None, kinds: Collection[str]) -> dict[str, Array]:
    """Reduce values to partial states.

    Parameters
    ----------
    reducer : Reducer
        The groups of the cells.
    values : Values
        One axis for each of the box; an axis of length 1 stands for equal values along it.
    mask : ndarray of bool or None
        Cells that count; broadcasts to the box.
    kinds : collection of str
        Kinds of states, as in `states`.

    Returns
    -------
    dict of str to ndarray
        By kind, arrays over the groups. ``missing`` is absent if no value is missing.
    """
    if mask is None and values.valid is None:
        if not values.nan_is_null:
            return _reduce_all(reducer, values.values, kinds)
        found = _reduce_unless_nan(reducer, values.values, kinds)
        if found is not None:
            return found
    settled = values.settled()
    valid = settled.valid if mask is None else mask if settled.valid is None else mask & settled.valid
    if valid is None:
        return _reduce_all(reducer, settled.values, kinds)
    return _reduce_valid(reducer, settled.values, valid, kinds)


def count_cells(reducer: Reducer, mask: Mask) -> Array:
    """Return the number of cells of each group that a mask holds."""
    return reducer.reduce(mask.view(np.uint8), np.add, np.int64)


def _reduce_unless_nan(reducer: Reducer, values: Array | None, kinds: Collection[str]) -> dict[str, Array] | None:
    """Reduce values as if none were NaN; None if one is, or may be. NaN shows in a sum, a minimum and a maximum."""
    if values is None or not {"sum", "fsum", "min", "max"} & set(kinds):
        return None
    with np.errstate(invalid="ignore"):
        first = _reduce_all(reducer, values, [kind for kind in kinds if kind != "m2"], shows_nan=True)
    if any(np.isnan(first[kind]).any() for kind in ("sum", "fsum", "min", "max") if kind in first):
        return None
    if "m2" in kinds:
        first["m2"] = _squares(reducer, values, None, first)
    return first


def _reduce_all(
    reducer: Reducer, values: Array | None, kinds: Collection[str], *, shows_nan: bool = False
) -> dict[str, Array]:
    """Reduce all values; ``shows_nan`` makes NaN the minimum and the maximum of a group that holds one."""
    found: dict[str, Array] = {"n": reducer.counts} if "n" in kinds else {}
    if values is None:
        return found
    numbers = _as_numbers(values)
    for kind in kinds:
        if kind in {"sum", "fsum"}:
            found[kind] = reducer.reduce(numbers, np.add, np.float64 if kind == "fsum" else wide_type(numbers.dtype))
        elif kind in {"min", "max"}:
            found[kind] = reducer.reduce(numbers, _EXTREMES[kind]) if shows_nan else _extreme(reducer, numbers, kind)
    if "m2" in kinds:
        found["m2"] = _squares(reducer, numbers, None, found)
    return found


def _reduce_valid(reducer: Reducer, values: Array | None, valid: Mask, kinds: Collection[str]) -> dict[str, Array]:
    found: dict[str, Array] = {}
    if {"n", "missing"} & set(kinds):
        count = count_cells(reducer, valid)
        found = {"n": count} if "n" in kinds else {"missing": reducer.counts - count}
    if values is None:
        return found
    numbers = _as_numbers(values)
    zeroed = np.where(valid, numbers, numbers.dtype.type(0)) if {"sum", "fsum"} & set(kinds) else numbers
    for kind in kinds:
        if kind in {"sum", "fsum"}:
            found[kind] = reducer.reduce(zeroed, np.add, np.float64 if kind == "fsum" else wide_type(numbers.dtype))
        elif kind in {"min", "max"}:
            left_out = np.array(neutral(kind, numbers.dtype), numbers.dtype)
            found[kind] = reducer.reduce(np.where(valid, numbers, left_out), _IGNORES_NAN[kind])
    if "m2" in kinds:
        found["m2"] = _squares(reducer, numbers, valid, found)
    return found


def _as_numbers(values: Array) -> Array:
    return values.view(np.uint8) if values.dtype == np.bool_ else values


_EXTREMES: dict[str, np.ufunc] = {"min": np.minimum, "max": np.maximum}
_IGNORES_NAN: dict[str, np.ufunc] = {"min": np.fmin, "max": np.fmax}


def _extreme(reducer: Reducer, values: Array, kind: str) -> Array:
    found = reducer.reduce(values, _EXTREMES[kind])  # twice as fast as the ones that ignore NaN
    if values.dtype.kind == "f" and np.isnan(found).any():
        return reducer.reduce(values, _IGNORES_NAN[kind])
    return found


def _squares(reducer: Reducer, values: Array, valid: Mask | None, moments: dict[str, Array]) -> Array:
    """Return the squared deviations from the mean of each group, summed up in float64."""
    n, total = moments["n"], moments["fsum"]
    with np.errstate(all="ignore"):
        means = reducer.spread(np.where(n > 0, total / n, 0.0))
    squares: Any = 0.0
    for part, piece in _pieces(reducer, np.broadcast_shapes(values.shape, () if valid is None else valid.shape)):
        with np.errstate(all="ignore"):
            deviations = np.subtract(_within(values, piece), _within(means, piece), dtype=np.float64)
            np.multiply(deviations, deviations, out=deviations)
        if valid is not None:
            deviations = np.where(_within(valid, piece), deviations, 0.0)
        squares = squares + part.reduce(deviations, np.add, np.float64)
    return np.asarray(squares)


def _pieces(reducer: Reducer, shape: tuple[int, ...]) -> Iterator[tuple[Reducer, slice]]:
    """Cut a box along its first axis, if that is plain, into pieces of few cells."""
    step = max(_BLOCK_CELLS * shape[0] // max(int(np.prod(shape)), 1), 1) if shape else 1
    if 0 not in reducer.plain or shape[0] <= step:
        yield reducer, slice(None)
        return
    for start in range(0, shape[0], step):
        stop = min(start + step, shape[0])
        yield reducer.resized({0: stop - start}), slice(start, stop)


def _within(values: Array, piece: slice) -> Array:
    return values if values.ndim == 0 or len(values) == 1 else values[piece]


def reduce_weighted(
    reducer: Reducer, values: Values, weights: Array, mask: Mask | None, kinds: Collection[str]
) -> dict[str, Array]:
    """Reduce the products of values and of finite weights; along axes that the weights lack, values are added first.

    Parameters
    ----------
    reducer, values, mask
        As in `reduce_values`.
    weights : ndarray
        One axis for each of the box.
    kinds : collection of {"n", "missing", "sum", "fsum"}
        Kinds of states.

    Returns
    -------
    dict of str to ndarray
        As `reduce_values`.
    """
    if mask is None and values.valid is None:
        found = _weigh(reducer, values.values, weights, None, kinds)
        if not values.nan_is_null or not any(np.isnan(part).any() for part in found.values()):
            return found
    settled = values.settled()
    valid = settled.valid if mask is None else mask if settled.valid is None else mask & settled.valid
    return _weigh(reducer, settled.values, weights, valid, kinds)


def _weigh(
    reducer: Reducer, values: Array | None, weights: Array, valid: Mask | None, kinds: Collection[str]
) -> dict[str, Array]:
    assert values is not None  # noqa: S101  products are numbers
    numbers = _as_numbers(values)
    found: dict[str, Array] = {}
    if valid is not None:
        numbers = np.where(valid, numbers, numbers.dtype.type(0))
        count = count_cells(reducer, valid)
        found = {"n": count} if "n" in kinds else {"missing": reducer.counts - count} if "missing" in kinds else {}
    elif "n" in kinds:
        found = {"n": reducer.counts}
    along = tuple(axis for axis in reducer.plain if weights.shape[axis] == 1 and numbers.shape[axis] > 1)
    with np.errstate(invalid="ignore"):
        summed = np.add.reduce(numbers, axis=along, dtype=np.float64, keepdims=True) * weights
        total = reducer.resized(dict.fromkeys(along, 1)).reduce(summed, np.add, np.float64)
    return {**found, **{kind: total for kind in kinds if kind in {"sum", "fsum"}}}
