"""Yield job results in submission or completion order, with bounded read-ahead."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")

_MAX_FETCHED = 64
"""Upper bound on results that are being fetched or wait here, beside the one that the caller holds."""

_MAX_FETCHED_BYTES = 2**28
"""Upper bound on the bytes of those results, unless there is only one."""


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """A task that was submitted.

    Parameters
    ----------
    fetch : callable
        Start to bring the result to this process. Until then the result stays where it was made.
    call_when_done : callable
        Register a function, which is called on any thread once the result can be fetched.
    """

    fetch: Callable[[], Future[T]]
    call_when_done: Callable[[Callable[[], None]], None]


def stream(
    items: Iterable[S],
    submit: Callable[[list[S]], Iterable[Job[T]]],
    *,
    size_of: Callable[[S], int],
    width: Callable[[], int],
    max_in_flight: int | None = None,
    in_flight_bytes: int,
    ramp_up: bool = False,
    ordered: bool = True,
) -> Iterator[T]:
    """Submit a job for each item and yield the results.

    Parameters
    ----------
    items : iterable
        Consumed lazily, as jobs are submitted.
    submit : callable
        Start a job for each of several items. A batch is submitted each time that the caller has taken half of the jobs
        in flight: submitting many jobs to a cluster takes hardly longer than submitting one.
    size_of : callable
        Upper bound on the bytes of an item's result.
    width : callable
        Return how many jobs can run at the same time; called before each batch. So many jobs may be in flight, however
        large they are.
    max_in_flight : int, optional
        Upper bound on jobs in flight; by default twice the width.
    in_flight_bytes : int
        Once the jobs in flight have so many bytes, there are at most ``width`` of them.
    ramp_up : bool
        Whether to submit one job first, and twice as many each time that the caller takes another result.
    ordered : bool
        Whether to yield results in the order of the items, instead of in order of completion.

    Returns
    -------
    iterator
        One result per item.
    """
    ahead = 1 if ramp_up else 0
    todo = iter(items)
    queue: _InOrder[T] | _AsCompleted[T] = _InOrder() if ordered else _AsCompleted()
    while True:
        room = width() if max_in_flight is None else min(width(), max_in_flight)
        ahead = ahead if ramp_up else max(ahead, room)
        if len(queue) <= ahead // 2:
            batch, count, size = list[S](), len(queue), queue.size
            while count < ahead and (count < room or size < in_flight_bytes) and (item := next(todo, None)) is not None:
                batch.append(item)
                count, size = count + 1, size + size_of(item)
            for item, job in zip(batch, submit(batch) if batch else (), strict=True):
                queue.put(job, size_of(item))
        if not len(queue):
            return
        yield queue.get()  # unnamed, so that the memory is freed as soon as the caller drops the result
        ahead = min(2 * ahead, max_in_flight or 2 * room)


class _InOrder(Generic[T]):
    """Jobs in flight, whose results leave in submission order."""

    def __init__(self) -> None:
        self._submitted, self._fetched = deque[tuple[Job[T], int]](), deque[tuple[Future[T], int]]()
        self.size = 0

    def __len__(self) -> int:
        return len(self._submitted) + len(self._fetched)

    def put(self, job: Job[T], size: int) -> None:
        self._submitted.append((job, size))
        self.size += size

    def get(self) -> T:
        while self._submitted and _has_room(self._submitted[0][1], [size for _, size in self._fetched]):
            job, size = self._submitted.popleft()
            self._fetched.append((job.fetch(), size))
        future, size = self._fetched.popleft()
        self.size -= size
        return future.result()


class _AsCompleted(Generic[T]):
    """Jobs in flight, whose results leave in order of completion."""

    def __init__(self) -> None:
        self._done = SimpleQueue[tuple[Job[T], int]]()
        self._fetched: dict[Future[T], int] = {}
        self._num_submitted = self.size = 0

    def __len__(self) -> int:
        return self._num_submitted + len(self._fetched)

    def put(self, job: Job[T], size: int) -> None:
        self._num_submitted += 1
        self.size += size
        job.call_when_done(partial(self._done.put, (job, size)))

    def get(self) -> T:
        while (
            self._num_submitted
            and (not self._fetched or not self._done.empty())
            and _has_room(0, self._fetched.values())
        ):
            job, size = self._done.get()
            self._num_submitted -= 1
            self._fetched[job.fetch()] = size
        there = wait(self._fetched, return_when=FIRST_COMPLETED).done
        future = next(future for future in self._fetched if future in there)  # the earliest of several
        self.size -= self._fetched.pop(future)
        return future.result()


def _has_room(size: int, fetched: Collection[int]) -> bool:
    """Whether one more result may be fetched."""
    return not fetched or (len(fetched) < _MAX_FETCHED and sum(fetched) + size <= _MAX_FETCHED_BYTES)
