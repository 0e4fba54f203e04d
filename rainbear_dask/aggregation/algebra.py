"""The aggregates: the states that each needs, and its result from them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import numpy as np
import polars as pl

from rainbear_dask.aggregation.groups import Array

AGGREGATES: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    "sum": pl.Expr.sum,
    "mean": pl.Expr.mean,
    "min": pl.Expr.min,
    "max": pl.Expr.max,
    "count": pl.Expr.count,
    "null_count": pl.Expr.null_count,
    "len": pl.Expr.len,
    "any": pl.Expr.any,
    "all": pl.Expr.all,
    "std": pl.Expr.std,
    "var": pl.Expr.var,
}
"""By name, each aggregate as a function of its operand."""

_MOMENTS = ("n", "fsum", "m2")

STATES: Mapping[str, tuple[str, ...]] = {
    "sum": ("sum",),
    "mean": ("fsum", "missing"),
    "min": ("min", "missing"),
    "max": ("max", "missing"),
    "count": ("missing",),
    "null_count": ("missing",),
    "any": ("max", "missing"),
    "all": ("min", "missing"),
    "std": _MOMENTS,
    "var": _MOMENTS,
}
"""The kinds of states that an aggregate needs; ``len`` needs none of an operand."""

ARITHMETIC = frozenset({"sum", "mean", "std", "var"})
"""Aggregates of numbers alone."""


@dataclass(frozen=True, slots=True)
class Aggregate:
    """An aggregate of a question.

    Parameters
    ----------
    name : str
        One of `AGGREGATES`.
    operand : int or None
        Number of its operand; None for a number of rows.
    dtype : DataType
        Type that Polars names.
    condition : int or None
        Number of the operand whose sum counts the rows, if a condition drops some.
    """

    name: str
    operand: int | None
    dtype: pl.DataType
    condition: int | None = None


def finish(aggregate: Aggregate, states: Mapping[str, Array], n: Array, num_rows: Array) -> pl.Series:
    """Return the results of one aggregate.

    Parameters
    ----------
    aggregate : Aggregate
        The aggregate.
    states : mapping of str to ndarray
        States of its operand by kind, each of shape (g,).
    n, num_rows : ndarray of int64, shape (g,)
        Values of the operand that are not null, and rows.

    Returns
    -------
    Series
        g results, in the type that Polars names.
    """
    name, dtype = aggregate.name, aggregate.dtype
    if name == "len":
        return pl.Series(num_rows).cast(dtype)
    if name == "count":
        return pl.Series(n).cast(dtype)
    if name == "null_count":
        return pl.Series(num_rows - n).cast(dtype)
    if name == "sum":
        total = pl.Series(states["sum"])
        return total.cast(dtype, wrap_numerical=True) if dtype.is_integer() else total.cast(dtype)
    if name in {"any", "all"}:
        reached = (states["max"] > 0) & (n > 0) if name == "any" else (states["min"] > 0) | (n == 0)
        return pl.Series(reached)
    if name in {"min", "max"}:
        return _known(pl.Series(states[name]), n > 0).cast(dtype)
    if name == "mean":
        return _known(pl.Series(_ratio(states["fsum"], n)), n > 0).cast(dtype)
    # Of another ddof, Polars 2.1 gives 0 for a group of one null row.
    variance = _ratio(states["m2"], n - 1)
    result = np.sqrt(variance) if name == "std" else variance
    return _known(pl.Series(result), n > 1).cast(dtype)


def _ratio(total: Array, count: Array) -> Array:
    with np.errstate(all="ignore"):
        return np.asarray(total / count)


def _known(values: pl.Series, known: Any) -> pl.Series:
    return values if known.all() else values.set(pl.Series(~known), None)
