"""Filters of dask.dataframe as Polars expressions that ask pandas.

A filter's tree of and, or, xor and not becomes Polars'; any other node, whatever pandas does there, is a function of the
columns that it names, in which pandas does it. So calendar parts, text, NaN and null mean what they mean in pandas, and
the planner can evaluate them on coordinates as it evaluates all else.
"""

import operator
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from typing import Any

import pandas as pd
import polars as pl
from dask._task_spec import DataNode
from dask.base import tokenize
from dask.dataframe.dask_expr import _accessor, _expr
from dask.dataframe.dask_expr._expr import Expr
from dask.utils import M, funcname

from rainbear_dask.convert.pandas import Form
from rainbear_dask.exceptions import PredicateError
from rainbear_dask.table.model import Column

_ROW_BY_ROW = (
    *(_expr.Binop, _expr.Unaryop, _expr.Abs, _expr.Round, _expr.Clip, _expr.Isin, _expr.Between),
    *(_expr.IsNa, _expr.NotNull, _expr.Fillna, _expr.Where, _expr.Mask, _expr.AsType, _expr.Map, _expr.RenameSeries),
    *(_accessor.PropertyMap, _accessor.FunctionMap),
)
"""What gives each row a value that depends on that row alone."""

_NOT_BY_ROW = {("str", "cat"), ("str", "get_dummies")}

_CONNECTIVES: dict[Any, Callable[..., pl.Expr]] = {
    operator.and_: operator.and_,
    operator.or_: operator.or_,
    operator.xor: operator.xor,
    operator.inv: operator.inv,
}


@dataclass(frozen=True, slots=True, eq=False)
class Named:
    """A column of the table, the index among them."""

    name: str

    def __str__(self) -> str:
        return self.name

    def names(self) -> Iterator[str]:
        """Columns needed, perhaps more than once."""
        yield self.name

    def ask(self, columns: Mapping[str, Any]) -> Any:
        """Its values in some rows, which are given as pandas Series."""
        return columns[self.name]


@dataclass(frozen=True, slots=True, eq=False)
class Step:
    """What pandas does with values of the same rows.

    Parameters
    ----------
    func : callable
        Of ``args`` and ``kwargs``.
    args : tuple
        Steps, columns, and values as they are.
    kwargs : mapping
        Values as they are.
    joins : bool
        Whether it is an and, or, xor or not of Booleans.
    """

    func: Callable[..., Any]
    args: tuple[Any, ...]
    kwargs: Mapping[str, Any]
    joins: bool = False

    def __str__(self) -> str:
        shown = [f"({arg})" if isinstance(arg, Step) and arg.is_infix else str(arg) for arg in self.args]
        if self.is_infix:
            return f" {_SYMBOLS[self.func]} ".join(shown) if len(shown) > 1 else f"{_SYMBOLS[self.func]}{shown[0]}"
        if self.func is _accessor.PropertyMap.operation:
            return ".".join(shown)
        if self.func is _accessor.FunctionMap.operation:
            return f"{'.'.join(shown[:3])}({', '.join(map(repr, self.args[3]))})"
        return f"{shown[0]}.{funcname(self.func)}({', '.join(shown[1:])})"

    @property
    def is_infix(self) -> bool:
        """Whether it is written with a sign."""
        return self.func in _SYMBOLS

    def names(self) -> Iterator[str]:
        """Columns needed, perhaps more than once."""
        for arg in self.args:
            if isinstance(arg, Named | Step):
                yield from arg.names()

    def ask(self, columns: Mapping[str, Any]) -> Any:
        """Its values in some rows, of which the columns are given as pandas Series."""
        args = [arg.ask(columns) if isinstance(arg, Named | Step) else arg for arg in self.args]
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

Condition = Named | Step


@dataclass(frozen=True, slots=True, eq=False)
class AskPandas:
    """A condition as a function of columns: what Polars calls where the condition stands in an expression."""

    condition: Condition
    columns: tuple[Column, ...]
    form: Form

    def __call__(self, values: Sequence[pl.Series]) -> pl.Series:
        """One Boolean for each row, or null."""
        known = {c.name: self.form.series(c, v) for c, v in zip(self.columns, values, strict=True)}
        answer = pd.Series(self.condition.ask(known))
        absent = answer.isna().to_numpy(dtype=bool)
        passed = pl.Series(answer.where(~absent, other=False).to_numpy(dtype=bool))
        return passed.set(pl.Series(absent), None) if absent.any() else passed


def to_polars(condition: Condition, columns: Mapping[str, Column], form: Form) -> pl.Expr:
    """A condition as an expression that gives one Boolean for each row.

    Parameters
    ----------
    condition : Condition
        What pandas would filter by.
    columns : mapping of str to Column
        Columns of the table.
    form : Form
        How they are pandas'.

    Returns
    -------
    Expr
        True where pandas keeps the row; null where its answer is missing.
    """
    if isinstance(condition, Step) and condition.joins:
        return _CONNECTIVES[condition.func](*(to_polars(part, columns, form) for part in condition.args))
    named = tuple(columns[name] for name in dict.fromkeys(condition.names()))
    return pl.map_batches(
        [pl.col(column.name) for column in named],
        AskPandas(condition, named, form),
        return_dtype=pl.Boolean,
        is_elementwise=True,
    )


