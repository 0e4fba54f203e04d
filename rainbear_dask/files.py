"""Arrays in a folder: chunks are read and decoded on the thread that asks, without a step through zarr's event loop.

Large chunks are decoded in memory that is used again, as pages that are new to a process take as long as decoding does.
Of small ones, which need no new pages, zarrs reads many with less to do for each.
"""

import os
from collections.abc import Callable, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import dataclass
from functools import lru_cache
from io import FileIO
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr.abc.store import Store
from zarr.codecs import ShardingCodec
from zarr.storage import LocalStore
from zarrs import ZarrsCodecPipeline
from zarrs._internal import ChunkItem

from rainbear_dask.decoders import Buffer, ChunkForm, chunk_form, decode_blosc, decode_zstd
from rainbear_dask.documents import array_metadata, documents_of, join_path, silence
from rainbear_dask.metadata import ArrayMeta, Region
from rainbear_dask.shards import EMPTY, IndexForm, index_form

CHUNK_LIMIT = 2**31
"""Bytes of a chunk; what blosc can hold."""

SMALL_CHUNK = 2**17
"""Bytes of a chunk below which zarrs is the faster one: what the C library takes from the heap."""

THREAD_BYTES = 2**21
"""Decoded bytes for which a thread is begun: fewer take less time than to begin it."""

MAX_THREADS = 8


class ObjectError(Exception):
    """A chunk, or a shard, that cannot be read.

    Parameters
    ----------
    array : FileArray
        What it belongs to.
    index : tuple of int
        Its place in the grid.
    cause : Exception
        What went wrong.
    """

    def __init__(self, array: "FileArray", index: tuple[int, ...], cause: Exception) -> None:
        super().__init__(index)
        self.array, self.index, self.cause = array, index, cause


