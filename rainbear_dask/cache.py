"""A cache that is bounded by bytes and loads each value once, however many threads ask for it."""

from collections import OrderedDict
from collections.abc import Callable, Hashable
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteLRU(Generic[K, V]):
    """Keep the values used last, up to ``max_bytes`` in all.

    Parameters
    ----------
    max_bytes : int
        Bound on the sum of ``sizeof`` over the values kept. A value larger than that is given out and not kept.
    sizeof : callable
        Bytes of one value.

    Attributes
    ----------
    hits, misses : int
        Answers from the cache, and loads.
    """

    def __init__(self, max_bytes: int, sizeof: Callable[[V], int]) -> None:
        self.max_bytes, self.hits, self.misses = max_bytes, 0, 0
        self._sizeof, self._lock = sizeof, Lock()
        self._kept: OrderedDict[K, Future[V]] = OrderedDict()
        self._bytes = 0

    @property
    def num_bytes(self) -> int:
        """Bytes kept now."""
        return self._bytes

    def __len__(self) -> int:
        return len(self._kept)

    def clear(self) -> None:
        """Forget every value; loads that are under way are not kept either."""
        with self._lock:
            self._kept.clear()
            self._bytes = 0

    def get(self, key: K, load: Callable[[], V]) -> V:
        """Return the value kept under ``key``, or load it and keep it.

        The first thread to ask loads; others wait for it and get the same value, or the same error.
        """
        with self._lock:
            future = self._kept.get(key)
            if future is not None:
                self.hits += 1
                self._kept.move_to_end(key)
            else:
                self.misses += 1
                mine = self._kept[key] = Future()
        if future is not None:
            return future.result()
        try:
            value = load()
        except BaseException as error:
            with self._lock:
                if self._kept.get(key) is mine:
                    del self._kept[key]
            mine.set_exception(error)
            raise
        mine.set_result(value)
        with self._lock:
            if self._kept.get(key) is mine:
                self._bytes += self._sizeof(value)
                self._shrink()
        return value

    def _shrink(self) -> None:
        for key in list(self._kept):
            if self._bytes <= self.max_bytes:
                return
            if self._kept[key].done():
                self._bytes -= self._sizeof(self._kept.pop(key).result())
