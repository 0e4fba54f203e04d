"""Shards and chunks from stores that are not folders: as few requests as possible, and the indexes of shards, cached."""

import asyncio
import random
from collections import OrderedDict, deque
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

from zarr.abc.store import ByteRequest, RangeByteRequest, SuffixByteRequest
from zarr.core.buffer import Buffer, BufferPrototype
from zarr.storage import StorePath

from rainbear_dask.chunks.sharding import IndexForm
from rainbear_dask.resources.cache import when_gone
from rainbear_dask.resources.limits import TooLargeError, check_size
from rainbear_dask.storage.requests import FIRST_WAIT, SHORT_TRIES, FetchError, coalesced, get, get_span, span_bytes

INDEX_BYTES = 2**25
"""Indexes of shards that a process keeps."""


def forget(opening_id: str, path: str) -> None:
    """Drop the indexes of an array's shards."""
    _indexes.forget(opening_id, path)


async def fetch_chunk(
    where: StorePath, opening_id: str, form: IndexForm | None, touched: Sequence[range], limit: int
) -> "FetchedChunk":
    """Ask for an object, or in few requests for as much of a shard as is wanted.

    Parameters
    ----------
    where : zarr.storage.StorePath
        The object.
    opening_id : str
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
            return FetchedChunk({} if buffer is None else {0: buffer})
        except TooLargeError:
            if form is None:
                raise  # of a shard, what is between its chunks need not be read
    index = await _indexes.get(opening_id, where, form)
    if index is None:
        return FetchedChunk({})
    spans = (form.span(index.spans, place) for place in product(*touched))
    wanted = sorted({span for span in spans if span is not None and span[0] < span[1]})
    runs = list(coalesced(wanted))
    if span_bytes(runs) > limit:  # what lies between them is no other chunks
        runs = list(coalesced(wanted, max_gap=0))
        check_size(span_bytes(runs), limit, "what the index of the shard names")
    buffers = await asyncio.gather(*(get_span(where, *run) for run in runs))
    return FetchedChunk(
        {start: part for (start, _), part in zip(runs, buffers, strict=True)}, index, at_start=form.at_start
    )


@dataclass(frozen=True)
class ShardIndex:
    """Where the chunks of a shard are: as it is stored, and start and length by place in the shard."""

    raw: Buffer
    spans: Any


class FetchedChunk:
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


class _Indexes:
    """Indexes of shards, each asked for once, up to `INDEX_BYTES`."""

    def __init__(self) -> None:
        self._kept: OrderedDict[tuple[str, str], asyncio.Future[ShardIndex | None]] = OrderedDict()
        self._sizes: dict[tuple[str, str], int] = {}
        self._gone: deque[str] = deque()
        self.bytes = 0

    def forget_soon(self, opening_id: str) -> None:
        """Drop those of an opening at the next question: a finalizer may be called in the middle of anything."""
        if self._kept:
            self._gone.append(opening_id)

    async def get(self, opening_id: str, where: StorePath, form: IndexForm) -> ShardIndex | None:
        """Index of a shard; None where there is no shard."""
        self._drop_gone()
        key = opening_id, where.path
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

    def forget(self, opening_id: str, path: str) -> None:
        """Drop those of one array."""
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


_INDEX_OVERHEAD = 4096  # of a future, and of the places in two dictionaries

_indexes = _Indexes()
when_gone(_indexes.forget_soon)


async def _read_index(where: StorePath, form: IndexForm) -> ShardIndex | None:
    form.check_size()
    part = RangeByteRequest(0, form.size) if form.at_start else SuffixByteRequest(form.size)
    raw: Buffer | None = None
    for attempt in range(SHORT_TRIES):
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
