"""From a table, a filter and columns to a plan; reads the coordinates that the filter names."""

from collections.abc import Sequence
from math import prod
from typing import TYPE_CHECKING

import polars as pl

from rainbear_dask.planning.plan import ReadPlan, build_plan
from rainbear_dask.planning.predicate import MAX_CELLS, compile_predicate
from rainbear_dask.resources.limits import WHOLE_VALUES
from rainbear_dask.resources.settings import num_bytes
from rainbear_dask.table import coordinates as coords
from rainbear_dask.table.model import Table

if TYPE_CHECKING:
    pass


def plan_scan(
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    predicate: pl.Expr | None = None,
    n_rows: int | None = None,
    head: int | None = None,
) -> ReadPlan:
    """Plan a scan; reads the coordinates that the predicate names, and nothing else.

    ``n_rows`` is a limit on the rows that pass the predicate, ``head`` on those that it sees, both from the first.
    """
    leaves = table.leaves(columns)
    task_bytes = num_bytes("task-bytes")
    if predicate is None:
        return build_plan(table, columns=leaves, limit=n_rows, head=head, task_bytes=task_bytes)
    known = {name: column for name, column in table.columns.items() if column.role != "data"}
    named = [known[name] for name in dict.fromkeys(predicate.meta.root_names()) if name in known]
    most = {1: WHOLE_VALUES}
    small = [c for c in named if prod(table.sizes[d] for d in c.dims) <= most.get(len(c.dims), MAX_CELLS)]
    coords.prefetch(table.spec, small)
    conjuncts = compile_predicate(
        predicate,
        {name: column.dims for name, column in known.items()},
        table.sizes,
        lambda name: coords.whole_column(table.spec, known[name], prod(table.sizes[d] for d in known[name].dims)),
    )
    return build_plan(table, columns=leaves, conjuncts=conjuncts, limit=n_rows, head=head, task_bytes=task_bytes)
