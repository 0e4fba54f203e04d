"""Values that several tasks or queries need: read once per process, cached within the setting ``cache-bytes``.

Of arrays that many tasks share, coordinates above all, the cache holds stored values block by block. Any part of the array
is assembled from these blocks, also from blocks that other parts have left. Of data variables it holds only the chunks
that small queries of a backend touched. Decoded values are there for columns that a plan needed as a whole.
"""

import sys
from collections.abc import Callable, Collection, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.chunks.read import read_regions
from rainbear_dask.indexing.chunk_grid import ChunkGrid, Region
from rainbear_dask.logs import logger
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.resources.buffers import POOL_SLACK
from rainbear_dask.resources.cache import ByteLRU, bytes_of_array
from rainbear_dask.resources.limits import WHOLE_VALUES
from rainbear_dask.resources.openings import when_gone
from rainbear_dask.resources.settings import num_bytes
from rainbear_dask.storage.spec import StoreSpec

Values = npt.NDArray[Any]
Kind = Literal["shared", "data", "decoded"]

BLOCK_VALUES = 2**16
"""Values of a block, about: it holds many chunks if they are short, for example on an appended time axis."""

MAX_BLOCK_VALUES = 2**24
"""Values of a block, at most: a store may declare a chunk that no memory holds, although few of its values are wanted."""

_FEW_CHUNKS = 16  # an array of so many chunks is read whole for its first and last one


class _Key(NamedTuple):
    """Names one entry.

    Parameters
    ----------
    opening_id : str
        Name of the opening of the store.
    kind : Kind
        Stored values of shared arrays or of data variables, or decoded values.
    what : str
        Path of the array, or a text that identifies array and decoding.
    block : Region
        The block of the array; empty for decoded values, which are whole.
    """

    opening_id: str
    kind: Kind
    what: str
    block: Region


_SERIES_BYTES = 2048  # of a Series beside its values
_DIMENSION_BYTES = 128  # of the range of a block along one dimension


def _sizeof(key: _Key, values: Values | pl.Series) -> int:
    if isinstance(values, np.ndarray):
        own = bytes_of_array(values)
    else:
        own = int(values.estimated_size() * POOL_SLACK) + _SERIES_BYTES
    return own + sys.getsizeof(key.what) + _DIMENSION_BYTES * len(key.block)


_LOG = logger("cache")

CACHE: ByteLRU[_Key, Any] = ByteLRU(
    max_bytes=partial(num_bytes, "cache-bytes"), sizeof=_sizeof, owner=lambda key: (key.opening_id, key.kind)
)


def read(spec: StoreSpec, requests: Sequence[tuple[ArrayMeta, Region]]) -> list[Values]:
    """Return stored values of regions of shared arrays; read all blocks that the cache lacks together.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    requests : sequence of (ArrayMeta, Region)
        Arrays of any rank, each with a region of it.

    Returns
    -------
    list of ndarray
        Each of its region's shape. The arrays are shared and must not be written to.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded.
    """
    return _read(spec, "shared", requests)


def read_chunks(spec: StoreSpec, requests: Sequence[tuple[ArrayMeta, Region]]) -> list[Values]:
    """Return stored values of regions of data variables, as `read` does; cache at most ``spec.max_chunks`` chunks."""
    return _read(spec, "data", requests)


def whole(spec: StoreSpec, array: ArrayMeta) -> Values:
    """Return all stored values of an array."""
    (values,) = read(spec, [(array, _all_of(array))])
    return values


def first_and_last_chunk(spec: StoreSpec, array: ArrayMeta) -> Values:
    """Return the stored values of the first and the last chunk of an array, flat; all values of a short array."""
    if array.num_chunks <= _FEW_CHUNKS:
        return whole(spec, array).reshape(-1)
    grid = array.grid
    ends = [grid.extent([0] * len(grid.axes)), grid.extent([axis.num_chunks - 1 for axis in grid.axes])]
    return np.concatenate([values.reshape(-1) for values in read(spec, [(array, end) for end in ends])])


def prefetch(spec: StoreSpec, arrays: Sequence[ArrayMeta]) -> None:
    """Read arrays of at most ``WHOLE_VALUES`` values into the cache, all at the same time."""
    requests = [(array, _all_of(array)) for array in arrays if prod(array.shape) <= WHOLE_VALUES]
    _load_blocks(spec, "shared", [(array, block) for array, whole in requests for block in _blocks(array, whole)])


def decoded(spec: StoreSpec, name: str, decode: Callable[[], pl.Series]) -> pl.Series:
    """Return the cached decoded values of a column; decode them if the cache lacks them.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    name : str
        Identifies the array and its decoding.
    decode : callable
        Returns the decoded values.
    """
    values: pl.Series
    (values,) = CACHE.get_all([_decoded_key(spec, name)], lambda _: [decode()], spec.max_cached)
    return values