def read_files(requests: Sequence[tuple["FileArray", Region]]) -> list[npt.NDArray[Any]]:
    """Read regions of arrays, side by side where that is worth a thread.

    Parameters
    ----------
    requests : sequence of (FileArray, Region)
        What to read.

    Returns
    -------
    list of ndarray
        Of each region's shape, in C order.

    Raises
    ------
    ObjectError
        If a chunk cannot be read or decoded.
    """
    found = [np.empty([stop - start for start, stop in region], array.meta.dtype) for array, region in requests]
    parts = [part for (array, region), out in zip(requests, found, strict=True) for part in array.parts(region, out)]
    todo = iter(parts)  # threads take from it in turn

    def work() -> None:
        with _memory() as memory:
            for part in todo:
                part.read(memory)

    size = sum(part.array.decoded_bytes(part.region) for part in parts)
    count = min(len(parts), max(size // THREAD_BYTES, 1), MAX_THREADS)
    if count <= 1:
        work()
        return found
    with ThreadPoolExecutor(count - 1) as pool:
        others = [pool.submit(work) for _ in range(count - 1)]
        work()
        for other in others:
            other.result()
    return found


@dataclass(frozen=True, slots=True)
class FileArray:
    """An array that is read here.

    Parameters
    ----------
    meta : ArrayMeta
        What is known of it.
    root : str
        Folder of the store.
    path : str
        The array's own, in the store.
    documents : tuple of str
        Keys of which one is there as long as the array is: a chunk is only missing if its array is not.
    encode_chunk_key : callable
        From the index of a chunk, or of a shard, to its name in the array's folder.
    fill_value
        What a missing chunk holds.
    chunk_form : ChunkForm
        How chunks are stored.
    index_form : IndexForm or None
        How the indexes of shards are, if there are shards.
    rust : CodecPipelineImpl or None
        What zarrs' pipeline for zarr calls after it took apart what zarr had put together; None where it is slower, or
        less careful.
    """

    meta: ArrayMeta
    root: str
    path: str
    documents: tuple[str, ...]
    encode_chunk_key: Callable[[tuple[int, ...]], str]
    fill_value: Any
    chunk_form: ChunkForm
    index_form: IndexForm | None
    rust: Any

    @property
    def stored(self) -> tuple[int, ...]:
        """Lengths of what is stored together."""
        return self.meta.shards or self.meta.chunks

    @property
    def unit(self) -> tuple[int, ...]:
        """Lengths of what one thread reads: of a large shard, as many of its chunks as are worth a thread."""
        unit = list(self.stored)
        for axis, length in enumerate(self.meta.chunks):
            if prod(unit) * self.meta.itemsize <= THREAD_BYTES:
                break
            unit[axis] = length
        return tuple(unit)

    def key(self, index: tuple[int, ...]) -> str:
        """Name of a chunk, or of a shard, in the store."""
        return join_path(self.path, self.encode_chunk_key(index))

    def decoded_bytes(self, region: Region) -> int:
        """Bytes of all chunks that a region touches."""
        spans = zip(region, self.meta.chunks, strict=True)
        return self.meta.chunk_bytes * prod(-(-stop // size) - start // size for (start, stop), size in spans)

    def parts(self, region: Region, out: npt.NDArray[Any]) -> "Iterator[_Objects | _Object]":
        """Take apart what it takes to read a region into an array."""
        if not out.size:
            return
        if self.rust is not None:
            yield _Objects(self, region, out)
            return
        unit = self.unit
        for index, inside, place in _cut(region, unit):
            firsts = [i * length for i, length in zip(index, unit, strict=True)]
            places = [divmod(first, length) for first, length in zip(firsts, self.stored, strict=True)]
            part = tuple(
                (start + skipped, stop + skipped) for (start, stop), (_, skipped) in zip(inside, places, strict=True)
            )
            yield _Object(self, tuple(i for i, _ in places), part, out[place])


@dataclass(frozen=True, slots=True)
class _Objects:
    """What is wanted of several stored objects, and where it goes."""

    array: FileArray
    region: Region
    out: npt.NDArray[Any]

    def read(self, memory: "_Memory") -> None:
        array, shape = self.array, list(self.out.shape)
        items = [
            ChunkItem(
                key=array.key(index),
                chunk_subset=[slice(*span) for span in inside],
                chunk_shape=list(array.stored),
                subset=list(place[:-1]),
                shape=shape,
            )
            for index, inside, place in _cut(self.region, array.stored)
        ]
        try:
            array.rust.retrieve_chunks_and_apply_index(items, self.out)
        except Exception:  # noqa: BLE001  whatever a codec raises; it does not say where
            for index, inside, place in _cut(self.region, array.stored):
                _Object(array, index, inside, self.out[place]).read(memory)


@dataclass(frozen=True, slots=True)
class _Object:
    """What is wanted of one stored object, a chunk or a part of a shard, and where it goes."""

    array: FileArray
    index: tuple[int, ...]
    region: Region
    out: npt.NDArray[Any]

    def read(self, memory: "_Memory") -> None:
        try:
            self._read(memory)
        except Exception as err:
            raise ObjectError(self.array, self.index, err) from err

    def _read(self, memory: "_Memory") -> None:
        array = self.array
        try:
            file = FileIO(f"{array.root}/{array.key(self.index)}")
        except (FileNotFoundError, NotADirectoryError, IsADirectoryError):
            if not any(Path(array.root, document).exists() for document in array.documents):
                raise FileNotFoundError("the store was deleted since it was opened") from None
            self.out[...] = array.fill_value
            return
        with file:
            size = os.fstat(file.fileno()).st_size
            if array.index_form is None:
                self._decode(memory.read(file, 0, size), self.region, self.out, memory)
            else:
                self._read_shard(file, size, array.index_form, memory)

    def _read_shard(self, file: FileIO, size: int, form: IndexForm, memory: "_Memory") -> None:
        length = min(form.size, size)
        spans = form.spans(memory.read(file, 0 if form.at_start else size - length, length).tobytes())
        for index, inside, place in _cut(self.region, self.array.meta.chunks):
            start, length = map(int, spans[index])
            if start == EMPTY:
                self.out[place] = self.array.fill_value
            elif start + length > size:
                raise OSError(f"bytes {start} to {start + length} are in the index of a shard of {size} bytes")
            else:
                self._decode(memory.read(file, start, length), inside, self.out[place], memory)

    def _decode(self, raw: Buffer, inside: Region, out: npt.NDArray[Any], memory: "_Memory") -> None:
        """Decode a chunk, at once to where it goes if that is one piece of memory."""
        form, meta = self.array.chunk_form, self.array.meta
        in_place = out.shape == meta.chunks and out.flags.c_contiguous and form.is_plain(out.dtype)
        decoded = out.reshape(-1).view(np.uint8) if in_place else memory.decoded(meta.chunk_bytes)
        form.decode(raw, decoded)
        if not in_place:
            out[...] = form.values(decoded, meta.chunks)[tuple(slice(*span) for span in inside)]


def _cut(region: Region, sizes: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Region, tuple[Any, ...]]]:
    """Cells of a grid that a region touches: the index of each, what is wanted of it, and where in the region that is."""
    along = [
        [
            (
                i,
                (max(start - i * size, 0), min(stop - i * size, size)),
                slice(max(i * size - start, 0), min((i + 1) * size, stop) - start),
            )
            for i in range(start // size, -(-stop // size))
        ]
        for (start, stop), size in zip(region, sizes, strict=True)
    ]
    for parts in product(*along):
        place = (*(at for _, _, at in parts), ...)  # of no dimension too it is a part, and no value
        yield tuple(i for i, _, _ in parts), tuple(inside for _, inside, _ in parts), place


class _Memory:
    """Two buffers, which grow as they have to: one for what is stored, one for what is decoded."""

    def __init__(self) -> None:
        self._stored, self._decoded = np.empty(0, np.uint8), np.empty(0, np.uint8)

    def __len__(self) -> int:
        return len(self._stored) + len(self._decoded)

    def read(self, file: FileIO, start: int, length: int) -> Buffer:
        """Bytes of a file, until others are read."""
        if len(self._stored) < length:
            self._stored = np.empty(length, np.uint8)
        buffer, done = self._stored[:length], 0
        file.seek(start)
        while done < length and (count := file.readinto(buffer[done:].data)):
            done += count
        if done < length:
            raise OSError(f"the file ends at byte {start + done}, and not at byte {start + length}")
        return buffer

    def decoded(self, length: int) -> Buffer:
        """Place for the bytes of a chunk, until another is decoded."""
        if len(self._decoded) < length:
            self._decoded = np.empty(length, np.uint8)
        return self._decoded[:length]


KEPT_BYTES = 2**26
"""Memory that is kept to read in at most."""

_kept: list[_Memory] = []


@contextmanager
def _memory() -> Iterator[_Memory]:
    memory = _kept.pop() if _kept else _Memory()
    yield memory
    # where a chunk could not be read, it goes
    if len(memory) + sum(map(len, list(_kept))) <= KEPT_BYTES:
        _kept.append(memory)


def file_array(store: Store, group: str, meta: ArrayMeta) -> FileArray | None:
    """An array of a group as it is read here; None where zarr has to read it."""
    return _opened(str(store.root), group, meta) if isinstance(store, LocalStore) else None


@lru_cache(maxsize=4096)
def _opened(root: str, group: str, meta: ArrayMeta) -> FileArray | None:
    """Kept for all openings of a store, as it depends on the array's document, and on where it is, alone."""
    metadata, indexes = array_metadata(meta.document), None
    form = chunk_form(metadata)
    if form is None or meta.chunk_bytes > CHUNK_LIMIT:
        return None
    if meta.shards is not None:
        sharding = metadata.codecs[0]  # type: ignore[union-attr]  # of v3
        indexes = index_form(sharding, meta.shards) if isinstance(sharding, ShardingCodec) else None
        if indexes is None:
            return None
    return FileArray(
        meta,
        root,
        join_path(group, meta.path),
        tuple(documents_of(meta, group)),
        metadata.encode_chunk_key,
        metadata.dtype.default_scalar() if metadata.fill_value is None else metadata.fill_value,
        form,
        indexes,
        _rust(root, metadata, form) if meta.chunk_bytes < SMALL_CHUNK else None,
    )


def _rust(root: str, metadata: Any, form: ChunkForm) -> Any:
    """What of zarrs reads an array; None where it would be less careful.

    Of a part of a chunk (and the chunk at an edge is one) it decodes as little as it can: a checksum, or the length of
    a chunk that is not compressed, is then not checked. So only zstd and blosc are left to it.
    """
    if form.decode not in (decode_zstd, decode_blosc) or not form.is_plain(form.dtype.newbyteorder("=")):
        return None
    with silence():
        try:
            return ZarrsCodecPipeline.from_array_metadata_and_store(metadata, LocalStore(root, read_only=True)).impl
        except Exception:  # noqa: BLE001  it says in many ways that it does not know a codec
            return None


def forget_files() -> None:
    """Let go of all arrays that were opened, and of the memory they were read in."""
    _opened.cache_clear()
    _kept.clear()
