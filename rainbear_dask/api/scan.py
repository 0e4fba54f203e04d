"""The public functions for lazy tables: a Zarr store to `polars.LazyFrame`, and a query to its plan."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import polars as pl

from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.api.tables import opened_table, opened_tables
from rainbear_dask.diagnostics.explanation import Explanation
from rainbear_dask.engine.rewriting import rewrite
from rainbear_dask.exceptions import QueryError
from rainbear_dask.execution.clients import check_client, place_of
from rainbear_dask.options import checks_options
from rainbear_dask.planning.limits import Limits, check_count, check_limits
from rainbear_dask.query.expression import plan_filter
from rainbear_dask.query.io_source import reports_with_clients
from rainbear_dask.query.pushdown import filters_above_scans
from rainbear_dask.query.scanned_frame import lazy_table
from rainbear_dask.table.model import TableKey
from rainbear_dask.typing import ScanOptions, StatisticsOption, StoreLike, TableOptions, TimeUnit

if TYPE_CHECKING:
    from distributed import Client


@checks_options
def scan_zarr(
    source: StoreLike,
    *,
    variables: Collection[str] | None = None,
    group: str | None = None,
    prefix: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    decode: bool = True,
    mask: bool = True,
    statistics: StatisticsOption = "auto",
    time_unit: TimeUnit = "ns",
    client: "Client | None" = None,
    max_chunks_to_read: int | None = None,
    max_rows: int | None = None,
    max_bytes: int | None = None,
) -> pl.LazyFrame:
    """Scan a Zarr store as a table with one row per grid cell.

    Opening reads the metadata and the ends of the time coordinates. Polars pushes filters, projections and ``head``
    down to the scan. The scan reads a chunk only if one of its rows can match.

    Parameters
    ----------
    source : str, path, store or backend
        A local path, a URL that fsspec knows, a store of zarr or obstore, an fsspec mapper, a group or an array of
        zarr, or an Icechunk session or store; Zarr v2 or v3. A Dataset that xarray opened, if it still holds exactly
        its store. A STAC item or asset, as an object of pystac or as a dict, with its storage options. A backend shares its cached metadata and coordinates.
    variables : collection of str, optional
        Data variables of the table; their dimensions make the rows. By default all data variables of the group.
    group : str, optional
        Path of a group inside the store. A dimension may have its coordinate in a parent group.
    prefix : str, optional
        Path of the Zarr store inside the source, for example inside a bucket.
    storage_options : mapping, optional
        For a URL: credentials, endpoint, anonymous access, time-outs, retries, and the library that reads. The
        page on storage options lists them.
    decode : bool
        Whether to decode CF attributes (times, durations, packed values, text encodings) and to join letters to
        strings. False gives stored values.
    mask : bool
        Whether masked values (``_FillValue``, ``missing_value``) are null. False gives the fill values themselves.
    statistics : {"auto", False}, str or path
        Statistics of chunks that `analyze` has collected. Filters on data variables then skip chunks that hold no
        matching row. By default they are looked for in the store and in the user's cache folder. False uses none. A
        folder is the one that ``where=`` of `analyze` named.
    time_unit : {"ns", "us", "ms"}
        Unit of times and durations. "us" is the unit of Polars' own and of Python's times, so that they join. Times
        between two steps of the unit are rounded down, as Polars' ``cast`` does. Columns that nanoseconds cannot hold
        have microseconds with "ns", too.
    client : distributed.Client, optional
        Dask client that runs the tasks. By default the active client. Without one, threads of this process read.
    max_chunks_to_read, max_rows, max_bytes : int, optional
        Upper bounds of one query: chunks of data variables, rows before the residual filter, decoded bytes.

    Returns
    -------
    LazyFrame
        Columns: dimensions in array order, other coordinates, data variables in store order, then a Struct for each
        child group. Rows: the product of the dimensions, in C order if chunks of 64 MiB (decoded) allow it. Otherwise
        rows come in C order of blocks of whole chunks, with C order inside each block. The order depends on the store
        and on the scan's variables alone. No filter, projection, limit, setting, thread or cluster changes it.
        `rd.explain` shows the order.

    Raises
    ------
    StoreNotFoundError
        If the source does not exist.
    StoreAccessError
        If the store rejects the credentials.
    StoreFormatError
        If the source is not a Zarr group, its arrays contradict each other, or a Dataset differs from its store.
    UnknownColumnError
        If ``variables`` names an array that the group does not have.
    ClusterError
        If ``client`` is no Dask client, or is closed.
    UnknownOptionError
        If a keyword is not an option of this function.

    Warns
    -----
    UserWarning
        Once for each array that the scan cannot read and leaves out. Once if no variable spans the dimensions of the
        table, so that rows repeat every variable many times.

    Notes
    -----
    ``collect`` raises PlanTooLargeError if a query exceeds an upper bound, and ChunkReadError if a chunk cannot be
    read. The table has the rows of ``xarray.open_zarr(source).to_dataframe()``, with nulls for masked values. A tree
    has the labels of ``xarray.open_datatree``: a coordinate comes from the variable's own group, else from the nearest
    parent.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> lf = rd.scan_zarr("sst.zarr").filter(pl.col("latitude").abs() < 5, pl.col("time").dt.month() == 1)
    >>> lf.collect()  # doctest: +SKIP
    """
    check_client(client)
    table = opened_table(
        source,
        variables,
        group,
        prefix,
        storage_options,
        decode=decode,
        mask=mask,
        statistics=statistics,
        time_unit=time_unit,
    )
    return lazy_table(table, client, Limits(max_chunks_to_read, max_rows, max_bytes))


@checks_options
def tables(
    source: StoreLike,
    *,
    client: "Client | None" = None,
    max_chunks_to_read: int | None = None,
    max_rows: int | None = None,
    max_bytes: int | None = None,
    **options: Unpack[TableOptions],
) -> dict[TableKey, pl.LazyFrame]:
    """Scan a store whose variables do not share one grid, as one table for each group and grid.

    Image pyramids, sparse matrices and trees of groups are such stores.

    Parameters
    ----------
    source, client, max_chunks_to_read, max_rows, max_bytes
        As in `scan_zarr`.
    **options
        ``group``, ``prefix``, ``storage_options``, ``decode``, ``mask``, ``statistics`` and ``time_unit`` of
        `scan_zarr`.

    Returns
    -------
    dict of TableKey to LazyFrame
        Tables in store order. A key is a named tuple: the ``group`` of the variables, their ``dims`` and ``shape``.
        Variables of a group share a table if they have the same dimensions, in any order, and the same lengths.
        Together the tables hold every data variable once. A variable of a child group is in a Struct, as in
        `scan_zarr`. A table has each coordinate of its group and of parent groups if the lengths fit.

    Raises
    ------
    UnknownOptionError
        If a keyword is not an option of this function.

    Warns
    -----
    UserWarning
        Once for each array that the scan cannot read and leaves out.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> found = rd.tables("image.zarr")  # doctest: +SKIP
    >>> found[rd.TableKey("", ("y", "x"), (512, 512))].collect()  # doctest: +SKIP
    """
    check_client(client)
    limits = Limits(max_chunks_to_read, max_rows, max_bytes)
    return {key: lazy_table(table, client, limits) for key, table in opened_tables(source, **options).items()}


@checks_options
def plan(
    source: StoreLike,
    predicate: pl.Expr | str | None = None,
    columns: Sequence[str] | None = None,
    *,
    n_rows: int | None = None,
    max_chunks_to_read: int | None = None,
    max_rows: int | None = None,
    max_bytes: int | None = None,
    **options: Unpack[ScanOptions],
) -> ScanPlan:
    """Plan a scan without running it.

    Parameters
    ----------
    source
        As in `scan_zarr`.
    predicate : Expr or str, optional
        The filter: an expression, or an SQL condition, ``"lat > 45 AND time < '2020-01-01'"``.
    columns : sequence of str, optional
        Columns of the result; by default all.
    n_rows : int, optional
        Upper bound of the rows of the result; the plan returns the first rows that pass the filter.
    max_chunks_to_read, max_rows, max_bytes
        As in `scan_zarr`.
    **options
        ``variables``, ``group``, ``prefix``, ``storage_options``, ``decode``, ``mask``, ``statistics`` and
        ``time_unit`` of `scan_zarr`.

    Returns
    -------
    ScanPlan
        ``print(plan.explain())`` shows it, and a notebook draws its chunks. Its methods run it, here or on a cluster.

    Raises
    ------
    PredicateError
        If the predicate is not a Polars expression, or one of its conditions needs other rows. The message names the
        condition.
    UnknownColumnError
        If the predicate or ``columns`` names a column that the table does not have.
    PlanTooLargeError
        If the plan exceeds an upper bound.
    UnknownOptionError
        If a keyword is not an option of this function.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> plan = rd.plan("sst.zarr", pl.col("latitude") > 45, ["time", "sst"])
    >>> plan.num_chunks_kept, plan.num_chunks
    (1, 1)
    >>> plan.collect().columns
    ['time', 'sst']
    """
    limits = Limits(max_chunks_to_read, max_rows, max_bytes)
    check_count("n_rows", n_rows)
    names = [columns] if isinstance(columns, str) else columns
    found = plan_filter(opened_table(source, **options), predicate, names, n_rows)
    check_limits(found, limits)
    return ScanPlan(found, limits)


def explain(lf: pl.LazyFrame) -> Explanation:
    """Report, for each Zarr scan in a query, which chunks it would read; no data variable is read.

    Parameters
    ----------
    lf : LazyFrame
        Any query over scans that `scan_zarr` made.

    Returns
    -------
    Explanation
        For each scan: chunks and bytes kept of the total, upper bound of the rows, tasks, place, order, columns and
        filters. For each aggregation of a scan: whether `collect` and `Engine` compute it where the chunks are decoded,
        or why not. For each join of a scan with a small table: the keys by which `collect` and `Engine` prune the scan; the
        counts are those after pruning. ``print`` shows it as text, a notebook with a picture. Its attributes are ``chunks_kept``,
        ``chunks_total``, ``bytes``, ``rows``, ``tasks``, ``memory`` (bytes for one task), ``runs_on``, ``split`` and
        ``kept_by_polars``. Planning reads only the coordinates that the filters name. `sample` and `zonal` count their
        own rows and tasks; for `sample`, the points are collected.

    Raises
    ------
    QueryError
        If the argument is no LazyFrame.
    PredicateError
        If a filter compares values of different types.

    Notes
    -----
    If a filter keeps no row, the report shows the range and the step of each coordinate that it names, and the probable
    mistake: another convention of longitudes, swapped bounds, or a label that does not exist.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> report = rd.explain(rd.scan_zarr("sst.zarr").filter(pl.col("longitude") < -30))
    >>> report.chunks_kept, report.runs_on
    (0, 'threads')
    >>> "These longitudes are 0° to 360°" in report
    True
    """
    if not isinstance(lf, pl.LazyFrame):
        raise QueryError(
            f"explain() takes a LazyFrame, and this is a {type(lf).__name__}. Explain the query before you collect it."
        )
    done = rewrite(lf)
    lf = done.query if any(join.keys for join in done.joins) else lf
    scans = reports_with_clients(lf)
    known = {str(conjunct.expr) for found, _ in scans for conjunct in found.plan.conjuncts}
    kept = [text for text in filters_above_scans(lf) if text not in known] if scans else []
    places = tuple(place_of(found.plan, client) for found, client in scans)
    return Explanation(
        tuple(found for found, _ in scans),
        places,
        tuple(kept),
        tuple(part.space for part in done.parts),
        tuple(map(str, (*done.parts, *done.joins))),
    )
