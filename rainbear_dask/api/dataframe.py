"""The public face for Dask DataFrames: of a store, and of a lazy Polars table."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

import polars as pl

from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.api.scan import plan
from rainbear_dask.dependencies import require
from rainbear_dask.query.scanned_frame import plan_of_filters

if TYPE_CHECKING:
    import dask.dataframe as dd


def read_zarr(
    source: Any,
    columns: Sequence[str] | None = None,
    filters: pl.Expr | Sequence[Any] | None = None,
    index: str | None = None,
    *,
    dtype_backend: Literal["numpy", "pyarrow"] = "numpy",
    categories: Collection[str] = (),
    **options: Any,
) -> "dd.DataFrame":
    """Read a Zarr store as a Dask DataFrame with one row per grid cell; takes ``dask[dataframe]``.

    Opening reads the metadata. Filters, columns, ``loc``, ``head`` and ``len`` that are written later reach the reader, as
    ``frame.optimize().pprint()`` shows: a chunk is read only if a row of it can match.

    Parameters
    ----------
    source
        As in `scan_zarr`.
    columns : sequence of str, optional
        Columns wanted; by default all. A variable of a child group is ``child/variable``.
    filters : Expr or list, optional
        A filter of Polars; or ``[(column, op, value), ...]`` of which rows pass all, or a list of such lists of which they
        pass one, with pandas' meaning: ``==``, ``=``, ``!=``, ``<``, ``<=``, ``>``, ``>=``, ``in``, ``not in``.
    index : str, optional
        A coordinate of one dimension. Rows are then in the order of that dimension first, in ascending order of its
        labels, and divisions are known, so that ``loc``, joins and ``resample`` need no shuffle. The coordinate is read
        for it. Where it has no order, or nulls, divisions are unknown and rows are in stored order. Without an index,
        each partition numbers its rows from 0, and divisions are unknown.
    dtype_backend : {"numpy", "pyarrow"}
        Types. NumPy's have NaN for null: integers that may be masked are floats (float32 up to 16 bits, else float64),
        Booleans that may be are pandas' own. Text is ``string[pyarrow]`` in either, and the index is NumPy's.
    categories : collection of str
        Coordinates of one dimension that become ordered categoricals, which take few bytes for each row. pandas compares
        them with their own labels only: ``frame.lat.astype(float) > 30``. They are read for it.
    **options
        ``variables``, ``group``, ``prefix``, ``storage_options``, ``decode`` and ``mask`` of `scan_zarr`.

    Returns
    -------
    dask.dataframe.DataFrame
        Columns as `scan_zarr` gives, but those of child groups one by one. Partitions are tasks of a plan, of bounded size,
        in the order of `scan_zarr`'s rows; with an index, all rows between two labels.

    Raises
    ------
    PredicateError
        If ``filters`` is no such filter.
    UnknownColumnError
        If a column is named that the table does not have.
    QueryError
        If the index is no coordinate of one dimension.

    Notes
    -----
    CF times are ``datetime64`` where pandas has all their dates, and text in ISO 8601 otherwise, as in `scan_zarr`. The
    rows are those of ``xarray.open_zarr(source).to_dataframe()``. It computes with every scheduler of Dask; with a client of
    ``Client(asynchronous=True)``, where the store takes credentials, on a thread: ``await asyncio.to_thread(frame.compute)``.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> sst = rd.read_zarr("sst.zarr", index="time")
    >>> north = sst[sst.latitude > 40].loc["2000-01"]
    >>> north.groupby("latitude").sst.mean().compute()  # doctest: +SKIP
    """
    require("dask.dataframe", extra="dataframe")
    from rainbear_dask.dataframe.frame import dask_dataframe  # noqa: PLC0415  as dask.dataframe is an extra

    predicate, lists = (filters, None) if isinstance(filters, pl.Expr) else (None, filters)
    found = plan(source, predicate, columns, **options)
    return dask_dataframe(found, index=index, dtype_backend=dtype_backend, categories=categories, filters=lists)


def to_dask_dataframe(
    lf: pl.LazyFrame,
    *,
    index: str | None = None,
    dtype_backend: Literal["numpy", "pyarrow"] = "numpy",
    categories: Collection[str] = (),
) -> "dd.DataFrame":
    """Make filters and a choice of columns of a scan a Dask DataFrame; takes ``dask[dataframe]``.

    Parameters
    ----------
    lf : LazyFrame
        Of one scan that `scan_zarr` made.
    index, dtype_backend, categories
        As in `read_zarr`.

    Returns
    -------
    dask.dataframe.DataFrame
        As `read_zarr` gives.

    Raises
    ------
    QueryError
        If the query does more than to filter row by row and to choose columns.
    """
    return ScanPlan.of(plan_of_filters(lf)).to_dask_dataframe(
        index=index, dtype_backend=dtype_backend, categories=categories
    )
