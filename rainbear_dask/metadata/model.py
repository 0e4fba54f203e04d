"""Metadata of a store as plain frozen data; nothing here opens an array or reads a chunk."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np

from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.storage.spec import StoreSpec

MAX_ITEM_BYTES = 2**24
"""Bytes of one value; a longer text would be larger than any chunk should be."""


@dataclass(frozen=True, slots=True)
class ArrayMeta:
    """One array of a group, as its metadata document describes it.

    Parameters
    ----------
    path : str
        Path below the scan's group: ``t2m``, or ``child/t2m`` in a tree; ``../time`` for a coordinate of a group above.
    dims : tuple of str
        Name of each dimension, in array order.
    shape, chunks : tuple of int
        Lengths of the array and of a decoded chunk (the inner chunk of a shard), along each dimension.
    shards : tuple of int or None
        Lengths of a shard, each a multiple of the chunk's; None without shards.
    dtype : numpy.dtype
        Stored type in the machine's byte order; ``object`` or ``StringDType`` for variable-length strings.
    fill_value
        Value of a missing chunk: a NumPy scalar of ``dtype``, a str, or None if the store has none.
    attributes : mapping
        User attributes, JSON types.
    document : str
        The array's metadata document (JSON), from which the array is opened without a request.
    letters : ArrayMeta or None
        For texts that are stored letter by letter: the array as stored, with the letters along a last dimension.
    """

    path: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None
    dtype: np.dtype[Any]
    fill_value: Any = field(compare=False)
    attributes: Mapping[str, Any] = field(hash=False)
    document: str = field(repr=False)
    zarr_format: int = 3
    letters: "ArrayMeta | None" = None

    @property
    def name(self) -> str:
        """Return the last part of the path."""
        return self.path.rpartition("/")[2]

    @property
    def grid(self) -> ChunkGrid:
        """The chunk grid; arrays with equal grids share one object."""
        return _shared_grid(self.dims, self.shape, self.chunks, self.shards)

    @property
    def sizes(self) -> Mapping[str, int]:
        """Length of each dimension, by name."""
        return self.grid.sizes

    @property
    def itemsize(self) -> int:
        """Return the decoded bytes of one value; an estimate for strings of variable length."""
        return self.dtype.itemsize or 16

    @property
    def chunk_bytes(self) -> int:
        """Return the decoded bytes of a whole chunk; for texts, of all chunks of their letters."""
        if self.letters is not None:
            letters = self.letters.grid.axes[-1]
            return prod(self.chunks) * letters.num_chunks * letters.chunk
        return prod(self.chunks) * self.itemsize

    @property
    def num_chunks(self) -> int:
        """Chunks in the whole array."""
        return self.grid.num_chunks


_shared_grid = lru_cache(maxsize=2**12)(ChunkGrid)  # no field of the array, because tasks carry arrays


@dataclass(frozen=True, slots=True)
class StoreMeta:
    """A group, and all groups and arrays below it, in store order.

    Parameters
    ----------
    spec : StoreSpec
        Recipe of the group.
    arrays : mapping of str to ArrayMeta
        Readable arrays by path, in store order.
    groups : mapping of str to mapping
        Attributes of the group itself (path "") and of each group below it, by path.
    skipped : mapping of str to str
        Reason for each array that cannot be read, by path.
    above : mapping of str to sequence of ArrayMeta
        Coordinates of its dimensions in the groups above, by dimension, nearest first.
    """

    spec: StoreSpec
    arrays: Mapping[str, ArrayMeta]
    groups: Mapping[str, Mapping[str, Any]]
    skipped: Mapping[str, str]
    above: Mapping[str, Sequence[ArrayMeta]] = field(default_factory=dict)
