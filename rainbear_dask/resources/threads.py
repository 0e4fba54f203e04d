"""Number of threads of a process that read at the same time: one level of threads, and at most one for each CPU."""

import threading
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import Generic, TypeVar

from rainbear_dask.resources.settings import num_threads

T = TypeVar("T")

_lock = threading.Lock()
_busy = 0
_allowed: int | None = None


@contextmanager
def busy() -> Iterator[None]:
    """Count this thread, which runs a task, among the threads that read."""
    _count(1)
    try:
        yield
    finally:
        _count(-1)


def share(items: Sequence[T], start: Callable[[], Callable[[T], None]], max_threads: int | None = None) -> None:
    """Process items on the calling thread, and on more threads while CPUs have no task.

    A thread takes the next item when it has finished one. Whenever a CPU becomes free, another thread joins, so no CPU
    idles at the end of a scan. A helping thread leaves as soon as there are more tasks than CPUs.

    Parameters
    ----------
    items : sequence
        Taken in order.
    start : callable
        Called once on each thread. It returns the function that processes one item; its buffers belong to the thread.
    max_threads : int, optional
        Upper bound on threads; by default one for each item.

    Raises
    ------
    Exception
        The error of the first item that failed. No further item is begun.
    """
    limit = min(len(items), len(items) if max_threads is None else max_threads)
    if limit <= 1:
        process = start()
        for item in items:
            process(item)
        return
    _Shared(items, start, limit).run()


class _Shared(Generic[T]):
    """Items that several threads process together."""

    def __init__(self, items: Sequence[T], start: Callable[[], Callable[[T], None]], max_threads: int) -> None:
        self._items, self._start, self._max_helpers = items, start, max_threads - 1
        self._numbers = iter(range(len(items)))  # `next` on it is atomic
        self._taken = 0
        self._helpers = list[threading.Thread]()
        self._errors: dict[int, BaseException] = {}

    def run(self) -> None:
        outside = _busy == 0  # the calling thread runs no task
        _count(outside)
        try:
            self._work(self._recruit)
        finally:
            self._taken = len(self._items)
            for helper in self._helpers:
                helper.join()
            _count(-outside)
        if self._errors:
            raise self._errors[min(self._errors)]

    def _work(self, may_go_on: Callable[[], bool]) -> None:
        process: Callable[[T], None] | None = None
        while not self._errors and self._taken < len(self._items) and may_go_on():
            number = next(self._numbers, None)
            if number is None:
                return
            self._taken = number + 1
            try:
                process = process or self._start()
                process(self._items[number])
            except BaseException as err:  # noqa: BLE001  raised on the thread that called
                self._errors[number] = err

    def _recruit(self) -> bool:
        """Start helpers while CPUs are free and items would be left for them."""
        while len(self._helpers) < self._max_helpers and self._taken + 1 < len(self._items) and _reserve():
            helper = threading.Thread(target=self._help, name="scan-zarr-help", daemon=True)
            self._helpers.append(helper)
            helper.start()
        return True

    def _help(self) -> None:
        try:
            self._work(lambda: _busy <= _limit())
        finally:
            _count(-1)


def allow(count: int) -> None:
    """Set the number of threads that may read: a worker's own, because other workers run on the same machine."""
    global _allowed  # noqa: PLW0603  one for the process, as its CPUs are
    _allowed = count


def _limit() -> int:
    return num_threads() if _allowed is None else _allowed


def _reserve() -> bool:
    """Count one more thread if a CPU is free for it."""
    global _busy  # noqa: PLW0603
    with _lock:
        free = _busy < _limit()
        _busy += free
    return free


def _count(change: int) -> None:
    global _busy  # noqa: PLW0603
    with _lock:
        _busy += change
