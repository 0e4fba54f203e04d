"""Arrays of plain numbers as stored chunks and shards, which are decoded here without zarr."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr.codecs import ShardingCodec

from rainbear_dask.chunks.decoders import ChunkForm, chunk_form
from rainbear_dask.chunks.sharding import IndexForm, index_form
from rainbear_dask.codecs.decompress import Buffer
from rainbear_dask.indexing.chunk_grid import ChunkGrid, Region
from rainbear_dask.metadata.keys import documents_of, join_path
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.metadata.zarr_arrays import array_metadata, document_bytes
from rainbear_dask.resources.buffers import Scratch
from rainbear_dask.resources.cache import remembered
from rainbear_dask.resources.limits import shard_limit, stored_limit

MAX_CHUNK_BYTES = 2**31
"""Decoded bytes of the largest chunk that is decoded here, as blosc can hold no more."""


@dataclass(frozen=True)
class ChunkedArray:
    """An array whose chunks are decoded here, from every kind of store.

    Parameters
    ----------
    meta : ArrayMeta
        Metadata of the array.
    path : str
        Path of the array in the store.
    documents : tuple of str
        Keys at which the array may have its document. A chunk counts as missing only if one of them exists.
    encode_chunk_key : callable
        Return the key of a chunk, or of a shard, below the array's path, from its index.
    fill_value
        Value of a missing chunk.
    chunk_form : ChunkForm
        Encoding of chunks.
    index_form : IndexForm or None
        Layout of the indexes of shards; None without shards.
    """

    meta: ArrayMeta
    path: str
    documents: tuple[str, ...]
    encode_chunk_key: Callable[[tuple[int, ...]], str]
    fill_value: Any
    chunk_form: ChunkForm
    index_form: IndexForm | None

    @property
    def stored(self) -> ChunkGrid:
        """Return the grid of the stored objects: shards, or chunks."""
        return self.meta.grid.stored

    @property
    def stored_limit(self) -> int:
        """Return the upper bound on the bytes of a stored chunk, or of a shard that is read whole."""
        if self.index_form is None:
            return stored_limit(self.meta.chunk_bytes)
        return shard_limit(prod(self.stored.chunks) * self.meta.itemsize, prod(self.index_form.counts))

    def key(self, index: tuple[int, ...]) -> str:
        """Return the key of a chunk, or of a shard, in the store."""
        return join_path(self.path, self.encode_chunk_key(index))

    def key_of(self, numbers: Sequence[str]) -> str:
        """Return `key` of an index whose numbers are already text."""
        prefix, separator = self._key_form
        return prefix + separator.join(numbers) if separator else self.key(tuple(map(int, numbers)))

    @cached_property
    def _key_form(self) -> tuple[str, str]:
        """Return the prefix and the separator of keys; two empty texts if keys have another form."""
        probe = tuple(range(11, 11 + len(self.stored.dims)))
        key = self.key(probe)
        for separator in ("/", ".") if probe else ():
            if key.endswith(tail := separator.join(map(str, probe))):
                return key[: -len(tail)], separator
        return "", ""

    def decode(self, raw: Buffer, inside: Region, out: npt.NDArray[Any], scratch: Scratch) -> None:
        """Decode a part of a chunk. If that is the whole chunk in contiguous memory, decode it in place.

        Parameters
        ----------
        raw : ndarray of uint8
            Stored bytes of the chunk.
        inside : Region
            The wanted part.
        out : ndarray
            Destination of that part.
        scratch : Scratch
            Buffers of this thread.
        """
        form, meta = self.chunk_form, self.meta
        in_place = out.shape == meta.chunks and out.flags.c_contiguous and form.is_plain(out.dtype)
        decoded = out.reshape(-1).view(np.uint8) if in_place else scratch.decoded(meta.chunk_bytes)
        form.decode(raw, decoded)
        if not in_place:
            out[...] = form.values(decoded, meta.chunks)[tuple(slice(*span) for span in inside)]

    def decode_shard(
        self,
        spans: npt.NDArray[np.uint64],
        read: Callable[[int, int], Buffer],
        inside: Region,
        out: npt.NDArray[Any],
        scratch: Scratch,
        *,
        max_read_bytes: int = 0,
    ) -> None:
        """Decode a part of a shard.

        Parameters
        ----------
        spans : ndarray of uint64
            Index of the shard, from `IndexForm.spans`.
        read : callable
            Return bytes of the shard, from their start and length. They stay valid until the next call.
        inside, out, scratch
            As in `decode`.
        max_read_bytes : int
            Upper bound on the bytes of adjacent chunks that one call of ``read`` takes together.
        """
        form: Any = self.index_form
        cells = self.meta.grid.parts_along(inside)
        located = form.located(spans, [(along[0][0], along[-1][0] + 1) for along in cells])
        parts = product(*([(slice(*part), place) for _, part, place in along] for along in cells))
        todo = [(span, steps) for span, steps in zip(located, parts, strict=True) if span is not None]
        if len(todo) < len(located):
            out[...] = self.fill_value
        todo.sort(key=lambda one: one[0])  # writers may use any order, and mostly leave no gaps
        at = 0
        while at < len(todo):
            (first, last), until = todo[at][0], at + 1
            while until < len(todo) and todo[until][0][0] == last and todo[until][0][1] - first <= max_read_bytes:
                last, until = todo[until][0][1], until + 1
            raw = read(first, last - first)
            for (start, stop), steps in todo[at:until]:
                inside = tuple([(part.start, part.stop) for part, _ in steps])
                place: tuple[Any, ...] = (*[place for _, place in steps], ...)
                self.decode(raw[start - first : stop - first], inside, out[place], scratch)
            at = until


@dataclass(frozen=True, slots=True)
class StoredPart:
    """The wanted part of one stored object, which is a chunk or a shard.

    Parameters
    ----------
    array : ChunkedArray
        The array.
    index : tuple of int
        Index of the object in the grid of stored objects.
    inside : Region
        The wanted part of the object.
    """

    array: ChunkedArray
    index: tuple[int, ...]
    inside: Region

    @property
    def key(self) -> str:
        """Key of the object in the store."""
        return self.array.key(self.index)


@remembered(2**24, lambda arguments, _: document_bytes(arguments[1].document))
def chunked_array(group: str, meta: ArrayMeta) -> ChunkedArray | None:
    """Return an array that is decoded here; None if only zarr can decode it."""
    metadata, indexes = array_metadata(meta.document), None
    form = chunk_form(metadata)
    if form is None or meta.chunk_bytes > MAX_CHUNK_BYTES:
        return None
    if meta.shards is not None:
        sharding = metadata.codecs[0]  # type: ignore[union-attr]  # only v3 has shards
        inner = stored_limit(meta.chunk_bytes)
        indexes = index_form(sharding, meta.shards, inner) if isinstance(sharding, ShardingCodec) else None
        if indexes is None:
            return None
    return ChunkedArray(
        meta,
        join_path(group, meta.path),
        tuple(documents_of(meta, group)),
        metadata.encode_chunk_key,
        metadata.dtype.default_scalar() if metadata.fill_value is None else metadata.fill_value,
        form,
        indexes,
    )
