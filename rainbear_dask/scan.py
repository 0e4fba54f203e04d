"""The public face: a Zarr store as a lazy Polars table."""

import threading
import warnings
from collections.abc import Collection, Iterator, Mapping, Sequence
from math import prod
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.io.plugins import register_io_source

from rainbear_dask import coords
from rainbear_dask.execute import active_client, iter_frames
from rainbear_dask.metadata import StoreMeta
from rainbear_dask.plan import ScanPlan, build_plan
from rainbear_dask.predicate import compile_predicate
from rainbear_dask.storage import open_store
from rainbear_dask.table import Table, build_table, variables_by_dims
from rainbear_dask.tidy import nest

if TYPE_CHECKING:
    from distributed import Client


def scan_zarr(
    source: Any,
    *,
    variables: Collection[str] | None = None,
    group: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    decode: bool = True,
    mask: bool = True,
    client: "Client | None" = None,
    max_chunks_to_read: int | None = None,
) -> pl.LazyFrame:
    """Scan a Zarr store as a table with one row per grid cell.

    Opening reads the metadata, and the ends of the time coordinates. Filters, column selections and ``head`` reach
    the reader: a chunk is read only if a row of it can match.

    Parameters
    ----------
    source : str, path or zarr store
        A local path, a URL that fsspec knows, or a ``zarr.abc.store.Store``. Zarr v2 and v3.
    variables : collection of str, optional
        The data variables whose dimensions make the rows. By default all of the group.
    group : str, optional
        Path of a group inside the store.
    storage_options : mapping, optional
        Options for the URL's file system: credentials, endpoint, anonymous access.
    decode : bool
        Whether CF attributes are decoded: times, durations, packed values. False gives stored values.
    mask : bool
        Whether masked values (``_FillValue``, ``missing_value``) are null. False gives the values that stand for them.
    client : distributed.Client, optional
        Where the tasks run. By default the active Dask client; without one, threads of this process.
    max_chunks_to_read : int, optional
        Refuse a query that needs more chunks.

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
    meta = open_store(source, group=group, storage_options=storage_options)
    names = [variables] if isinstance(variables, str) else variables
    table = _understand(meta, variables=names, decode=decode, mask=mask)
    if table.repeats >= _MANY:
        warnings.warn(
            f"the table of {table.spec.label} has {table.num_rows:,} rows, {table.repeats:,.0f} for each value of its "
            f"largest variable, because no variable has all its dimensions ({', '.join(table.sizes)}). Name variables "
            "that belong together in variables=, or take one table for each set of dimensions from tables().",
            stacklevel=2,
        )
    return _lazy(table, client, max_chunks_to_read)


_MANY = 10


def tables(
    source: Any,
    *,
    group: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    decode: bool = True,
    mask: bool = True,
    client: "Client | None" = None,
    max_chunks_to_read: int | None = None,
) -> dict[tuple[str, ...], pl.LazyFrame]:
    """Scan a store whose variables do not share one grid: one table for each set of dimensions.

    Parameters
    ----------
    source, group, storage_options, decode, mask, client, max_chunks_to_read
        As in `scan_zarr`.

    Returns
    -------
    dict of tuple of str to LazyFrame
        By the dimensions of the variables, in store order; together they hold every data variable once.
    """
    meta = open_store(source, group=group, storage_options=storage_options)
    return {
        dims: _lazy(_understand(meta, variables=paths, decode=decode, mask=mask), client, max_chunks_to_read)
        for dims, paths in variables_by_dims(meta).items()
    }


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
    return "\n".join(plan.explain() for plan in plans_of(lf))


def plans_of(lf: pl.LazyFrame) -> list[ScanPlan]:
    """Plan of each Zarr scan in a query, in the order in which Polars starts them."""
    recorded: list[ScanPlan] = []
    _recording.plans = recorded
    try:
        # a copy of the query, whose readers are made on this thread and so know that they are to record
        copy = pl.LazyFrame.deserialize(lf.serialize())
    finally:
        _recording.plans = None
    copy.collect()
    return recorded


class _Recording(threading.local):
    plans: list[ScanPlan] | None = None


_recording = _Recording()


class ZarrReader:
    """What Polars calls to read a table: plans, runs, and hands on the frames.

    It pickles without its client; in another process it uses the one that is active there.
    """

    def __init__(self, table: Table, client: "Client | None" = None, max_chunks_to_read: int | None = None) -> None:
        self.table = table
        self.client = client
        self.max_chunks_to_read = max_chunks_to_read
        self._record: list[ScanPlan] | None = None

    def __getstate__(self) -> tuple[Table, int | None]:
        return self.table, self.max_chunks_to_read

    def __setstate__(self, state: tuple[Table, int | None]) -> None:
        self.__init__(state[0], None, state[1])  # type: ignore[misc]
        self._record = _recording.plans

    def __call__(
        self,
        with_columns: Sequence[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # a hint; frames are as large as tasks
    ) -> Iterator[pl.DataFrame]:
        plan = plan_scan(self.table, columns=with_columns, predicate=predicate, n_rows=n_rows)
        names = list(self.table.schema) if with_columns is None else list(with_columns)
        yield pl.DataFrame(schema={name: self.table.schema[name] for name in names})
        if self._record is not None:
            self._record.append(plan)
            return
        plan.check(self.max_chunks_to_read)
        client = self.client or active_client()
        for frame in iter_frames(plan.tasks(), client, limit=n_rows):
            yield nest(frame)


def _understand(meta: StoreMeta, *, variables: Collection[str] | None, decode: bool, mask: bool) -> Table:
    table = build_table(
        meta,
        read=lambda array: coords.whole(meta.spec, array),
        sample=lambda array: coords.ends(meta.spec, array),
        variables=variables,
        decode=decode,
        mask=mask,
    )
    for path, reason in table.left_out.items():
        warnings.warn(f"array {path!r} of {table.spec.label} is left out: {reason}", stacklevel=3)
    return table


def _lazy(table: Table, client: "Client | None", max_chunks_to_read: int | None) -> pl.LazyFrame:
    return register_io_source(
        ZarrReader(table, client, max_chunks_to_read),
        schema=table.schema,
        is_pure=True,
        explain_name="SCAN ZARR",
        explain_detail=table.spec.label,
    )


def plan_scan(
    table: Table,
    *,
    columns: Sequence[str] | None = None,
    predicate: pl.Expr | None = None,
    n_rows: int | None = None,
) -> ScanPlan:
    """Plan a scan; reads the coordinates that the predicate names, and nothing else."""
    leaves = table.leaves(columns)
    if predicate is None:
        return build_plan(table, columns=leaves, limit=n_rows)
    known = {name: column for name, column in table.columns.items() if column.role != "data"}
    conjuncts = compile_predicate(
        predicate,
        {name: column.dims for name, column in known.items()},
        table.sizes,
        lambda name: coords.whole_column(table.spec, known[name], prod(table.sizes[d] for d in known[name].dims)),
    )
    return build_plan(table, columns=leaves, conjuncts=conjuncts, limit=n_rows)
