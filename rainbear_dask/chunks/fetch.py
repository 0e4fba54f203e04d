"""Fetch chunks and parts of shards from stores with few requests, and cache the indexes of shards."""

import asyncio
from collections import OrderedDict, deque
from collections.abc import Awaitable, Collection, Coroutine, Iterable, Iterator, Mapping
from contextlib import contextmanager
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any, TypeVar

from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.storage import StorePath

from rainbear_dask.chunks.sharding import IndexForm
from rainbear_dask.resources.limits import TooLargeError, check_size
from rainbear_dask.resources.openings import when_gone
from rainbear_dask.storage.requests import FetchError, coalesced, get, get_part, get_span, span_bytes
from rainbear_dask.storage.zarr_internals import Buffer, BufferPrototype, sync

T = TypeVar("T")

MAX_CACHED_INDEX_BYTES = 2**25
"""Bytes of shard indexes that a process caches."""

_INDEX_OVERHEAD_BYTES = 4096
"""Bytes of a cached index beside its content: a future, and the entries of two dictionaries."""


@contextmanager
def running(job: Coroutine[Any, Any, T]) -> Iterator[asyncio.Task[T]]:
    """Run a job on zarr's event loop; the end of the context cancels it."""

    async def start() -> asyncio.Task[T]:
        task = asyncio.ensure_future(job)
        task.add_done_callback(lambda done: done.cancelled() or done.exception())  # the caller may have left
        return task

    task = sync(start())
    try:
        yield task
    finally:
        if not task.done():
            task.get_loop().call_soon_threadsafe(task.cancel)


async def gather(jobs: Iterable[Awaitable[T]]) -> list[T]:
    """Await jobs together, and cancel all others if one fails."""
    tasks = [asyncio.ensure_future(job) for job in jobs]
    try:
        return await asyncio.gather(*tasks)
    except BaseException:
        for task in tasks:
            task.cancel()
        raise


def forget_indexes(opening_id: str, path: str) -> None:
    """Drop the cached indexes of an array's shards."""
    _indexes.forget(opening_id, path)


async def fetch_chunk(
    where: StorePath, opening_id: str, form: IndexForm | None, places: Collection[tuple[int, ...]], limit: int
) -> "FetchedChunk":
    """Fetch a chunk, or with few requests the wanted part of a shard.

    Parameters
    ----------
    where : zarr.storage.StorePath
        The object that holds it.
    opening_id : str
        Name of the opening of the store, under which indexes of shards are cached.
    form : IndexForm or None
        Layout of the index of a shard; None for a chunk.
    places : collection of tuple of int
        Wanted chunks of a shard; empty for the whole shard.
    limit : int
        Upper bound on the bytes of the object that are read together.

    Returns
    -------
    FetchedChunk
        The bytes that were fetched.

    Raises
    ------
    FetchError
        If a request fails, or a response is shorter than the index of the shard says.
    TooLargeError
        If the object, or a chunk in the index of a shard, has more bytes than its array declares.
    """
    if form is None or not places or len(places) == prod(form.counts):
        try:
            buffer = await get(where.store, where.path, limit=limit)
            if form is not None and buffer is not None and len(buffer) < form.size:
                raise FetchError(where.path) from form.short(len(buffer))
            return FetchedChunk({} if buffer is None else {0: buffer})
        except TooLargeError:
            if form is None:
                raise
            # a shard may hold unused bytes between its chunks, which need not be read
            places = places or list(product(*map(range, form.counts)))
    index = await _indexes.get(opening_id, where, form)
    if index is None:
        return FetchedChunk({})
    spans = (form.span(index.spans, place) for place in places)
    wanted = sorted({span for span in spans if span is not None and span[0] < span[1]})
    runs = list(coalesced(wanted))
    if span_bytes(runs) > limit:  # the gaps between the chunks hold something else
        runs = list(coalesced(wanted, max_gap=0))
        check_size(span_bytes(runs), limit, "the range in the index of the shard")
    buffers = await asyncio.gather(*(get_span(where, *run) for run in runs))
    return FetchedChunk(
        {start: part for (start, _), part in zip(runs, buffers, strict=True)}, index, at_start=form.at_start
    )


