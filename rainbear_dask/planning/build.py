"""From a table, a predicate and a projection to a plan; reads the coordinates that the predicate names."""

from collections.abc import Sequence
from functools import reduce
from math import prod
from operator import and_

import polars as pl

from rainbear_dask.exceptions import SuspiciousFilterWarning
from rainbear_dask.geo.checks import check_geometries
from rainbear_dask.planning.literals import suspicious
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.predicate import MAX_CELLS, Conjunct, compile_predicate
from rainbear_dask.planning.pruning import Pruning
from rainbear_dask.redaction import warn
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
    """Plan a scan; read the coordinates that the predicate names, and statistics of its variables, if there are any.

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
    PredicateError
        If the predicate fails on the types of coordinates.

    Warns
    -----
    SuspiciousFilterWarning
        If the predicate compares times with a number.
    """
    leaves = table.leaves(columns)
    task_bytes = num_bytes("task-bytes")
    if predicate is None:
        return ReadPlan(table, leaves, (), n_rows, head, task_bytes)
    check_geometries(predicate, table)
    _warn_of_times(predicate, table)
    known = {name: column for name, column in table.columns.items() if column.role != "data"}
    named = [known[name] for name in dict.fromkeys(predicate.meta.root_names()) if name in known]
    num_values = {column.name: prod(table.sizes[dim] for dim in column.dims) for column in named}
    max_values = {1: WHOLE_VALUES}
    small = [c for c in named if num_values[c.name] <= max_values.get(len(c.dims), MAX_CELLS)]
    prefetch(table.spec, small)
    coordinates = {name: column.dims for name, column in known.items()}

    def read(name: str) -> pl.Series:
        return whole_column(table.spec, known[name], num_values[name])

    conjuncts = compile_predicate(predicate, coordinates, table.sizes, read)
    others = [c for c in conjuncts if any(name not in known for name in c.expr.meta.root_names())]
    if table.statistics is False or not others:
        return ReadPlan(table, leaves, tuple(conjuncts), n_rows, head, task_bytes)
    pruning = Pruning(table, reduce(and_, (conjunct.selection for conjunct in conjuncts)))
    if not any(pruning.knows(name) for c in others for name in c.expr.meta.root_names() if name not in known):
        return ReadPlan(table, leaves, tuple(conjuncts), n_rows, head, task_bytes)
    pruned = list[Conjunct]()
    for conjunct in conjuncts:
        again = conjunct in others
        pruned += (
            compile_predicate(conjunct.expr, coordinates, table.sizes, read, pruning.select) if again else [conjunct]
        )
    return ReadPlan(table, leaves, tuple(pruned), n_rows, head, task_bytes, statistics=pruning.uses)


def _warn_of_times(predicate: pl.Expr, table: Table) -> None:
    names = dict.fromkeys(predicate.meta.root_names())
    dtypes = {name: table.columns[name].dtype for name in names if name in table.columns}
    if any(dtype.is_temporal() for dtype in dtypes.values()):
        for text in suspicious(predicate, dtypes):
            warn(text, SuspiciousFilterWarning)
