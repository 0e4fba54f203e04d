"""Number of threads of a process that read at the same time: one level of threads, and at most one for each CPU."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rainbear_dask.resources.settings import num_threads

_lock = threading.Lock()
_busy = 0
_allowed: int | None = None


@contextmanager
def busy() -> Iterator[None]:
    """Count this thread, which runs a task, among the threads that read."""
    with _counted(1):
        yield


@contextmanager
def beside(wanted: int) -> Iterator[int]:
    """Reserve threads that help the calling thread, if no other task uses their CPUs.

    Parameters
    ----------
    wanted : int
        Number of threads that the caller can use.

    Yields
    ------
    int
        Number of threads that the caller gets; 0 if every CPU has a task.
    """
    with _lock:
        free = max((num_threads() if _allowed is None else _allowed) - max(_busy, 1), 0)
    with _counted(min(max(wanted, 0), free)) as count:
        yield count


def allow(count: int) -> None:
    """Set the number of threads that may read: a worker's own, because other workers run on the same machine."""
    global _allowed  # noqa: PLW0603  one for the process, as its CPUs are
    _allowed = count


@contextmanager
def _counted(count: int) -> Iterator[int]:
    global _busy  # noqa: PLW0603
    with _lock:
        _busy += count
    try:
        yield count
    finally:
        with _lock:
            _busy -= count
