"""Running a plan's tasks, on threads of this process or on a Dask cluster: in order, bounded, leaving nothing behind."""

from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, Generic, TypeVar

import polars as pl
from dask.base import annotate, get_annotations

from rainbear_dask.execution.clients import bring_credentials, check_reaches, is_direct, threads_of
from rainbear_dask.execution.graph import submit
from rainbear_dask.execution.stream import Job, stream
from rainbear_dask.execution.wire import CompactFrame
from rainbear_dask.execution.worker import apply_to_frame, run_task
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.resources.settings import num_bytes, num_threads
from rainbear_dask.storage.stores import is_remote

if TYPE_CHECKING:
    import distributed
    from distributed import Client


T = TypeVar("T")
Start = Callable[[list[ScanTask]], list[Job[T]]]

_NUM_FETCHES = 4  # answers that are fetched from a cluster at the same time


def iter_frames(
    tasks: Iterable[ScanTask],
    client: "Client | None" = None,
    *,
    limit: int | None = None,
    max_concurrency: int | None = None,
    ordered: bool = True,
) -> Iterator[pl.DataFrame]:
    """Run tasks and give their frames.

    Parameters
    ----------
    tasks : iterable of ScanTask
        Taken one by one, as they are asked for.
    client : distributed.Client, optional
        Where to run them, with the Dask annotations that are active now; by default on threads of this process.
    limit : int, optional
        Rows wanted at most. One task is then asked for first; each time that it was not enough, twice as many are.
    max_concurrency : int, optional
        Tasks that run at the same time, at most.
    ordered : bool
        Whether frames come in task order; else as they are made.

    Returns
    -------
    iterator of DataFrame
        One for each task. However slow the caller, at most twice as many tasks are in flight as can run at the same
        time, and no more than make the bytes of the setting ``in-flight-bytes`` as long as each thread has one. Closing
        the iterator drops what was asked for.
    """
    work = _Work(run_task, CompactFrame.frame)
    if limit is None:
        return _stream(tasks, client, work, most=max_concurrency, ordered=ordered)
    return _first_rows(_stream(tasks, client, work, ramp_up=True, most=max_concurrency, ordered=ordered), limit)


def iter_parts(
    tasks: Iterable[ScanTask], client: "Client | None" = None, *, ramp_up: bool = False
) -> Iterator[CompactFrame]:
    """Run tasks and give their rows in task order, not yet put together.

    Parameters
    ----------
    tasks, client
        As in `iter_frames`.
    hesitant : bool
        Whether the first may be enough: one task is then asked for first, and twice as many each time that it was not.

    Returns
    -------
    iterator of Parts
        One for each task, as bounded as `iter_frames` is.
    """
    return _stream(tasks, client, _Work(run_task, _as_it_is), ramp_up=ramp_up)


def map_frames(
    tasks: Iterable[ScanTask],
    func: Callable[[pl.DataFrame], T],
    client: "Client | None" = None,
    *,
    ordered: bool = True,
) -> Iterator[T]:
    """Call a function of each frame where the frame is made, and give what it returns.

    Parameters
    ----------
    tasks : iterable of ScanTask
        Taken one by one, as they are asked for.
    func : callable
        Of one frame. On a cluster it has to pickle, as Dask pickles functions, and so has what it returns.
    client, ordered
        As in `iter_frames`.

    Returns
    -------
    iterator
        One value for each task; bounded, and to be closed, as `iter_frames` is.
    """
    return _stream(tasks, client, _Work(apply_to_frame, _as_it_is, (func,)), ordered=ordered)


@dataclass(frozen=True, slots=True)
class _Work(Generic[T]):
    """What to do with each task: ``run`` where its chunks are read, ``receive`` here."""

    run: Callable[..., Any]
    receive: Callable[[Any], T]
    args: tuple[Callable[..., Any], ...] = ()
    annotations: Mapping[str, Any] = field(default_factory=get_annotations)

    def here(self, task: ScanTask) -> T:
        """Do it in this process."""
        return self.receive(self.run(task, *self.args))


def _as_it_is(value: T) -> T:
    return value


def _stream(
    tasks: Iterable[ScanTask],
    client: "Client | None",
    work: _Work[T],
    *,
    ramp_up: bool = False,
    most: int | None = None,
    ordered: bool = True,
) -> Iterator[T]:
    todo, threads_here = iter(tasks), num_threads()
    if client is None and not ramp_up:
        first = list(islice(todo, 2))
        if len(first) == 1:  # a thread of its own would take longer than many a small question
            yield work.here(first[0])
            return
        todo = chain(first, todo)
        threads_here = num_threads(waiting=bool(first) and is_remote(first[0].scan.spec))
    with _threads(work, threads_here) if client is None else _cluster(client, work) as (start, width):
        yield from stream(
            todo,
            start,
            size_of=lambda task: task.frame_bytes,
            width=width,
            most=most,
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


@contextmanager
def _threads(work: _Work[T], threads: int) -> Iterator[tuple[Start[T], Callable[[], int]]]:
    """Threads of this process."""
    pool = ThreadPoolExecutor(threads, thread_name_prefix="scan-zarr")

    def start(task: ScanTask) -> Job[T]:
        future = pool.submit(work.here, task)
        return Job(lambda: future, lambda made: future.add_done_callback(lambda _: made()))

    try:
        yield lambda tasks: [start(task) for task in tasks], lambda: threads
    finally:
        # not waiting: Polars may drop a half-read stream on one of these very threads
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _cluster(client: "Client", work: _Work[T]) -> Iterator[tuple[Start[T], Callable[[], int]]]:
    """Workers of a Dask cluster. What they answer is fetched and put together on a few threads of this process."""
    pool = ThreadPoolExecutor(_NUM_FETCHES, thread_name_prefix="scan-zarr-fetch")
    unfetched: set[distributed.Future[Any]] = set()

    def start(tasks: list[ScanTask]) -> list[Job[T]]:
        for spec in {task.scan.spec for task in tasks}:
            check_reaches(client, spec)
            bring_credentials(client, spec)
        with annotate(**work.annotations):
            futures = submit(client, tasks, work.run, *work.args)
        unfetched.update(futures)
        return [job(future) for future in futures]

    def job(future: "distributed.Future[Any]") -> Job[T]:
        return Job(partial(pool.submit, fetch, future), lambda made: future.add_done_callback(lambda _: made()))

    def fetch(future: "distributed.Future[Any]") -> T:
        try:
            answer = client.gather(future, direct=is_direct(client))
        finally:
            release(future)
        return work.receive(answer)

    def release(future: "distributed.Future[Any]") -> None:
        """Give it up: not cancelled, as another scan of this client that asked for the same task still wants it."""
        unfetched.discard(future)
        future.release()

    try:
        yield start, threads_of(client)
    finally:
        for future in list(unfetched):
            release(future)  # which also ends the wait of a thread that fetches it
        pool.shutdown(wait=False, cancel_futures=True)
