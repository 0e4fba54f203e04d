"""The public functions for lazy tables: a Zarr store to `polars.LazyFrame`, and a query to its plan."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any, Unpack

import polars as pl

from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.backends.base import without_backend
from rainbear_dask.diagnostics.explain import as_text
from rainbear_dask.engine.rewriting import rewrite
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.options import checks_options
from rainbear_dask.planning.limits import Limits
from rainbear_dask.query.expression import plan_filter
from rainbear_dask.query.io_source import plans_of
from rainbear_dask.query.scanned_frame import lazy_table
from rainbear_dask.redaction import presentable, warn
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
        A local path, a URL that fsspec knows, a store of zarr or obstore, an fsspec mapper, or an Icechunk session or
        store; Zarr v2 or v3. A backend shares its cached metadata and coordinates.
    variables : collection of str, optional
        Data variables of the table; their dimensions make the rows. By default all data variables of the group.
    group : str, optional
        Path of a group inside the store. A dimension may have its coordinate in a parent group.
    prefix : str, optional
        Path of the Zarr store inside the source, for example inside a bucket.
    storage_options : mapping, optional
        For a URL: credentials, endpoint, anonymous access, time-outs, retries, and the library that reads. The README
        lists them.
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
        If the source is not a Zarr group, or its arrays contradict each other.
    UnknownColumnError
        If ``variables`` names an array that the group does not have.
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
    meta = open_store(without_backend(source), group=group, prefix=prefix, storage_options=storage_options)
    names = [variables] if isinstance(variables, str) else variables
    table = open_table(meta, variables=names, decode=decode, mask=mask)
    if table.repeats >= REPEATS_TO_WARN:
        warn(
            f"The table of {table.spec.label} has {table.num_rows:,} rows, {table.repeats:,.0f} for each value of its "
            f"largest variable, because no variable has all its dimensions ({', '.join(table.sizes)}). Name variables "
            "that share dimensions in `variables=`, or scan one table for each set of dimensions with tables()."
        )
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
    predicate: pl.Expr | None = None,
    columns: Sequence[str] | None = None,
    *,
    n_rows: int | None = None,
    **options: Unpack[ScanOptions],
) -> ScanPlan:
    """Plan a scan without running it.

    Parameters
    ----------
    source
        As in `scan_zarr`.
    predicate : Expr, optional
        The filter.
    columns : sequence of str, optional
        Columns of the result; by default all.
    n_rows : int, optional
        Upper bound of the rows of the result; the plan returns the first rows that pass the filter.
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
    UnknownOptionError
        If a keyword is not an option of this function.
    """
    return ScanPlan(plan_filter(_open_table(source, **options), predicate, columns, n_rows))


def explain(lf: pl.LazyFrame) -> str:
    """Report which chunks each Zarr scan of a query would read, and which aggregations are split; reads no variable.

    Parameters
    ----------
    lf : LazyFrame
        Any query over scans that `scan_zarr` made.

    Returns
    -------
    str
        For each scan: chunks and bytes kept of the total, upper bound of the rows, tasks, order, columns and filters.
        For each aggregation of a scan: whether `collect` and `Engine` compute it where the chunks are decoded, or why not.
        Planning reads only the coordinates that filters and keys name.
    """
    parts = rewrite(lf).parts
    return "\n".join([*(as_text(found) for found in plans_of(lf)), *(presentable(str(part)) for part in parts)])
