"""The selected box of a plan to an xarray Dataset, lazily, and rows to a Dataset."""

import warnings
from math import prod
from typing import TYPE_CHECKING, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.convert.grid import Dims, axes_of, flat_cells, last_of_each, plain_array, positions_of
from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import QueryError, RowsError
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.metadata.keys import join_path
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.storage.spec import StoreSpec
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


def source_dataset(spec: StoreSpec) -> "xr.Dataset":
    """Open the group of a recipe with xarray, for its attributes and encodings; no data variable is read."""
    require("xarray", extra="xarray")
    import xarray as xr  # noqa: PLC0415  an extra

    with warnings.catch_warnings():
        warnings.filterwarnings("ignore", "Failed to open Zarr store with consolidated metadata", RuntimeWarning)
        found: xr.Dataset = xr.open_zarr(connected_store(spec), group=spec.group or None, chunks=None)
    return found


def dataset(frame: pl.DataFrame, dims: Dims, like: "xr.Dataset | None") -> "xr.Dataset":
    """Return rows as a Dataset; `rainbear_dask.to_xarray` documents the parameters."""
    require("xarray", extra="xarray")
    import xarray as xr  # noqa: PLC0415  an extra

    axes = axes_of(frame, dims)
    sizes = {dim: len(labels) for dim, labels in axes.items()}
    positions = positions_of(frame, axes)
    cells = flat_cells(positions, sizes, frame.height)
    if not sizes and frame.height == 0:
        raise RowsError("Without dimensions a Dataset has one cell, and there is no row. Name dimensions.")
    last_of_each(frame, cells, sizes, "error")
    known = {} if like is None else like.variables
    coords = {
        dim: xr.Variable((dim,), plain_array(labels, np.arange(len(labels)), len(labels)), *_described(known.get(dim)))
        for dim, labels in axes.items()
    }
    data = {}
    for values in frame.iter_columns():
        if values.name in axes:
            continue
        described, own, rows, places = known.get(values.name), sizes, None, cells
        if described is not None and set(described.dims) < set(sizes):
            fewer = {str(dim): sizes[str(dim)] for dim in described.dims}
            first = _first_of_each(values, flat_cells(positions, fewer, frame.height))
            if first is not None:
                own, (rows, places) = fewer, first
        array = plain_array(values if rows is None else values.gather(rows), places, prod(own.values()))
        data[values.name] = xr.Variable(tuple(own), array.reshape(tuple(own.values())), *_described(described))
    found = xr.Dataset(data, coords, attrs=None if like is None else like.attrs)
    return found if like is None else found.set_coords([name for name in data if name in like.coords])


def _first_of_each(
    values: pl.Series, cells: npt.NDArray[np.int64]
) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64]] | None:
    """Return the first row of each cell and the cell; None if a cell has several values."""
    frame = pl.DataFrame({"cell": cells, "value": values}).with_row_index("row")
    distinct = frame.unique(["cell", "value"], keep="first", maintain_order=True)
    if distinct["cell"].n_unique() < distinct.height:
        return None
    return distinct["row"].cast(pl.Int64).to_numpy(), distinct["cell"].to_numpy()


_KEPT_ENCODINGS = ("dtype", "_FillValue", "missing_value", "scale_factor", "add_offset", "units", "calendar")


def _described(variable: Any) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return attributes and encoding of a variable, without the chunks of its old shape."""
    if variable is None:
        return {}, {}
    encoding = {name: variable.encoding[name] for name in _KEPT_ENCODINGS if name in variable.encoding}
    return dict(variable.attrs), encoding


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