def is_decoded(spec: StoreSpec, name: str) -> bool:
    """Whether the cache holds the values that `decoded` returns for a name."""
    return _decoded_key(spec, name) in CACHE


def usage(openings: Collection[str], variables: Collection[str] = ()) -> dict[str, int]:
    """Return what this process caches of some openings of stores; picklable, for workers too.

    Parameters
    ----------
    openings : collection of str
        Their names: ``StoreSpec.opening_id``.
    variables : collection of str
        Paths of the arrays that are not coordinates.

    Returns
    -------
    dict of str to int
        ``coord_entries`` and ``var_entries``: number of cached blocks of about 65,536 values or one chunk. ``bytes``:
        their memory. ``hits`` and ``misses``: number of blocks, stored or decoded, that the cache had, and of stored
        blocks that had to be read.
    """
    owners = [(opening_id, kind) for opening_id in openings for kind in get_args(Kind)]
    sizes = {key: size for owner in owners for key, size in CACHE.sizes(owner).items()}
    stored = [key for key in sizes if key.kind != "decoded"]
    var_entries = sum(key.kind == "data" or key.what in variables for key in stored)
    return {
        "coord_entries": len(stored) - var_entries,
        "var_entries": var_entries,
        "bytes": sum(sizes.values()),
        "hits": sum(CACHE.hits[owner] for owner in owners),
        "misses": sum(CACHE.misses[owner] for owner in owners if owner[1] != "decoded"),
    }


def forget(openings: Collection[str]) -> None:
    """Drop what this process caches of some openings of stores."""
    for opening_id in openings:
        for kind in get_args(Kind):
            CACHE.forget((opening_id, kind))


def _forget_soon(opening_id: str) -> None:
    for kind in get_args(Kind):
        CACHE.forget_soon((opening_id, kind))


when_gone(_forget_soon)


def _decoded_key(spec: StoreSpec, name: str) -> _Key:
    return _Key(spec.key(), "decoded", name, ())


def _read(spec: StoreSpec, kind: Kind, requests: Sequence[tuple[ArrayMeta, Region]]) -> list[Values]:
    met = [_blocks(array, region, kind) for array, region in requests]
    arrays = [array for array, _ in requests]
    found = _load_blocks(spec, kind, [(a, block) for a, blocks in zip(arrays, met, strict=True) for block in blocks])
    return [
        _assemble(array, region, {block: found[array.path, block] for block in blocks})
        for (array, region), blocks in zip(requests, met, strict=True)
    ]


def _load_blocks(
    spec: StoreSpec, kind: Kind, wanted: Sequence[tuple[ArrayMeta, Region]]
) -> dict[tuple[str, Region], Values]:
    """Return blocks by path and region; those that the cache lacks are read together."""
    by_key = {_Key(spec.key(), kind, array.path, block): (array, block) for array, block in wanted}

    def load(keys: Sequence[_Key]) -> list[Values]:
        _LOG.debug("the cache lacks %s of %s pieces of %s", len(keys), len(wanted), spec.label)
        loaded = read_regions(spec, [by_key[key] for key in keys])
        for values in loaded:
            values.flags.writeable = False  # callers share them
        return loaded

    found = CACHE.get_all(list(by_key), load, spec.max_chunks if kind == "data" else spec.max_cached)
    return {(array.path, block): values for (array, block), values in zip(by_key.values(), found, strict=True)}


def _assemble(array: ArrayMeta, region: Region, blocks: dict[Region, Values]) -> Values:
    """Return a region of an array from the blocks that it touches; a view if that is one block."""
    if len(blocks) == 1:
        ((block, values),) = blocks.items()
        return np.asarray(values[_slices(region, block)])  # without a dimension, NumPy returns a value, not an array
    out = np.empty([stop - start for start, stop in region], dtype=array.dtype)
    for block, values in blocks.items():
        met = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(region, block, strict=True))
        out[_slices(met, region)] = values[_slices(met, block)]
    return out


def _blocks(array: ArrayMeta, region: Region, kind: Kind = "shared") -> list[Region]:
    """Return the blocks of an array that a region touches."""
    grid = _block_grid(array) if kind == "shared" else array.grid
    return [grid.extent(index) for index in product(*grid.touched(region))]


def _block_grid(array: ArrayMeta) -> ChunkGrid:
    """Return the grid of the blocks of a shared array: chunks, several together along the first dimension."""
    lengths = list(array.chunks)
    if lengths:
        lengths[0] *= max(1, BLOCK_VALUES // max(prod(lengths), 1))
        lengths[0] = max(1, min(lengths[0], MAX_BLOCK_VALUES // max(prod(lengths[1:]), 1)))
    return array.grid.with_chunks(lengths)


def _all_of(array: ArrayMeta) -> Region:
    return tuple((0, n) for n in array.shape)


def _slices(part: Region, whole: Region) -> tuple[slice, ...]:
    """Return the slices of a part in a whole that starts elsewhere."""
    return tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(part, whole, strict=True))
