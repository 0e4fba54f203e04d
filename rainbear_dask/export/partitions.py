"""Hive partitions: keys from columns or expressions, their number, and their folders."""

from collections.abc import Collection, Mapping, Sequence
from math import prod
from typing import Any
from urllib.parse import quote

import polars as pl

from rainbear_dask.exceptions import PlanTooLargeError, PredicateError, QueryError
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.resources.limits import WHOLE_VALUES
from rainbear_dask.table.columns import prefetch, whole_column
from rainbear_dask.table.model import Column, unknown_column
from rainbear_dask.table.tidy import spread

MAX_PARTITIONS = 20_000
"""Folders of one export. Readers list all of them, and each task writes a file into each that it has rows for."""

_NULL = "__HIVE_DEFAULT_PARTITION__"

PartitionBy = str | Sequence[str] | Mapping[str, pl.Expr] | None


def partition_keys(partition_by: PartitionBy, plan: ReadPlan) -> dict[str, pl.Expr]:
    """Return the expression of each partition key.

    Parameters
    ----------
    partition_by : str, sequence of str, mapping of str to Expr, or None
        Columns, or expressions of columns by the name of the key.
    plan : ReadPlan
        The plan whose rows are written.

    Raises
    ------
    UnknownColumnError
        If a key names a column that the table lacks.
    PredicateError
        If an expression does not give one value for each row.
    QueryError
        If a key has the name of another column, or no column is left for the files.
    """
    table, columns = plan.table, plan.no_rows().columns
    if isinstance(partition_by, str):
        partition_by = [partition_by]
    given = partition_by or {}
    keys: dict[str, Any] = dict(given) if isinstance(given, Mapping) else {name: pl.col(name) for name in given}
    for name, expr in keys.items():
        if not isinstance(expr, pl.Expr) or not expr.meta.is_row_separable() or not expr.meta.root_names():
            raise PredicateError(
                f"The partition key {name!r} is not an expression with one value per row. Give a column, or an "
                "expression such as pl.col('time').dt.year()."
            )
        for root in expr.meta.root_names():
            if root not in table.schema:
                raise unknown_column(root, table.schema, table.spec.label)
        if name in columns and not expr.meta.eq(pl.col(name)):
            raise QueryError(
                f"The partition key {name!r} has the name of another column, and readers would mix them up. "
                "Give the key another name."
            )
        dtype = table.blank.select(expr).collect_schema().dtypes()[0]
        if dtype.is_nested() or dtype == pl.Binary:
            raise QueryError(f"The partition key {name!r} is of type {dtype}, which makes no folder names.")
    if columns and not set(columns) - keys.keys():
        raise QueryError("Every column is a partition key, so the files would be empty. Name fewer keys.")
    return keys


def check_number(keys: Mapping[str, pl.Expr], plan: ReadPlan) -> None:
    """Refuse an export with too many partitions, as far as coordinates tell; no data variable is read.

    Raises
    ------
    PlanTooLargeError
        If the keys certainly have more values than the limit. `check_found` finds the other cases.
    """
    if len(plan.selection.boxes) != 1 or plan.filters:
        return
    table, box = plan.table, plan.selection.boxes[0]
    sizes = {dim: len(box[dim]) if dim in box else size for dim, size in table.sizes.items()}
    least = 1
    for dims in {found for expr in keys.values() if (found := _dims(expr, plan)) is not None}:
        own = [expr.alias(name) for name, expr in keys.items() if _dims(expr, plan) == dims]
        cells = {dim: table.sizes[dim] for dim in table.sizes if dim in dims}
        if prod(cells.values()) > WHOLE_VALUES:
            continue
        named = dict.fromkeys(root for expr in own for root in expr.meta.root_names())
        columns: list[Column] = [table.columns[name] for name in named]
        prefetch(table.spec, columns)
        values = [
            spread(whole_column(table.spec, c, prod(table.sizes[d] for d in c.dims)), c.dims, cells).alias(c.name)
            for c in columns
        ]
        wanted = [pl.Series(f"\0{d}", box[d].positions()) for d in cells if d in box]
        frame = pl.DataFrame(values).with_columns(
            spread(pl.int_range(size, eager=True), (dim,), cells).alias(f"\0{dim}") for dim, size in cells.items()
        )
        for positions in wanted:
            frame = frame.filter(pl.col(positions.name).is_in(positions.implode()))
        # keys of different dimensions may share some of them, so only the largest number is certain
        least = max(least, frame.select(own).n_unique())
    if prod(sizes.values()) and least > MAX_PARTITIONS:
        raise _too_many(keys, least)


def _dims(expr: pl.Expr, plan: ReadPlan) -> tuple[str, ...] | None:
    """Return the dimensions of a key of coordinates; None if the key depends on data."""
    columns = [plan.table.columns.get(root) for root in expr.meta.root_names()]
    if not all(column is not None and column.role != "data" for column in columns):
        return None
    found = {dim for column in columns if column is not None for dim in column.dims}
    return tuple(dim for dim in plan.table.sizes if dim in found)


def check_found(keys: Mapping[str, pl.Expr], count: int) -> None:
    """Refuse more partitions than the limit, once so many were found."""
    if count > MAX_PARTITIONS:
        raise _too_many(keys, count)


def _too_many(keys: Mapping[str, pl.Expr], count: int) -> PlanTooLargeError:
    return PlanTooLargeError(
        f"The partition keys {', '.join(keys)} have at least {count:,} values, and an export has at most "
        f"{MAX_PARTITIONS:,} partitions. Use coarser keys, for example the year of a time."
    )


def partitions(
    frame: pl.DataFrame, keys: Mapping[str, pl.Expr], kept: Collection[str] = ()
) -> list[tuple[str, pl.DataFrame]]:
    """Return the folder and the rows of each partition of a frame, in order of appearance, without the keys.

    Parameters
    ----------
    frame : DataFrame
        Rows with all columns that the keys name.
    keys : mapping of str to Expr
        Expression of each key.
    kept : collection of str
        Keys that stay in the rows.
    """
    if not keys:
        return [("", frame)]
    texts = frame.select(expr.cast(pl.String).alias(f"\0{name}") for name, expr in keys.items())
    rest = frame.drop([name for name in keys if name in frame.columns and name not in kept]).hstack(texts)
    parts = rest.partition_by(texts.columns, as_dict=True, maintain_order=True, include_key=False)
    return [
        ("/".join(f"{_escaped(name)}={_value(text)}" for name, text in zip(keys, values, strict=True)), rows)
        for values, rows in parts.items()
    ]


def _value(text: Any) -> str:
    return _NULL if text is None else _escaped(text)


def _escaped(text: str) -> str:
    return quote(text, safe="")
