"""How many threads of a process read at the same time: one level of them, and no more than there are processors for."""

import threading
from collections.abc import Iterator
from contextlib import contextmanager

from rainbear_dask.resources.settings import num_threads

_lock = threading.Lock()
_busy = 0
_allowed: int | None = None


@contextmanager
def busy() -> Iterator[None]:
    """Count this thread, which runs a task, as one of those that read."""
    with _counted(1):
        yield


@contextmanager
def beside(wanted: int) -> Iterator[int]:
    """Take threads to help the one that asks, as far as no other task has them.

    Parameters
    ----------
    wanted : int
        How many are of use.

    Yields
    ------
    int
        How many there are; none where each processor has a task already.
    """
    with _lock:
        free = max((num_threads() if _allowed is None else _allowed) - max(_busy, 1), 0)
    with _counted(min(max(wanted, 0), free)) as count:
        yield count


def allow(count: int) -> None:
    """Have no more threads read than so many: those of a worker, beside which others run on the same machine."""
    global _allowed  # noqa: PLW0603  of the process, as its processors are
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
