"""The selected box of a plan to an xarray Dataset, lazily."""

import warnings
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import QueryError
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.metadata.keys import join_path
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.storage.stores import connected_store

if TYPE_CHECKING:
    import xarray as xr


def lazy_dataset(plan: ReadPlan, chunks: Any) -> "xr.Dataset":
    """Return the selected cells of a plan; `ScanPlan.to_xarray` documents the parameters."""
    require("xarray", extra="xarray")
    import xarray as xr  # noqa: PLC0415  an extra

    _check_is_box(plan)
    table, spec = plan.table, plan.table.spec
    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated metadata", RuntimeWarning)
        whole = xr.open_zarr(connected_store(spec), group=spec.group or None, chunks=chunks)
        for column in table.columns.values():
            if column.array is not None and column.array.path.startswith("../"):  # a coordinate of a parent group
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


def _check_is_box(plan: ReadPlan) -> None:
    """Raise QueryError if a Dataset cannot hold the selected cells."""
    label = plan.table.spec.label
    if plan.limit is not None:
        raise QueryError(
            f"The plan for {label} cannot become a Dataset, because it is limited to {plan.limit:,} rows, which need not "
            "be a box of coordinates. Plan without `n_rows`, then slice the Dataset: dataset.isel(time=slice(10))."
        )
    if plan.filters or len(plan.selection.boxes) > 1:
        raise QueryError(
            f"The plan for {label} cannot become a Dataset, because its filter does not select a box of coordinates. "
            "Use one condition per dimension, joined by `&`, and apply other conditions to the Dataset: "
            "dataset.where(dataset.t2m > 300)."
        )
    if any("/" in column.name for column in plan.columns):
        raise QueryError(
            f"The plan for {label} cannot become a Dataset, because it has variables of child groups and a Dataset "
            "holds one group. Plan one group with `group`, or name columns of the group itself."
        )


def _indexer(index: IndexSet) -> slice | npt.NDArray[np.int64]:
    return slice(*index.hull) if len(index.starts) <= 1 else index.positions()
