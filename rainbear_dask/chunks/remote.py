"""Arrays in stores that are not folders: chunks are fetched side by side, and decoded on the thread that asks as they come."""

import asyncio
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy.typing as npt
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import StorePath

from rainbear_dask.chunks.array import ChunkedArray
from rainbear_dask.chunks.errors import locate_error
from rainbear_dask.chunks.fetch import FetchedChunk, fetch_chunk
from rainbear_dask.codecs.decompress import Buffer
from rainbear_dask.indexing.chunk_grid import Region
from rainbear_dask.resources.buffers import Scratch, borrow_array
from rainbear_dask.storage.requests import check_is_there


@contextmanager
def fetch_regions(
    store: Store, opening_id: str, requests: Sequence[tuple[ChunkedArray, Region]]
) -> Iterator[Callable[[], list[npt.NDArray[Any]]]]:
    """Begin to fetch regions of arrays, all at the same time; what is not wanted after all is given up.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where they are.
    opening_id : str
        Which opening of the store it is.
    requests : sequence of (ChunkedArray, Region)
        What to read.

    Yields
    ------
    callable
        Decodes what comes until all is there, and gives values of each region's shape, in C order. It raises `ObjectError`
        if a chunk cannot be fetched or decoded.
    """
    found = [borrow_array([stop - start for start, stop in region], array.meta.dtype) for array, region in requests]
    wanted = [
        _Object(array, index, inside, out[place])
        for (array, region), out in zip(requests, found, strict=True)
        if out.size
        for index, inside, place in array.stored.iter_chunks(region)
    ]
    arrived = SimpleQueue["_Answer"]()

    async def begin() -> asyncio.Task[None]:
        return asyncio.ensure_future(_fetch(store, opening_id, wanted, arrived.put))

    def finish() -> list[npt.NDArray[Any]]:
        scratch = Scratch()
        while (answer := arrived.get()) is not None:
            if isinstance(answer, BaseException):
                raise answer
            one, held = answer
            with locate_error(one.array, one.index):
                one.decode(held, scratch)
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

    async def fetch(self, store: Store, opening_id: str) -> FetchedChunk:
        """Ask for as much of it as is wanted."""
        touched = self.array.meta.grid.touched(self.inside)
        return await fetch_chunk(
            StorePath(store, self.key), opening_id, self.array.index_form, touched, self.array.stored_limit
        )

    def decode(self, held: FetchedChunk, scratch: Scratch) -> None:
        """Decode what is wanted to where it goes."""
        array = self.array
        if held.is_missing:
            self.out[...] = array.fill_value
        elif array.index_form is None:
            array.decode(_bytes(held.parts[0]), self.inside, self.out, scratch)
        else:
            index = held.index
            spans = array.index_form.of_shard(_bytes(held.parts[0])) if index is None else index.spans
            array.decode_shard(spans, partial(_part, held), self.inside, self.out, scratch)


def _part(held: FetchedChunk, start: int, length: int) -> Buffer:
    part = _bytes(held.part(start, start + length))
    if len(part) < length:
        size = max(begin + len(one) for begin, one in held.parts.items())
        raise OSError(f"bytes {start} to {start + length} are in the index of a shard of {size} bytes")
    return part


def _bytes(buffer: Any) -> Buffer:
    found: Buffer = buffer.as_numpy_array()
    return found


async def _fetch(store: Store, opening_id: str, wanted: Sequence[_Object], put: Callable[["_Answer"], None]) -> None:
    """Hand on what was fetched, as it comes; then None, or what went wrong."""
    missing: dict[str, _Object] = {}  # of each array one

    async def fetch_one(one: _Object) -> None:
        with locate_error(one.array, one.index):
            held = await one.fetch(store, opening_id)
        if held.is_missing:
            missing[one.array.path] = one
        put((one, held))

    tasks = [asyncio.ensure_future(fetch_one(one)) for one in wanted]
    try:
        await asyncio.gather(*tasks)
        for one in missing.values():
            with locate_error(one.array, one.index):
                await check_is_there(store, one.key, one.array.documents)
    except BaseException as err:
        for task in tasks:
            task.cancel()
        put(err)
        if not isinstance(err, Exception):
            raise
    else:
        put(None)


_Answer = tuple[_Object, FetchedChunk] | BaseException | None
