"""Reader of arrays in object stores: it fetches chunks together, and decodes each on the calling thread on arrival."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from functools import partial
from queue import SimpleQueue
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr.abc.store import Store
from zarr.storage import StorePath

from rainbear_dask.chunks.array import ChunkedArray, StoredPart, chunked_array
from rainbear_dask.chunks.errors import locate_error
from rainbear_dask.chunks.fetch import FetchedChunk, fetch_chunk, gather, running
from rainbear_dask.chunks.sharding import beyond_end
from rainbear_dask.codecs.decompress import Buffer
from rainbear_dask.indexing.chunk_grid import Region
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.resources.buffers import Scratch, Slots, borrow_array
from rainbear_dask.storage.requests import check_array_exists

_Arrival = tuple[int, FetchedChunk] | BaseException | None


class RemoteReader:
    """Reader of arrays of plain numbers in a store that makes requests to a service.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store.
    group : str
        Path of the group in the store.
    opening_id : str
        Name of the opening of the store, under which indexes of shards are cached.
    """

    def __init__(self, store: Store, group: str, opening_id: str) -> None:
        self._store, self._group, self._opening_id = store, group, opening_id

    def open(self, meta: ArrayMeta) -> ChunkedArray | None:
        """Return an array that is decoded without zarr; None if only zarr can decode it."""
        return chunked_array(self._group, meta)

    @contextmanager
    def begin(self, requests: Sequence[tuple[ChunkedArray, Region]]) -> Iterator[Callable[[], list[npt.NDArray[Any]]]]:
        """Begin to fetch regions; the callable decodes chunks as they arrive, until all are decoded."""
        found = [borrow_array([stop - start for start, stop in region], array.meta.dtype) for array, region in requests]
        wanted = _parts(requests, found)

        def finish() -> list[npt.NDArray[Any]]:
            scratch = Scratch()
            for _ in wanted:
                number, fetched = _next(arrivals)
                _decode(wanted[number], fetched, scratch)
            _next(arrivals)  # the end, or the error of a missing array
            return found

        with self._fetching(wanted) as arrivals:
            yield finish

    @contextmanager
    def stream(
        self, groups: Sequence[Sequence[tuple[ChunkedArray, Region]]]
    ) -> Iterator[Iterator[list[npt.NDArray[Any]]]]:
        """Fetch all groups together, and decode one after the other into buffers that the next group reuses."""
        empty = [[np.empty((0,) * len(region), array.meta.dtype) for array, region in group] for group in groups]
        parts = [_parts(group, none) for group, none in zip(groups, empty, strict=True)]

        def decode() -> Iterator[list[npt.NDArray[Any]]]:
            scratch, slots, waiting, first = Scratch(), Slots(), dict[int, FetchedChunk](), 0
            for step, group in enumerate(groups, 1):
                found = slots.arrays([([stop - start for start, stop in region], a.meta.dtype) for a, region in group])
                for number, part in enumerate(_parts(group, found), first):
                    while number not in waiting:
                        arrived, fetched = _next(arrivals)
                        waiting[arrived] = fetched
                    _decode(part, waiting.pop(number), scratch)
                first += len(parts[step - 1])
                if step == len(groups):
                    _next(arrivals)  # the end, or the error of a missing array
                yield found

        with self._fetching([part for some in parts for part in some]) as arrivals:
            yield decode()

    @contextmanager
    def _fetching(self, wanted: Sequence[StoredPart]) -> Iterator["SimpleQueue[_Arrival]"]:
        """Fetch parts while the context lasts. The queue yields their numbers and bytes, and at the end None or an error."""
        arrivals = SimpleQueue[_Arrival]()
        if not wanted:
            arrivals.put(None)
            yield arrivals
            return
        with running(self._fetch_all(wanted, arrivals.put)):
            yield arrivals

    async def _fetch_all(self, wanted: Sequence[StoredPart], put: Callable[[_Arrival], None]) -> None:
        missing: dict[str, StoredPart] = {}  # one of each array

        async def fetch_one(number: int, part: StoredPart) -> None:
            with locate_error(part.array, part.index):
                fetched = await _fetch(part, self._store, self._opening_id)
            if fetched.is_missing:
                missing[part.array.path] = part
            put((number, fetched))

        try:
            await gather(fetch_one(*each) for each in enumerate(wanted))
            for part in missing.values():
                with locate_error(part.array, part.index):
                    await check_array_exists(self._store, part.key, part.array.documents)
        except BaseException as err:
            put(err)
            if not isinstance(err, Exception):
                raise
        else:
            put(None)


def _parts(requests: Sequence[tuple[ChunkedArray, Region]], found: Sequence[npt.NDArray[Any]]) -> list[StoredPart]:
    """Return the stored objects that some regions touch, each with its destination."""
    return [
        StoredPart(array, index, inside, out[place])
        for (array, region), out in zip(requests, found, strict=True)
        for index, inside, place in array.stored.iter_chunks(region)
    ]


def _next(arrivals: "SimpleQueue[_Arrival]") -> tuple[int, FetchedChunk]:
    """Wait for the next arrival; raise it if it is an error."""
    arrival = arrivals.get()
    if isinstance(arrival, BaseException):
        raise arrival
    return arrival  # type: ignore[return-value]  # the end is not unpacked


async def _fetch(part: StoredPart, store: Store, opening_id: str) -> FetchedChunk:
    """Fetch a chunk, or the wanted chunks of a shard."""
    array = part.array
    touched = array.meta.grid.touched(part.inside)
    return await fetch_chunk(StorePath(store, part.key), opening_id, array.index_form, touched, array.stored_limit)


def _decode(part: StoredPart, fetched: FetchedChunk, scratch: Scratch) -> None:
    with locate_error(part.array, part.index):
        _decode_part(part, fetched, scratch)


def _decode_part(part: StoredPart, fetched: FetchedChunk, scratch: Scratch) -> None:
    """Decode the wanted part of a chunk or a shard to its destination."""
    array = part.array
    if fetched.is_missing:
        part.out[...] = array.fill_value
    elif array.index_form is None:
        array.decode(_bytes(fetched.parts[0]), part.inside, part.out, scratch)
    else:
        index = fetched.index
        spans = array.index_form.of_shard(_bytes(fetched.parts[0])) if index is None else index.spans
        array.decode_shard(spans, partial(_read, fetched), part.inside, part.out, scratch)


def _read(fetched: FetchedChunk, start: int, length: int) -> Buffer:
    part = _bytes(fetched.part(start, start + length))
    if len(part) < length:
        raise beyond_end(start, start + length, max(begin + len(one) for begin, one in fetched.parts.items()))
    return part


def _bytes(buffer: Any) -> Buffer:
    found: Buffer = buffer.as_numpy_array()
    return found
