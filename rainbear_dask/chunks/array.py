"""Arrays of plain numbers, taken apart into what is stored, and decoded: for who has the bytes of it."""

from collections.abc import Callable, Sequence
from dataclasses import dataclass
from functools import cached_property
from itertools import product
from math import prod
from typing import Any, cast

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
from rainbear_dask.resources.buffers import SMALL, Scratch
from rainbear_dask.resources.cache import remembered
from rainbear_dask.resources.limits import shard_limit, stored_limit

CHUNK_LIMIT = 2**31
"""Bytes of a chunk; what blosc can hold."""


@dataclass(frozen=True)
class ChunkedArray:
    """An array whose chunks are decoded here, wherever they are.

    Parameters
    ----------
    meta : ArrayMeta
        What is known of it.
    path : str
        Its own, in the store.
    documents : tuple of str
        Keys of which one is there as long as the array is: a chunk is only missing if its array is not.
    encode_chunk_key : callable
        From the index of a chunk, or of a shard, to its name below the array's path.
    fill_value
        What a missing chunk holds.
    chunk_form : ChunkForm
        How chunks are stored.
    index_form : IndexForm or None
        How the indexes of shards are, if there are shards.
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
        """The grid of the stored objects: shards, or chunks."""
        return self.meta.grid.stored

    @property
    def stored_limit(self) -> int:
        """Most bytes that what is stored together may have and be read at once."""
        if self.index_form is None:
            return stored_limit(self.meta.chunk_bytes)
        return shard_limit(prod(self.stored.chunks) * self.meta.itemsize, prod(self.index_form.counts))

    def key(self, index: tuple[int, ...]) -> str:
        """Name of a chunk, or of a shard, in the store."""
        return join_path(self.path, self.encode_chunk_key(index))

    def key_of(self, numbers: Sequence[str]) -> str:
        """`key`, of an index whose numbers are texts already."""
        prefix, separator = self._key_form
        return prefix + separator.join(numbers) if separator else self.key(tuple(map(int, numbers)))

    @cached_property
    def _key_form(self) -> tuple[str, str]:
        """What stands before the numbers of an index in a key, and what between them; nothing if keys are of another form."""
        probe = tuple(range(11, 11 + len(self.stored.dims)))
        key = self.key(probe)
        for separator in ("/", ".") if probe else ():
            if key.endswith(tail := separator.join(map(str, probe))):
                return key[: -len(tail)], separator
        return "", ""

    def decode(self, raw: Buffer, inside: Region, out: npt.NDArray[Any], scratch: Scratch) -> None:
        """Decode a part of a chunk, at once to where it goes if that is the whole and one piece of memory.

        Parameters
        ----------
        raw : ndarray of uint8
            The chunk as it is stored.
        inside : Region
            What is wanted of it.
        out : ndarray
            Where that goes.
        scratch : Scratch
            What to decode in.
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
        most: int = 0,
    ) -> None:
        """Decode a part of a shard.

        Parameters
        ----------
        spans : ndarray of uint64
            Its index, as `IndexForm.spans` gives it.
        read : callable
            Gives bytes of the shard, of where they start and how many they are, until it is called again.
        inside, out, scratch
            As in `decode`.
        most : int
            Bytes up to which chunks that stand one behind the other are read together.
        """
        form: Any = self.index_form
        cells = self.meta.grid.parts_along(inside)
        located = form.located(spans, [(along[0][0], along[-1][0] + 1) for along in cells])
        parts = product(*([(slice(*part), place) for _, part, place in along] for along in cells))
        todo = [(span, steps) for span, steps in zip(located, parts, strict=True) if span is not None]
        if len(todo) < len(located):
            out[...] = self.fill_value
        todo.sort(key=lambda one: one[0])  # writers need not put them in C order, but mostly one behind the other
        put, at = self._putter(out, scratch), 0
        while at < len(todo):
            (first, last), until = todo[at][0], at + 1
            while until < len(todo) and todo[until][0][0] == last and todo[until][0][1] - first <= most:
                last, until = todo[until][0][1], until + 1
            raw = read(first, last - first)
            for (start, stop), steps in todo[at:until]:
                put(
                    raw[start - first : stop - first],
                    tuple([part for part, _ in steps]),
                    tuple([place for _, place in steps]),
                )
            at = until

    def _putter(
        self, out: npt.NDArray[Any], scratch: Scratch
    ) -> Callable[[Buffer, tuple[slice, ...], tuple[slice, ...]], None]:
        """What decodes a part of a chunk to a place; of small chunks, what they have in common is made once."""
        form, meta = self.chunk_form, self.meta
        if meta.chunk_bytes >= SMALL:

            def put_large(raw: Buffer, part: tuple[slice, ...], place: tuple[slice, ...]) -> None:
                inside = tuple([(along.start, along.stop) for along in part])
                self.decode(raw, inside, out[(*cast(Any, place), ...)], scratch)

            return put_large
        decode, decoded = form.decode, scratch.decoded(meta.chunk_bytes)
        chunk = form.values(decoded, meta.chunks)

        def put(raw: Buffer, part: tuple[slice, ...], place: tuple[slice, ...]) -> None:
            decode(raw, decoded)
            out[place] = chunk[part]

        return put


@remembered(2**24, lambda arguments, _: document_bytes(arguments[1].document))
def chunked_array(group: str, meta: ArrayMeta) -> ChunkedArray | None:
    """An array of a group as it is decoded here; None where only zarr knows how."""
    metadata, indexes = array_metadata(meta.document), None
    form = chunk_form(metadata)
    if form is None or meta.chunk_bytes > CHUNK_LIMIT:
        return None
    if meta.shards is not None:
        sharding = metadata.codecs[0]  # type: ignore[union-attr]  # of v3
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
