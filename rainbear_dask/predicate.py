"""From a Polars predicate to the index positions that it can match.

The tree of and, or and not is read through Polars' public API. Any other node is a leaf: it goes back to Polars, to be
evaluated on the values of the coordinates that it names, so that comparisons, casts, calendar parts, float32, NaN and
null mean here exactly what they mean in the filter.
"""

from collections.abc import Callable, Mapping
from functools import reduce
from typing import Literal

import polars as pl
from polars.exceptions import PolarsError

from rainbear_dask.selection import IndexSet, Selection


def compile_predicate(predicate: pl.Expr, dims: Mapping[str, str], read: Callable[[str], pl.Series]) -> Selection:
    """Select every row for which a predicate is true, and perhaps others.

    Parameters
    ----------
    predicate : Expr
        A Boolean, elementwise expression: what Polars hands to a reader.
    dims : mapping of str to str
        For each column whose values are known along one dimension alone, that dimension.
    read : callable
        Gives all values of such a column, in position order. Called only for columns that the predicate names.

    Returns
    -------
    Selection
        ``exact`` where each part of the predicate depends on one dimension alone. What is not understood selects
        everything: a gap here costs time, never rows.
    """
    return _compile(predicate, dims, read, outcome=True)


def _compile(expr: pl.Expr, dims: Mapping[str, str], read: Callable[[str], pl.Series], *, outcome: bool) -> Selection:
    """Rows at which ``expr`` may come out as ``outcome``; a null is neither true nor false."""
    kind, parts = _connective(expr)
    if kind == "not":
        return _compile(parts[0], dims, read, outcome=not outcome)
    if kind != "leaf":
        selections = [_compile(part, dims, read, outcome=outcome) for part in parts]
        # De Morgan: an "and" is false where any part is
        meet = (kind == "and") == outcome
        return reduce(Selection.__and__ if meet else Selection.__or__, selections)
    names = list(dict.fromkeys(expr.meta.root_names()))
    along = {dims.get(name) for name in names}
    if len(along) > 1 or None in along:
        return Selection.everything()
    try:
        values = pl.DataFrame([read(name) for name in names])
        result = values.select(expr).to_series()
    except PolarsError:  # say a cast that fails on a value: the filter will tell, if it comes to that
        return Selection.everything()
    if not names:
        return Selection.everything(exact=True) if result.to_list() == [outcome] else Selection.nothing()
    if result.dtype != pl.Boolean or len(result) != values.height:
        return Selection.everything()
    mask = (result if outcome else ~result).fill_null(value=False)
    (dim,) = along
    return Selection.along(str(dim), IndexSet.from_mask(mask.to_numpy()))


def _connective(expr: pl.Expr) -> tuple[Literal["and", "or", "not", "leaf"], list[pl.Expr]]:
    """Which connective an expression is, and its operands; a chain of one connective is read as one."""
    match expr.meta.pop():
        case [operand] if (~operand).meta.eq(expr):
            return "not", [operand]
        case [right, left]:  # Polars pops the right operand first
            if (left & right).meta.eq(expr):
                return "and", _chain(expr, pl.Expr.__and__)
            if (left | right).meta.eq(expr):
                return "or", _chain(expr, pl.Expr.__or__)
    return "leaf", []


def _chain(expr: pl.Expr, connective: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> list[pl.Expr]:
    """Operands of nested uses of one connective, left to right."""
    operands: list[pl.Expr] = []
    todo = [expr]
    while todo:
        node = todo.pop()
        children = node.meta.pop()
        if len(children) == 2 and connective(children[1], children[0]).meta.eq(node):
            todo += children  # the left one is last, so it is taken first
        else:
            operands.append(node)
    return operands
