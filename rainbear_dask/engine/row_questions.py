"""Questions in row space, and whether they save work."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.aggregation.cohorts import keeps_order, whole_sets
from rainbear_dask.aggregation.question import Unsplit, key_blocks
from rainbear_dask.aggregation.rows import Grouping, RowQuestion
from rainbear_dask.aggregation.terms import Term
from rainbear_dask.engine.aggregates import RowAggregates
from rainbear_dask.engine.rows import Rows, Schema
from rainbear_dask.execution.clients import active_client, place_of
from rainbear_dask.query.trees import Tree, expr_of

if TYPE_CHECKING:
    from distributed import Client

MAX_BYTES_FOR_POLARS = 2**31
"""Bytes of rows that Polars groups as fast as tasks would, on threads: it holds them all, and merges nothing."""

_FEW_ROWS = "on threads, Polars groups so few rows as fast"

MIN_ROWS_FOR_EACH_GROUP = 8
"""Rows of a task for each group that it may have, from which on threads split a question."""


@dataclass(frozen=True)
class Asked:
    """An aggregation as a public call of Polars would make it.

    Parameters
    ----------
    rows : Rows
        The rows that are aggregated.
    keys : list of (str, Term)
        Keys of the result.
    outputs : list of (str, Tree)
        Its other columns.
    schema : dict of str to DataType
        Columns of the result.
    ordered : bool
        Whether groups are in the order of their first rows.
    by_window : bool
        Whether the key is the label of a window. Labels and rows ascend together.
    """

    rows: Rows
    keys: list[tuple[str, Term]]
    outputs: list[tuple[str, Tree]]
    schema: Schema
    ordered: bool = False
    by_window: bool = False


def is_small(rows: Rows, client: "Client | None") -> bool:
    """Whether Polars holds all rows of a scan on threads of this process, which then is faster than a second pass."""
    table = rows.reader.table
    on_threads = (client or rows.reader.client or active_client(awaited=True)) is None
    row_bytes = sum(column.width for column in table.columns.values())
    return on_threads and table.num_rows * row_bytes <= MAX_BYTES_FOR_POLARS


def row_question(asked: Asked, client: "Client | None") -> RowQuestion:
    """Return an aggregation as a question in row space.

    Parameters
    ----------
    asked : Asked
        The aggregation.
    client : distributed.Client, optional
        The client that the caller asked for.

    Raises
    ------
    Unsplit
        If an aggregate has no states that merge, or the order of the rows is unknown; on threads, also if that saves
        nothing.
    """
    rows = asked.rows
    if is_small(rows, client):
        raise Unsplit(_FEW_ROWS)  # at once, because taking an expression apart takes milliseconds
    if rows.sorted_by is not None and (asked.ordered or asked.by_window):
        raise Unsplit("the order of groups depends on a sort or a join")
    try:
        question, kept = _merged(asked)
    except Unsplit as reason:
        question, kept = _whole(asked, str(reason))
    if place_of(question.plan, client or rows.reader.client).kind == "threads":
        _check_saving(question, kept, rows)
    return question


def _merged(asked: Asked) -> tuple[RowQuestion, list[pl.DataType]]:
    """Return a question whose states merge, and the types of the values that its states keep."""
    found = RowAggregates(asked.rows)
    outputs = [(name, found.result(tree)) for name, tree in asked.outputs]
    grouping, needed = _grouping(asked, found.states.partial, found.states.merge)
    results = tuple((name, expr.meta.serialize()) for name, expr in outputs)
    plan = asked.rows.plan(needed)
    return RowQuestion(plan, tuple(asked.keys), grouping, results, asked.schema), found.kept


def _whole(asked: Asked, reason: str) -> tuple[RowQuestion, list[pl.DataType]]:
    """Return a question whose tasks hold whole groups, so that any aggregate is final.

    Raises
    ------
    Unsplit
        If keys are no coordinates, if a task would need too much memory, or if the order of rows is not the table's.
    """
    rows = asked.rows
    if not asked.keys:
        raise Unsplit(reason)
    if rows.sorted_by is not None:
        raise Unsplit(f"{reason}, and it may depend on the order of a sort or a join")
    if not all(is_coordinate_key(key, rows) for _, key in asked.keys):
        raise Unsplit(f"{reason}, and only groups by coordinates lie in one task")
    grouping, needed = _grouping(asked, [expr_of(tree) for _, tree in asked.outputs])
    plan = rows.plan(needed)
    sets = whole_sets(plan, key_blocks(plan, asked.keys))
    if (asked.ordered or asked.by_window) and not keeps_order(plan, sets):
        raise Unsplit(f"{reason}, and tasks with whole groups are not in the order of the rows")
    outputs = tuple((name, pl.col(f"s{n}").meta.serialize()) for n, (name, _) in enumerate(asked.outputs))
    lists = [dtype for dtype in asked.schema.values() if dtype.is_nested()]
    return RowQuestion(plan, tuple(asked.keys), grouping, outputs, asked.schema, sets), lists


def is_coordinate_key(key: Term, rows: Rows) -> bool:
    """Whether a key is a function of coordinates that are not all scalars."""
    columns = rows.reader.table.columns
    return {*key.columns} <= rows.coordinates and any(columns[name].dims for name in key.columns)


def _grouping(
    asked: Asked, aggregates: list[pl.Expr], merges: list[pl.Expr] | None = None
) -> tuple[Grouping, list[str]]:
    """Return how rows become states, and the columns of the scan that they need."""
    meanings = asked.rows.meanings
    used = dict.fromkeys(name for _, tree in asked.outputs for name in expr_of(tree).meta.root_names())
    if not used and not asked.keys:
        used = dict.fromkeys(list(meanings)[:1])
    columns = {name: Term.of(expr_of(meanings[name])) for name in used}
    prefix = "key"
    while any(name.startswith(prefix) for name in columns):
        prefix = f"_{prefix}"
    keys = {f"{prefix}{number}": key for number, (_, key) in enumerate(asked.keys)}
    needed = dict.fromkeys(name for term in (*columns.values(), *keys.values()) for name in term.columns)
    grouping = Grouping(
        tuple((name, term.expr) for name, term in (columns | keys).items()),
        tuple(keys),
        *(
            tuple((f"s{n}", expr.meta.serialize()) for n, expr in enumerate(some))
            for some in (aggregates, merges or [])
        ),
    )
    return grouping, list(needed)


def _check_saving(question: RowQuestion, kept: list[pl.DataType], rows: Rows) -> None:
    """Raise `Unsplit` if threads would save nothing.

    Polars groups rows of one process as fast as the tasks and the merge together. But it holds all rows, so from some
    bytes on, tasks do it if the parts are certain to be much smaller than the rows. The types of the keys, and the
    dimensions of coordinates, bound the groups. If a state keeps values, their type bounds it.
    """
    counts = question.plan.counts
    if counts.max_rows * counts.row_bytes <= MAX_BYTES_FOR_POLARS:
        raise Unsplit(_FEW_ROWS)
    rows_of_task = counts.max_rows // max(counts.num_tasks, 1)
    groups = prod(_distinct(key, rows, rows_of_task) for _, key in question.keys)
    cells = groups * (1 + sum(_values_of(dtype, rows_of_task) for dtype in kept))
    if cells * MIN_ROWS_FOR_EACH_GROUP > rows_of_task:
        raise Unsplit("on threads, its parts may be nearly as large as the rows")


def _distinct(key: Term, rows: Rows, num_rows: int) -> int:
    """Return an upper bound of the distinct values of a key in a task."""
    table = rows.reader.table
    dtype = pl.LazyFrame(schema=table.schema).select(key.build().alias("key")).collect_schema()["key"]
    bound = _values_of(dtype, num_rows)
    if {*key.columns} <= rows.coordinates:
        dims = {dim for name in key.columns for dim in table.columns[name].dims}
        bound = min(bound, prod(table.sizes[dim] for dim in dims))
    return bound


def _values_of(dtype: Any, num_rows: int) -> int:
    """Return an upper bound of the distinct values of a type, null included, in some rows."""
    if isinstance(dtype, pl.Struct):
        fields = [_values_of(one, num_rows) for one in dtype.to_schema().values()]
        return min(prod(fields), num_rows)
    known = next((count for one, count in _NUM_VALUES.items() if dtype == one), num_rows)
    return min(known, num_rows)


_NUM_VALUES: dict[Any, int] = {
    pl.Boolean: 3,
    pl.Int8: 2**8 + 1,
    pl.UInt8: 2**8 + 1,
    pl.Int16: 2**16 + 1,
    pl.UInt16: 2**16 + 1,
}