@dataclass(frozen=True)
class ShardIndex:
    """Index of a shard: as stored, and as start and length of each chunk by its place in the shard."""

    raw: Buffer
    spans: Any


class FetchedChunk:
    """Fetched bytes of one object, which zarr reads as if they were the object.

    Parameters
    ----------
    parts : mapping of int to Buffer
        Bytes by their position in the object. None if there is no object, or if no wanted chunk of a shard was
        written.
    index : ShardIndex, optional
        Index of a shard that was not fetched whole.
    at_start : bool
        Whether the index is at the start of the shard.
    """

    def __init__(self, parts: Mapping[int, Buffer], index: ShardIndex | None = None, *, at_start: bool = False) -> None:
        self.parts, self.index, self.at_start = parts, index, at_start

    @property
    def is_missing(self) -> bool:
        """Whether there is no object."""
        return self.index is None and not self.parts

    def part(self, start: int, stop: int) -> Buffer:
        """Return bytes from one of the parts."""
        at = max((begin for begin in self.parts if begin <= start), default=None)
        if at is None:
            raise OSError(f"bytes {start} to {stop} are in the index of a shard that does not have them")
        return self.parts[at][start - at : stop - at]

    async def get(self, prototype: BufferPrototype, byte_range: ByteRequest | None = None) -> Buffer | None:
        """Return a part in the form that zarr requests; None if there is no object."""
        if self.is_missing:
            return None
        if byte_range is None:
            return prototype.buffer.from_buffer(self.parts[0])
        if isinstance(byte_range, SuffixByteRequest):
            if self.index is not None:
                return prototype.buffer.from_buffer(self.index.raw)
            return prototype.buffer.from_buffer(self.parts[0][max(len(self.parts[0]) - byte_range.suffix, 0) :])
        start, stop = byte_range.start, byte_range.end  # type: ignore[union-attr]  # zarr asks for no other kind
        if self.index is not None and self.at_start and stop <= len(self.index.raw):
            return prototype.buffer.from_buffer(self.index.raw[start:stop])
        return prototype.buffer.from_buffer(self.part(start, stop))


class _Indexes:
    """Cache of shard indexes, up to `MAX_CACHED_INDEX_BYTES`; each index is requested once."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], asyncio.Future[ShardIndex | None]] = OrderedDict()
        self._sizes: dict[tuple[str, str], int] = {}
        self._gone: deque[str] = deque()
        self.bytes = 0

    def forget_soon(self, opening_id: str) -> None:
        """Drop the indexes of an opening before the next request: finalizers call this at any moment."""
        if self._kept:
            self._gone.append(opening_id)

    async def get(self, opening_id: str, where: StorePath, form: IndexForm) -> ShardIndex | None:
        """Return the index of a shard; None if there is no shard."""
        self._drop_gone()
        key = opening_id, where.path
        future = self._kept.get(key)
        if future is None or future.get_loop() is not asyncio.get_running_loop():
            self._drop(key)
            future = self._kept[key] = asyncio.ensure_future(_read_index(where, form))
            future.add_done_callback(lambda done: done.cancelled() or done.exception())  # all callers may have left
            self._sizes[key] = 2 * form.size + 4 * len(where.path) + _INDEX_OVERHEAD_BYTES
            self.bytes += self._sizes[key]
        self._kept.move_to_end(key)
        try:
            index = await asyncio.shield(future)  # other callers may wait for it
        except BaseException:
            self._drop(key)
            raise
        while self.bytes > MAX_CACHED_INDEX_BYTES and len(self._kept) > 1:
            self._drop(next(iter(self._kept)))
        return index

    def forget(self, opening_id: str, path: str) -> None:
        """Drop the indexes of one array."""
        for key in [key for key in list(self._kept) if key[0] == opening_id and key[1].startswith(f"{path}/")]:
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


_indexes = _Indexes()
when_gone(_indexes.forget_soon)


async def _read_index(where: StorePath, form: IndexForm) -> ShardIndex | None:
    form.check_size()
    part = RangeByteRequest(0, form.size) if form.at_start else SuffixByteRequest(form.size)
    raw = await get_part(where, part, form.size)
    if raw is None:
        return None
    try:
        return ShardIndex(raw, form.spans(raw.to_bytes()))
    except OSError as err:
        raise FetchError(where.path) from err
