"""From a table, a predicate and a projection to a plan; reads the coordinates that the predicate names."""

from collections.abc import Sequence
from math import prod

import polars as pl

from rainbear_dask.geo.checks import check_geometries
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.predicate import MAX_CELLS, compile_predicate
from rainbear_dask.resources.limits import WHOLE_VALUES
from rainbear_dask.resources.settings import num_bytes
from rainbear_dask.table.columns import prefetch, whole_column
from rainbear_dask.table.model import Table


def plan_scan(
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    predicate: pl.Expr | None = None,
    n_rows: int | None = None,
    head: int | None = None,
) -> ReadPlan:
    """Plan a scan; read the coordinates that the predicate names, and nothing else.

    Parameters
    ----------
    table : Table
        The table to scan.
    columns : sequence of str, optional
        Columns of the result, in order. By default all.
    predicate : Expr, optional
        Boolean, elementwise filter.
    n_rows : int, optional
        Upper bound of the rows after the filter.
    head : int, optional
        Number of first rows of the table that the filter sees.

    Returns
    -------
    ReadPlan
        The plan; it holds no values.

    Raises
    ------
    UnknownColumnError
        If the table lacks a column.
    PlanTooLargeError
        If the predicate names a dimension that is too long to filter.
    GeometryError
        If a geometry of the predicate is in another CRS than the grid.
    """
    leaves = table.leaves(columns)
    task_bytes = num_bytes("task-bytes")
    if predicate is None:
        return ReadPlan(table, leaves, (), n_rows, head, task_bytes)
    check_geometries(predicate, table)
    known = {name: column for name, column in table.columns.items() if column.role != "data"}
    named = [known[name] for name in dict.fromkeys(predicate.meta.root_names()) if name in known]
    num_values = {column.name: prod(table.sizes[dim] for dim in column.dims) for column in named}
    max_values = {1: WHOLE_VALUES}
    small = [c for c in named if num_values[c.name] <= max_values.get(len(c.dims), MAX_CELLS)]
    prefetch(table.spec, small)
    conjuncts = compile_predicate(
        predicate,
        {name: column.dims for name, column in known.items()},
        table.sizes,
        lambda name: whole_column(table.spec, known[name], num_values[name]),
    )
    return ReadPlan(table, leaves, tuple(conjuncts), n_rows, head, task_bytes)
