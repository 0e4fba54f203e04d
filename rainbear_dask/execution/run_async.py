"""Running tasks for a caller who awaits them: nothing here blocks the event loop."""

import asyncio
from collections.abc import Callable, Coroutine
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from rainbear_dask.diagnostics.progress import bar
from rainbear_dask.execution.clients import (
    active_client,
    bring_credentials,
    check_reaches,
    client_for,
    is_direct,
    threads_of,
)
from rainbear_dask.execution.graph import submit
from rainbear_dask.execution.wire import CompactFrame
from rainbear_dask.execution.worker import make_frame, run_task
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.storage.spec import StoreSpec

if TYPE_CHECKING:
    from distributed import Client


T = TypeVar("T")

MAX_CONCURRENCY = 8
"""Tasks that run at the same time on threads of this process, where nothing else is said: each holds about 64 MiB."""

_MOST_THREADS = 1024
"""Far more than there are: a thread is started for a task in flight, and how many those are may change."""


async def collect_frames(plan: ReadPlan, max_concurrency: int | None = None) -> list[pl.DataFrame]:
    """Run a plan, on the active Dask client (of either kind) or on threads of this process, and give all frames.

    Cancelling it, or a task that fails, starts no further task; what threads are reading then is read and dropped.

    Parameters
    ----------
    plan : ReadPlan
        Its tasks are taken one by one, as they can be run.
    max_concurrency : int, optional
        Tasks that run at the same time, at most: by default `MAX_CONCURRENCY`, on a cluster twice the threads that its
        workers have by then.

    Returns
    -------
    list of DataFrame
        In task order.
    """
    client = client_for(plan, awaited=True)
    direct = client is not None and await _prepare(client, plan.table.spec)
    jobs: list[asyncio.Task[pl.DataFrame]] = []
    running: set[asyncio.Task[pl.DataFrame]] = set()
    width = _width(client, max_concurrency)
    with _Pool(_MOST_THREADS, thread_name_prefix="scan-zarr-async") as pool, bar(plan) as advance:
        try:
            for task in plan.tasks():
                while len(running) >= await width():
                    done, running = await asyncio.wait(running, return_when=asyncio.FIRST_COMPLETED)
                    for job in done:
                        job.result()
                work = pool.run(make_frame, task) if client is None else _on_cluster(client, task, pool, direct=direct)
                jobs.append(asyncio.ensure_future(work))
                jobs[-1].add_done_callback(lambda job: job.cancelled() or job.exception() or advance(job.result()))
                running.add(jobs[-1])
            return await asyncio.gather(*jobs)
        finally:
            for job in jobs:
                job.cancel()
            await asyncio.gather(*jobs, return_exceptions=True)


async def in_thread(func: Callable[..., T], *args: Any) -> T:
    """Call a function that may wait for a store on a thread that is kept for it.

    Not on the event loop's own, which are few: many questions wait at the same time.
    """
    return await asyncio.get_running_loop().run_in_executor(_KEPT, func, *args)


_KEPT = ThreadPoolExecutor(64, thread_name_prefix="scan-zarr-question")


async def call_everywhere(func: Callable[..., T], *args: Any) -> dict[str, T]:
    """Call a function in each worker process of the active Dask client; its results by worker, none without one."""
    client = active_client(awaited=True)
    return {} if client is None else await _answer(client, client.run, func, *args)


class _Pool(ThreadPoolExecutor):
    def __exit__(self, *args: object) -> None:
        self.shutdown(wait=False, cancel_futures=True)  # waiting would block the event loop

    async def run(self, func: Callable[..., T], *args: Any) -> T:
        return await asyncio.get_running_loop().run_in_executor(self, func, *args)


def _width(client: "Client | None", max_concurrency: int | None) -> Callable[[], Coroutine[Any, Any, int]]:
    """How many tasks may run at the same time, to be asked for each: a cluster may grow."""
    threads = threads_of(client) if client else None

    async def width() -> int:
        if client is None or threads is None or max_concurrency:
            return max_concurrency or MAX_CONCURRENCY
        return 2 * int(await _answer(client, threads))

    return width


async def _prepare(client: "Client", spec: StoreSpec) -> bool:
    """Make ready to read a store on a cluster; whether answers come from the workers directly."""
    check_reaches(client, spec)
    await _answer(client, bring_credentials, client, spec)
    return bool(await _answer(client, is_direct, client))


async def _on_cluster(client: "Client", task: ScanTask, pool: _Pool, *, direct: bool) -> pl.DataFrame:
    (future,) = submit(client, [task], run_task)
    gather = partial(client.gather, future, direct=direct)
    try:
        parts: CompactFrame = await (gather() if client.asynchronous else pool.run(gather))
        return await pool.run(parts.frame)
    finally:
        future.release()  # which also ends the wait of a thread that gathers it


async def _answer(client: "Client", ask: Callable[..., Any], *args: Any) -> Any:
    """Call a client's method: of one client it gives what can be awaited, of another it blocks."""
    return await (ask(*args) if client.asynchronous else asyncio.to_thread(ask, *args))
