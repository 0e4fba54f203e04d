"""Reader of arrays in object stores: it fetches chunks together, and decodes each on the calling thread on arrival."""

from collections import Counter
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from functools import partial
from itertools import product
from math import prod
from queue import SimpleQueue
from typing import Any, NamedTuple

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
        objects = _objects([_parts(requests)])

        def finish() -> list[npt.NDArray[Any]]:
            scratch = Scratch()
            for _ in objects:
                number, fetched = _next(arrivals)
                for part in objects[number].parts:
                    _decode(part, fetched, found, scratch)
            _next(arrivals)  # the end, or the error of a missing array
            return found

        with self._fetching(objects) as arrivals:
            yield finish

    @contextmanager
    def stream(
        self, groups: Sequence[Sequence[tuple[ChunkedArray, Region]]]
    ) -> Iterator[Iterator[list[npt.NDArray[Any]]]]:
        """Fetch all groups together, and decode one after the other into buffers that the next group reuses."""
        parts = [_parts(group) for group in groups]
        objects = _objects(parts)

        def decode() -> Iterator[list[npt.NDArray[Any]]]:
            scratch, slots, there = Scratch(), Slots(), dict[int, FetchedChunk]()
            number_of = {each.name: number for number, each in enumerate(objects)}
            uses = Counter({number: len(each.parts) for number, each in enumerate(objects)})
            for step, (group, wanted) in enumerate(zip(groups, parts, strict=True), 1):
                found = slots.arrays([([stop - start for start, stop in region], a.meta.dtype) for a, region in group])
                for part in wanted:
                    number = number_of[part.array.path, part.index]
                    while number not in there:
                        arrived, fetched = _next(arrivals)
                        there[arrived] = fetched
                    _decode(part, there[number], found, scratch)
                    uses[number] -= 1
                    if not uses[number]:
                        del there[number]
                if step == len(groups):
                    _next(arrivals)  # the end, or the error of a missing array
                yield found

        with self._fetching(objects) as arrivals:
            yield decode()

    @contextmanager
    def _fetching(self, objects: Sequence["_Object"]) -> Iterator["SimpleQueue[_Arrival]"]:
        """Fetch objects while the context lasts. The queue yields numbers and bytes, and at the end None or an error."""
        arrivals = SimpleQueue[_Arrival]()
        if not objects:
            arrivals.put(None)
            yield arrivals
            return
        with running(self._fetch_all(objects, arrivals.put)):
            yield arrivals

    async def _fetch_all(self, objects: Sequence["_Object"], put: Callable[[_Arrival], None]) -> None:
        missing: dict[str, _Part] = {}  # one of each array

        async def fetch_one(number: int, part: _Part) -> None:
            with locate_error(part.array, part.index):
                fetched = await _fetch(objects[number], self._store, self._opening_id)
            if fetched.is_missing:
                missing[part.array.path] = part
            put((number, fetched))

        try:
            await gather(fetch_one(number, each.parts[0]) for number, each in enumerate(objects))
            for part in missing.values():
                with locate_error(part.array, part.index):
                    await check_array_exists(self._store, part.key, part.array.documents)
        except BaseException as err:
            put(err)
            if not isinstance(err, Exception):
                raise
        else:
            put(None)


@dataclass(frozen=True, slots=True)
class _Part(StoredPart):
    """A part of one stored object, the number of the region that needs it, and its place there."""

    number: int
    place: tuple[Any, ...]


class _Object(NamedTuple):
    """A stored object, and the parts of it that some regions need: one fetch serves them all."""

    name: tuple[str, tuple[int, ...]]
    parts: list[_Part]


def _objects(groups: Sequence[Sequence[_Part]]) -> list[_Object]:
    """Return the stored objects of all parts, in the order of their first use."""
    found: dict[tuple[str, tuple[int, ...]], _Object] = {}
    for part in (part for group in groups for part in group):
        name = part.array.path, part.index
        found.setdefault(name, _Object(name, [])).parts.append(part)
    return list(found.values())


def _parts(requests: Sequence[tuple[ChunkedArray, Region]]) -> list[_Part]:
    """Return the parts of stored objects that some regions touch."""
    return [
        _Part(array, index, inside, number, place)
        for number, (array, region) in enumerate(requests)
        for index, inside, place in array.stored.iter_chunks(region)
    ]


def _next(arrivals: "SimpleQueue[_Arrival]") -> tuple[int, FetchedChunk]:
    """Wait for the next arrival; raise it if it is an error."""
    arrival = arrivals.get()
    if isinstance(arrival, BaseException):
        raise arrival
    return arrival  # type: ignore[return-value]  # the end is not unpacked


_SMALL_SHARD_BYTES = 2**19
"""Decoded bytes of a shard that is fetched whole: its index would cost one more request."""


async def _fetch(each: _Object, store: Store, opening_id: str) -> FetchedChunk:
    """Fetch a chunk, or the wanted chunks of a shard."""
    array, form = each.parts[0].array, each.parts[0].array.index_form
    places = set[tuple[int, ...]]()
    if form is not None and prod(array.stored.chunks) * array.meta.itemsize > _SMALL_SHARD_BYTES:
        for part in each.parts:
            places.update(product(*array.meta.grid.touched(part.inside)))
    where = StorePath(store, each.parts[0].key)
    return await fetch_chunk(where, opening_id, form, places, array.stored_limit)


def _decode(part: _Part, fetched: FetchedChunk, found: Sequence[npt.NDArray[Any]], scratch: Scratch) -> None:
    with locate_error(part.array, part.index):
        _decode_part(part, fetched, found[part.number][part.place], scratch)


def _decode_part(part: _Part, fetched: FetchedChunk, out: npt.NDArray[Any], scratch: Scratch) -> None:
    """Decode the wanted part of a chunk or a shard to its destination."""
    array = part.array
    if fetched.is_missing:
        out[...] = array.fill_value
    elif array.index_form is None:
        array.decode(_bytes(fetched.parts[0]), part.inside, out, scratch)
    else:
        index = fetched.index
        spans = array.index_form.of_shard(_bytes(fetched.parts[0])) if index is None else index.spans
        array.decode_shard(spans, partial(_read, fetched), part.inside, out, scratch)


def _read(fetched: FetchedChunk, start: int, length: int) -> Buffer:
    part = _bytes(fetched.part(start, start + length))
    if len(part) < length:
        raise beyond_end(start, start + length, max(begin + len(one) for begin, one in fetched.parts.items()))
    return part


def _bytes(buffer: Any) -> Buffer:
    found: Buffer = buffer.as_numpy_array()
    return found
