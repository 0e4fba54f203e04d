"""Run the tasks of a plan for callers that await them, without blocking the event loop."""

import asyncio
from collections.abc import Callable
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, suppress
from itertools import islice
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl

from rainbear_dask.diagnostics.progress import bar
from rainbear_dask.execution.clients import active_client
from rainbear_dask.execution.executors import DaskExecutor, Executor, ThreadExecutor, Work
from rainbear_dask.execution.stream import Job
from rainbear_dask.execution.wire import CompactFrame
from rainbear_dask.execution.worker import run_task
from rainbear_dask.planning.plan import ReadPlan

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

DEFAULT_MAX_CONCURRENCY = 8
"""Tasks that run at the same time on threads of this process by default; each holds about 64 MiB."""

_WAITING_THREADS = ThreadPoolExecutor(64, thread_name_prefix="scan-zarr-wait")
"""Threads for calls that may wait for a store or a cluster. An event loop has few threads of its own."""


async def collect_frames(
    plan: ReadPlan, client: "Client | None", max_concurrency: int | None = None
) -> list[pl.DataFrame]:
    """Run a plan on a Dask client of either kind, or on threads of this process, and return all frames.

    If the caller cancels it or a task fails, no further task starts. Threads finish the tasks that they are running,
    and the results are dropped.

    Parameters
    ----------
    plan : ReadPlan
        Its tasks are consumed lazily.
    client : distributed.Client or None
        The client, from `clients.client_for`; None for threads of this process.
    max_concurrency : int, optional
        Upper bound on tasks in flight. By default threads of this process run `DEFAULT_MAX_CONCURRENCY` tasks at the
        same time. On a cluster, twice as many tasks are in flight as the workers have threads.

    Returns
    -------
    list of DataFrame
        In task order.
    """
    work = Work(run_task, CompactFrame.to_polars)
    threads_here = max_concurrency or DEFAULT_MAX_CONCURRENCY
    executor: Executor[pl.DataFrame]
    executor = ThreadExecutor(work, threads_here) if client is None else DaskExecutor(client, work)
    todo, is_exhausted = plan.tasks(), False

    def submit_more(num_in_flight: int) -> list[Job[pl.DataFrame]]:
        nonlocal is_exhausted
        room = max((max_concurrency or 2 * executor.width()) - num_in_flight, 0)
        batch = list(islice(todo, room))
        is_exhausted = len(batch) < room
        return executor.submit(batch) if batch else []

    results: list[asyncio.Task[pl.DataFrame]] = []
    in_flight: set[asyncio.Task[pl.DataFrame]] = set()
    with closing(executor), bar(plan) as advance:
        try:
            while True:
                jobs = [] if is_exhausted else await call_in_thread(submit_more, len(in_flight))
                started = [asyncio.ensure_future(_result_of(job, advance)) for job in jobs]
                results += started
                in_flight |= set(started)
                if not in_flight:
                    return [result.result() for result in results]
                done, in_flight = await asyncio.wait(in_flight, return_when=asyncio.FIRST_COMPLETED)
                for result in done:
                    result.result()  # raises the error of a task that failed
        finally:
            for result in results:
                result.cancel()
            await asyncio.gather(*results, return_exceptions=True)


async def _result_of(job: Job[T], advance: Callable[[object], None]) -> T:
    """Fetch the result of a job once it is done, and move the progress bar on."""
    loop, done = asyncio.get_running_loop(), asyncio.Event()

    def notify() -> None:
        with suppress(RuntimeError):  # the loop has closed since: the caller gave up
            loop.call_soon_threadsafe(done.set)

    job.call_when_done(notify)
    await done.wait()
    result = await asyncio.wrap_future(job.fetch())
    advance(result)
    return result


async def call_in_thread(func: Callable[..., T], *args: Any) -> T:
    """Call a function that may block, on a thread reserved for such calls, and return its result."""
    return await asyncio.get_running_loop().run_in_executor(_WAITING_THREADS, func, *args)


async def call_on_workers(func: Callable[..., T], *args: Any) -> dict[str, T]:
    """Call a function in each worker process of the active Dask client.

    Parameters
    ----------
    func : callable
        Must pickle.
    *args
        Its arguments.

    Returns
    -------
    dict of str to result
        Results by worker address; empty if no client is active.
    """
    client = active_client(awaited=True)
    return {} if client is None else await call_in_thread(client.run, func, *args)
