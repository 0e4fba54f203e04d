"""The public face: a Zarr store as a lazy Polars table."""

from collections.abc import Collection, Mapping, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.exceptions import PredicateError
from rainbear_dask.opening import open_store
from rainbear_dask.planner import Limits
from rainbear_dask.plans import ScanPlan
from rainbear_dask.reader import lazy_table, plans_of, understand
from rainbear_dask.redaction import warn
from rainbear_dask.report import as_text
from rainbear_dask.table import Table, unknown_column, variables_by_dims

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
        Path of a group inside the store.
    prefix : str, optional
        Path of the Zarr store inside the source, as where that is a whole bucket.
    storage_options : mapping, optional
        With a URL: credentials, endpoint, anonymous access, time-outs, retries, and which library reads; see the README.
    decode : bool
        Whether CF attributes are decoded: times, durations, packed values. False gives stored values.
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
        child group. Rows: the product of the dimensions, in C order of the chunk grid and C order within a task's box
        of chunks; in C order altogether wherever the boxes are cut along the first dimension alone. The order is the
        same on every run and with every scheduler.

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
    The rows are those of ``xarray.open_zarr(source).to_dataframe()``, with masked values as nulls.

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
    table = understand(meta, variables=names, decode=decode, mask=mask)
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
) -> dict[tuple[str, ...], pl.LazyFrame]:
    """Scan a store whose variables do not share one grid: one table for each set of dimensions.

    Parameters
    ----------
    source, group, prefix, storage_options, decode, mask, client, max_chunks_to_read, max_rows, max_bytes
        As in `scan_zarr`.

    Returns
    -------
    dict of tuple of str to LazyFrame
        By the dimensions of the variables, in store order; together they hold every data variable once.
    """
    meta = open_store(source, group=group, prefix=prefix, storage_options=storage_options)
    limits = Limits(max_chunks_to_read, max_rows, max_bytes)
    return {
        dims: lazy_table(understand(meta, variables=paths, decode=decode, mask=mask), client, limits)
        for dims, paths in variables_by_dims(meta).items()
    }


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
        If the predicate is not a Polars expression, or not one that is evaluated row by row.
    UnknownColumnError
        If it or ``columns`` names a column that the table does not have.
    """
    table = _open_table(source, **options)
    if predicate is not None and not isinstance(predicate, pl.Expr):
        raise PredicateError(
            f"the predicate is a {type(predicate).__name__}, not a Polars expression. "
            "Write it as pl.col('lat') > 45, or as pl.sql_expr('lat > 45')."
        )
    for name in predicate.meta.root_names() if predicate is not None else ():
        if name not in table.schema:
            raise unknown_column(name, table.schema, table.spec.label)
    query = lazy_table(table)
    query = query if predicate is None else query.filter(predicate)
    (found,) = plans_of(query)
    if predicate is not None and not found.conjuncts:
        raise PredicateError(
            "the predicate needs more than one row to tell whether a row passes (an aggregate, a shift, a rank), so a plan "
            "cannot hold it. Filter the table: scan_zarr(...).filter(...)."
        )
    return ScanPlan.of(replace(found, columns=table.leaves(columns), limit=n_rows))


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
