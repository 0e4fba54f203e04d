"""The rows of a plan for other libraries: Arrow, pandas, xarray."""

import warnings
from collections.abc import Callable, Collection, Iterator
from contextlib import closing
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.documents import join_path
from rainbear_dask.exceptions import QueryError
from rainbear_dask.execute import iter_parts
from rainbear_dask.planner import ReadPlan
from rainbear_dask.selection import IndexSet
from rainbear_dask.storage import connected_store

if TYPE_CHECKING:
    import pandas as pd
    import pyarrow as pa
    import xarray as xr
    from distributed import Client

    from rainbear_dask.frames import Backend


def arrow_reader(empty: pl.DataFrame, frames: Callable[[], Iterator[pl.DataFrame]]) -> "pa.RecordBatchReader":
    """Record batches of some frames.

    Parameters
    ----------
    empty : DataFrame
        Without rows, of the same columns.
    frames : callable
        Gives them; called when the first batch is asked for.

    Returns
    -------
    pyarrow.RecordBatchReader
        One batch or several for each frame.
    """
    import pyarrow as pa  # noqa: PLC0415  an extra

    schema = empty.to_arrow().schema

    def batches() -> Iterator[pa.RecordBatch]:
        with closing(frames()) as source:  # type: ignore[type-var]  # a generator
            for frame in source:
                yield from frame.to_arrow().cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())


def pandas_frame(
    plan: ReadPlan, client: "Client | None", dtype_backend: "Backend", categories: Collection[str]
) -> "pd.DataFrame":
    """The rows of a plan in pandas; parameters as in `plans.ScanPlan.to_pandas`."""
    from rainbear_dask.frames import form_of, joined  # noqa: PLC0415  pandas is an extra

    form, left = form_of(plan.table, dtype_backend, None, categories), plan.limit
    pieces = []
    with closing(iter_parts(plan.tasks(), client, hesitant=left is not None)) as source:  # type: ignore[type-var]  # a generator
        for rows in source:
            pieces.append(form.frame(plan.columns, rows))
            if left is not None and (left := left - rows.height) <= 0:
                break
    frame = joined(pieces, form) if pieces else form.empty(plan.columns)
    return frame if plan.limit is None else frame.head(plan.limit)


def lazy_dataset(plan: ReadPlan, chunks: Any) -> "xr.Dataset":
    """The cells of a plan as xarray has them; parameters as in `plans.ScanPlan.to_xarray`."""
    import xarray as xr  # noqa: PLC0415  an extra

    table, spec = plan.table, plan.table.spec
    if plan.filters or len(plan.selection.boxes) > 1 or plan.limit is not None:
        why = f"limited to {plan.limit:,} rows" if plan.limit is not None else "no box of its coordinates"
        raise QueryError(
            f"what this plan selects of {spec.label} is {why}, as a Dataset is. Filter by conditions on one dimension each, "
            "joined by &, and apply the others to the Dataset: dataset.where(dataset.t2m > 300)."
        )
    if any("/" in column.name for column in plan.columns):
        raise QueryError(
            f"the plan of {spec.label} has variables of child groups, which one Dataset cannot hold. Plan one group with "
            "group=, or name columns of the group itself."
        )
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated metadata", RuntimeWarning)
        whole = xr.open_zarr(connected_store(spec), group=spec.group or None, chunks=chunks)
        for column in table.columns.values():
            if column.array is not None and column.array.path.startswith("../"):  # a coordinate of a group above
                holder, _, name = join_path(spec.group, column.array.path).rpartition("/")
                above = xr.open_zarr(connected_store(spec), group=holder or None, chunks=chunks)
                whole = whole.assign_coords({column.name: above[name]})
    data = [column.name for column in plan.columns if column.role == "data"]
    cells = whole[data or [column.name for column in plan.columns if column.array]]
    boxes = plan.selection.boxes or [{dim: IndexSet.span(0, 0) for dim in table.sizes}]
    along = {dim: index for dim, index in boxes[0].items() if dim in cells.sizes}
    cells = cells.isel({dim: _indexer(index) for dim, index in along.items()})
    unlabelled = [column.name for column in plan.columns if column.array is None and column.name in cells.sizes]
    positions = {dim: along[dim].positions() if dim in along else np.arange(table.sizes[dim]) for dim in unlabelled}
    labelled: xr.Dataset = cells.assign_coords(positions)
    return labelled


def _indexer(index: IndexSet) -> slice | npt.NDArray[np.int64]:
    return slice(*index.hull) if len(index.starts) <= 1 else index.positions()
