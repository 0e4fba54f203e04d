"""Filters of dask.dataframe as Polars expressions that call pandas.

Polars takes over the "and", "or", "xor" and "not" of a filter. Every other node becomes a function of its columns,
which pandas evaluates. So calendar parts, text, NaN and null keep pandas semantics, and the planner can evaluate the
filter on coordinates like any other.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pandas as pd
import polars as pl
from dask.base import tokenize
from dask.utils import M, funcname

from rainbear_dask.convert.pandas import PandasSchema
from rainbear_dask.dataframe.dask_nodes import (
    Expr,
    Filter,
    FunctionMap,
    Index,
    Projection,
    PropertyMap,
    and_operands,
    call_of,
    delayed_value,
    is_boolean_series,
    is_delayed,
    is_row_by_row,
)
from rainbear_dask.exceptions import PredicateError
from rainbear_dask.table.model import Column

_CONNECTIVES: dict[Any, Callable[..., pl.Expr]] = {
    operator.and_: operator.and_,
    operator.or_: operator.or_,
    operator.xor: operator.xor,
    operator.inv: operator.inv,
}


@dataclass(frozen=True, slots=True, eq=False)
class ColumnRef:
    """A column of the table, or its index, by name."""

    name: str

    def __str__(self) -> str:
        return self.name

    def names(self) -> Iterator[str]:
        """Yield the names of the columns, perhaps more than once."""
        yield self.name

    def evaluate(self, columns: Mapping[str, Any]) -> Any:
        """Return the values of some rows, given their columns as pandas Series."""
        return columns[self.name]


@dataclass(frozen=True, slots=True, eq=False)
class Call:
    """A call of pandas on values of the same rows.

    Parameters
    ----------
    func : callable
        Takes ``args`` and ``kwargs``.
    args : tuple
        Calls, columns and constants.
    kwargs : mapping
        Constants.
    is_connective : bool
        Whether it is an "and", "or", "xor" or "not" of Booleans.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    is_connective: bool = False

    def __str__(self) -> str:
        shown = [f"({arg})" if isinstance(arg, Call) and arg.is_infix else str(arg) for arg in self.args]
        if self.is_infix:
            return f" {_SYMBOLS[self.func]} ".join(shown) if len(shown) > 1 else f"{_SYMBOLS[self.func]}{shown[0]}"
        if self.func is PropertyMap.operation:
            return ".".join(shown)
        if self.func is FunctionMap.operation:
            return f"{'.'.join(shown[:3])}({', '.join(map(repr, self.args[3]))})"
        return f"{shown[0]}.{funcname(self.func)}({', '.join(shown[1:])})"

    @property
    def is_infix(self) -> bool:
        """Whether Python writes the function as an operator."""
        return self.func in _SYMBOLS

    def names(self) -> Iterator[str]:
        """Yield the names of the columns, perhaps more than once."""
        for arg in self.args:
            if isinstance(arg, ColumnRef | Call):
                yield from arg.names()

    def evaluate(self, columns: Mapping[str, Any]) -> Any:
        """Return the values of some rows, given their columns as pandas Series."""
        args = [arg.evaluate(columns) if isinstance(arg, ColumnRef | Call) else arg for arg in self.args]
        return self.func(*args, **self.kwargs)


_SYMBOLS = {
    operator.lt: "<",
    operator.le: "<=",
    operator.gt: ">",
    operator.ge: ">=",
    operator.eq: "==",
    operator.ne: "!=",
    operator.and_: "&",
    operator.or_: "|",
    operator.xor: "^",
    operator.inv: "~",
    operator.neg: "-",
    operator.pos: "+",
    operator.add: "+",
    operator.sub: "-",
    operator.mul: "*",
    operator.truediv: "/",
    operator.floordiv: "//",
    operator.mod: "%",
    operator.pow: "**",
}

Condition = ColumnRef | Call


@dataclass(frozen=True, slots=True, eq=False)
class PandasPredicate:
    """A condition as a function of columns, which Polars calls inside an expression."""

    condition: Condition
    columns: tuple[Column, ...]
    schema: PandasSchema

    def __call__(self, values: Sequence[pl.Series]) -> pl.Series:
        """Return one Boolean for each row, or null."""
        known = {c.name: self.schema.series(c, v) for c, v in zip(self.columns, values, strict=True)}
        answer = pd.Series(self.condition.evaluate(known))
        absent = answer.isna().to_numpy(dtype=bool)
        passed = pl.Series(answer.where(~absent, other=False).to_numpy(dtype=bool))
        return passed.set(pl.Series(absent), None) if absent.any() else passed


def to_polars(condition: Condition, columns: Mapping[str, Column], schema: PandasSchema) -> pl.Expr:
    """Convert a condition to an expression with one Boolean for each row.

    Parameters
    ----------
    condition : Condition
        The filter of pandas.
    columns : mapping of str to Column
        Columns of the table.
    schema : PandasSchema
        Dtypes of the columns.

    Returns
    -------
    Expr
        True if pandas keeps the row, null if the result of pandas is missing.
    """
    if isinstance(condition, Call) and condition.is_connective:
        return _CONNECTIVES[condition.func](*(to_polars(part, columns, schema) for part in condition.args))
    named = tuple(columns[name] for name in dict.fromkeys(condition.names()))
    return pl.map_batches(
        [pl.col(column.name) for column in named],
        PandasPredicate(condition, named, schema),
        return_dtype=pl.Boolean,
        is_elementwise=True,
    )


