"""Giving what jobs make one by one: in order or as it is made, bounded, some steps ahead of who takes it."""

from collections import deque
from collections.abc import Callable, Collection, Iterable, Iterator
from concurrent.futures import FIRST_COMPLETED, Future, wait
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Generic, TypeVar

S = TypeVar("S")
T = TypeVar("T")

_NUM_COMING = 4
"""Answers that are on their way here, or lie ready, beside the one that the caller has; and they have no more than..."""

_COMING_BYTES = 2**28
"""...so many bytes, but for the first of them."""


@dataclass(frozen=True, slots=True)
class Job(Generic[T]):
    """Something that was asked for, and is being made.

    Parameters
    ----------
    begin : callable
        Begins to bring here what is made; until then it is kept where that is.
    when_made : callable
        Has a function called, on any thread, when it is there to be brought.
    """

    begin: Callable[[], Future[T]]
    when_made: Callable[[Callable[[], None]], None]


def stream(
    items: Iterable[S],
    start: Callable[[list[S]], Iterable[Job[T]]],
    *,
    size_of: Callable[[S], int],
    width: Callable[[], int],
    most: int | None = None,
    in_flight_bytes: int,
    ramp_up: bool = False,
    ordered: bool = True,
) -> Iterator[T]:
    """Start jobs and give what they make.

    Parameters
    ----------
    items : iterable
        What to make something of; taken as there is room.
    start : callable
        Starts a job for each of some items. Several are started together, when half of those in flight have been taken:
        to ask a cluster for many takes hardly longer than for one.
    size_of : callable
        Bytes that what is made of an item has here, at most.
    width : callable
        Jobs that can be done at the same time, asked for each time that jobs are started: so many are in flight, whatever
        their bytes.
    most : int, optional
        Jobs in flight at most; by default twice the width.
    in_flight_bytes : int
        Bytes in flight at which no more than ``width`` jobs are.
    hesitant : bool
        Whether to begin with one job, and to double their number each time that the caller wants more.
    ordered : bool
        Whether to keep the order of the items; else what is there first comes first.

    Returns
    -------
    iterator
        One value for each item.
    """
    ahead = 1 if ramp_up else 0
    todo = iter(items)
    queue: _InOrder[T] | _AsMade[T] = _InOrder() if ordered else _AsMade()
    while True:
        room = width() if most is None else min(width(), most)
        ahead = ahead if ramp_up else max(ahead, room)
        if len(queue) <= ahead // 2:
            some, count, size = list[S](), len(queue), queue.size
            while count < ahead and (count < room or size < in_flight_bytes) and (item := next(todo, None)) is not None:
                some.append(item)
                count, size = count + 1, size + size_of(item)
            for item, job in zip(some, start(some) if some else (), strict=True):
                queue.put(job, size_of(item))
        if not len(queue):
            return
        yield queue.get()  # without a name, so that it goes when the caller lets it go
        ahead = min(2 * ahead, most or 2 * room)


class _InOrder(Generic[T]):
    """Jobs, and what they make in the same order; the next few are on their way here."""

    def __init__(self) -> None:
        self._asked, self._coming = deque[tuple[Job[T], int]](), deque[tuple[Future[T], int]]()
        self.size = 0

    def __len__(self) -> int:
        return len(self._asked) + len(self._coming)

    def put(self, job: Job[T], size: int) -> None:
        self._asked.append((job, size))
        self.size += size

    def get(self) -> T:
        while self._asked and _may_come(self._asked[0][1], [size for _, size in self._coming]):
            job, size = self._asked.popleft()
            self._coming.append((job.begin(), size))
        future, size = self._coming.popleft()
        self.size -= size
        return future.result()


class _AsMade(Generic[T]):
    """Jobs, and what they make, whichever is there first."""

    def __init__(self) -> None:
        self._made = SimpleQueue[tuple[Job[T], int]]()
        self._coming: dict[Future[T], int] = {}
        self._num_asked = self.size = 0

    def __len__(self) -> int:
        return self._num_asked + len(self._coming)

    def put(self, job: Job[T], size: int) -> None:
        self._num_asked += 1
        self.size += size
        job.when_made(partial(self._made.put, (job, size)))

    def get(self) -> T:
        while self._num_asked and (not self._coming or not self._made.empty()) and _may_come(0, self._coming.values()):
            job, size = self._made.get()
            self._num_asked -= 1
            self._coming[job.begin()] = size
        there = wait(self._coming, return_when=FIRST_COMPLETED).done
        future = next(future for future in self._coming if future in there)  # of several, the one begun first
        self.size -= self._coming.pop(future)
        return future.result()


def _may_come(size: int, coming: Collection[int]) -> bool:
    """Whether there is room here for one more answer."""
    return not coming or (len(coming) < _NUM_COMING and sum(coming) + size <= _COMING_BYTES)
