"""Bytes from stores that are not folders: many requests in flight, few in all, none waited for without end."""

import asyncio
import random
import re
from collections import OrderedDict, deque
from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, TypeAlias
from weakref import WeakKeyDictionary

from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import ObjectStore, StorePath

from rainbear_dask import configuration
from rainbear_dask.cache import when_gone
from rainbear_dask.limits import DOCUMENT_BYTES, TooLargeError, check_size
from rainbear_dask.localfiles import SpecialFileError
from rainbear_dask.responses import get_at_most
from rainbear_dask.shards import IndexForm

REQUEST_SECONDS = 600
"""When a request is given up that whoever makes it has not given up: the last resort, beyond the time-outs of its library."""

MAX_GAP = 2**19
"""Bytes between two inner chunks that are read along, as they take less time than a request of their own."""

MAX_RANGE = 2**24
"""Bytes of inner chunks that are read as one; more come faster side by side."""

TRIES = 5
"""Requests for one object, where the library behind the store makes but one; each wait is up to twice as long as the last."""

FIRST_WAIT = 0.4
"""Seconds before the second of them, at most."""

_SHORT_TRIES = 3
"""Requests for a part of an object that comes too short: the object may be as short."""

INDEX_BYTES = 2**25
"""Indexes of shards that a process keeps."""

Span: TypeAlias = tuple[int, int]


class FetchError(Exception):
    """A request that failed, as its cause says, for the object ``key``; not one whose answer could not be decoded."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


async def get(
    store: Store, key: str, byte_range: ByteRequest | None = None, *, limit: int = DOCUMENT_BYTES
) -> Buffer | None:
    """Ask for an object, or a part of one; None where there is none.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where it is.
    key : str
        Which it is.
    byte_range : RangeByteRequest or SuffixByteRequest, optional
        Which part.
    limit : int
        Most bytes of a whole object.

    Raises
    ------
    FetchError
        If no answer can be had, after whatever retries the store makes; the cause says why.
    TooLargeError
        If the object has more bytes.
    SpecialFileError
        If a folder, pipe, socket or device is where the object should be.
    """
    async with _slots():
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await _get_patiently(store, key, byte_range, limit)
        except (TooLargeError, SpecialFileError):
            raise
        except TimeoutError as err:
            raise FetchError(key) from (
                err if str(err) else TimeoutError(f"no answer within {REQUEST_SECONDS} seconds")
            )
        except Exception as err:
            raise FetchError(key) from err


async def _get_patiently(store: Store, key: str, byte_range: ByteRequest | None, limit: int) -> Buffer | None:
    """Ask again, where the library does not, after what may pass.

    obstore repeats requests, and not those whose answers were cut short after they had begun; neither is repeated for
    virtual chunks of Icechunk, and by fsspec over HTTP.
    """
    for attempt in range(TRIES - 1):
        try:
            return await get_at_most(store, key, byte_range, limit)
        except (TooLargeError, SpecialFileError):
            raise
        except Exception as err:
            passing = _CUT_SHORT if isinstance(store, ObjectStore) else _PASSING
            if not any(passing.search(f"{type(one).__name__} {one}") for one in (err, err.__cause__)):
                raise
            await asyncio.sleep(random.uniform(0, FIRST_WAIT * 2**attempt))  # noqa: S311  so that not all ask at once
    return await get_at_most(store, key, byte_range, limit)


_CUT = (
    r"response body error|error decoding response body|IncompleteBody|IncompleteMessage|UnexpectedEof|IncompleteRead|"
    r"ShortResponse"
)
_CUT_SHORT = re.compile(_CUT)
_PASSING = re.compile(
    r"\b(?:429|500|502|503|504)\b|SlowDown|TooManyRequests|InternalError|Unavailable|Disconnected|ConnectionReset|"
    f"ConnectionError|PayloadError|dispatch failure|{_CUT}"
)


def _slots() -> asyncio.Semaphore:
    """Places for the requests of this process that are in flight."""
    loop, most = asyncio.get_running_loop(), configuration.requests_in_flight()
    if _made.get(loop, (0, None))[0] != most:
        _made[loop] = most, asyncio.Semaphore(most)
    return _made[loop][1]


_made: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, asyncio.Semaphore]] = WeakKeyDictionary()


def forget(opened: str, path: str) -> None:
    """Drop the indexes of an array's shards."""
    _indexes.forget(opened, path)


