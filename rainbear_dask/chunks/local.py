"""Arrays in a folder: chunks are read and decoded on the thread that asks, without a step through zarr's event loop."""

from collections.abc import Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass
from io import FileIO
from itertools import product
from pathlib import Path
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr.abc.store import Store
from zarr.storage import LocalStore

from rainbear_dask.chunks.array import ChunkedArray, chunked_array
from rainbear_dask.chunks.errors import locate_error
from rainbear_dask.chunks.sharding import IndexForm
from rainbear_dask.codecs.decompress import Buffer
from rainbear_dask.indexing.chunk_grid import Region, part_of_region
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.metadata.zarr_arrays import document_bytes
from rainbear_dask.resources import buffers as memory
from rainbear_dask.resources import threads
from rainbear_dask.resources.cache import remembered
from rainbear_dask.resources.limits import check_size
from rainbear_dask.storage.local_files import open_regular, read_start

SMALL_CHUNK = memory.SMALL
"""Bytes of a chunk below which the steps around it take longer than to decode it, so that many are read in one loop."""

THREAD_BYTES = 2**21
"""Decoded bytes for which a thread is begun: fewer take less time than to begin it."""


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
    found = [
        memory.borrow_array([stop - start for start, stop in region], array.meta.dtype) for array, region in requests
    ]
    parts = [part for (array, region), out in zip(requests, found, strict=True) for part in array.parts(region, out)]
    todo = iter(parts)  # threads take from it in turn

    def work() -> None:
        scratch = memory.Scratch()
        for part in todo:
            part.read(scratch)

    size = sum(part.array.decoded_bytes(part.region) for part in parts)
    with threads.beside(min(len(parts), size // THREAD_BYTES) - 1) as count:
        if not count:
            work()
            return found
        with ThreadPoolExecutor(count) as pool:
            others = [pool.submit(work) for _ in range(count)]
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
    """

    chunked: ChunkedArray
    root: str

    @property
    def meta(self) -> ArrayMeta:
        """What is known of it."""
        return self.chunked.meta

    def unit(self, region: Region) -> tuple[int, ...]:
        """Lengths of what one thread reads of a region: as many chunks of it, in C order, as are worth a thread."""
        unit, size = list(self.meta.chunks), self.meta.chunk_bytes
        touched = self.meta.grid.touched(region)
        for axis in reversed(range(len(unit))):
            count = min(len(touched[axis]), -(-THREAD_BYTES // size))
            unit[axis], size = count * unit[axis], count * size
        return tuple(unit)

    def decoded_bytes(self, region: Region) -> int:
        """Bytes of all chunks that a region touches."""
        return self.meta.chunk_bytes * self.meta.grid.count_in(region)

    def check_is_there(self) -> None:
        """Tell a chunk that is missing from a store that was deleted.

        Raises
        ------
        FileNotFoundError
            If the array's documents are gone as well.
        """
        if not any(Path(self.root, document).exists() for document in self.chunked.documents):
            raise FileNotFoundError("the store was deleted since it was opened")

    def parts(self, region: Region, out: npt.NDArray[Any]) -> "Iterator[_SmallChunks | _Object]":
        """Take apart what it takes to read a region into an array."""
        if not out.size:
            return
        if self.meta.shards is None and self.meta.chunk_bytes < SMALL_CHUNK:
            for part, place in self._units(region):
                yield _SmallChunks(self, part, out[place])
            return
        for index, inside, place in self.chunked.stored.iter_chunks(region):
            if self.meta.shards is None:
                yield _Object(self, index, inside, out[place])
                continue
            for part, place_of_part in self._units(inside):
                yield _Object(self, index, part, out[place][place_of_part])

    def _units(self, region: Region) -> Iterator[tuple[Region, tuple[Any, ...]]]:
        """Cut a region into what one thread reads: parts of it, and where in it each of them is."""
        for _, _, place in self.meta.grid.with_chunks(self.unit(region)).iter_chunks(region):
            yield part_of_region(region, place), place


class _Step:
    """A chunk along one dimension: its index, what is wanted of it, and where that goes."""

    __slots__ = ("index", "inside", "number", "part", "place")

    def __init__(self, index: int, inside: tuple[int, int], place: slice) -> None:
        self.index, self.inside, self.place = index, inside, place
        self.number, self.part = str(index), slice(*inside)


@dataclass(frozen=True, slots=True)
class _SmallChunks:
    """A region of many small chunks, and where it goes: what they have in common is made once."""

    array: FileArray
    region: Region
    out: npt.NDArray[Any]

    def read(self, scratch: memory.Scratch) -> None:
        array, out, folder = self.array.chunked, self.out, f"{self.array.root}/"
        decode, size, missing = array.chunk_form.decode, array.meta.chunk_bytes + _CODEC_BYTES, False
        decoded = scratch.decoded(array.meta.chunk_bytes)
        chunk = array.chunk_form.values(decoded, array.meta.chunks)
        along = [[_Step(*cell) for cell in cells] for cells in array.stored.parts_along(self.region)]
        for steps in product(*along):
            place: tuple[Any, ...] = (*[step.place for step in steps], ...)
            try:
                raw = read_start(folder + array.key_of([step.number for step in steps]), size)
                decode(np.frombuffer(raw, np.uint8), decoded)
            except FileNotFoundError:
                missing = True
                out[place] = array.fill_value
            except Exception:  # noqa: BLE001  it is read anew, by what says where and why, or can
                inside = tuple([step.inside for step in steps])
                _Object(self.array, tuple([step.index for step in steps]), inside, out[place]).read(memory.Scratch())
            else:
                out[place] = chunk[tuple([step.part for step in steps])]
        if missing:
            with locate_error(array, tuple(cells[0].index for cells in along)):
                self.array.check_is_there()


_CODEC_BYTES = 2**10
"""Bytes that a small chunk may have beyond its values and be read in one step; a larger one takes the way of large chunks."""


@dataclass(frozen=True, slots=True)
class _Object:
    """What is wanted of one stored object, a chunk or a part of a shard, and where it goes."""

    array: FileArray
    index: tuple[int, ...]
    region: Region
    out: npt.NDArray[Any]

    def read(self, scratch: memory.Scratch) -> None:
        with locate_error(self.array.chunked, self.index):
            self._read(scratch)

    def _read(self, scratch: memory.Scratch) -> None:
        array = self.array.chunked
        try:
            file, size = open_regular(f"{self.array.root}/{array.key(self.index)}")
        except (FileNotFoundError, NotADirectoryError):
            self.array.check_is_there()
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

        self.array.chunked.decode_shard(spans, read, self.region, self.out, scratch, most=_READ_TOGETHER_BYTES)


_READ_TOGETHER_BYTES = 2**18
"""Bytes of a shard that are read in one step, if that is several chunks."""


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
    return None if chunked is None else FileArray(chunked, root)


def forget_files() -> None:
    """Let go of all arrays that were opened, and of the memory they were read in."""
    _opened.cache_clear()
    chunked_array.cache_clear()
    memory.forget()
