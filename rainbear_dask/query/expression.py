"""Plan a query that is one expression: a plan, and the step that Polars applies to its rows, if any."""

from collections.abc import Callable, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import partial, reduce
from itertools import product
from operator import and_, or_, xor
from typing import Any, Literal

import polars as pl
from polars.exceptions import PolarsError

from rainbear_dask.exceptions import PredicateError, QueryError
from rainbear_dask.planning.build import plan_scan
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.predicate import Connective, conjuncts_of, connective
from rainbear_dask.query.interpolation import narrowed
from rainbear_dask.query.pushdown import Schema, columns_of, elementwise, prepared, pushed_part, request_of
from rainbear_dask.table.model import Table, unknown_column


@dataclass(frozen=True, slots=True)
class ExpressionPlan:
    """A plan, and the step that Polars applies to all of its rows.

    Parameters
    ----------
    plan : ReadPlan
        The rows to read.
    post_process : callable, optional
        Function from the frame of all rows to the result.
    n_rows : int, optional
        Upper bound on rows after ``post_process``.
    """

    plan: ReadPlan
    post_process: Callable[[pl.DataFrame], pl.DataFrame] | None = None
    n_rows: int | None = None

    def answer(self, frames: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Return the result of the query from the frames of its tasks, in task order."""
        if len(frames) == 1:
            (rows,) = frames
        else:
            rows = pl.concat([self.plan.no_rows(), *frames])
        if self.post_process is None:
            return rows
        rows = self.post_process(rows)
        return rows if self.n_rows is None else rows.head(self.n_rows)


def plan_expression(
    table: Table,
    expr: pl.Expr | None,
    with_columns: Sequence[str] | None = None,
    n_rows: int | None = None,
    *,
    loosely: bool = False,
) -> ExpressionPlan:
    """Plan an expression: it filters if it has one Boolean per row, else Polars selects it.

    Parameters
    ----------
    table : Table
        The table to query.
    expr : Expr or None
        The expression; None means all rows.
    with_columns : sequence of str, optional
        Columns of the result, if the expression filters.
    n_rows : int, optional
        Upper bound on rows of the result.
    loosely : bool
        Plan more narrowly than an execution may. Rows for which ``when(...).then(...)`` is null, or which only get the
        value of their group from ``over(...)``, count as unused. ``p.filter(q)`` means p and q. ``child/variable`` is a
        column.

    Returns
    -------
    ExpressionPlan
        The plan and its last step.

    Raises
    ------
    PredicateError
        If it is no expression.
    UnknownColumnError
        If it names a column that the table does not have.
    QueryError
        If ``with_columns`` is given with an expression that does not filter.
    """
    if expr is None:
        return ExpressionPlan(plan_scan(table, columns=with_columns, n_rows=n_rows))
    schema, blank = table.schema, table.blank
    if loosely:
        schema = schema | {name: column.dtype for name, column in table.columns.items()}
        blank = pl.LazyFrame(schema=schema)
    dtypes = _dtypes(expr, blank, schema, table.spec.label)
    is_predicate = _are_one_boolean(dtypes)
    if is_predicate:
        expr = _as_boolean(expr, dtypes)
        predicate = _row_by_row(expr, schema, loosely=loosely)
        if predicate is not None:
            return ExpressionPlan(plan_scan(table, columns=with_columns, predicate=predicate, n_rows=n_rows))
    else:
        expr = narrowed(expr, table, by_slice=True)
    seen = rows_seen([expr], schema, loosely=loosely)
    if is_predicate and seen is None and _is_per_row(expr, schema):
        wanted = list(with_columns or schema)
        needed = [*wanted, *(name for name in columns_of(expr, schema) if name not in wanted)]
        heads = list(dict.fromkeys(name.partition("/")[0] for name in wanted))
        # The last step applies the whole filter; applying a part of it before changes no result.
        plan = plan_scan(table, columns=needed, predicate=pushed_part(expr, schema))
        return ExpressionPlan(
            plan, lambda rows: rows.lazy().filter(expr).select(heads).collect(engine="in-memory"), n_rows
        )
    if with_columns is not None:
        raise QueryError(
            "This expression is no filter, so it names its own columns. Leave out `with_columns`, or pass a filter."
        )
    columns = columns_of(expr, schema)
    plan = plan_scan(table, columns=columns, predicate=seen, n_rows=None if columns else 0)
    return ExpressionPlan(plan, lambda rows: rows.select(expr), n_rows)


def filter_of_sql(condition: str, table: Table) -> pl.Expr:
    """Return an SQL condition as an expression, with times in quotes compared as times.

    Raises
    ------
    PredicateError
        If Polars does not understand it, or it needs other rows than its own.
    UnknownColumnError
        If it names a column that the table does not have.
    """
    schema = table.schema
    try:
        plain = pl.sql_expr(condition)  # raises unless the text is one condition
        named = plain.meta.root_names()
        for name in named:
            if name not in schema:
                raise unknown_column(name, schema, table.spec.label)
        if not named:
            return plain
        # a whole query, so that Polars knows the types of the columns
        query = f"SELECT * FROM self WHERE ({condition}\n) IS NULL"  # noqa: S608  the caller's own condition
        request = request_of(lambda rows: rows.sql(query), schema)
    except PolarsError as err:
        text = str(err).partition("\n")[0].rstrip(".")
        raise PredicateError(
            f"Polars does not understand the condition {condition!r}: {text}. Write it in SQL, as "
            "\"lat > 45 AND time < '2020-01-01'\", or as an expression, pl.col('lat') > 45."
        ) from None
    if request is None or request.predicate is None:
        raise PredicateError(
            f"The condition {condition!r} needs other rows. Filter the table: scan_zarr(...).filter(...)."
        )
    (whole,) = request.predicate.meta.pop()
    return whole


def plan_filter(
    table: Table, expr: pl.Expr | str | None, columns: Sequence[str] | None = None, n_rows: int | None = None
) -> ReadPlan:
    """Plan a filter, an expression or an SQL condition, that the tasks apply themselves, as a whole.

    Raises
    ------
    PredicateError
        If the expression is no filter, or a part of it needs other rows than its own.
    UnknownColumnError
        If it names a column that the table does not have.
    """
    if expr is None:
        return plan_scan(table, columns=columns, n_rows=n_rows)
    if isinstance(expr, str):
        expr = filter_of_sql(expr, table)
    schema = table.schema
    dtypes = _dtypes(expr, table.blank, schema, table.spec.label)
    if not _are_one_boolean(dtypes):
        given = ", ".join(map(str, dtypes))
        raise PredicateError(
            f"The predicate {_short(expr)} gives {given or 'nothing'} for each row, not one Boolean. "
            "Compare it with a value."
        )
    predicate = _row_by_row(_as_boolean(expr, dtypes), schema)
    if predicate is None:
        parts = conjuncts_of(expr)
        named = [part for part in parts if _row_by_row(part, schema) is None] or parts
        raise PredicateError(
            f"The plan cannot hold the condition {' and '.join(map(_short, named))}: it needs other rows to decide "
            "about a row (an aggregate, a shift, a rank, or a Python function without `is_elementwise=True`). "
            "Filter the table: `scan_zarr(...).filter(...)`."
        )
    return plan_scan(table, columns=columns, predicate=predicate, n_rows=n_rows)


def _short(expr: pl.Expr) -> str:
    text = str(expr)
    return text if len(text) <= _MAX_TEXT else f"{text[: _MAX_TEXT - 3]}..."


_MAX_TEXT = 200


def _are_one_boolean(dtypes: Sequence[pl.DataType]) -> bool:
    """Whether an expression of these types can filter; the type of a literal None is Null."""
    return len(dtypes) == 1 and dtypes[0] in (pl.Boolean, pl.Null)


def _as_boolean(expr: pl.Expr, dtypes: Sequence[pl.DataType]) -> pl.Expr:
    return expr.cast(pl.Boolean) if dtypes[0] == pl.Null else expr


def _dtypes(expr: Any, blank: pl.LazyFrame, schema: Schema, label: str) -> list[pl.DataType]:
    """Return the output types of an expression; raise an error if it is none, or names unknown columns."""
    if not isinstance(expr, pl.Expr):
        raise PredicateError(
            f"The predicate is a {type(expr).__name__}, not a Polars expression. "
            "Write it as pl.col('lat') > 45, or as pl.sql_expr('lat > 45')."
        )
    try:
        return blank.select(expr).collect_schema().dtypes()
    except pl.exceptions.ColumnNotFoundError:
        for name in expr.meta.root_names():
            if name not in schema:
                raise unknown_column(name, schema, label) from None
        raise


def _is_per_row(expr: pl.Expr, schema: Schema) -> bool:
    """Whether an expression that is not elementwise still has one value per row, as ``a > a.mean()`` has."""
    nulls = pl.DataFrame(schema=schema).clear(_PROBE_ROWS)
    zeros = nulls.with_columns(pl.lit(0).cast(dtype).alias(name) for name, dtype in schema.items() if _has_zero(dtype))
    for frame in (nulls, zeros):
        with suppress(Exception):  # a function of the user may fail on nulls
            return frame.select(expr).height == _PROBE_ROWS
    return True  # an expression with one value for all rows would hardly fail on both frames


def _has_zero(dtype: pl.DataType) -> bool:
    return dtype.is_numeric() or dtype.is_temporal() or dtype in (pl.Boolean, pl.String)


_PROBE_ROWS = 1009
"""An unusual number of rows: an expression with a fixed number of values has another one."""


def rows_seen(exprs: Sequence[pl.Expr], schema: Schema, *, loosely: bool = False) -> pl.Expr | None:
    """Return a filter that holds for every row that some expressions use; None if they use all rows, or none."""
    found: list[pl.Expr] = []
    for expr in exprs:
        filters = _filters(expr, schema, loosely=loosely)
        if filters is None:
            return None
        found += [each for each in filters if not any(each.meta.eq(other) for other in found)]
    return prepared(reduce(or_, found), schema) if found else None


def _filters(expr: pl.Expr, schema: Schema, *, loosely: bool) -> list[pl.Expr] | None:
    """Return the filters inside an expression that apply to its columns; None if one column is unfiltered."""
    found, todo = [], [expr]
    while todo:
        node = todo.pop()
        if node.meta.is_literal():
            continue
        if (grouped := _grouped(node)) is not None:  # it has one value per row
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
        if elementwise(pl.any_horizontal(values.is_null()), schema) is None or elementwise(passed, schema) is None:
            return None  # it is not elementwise, so it uses more rows
        found.append(passed)
    return found


def _filtered(expr: pl.Expr) -> tuple[list[pl.Expr], pl.Expr]:
    """Return the predicates of ``values.filter(...)``, which may be repeated, and the values."""
    match expr.meta.pop():
        case [predicate, values] if values.filter(predicate).meta.eq(expr):
            inner, values = _filtered(values)
            return [*inner, predicate], values
    return [], expr


def _chosen(expr: pl.Expr) -> tuple[list[pl.Expr], pl.Expr]:
    """Return the predicate of ``when(...).then(values)``, and the values."""
    match expr.meta.pop():
        case [predicate, otherwise, values] if otherwise.meta.eq(pl.lit(None)) and pl.when(predicate).then(
            values
        ).otherwise(otherwise).meta.eq(expr):
            return [predicate], values
    return [], expr


Mapped = Literal["group_to_rows", "join", "explode"]

_MAPPINGS: Sequence[Mapped] = ("group_to_rows", "join", "explode")


def _grouped(expr: pl.Expr, mappings: Sequence[Mapped] = _MAPPINGS) -> pl.Expr | None:
    """Return the expression that ``over(...)`` evaluates in each group; None if there is no ``over``."""
    match expr.meta.pop()[::-1]:
        case [function, *groups, last]:
            overs = [partial(function.over, *groups, last)]
            if groups:
                flags = product((False, True), repeat=2)
                overs += [partial(function.over, *groups, order_by=last, descending=d, nulls_last=n) for d, n in flags]
            if any(over(mapping_strategy=mapping).meta.eq(expr) for over in overs for mapping in mappings):
                return function
    return None


def _row_by_row(expr: pl.Expr, schema: Schema, *, loosely: bool = False) -> pl.Expr | None:
    """Return the whole of a predicate as an elementwise expression; None if it needs other rows."""
    whole = prepared(expr, schema)
    if whole is None:
        with suppress(RecursionError):  # connectives nested hundreds deep stay unchanged
            whole = prepared(_simplified(expr, loosely=loosely), schema)
    return whole


def _simplified(expr: pl.Expr, *, loosely: bool) -> pl.Expr:
    """Return the same predicate with p for ``p.over(...)``, and without literals among its conjuncts and disjuncts.

    Loosely, ``p.filter(q)`` becomes p and q too.
    """
    kind, parts = connective(expr)
    if kind != "leaf":
        found = [_simplified(part, loosely=loosely) for part in parts]
        if kind == "not":
            constant = _constant(found[0])
            return ~found[0] if constant is None else pl.lit(not constant)
        return _joined(kind, found)
    if (function := _grouped(expr, _MAPPINGS[:1])) is not None:
        return _simplified(function, loosely=loosely)
    filters, values = _filtered(expr) if loosely else ([], expr)
    return reduce(and_, (_simplified(part, loosely=loosely) for part in [values, *filters])) if filters else expr


def _joined(kind: Connective, parts: Sequence[pl.Expr]) -> pl.Expr:
    constants = [_constant(part) for part in parts]
    decisive = {"and": False, "or": True}.get(kind)
    if decisive is not None and decisive in constants:  # even if another part is null
        return pl.lit(decisive)
    neutral = kind == "and"
    left = [part for part, constant in zip(parts, constants, strict=True) if constant is not neutral]
    return reduce({"and": and_, "or": or_}.get(kind, xor), left) if left else pl.lit(neutral)


def _constant(expr: pl.Expr) -> bool | None:
    """Return the Boolean of a literal; None if the expression is no Boolean literal, or null."""
    if not expr.meta.is_literal():
        return None
    value = pl.select(expr).to_series()
    return value.item() if value.dtype == pl.Boolean and len(value) == 1 else None
