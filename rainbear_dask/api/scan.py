"""The public functions for lazy tables: a Zarr store to `polars.LazyFrame`, and a query to its plan."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import polars as pl

from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.backends.base import without_backend
from rainbear_dask.diagnostics.explanation import Explanation
from rainbear_dask.engine.rewriting import rewrite
from rainbear_dask.exceptions import QueryError, RepeatedRowsWarning
from rainbear_dask.execution.clients import check_client, place_of
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.options import checks_options
from rainbear_dask.planning.limits import Limits, check_count, check_limits
from rainbear_dask.query.expression import plan_filter
from rainbear_dask.query.io_source import plans_with_clients
from rainbear_dask.query.pushdown import filters_above_scans
from rainbear_dask.query.scanned_frame import lazy_table
from rainbear_dask.redaction import warn
from rainbear_dask.storage.sources import is_array, is_dataset, place_in_store
from rainbear_dask.table.model import Table, TableKey
from rainbear_dask.table.open import open_table, open_tables
from rainbear_dask.typing import ScanOptions, StoreLike, TableOptions

if TYPE_CHECKING:
    from distributed import Client

REPEATS_TO_WARN = 10
"""Least rows per value of the largest variable for a warning: users rarely want so many repeats."""


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
        its store. A backend shares its cached metadata and coordinates.
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
    table = _open_table(source, variables, group, prefix, storage_options, decode=decode, mask=mask)
    return lazy_table(table, client, Limits(max_chunks_to_read, max_rows, max_bytes))


def _open_table(
    source: StoreLike,
    variables: Collection[str] | None = None,
    group: str | None = None,
    prefix: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    decode: bool = True,
    mask: bool = True,
) -> Table:
    if is_dataset(source) or is_array(source):
        if variables is not None or group or prefix or storage_options:
            raise QueryError(
                "A Dataset or an array names its store and its variables itself, so `variables`, `group`, `prefix` and "
                "`storage_options` have no meaning. Select variables from it, or pass the path of the store."
            )
        return _table_of_object(source, decode=decode, mask=mask)
    meta = open_store(without_backend(source), group=group, prefix=prefix, storage_options=storage_options)
    names = [variables] if isinstance(variables, str) else variables
    table = open_table(meta, variables=names, decode=decode, mask=mask)
    if table.repeats >= REPEATS_TO_WARN:
        warn(
            f"The table of {table.spec.label} has {table.num_rows:,} rows, {table.repeats:,.0f} for each value of its "
            f"largest variable, because no variable has all its dimensions ({', '.join(table.sizes)}). Name variables "
            "that share dimensions in `variables=`, or scan one table for each set of dimensions with tables().",
            RepeatedRowsWarning,
        )
    return table


def _table_of_object(source: Any, *, decode: bool, mask: bool) -> Table:
    """Return the table of a Dataset of xarray, or of an array of zarr."""
    if is_array(source):
        store, path = place_in_store(source)
        group, _, name = path.rpartition("/")
        return _open_table(store, [name], group, decode=decode, mask=mask)
    from rainbear_dask.convert.dataset_source import check_same, source_of_dataset  # noqa: PLC0415  xarray is an extra

    found = source_of_dataset(source)
    whole = _open_table(found.store, None, found.group, decode=decode, mask=mask)
    names = [name for name, column in whole.columns.items() if column.role == "data" and name in found.variables]
    table = _open_table(found.store, names or found.variables, found.group, decode=decode, mask=mask)
    check_same(source, table)
    return table


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
        ``group``, ``prefix``, ``storage_options``, ``decode`` and ``mask`` of `scan_zarr`.

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
    return {key: lazy_table(table, client, limits) for key, table in _open_tables(source, **options).items()}


def _open_tables(
    source: StoreLike,
    group: str | None = None,
    prefix: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    decode: bool = True,
    mask: bool = True,
) -> dict[TableKey, Table]:
    meta = open_store(without_backend(source), group=group, prefix=prefix, storage_options=storage_options)
    return open_tables(meta, decode=decode, mask=mask)


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
        ``variables``, ``group``, ``prefix``, ``storage_options``, ``decode`` and ``mask`` of `scan_zarr`.

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
    found = plan_filter(_open_table(source, **options), predicate, names, n_rows)
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
        or why not. ``print`` shows it as text, a notebook with a picture. Its attributes are ``chunks_kept``,
        ``chunks_total``, ``bytes``, ``rows``, ``tasks``, ``memory`` (bytes for one task), ``runs_on``, ``split`` and
        ``kept_by_polars``. Planning reads only the coordinates that the filters name.

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
    scans = plans_with_clients(lf)
    known = {str(conjunct.expr) for found, _ in scans for conjunct in found.conjuncts}
    kept = [text for text in filters_above_scans(lf) if text not in known] if scans else []
    places = tuple(place_of(found, client) for found, client in scans)
    parts = rewrite(lf).parts
    return Explanation(
        tuple(found for found, _ in scans),
        places,
        tuple(kept),
        tuple(None if part.split is None else "array" for part in parts),
        tuple(str(part) for part in parts),
    )
