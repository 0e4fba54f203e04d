"""The backends of Zarr stores, and `scan_zarr_async`; names and calls are the same as in rainbear."""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from rainbear_dask.backends.base import AsyncBackend, Backend, StoreBackend
from rainbear_dask.backends.cached_store import CachedStore
from rainbear_dask.chunks import cache
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.exceptions import QueryError
from rainbear_dask.execution.clients import active_client, client_for
from rainbear_dask.execution.run import iter_frames
from rainbear_dask.options import checks_options
from rainbear_dask.planning.limits import Limits, check_memory
from rainbear_dask.typing import StoreLike


class ZarrBackend(StoreBackend, AsyncBackend):
    """A Zarr store that caches its metadata and coordinates between queries; its calls return awaitables.

    ``from_url`` and ``from_store`` create one. It pickles with its metadata.

    Parameters
    ----------
    source : str, path or store
        As in `scan_zarr`.
    prefix : str, optional
        Path of the Zarr store inside the source.
    options : BackendOptions, optional
        Cache limits.

    Examples
    --------
    >>> import asyncio
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> backend = rd.ZarrBackend.from_url("sst.zarr")
    >>> asyncio.run(backend.scan_zarr_async(pl.col("latitude") > 60)).height  # elsewhere: await
    1440
    """


class ZarrBackendSync(StoreBackend):
    """A Zarr store that caches its metadata and coordinates between queries; its calls block.

    ``from_url`` and ``from_store`` create one. It pickles with its metadata.

    Parameters
    ----------
    source : str, path or store
        As in `scan_zarr`.
    prefix : str, optional
        Path of the Zarr store inside the source.
    options : BackendOptions, optional
        Cache limits.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> backend = rd.ZarrBackendSync.from_url("sst.zarr")
    >>> backend.scan_zarr_sync(pl.col("latitude") > 60, with_columns=["time", "sst"]).height
    1440
    """

    @checks_options
    def scan_zarr_sync(
        self,
        predicate: pl.Expr | None = None,
        with_columns: Sequence[str] | None = None,
        max_chunks_to_read: int | None = None,
        n_rows: int | None = None,
        batch_size: int | None = None,
    ) -> pl.DataFrame:
        """Evaluate an expression on the table.

        Parameters
        ----------
        predicate : Expr, optional
            As in ``ZarrBackend.scan_zarr_async``.
        with_columns : sequence of str, optional
            Columns of the result, in order; valid with a filter only. ``child/variable`` names a variable of a child
            group.
        max_chunks_to_read : int, optional
            Upper bound of the chunks that the expression may need.
        n_rows : int, optional
            Upper bound of the rows that pass the filter. Reading stops early.
        batch_size : int, optional
            Upper bound of the rows of a streamed frame. Without effect here, because the call returns one frame.

        Returns
        -------
        DataFrame
            The rows that pass the filter, in the order of `scan_zarr`. For other expressions, the result of
            ``select``.

        Raises
        ------
        PlanTooLargeError
            If the expression needs more chunks than ``max_chunks_to_read``. Nothing has been read then.
        QueryError
            If the predicate is not an expression, or the table does not have a column.
        StoreError
            If the store or a chunk cannot be read.
        """
        query = self.cached.plan(predicate, with_columns, max_chunks_to_read, n_rows)
        plan = query.plan
        check_memory(plan, Limits(max_chunks_to_read))
        return query.answer(list(shown(iter_frames(plan.tasks(), client_for(plan), limit=plan.limit), plan)))

    @checks_options
    def scan_zarr_streaming_sync(
        self,
        predicate: pl.Expr | None = None,
        with_columns: Sequence[str] | None = None,
        max_chunks_to_read: int | None = None,
        n_rows: int | None = None,
        batch_size: int | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Evaluate an expression on the table and stream the result.

        Parameters
        ----------
        predicate, with_columns, max_chunks_to_read, n_rows
            As in ``scan_zarr_sync``.
        batch_size : int, optional
            Upper bound of the rows of a frame.

        Returns
        -------
        iterator of DataFrame
            Non-empty frames. Read-ahead is bounded. Closing the iterator stops the tasks.

        Raises
        ------
        QueryError
            As in ``scan_zarr_sync``, when the method is called.
        """
        query = self.cached.plan(predicate, with_columns, max_chunks_to_read, n_rows)
        return self.cached.iter_frames(query, batch_size)

    def cache_stats(self) -> dict[str, Any]:
        """Return what the backend has cached in memory, as in ``ZarrBackend.cache_stats``.

        Returns
        -------
        dict
            Counts of this process, and of each worker if a Dask client is active.
        """
        client = active_client()
        workers = {} if client is None else client.run(cache.usage, *self.cached.usage_args())
        return self.cached.stats(workers)

    def clear_coord_cache(self) -> None:
        """Drop cached coordinates, here and on workers; metadata stays."""
        _drop(self.cached.opened.openings)

    def clear_all_caches(self) -> None:
        """Drop coordinates and metadata: the next query reopens the store."""
        _drop(self.cached.forget())


def _drop(openings: list[str]) -> None:
    cache.forget(openings)
    if (client := active_client()) is not None:
        client.run(cache.forget, openings)


@checks_options
async def scan_zarr_async(
    source: StoreLike,
    predicate: pl.Expr | None,
    max_concurrency: int | None = None,
    max_chunks_to_read: int | None = None,
    prefix: str | None = None,
) -> pl.DataFrame:
    """Evaluate one expression on a Zarr store without blocking the event loop.

    Parameters
    ----------
    source : str, path, store or backend
        As in `scan_zarr`. A backend shares its caches.
    predicate, max_concurrency, max_chunks_to_read
        As in ``ZarrBackend.scan_zarr_async``.
    prefix : str, optional
        Path of the Zarr store inside the source.

    Returns
    -------
    DataFrame
        The rows that pass the filter, in the order of `scan_zarr`, with all columns. For other expressions, the
        result of ``select``.

    Raises
    ------
    QueryError
        As in ``ZarrBackend.scan_zarr_async``, or if a backend and a prefix are given.
    StoreError
        If the store cannot be opened or read.

    Examples
    --------
    >>> import asyncio
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> asyncio.run(rd.scan_zarr_async("sst.zarr", pl.col("sst").mean())).item()  # elsewhere: await
    0.0
    """
    if isinstance(source, Backend):
        if prefix:
            raise QueryError("scan_zarr_async() cannot add `prefix` to a backend, which has its own. Leave it out.")
        cached = source.cached
    else:
        cached = CachedStore(source, prefix)
    return await cached.collect_async(predicate, max_concurrency, max_chunks_to_read)
