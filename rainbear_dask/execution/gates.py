"""Gates: conditions on stored values that every row which passes a filter meets.

A gate compares a chunk where it was decoded, by NumPy, before any value is unpacked, masked or given to Polars. Few rows
of a rare event pass it, and Polars evaluates the filter on those. A gate may let more rows pass than the filter, never
fewer. It follows from Polars' own answers:

- 8- and 16-bit values have at most 65,536 stored values. Polars evaluates the filter once on all of them.
- ``column <op> literal`` is true on one side of a bound, because decoding is monotone. Polars' answers at a few thousand
  values at a time enclose the bound, so casts, units and rounding are Polars' own.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import suppress
from dataclasses import replace
from functools import lru_cache, partial
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PanicException

from rainbear_dask.coding.cf import Decoding
from rainbear_dask.execution.filters import evaluate
from rainbear_dask.planning.task import Filter
from rainbear_dask.table.model import Column

Values = npt.NDArray[Any]
Mask = npt.NDArray[np.bool_]
Gate = Callable[[Values, Mask], None]
"""Writes a mask of the stored values that may pass, of the same shape."""

_MAX_TABLE_BYTES = 2
"""Bytes of the widest type whose values are all tried."""

_NUM_PROBES = 2**12
"""Values that one evaluation tries to enclose a bound."""


@lru_cache(maxsize=256)
def gate_of(test: Filter) -> Gate | None:
    """Return a gate for a filter; None if none is known.

    Parameters
    ----------
    test : Filter
        A residual filter.

    Returns
    -------
    callable or None
        The gate. It takes stored values of the filter's only column, in the type of its array.
    """
    if len(test.columns) != 1 or (column := test.columns[0]).array is None or column.decoding is None:
        return None
    decoding, dtype = column.decoding, column.array.dtype
    if dtype.kind not in "biuf" or decoding.clock is not None:
        return None
    with suppress(Exception, PanicException):  # a filter may fail on values that the chunks do not hold
        if dtype.itemsize <= _MAX_TABLE_BYTES:
            return _table_gate(test, decoding, dtype)
        if dtype.kind != "b" and decoding.stored == decoding.number == dtype:
            return _bounds_gate(test, decoding, dtype)
    return None


def with_fills(gate: Gate, column: Column) -> Gate:
    """Return a gate that also lets pass all stored values of a column that are null."""
    decoding = column.decoding
    fills = decoding.fills if decoding is not None else ()
    checks_nan = decoding is not None and decoding.nan_is_fill and column.array is not None
    if not fills and not checks_nan:
        return gate

    def passing(stored: Values, mask: Mask) -> None:
        gate(stored, mask)
        for fill in fills:
            mask |= stored == fill
        if checks_nan and stored.dtype.kind == "f":
            mask |= stored != stored  # noqa: PLR0124  NaN

    return passing


def _answers(test: Filter, decoding: Decoding, stored: Values) -> Mask:
    """Evaluate a filter on stored values."""
    name = test.columns[0].name
    passed = evaluate(test, {name: decoding.decode(stored).alias(name)}, len(stored))
    found: Mask = passed.to_numpy()
    return found


def _table_gate(test: Filter, decoding: Decoding, dtype: np.dtype[Any]) -> Gate:
    """Return a gate from the answers for all stored values."""
    native = dtype.newbyteorder("=")
    if native.kind == "b":
        every = np.array([False, True])
    else:
        every = np.arange(256**native.itemsize, dtype=f"u{native.itemsize}").view(native)
    passed = _answers(test, decoding, every.astype(dtype))
    if native.kind in "iu":
        return _interval_gate(every, passed) or _lookup_gate(passed, native)
    return _lookup_gate(passed, native)


def _interval_gate(every: Values, passed: Mask) -> Gate | None:
    """Return a gate that compares with the ends of an interval, if the values that pass are one."""
    values = np.sort(every[passed])
    if not len(values):
        return _nothing
    low, high = values[0], values[-1]
    if int(high) - int(low) + 1 != len(values):
        return None
    ends = [partial(_at_least, low)] if low > every.min() else []
    return _all_of([*ends, partial(_at_most, high)] if high < every.max() else ends)


def _lookup_gate(passed: Mask, dtype: np.dtype[Any]) -> Gate:
    unsigned = np.dtype(f"u{dtype.itemsize}")

    def gate(stored: Values, mask: Mask) -> None:
        mask[...] = passed[stored.view(unsigned)]

    return gate


def _at_least(bound: Any, stored: Values, mask: Mask) -> None:
    np.greater_equal(stored, bound, out=mask)


def _at_most(bound: Any, stored: Values, mask: Mask) -> None:
    np.less_equal(stored, bound, out=mask)


def _everything(_: Values, mask: Mask) -> None:
    mask[...] = True


def _nothing(_: Values, mask: Mask) -> None:
    mask[...] = False


def _all_of(gates: Sequence[Gate]) -> Gate:
    """Return a gate that lets pass what all of some gates do."""
    if len(gates) < 2:
        return gates[0] if gates else _everything

    def gate(stored: Values, mask: Mask) -> None:
        gates[0](stored, mask)
        other = np.empty_like(mask)
        for one in gates[1:]:
            one(stored, other)
            mask &= other

    return gate


def _bounds_gate(test: Filter, decoding: Decoding, dtype: np.dtype[Any]) -> Gate | None:
    """Return a gate that compares with one bound for each comparison of the column with a literal."""
    if decoding.scale_factor == 0:
        return None
    every = replace(decoding, fills=(), nan_is_fill=False)  # fills would be gaps; Polars drops them afterwards
    expr = pl.Expr.deserialize(BytesIO(test.predicate))
    parts = [_side(replace(test, predicate=part.meta.serialize()), every, dtype) for part in _comparisons(expr)]
    if not parts:
        return None
    passing = _all_of(parts)
    if dtype.kind != "f" or decoding.nan_is_fill or not _answers(test, every, np.array([np.nan], dtype))[0]:
        return passing

    def gate(stored: Values, mask: Mask) -> None:  # Polars orders NaN above all numbers, and NumPy nowhere
        passing(stored, mask)
        mask |= np.isnan(stored)

    return gate


def _comparisons(expr: pl.Expr) -> Iterator[pl.Expr]:
    """Yield comparisons of a column with a literal that hold wherever an expression does, each true on one side."""
    inputs = expr.meta.pop()
    columns = [one for one in inputs if one.meta.is_column()]
    literals = [one for one in inputs if one.meta.is_literal()]
    if len(columns) != 1 or len(columns) + len(literals) != len(inputs):
        return
    (column,) = columns
    if len(literals) == 1:
        (literal,) = literals
        sides = [column > literal, column >= literal, column < literal, column <= literal]
        sides += [literal > column, literal >= column, literal < column, literal <= column]
        yield from (side for side in sides if side.meta.eq(expr))
        if any(same.meta.eq(expr) for same in (column == literal, literal == column)):
            yield from (column >= literal, column <= literal)
    elif len(literals) == 2:
        for low, high in (literals, literals[::-1]):
            if any(column.is_between(low, high, closed).meta.eq(expr) for closed in ("both", "left", "right", "none")):
                yield from (column >= low, column <= high)


def _side(test: Filter, decoding: Decoding, dtype: np.dtype[Any]) -> Gate:
    """Return a gate for a filter that is true on one side of a bound, which is enclosed by trying values."""
    native = dtype.newbyteorder("=")
    low, high = _order(np.array([_least(native), _greatest(native)], native))
    first, last = (bool(one) for one in _answers(test, decoding, _values([low, high], native).astype(dtype)))
    if first == last:
        return _everything if first else _nothing
    while high - low > 1:  # the answer changes between them
        tried = sorted({low + (high - low) * step // _NUM_PROBES for step in range(_NUM_PROBES + 1)})
        changed = _answers(test, decoding, _values(tried, native).astype(dtype)) != first
        at = int(np.argmax(changed))
        if not at or not changed[at:].all():
            raise ValueError("the comparison has more than one bound")
        low, high = tried[at - 1], tried[at]
    lower, upper = _values([low, high], native)
    return partial(_at_most, lower) if first else partial(_at_least, upper)


def _least(dtype: np.dtype[Any]) -> Any:
    return dtype.type(-np.inf) if dtype.kind == "f" else np.iinfo(dtype).min


def _greatest(dtype: np.dtype[Any]) -> Any:
    return dtype.type(np.inf) if dtype.kind == "f" else np.iinfo(dtype).max


def _order(values: Values) -> list[int]:
    """Return integers in the order of some values, without gaps between neighbouring values."""
    if values.dtype.kind != "f":
        return [int(one) for one in values]
    bits = [int(one) for one in values.view(f"u{values.itemsize}")]
    sign = 1 << (8 * values.itemsize - 1)
    return [sign - one if one & sign else one for one in bits]  # -0.0 and 0.0 are one value


def _values(order: list[int], dtype: np.dtype[Any]) -> Values:
    """Return the values with some places in the order."""
    if dtype.kind != "f":
        return np.array(order, dtype)
    sign = 1 << (8 * dtype.itemsize - 1)
    return np.array([sign - one if one < 0 else one for one in order], f"u{dtype.itemsize}").view(dtype)
