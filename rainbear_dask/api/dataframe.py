"""The public functions for Dask DataFrames: a Zarr store, or a query of Polars, to `dask.dataframe.DataFrame`."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import polars as pl

from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.api.scan import plan
from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import ClusterError
from rainbear_dask.execution.clients import active_client, check_client
from rainbear_dask.options import checks_options
from rainbear_dask.planning.limits import check_limits
from rainbear_dask.query.scanned_frame import client_of, limits_of, plan_of_filters
from rainbear_dask.typing import DtypeBackend, ScanOptions, StoreLike

if TYPE_CHECKING:
    import dask.dataframe as dd
    from distributed import Client


@checks_options
def read_zarr(
    source: StoreLike,
    predicate: pl.Expr | str | Sequence[Any] | None = None,
    columns: Sequence[str] | None = None,
    index: str | None = None,
    *,
    dtype_backend: DtypeBackend = "numpy",
    categories: Collection[str] = (),
    **options: Unpack[ScanOptions],
) -> "dd.DataFrame":
    """Read a Zarr store as a Dask DataFrame with one row per grid cell; needs ``dask[dataframe]``.

    Opening reads the metadata. Dask pushes later filters, projections, ``loc``, ``head`` and ``len`` down to the scan:
    ``frame.optimize().pprint()`` shows them. The scan reads a chunk only if one of its rows can match.

    Parameters
    ----------
    source
        As in `scan_zarr`.
    predicate : Expr, str or list, optional
        The filter: an expression or an SQL condition, as in `plan`, or tuples ``[(column, op, value), ...]`` that are joined by "and", or a list of such lists
        that are joined by "or". Tuples have pandas semantics; the operators are ``==``, ``=``, ``!=``, ``<``, ``<=``,
        ``>``, ``>=``, ``in``, ``not in``.
    columns : sequence of str, optional
        Columns of the frame; by default all. ``child/variable`` names a variable of a child group.
    index : str, optional
        A coordinate of one dimension. Rows are then sorted by its labels, and divisions are known, so that ``loc``,
        joins and ``resample`` need no shuffle. Planning reads the coordinate. If the coordinate is unsorted or has
        nulls, divisions are unknown and rows keep their stored order. Without an index, divisions are unknown and
        each partition numbers its rows from 0.
    dtype_backend : {"numpy", "pyarrow"}
        Dtypes of the columns. NumPy dtypes hold NaN for null: integers that may be masked become float32 (up to 16
        bits) or float64, and Booleans that may be masked become pandas' nullable Booleans. Strings are
        ``string[pyarrow]`` with both backends. The index has a NumPy dtype.
    categories : collection of str
        Coordinates of one dimension that become ordered categoricals, which take a few bytes per row. Planning reads
        them. pandas compares a categorical only with its own labels: ``frame.lat.astype(float) > 30``.
    **options
        ``variables``, ``group``, ``prefix``, ``storage_options``, ``decode``, ``mask`` and ``time_unit`` of
        `scan_zarr`.

    Returns
    -------
    dask.dataframe.DataFrame
        Columns of `scan_zarr`, with one column for each variable of a child group. Each partition is one task of
        bounded size, in the row order of `scan_zarr`. With an index, a partition holds all rows between two labels.

    Raises
    ------
    PredicateError
        If ``predicate`` is not a valid filter.
    UnknownColumnError
        If an argument names a column that the table does not have.
    QueryError
        If the index is not a coordinate of one dimension.
    UnknownOptionError
        If a keyword is not an option of this function.

    Notes
    -----
    CF times are ``datetime64`` if pandas can represent all their dates, else ISO 8601 strings, as in `scan_zarr`. The
    frame has the rows of ``xarray.open_zarr(source).to_dataframe()``. Every scheduler of Dask can compute the frame.
    If the store needs credentials and the client is ``Client(asynchronous=True)``, compute on a thread:
    ``await asyncio.to_thread(frame.compute)``.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> sst = rd.read_zarr("sst.zarr", index="time")
    >>> north = sst[sst.latitude > 40].loc["2000-01"]
    >>> north.groupby("latitude").sst.mean().compute()  # doctest: +SKIP
    """
    require("dask.dataframe", extra="dataframe")
    from rainbear_dask.dataframe.frame import dask_dataframe  # noqa: PLC0415  dask.dataframe is an extra

    expr, lists = (predicate, None) if isinstance(predicate, pl.Expr | str) else (None, predicate)
    found = plan(source, expr, columns, **options).read_plan
    return dask_dataframe(found, index=index, dtype_backend=dtype_backend, categories=categories, filters=lists)


@checks_options
def to_dask_dataframe(
    lf: pl.LazyFrame,
    *,
    index: str | None = None,
    dtype_backend: DtypeBackend = "numpy",
    categories: Collection[str] = (),
) -> "dd.DataFrame":
    """Convert a query that filters and projects one scan to a Dask DataFrame; needs ``dask[dataframe]``.

    Parameters
    ----------
    lf : LazyFrame
        A query over one scan that `scan_zarr` made.
    index, dtype_backend, categories
        As in `read_zarr`.

    Returns
    -------
    dask.dataframe.DataFrame
        As in `read_zarr`.

    Raises
    ------
    QueryError
        If the query does more than filter row by row and choose columns.
    PlanTooLargeError
        If it exceeds an upper bound of its scan.
    ClusterError
        If the scan has a ``client`` that is not the active one, because Dask computes on the active client.
    UnknownOptionError
        If a keyword is not an option of this function.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> north = rd.scan_zarr("sst.zarr").filter(pl.col("latitude") > 60)
    >>> len(rd.to_dask_dataframe(north))
    1440
    """
    found, limits = ScanPlan(plan_of_filters(lf)), limits_of(lf)
    check_limits(found.read_plan, limits)
    _check_active(client_of(lf))
    return found.to_dask_dataframe(index=index, dtype_backend=dtype_backend, categories=categories)


def _check_active(client: "Client | None") -> None:
    check_client(client)
    if client is not None and client is not active_client(awaited=True):
        raise ClusterError(
            "The scan names a client that is not active, and Dask computes a DataFrame on the active client. Convert and "
            "compute it inside `with client.as_current():`."
        )
