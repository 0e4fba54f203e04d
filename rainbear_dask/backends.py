"""Backends, as users of rainbear know them: a store that keeps its metadata and coordinates between scans.

The three differ in how they are opened and in what is awaited. Beneath them is one implementation: a question becomes a
plan and perhaps a last step in Polars, and the plan's tasks run as any scan's do.
"""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from typing import Any, Self

import polars as pl

from rainbear_dask import coords
from rainbear_dask.asynchronous import call_everywhere, collect_frames, in_thread
from rainbear_dask.bars import shown
from rainbear_dask.clients import active_client, client_for
from rainbear_dask.exceptions import QueryError
from rainbear_dask.execute import iter_frames
from rainbear_dask.opening import OpenedStore
from rainbear_dask.planner import Limits
from rainbear_dask.questions import Question, plan_question
from rainbear_dask.reader import understand
from rainbear_dask.report import selected_chunks
from rainbear_dask.table import Table
from rainbear_dask.worker import make_frame


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """What a backend keeps; read-only.

    Parameters
    ----------
    coord_cache_max_entries : int
        Pieces of coordinates kept for the backend in each process, at most: a piece is a chunk, or several short ones
        that hold about 65,536 values together. All backends and scans of a process share the
        bytes of the setting ``cache-bytes`` besides.
    var_cache_max_entries : int
        Chunks of data variables kept in each process, at most, decoded: those of which a small question wanted a small
        part, as others may want the rest. Variables with fewer dimensions than the table are kept like coordinates
        and count with them.
    assume_sorted : object
        Taken for compatibility, without effect: filters are evaluated on the values of the coordinates, whatever their
        order.
    """

    coord_cache_max_entries: int = 256
    var_cache_max_entries: int = 4096
    assume_sorted: Any = None


class Backend(OpenedStore):
    """What the backends share.

    Parameters
    ----------
    source : str, path or store
        As in `scan_zarr`.
    prefix : str, optional
        Where the store begins below the source.
    options : BackendOptions, optional
        What is kept.
    """

    def __init__(self, source: Any, prefix: str | None = None, options: BackendOptions | None = None) -> None:
        self.options = options or BackendOptions()
        super().__init__(
            source,
            prefix=prefix,
            max_cached=self.options.coord_cache_max_entries,
            max_chunks=self.options.var_cache_max_entries,
        )
        self._table: Table | None = None

    def schema(self, variables: Collection[str] | None = None) -> dict[str, pl.DataType]:
        """Name and type of each column.

        Parameters
        ----------
        variables : collection of str, optional
            Data variables to include; by default all.

        Returns
        -------
        dict of str to polars.DataType
            In the order of the columns.
        """
        if variables is None:
            return dict(self._understood().schema)
        return dict(understand(self.meta(), variables=variables).schema)

    def root(self) -> str:
        """Path of the group inside the store; "/" is the root."""
        return f"/{self._root}"

    def selected_chunks_debug(self, expr: pl.Expr) -> dict[str, Any]:
        """List the chunks that a question needs; no data variable is read for it.

        Parameters
        ----------
        expr : Expr
            As in ``scan_zarr_async``.

        Returns
        -------
        dict
            ``{"grids": [{"dims", "variables", "chunks": [{"indices", "origin", "shape", "shards"}]}], "coord_reads"}``.
        """
        return selected_chunks(plan_question(self._understood(), expr, loosely=True).plan)

    def _understood(self) -> Table:
        table = self._table
        if table is None:
            table = self._table = understand(self.meta())
        return table

    def _ask(
        self,
        expr: pl.Expr | None,
        with_columns: Sequence[str] | None = None,
        max_chunks_to_read: int | None = None,
        n_rows: int | None = None,
    ) -> Question:
        question = plan_question(self._understood(), expr, with_columns, n_rows)
        question.plan.check(Limits(chunks=max_chunks_to_read))
        _ = question.plan.tiling  # counted here, and not later on an event loop
        return question

    async def _answer(
        self, predicate: pl.Expr | None, max_concurrency: int | None, max_chunks_to_read: int | None
    ) -> pl.DataFrame:
        question, answer = await in_thread(self._begin, predicate, max_chunks_to_read)
        if answer is None:
            answer = await in_thread(question.answer, await collect_frames(question.plan, max_concurrency))
        return answer

    def _begin(self, predicate: pl.Expr | None, max_chunks_to_read: int | None) -> tuple[Question, pl.DataFrame | None]:
        """Plan a question; its answer too, where one task of this process gives it, as other threads would take longer."""
        question = self._ask(predicate, None, max_chunks_to_read)
        if client_for(question.plan, awaited=True) is None:
            tasks = list(islice(question.plan.tasks(), 2))
            if len(tasks) < 2:
                frames = shown((make_frame(task) for task in tasks), question.plan)
                return question, question.answer(list(frames))
        return question, None

    def _frames(
        self, question: Question, batch_size: int | None, max_concurrency: int | None = None
    ) -> Iterator[pl.DataFrame]:
        plan = question.plan
        tasks = iter_frames(plan.tasks(), client_for(plan), limit=plan.limit, max_concurrency=max_concurrency)
        frames = shown(tasks, plan)
        if question.last_step is not None:
            frames = iter([question.answer(list(frames))])
        for frame in frames:
            if frame.height:
                yield from frame.iter_slices(batch_size or frame.height)

    def _usage(self) -> tuple[list[str], list[str]]:
        """What `coords.usage` is to be asked: openings, and data variables as far as they are known."""
        table = self._table
        return self.openings, [name for name, c in table.columns.items() if c.role == "data"] if table else []

    def _stats(self, workers: dict[str, dict[str, int]]) -> dict[str, Any]:
        here: dict[str, Any] = {**coords.usage(*self._usage()), "has_metadata": bool(self.openings)}
        return here | ({"workers": workers} if workers else {})

    def _forget(self) -> list[str]:
        """Forget metadata, and say of which openings the coordinates can go."""
        openings = self.openings
        self._table = None
        self.forget()
        return openings


