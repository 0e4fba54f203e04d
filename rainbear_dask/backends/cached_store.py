"""A store that is opened once: its metadata, table and coordinates stay cached while it answers many queries."""

from collections.abc import Collection, Iterator, Sequence
from dataclasses import dataclass
from itertools import islice
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.chunks import cache
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.execution.clients import client_for
from rainbear_dask.execution.run import iter_frames
from rainbear_dask.execution.run_async import call_in_thread, collect_frames
from rainbear_dask.execution.worker import make_frame
from rainbear_dask.metadata.opening import OpenedStore
from rainbear_dask.options import checks_options
from rainbear_dask.planning.limits import Limits, check_limits, check_memory
from rainbear_dask.query.expression import ExpressionPlan, plan_expression
from rainbear_dask.storage.sources import IcechunkAddress
from rainbear_dask.table.model import Table
from rainbear_dask.table.open import open_table
from rainbear_dask.typing import StoreLike

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, kw_only=True)
class BackendOptions:
    """Cache limits of a backend; read-only.

    Parameters
    ----------
    coord_cache_max_entries : int
        Upper bound of the coordinate pieces that each process caches for the backend. A piece is one chunk, or
        several short chunks with about 65,536 values together. The setting ``cache-bytes`` also bounds the bytes that
        all backends and scans of a process share.
    var_cache_max_entries : int
        Upper bound of the decoded data chunks that each process caches. A process caches a chunk if a small query
        used a small part of it, because other queries may use the rest. Variables with fewer dimensions than the
        table are cached like coordinates, and count here.
    assume_sorted : object
        Accepted for compatibility, without effect: filters are evaluated on the labels of the coordinates in any
        order.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> rd.BackendOptions(coord_cache_max_entries=100).var_cache_max_entries
    4096
    """

    coord_cache_max_entries: int = 256
    var_cache_max_entries: int = 4096
    assume_sorted: Any = None


BackendOptions.__init__ = checks_options(BackendOptions.__init__)  # type: ignore[method-assign]


class CachedStore:
    """An opened store with the table of its root group, and the queries on that table.

    Parameters
    ----------
    source : str, path or store
        As in `scan_zarr`.
    prefix : str, optional
        Path of the Zarr store inside the source.
    options : BackendOptions, optional
        Cache limits.
    """

    def __init__(
        self, source: "StoreLike | IcechunkAddress", prefix: str | None = None, options: BackendOptions | None = None
    ) -> None:
        options = options or BackendOptions()
        self.opened = OpenedStore(
            source,
            prefix=prefix,
            max_cached=options.coord_cache_max_entries,
            max_chunks=options.var_cache_max_entries,
        )
        self._table: Table | None = None

    def table(self, variables: Collection[str] | None = None) -> Table:
        """Return the table of the root group; the one of all variables is cached."""
        if variables is not None:
            return open_table(self.opened.meta(), variables=variables)
        table = self._table
        if table is None:
            table = self._table = open_table(self.opened.meta())
        return table

    def plan(
        self,
        expr: pl.Expr | None,
        with_columns: Sequence[str] | None = None,
        max_chunks_to_read: int | None = None,
        n_rows: int | None = None,
    ) -> ExpressionPlan:
        """Plan an expression, and raise PlanTooLargeError if it needs too many chunks."""
        query = plan_expression(self.table(), expr, with_columns, n_rows)
        check_limits(query.plan, Limits(chunks=max_chunks_to_read))
        _ = query.plan.layout.tiling  # computes and caches the tiling on this thread, so that no event loop has to
        return query

    def iter_frames(
        self, query: ExpressionPlan, batch_size: int | None, max_concurrency: int | None = None
    ) -> Iterator[pl.DataFrame]:
        """Run a query and stream the non-empty frames of its answer, of at most ``batch_size`` rows each."""
        plan = query.plan
        tasks = iter_frames(plan.tasks(), client_for(plan), limit=plan.limit, max_concurrency=max_concurrency)
        frames = shown(tasks, plan)
        if query.post_process is not None:
            frames = iter([query.answer(list(frames))])
        for frame in frames:
            if frame.height:
                yield from frame.iter_slices(batch_size or frame.height)

    async def collect_async(
        self, predicate: pl.Expr | None, max_concurrency: int | None, max_chunks_to_read: int | None
    ) -> pl.DataFrame:
        """Run a query and return its answer without blocking the event loop."""
        query, client, answer = await call_in_thread(self._begin, predicate, max_chunks_to_read)
        if answer is None:
            await call_in_thread(check_memory, query.plan, Limits(max_chunks_to_read))
            answer = await call_in_thread(query.answer, await collect_frames(query.plan, client, max_concurrency))
        return answer

    def _begin(
        self, predicate: pl.Expr | None, max_chunks_to_read: int | None
    ) -> "tuple[ExpressionPlan, Client | None, pl.DataFrame | None]":
        """Plan a query and choose its client. If one task of this process answers it, return the answer too.

        A second thread would be slower.
        """
        query = self.plan(predicate, None, max_chunks_to_read)
        client = client_for(query.plan, awaited=True)
        if client is None:
            tasks = list(islice(query.plan.tasks(), 2))
            if len(tasks) < 2:
                frames = shown((make_frame(task) for task in tasks), query.plan)
                return query, client, query.answer(list(frames))
        return query, client, None

    def usage_args(self) -> tuple[list[str], list[str]]:
        """Return the arguments of `cache.usage`: openings, and the data variables if the table is known."""
        table = self._table
        return self.opened.openings, [name for name, c in table.columns.items() if c.role == "data"] if table else []

    def stats(self, workers: dict[str, dict[str, int]]) -> dict[str, Any]:
        """Return the cache statistics of this process and of its workers."""
        here: dict[str, Any] = {**cache.usage(*self.usage_args()), "has_metadata": bool(self.opened.openings)}
        return here | ({"workers": workers} if workers else {})

    def forget(self) -> list[str]:
        """Drop table and metadata, and return the openings whose cached coordinates are now useless."""
        openings = self.opened.openings
        self._table = None
        self.opened.forget()
        return openings
