"""The public face: a Zarr store as a lazy Polars table."""

from collections.abc import Collection, Mapping, Sequence
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.diagnostics.explain import as_text
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.planning.limits import Limits
from rainbear_dask.query.expression import plan_filter
from rainbear_dask.query.io_source import lazy_table, plans_of
from rainbear_dask.redaction import warn
from rainbear_dask.table.model import Table, TableKey
from rainbear_dask.table.open import open_table, open_tables

if TYPE_CHECKING:
    from distributed import Client


def scan_zarr(
    source: Any,
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

    Opening reads the metadata, and the ends of the time coordinates. Filters, column selections and ``head`` reach
    the reader: a chunk is read only if a row of it can match.

    Parameters
    ----------
    source : str, path, store or backend
        A local path, a URL that fsspec knows, a store of zarr or obstore, an fsspec mapper, or an Icechunk session or
        store. A backend gives what it keeps: no metadata is read a second time. Zarr v2 and v3.
    variables : collection of str, optional
        The data variables whose dimensions make the rows. By default all of the group.
    group : str, optional
        Path of a group inside the store. A dimension may have its coordinate in a group above it.
    prefix : str, optional
        Path of the Zarr store inside the source, as where that is a whole bucket.
    storage_options : mapping, optional
        With a URL: credentials, endpoint, anonymous access, time-outs, retries, and which library reads; see the README.
    decode : bool
        Whether CF attributes are decoded (times, durations, packed values, encodings of text), and letters joined to
        texts. False gives stored values.
    mask : bool
        Whether masked values (``_FillValue``, ``missing_value``) are null. False gives the values that stand for them.
    client : distributed.Client, optional
        Where the tasks run. By default the active Dask client; without one, threads of this process.
    max_chunks_to_read, max_rows, max_bytes : int, optional
        Refuse a query that needs more chunks of data variables, more rows before filtering by value, or more decoded
        bytes.

    Returns
    -------
    LazyFrame
        Columns: dimensions in array order, other coordinates, data variables in store order, then a Struct for each
        child group. Rows: the product of the dimensions, in C order where chunks of 64 MiB, decoded, are enough to put
        them so; else in C order of blocks of whole chunks, with C order inside each block. The order depends on the
        store and on the variables that the scan has, and on nothing else: no filter, column selection, limit, setting,
        thread or cluster changes it. `rd.explain` says which order it is.

    Raises
    ------
    StoreNotFoundError
        If nothing is there.
    StoreAccessError
        If the store refuses the credentials.
    StoreFormatError
        If it is not a Zarr group, or its arrays contradict each other.
    UnknownColumnError
        If ``variables`` names an array that is not there.

    Warns
    -----
    UserWarning
        Once for each array that cannot be read and is left out; once where no variable spans the table's dimensions
        and the rows repeat each of them many times.

    Notes
    -----
    ``collect`` raises PlanTooLargeError over ``max_chunks_to_read``, and ChunkReadError where a chunk cannot be read.
    The rows are those of ``xarray.open_zarr(source).to_dataframe()``, with masked values as nulls. Labels of a tree are those
    of ``xarray.open_datatree``: a coordinate is looked for in the variable's own group, then in the groups above it.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> lf = rd.scan_zarr("sst.zarr").filter(pl.col("latitude").abs() < 5, pl.col("time").dt.month() == 1)
    >>> lf.collect()  # doctest: +SKIP
    """
    table = _open_table(source, variables, group, prefix, storage_options, decode=decode, mask=mask)
    return lazy_table(table, client, Limits(max_chunks_to_read, max_rows, max_bytes))


_MANY = 10


def _open_table(
    source: Any,
    variables: Collection[str] | None = None,
    group: str | None = None,
    prefix: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    decode: bool = True,
    mask: bool = True,
) -> Table:
    meta = open_store(source, group=group, prefix=prefix, storage_options=storage_options)
    names = [variables] if isinstance(variables, str) else variables
    table = open_table(meta, variables=names, decode=decode, mask=mask)
    if table.repeats >= _MANY:
        warn(
            f"the table of {table.spec.label} has {table.num_rows:,} rows, {table.repeats:,.0f} for each value of its "
            f"largest variable, because no variable has all its dimensions ({', '.join(table.sizes)}). Name variables "
            "that belong together in variables=, or take one table for each set of dimensions from tables().",
            stacklevel=3,
        )
    return table


def tables(
    source: Any,
    *,
    group: str | None = None,
    prefix: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    decode: bool = True,
    mask: bool = True,
    client: "Client | None" = None,
    max_chunks_to_read: int | None = None,
    max_rows: int | None = None,
    max_bytes: int | None = None,
) -> dict[TableKey, pl.LazyFrame]:
    """Scan a store whose variables do not share one grid: one table for each group and grid.

    Image pyramids, sparse matrices and trees of groups are such stores.

    Parameters
    ----------
    source, group, prefix, storage_options, decode, mask, client, max_chunks_to_read, max_rows, max_bytes
        As in `scan_zarr`.

    Returns
    -------
    dict of TableKey to LazyFrame
        In store order. A key is a named tuple: the variables' ``group``, their ``dims`` and the ``shape``. Variables of a
        group that have the same dimensions, in whatever order, and the same lengths share a table. Together the
        tables hold every data variable once; one of a child group is in a Struct, as in `scan_zarr`. A table has those
        coordinates of its group, and of the groups above it, whose lengths fit.

    Warns
    -----
    UserWarning
        Once for each array that cannot be read and is left out.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> found = rd.tables("image.zarr")  # doctest: +SKIP
    >>> found[rd.TableKey("", ("y", "x"), (512, 512))].collect()  # doctest: +SKIP
    """
    meta = open_store(source, group=group, prefix=prefix, storage_options=storage_options)
    limits = Limits(max_chunks_to_read, max_rows, max_bytes)
    found = open_tables(meta, decode=decode, mask=mask)
    return {key: lazy_table(table, client, limits) for key, table in found.items()}


def plan(
    source: Any,
    predicate: pl.Expr | None = None,
    columns: Sequence[str] | None = None,
    *,
    n_rows: int | None = None,
    **options: Any,
) -> ScanPlan:
    """Plan a scan without running it.

    Parameters
    ----------
    source
        As in `scan_zarr`.
    predicate : Expr, optional
        The filter.
    columns : sequence of str, optional
        Columns wanted; by default all.
    n_rows : int, optional
        Rows wanted at most, from the first.
    **options
        ``variables``, ``group``, ``prefix``, ``storage_options``, ``decode`` and ``mask`` of `scan_zarr`.

    Returns
    -------
    ScanPlan
        ``print(plan.explain())`` shows it, in a notebook it has a picture; its methods run it, here or on a cluster.

    Raises
    ------
    PredicateError
        If the predicate is not a Polars expression, or a condition in it is not one that is evaluated row by row; the
        message names it.
    UnknownColumnError
        If it or ``columns`` names a column that the table does not have.
    """
    return ScanPlan.of(plan_filter(_open_table(source, **options), predicate, columns, n_rows))


def explain(lf: pl.LazyFrame) -> str:
    """Say what each Zarr scan in a query would read, without reading it.

    Parameters
    ----------
    lf : LazyFrame
        Any query over scans that `scan_zarr` made.

    Returns
    -------
    str
        For each scan: chunks and bytes kept of the total, rows at most, tasks, filter, columns. Only the coordinates
        that the filters name are read for it.
    """
    return "\n".join(as_text(found) for found in plans_of(lf))