class _ZarrSource(Backend):
    @classmethod
    def from_url(cls, url: str | PathLike[str], options: BackendOptions | None = None) -> Self:
        """Open a store at an address; nothing is read yet.

        Parameters
        ----------
        url : str or path
            A local path, or a URL that fsspec knows, with credentials from the environment.
        options : BackendOptions, optional
            What is kept.

        Returns
        -------
        backend
            It pickles, and has no open connection.
        """
        return cls(url, options=options)

    @classmethod
    def from_store(cls, store: Any, prefix: str | None = None, options: BackendOptions | None = None) -> Self:
        """Read from a store object; nothing is read yet.

        Parameters
        ----------
        store : store
            A store of obstore, zarr or fsspec (a mapper), or an address.
        prefix : str, optional
            Path of the Zarr store inside; for ``LocalStore()``, an absolute path.
        options : BackendOptions, optional
            What is kept.

        Returns
        -------
        backend
            It pickles if the store does.

        Raises
        ------
        StoreFormatError
            If nothing can be read from such an object.
        """
        return cls(store, prefix, options)


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
        return self._stats(await call_everywhere(coords.usage, *self._usage()))

    async def clear_coord_cache(self) -> None:
        """Drop the coordinates that are kept, here and on workers; metadata stays."""
        await self._drop(self.openings)

    async def clear_all_caches(self) -> None:
        """Drop coordinates and metadata: the next question opens the store anew, at a branch's newest snapshot."""
        await self._drop(self._forget())

    async def _drop(self, openings: list[str]) -> None:
        coords.forget(openings)
        await call_everywhere(coords.forget, openings)


class ZarrBackend(_ZarrSource, AwaitedBackend):
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


class ZarrBackendSync(_ZarrSource):
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
        return self._stats({} if client is None else client.run(coords.usage, *self._usage()))

    def clear_coord_cache(self) -> None:
        """Drop the coordinates that are kept, here and on workers; metadata stays."""
        self._drop(self.openings)

    def clear_all_caches(self) -> None:
        """Drop coordinates and metadata: the next question opens the store anew."""
        self._drop(self._forget())

    def _drop(self, openings: list[str]) -> None:
        coords.forget(openings)
        if (client := active_client()) is not None:
            client.run(coords.forget, openings)


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
