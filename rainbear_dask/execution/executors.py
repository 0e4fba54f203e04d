"""Where tasks run: one protocol, implemented by threads of this process and by the workers of a Dask cluster.

An executor takes tasks, for example `ScanTask` objects, and returns a `Job` for each. `execution.run` and
`execution.run_async` decide how many jobs are in flight, and in which order their results arrive.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, Generic, Protocol, TypeVar

from dask.base import annotate, get_annotations

from rainbear_dask.execution.clients import bring_credentials, check_reaches, count_threads, told_of_loss
from rainbear_dask.execution.fetching import Fetcher
from rainbear_dask.execution.graph import submit
from rainbear_dask.execution.stream import Job
from rainbear_dask.planning.task import Task

if TYPE_CHECKING:
    import distributed
    from distributed import Client

T = TypeVar("T")

MAX_MESSAGE_BYTES = 8 * 2**20
"""Bytes of tasks that are submitted together, unless one task has more. Dask warns of messages of 10 MB."""


def _unchanged(result: Any) -> Any:
    return result


@dataclass(frozen=True, slots=True)
class Work(Generic[T]):
    """What to do with each task.

    Parameters
    ----------
    run : callable
        Top-level function of a task and of ``args``; called where the chunks are read.
    receive : callable
        Turns the result of ``run`` into the value for the caller; called in this process. By default the result is
        the value.
    args : tuple of callable
        Further arguments of ``run``.
    annotations : mapping
        Dask annotations of the tasks; by default those active now.
    """

    run: Callable[..., Any]
    receive: Callable[[Any], T] = _unchanged
    args: tuple[Callable[..., Any], ...] = ()
    annotations: Mapping[str, Any] = field(default_factory=get_annotations)

    def run_here(self, task: Task) -> T:
        """Do the work for one task on the calling thread."""
        return self.receive(self.run(task, *self.args))


def _messages(tasks: Sequence[Task]) -> Iterator[Sequence[Task]]:
    """Split tasks into those that one message carries."""
    start = size = 0
    for number, task in enumerate(tasks):
        size += task.sent_bytes
        if size > MAX_MESSAGE_BYTES and number > start:
            yield tasks[start:number]
            start, size = number, task.sent_bytes
    yield tasks[start:]


class Executor(Protocol[T]):
    """Runs tasks. Its methods may block, so call them outside of an event loop; `close` never blocks."""

    def submit(self, tasks: Sequence[Task]) -> list[Job[T]]:
        """Start tasks together and return a job for each, in the same order."""
        ...

    def width(self) -> int:
        """Return how many tasks can run at the same time, at least one; it may change during a scan."""
        ...

    def close(self) -> None:
        """Drop every job that has not been fetched, without waiting for the tasks that are running."""
        ...


class ThreadExecutor(Generic[T]):
    """Runs tasks on threads of this process.

    Parameters
    ----------
    work : Work
        What to do with each task.
    num_threads : int
        Upper bound on threads.
    """

    def __init__(self, work: Work[T], num_threads: int) -> None:
        self._work, self._num_threads = work, num_threads
        self._pool = ThreadPoolExecutor(num_threads, thread_name_prefix="scan-zarr-task")

    def submit(self, tasks: Sequence[Task]) -> list[Job[T]]:
        """Queue tasks for the threads."""
        return [self._job(self._pool.submit(self._work.run_here, task)) for task in tasks]

    def _job(self, future: Future[T]) -> Job[T]:
        return Job(lambda: future, lambda call: future.add_done_callback(lambda _: call()))

    def width(self) -> int:
        """Return the number of threads."""
        return self._num_threads

    def close(self) -> None:
        """Cancel queued tasks; running tasks end by themselves."""
        # Waiting could deadlock: Polars may drop a half-read stream on one of these very threads.
        self._pool.shutdown(wait=False, cancel_futures=True)


class DaskExecutor(Generic[T]):
    """Runs tasks on the workers of a Dask cluster.

    Parameters
    ----------
    client : distributed.Client
        A client of either kind. The methods block on its event loop, so they must not be called there.
    work : Work
        What to do with each task.
    """

    def __init__(self, client: "Client", work: Work[T]) -> None:
        self._client, self._work = client, work
        self._fetcher = Fetcher(client, work.receive, self._release)
        self._count_threads = count_threads(client)
        self._unfetched: set[distributed.Future[Any]] = set()
        self._is_closed = False

    def submit(self, tasks: Sequence[Task]) -> list[Job[T]]:
        """Bring the workers the credentials of the stores, then submit the tasks with the caller's annotations."""
        return [self._job(future) for future in self._start(tasks)]

    def _start(self, tasks: Sequence[Task]) -> "list[distributed.Future[Any]]":
        futures: list[distributed.Future[Any]] = []
        with told_of_loss(self._client, OSError), annotate(**self._work.annotations):
            for spec in {task.scan.spec for task in tasks}:
                check_reaches(self._client, spec)
                bring_credentials(self._client, spec)
            for some in _messages(tasks):
                futures += submit(self._client, some, self._work.run, *self._work.args)
        self._unfetched.update(futures)
        if self._is_closed:  # on another thread meanwhile
            self._release_all()
        return futures

    def _job(self, future: "distributed.Future[Any]") -> Job[T]:
        return Job(partial(self._fetcher.fetch, future), lambda call: future.add_done_callback(lambda _: call()))

    def _release(self, future: "distributed.Future[Any]") -> None:
        # Not cancelled: another scan of this client may have submitted the same task and still wait for it.
        self._unfetched.discard(future)
        future.release()

    def width(self) -> int:
        """Return the number of threads that the cluster's workers have now."""
        with told_of_loss(self._client, OSError):
            return self._count_threads()

    def close(self) -> None:
        """Release all futures, so that workers drop their results and skip tasks that have not begun."""
        self._is_closed = True
        self._release_all()
        self._fetcher.close()

    def _release_all(self) -> None:
        for future in list(self._unfetched):
            self._release(future)  # also wakes a thread that is fetching it
