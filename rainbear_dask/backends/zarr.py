"""Backends, as users of rainbear know them: a store that keeps its metadata and coordinates between scans.

The three differ in how they are opened and in what is awaited. Beneath them is one implementation: a question becomes a
plan and perhaps a last step in Polars, and the plan's tasks run as any scan's do.
"""

from collections.abc import Iterator, Sequence
from typing import Any

import polars as pl

from rainbear_dask.backends.base import Backend, ZarrSource
from rainbear_dask.chunks import cache
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.exceptions import QueryError
from rainbear_dask.execution.clients import active_client, client_for
from rainbear_dask.execution.run import iter_frames
from rainbear_dask.execution.run_async import call_everywhere


class AwaitedBackend(Backend):
    async def scan_zarr_async(
        self,
        predicate: pl.Expr | None,
        max_concurrency: int | None = None,
        max_chunks_to_read: int | None = None,
    ) -> pl.DataFrame:
        """Ask a question of the table without blocking the event loop.

        Parameters
        ----------
        predicate : Expr or None
            An expression that gives one Boolean for each row filters. Any other is evaluated as ``select`` on all rows,
            or on those that it can see where all its columns go through ``filter``. None gives all rows.
        max_concurrency : int, optional
            Tasks that run at the same time, at most. By default 8, on a Dask cluster twice the threads of its workers.
        max_chunks_to_read : int, optional
            Refuse a question that needs more chunks.

        Returns
        -------
        DataFrame
            The rows that pass, in the order of `scan_zarr`, with all columns; or what ``select`` gives.

        Raises
        ------
        PlanTooLargeError
            If more chunks are needed than allowed; nothing has been read then.
        PredicateError
            If the predicate is not an expression.
        UnknownColumnError
            If it names a column that the table does not have.
        StoreError
            If the store or a chunk cannot be read.

        Notes
        -----
        Cancelling the awaiting task starts no further read. Tasks run on the active Dask client, also one of
        ``Client(asynchronous=True)``; without one, on threads.
        """
        return await self._answer(predicate, max_concurrency, max_chunks_to_read)

    async def cache_stats(self) -> dict[str, Any]:
        """Say what is kept for the backend in memory.

        Returns
        -------
        dict
            ``coord_entries``, ``var_entries``, ``bytes``, ``hits``, ``misses`` and ``has_metadata`` of this process;
            with an active Dask client ``workers``, the same of each worker by its address.
        """
        return self._stats(await call_everywhere(cache.usage, *self._usage()))

    async def clear_coord_cache(self) -> None:
        """Drop the coordinates that are kept, here and on workers; metadata stays."""
        await self._drop(self.openings)

    async def clear_all_caches(self) -> None:
        """Drop coordinates and metadata: the next question opens the store anew, at a branch's newest snapshot."""
        await self._drop(self._forget())

    async def _drop(self, openings: list[str]) -> None:
        cache.forget(openings)
        await call_everywhere(cache.forget, openings)


class ZarrBackend(ZarrSource, AwaitedBackend):
    """A Zarr store that keeps its metadata and coordinates between scans; its scans are awaited.

    Made by ``from_url`` or ``from_store``. It pickles with its metadata.

    Parameters
    ----------
    source : str, path or store
        As in `scan_zarr`.
    prefix : str, optional
        Where the store begins below the source.
    options : BackendOptions, optional
        What is kept.
    """


