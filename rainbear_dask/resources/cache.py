"""Caches that are bounded by bytes, and load each value once."""

import sys
import threading
from collections import Counter, OrderedDict, deque
from collections.abc import Callable, Hashable, Iterator, Sequence
from concurrent.futures import Future
from contextlib import contextmanager
from functools import update_wrapper
from typing import Any, Generic, TypeVar

import numpy as np

K = TypeVar("K", bound=Hashable)
V = TypeVar("V")

ENTRY_BYTES = 1024
"""Bytes of an entry beside its value and the texts of its key: three dictionary places, the key, counters."""


class ByteLRU(Generic[K, V]):
    """A cache of the most recently used values, bounded by the bytes of values, keys and bookkeeping.

    Parameters
    ----------
    max_bytes : callable
        Return the upper bound on the sum of the entries' sizes. It is called whenever a value is added. A larger
        value is returned without being kept.
    sizeof : callable
        Return the bytes of a key and its value.
    owner : callable
        Return the owner of a key.
    overhead : int
        Bytes that each entry takes in addition.

    Attributes
    ----------
    hits, misses : Counter
        Cached answers, and loads, by owner. Owners without entries are not counted.
    """

    def __init__(
        self,
        max_bytes: Callable[[], int],
        sizeof: Callable[[K, V], int],
        owner: Callable[[K], Hashable],
        overhead: int = ENTRY_BYTES,
    ) -> None:
        self.hits, self.misses = Counter[Hashable](), Counter[Hashable]()
        self._max_bytes, self._sizeof, self._owner, self._overhead = max_bytes, sizeof, owner, overhead
        self._kept: OrderedDict[K, _Entry[V]] = OrderedDict()
        self._owned: dict[Hashable, OrderedDict[K, None]] = {}
        self._lock = threading.Lock()
        self._gone: deque[Hashable] = deque()
        self._bytes = 0

    def __contains__(self, key: K) -> bool:
        with self._locked():
            return key in self._kept

    @property
    def bytes(self) -> int:
        """Return the sum of the sizes of all entries."""
        with self._locked():
            return self._bytes

    def sizes(self, owner: Hashable) -> dict[K, int]:
        """Return the bytes of each entry of an owner."""
        with self._locked():
            return {key: entry.size for key in self._owned.get(owner, ()) if (entry := self._kept[key]).loading is None}

    def forget(self, owner: Hashable) -> None:
        """Drop the values of an owner, and do not keep those that are being loaded."""
        with self._locked():
            self._drop_all_of(owner)

    def clear(self) -> None:
        """Drop all values."""
        with self._locked():
            for owner in list(self._owned):
                self._drop_all_of(owner)

    def forget_soon(self, owner: Hashable) -> None:
        """Drop the values of an owner without waiting. A finalizer may call this while its thread holds the lock."""
        self._gone.append(owner)
        self._sweep()

    def get_all(
        self, keys: Sequence[K], load: Callable[[Sequence[K]], Sequence[V]], max_owned: int | None = None
    ) -> list[V]:
        """Return the values of some keys of one owner. Missing values are loaded together, and kept.

        The first thread that needs a value loads it. Other threads wait for it, and get the same value or error. At
        most ``max_owned`` values of the owner are kept.
        """
        found: dict[K, _Entry[V]] = {}
        mine: dict[K, _Entry[V]] = {}
        with self._locked():
            for key in dict.fromkeys(keys):
                owner = self._owner(key)
                entry = self._kept.get(key)
                if entry is not None:
                    self.hits[owner] += 1
                    self._kept.move_to_end(key)
                    self._owned[owner].move_to_end(key)
                else:
                    self.misses[owner] += 1
                    entry = mine[key] = self._kept[key] = _Entry()
                    self._owned.setdefault(owner, OrderedDict())[key] = None
                found[key] = entry
        if mine:
            self._load(mine, load, max_owned)
        values = {key: entry.get() for key, entry in found.items()}
        return [values[key] for key in keys]

    def _load(
        self, mine: "dict[K, _Entry[V]]", load: Callable[[Sequence[K]], Sequence[V]], max_owned: int | None
    ) -> None:
        try:
            values = load(list(mine))
        except BaseException as error:
            with self._locked():
                for key, entry in mine.items():
                    if self._kept.get(key) is entry:
                        self._drop(key)
            for entry in mine.values():
                entry.fail(error)
            raise
        sizes = [self._sizeof(key, value) + self._overhead for key, value in zip(mine, values, strict=True)]
        with self._locked():
            for (key, entry), value, size in zip(mine.items(), values, sizes, strict=True):
                entry.put(value, size)  # before the lock is released: only then may the entry be dropped
                if self._kept.get(key) is entry:
                    self._bytes += size
            self._shrink(self._owner(next(iter(mine))), max_owned)

    def _shrink(self, owner: Hashable, max_owned: int | None) -> None:
        self._drop_first(self._kept, lambda: self._bytes > self._max_bytes())
        theirs = self._owned.get(owner)
        if theirs is not None and max_owned is not None:
            self._drop_first(theirs, lambda: len(theirs) > max_owned)

    def _drop_first(self, keys: "OrderedDict[K, Any]", too_many: Callable[[], bool]) -> None:
        loading: list[K] = []
        while len(keys) > len(loading) and too_many():
            key = next(iter(keys))
            if self._kept[key].loading is None:
                self._drop(key)
            else:
                loading.append(key)
                keys.move_to_end(key)

    def _drop(self, key: K) -> None:
        entry, owner = self._kept.pop(key), self._owner(key)
        self._bytes -= entry.size
        theirs = self._owned[owner]
        del theirs[key]
        if not theirs:
            del self._owned[owner]
            self.hits.pop(owner, None)
            self.misses.pop(owner, None)

    def _drop_all_of(self, owner: Hashable) -> None:
        for key in list(self._owned.get(owner, ())):
            self._drop(key)

    @contextmanager
    def _locked(self) -> Iterator[None]:
        self._sweep()
        with self._lock:
            yield
        self._sweep()

    def _sweep(self) -> None:
        """Drop what finalizers have named. If another thread holds the lock, it does so when it releases the lock."""
        while self._gone and self._lock.acquire(blocking=False):
            try:
                self._drop_all_of(self._gone.popleft())
            except IndexError:  # another thread was faster
                pass
            finally:
                self._lock.release()


