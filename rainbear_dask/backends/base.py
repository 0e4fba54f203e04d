"""What all backends do, whatever their store is."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from os import PathLike
from typing import Any, Self

import polars as pl

from rainbear_dask.chunks import cache
from rainbear_dask.diagnostics.explain import selected_chunks
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.execution.clients import client_for
from rainbear_dask.execution.run import iter_frames
from rainbear_dask.execution.run_async import collect_frames, in_thread
from rainbear_dask.execution.worker import make_frame
from rainbear_dask.metadata.opening import OpenedStore
from rainbear_dask.planning.limits import Limits, check_limits
from rainbear_dask.query.expression import ExpressionPlan, plan_expression
from rainbear_dask.table.model import Table
from rainbear_dask.table.open import open_table


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
        return dict(open_table(self.meta(), variables=variables).schema)

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
        return selected_chunks(plan_expression(self._understood(), expr, loosely=True).plan)

    def _understood(self) -> Table:
        table = self._table
        if table is None:
            table = self._table = open_table(self.meta())
        return table

    def _ask(
        self,
        expr: pl.Expr | None,
        with_columns: Sequence[str] | None = None,
        max_chunks_to_read: int | None = None,
        n_rows: int | None = None,
    ) -> ExpressionPlan:
        question = plan_expression(self._understood(), expr, with_columns, n_rows)
        check_limits(question.plan, Limits(chunks=max_chunks_to_read))
        _ = question.plan.layout.tiling  # counted here, and not later on an event loop
        return question

    async def _answer(
        self, predicate: pl.Expr | None, max_concurrency: int | None, max_chunks_to_read: int | None
    ) -> pl.DataFrame:
        question, answer = await in_thread(self._begin, predicate, max_chunks_to_read)
        if answer is None:
            answer = await in_thread(question.answer, await collect_frames(question.plan, max_concurrency))
        return answer

    def _begin(
        self, predicate: pl.Expr | None, max_chunks_to_read: int | None
    ) -> tuple[ExpressionPlan, pl.DataFrame | None]:
        """Plan a question; its answer too, where one task of this process gives it, as other threads would take longer."""
        question = self._ask(predicate, None, max_chunks_to_read)
        if client_for(question.plan, awaited=True) is None:
            tasks = list(islice(question.plan.tasks(), 2))
            if len(tasks) < 2:
                frames = shown((make_frame(task) for task in tasks), question.plan)
                return question, question.answer(list(frames))
        return question, None

    def _frames(
        self, question: ExpressionPlan, batch_size: int | None, max_concurrency: int | None = None
    ) -> Iterator[pl.DataFrame]:
        plan = question.plan
        tasks = iter_frames(plan.tasks(), client_for(plan), limit=plan.limit, max_concurrency=max_concurrency)
        frames = shown(tasks, plan)
        if question.post_process is not None:
            frames = iter([question.answer(list(frames))])
        for frame in frames:
            if frame.height:
                yield from frame.iter_slices(batch_size or frame.height)

    def _usage(self) -> tuple[list[str], list[str]]:
        """What `cache.usage` is to be asked: openings, and data variables as far as they are known."""
        table = self._table
        return self.openings, [name for name, c in table.columns.items() if c.role == "data"] if table else []

    def _stats(self, workers: dict[str, dict[str, int]]) -> dict[str, Any]:
        here: dict[str, Any] = {**cache.usage(*self._usage()), "has_metadata": bool(self.openings)}
        return here | ({"workers": workers} if workers else {})

    def _forget(self) -> list[str]:
        """Forget metadata, and say of which openings the coordinates can go."""
        openings = self.openings
        self._table = None
        self.forget()
        return openings


class ZarrSource(Backend):
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