class ZarrBackendSync(ZarrSource):
    """A Zarr store that keeps its metadata and coordinates between scans.

    Made by ``from_url`` or ``from_store``. It pickles with its metadata.

    Parameters
    ----------
    source : str, path or store
        As in `scan_zarr`.
    prefix : str, optional
        Where the store begins below the source.
    options : BackendOptions, optional
        What is kept.
    """

    def scan_zarr_sync(
        self,
        predicate: pl.Expr | None = None,
        with_columns: Sequence[str] | None = None,
        max_chunks_to_read: int | None = None,
        n_rows: int | None = None,
        batch_size: int | None = None,
    ) -> pl.DataFrame:
        """Ask a question of the table.

        Parameters
        ----------
        predicate : Expr, optional
            As in ``ZarrBackend.scan_zarr_async``.
        with_columns : sequence of str, optional
            Columns wanted, in order; with a filter only. A variable of a child group is called ``child/variable``.
        max_chunks_to_read : int, optional
            Refuse a question that needs more chunks.
        n_rows : int, optional
            Rows wanted at most, of those that pass; reading stops when they are there.
        batch_size : int, optional
            Rows of a streamed frame at most; without effect here, where one frame is given.

        Returns
        -------
        DataFrame
            The rows that pass, in the order of `scan_zarr`; or what ``select`` gives.

        Raises
        ------
        PlanTooLargeError
            If more chunks are needed than allowed; nothing has been read then.
        QueryError
            If the predicate is not an expression, or a column is not there.
        StoreError
            If the store or a chunk cannot be read.
        """
        question = self._ask(predicate, with_columns, max_chunks_to_read, n_rows)
        plan = question.plan
        return question.answer(list(shown(iter_frames(plan.tasks(), client_for(plan), limit=plan.limit), plan)))

    def scan_zarr_streaming_sync(
        self,
        predicate: pl.Expr | None = None,
        with_columns: Sequence[str] | None = None,
        max_chunks_to_read: int | None = None,
        n_rows: int | None = None,
        batch_size: int | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Ask a question of the table and take the answer piece by piece.

        Parameters
        ----------
        predicate, with_columns, max_chunks_to_read, n_rows
            As in ``scan_zarr_sync``.
        batch_size : int, optional
            Rows of a frame at most.

        Returns
        -------
        iterator of DataFrame
            Frames that have rows; few are in memory at a time. Closing it stops the reading.

        Raises
        ------
        QueryError
            As ``scan_zarr_sync``, when it is called.
        """
        return self._frames(self._ask(predicate, with_columns, max_chunks_to_read, n_rows), batch_size)

    def cache_stats(self) -> dict[str, Any]:
        """Say what is kept for the backend in memory; as ``ZarrBackend.cache_stats`` gives it.

        Returns
        -------
        dict
            Counts, and with an active Dask client those of its workers.
        """
        client = active_client()
        return self._stats({} if client is None else client.run(cache.usage, *self._usage()))

    def clear_coord_cache(self) -> None:
        """Drop the coordinates that are kept, here and on workers; metadata stays."""
        self._drop(self.openings)

    def clear_all_caches(self) -> None:
        """Drop coordinates and metadata: the next question opens the store anew."""
        self._drop(self._forget())

    def _drop(self, openings: list[str]) -> None:
        cache.forget(openings)
        if (client := active_client()) is not None:
            client.run(cache.forget, openings)


async def scan_zarr_async(
    source: Any,
    predicate: pl.Expr | None,
    max_concurrency: int | None = None,
    max_chunks_to_read: int | None = None,
    prefix: str | None = None,
) -> pl.DataFrame:
    """Ask one question of a Zarr store without blocking the event loop.

    Parameters
    ----------
    source : str, path, store or backend
        As in `scan_zarr`. A backend shares what it keeps.
    predicate, max_concurrency, max_chunks_to_read
        As in ``ZarrBackend.scan_zarr_async``.
    prefix : str, optional
        Where the store begins below the source.

    Returns
    -------
    DataFrame
        The rows that pass, in the order of `scan_zarr`, with all columns; or what ``select`` gives.

    Raises
    ------
    QueryError
        As ``ZarrBackend.scan_zarr_async``.
    StoreError
        If the store cannot be opened or read.
    """
    if isinstance(source, Backend) and prefix:
        raise QueryError("a backend has its prefix already. Leave out prefix=.")
    backend = source if isinstance(source, Backend) else Backend(source, prefix)
    return await backend._answer(predicate, max_concurrency, max_chunks_to_read)  # noqa: SLF001  our own class
