"""Questions to a table as one expression: a plan, and what Polars is to do with its rows, if anything."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product
from operator import and_, or_, xor
from typing import Any, Literal

import polars as pl
from polars.exceptions import PolarsError
from polars.io.plugins import register_io_source

from rainbear_dask.exceptions import PredicateError, QueryError
from rainbear_dask.planner import ReadPlan
from rainbear_dask.predicate import connective
from rainbear_dask.reader import plan_scan
from rainbear_dask.table import Table, unknown_column

Schema = Mapping[str, pl.DataType]


@dataclass(frozen=True, slots=True)
class Question:
    """A plan, and what Polars is to do with all of its rows, if anything."""

    plan: ReadPlan
    last_step: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    n_rows: int | None = None

    def answer(self, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
        if len(frames) == 1:
            (rows,) = frames
        else:
            rows = pl.concat([self.plan.no_rows(), *frames])
        if self.last_step is None:
            return rows
        rows = self.last_step(rows)
        return rows if self.n_rows is None else rows.head(self.n_rows)


def plan_question(
    table: Table,
    expr: pl.Expr | None,
    with_columns: Sequence[str] | None = None,
    n_rows: int | None = None,
    *,
    loosely: bool = False,
) -> Question:
    """Plan for an expression: as a filter if it gives one Boolean for each row, else to be selected.

    Loosely, to look at and not to run: rows that ``when(...).then(...)`` gives null, or that get but the value of their
    group from ``over(...)``, count as not asked for, ``p.filter(q)`` is p and q, and ``child/variable`` is a column.
    """
    if expr is None:
        return Question(plan_scan(table, columns=with_columns, n_rows=n_rows))
    schema, blank = table.schema, table.blank
    if loosely:
        schema = schema | {name: column.dtype for name, column in table.columns.items()}
        blank = pl.LazyFrame(schema=schema)
    dtypes = _dtypes(expr, blank, schema, table.spec.label)
    is_predicate = len(dtypes) == 1 and dtypes[0] in (pl.Boolean, pl.Null)
    if is_predicate:
        predicate = _handed_over(expr.cast(pl.Boolean), schema)
        if predicate is None:
            with suppress(RecursionError):  # connectives within others, hundreds deep: they stay as they are
                predicate = _handed_over(_row_by_row(expr, loosely=loosely).cast(pl.Boolean), schema)
        if predicate is not None:
            return Question(plan_scan(table, columns=with_columns, predicate=predicate, n_rows=n_rows))
    seen = _rows_seen(expr, schema, loosely=loosely)
    if is_predicate:
        expr = expr.cast(pl.Boolean)
        if seen is None and _is_per_row(expr, schema):
            wanted = list(with_columns or schema)
            needed = [*wanted, *(name for name in _columns_of(expr, schema) if name not in wanted)]
            heads = list(dict.fromkeys(name.partition("/")[0] for name in wanted))
            plan = plan_scan(table, columns=needed)
            return Question(plan, lambda rows: rows.filter(expr).select(heads), n_rows)
    if with_columns is not None:
        raise QueryError(
            "this expression says by itself which columns it gives. Leave out with_columns, or give a filter."
        )
    columns = _columns_of(expr, schema)
    plan = plan_scan(
        table,
        columns=columns,
        predicate=None if seen is None else _handed_over(seen, schema),
        n_rows=None if columns else 0,
    )
    return Question(plan, lambda rows: rows.select(expr), n_rows)


def _dtypes(expr: Any, blank: pl.LazyFrame, schema: Schema, label: str) -> list[pl.DataType]:
    """Types of what an expression gives, if it is one and names columns that are there."""
    if not isinstance(expr, pl.Expr):
        raise PredicateError(
            f"the predicate is a {type(expr).__name__}, not a Polars expression. Write it as pl.col('lat') > 45."
        )
    try:
        return blank.select(expr).collect_schema().dtypes()
    except pl.exceptions.ColumnNotFoundError:
        for name in expr.meta.root_names():
            if name not in schema:
                raise unknown_column(name, schema, label) from None
        raise


def _asked_of_a_reader(
    ask: Callable[[pl.LazyFrame], pl.LazyFrame], schema: Schema
) -> tuple[list[str] | None, pl.Expr | None] | None:
    """Columns and filter that Polars asks of a reader for a query; None if it asks for nothing. Nothing is run."""
    asked: list[tuple[list[str] | None, pl.Expr | None]] = []

    def read(
        with_columns: list[str] | None, predicate: pl.Expr | None, _rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        asked.append((with_columns, predicate))
        raise _EnoughError

    with suppress(_EnoughError):
        ask(register_io_source(read, schema=schema)).collect()
    return asked[0] if asked else None


class _EnoughError(Exception):
    """Ends a query that was begun to see what it asks for."""


def _handed_over(expr: pl.Expr, schema: Schema) -> pl.Expr | None:
    """A Boolean expression as Polars hands it to a reader; None if it does not, as some part is not elementwise."""
    try:
        asked = _asked_of_a_reader(lambda table: table.filter(expr), schema)
    except PolarsError:  # several expressions in one, say
        return None
    return None if asked is None else asked[1]


def _columns_of(expr: pl.Expr, schema: Schema) -> list[str]:
    """Columns that an expression needs; for one that only counts rows, some column."""
    asked = _asked_of_a_reader(lambda table: table.select(expr), schema)
    if asked is None:
        return []
    return list(schema) if asked[0] is None else asked[0]


def _is_per_row(expr: pl.Expr, schema: Schema) -> bool:
    """Whether an expression that is not elementwise still gives a value for each row, as ``a > a.mean()`` does."""
    with suppress(Exception):  # of a user's own function, perhaps
        return pl.DataFrame(schema=schema).clear(_UNUSUAL).select(expr).height == _UNUSUAL
    return False


_UNUSUAL = 1009  # rows; what gives a fixed number of values gives another


def _rows_seen(expr: pl.Expr, schema: Schema, *, loosely: bool) -> pl.Expr | None:
    """A filter that holds wherever an expression looks at a row; None if it looks at all of them, or at none."""
    filters = _filters(expr, schema, loosely=loosely)
    return reduce(or_, filters) if filters else None


def _filters(expr: pl.Expr, schema: Schema, *, loosely: bool) -> list[pl.Expr] | None:
    """Filters that the columns of an expression go through; None if one goes through none."""
    found, todo = [], [expr]
    while todo:
        node = todo.pop()
        if node.meta.is_literal():
            continue
        if (grouped := _grouped(node)) is not None:  # it gives a value for each row
            if not loosely:
                return None
            todo.append(grouped)
            continue
        filters, values = _filtered(node)
        if not filters and loosely:
            filters, values = _chosen(node)
        if not filters:
            parts = node.meta.pop()
            if not parts:
                return None
            todo += parts
            continue
        passed = reduce(and_, filters)
        if _handed_over(pl.any_horizontal(values.is_null()), schema) is None or _handed_over(passed, schema) is None:
            return None  # what is not elementwise sees more rows
        found.append(passed)
    return found


def _filtered(expr: pl.Expr) -> tuple[list[pl.Expr], pl.Expr]:
    """Predicates of ``values.filter(...)``, of several that follow each other too, and the values."""
    match expr.meta.pop():
        case [predicate, values] if values.filter(predicate).meta.eq(expr):
            inner, values = _filtered(values)
            return [*inner, predicate], values
    return [], expr


def _chosen(expr: pl.Expr) -> tuple[list[pl.Expr], pl.Expr]:
    """The predicate of ``when(...).then(values)``, and the values."""
    match expr.meta.pop():
        case [predicate, otherwise, values] if otherwise.meta.eq(pl.lit(None)) and pl.when(predicate).then(
            values
        ).otherwise(otherwise).meta.eq(expr):
            return [predicate], values
    return [], expr


Mapped = Literal["group_to_rows", "join", "explode"]

_MAPPINGS: Sequence[Mapped] = ("group_to_rows", "join", "explode")


def _grouped(expr: pl.Expr, mappings: Sequence[Mapped] = _MAPPINGS) -> pl.Expr | None:
    """What ``over(...)`` evaluates in each group; None if an expression is no such thing."""
    match expr.meta.pop()[::-1]:
        case [function, *groups, last]:
            overs = [partial(function.over, *groups, last)]
            if groups:
                flags = product((False, True), repeat=2)
                overs += [partial(function.over, *groups, order_by=last, descending=d, nulls_last=n) for d, n in flags]
            if any(over(mapping_strategy=mapping).meta.eq(expr) for over in overs for mapping in mappings):
                return function
    return None


def _row_by_row(expr: pl.Expr, *, loosely: bool) -> pl.Expr:
    """The same predicate with p for ``p.over(...)``, where p is elementwise; loosely, p and q for ``p.filter(q)`` too."""
    kind, parts = connective(expr)
    if kind != "leaf":
        found = [_row_by_row(part, loosely=loosely) for part in parts]
        if all(a is b for a, b in zip(found, parts, strict=True)):
            return expr
        return ~found[0] if kind == "not" else reduce({"and": and_, "or": or_, "xor": xor}[kind], found)
    if (function := _grouped(expr, _MAPPINGS[:1])) is not None:
        return _row_by_row(function, loosely=loosely)
    filters, values = _filtered(expr) if loosely else ([], expr)
    return reduce(and_, (_row_by_row(part, loosely=loosely) for part in [values, *filters])) if filters else expr
