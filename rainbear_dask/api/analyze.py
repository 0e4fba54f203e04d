"""The public function that collects statistics of chunks."""

import os
from collections.abc import Collection, Mapping
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any

from rainbear_dask.analysis.run import Statistics, analyze_columns
from rainbear_dask.backends.base import without_backend
from rainbear_dask.exceptions import QueryError
from rainbear_dask.execution.clients import check_client
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.options import checks_options
from rainbear_dask.resources.openings import new_opening
from rainbear_dask.statistics.lookup import MAX_CHUNKS, can_have_statistics
from rainbear_dask.table.model import Column, unknown_column
from rainbear_dask.table.open import open_tables
from rainbear_dask.typing import StoreLike

if TYPE_CHECKING:
    from distributed import Client


@checks_options
def analyze(
    source: StoreLike,
    variables: Collection[str] | None = None,
    *,
    where: str | PathLike[str] = "store",
    group: str | None = None,
    prefix: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    client: "Client | None" = None,
) -> Statistics:
    """Collect the least and the greatest value of each chunk, so that scans skip chunks by the values of variables.

    `scan_zarr` finds the statistics by itself. A filter such as ``t2m > 318`` then reads only chunks whose statistics
    leave it possible.

    Parameters
    ----------
    source : str, path, store or backend
        As in `scan_zarr`, but no Dataset and no array. Its chunks need an identity that shows a change: a folder, a zip
        file, a bucket whose listing has ETags, or an Icechunk session.
    variables : collection of str, optional
        Data variables. By default all of the group and of the groups below it.
    where : {"store", "cache"}, str or path
        Where the files go: beside the chunks of each array, as ``<array>/.rainbear/statistics.parquet``; into the
        user's cache folder; or into a folder of your own, local or on an object store, which scans then name in
        ``statistics=``.
    group, prefix, storage_options
        As in `scan_zarr`.
    client : distributed.Client, optional
        Client that runs the tasks; by default as in `scan_zarr`.

    Returns
    -------
    Statistics
        The statistics as a frame for each variable, and how many chunks were read.

    Raises
    ------
    UnknownColumnError
        If the store has no such data variable.
    QueryError
        If nothing tells whether a chunk of the source has changed, or ``where`` is no folder.
    WriteError
        If the files cannot be written. Before anything is read, the file of one variable is written without new rows.
    ChunkReadError
        If a chunk cannot be read. The chunks that were read until then keep their statistics.

    Notes
    -----
    A second call reads only chunks that have changed, or that an interrupted call did not reach. Each chunk keeps the
    identity of its stored object: time and size of a file, ETag and size in a bucket, the snapshot of Icechunk. If the
    identity has changed, a scan reads the chunk. A file appears as a whole, and the last of two calls at once wins.

    Statistics describe values as `scan_zarr` decodes them by default. Scans with other values (``mask=False``,
    ``decode=False``) do not use them.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> rd.analyze("sst.zarr").chunks
    1
    >>> rd.explain(rd.scan_zarr("sst.zarr").filter(pl.col("sst") > 30)).chunks_kept
    0
    """
    check_client(client)
    if not isinstance(where, str | os.PathLike):
        raise QueryError(f'The option `where` is {where!r}. Give "store", "cache", or a folder.')
    meta = open_store(without_backend(source), group=group, prefix=prefix, storage_options=storage_options)
    columns = _columns(open_tables(meta).values(), variables, meta.spec.label)
    alive = new_opening()  # no cached chunk of an earlier opening; the recipe keeps it alive later
    spec = replace(meta.spec, opening_id=alive.name, max_chunks=None)
    return analyze_columns(spec, columns, os.fspath(where), client)


def _columns(tables: Any, variables: Collection[str] | None, label: str) -> list[Column]:
    found = {name: c for table in tables for name, c in table.columns.items() if c.role == "data"}
    if variables is None:
        return [column for column in found.values() if can_have_statistics(column)]
    names = [variables] if isinstance(variables, str) else list(variables)
    for name in names:
        if name not in found:
            raise unknown_column(name, found, label)
        if not can_have_statistics(found[name]):
            raise QueryError(
                f"The variable {name!r} of {label} can have no statistics: it is a scalar, is empty, has more than "
                f"{MAX_CHUNKS:,} chunks, or holds texts that are stored letter by letter. Leave it out of `variables`."
            )
    return [found[name] for name in names]
