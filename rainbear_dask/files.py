"""Arrays in a folder: chunks are read and decoded on the thread that asks, without a step through zarr's event loop.

Of small chunks, for which a process needs no new pages, zarrs reads many with less to do for each.
"""

import os
from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from functools import partial
from io import FileIO
from itertools import product
from math import prod
from pathlib import Path
from typing import Any

import numpy.typing as npt
from zarr.abc.store import Store
from zarr.storage import LocalStore
from zarrs import ZarrsCodecPipeline
from zarrs._internal import ChunkItem

from rainbear_dask import memory
from rainbear_dask.cache import remembered
from rainbear_dask.chunks import ChunkedArray, blamed, cells_along, chunked_array, cut
from rainbear_dask.decoders import ChunkForm
from rainbear_dask.documents import array_metadata, document_bytes, silence
from rainbear_dask.inflate import (
    HEADER_BYTES,
    Buffer,
    check_blosc,
    decode_blosc,
    decode_zstd,
    is_last_zstd_block,
    is_one_zstd_block,
    zstd_header,
)
from rainbear_dask.limits import check_size
from rainbear_dask.localfiles import open_plain, open_regular
from rainbear_dask.metadata import ArrayMeta, Region
from rainbear_dask.shards import IndexForm

SMALL_CHUNK = memory.SMALL
"""Bytes of a chunk below which zarrs is the faster one: what the C library takes from the heap."""

THREAD_BYTES = 2**21
"""Decoded bytes for which a thread is begun: fewer take less time than to begin it."""

