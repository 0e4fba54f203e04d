"""The public function that returns rows as an xarray Dataset."""

from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.convert.grid import Dims
from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import QueryError
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.options import checks_options
from rainbear_dask.query.scanned_frame import plan_of_filters
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.typing import StoreLike

if TYPE_CHECKING:
    import xarray as xr


@checks_options
def to_xarray(
    frame: pl.DataFrame | pl.LazyFrame | ScanPlan, dims: Dims, *, like: "xr.Dataset | StoreLike | None" = None
) -> "xr.Dataset":
    """Return any rows as an xarray Dataset; needs xarray.

    Parameters
    ----------
    frame : DataFrame, LazyFrame or ScanPlan
        The rows. A LazyFrame is collected. A plan becomes a Dataset that reads on first use, as its own ``to_xarray``.
    dims : sequence of str, or mapping of str to labels
        Columns that become dimensions, in order. By names alone, labels are in order of appearance. A mapping gives
        the labels, which may include others than the rows have.
    like : Dataset, or source as in `scan_zarr`, optional
        Attributes and encodings by name, coordinates that are not dimensions, and dimensions of variables that repeat
        along others. The default is the store, if the query only filters and selects one scan.

    Returns
    -------
    xarray.Dataset
        All other columns are variables on the dimensions. Cells without a row, and nulls, are NaN or NaT. Integers
        with such cells are floats, as in xarray, and a declared fill value is kept in the encoding.

    Raises
    ------
    RowsError
        If two rows have one cell, which the message names, if a label is null or not in ``dims``, or if a column is of
        a type that no array holds.
    UnknownColumnError
        If a dimension is not a column.
    UnknownOptionError
        If a keyword is not an option of this function.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> monthly = rd.scan_zarr("sst.zarr").group_by(pl.col("time").dt.month().alias("month"), "latitude").agg(
    ...     pl.col("sst").mean()
    ... )
    >>> rd.to_xarray(monthly.sort("month", "latitude"), ["month", "latitude"])  # doctest: +SKIP
    """
    require("xarray", extra="xarray")
    import xarray as xr  # noqa: PLC0415  an extra

    from rainbear_dask.convert.xarray import dataset, source_dataset  # noqa: PLC0415  as xarray is an extra

    if isinstance(frame, ScanPlan):
        if set(dims) != set(frame.table.sizes) or not isinstance(dims, list | tuple):
            raise QueryError(
                f"A plan has the dimensions {', '.join(frame.table.sizes)}. Name all of them in a list, or collect the "
                "plan first."
            )
        lazy: xr.Dataset = frame.to_xarray().transpose(*dims)
        return lazy
    if like is None:
        spec = _spec_of(frame)
        template = None if spec is None else source_dataset(spec)
    else:
        template = like if isinstance(like, xr.Dataset) else source_dataset(open_store(like).spec)
    rows: Any = frame.collect() if isinstance(frame, pl.LazyFrame) else frame
    return dataset(rows, dims, template)


def _spec_of(frame: pl.DataFrame | pl.LazyFrame) -> StoreSpec | None:
    """Return the recipe of the store of a query that only filters and selects; None for other rows."""
    if not isinstance(frame, pl.LazyFrame):
        return None
    try:
        return plan_of_filters(frame).table.spec
    except QueryError:
        return None
