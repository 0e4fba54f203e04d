"""Questions to a table as one expression: a plan, and what Polars is to do with its rows, if anything."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from operator import or_
from typing import Any

import polars as pl
from polars.exceptions import PolarsError
from polars.io.plugins import register_io_source

from rainbear_dask.exceptions import PredicateError, QueryError
from rainbear_dask.planner import ReadPlan
from rainbear_dask.reader import plan_scan
from rainbear_dask.table import Table, unknown_column
from rainbear_dask.tidy import nest


@dataclass(frozen=True, slots=True)
class Question:
    """A plan, and what Polars is to do with all of its rows, if anything."""

    plan: ReadPlan
    last_step: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    n_rows: int | None = None

    def answer(self, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
        empty = nest(pl.DataFrame(schema={column.name: column.dtype for column in self.plan.columns}))
        rows = pl.concat([empty, *frames])
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
    nulls: bool = True,
) -> Question:
    """Plan for an expression: as a filter if it gives one Boolean for each row, else to be selected.

    Without ``nulls``, rows at which ``when(...).then(...)`` gives null count as not asked for.
    """
    if expr is None:
        return Question(plan_scan(table, columns=with_columns, n_rows=n_rows))
    expr, schema = _checked(expr, table), table.schema
    dtypes = pl.LazyFrame(schema=schema).select(expr).collect_schema().dtypes()
    seen = _rows_seen(expr, schema, nulls=nulls)
    if len(dtypes) == 1 and dtypes[0] in (pl.Boolean, pl.Null):
        expr = expr.cast(pl.Boolean)
        if (predicate := _handed_over(expr, schema)) is not None:
            return Question(plan_scan(table, columns=with_columns, predicate=predicate, n_rows=n_rows))
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


def _checked(expr: Any, table: Table) -> pl.Expr:
    if not isinstance(expr, pl.Expr):
        raise PredicateError(
            f"the predicate is a {type(expr).__name__}, not a Polars expression. Write it as pl.col('lat') > 45."
        )
    try:
        pl.LazyFrame(schema=table.schema).select(expr).collect_schema()
    except pl.exceptions.ColumnNotFoundError:
        for name in expr.meta.root_names():
            if name not in table.schema:
                raise unknown_column(name, table.schema, table.spec.label) from None
        raise
    return expr


Schema = Mapping[str, pl.DataType]


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


def _rows_seen(expr: pl.Expr, schema: Schema, *, nulls: bool = True) -> pl.Expr | None:
    """A filter that holds wherever an expression looks at a row; None if it looks at all of them, or at none."""
    filters = _filters(expr, schema, nulls=nulls)
    return reduce(or_, filters) if filters else None


def _filters(expr: pl.Expr, schema: Schema, *, nulls: bool) -> list[pl.Expr] | None:
    """Filters that the columns of an expression go through; None if one goes through none."""
    if expr.meta.is_literal():
        return []
    parts = expr.meta.pop()
    match parts:
        case [predicate, values] if values.filter(predicate).meta.eq(expr):
            pass
        case [predicate, otherwise, values] if (
            not nulls
            and otherwise.meta.eq(pl.lit(None))
            and pl.when(predicate).then(values).otherwise(otherwise).meta.eq(expr)
        ):
            pass
        case []:
            return None
        case _:
            below = [_filters(part, schema, nulls=nulls) for part in parts]
            return None if None in below else [each for part in below for each in part or ()]
    elementwise = _handed_over(pl.any_horizontal(values.is_null()), schema) is not None
    return [predicate] if elementwise and _handed_over(predicate, schema) is not None else None