def conditions_of(part: Expr, is_table: Callable[[Expr], bool], index: str | None) -> list[Condition]:
    """Read a part of a frame's filter.

    Parameters
    ----------
    part : Expr
        What `dask.dataframe` filters by, or a part of it that a row has to pass.
    is_table : callable
        Whether a node is the frame that is filtered, perhaps with other columns.
    index : str or None
        Column that is its index.

    Returns
    -------
    list of Condition
        A row has to pass all. Several, where dask has joined two filters, and the part is of what the first one leaves.
        None at all, where a row's answer may depend on other rows, or the part is no Boolean Series.
    """
    reader = _Reader(is_table, index)
    try:
        if not _is_boolean(part):
            return []
        condition = reader.read(part)
        if len(reader.filtered_by) > 1:  # columns of different rows
            return []
        (before,) = reader.filtered_by.values()
        earlier = [conditions_of(other, is_table, index) for predicate in before for other in split(predicate)]
    except _NotByRowError:
        return []
    found = [*(each for conditions in earlier for each in conditions), condition]
    return distinct(found) if all(earlier) else []


def distinct(conditions: Iterable[Condition]) -> list[Condition]:
    """Each condition once, in order."""
    return list({tokenize(condition): condition for condition in conditions}.values())


def split(predicate: Expr) -> list[Expr]:
    """Parts of a filter of which a row must pass all."""
    if isinstance(predicate, _expr.And) and all(map(_is_boolean, predicate.operands)):
        return [part for operand in predicate.operands for part in split(operand)]
    return [predicate]


def moved(predicate: Expr, is_table: Callable[[Expr], bool], onto: Callable[[Expr], Expr]) -> Expr | None:
    """A filter of a frame as a filter of fewer of its rows; None if the answer for a row depends on others of them."""
    try:
        found: Expr = _moved(predicate, is_table, onto)
    except _NotByRowError:
        return None
    return found


class _NotByRowError(Exception):
    """A node may give a row a value that depends on other rows."""


def _is_boolean(node: Any) -> bool:
    return isinstance(node, Expr) and node.ndim == 1 and pd.api.types.is_bool_dtype(node._meta.dtype)


def _is_by_row(node: Expr) -> bool:
    if isinstance(node, _accessor.FunctionMap):
        return (node.accessor, node.attr) not in _NOT_BY_ROW
    return isinstance(node, (*_ROW_BY_ROW, _expr.UFuncElemwise))


class _Reader:
    """Reads a node, and notes which filters are below its columns."""

    def __init__(self, is_table: Callable[[Expr], bool], index: str | None) -> None:
        self._is_table, self._index = is_table, index
        self.filtered_by: dict[str, list[Expr]] = {}

    def read(self, node: Any) -> Any:
        if not isinstance(node, Expr):
            return node
        if isinstance(node, _expr._DelayedExpr):
            held = dict(node.obj.dask)
            value = held.get(node.obj.key)
            if len(held) == 1 and isinstance(value, DataNode):
                return value.value
            raise _NotByRowError
        if node.ndim != 1:
            raise _NotByRowError
        if (column := self._column(node)) is not None:
            return column
        if not _is_by_row(node):
            raise _NotByRowError
        if isinstance(node, _expr.UFuncElemwise):
            func, args, kwargs = node.func, node.args, node.kwargs
        else:
            func, args, kwargs = node.operation, node._args, node._kwargs
        joins = func in _CONNECTIVES and all(map(_is_boolean, args))
        return Step(func, tuple(map(self.read, args)), dict(kwargs or {}), joins)

    def _column(self, node: Expr) -> Named | None:
        name, filters = None, []
        while not self._is_table(node):
            if isinstance(node, _expr.Filter):
                filters.append(node.predicate)
            elif isinstance(node, _expr.Projection) and name is None:
                name = node.operand("columns")
            elif isinstance(node, _expr.Index) and name is None:
                name = self._index
            elif not isinstance(node, _expr.Projection):
                return None
            node = node.frame
        self.filtered_by[tokenize(*filters)] = filters[::-1]
        return Named(name) if isinstance(name, str) else None


def _moved(node: Any, is_table: Callable[[Expr], bool], onto: Callable[[Expr], Expr]) -> Any:
    if not isinstance(node, Expr) or node.ndim == 0:  # one value, whatever the rows
        return node
    if is_table(node):
        return onto(node)
    if not (_is_by_row(node) or isinstance(node, _expr.Projection | _expr.Index)):
        raise _NotByRowError
    return type(node)(*(_moved(operand, is_table, onto) for operand in node.operands))


def all_of(parts: Sequence[Expr]) -> Expr:
    """Several parts of a filter as one."""
    return reduce(operator.and_, parts)


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


def from_lists(filters: Sequence[Any]) -> Condition | None:
    """A filter that is given as lists, as pyarrow takes them.

    Parameters
    ----------
    filters : sequence
        Of (column, op, value), all of which a row passes; or of such sequences, one of which it passes.

    Returns
    -------
    Condition or None
        None if there is nothing to pass.

    Raises
    ------
    PredicateError
        If it is not of that form.
    """
    groups = [filters] if all(isinstance(part, tuple) for part in filters) else filters
    found = [reduce(_both, map(_from_tuple, group)) for group in groups if group]
    return reduce(_either, found) if found and len(found) == len(groups) else None


def _from_tuple(part: Any) -> Step:
    match part:
        case (str(name), "not in", values):
            return Step(operator.inv, (Step(M.isin, (Named(name), list(values)), {}),), {}, joins=True)
        case (str(name), "in", values):
            return Step(M.isin, (Named(name), list(values)), {})
        case (str(name), str(op), value) if op in _OPERATORS:
            return Step(_OPERATORS[op], (Named(name), value), {})
    raise PredicateError(
        f"{part!r} is no part of a filter. Write it as ('lat', '>', 45), with one of {', '.join(_OPERATORS)}, not in; or give "
        "an expression of Polars."
    )


def _both(a: Step, b: Step) -> Step:
    return Step(operator.and_, (a, b), {}, joins=True)


def _either(a: Step, b: Step) -> Step:
    return Step(operator.or_, (a, b), {}, joins=True)
