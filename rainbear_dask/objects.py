"""Arrays in stores that are not folders: chunks are fetched side by side, and decoded on the thread that asks as they come."""

import asyncio
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from math import prod
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import StorePath

from rainbear_dask.chunks import ChunkedArray, Memory, ObjectError, cut, kept_memory
from rainbear_dask.decoders import Buffer
from rainbear_dask.fetch import FetchError, check_is_there, get, get_of_shard
from rainbear_dask.metadata import Region


@contextmanager
def fetched(
    store: Store, opened: str, requests: Sequence[tuple[ChunkedArray, Region]]
) -> Iterator[Callable[[], list[npt.NDArray[Any]]]]:
    """Begin to fetch regions of arrays, all at the same time; what is not wanted after all is given up.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where they are.
    opened : str
        Which opening of the store it is.
    requests : sequence of (ChunkedArray, Region)
        What to read.

    Yields
    ------
    callable
        Decodes what comes until all is there, and gives values of each region's shape, in C order. It raises `ObjectError`
        if a chunk cannot be fetched or decoded.
    """
    found = [np.empty([stop - start for start, stop in region], array.meta.dtype) for array, region in requests]
    wanted = [
        _Object(array, index, inside, out[place])
        for (array, region), out in zip(requests, found, strict=True)
        if out.size
        for index, inside, place in cut(region, array.stored)
    ]
    arrived = SimpleQueue[_Arrived | BaseException | None]()

    async def begin() -> asyncio.Task[None]:
        return asyncio.ensure_future(_fetch(store, opened, wanted, arrived.put))

    def finish() -> list[npt.NDArray[Any]]:
        with kept_memory() as memory:
            while (one := arrived.get()) is not None:
                if isinstance(one, BaseException):
                    raise one
                one.decode(memory)
        return found

    fetching = sync(begin()) if wanted else None
    try:
        yield finish if wanted else lambda: found
    finally:
        if fetching is not None and not fetching.done():
            fetching.get_loop().call_soon_threadsafe(fetching.cancel)


@dataclass(frozen=True, slots=True)
class _Object:
    """What is wanted of one stored object, a chunk or a part of a shard, and where it goes."""

    array: ChunkedArray
    index: tuple[int, ...]
    inside: Region
    out: npt.NDArray[Any]

    @property
    def key(self) -> str:
        return self.array.key(self.index)

    async def fetch(self, store: Store, opened: str) -> "_Arrived":
        """Ask for as much of it as is wanted."""
        form = self.array.index_form
        if form is not None:
            sizes = self.array.meta.chunks
            touched = [range(a // size, -(-b // size)) for (a, b), size in zip(self.inside, sizes, strict=True)]
            if prod(map(len, touched)) < prod(form.counts):
                found = await get_of_shard(StorePath(store, self.key), opened, form, touched)
                if found is None:
                    return _Arrived(self, {})
                index, parts = found
                return _Arrived(self, {start: _bytes(part) for start, part in parts.items()}, index.spans)
        buffer = await get(store, self.key)
        return _Arrived(self, {} if buffer is None else {0: _bytes(buffer)})


@dataclass(frozen=True, slots=True)
class _Arrived:
    """An object, or parts of it by where they start, and in a shard where its chunks are; no part where there is no object."""

    wanted: _Object
    parts: Mapping[int, Buffer]
    spans: npt.NDArray[np.uint64] | None = None

    @property
    def is_missing(self) -> bool:
        return self.spans is None and not self.parts

    def decode(self, memory: Memory) -> None:
        """Decode what is wanted to where it goes."""
        array, inside, out = self.wanted.array, self.wanted.inside, self.wanted.out
        try:
            if self.is_missing:
                out[...] = array.fill_value
            elif array.index_form is None:
                array.decode(self.parts[0], inside, out, memory)
            else:
                spans = self.spans if self.spans is not None else array.index_form.of_shard(self.parts[0])
                array.decode_shard(spans, self._part, inside, out, memory)
        except Exception as err:
            raise ObjectError(array, self.wanted.index, err) from err

    def _part(self, start: int, length: int) -> Buffer:
        first = max(begin for begin in self.parts if begin <= start)
        part = self.parts[first][start - first : start - first + length]
        if len(part) < length:
            raise OSError(
                f"bytes {start} to {start + length} are in the index of a shard of {len(self.parts[first])} bytes"
            )
        return part


def _bytes(buffer: Any) -> Buffer:
    found: Buffer = buffer.as_numpy_array()
    return found


async def _fetch(
    store: Store, opened: str, wanted: Sequence[_Object], put: Callable[[_Arrived | BaseException | None], None]
) -> None:
    """Hand on what was fetched, as it comes; then None, or what went wrong."""
    missing: dict[str, _Object] = {}  # of each array one

    async def fetch_one(one: _Object) -> None:
        try:
            arrived = await one.fetch(store, opened)
        except Exception as err:
            raise ObjectError(one.array, one.index, err) from err
        if arrived.is_missing:
            missing[one.array.path] = one
        put(arrived)

    tasks = [asyncio.ensure_future(fetch_one(one)) for one in wanted]
    try:
        await asyncio.gather(*tasks)
        for one in missing.values():
            try:
                await check_is_there(store, one.key, one.array.documents)
            except FetchError as err:
                raise ObjectError(one.array, one.index, err) from err
    except BaseException as err:
        for task in tasks:
            task.cancel()
        put(err)
        if not isinstance(err, Exception):
            raise
    else:
        put(None)
