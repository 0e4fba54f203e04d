"""Reader of arrays in a folder: it reads and decodes chunks on the calling thread, without zarr's event loop."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass
from io import FileIO
from itertools import product
from pathlib import Path
from typing import Any, NamedTuple, cast

import numpy as np
import numpy.typing as npt

from rainbear_dask.chunks.array import ChunkedArray, StoredPart, chunked_array
from rainbear_dask.chunks.errors import locate_error
from rainbear_dask.chunks.sharding import IndexForm, beyond_end
from rainbear_dask.codecs.decompress import Buffer
from rainbear_dask.indexing.chunk_grid import Region, part_of_region
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.resources import buffers, threads
from rainbear_dask.resources.limits import check_size
from rainbear_dask.storage.local_files import open_regular, read_start
from rainbear_dask.storage.requests import store_deleted

SMALL_CHUNK_BYTES = buffers.MIN_POOLED_BYTES
"""Decoded bytes below which chunks are read in one loop: decoding them takes less time than the steps around it."""

THREAD_BYTES = 2**21
"""Decoded bytes of a part of a region that a thread takes at a time."""

MIN_SHARED_BYTES = 2**19
"""Decoded bytes for each thread that are worth starting it."""

_CODEC_BYTES = 2**10
"""Bytes beyond its values that a chunk may have in the loop of small chunks; a longer one is read as a large one."""

_MAX_READ_BYTES = 2**18
"""Bytes of a shard that one read takes together, if they are several adjacent chunks."""


class LocalReader:
    """Reader of arrays of plain numbers in a folder.

    Parameters
    ----------
    root : str
        Folder of the store.
    group : str
        Path of the group in the store.
    """

    def __init__(self, root: str, group: str) -> None:
        self._root, self._group = root, group

    def open(self, meta: ArrayMeta) -> ChunkedArray | None:
        """Return an array that is decoded without zarr; None if only zarr can decode it."""
        return chunked_array(self._group, meta)

    @contextmanager
    def begin(self, requests: Sequence[tuple[ChunkedArray, Region]]) -> Iterator[Callable[[], list[npt.NDArray[Any]]]]:
        """Read regions when the callable is called, on several threads if that pays off."""
        yield lambda: _read(self._root, requests)

    @contextmanager
    def stream(
        self, groups: Sequence[Sequence[tuple[ChunkedArray, Region]]]
    ) -> Iterator[Iterator[list[npt.NDArray[Any]]]]:
        """Read the groups one after the other on the calling thread, into buffers that the next group reuses."""
        yield _read_in_turn(self._root, groups)


def _read(root: str, requests: Sequence[tuple[ChunkedArray, Region]]) -> list[npt.NDArray[Any]]:
    found = [
        buffers.borrow_array([stop - start for start, stop in region], array.meta.dtype) for array, region in requests
    ]
    parts, size = list[_SmallChunks | _FilePart](), 0
    for (array, region), out in zip(requests, found, strict=True):
        own = _decoded_bytes(array.meta, region)
        parts += _parts(root, array, region, out, split=own > THREAD_BYTES)
        size += own

    def start() -> Callable[[_SmallChunks | _FilePart], None]:
        scratch, shards = buffers.Scratch(), _LastShard()
        return lambda part: part.read(scratch, shards)

    threads.share(parts, start, size // MIN_SHARED_BYTES)
    return found


def _read_in_turn(
    root: str, groups: Sequence[Sequence[tuple[ChunkedArray, Region]]]
) -> Iterator[list[npt.NDArray[Any]]]:
    scratch, shards, slots = buffers.Scratch(), _LastShard(), buffers.Slots()
    for group in groups:
        found = slots.arrays([([stop - start for start, stop in region], a.meta.dtype) for a, region in group])
        for (array, region), out in zip(group, found, strict=True):
            for part in _parts(root, array, region, out, split=False):
                part.read(scratch, shards)
        yield found


def thread_unit(meta: ArrayMeta, region: Region) -> tuple[int, ...]:
    """Return the lengths of a part of a region that is worth a thread: whole chunks, adjacent in C order."""
    unit, size = list(meta.chunks), meta.chunk_bytes
    touched = meta.grid.touched(region)
    for axis in reversed(range(len(unit))):
        count = min(len(touched[axis]), -(-THREAD_BYTES // size))
        unit[axis], size = count * unit[axis], count * size
    return tuple(unit)


def _decoded_bytes(meta: ArrayMeta, region: Region) -> int:
    """Return the decoded bytes of all chunks that a region touches."""
    return meta.chunk_bytes * meta.grid.count_in(region)


def _parts(
    root: str, array: ChunkedArray, region: Region, out: npt.NDArray[Any], *, split: bool
) -> "Iterator[_SmallChunks | _FilePart]":
    """Divide a region by files, many small files together; ``split`` divides it further, for several threads."""
    meta = array.meta
    if not out.size:
        return
    if meta.shards is None and meta.chunk_bytes < SMALL_CHUNK_BYTES:
        for part, place in _split(meta, region, split=split):
            yield _SmallChunks(array, part, out[place], root)
        return
    for index, inside, place in array.stored.iter_chunks(region):
        if meta.shards is None:
            yield _FilePart(array, index, inside, out[place], root)
            continue
        for part, place_of_part in _split(meta, inside, split=split):
            yield _FilePart(array, index, part, out[place][place_of_part], root)


def _split(meta: ArrayMeta, region: Region, *, split: bool) -> Iterator[tuple[Region, tuple[Any, ...]]]:
    """Split a region into parts that are worth a thread: yield each part, and its place in the region."""
    if not split:
        yield region, (...,)
        return
    for _, _, place in meta.grid.with_chunks(thread_unit(meta, region)).iter_chunks(region):
        yield part_of_region(region, place), place


class _Step:
    """A chunk along one dimension: its index, the wanted range inside of it, and the destination of that range."""

    __slots__ = ("index", "inside", "is_whole", "number", "part", "place")

    def __init__(self, index: int, inside: tuple[int, int], place: slice, length: int) -> None:
        self.index, self.inside, self.place, self.is_whole = index, inside, place, inside == (0, length)
        self.number, self.part = str(index), slice(*inside)


@dataclass(frozen=True, slots=True)
class _SmallChunks:
    """A region of many small chunks, and its destination. The loop computes only once what the chunks share."""

    array: ChunkedArray
    inside: Region
    out: npt.NDArray[Any]
    root: str

    def read(self, scratch: buffers.Scratch, shards: "_LastShard") -> None:
        array, out, folder, missing = self.array, self.out, f"{self.root}/", False
        form, shape, size = array.chunk_form, array.meta.chunks, array.meta.chunk_bytes
        decoded = scratch.decoded(size)
        chunk = form.values(decoded, shape)
        along = [
            [_Step(*cell, length) for cell in cells]
            for cells, length in zip(array.stored.parts_along(self.inside), shape, strict=True)
        ]
        is_row = all(len(steps) == 1 and steps[0].is_whole for steps in along[1:])
        in_place = is_row and bool(along) and out.flags.c_contiguous and form.is_plain(out.dtype)
        flat = out.reshape(-1).view(np.uint8) if in_place else decoded
        for steps in product(*along):
            raw = _stored(folder + array.key_of([step.number for step in steps]), size)
            place: tuple[Any, ...] = (*[step.place for step in steps], ...)
            if raw is None:
                missing = True
                out[place] = array.fill_value
                continue
            try:
                if in_place and steps[0].is_whole:
                    start = steps[0].place.start * size // shape[0]
                    form.decode(np.frombuffer(raw, np.uint8), flat[start : start + size])
                    continue
                form.decode(np.frombuffer(raw, np.uint8), decoded)
            except Exception:  # noqa: BLE001  the path of large chunks can read it, or says where and why not
                index, inside = tuple([step.index for step in steps]), tuple([step.inside for step in steps])
                _FilePart(array, index, inside, out[place], self.root).read(buffers.Scratch(), shards)
            else:
                out[place] = chunk[tuple([step.part for step in steps])]
        if missing:
            with locate_error(array, tuple(cells[0].index for cells in along)):
                _check_array_exists(self.root, array)


def _stored(path: str, chunk_bytes: int) -> bytes | None:
    """Return the bytes of a small chunk: None if there is no file, nothing if one step does not read it."""
    try:
        return read_start(path, chunk_bytes + _CODEC_BYTES)
    except FileNotFoundError:
        return None
    except OSError:
        return b""


@dataclass(frozen=True, slots=True)
class _FilePart(StoredPart):
    """A part of one file that holds a chunk or a shard."""

    root: str

    def read(self, scratch: buffers.Scratch, shards: "_LastShard") -> None:
        with locate_error(self.array, self.index):
            try:
                self._read(scratch, shards)
            except (FileNotFoundError, NotADirectoryError):
                _check_array_exists(self.root, self.array)
                self.out[...] = self.array.fill_value

    def _read(self, scratch: buffers.Scratch, shards: "_LastShard") -> None:
        array, path = self.array, f"{self.root}/{self.key}"
        if array.index_form is not None:
            shard = shards.open(path, array.index_form, scratch)
            array.decode_shard(
                shard.spans, shard.reader(scratch), self.inside, self.out, scratch, max_read_bytes=_MAX_READ_BYTES
            )
            return
        file, size = open_regular(path)
        with file:
            check_size(size, array.stored_limit)
            array.decode(_read_bytes(file, 0, size, scratch), self.inside, self.out, scratch)


class _Shard(NamedTuple):
    """An open shard: its file, the bytes of the file, and its index."""

    file: FileIO
    size: int
    spans: npt.NDArray[np.uint64]

    def reader(self, scratch: buffers.Scratch) -> Callable[[int, int], Buffer]:
        """Return a function that reads bytes of the shard."""

        def read(start: int, length: int) -> Buffer:
            if start + length > self.size:
                raise beyond_end(start, start + length, self.size)
            return _read_bytes(self.file, start, length, scratch)

        return read


class _LastShard:
    """The shard that a thread has read last, which stays open: the next part is often in it."""

    def __init__(self) -> None:
        self._path, self._shard = "", cast("_Shard | None", None)

    def open(self, path: str, form: IndexForm, scratch: buffers.Scratch) -> _Shard:
        """Return a shard with its index."""
        if self._shard is None or path != self._path:
            self.close()
            form.check_size()
            file, size = open_regular(path)
            try:
                length = min(form.size, size)
                index = _read_bytes(file, 0 if form.at_start else size - length, length, scratch)
                self._path, self._shard = path, _Shard(file, size, form.spans(index.tobytes()))
            except BaseException:
                file.close()
                raise
        return self._shard

    def close(self) -> None:
        """Close its file."""
        shard, self._shard = self._shard, None
        if shard is not None:
            shard.file.close()

    __del__ = close  # the thread that owns it ends


def _check_array_exists(root: str, array: ChunkedArray) -> None:
    """Tell a missing chunk from a deleted store.

    Raises
    ------
    FileNotFoundError
        If the documents of the array are gone, too.
    """
    if not any(Path(root, document).exists() for document in array.documents):
        raise store_deleted()


def _read_bytes(file: FileIO, start: int, length: int, scratch: buffers.Scratch) -> Buffer:
    """Read bytes of a file; they stay valid until the next read with the same scratch."""
    buffer, done = scratch.stored(length), 0
    file.seek(start)
    while done < length and (count := file.readinto(buffer[done:].data)):
        done += count
    if done < length:
        raise OSError(f"the file ends at byte {start + done}, before byte {start + length}")
    return buffer


def forget_files() -> None:
    """Drop all opened arrays, and the idle buffers."""
    chunked_array.cache_clear()
    buffers.forget()