async def get_wanted(
    where: StorePath, opened: str, form: IndexForm | None, touched: Sequence[range], limit: int
) -> "Held":
    """Ask for an object, or in few requests for as much of a shard as is wanted.

    Parameters
    ----------
    where : zarr.storage.StorePath
        The object.
    opened : str
        Which opening of the store it is of: indexes of shards are kept under it.
    form : IndexForm or None
        How its index is stored, if it is a shard.
    touched : sequence of range
        Which chunks of a shard are wanted, along each dimension.
    limit : int
        Most bytes of the object that are read at once.

    Returns
    -------
    Held
        What is there of it.

    Raises
    ------
    FetchError
        If an answer cannot be had, or is shorter than the index says.
    TooLargeError
        If the object, or a chunk in the index of a shard, has more bytes than its array declares.
    """
    if form is None or prod(map(len, touched)) == prod(form.counts):
        try:
            buffer = await get(where.store, where.path, limit=limit)
            if form is not None and buffer is not None and len(buffer) < form.size:
                raise FetchError(where.path) from form.short(len(buffer))
            return Held({} if buffer is None else {0: buffer})
        except TooLargeError:
            if form is None:
                raise  # of a shard, what is between its chunks need not be read
    index = await _indexes.get(opened, where, form)
    if index is None:
        return Held({})
    spans = (form.span(index.spans, place) for place in product(*touched))
    wanted = sorted({span for span in spans if span is not None and span[0] < span[1]})
    runs = list(coalesced(wanted))
    if _size(runs) > limit:  # what lies between them is no other chunks
        runs = list(coalesced(wanted, max_gap=0))
        check_size(_size(runs), limit, "what the index of the shard names")
    buffers = await asyncio.gather(*(_get_run(where, *run) for run in runs))
    return Held({start: part for (start, _), part in zip(runs, buffers, strict=True)}, index, at_start=form.at_start)


async def _get_run(where: StorePath, start: int, stop: int) -> Buffer:
    """Ask for bytes of a shard that its index names, again if fewer come: an answer may be cut short."""
    buffer: Buffer | None = None
    for attempt in range(_SHORT_TRIES):
        if attempt:
            await asyncio.sleep(random.uniform(0, FIRST_WAIT * 2**attempt))  # noqa: S311
        buffer = await get(where.store, where.path, RangeByteRequest(start, stop), limit=stop - start)
        if buffer is None or len(buffer) == stop - start:
            break
    if buffer is None or len(buffer) != stop - start:
        found = "is gone" if buffer is None else f"ends {stop - start - len(buffer)} bytes too early"
        why = OSError(f"bytes {start} to {stop} of the shard are in its index, but the object {found}")
        raise FetchError(where.path) from why
    return buffer


async def check_is_there(store: Store, chunk: str, documents: Sequence[str]) -> None:
    """Tell a chunk that was never written from one that was deleted with all of its store.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where there is no such chunk.
    chunk : str
        Its key.
    documents : sequence of str
        Keys of which one is there as long as its array is; without any nothing is asked.

    Raises
    ------
    FetchError
        If none is there.
    """
    for key in documents:
        if await get(store, key) is not None:
            return
    if documents:
        raise FetchError(chunk) from FileNotFoundError("the store was deleted since it was opened")


@dataclass(frozen=True)
class ShardIndex:
    """Where the chunks of a shard are: as it is stored, and start and length by place in the shard."""

    raw: Buffer
    spans: Any


