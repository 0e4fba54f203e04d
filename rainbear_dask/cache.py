"""A cache that is bounded by bytes and loads each value once, however many threads ask for it."""

from collections import Counter, OrderedDict
from collections.abc import Callable, Hashable, Sequence
from concurrent.futures import Future
from threading import Lock
from typing import Generic, TypeVar

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")


class ByteLRU(Generic[K, V]):
    """Keep the values used last, up to ``max_bytes`` in all.

    Parameters
    ----------
    max_bytes : callable
        Gives the bound on the sum of ``sizeof`` over the values kept, whenever one is added. A value larger than that is
        given out and not kept.
    sizeof : callable
        Bytes of one value.
    owner : callable
        Whom the value of a key belongs to.

    Attributes
    ----------
    hits, misses : Counter
        Answers from the cache, and loads, by owner; of those owners only of whom something is kept.
    """

    def __init__(
        self, max_bytes: Callable[[], int], sizeof: Callable[[V], int], owner: Callable[[K], Hashable]
    ) -> None:
        self.hits, self.misses = Counter[Hashable](), Counter[Hashable]()
        self._max_bytes, self._sizeof, self._owner, self._lock = max_bytes, sizeof, owner, Lock()
        self._kept: OrderedDict[K, Future[V]] = OrderedDict()
        self._owned = Counter[Hashable]()
        self._bytes = 0

    def __contains__(self, key: K) -> bool:
        with self._lock:
            return key in self._kept

    def sizes(self, owner: Hashable) -> dict[K, int]:
        """Bytes of each value kept for an owner."""
        with self._lock:
            kept = [(key, future) for key, future in self._kept.items() if self._owner(key) == owner and future.done()]
        return {key: self._sizeof(future.result()) for key, future in kept}

    def forget(self, owner: Hashable) -> None:
        """Drop the values of an owner; loads that are under way are not kept either."""
        with self._lock:
            for key in [key for key in self._kept if self._owner(key) == owner]:
                self._drop(key)

    def get_all(
        self, keys: Sequence[K], load: Callable[[Sequence[K]], Sequence[V]], most: int | None = None
    ) -> list[V]:
        """Return the values kept under some keys of one owner; those that are not there are loaded together, and kept.

        The first thread to ask for a value loads it; others wait for it and get the same value, or the same error. Of
        the owner no more than ``most`` values are kept.
        """
        futures: dict[K, Future[V]] = {}
        mine: dict[K, Future[V]] = {}
        with self._lock:
            for key in dict.fromkeys(keys):
                owner = self._owner(key)
                kept = self._kept.get(key)
                if kept is not None:
                    self.hits[owner] += 1
                    self._kept.move_to_end(key)
                else:
                    self.misses[owner] += 1
                    self._owned[owner] += 1
                    kept = mine[key] = self._kept[key] = Future()
                futures[key] = kept
        if mine:
            self._load(mine, load, most)
        return [futures[key].result() for key in keys]

    def _load(self, mine: dict[K, Future[V]], load: Callable[[Sequence[K]], Sequence[V]], most: int | None) -> None:
        try:
            values = load(list(mine))
        except BaseException as error:
            with self._lock:
                for key, future in mine.items():
                    if self._kept.get(key) is future:
                        self._drop(key)
            for future in mine.values():
                future.set_exception(error)
            raise
        with self._lock:
            for (key, future), value in zip(mine.items(), values, strict=True):
                future.set_result(value)  # here, as what is done may be dropped
                if self._kept.get(key) is future:
                    self._bytes += self._sizeof(value)
            self._shrink(self._owner(next(iter(mine))), most)

    def _shrink(self, owner: Hashable, most: int | None) -> None:
        too_large = self._bytes - self._max_bytes()
        too_many = 0 if most is None else self._owned[owner] - most
        gone: list[K] = []
        for key, future in self._kept.items():  # not copied: with many values that alone takes longer than a load
            if too_large <= 0 and too_many <= 0:
                break
            theirs = self._owner(key) == owner
            if future.done() and (too_large > 0 or theirs):
                gone.append(key)
                too_large -= self._sizeof(future.result())
                too_many -= theirs
        for key in gone:
            self._drop(key)

    def _drop(self, key: K) -> None:
        future, owner = self._kept.pop(key), self._owner(key)
        if future.done():
            self._bytes -= self._sizeof(future.result())
        self._owned[owner] -= 1
        if not self._owned[owner]:
            del self._owned[owner], self.hits[owner], self.misses[owner]