def conditions_of(part: Expr, is_scan: Callable[[Expr], bool], index: str | None) -> list[Condition]:
    """Convert a conjunct of a frame's filter to conditions.

    Parameters
    ----------
    part : Expr
        The filter of dask.dataframe, or one of its conjuncts.
    is_scan : callable
        Whether a node is the filtered scan, perhaps with another projection.
    index : str or None
        Column that is the index of the scan.

    Returns
    -------
    list of Condition
        Conditions that are joined by "and". If Dask has joined two filters, the conditions of the inner filter come
        first. Empty if the result for a row may depend on other rows, or the part is not a Boolean Series.
    """
    reader = _ConditionReader(is_scan, index)
    try:
        if not is_boolean_series(part):
            return []
        condition = reader.read(part)
        if len(reader.filters_below) > 1:  # the columns have different rows
            return []
        (before,) = reader.filters_below.values()
        earlier = [conditions_of(other, is_scan, index) for predicate in before for other in split(predicate)]
    except _AcrossRowsError:
        return []
    found = [*(each for conditions in earlier for each in conditions), condition]
    return distinct(found) if all(earlier) else []


def distinct(conditions: Iterable[Condition]) -> list[Condition]:
    """Return each condition once, in order."""
    return list({tokenize(condition): condition for condition in conditions}.values())


def split(predicate: Expr) -> list[Expr]:
    """Return the conjuncts of a filter."""
    operands = and_operands(predicate)
    return [part for operand in operands for part in split(operand)] if operands else [predicate]


def join(parts: Sequence[Expr]) -> Expr:
    """Join conjuncts to one filter."""
    return reduce(operator.and_, parts)


def rebase(predicate: Expr, is_scan: Callable[[Expr], bool], onto: Callable[[Expr], Expr]) -> Expr | None:
    """Move a filter onto a scan of fewer rows; return None if the result for a row may depend on dropped rows."""
    try:
        found: Expr = _rebase(predicate, is_scan, onto)
    except _AcrossRowsError:
        return None
    return found


def _rebase(node: Any, is_scan: Callable[[Expr], bool], onto: Callable[[Expr], Expr]) -> Any:
    if not isinstance(node, Expr) or node.ndim == 0:  # a single value does not depend on the rows of the scan
        return node
    if is_scan(node):
        return onto(node)
    if not (is_row_by_row(node) or isinstance(node, Projection | Index)):
        raise _AcrossRowsError
    return type(node)(*(_rebase(operand, is_scan, onto) for operand in node.operands))


class _AcrossRowsError(Exception):
    """A node may give a row a value that depends on other rows."""


class _ConditionReader:
    """Converts a node, and records the filters below its columns."""

    def __init__(self, is_scan: Callable[[Expr], bool], index: str | None) -> None:
        self._is_scan, self._index = is_scan, index
        self.filters_below: dict[str, list[Expr]] = {}

    def read(self, node: Any) -> Any:
        if not isinstance(node, Expr):
            return node
        if is_delayed(node):
            try:
                return delayed_value(node)
            except LookupError:
                raise _AcrossRowsError from None
        if node.ndim != 1:
            raise _AcrossRowsError
        if (column := self._column(node)) is not None:
            return column
        if not is_row_by_row(node):
            raise _AcrossRowsError
        func, args, kwargs = call_of(node)
        is_connective = func in _CONNECTIVES and all(map(is_boolean_series, args))
        return Call(func, tuple(map(self.read, args)), dict(kwargs), is_connective)

    def _column(self, node: Expr) -> ColumnRef | None:
        name, filters = None, []
        while not self._is_scan(node):
            if isinstance(node, Filter):
                filters.append(node.predicate)
            elif isinstance(node, Projection) and name is None:
                name = node.operand("columns")
            elif isinstance(node, Index) and name is None:
                name = self._index
            elif not isinstance(node, Projection):
                return None
            node = node.frame
        self.filters_below[tokenize(*filters)] = filters[::-1]
        return ColumnRef(name) if isinstance(name, str) else None


_OPERATORS: dict[str, Callable[..., Any]] = {
    "==": operator.eq,
    "=": operator.eq,
    "!=": operator.ne,
    "<": operator.lt,
    "<=": operator.le,
    ">": operator.gt,
    ">=": operator.ge,
    "in": M.isin,
}


def from_tuples(filters: Sequence[Any]) -> Condition | None:
    """Convert a filter of tuples, as in pyarrow.

    Parameters
    ----------
    filters : sequence
        Tuples (column, op, value) that are joined by "and", or sequences of such tuples that are joined by "or".

    Returns
    -------
    Condition or None
        None if there is no tuple, or one of the sequences has none.

    Raises
    ------
    PredicateError
        If the argument has another form.
    """
    groups = [filters] if all(isinstance(part, tuple) for part in filters) else filters
    found = [reduce(_both, map(_from_tuple, group)) for group in groups if group]
    return reduce(_either, found) if found and len(found) == len(groups) else None


def _from_tuple(part: Any) -> Call:
    match part:
        case (str(name), "not in", values):
            return Call(operator.inv, (Call(M.isin, (ColumnRef(name), list(values)), {}),), {}, is_connective=True)
        case (str(name), "in", values):
            return Call(M.isin, (ColumnRef(name), list(values)), {})
        case (str(name), str(op), value) if op in _OPERATORS:
            return Call(_OPERATORS[op], (ColumnRef(name), value), {})
    raise PredicateError(
        f"{part!r} is not a valid filter tuple. Write ('lat', '>', 45) with one of {', '.join(_OPERATORS)}, not in, or "
        "pass a Polars expression."
    )


def _both(a: Call, b: Call) -> Call:
    return Call(operator.and_, (a, b), {}, is_connective=True)


def _either(a: Call, b: Call) -> Call:
    return Call(operator.or_, (a, b), {}, is_connective=True)
