"""A Dask DataFrame of a plan."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import dask.dataframe as dd
from dask.dataframe.dask_expr import new_collection  # type: ignore[attr-defined]

from rainbear_dask.convert.pandas import Backend, column_of, form_of, on_one_dimension
from rainbear_dask.dataframe.expr import ReadZarr
from rainbear_dask.dataframe.filters import (
    from_lists,
    to_polars,
)
from rainbear_dask.dataframe.leaf import Source
from rainbear_dask.exceptions import QueryError
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.storage.credentials import seal
from rainbear_dask.table.model import Table


def dask_dataframe(
    plan: ReadPlan,
    *,
    index: str | None = None,
    dtype_backend: Backend = "numpy",
    categories: Collection[str] = (),
    filters: Sequence[Any] | None = None,
) -> dd.DataFrame:
    """The rows of a plan as a Dask DataFrame; parameters as in `read.read_zarr`."""
    if plan.limit is not None:
        raise QueryError(
            f"this plan of {plan.table.spec.label} is limited to {plan.limit:,} rows, and partitions are read each on its "
            "own. Plan without n_rows=, and take head() of the DataFrame."
        )
    # as expressions pass the scheduler, they hold no credentials
    table, columns = replace(plan.table, spec=seal(plan.table.spec)), plan.columns
    if index is not None:
        table, columns = _led_by(index, table), (*(c for c in columns if c.name != index), table.columns[index])
    form = form_of(table, dtype_backend, index, categories)
    tests = [(str(conjunct.expr), conjunct.expr) for conjunct in plan.conjuncts]
    if (condition := from_lists(filters or ())) is not None:
        known = {name: column_of(name, table) for name in condition.names()}
        tests.append((str(condition), to_polars(condition, known, replace(form, categories=()))))  # values are meant
    return new_collection(ReadZarr(Source(table, columns, tests, form)))


def _led_by(index: str, table: Table) -> Table:
    """The same table with its rows in the order of one dimension first."""
    column = column_of(index, table)
    if not on_one_dimension(column):
        names = [name for name, c in table.columns.items() if on_one_dimension(c)]
        raise QueryError(
            f"column {index!r} of {table.spec.label} cannot be the index, as it is no coordinate of one dimension. Those "
            f"are {', '.join(names)}. Any column can be one after reading: frame.set_index({index!r})."
        )
    (leading,) = column.dims
    return replace(table, sizes={leading: table.sizes[leading], **table.sizes})