MAX_THREADS = 8


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
    found = [memory.lend([stop - start for start, stop in region], array.meta.dtype) for array, region in requests]
    parts = [part for (array, region), out in zip(requests, found, strict=True) for part in array.parts(region, out)]
    todo = iter(parts)  # threads take from it in turn

    def work() -> None:
        scratch = memory.Scratch()
        for part in todo:
            part.read(scratch)

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
    chunked : ChunkedArray
        How it is decoded.
    root : str
        Folder of the store.
    rust : CodecPipelineImpl or None
        What zarrs' pipeline for zarr calls after it took apart what zarr had put together; None where it is slower, or
        less careful.
    """

    chunked: ChunkedArray
    root: str
    rust: Any

    @property
    def meta(self) -> ArrayMeta:
        """What is known of it."""
        return self.chunked.meta

    @property
    def unit(self) -> tuple[int, ...]:
        """Lengths of what one thread reads: of a large shard, as many of its chunks as are worth a thread."""
        unit = list(self.chunked.stored)
        for axis, length in enumerate(self.meta.chunks):
            if prod(unit) * self.meta.itemsize <= THREAD_BYTES:
                break
            unit[axis] = length
        return tuple(unit)

    def decoded_bytes(self, region: Region) -> int:
        """Bytes of all chunks that a region touches."""
        spans = zip(region, self.meta.chunks, strict=True)
        return self.meta.chunk_bytes * prod(-(-stop // size) - start // size for (start, stop), size in spans)

    def is_sound(self, key: str, inside: Region, alike: bytes = b"") -> bytes | None:
        """Whether zarrs may read an object: its headers say no more than the array's document.

        Rust ends the process where it cannot have the memory that a header asks for.

        Parameters
        ----------
        key : str
            Where it is.
        inside : Region
            What is wanted of it.
        alike : bytes
            What this gave for an earlier chunk. A chunk that begins with it needs fewer checks.

        Returns
        -------
        bytes or None
            How the chunk begins; None if zarrs may not read it.
        """
        array = self.chunked
        try:
            descriptor = open_plain(f"{self.root}/{key}")
        except FileNotFoundError:
            return alike  # the fill value
        except OSError:
            return None
        try:
            size = os.lseek(descriptor, 0, os.SEEK_END)
            if array.index_form is None:
                return self._sound_start(os.pread(descriptor, HEADER_BYTES, 0), size, alike)
            return self._sound_shard(array.index_form, descriptor, size, inside, alike)
        except (OSError, ValueError):
            return None
        finally:
            os.close(descriptor)

    def _sound_start(self, header: bytes, length: int, alike: bytes) -> bytes | None:
        meta = self.meta
        if self.chunked.chunk_form.decode is decode_zstd:
            if alike and header.startswith(alike):
                return alike if is_last_zstd_block(header, len(alike), length) else None
            return header[: zstd_header(header)[1]] if is_one_zstd_block(header, length, meta.chunk_bytes) else None
        if alike and header.startswith(alike) and int.from_bytes(header[12:16], "little") == length:
            return alike
        # zarrs cuts parts out by the size of values that the header tells
        decoded = check_blosc(header[:16], length, meta.chunk_bytes)
        is_sound = decoded == meta.chunk_bytes and header[3] > 0 and meta.itemsize % header[3] == 0
        return header[:12] if is_sound else None

    def _sound_shard(self, form: IndexForm, descriptor: int, size: int, inside: Region, alike: bytes) -> bytes | None:
        form.check_size()
        spans = form.spans(os.pread(descriptor, form.size, 0 if form.at_start else max(size - form.size, 0)))
        touched = (range(start // n, -(-stop // n)) for (start, stop), n in zip(inside, self.meta.chunks, strict=True))
        for place in product(*touched):
            span = form.span(spans, place)
            if span is not None:
                found = self._sound_start(os.pread(descriptor, HEADER_BYTES, span[0]), span[1] - span[0], alike)
                if span[1] > size or found is None:
                    return None
                alike = found
        return alike

    def parts(self, region: Region, out: npt.NDArray[Any]) -> "Iterator[_Objects | _Object]":
        """Take apart what it takes to read a region into an array."""
        if not out.size:
            return
        if self.rust is not None:
            yield _Objects(self, region, out)
            return
        unit = self.unit
        for index, inside, place in cut(region, unit):
            firsts = [i * length for i, length in zip(index, unit, strict=True)]
            places = [divmod(first, length) for first, length in zip(firsts, self.chunked.stored, strict=True)]
            part = tuple(
                (start + skipped, stop + skipped) for (start, stop), (_, skipped) in zip(inside, places, strict=True)
            )
            yield _Object(self, tuple(i for i, _ in places), part, out[place])


class _Step:
    """A chunk along one dimension: its index, what is wanted of it, and where that goes."""

    __slots__ = ("index", "inside", "number", "part", "place")

    def __init__(self, index: int, inside: tuple[int, int], place: slice) -> None:
        self.index, self.inside, self.place = index, inside, place
        self.number, self.part = str(index), slice(*inside)


@dataclass(frozen=True, slots=True)
class _Objects:
    """What is wanted of several stored objects, and where it goes."""

    array: FileArray
    region: Region
    out: npt.NDArray[Any]

    def read(self, scratch: memory.Scratch) -> None:
        array, is_sound = self.array.chunked, self.array.is_sound
        stored, shape = list(array.stored), list(self.out.shape)
        items, others = list[ChunkItem](), list[_Object]()
        alike = b""  # how the last sound chunk began: those of one writer mostly begin alike
        # thousands of small chunks: what a chunk has in common with others along a dimension is made once
        along = [[_Step(*cell) for cell in cells] for cells in cells_along(self.region, array.stored)]
        for steps in product(*along):
            key = array.key_of([step.number for step in steps])
            inside = tuple([step.inside for step in steps])
            found = is_sound(key, inside, alike)
            if found is None:
                place: tuple[Any, ...] = (*(step.place for step in steps), ...)
                others.append(_Object(self.array, tuple(step.index for step in steps), inside, self.out[place]))
                continue
            alike = found
            items.append(ChunkItem(key, [step.part for step in steps], stored, [step.place for step in steps], shape))
        try:
            if items:
                self.array.rust.retrieve_chunks_and_apply_index(items, self.out)
        except BaseException as err:  # whatever a codec raises; it does not say where
            # a panic of Rust is no Exception
            if not isinstance(err, Exception) and type(err).__name__ != "PanicException":
                raise
            parts = cut(self.region, array.stored)
            others = [_Object(self.array, index, inside, self.out[place]) for index, inside, place in parts]
        for other in others:
            other.read(scratch)


@dataclass(frozen=True, slots=True)
class _Object:
    """What is wanted of one stored object, a chunk or a part of a shard, and where it goes."""

    array: FileArray
    index: tuple[int, ...]
    region: Region
    out: npt.NDArray[Any]

    def read(self, scratch: memory.Scratch) -> None:
        with blamed(self.array.chunked, self.index):
            self._read(scratch)

    def _read(self, scratch: memory.Scratch) -> None:
        array = self.array.chunked
        try:
            file, size = open_regular(f"{self.array.root}/{array.key(self.index)}")
        except (FileNotFoundError, NotADirectoryError):
            if not any(Path(self.array.root, document).exists() for document in array.documents):
                raise FileNotFoundError("the store was deleted since it was opened") from None
            self.out[...] = array.fill_value
            return
        with file:
            if array.index_form is None:
                check_size(size, array.stored_limit)
                array.decode(_read_bytes(file, 0, size, scratch), self.region, self.out, scratch)
            else:
                self._read_shard(file, size, array.index_form, scratch)

    def _read_shard(self, file: FileIO, size: int, form: IndexForm, scratch: memory.Scratch) -> None:
        form.check_size()
        length = min(form.size, size)
        spans = form.spans(_read_bytes(file, 0 if form.at_start else size - length, length, scratch).tobytes())

        def read(start: int, length: int) -> Buffer:
            if start + length > size:
                raise OSError(f"bytes {start} to {start + length} are in the index of a shard of {size} bytes")
            return _read_bytes(file, start, length, scratch)

        self.array.chunked.decode_shard(partial(form.span, spans), read, self.region, self.out, scratch)


def _read_bytes(file: FileIO, start: int, length: int, scratch: memory.Scratch) -> Buffer:
    """Bytes of a file, until others are read."""
    buffer, done = scratch.stored(length), 0
    file.seek(start)
    while done < length and (count := file.readinto(buffer[done:].data)):
        done += count
    if done < length:
        raise OSError(f"the file ends at byte {start + done}, and not at byte {start + length}")
    return buffer


def file_array(store: Store, group: str, meta: ArrayMeta) -> FileArray | None:
    """An array of a group as it is read here; None where zarr has to read it."""
    return _opened(str(store.root), group, meta) if isinstance(store, LocalStore) else None


@remembered(2**24, lambda arguments, _: document_bytes(arguments[2].document))
def _opened(root: str, group: str, meta: ArrayMeta) -> FileArray | None:
    """Kept for all openings of a store, as it depends on the array's document, and on where it is, alone."""
    chunked = chunked_array(group, meta)
    if chunked is None:
        return None
    small = meta.chunk_bytes < SMALL_CHUNK
    return FileArray(chunked, root, _rust(root, array_metadata(meta.document), chunked.chunk_form) if small else None)


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
    chunked_array.cache_clear()
    memory.forget()
