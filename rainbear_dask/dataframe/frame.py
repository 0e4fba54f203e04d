"""A plan to a Dask DataFrame."""

from collections.abc import Collection, Sequence
from dataclasses import replace
from typing import Any

import dask.dataframe as dd

from rainbear_dask.convert.pandas import find_column, is_1d_coordinate, pandas_schema
from rainbear_dask.dataframe.dask_nodes import new_collection
from rainbear_dask.dataframe.expr import ReadZarr
from rainbear_dask.dataframe.filters import from_tuples, to_polars
from rainbear_dask.dataframe.source import FrameSource
from rainbear_dask.exceptions import QueryError
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.storage.credentials import seal
from rainbear_dask.table.model import Table
from rainbear_dask.typing import DtypeBackend


def dask_dataframe(
    plan: ReadPlan,
    *,
    index: str | None = None,
    dtype_backend: DtypeBackend = "numpy",
    categories: Collection[str] = (),
    filters: Sequence[Any] | None = None,
) -> dd.DataFrame:
    """Convert a plan to a Dask DataFrame; `read_zarr` documents the parameters."""
    if plan.limit is not None:
        raise QueryError(
            f"The plan for {plan.table.spec.label} is limited to {plan.limit:,} rows, and a Dask DataFrame reads its "
            "partitions independently. Plan without `n_rows`, then call head() on the DataFrame."
        )
    # expressions pass the scheduler, so they must hold no credentials
    table, columns = replace(plan.table, spec=seal(plan.table.spec)), plan.columns
    if index is not None:
        table, columns = _led_by(index, table), (*(c for c in columns if c.name != index), table.columns[index])
    schema = pandas_schema(table, dtype_backend, index, categories)
    tests = [(str(conjunct.expr), conjunct.expr) for conjunct in plan.conjuncts]
    if (condition := from_tuples(filters or ())) is not None:
        known = {name: find_column(name, table) for name in condition.names()}
        # tuples compare values, even if the column becomes a categorical
        tests.append((str(condition), to_polars(condition, known, replace(schema, categories=()))))
    return new_collection(ReadZarr(FrameSource(table, columns, tests, schema)))


def _led_by(index: str, table: Table) -> Table:
    """Return the table with the dimension of a coordinate first, so that its rows are sorted along it."""
    column = find_column(index, table)
    if not is_1d_coordinate(column):
        names = [name for name, c in table.columns.items() if is_1d_coordinate(c)]
        raise QueryError(
            f"Column {index!r} of {table.spec.label} cannot be the index, because it is not a coordinate of one "
            f"dimension. Pass one of {', '.join(names)}, or sort after reading: frame.set_index({index!r})."
        )
    (leading,) = column.dims
    return replace(table, sizes={leading: table.sizes[leading], **table.sizes})
