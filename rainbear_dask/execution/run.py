"""Run the tasks of a plan on threads or on a Dask cluster: ordered results, bounded read-ahead, nothing left over."""

from collections.abc import Callable, Iterable, Iterator
from contextlib import closing
from itertools import chain, islice
from typing import TYPE_CHECKING, TypeVar

import polars as pl

from rainbear_dask.execution.executors import DaskExecutor, Executor, ThreadExecutor, Work
from rainbear_dask.execution.stream import stream
from rainbear_dask.execution.wire import CompactFrame
from rainbear_dask.execution.worker import apply_to_frame, run_task
from rainbear_dask.planning.task import ScanTask, Task
from rainbear_dask.resources.settings import num_bytes, num_threads
from rainbear_dask.storage.stores import is_remote

if TYPE_CHECKING:
    from distributed import Client


T = TypeVar("T")


def iter_frames(
    tasks: Iterable[ScanTask],
    client: "Client | None" = None,
    *,
    limit: int | None = None,
    max_concurrency: int | None = None,
    ordered: bool = True,
) -> Iterator[pl.DataFrame]:
    """Run tasks and yield their frames.

    Parameters
    ----------
    tasks : iterable of ScanTask
        Consumed lazily.
    client : distributed.Client, optional
        Client of the cluster that runs the tasks, with the Dask annotations active now. By default the tasks run on
        threads of this process.
    limit : int, optional
        Upper bound on rows. The first round submits one task, and each further round twice as many as the one before.
    max_concurrency : int, optional
        Upper bound on tasks that run at the same time.
    ordered : bool
        Whether to yield frames in task order, instead of in order of completion.

    Returns
    -------
    iterator of DataFrame
        One frame per task. At most twice as many tasks are in flight as can run at the same time. More tasks than can
        run at the same time are in flight only within the setting ``in-flight-bytes``. Closing the iterator drops them.
    """
    work = Work(run_task, CompactFrame.to_polars)
    if limit is None:
        return run_tasks(tasks, client, work, max_in_flight=max_concurrency, ordered=ordered)
    frames = run_tasks(tasks, client, work, ramp_up=True, max_in_flight=max_concurrency, ordered=ordered)
    return _first_rows(frames, limit)


def iter_compact_frames(
    tasks: Iterable[ScanTask], client: "Client | None" = None, *, ramp_up: bool = False
) -> Iterator[CompactFrame]:
    """Run tasks and yield their rows in task order, in compact form.

    Parameters
    ----------
    tasks, client
        As in `iter_frames`.
    ramp_up : bool
        Whether to submit one task first, and then twice as many in each round.

    Returns
    -------
    iterator of CompactFrame
        One per task, with the bounds of `iter_frames`.
    """
    return run_tasks(tasks, client, Work(run_task), ramp_up=ramp_up)


def map_frames(
    tasks: Iterable[ScanTask],
    func: Callable[[pl.DataFrame], T],
    client: "Client | None" = None,
    *,
    ordered: bool = True,
) -> Iterator[T]:
    """Call a function on each frame in the process that made it, and yield the results.

    Parameters
    ----------
    tasks : iterable of ScanTask
        Consumed lazily.
    func : callable
        Function of one frame. On a cluster, Dask must be able to pickle the function and its results.
    client, ordered
        As in `iter_frames`.

    Returns
    -------
    iterator
        One result per task, with the bounds of `iter_frames`. Closing the iterator drops the tasks in flight.
    """
    return run_tasks(tasks, client, Work(apply_to_frame, args=(func,)), ordered=ordered)


def run_tasks(
    tasks: Iterable[Task],
    client: "Client | None",
    work: Work[T],
    *,
    ramp_up: bool = False,
    max_in_flight: int | None = None,
    ordered: bool = True,
    executor: Executor[T] | None = None,
) -> Iterator[T]:
    """Do some work for each task, and yield the results.

    Parameters
    ----------
    tasks, client, ordered
        As in `iter_frames`; tasks may be of any kind that the work understands.
    work : Work
        What to do with each task.
    ramp_up : bool
        Whether to submit one task first, and then twice as many in each round.
    max_in_flight : int, optional
        Upper bound on tasks in flight.
    executor : Executor, optional
        Runs the tasks; by default threads, or the workers of the client.

    Returns
    -------
    iterator
        One result per task, with the bounds of `iter_frames`.
    """
    todo, threads_here = iter(tasks), num_threads()
    if client is None and not ramp_up:
        first = list(islice(todo, 2))
        if len(first) == 1:  # starting a thread would take longer than many small queries
            yield work.run_here(first[0])
            return
        todo = chain(first, todo)
        threads_here = num_threads(waiting=bool(first) and is_remote(first[0].scan.spec))
    if executor is None:
        executor = ThreadExecutor(work, threads_here) if client is None else DaskExecutor(client, work)
    with closing(executor):
        yield from stream(
            todo,
            executor.submit,
            size_of=lambda task: task.frame_bytes,
            width=executor.width,
            max_in_flight=max_in_flight,
            in_flight_bytes=num_bytes("in-flight-bytes"),
            ramp_up=ramp_up,
            ordered=ordered,
        )


def _first_rows(frames: Iterator[pl.DataFrame], count: int) -> Iterator[pl.DataFrame]:
    with closing(frames):  # type: ignore[type-var]  # a generator
        while count > 0:
            frame = next(frames, None)
            if frame is None:
                return
            count -= frame.height
            yield frame.head(count + frame.height)
