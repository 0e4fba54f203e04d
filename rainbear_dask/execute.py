"""Running a plan's tasks, on threads of this process or on a Dask cluster: in order, bounded, leaving nothing behind."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator, Mapping
from concurrent.futures import Future, ThreadPoolExecutor
from contextlib import closing, contextmanager
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, TypeVar
from weakref import WeakKeyDictionary

import polars as pl
from dask.base import annotate, get_annotations

from rainbear_dask.graph import build_graph, register_serialization
from rainbear_dask.planner import ScanTask
from rainbear_dask.storage import check_travels
from rainbear_dask.wire import Parts
from rainbear_dask.worker import apply_to_frame, run_task

if TYPE_CHECKING:
    import distributed
    from distributed import Client

T = TypeVar("T")
Begin = Callable[[], Future[T]]
"""Begins to bring here what a task gives; until then a cluster keeps it."""
Start = Callable[[ScanTask], Begin[T]]

IN_FLIGHT_BYTES = 2**30
"""Bytes of the frames that tasks in flight make, at most; but each thread of the workers may have its task."""

_NUM_PROCESSORS = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
_NUM_FETCHES = min(_NUM_PROCESSORS, 4)
"""Answers that are on their way here, or frames that lie ready, beside the frame that the caller has."""


def iter_frames(
    tasks: Iterable[ScanTask],
    client: "Client | None" = None,
    *,
    limit: int | None = None,
    max_concurrency: int | None = None,
) -> Iterator[pl.DataFrame]:
    """Run tasks and give their frames in task order.

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

    Returns
    -------
    iterator of DataFrame
        One for each task. However slow the caller, at most twice as many tasks are in flight as can run at the same
        time, and no more than make `IN_FLIGHT_BYTES` as long as each thread has one. Closing the iterator drops what
        was asked for.
    """
    work = _Work(run_task, Parts.frame)
    if limit is None:
        return _stream(tasks, client, work, most=max_concurrency)
    return _first_rows(_stream(tasks, client, work, hesitant=True, most=max_concurrency), limit)


def map_frames(
    tasks: Iterable[ScanTask], func: Callable[[pl.DataFrame], T], client: "Client | None" = None
) -> Iterator[T]:
    """Call a function of each frame where the frame is made, and give what it returns in task order.

    Parameters
    ----------
    tasks : iterable of ScanTask
        Taken one by one, as they are asked for.
    func : callable
        Of one frame. On a cluster it has to pickle, as Dask pickles functions, and so has what it returns.
    client : distributed.Client, optional
        Where to run it, with the Dask annotations that are active now; by default on threads of this process.

    Returns
    -------
    iterator
        One value for each task; bounded, and to be closed, as `iter_frames` is.
    """
    work: _Work[T] = _Work(apply_to_frame, _as_it_is, (func,))
    return _stream(tasks, client, work)


def active_client(*, awaited: bool = False) -> "Client | None":
    """The Dask client that this process works with, if there is one; never inside a Dask task, which has a thread.

    One of ``Client(asynchronous=True)`` only where its answers are awaited: who waits for them otherwise waits for ever.
    """
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        distributed.get_worker()
    except ValueError:  # not in a task
        try:
            client: Client = distributed.default_client()
        except ValueError:
            return None
        return client if awaited or not client.asynchronous else None
    return None


def check_reaches(client: "Client", task: ScanTask) -> None:
    """Refuse to send a task to a cluster of other processes if its store lives in the memory of this one."""
    if not str(client.scheduler.address if client.scheduler else "").startswith("inproc://"):
        check_travels(task.scan.spec)


def _is_direct(client: "Client") -> bool:
    """Whether answers come from the workers, not by way of the scheduler: twice as fast, where they can be reached."""
    if client.direct_to_workers is not None:
        return bool(client.direct_to_workers)
    if client not in _reaching:
        _reaching[client] = client.sync(_reaches, client, next(iter(client.nthreads()), None))
    return _reaching[client]


_reaching: "WeakKeyDictionary[Client, bool]" = WeakKeyDictionary()


async def _reaches(client: "Client", worker: str | None) -> bool:
    if worker is None:
        return False
    try:
        comm = await client.rpc.connect(worker, timeout=_REACH_SECONDS)
    except OSError:
        return False
    client.rpc.reuse(worker, comm)
    return True


_REACH_SECONDS = 2


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
    hesitant: bool = False,
    most: int | None = None,
) -> Iterator[T]:
    with _threads(work) if client is None else _cluster(client, work) as (start, threads):
        most = most or 2 * threads
        width = min(threads, most)
        ahead = 1 if hesitant else width
        todo = iter(tasks)
        asked, coming = deque[Begin[T]](), deque[Future[T]]()
        sizes = deque[int]()  # of both
        while True:
            while len(sizes) < ahead and (len(sizes) < width or sum(sizes) < IN_FLIGHT_BYTES):
                task = next(todo, None)
                if task is None:
                    break
                asked.append(start(task))
                sizes.append(task.frame_bytes)
            while asked and len(coming) < _NUM_FETCHES:
                coming.append(asked.popleft()())
            if not coming:
                return
            yield coming.popleft().result()  # without a name, so that it goes when the caller lets it go
            sizes.popleft()
            ahead = min(2 * ahead, most)


def _first_rows(frames: Iterator[pl.DataFrame], count: int) -> Iterator[pl.DataFrame]:
    with closing(frames):  # type: ignore[type-var]  # a generator
        while count > 0:
            frame = next(frames, None)
            if frame is None:
                return
            count -= frame.height
            yield frame.head(count + frame.height)


@contextmanager
def _threads(work: _Work[T]) -> Iterator[tuple[Start[T], int]]:
    """Threads of this process, as many as it has processors."""
    pool = ThreadPoolExecutor(_NUM_PROCESSORS, thread_name_prefix="scan-zarr")

    def start(task: ScanTask) -> Begin[T]:
        future = pool.submit(work.here, task)
        return lambda: future

    try:
        yield start, _NUM_PROCESSORS
    finally:
        # not waiting: Polars may drop a half-read stream on one of these very threads
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _cluster(client: "Client", work: _Work[T]) -> Iterator[tuple[Start[T], int]]:
    """Workers of a Dask cluster. What they answer is fetched and put together on a few threads of this process."""
    register_serialization()
    pool = ThreadPoolExecutor(_NUM_FETCHES, thread_name_prefix="scan-zarr-fetch")
    unfetched: set[distributed.Future[Any]] = set()

    def start(task: ScanTask) -> Begin[T]:
        check_reaches(client, task)
        graph = build_graph([task], work.run, *work.args)
        with annotate(**work.annotations):
            future = client.get(graph, next(iter(graph)), sync=False)
        unfetched.add(future)
        return partial(pool.submit, fetch, future)

    def fetch(future: "distributed.Future[Any]") -> T:
        try:
            answer = client.gather(future, direct=_is_direct(client))
        finally:
            release(future)
        return work.receive(answer)

    def release(future: "distributed.Future[Any]") -> None:
        """Give it up: not cancelled, as another scan of this client that asked for the same task still wants it."""
        unfetched.discard(future)
        future.release()

    try:
        yield start, max(sum(client.nthreads().values()), 1)
    finally:
        for future in list(unfetched):
            release(future)  # which also ends the wait of a thread that fetches it
        pool.shutdown(wait=False, cancel_futures=True)