class Held:
    """What was asked for of one object, which zarr may ask for as if it were a store's.

    Parameters
    ----------
    parts : mapping of int to Buffer
        Bytes of it, by where they start. None where there is no object, or a shard of which no chunk that is wanted was
        written.
    index : ShardIndex, optional
        Of a shard, if it is not held whole.
    at_start : bool
        Whether that is at the start of the shard.
    """

    def __init__(self, parts: Mapping[int, Buffer], index: ShardIndex | None = None, *, at_start: bool = False) -> None:
        self.parts, self.index, self.at_start = parts, index, at_start

    @property
    def is_missing(self) -> bool:
        """Whether there is no object."""
        return self.index is None and not self.parts

    def part(self, start: int, stop: int) -> Buffer:
        """Bytes of it, which lie in one of the parts."""
        at = max((begin for begin in self.parts if begin <= start), default=None)
        if at is None:
            raise OSError(f"bytes {start} to {stop} are in the index of a shard that does not have them")
        return self.parts[at][start - at : stop - at]

    async def get(self, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Give a part; None where there is no object."""
        if self.is_missing:
            return None
        if byte_range is None:
            return prototype.buffer.from_buffer(self.parts[0])
        if isinstance(byte_range, SuffixByteRequest):
            if self.index is not None:
                return prototype.buffer.from_buffer(self.index.raw)
            return prototype.buffer.from_buffer(self.parts[0][max(len(self.parts[0]) - byte_range.suffix, 0) :])
        start, stop = byte_range.start, byte_range.end  # type: ignore[union-attr]  # zarr asks for no other
        if self.index is not None and self.at_start and stop <= len(self.index.raw):
            return prototype.buffer.from_buffer(self.index.raw[start:stop])
        return prototype.buffer.from_buffer(self.part(start, stop))


def _size(spans: Iterable[Span]) -> int:
    return sum(stop - start for start, stop in spans)


def coalesced(spans: Iterable[Span], max_gap: int = MAX_GAP) -> Iterator[Span]:
    """Put together byte ranges, sorted, that lie so close that one request for both takes less time than two."""
    run: Span | None = None
    for start, stop in spans:
        if run is not None and start - run[1] <= max_gap and max(stop, run[1]) - run[0] <= MAX_RANGE:
            run = run[0], max(stop, run[1])
        else:
            if run is not None:
                yield run
            run = start, stop
    if run is not None:
        yield run


class _Indexes:
    """Indexes of shards, each asked for once, up to `INDEX_BYTES`."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], asyncio.Future[ShardIndex | None]] = OrderedDict()
        self._sizes: dict[tuple[str, str], int] = {}
        self._gone: deque[str] = deque()
        self.bytes = 0

    def forget_soon(self, opened: str) -> None:
        """Drop those of an opening at the next question: a finalizer may be called in the middle of anything."""
        if self._kept:
            self._gone.append(opened)

    async def get(self, opened: str, where: StorePath, form: IndexForm) -> ShardIndex | None:
        """Index of a shard; None where there is no shard."""
        self._drop_gone()
        key = opened, where.path
        future = self._kept.get(key)
        if future is None or future.get_loop() is not asyncio.get_running_loop():
            self._drop(key)
            future = self._kept[key] = asyncio.ensure_future(_read_index(where, form))
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # nobody may wait any more
            self._sizes[key] = 2 * form.size + 4 * len(where.path) + _INDEX_OVERHEAD
            self.bytes += self._sizes[key]
        self._kept.move_to_end(key)
        try:
            index = await asyncio.shield(future)  # others may wait for it
        except BaseException:
            self._drop(key)
            raise
        while self.bytes > INDEX_BYTES and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))
        return index

    def forget(self, opened: str, path: str) -> None:
        """Drop those of one array."""
        for key in [key for key in list(self._kept) if key[0] == opened and key[1].startswith(f"{path}/")]:
            self._drop(key)

    def _drop_gone(self) -> None:
        gone = set()
        while self._gone:
            gone.add(self._gone.popleft())
        for key in [key for key in list(self._kept) if key[0] in gone] if gone else ():
            self._drop(key)

    def _drop(self, key: tuple[str, str]) -> None:
        self._kept.pop(key, None)
        self.bytes -= self._sizes.pop(key, 0)


_INDEX_OVERHEAD = 4096  # of a future, and of the places in two dictionaries

_indexes = _Indexes()
when_gone(_indexes.forget_soon)


async def _read_index(where: StorePath, form: IndexForm) -> ShardIndex | None:
    form.check_size()
    part = RangeByteRequest(0, form.size) if form.at_start else SuffixByteRequest(form.size)
    raw: Buffer | None = None
    for attempt in range(_SHORT_TRIES):
        if attempt:
            await asyncio.sleep(random.uniform(0, FIRST_WAIT * 2**attempt))  # noqa: S311
        raw = await get(where.store, where.path, part, limit=form.size)
        if raw is None or len(raw) == form.size:
            break
    if raw is None:
        return None
    try:
        return ShardIndex(raw, form.spans(raw.to_bytes()))
    except OSError as err:
        raise FetchError(where.path) from err