class _Entry(Generic[V]):
    """A value, or a value that a thread loads."""

    __slots__ = ("loading", "size", "value")

    def __init__(self) -> None:
        self.loading: Future[V] | None = Future()
        self.size = 0
        self.value: V | None = None

    def put(self, value: V, size: int) -> None:
        loading, self.value, self.size = self.loading, value, size
        self.loading = None
        if loading is not None:
            loading.set_result(value)

    def fail(self, error: BaseException) -> None:
        if self.loading is not None:
            self.loading.set_exception(error)

    def get(self) -> V:
        loading = self.loading  # read once, because the thread that loads resets it
        return self.value if loading is None else loading.result()  # type: ignore[return-value]  # not None once loaded


class _Arguments:
    """Arguments of a call, which are hashed once."""

    __slots__ = ("_hash", "values")

    def __init__(self, values: tuple[Any, ...]) -> None:
        self.values, self._hash = values, hash(values)

    def __hash__(self) -> int:
        return self._hash

    def __eq__(self, other: object) -> bool:
        return isinstance(other, _Arguments) and self.values == other.values


class Remembered(Generic[V]):
    """A function that caches its answers, up to a number of bytes."""

    def __init__(self, function: Callable[..., V], max_bytes: int, sizeof: Callable[..., int]) -> None:
        self.answers: ByteLRU[_Arguments, V] = ByteLRU(
            lambda: max_bytes, lambda key, value: sizeof(key.values, value), lambda _: None
        )
        self._function = function
        update_wrapper(self, function)

    def __call__(self, *arguments: Any) -> V:
        (found,) = self.answers.get_all([_Arguments(arguments)], lambda _: [self._function(*arguments)])
        return found

    def cache_clear(self) -> None:
        """Drop all answers."""
        self.answers.clear()


def remembered(max_bytes: int, sizeof: Callable[..., int]) -> Callable[[Callable[..., V]], Remembered[V]]:
    """Let a function cache its answers. ``sizeof`` returns the bytes of the arguments (a tuple) and the answer."""
    return lambda function: Remembered(function, max_bytes, sizeof)


def bytes_of_array(values: np.typing.NDArray[Any]) -> int:
    """Return the bytes that an array keeps in memory: its whole buffer, and the texts that it refers to."""
    buffer: Any = values
    while isinstance(buffer, np.ndarray) and buffer.base is not None:
        buffer = buffer.base
    size = max(values.nbytes, getattr(buffer, "nbytes", 0))
    if values.dtype == object:
        return size + sum(map(sys.getsizeof, values.flat)) + _ALLOCATION_BYTES * values.size
    if isinstance(values.dtype, np.dtypes.StringDType):
        return size + sum(len(text) for text in values.flat if isinstance(text, str)) * _CHARACTER_BYTES
    return size


_CHARACTER_BYTES = 4  # upper bound for UTF-8
_ALLOCATION_BYTES = 16  # upper bound on what an object takes beside its own size
