"""Values that several tasks or questions need: read once per process, kept while there is room.

Of arrays that many tasks need the same parts of, coordinates above all, stored values are kept, piece by piece, so that
any part of the array can be cut from what any other part has left; and decoded ones where a plan asked for the whole. Of
data variables only what a backend's small questions touched.
"""

import sys
from collections.abc import Collection, Iterator, Sequence
from functools import partial
from itertools import product
from math import prod
from typing import Any, Literal, NamedTuple, get_args

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.chunks import read as storage
from rainbear_dask.coding.cf import Decoding
from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.indexing.chunk_grid import Region
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.resources.buffers import LOOSE
from rainbear_dask.resources.cache import ByteLRU, bytes_of_array, when_gone
from rainbear_dask.resources.limits import WHOLE_VALUES
from rainbear_dask.resources.settings import num_bytes
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column

Values = npt.NDArray[Any]
Kind = Literal["shared", "data", "decoded"]


class _Key(NamedTuple):
    opening_id: str
    """Name of the opening."""
    kind: Kind
    what: str | Decoding
    """Path of the array, or how it is decoded."""
    block: Region


def _sizeof(key: _Key, values: Values | pl.Series) -> int:
    if isinstance(values, np.ndarray):
        own = bytes_of_array(values)
    else:
        own = int(values.estimated_size() * LOOSE) + _SERIES_BYTES
    if isinstance(key.what, str):
        what = sys.getsizeof(key.what)
    else:
        what = sys.getsizeof(key.what.path) + sum(map(sys.getsizeof, key.what.fills))
    return own + what + _DIMENSION_BYTES * len(key.block)


_SERIES_BYTES = 2048  # of a Series beside its values, and of what says how it is decoded
_DIMENSION_BYTES = 128  # of a range of positions

CACHE: ByteLRU[_Key, Any] = ByteLRU(
    max_bytes=partial(num_bytes, "cache-bytes"), sizeof=_sizeof, owner=lambda key: (key.opening_id, key.kind)
)

# values kept as one piece, about: many chunks where chunks are short, as an appended time axis has them
_BLOCK = 65_536
# and at most: a chunk may be declared that no memory holds, of which a few values are wanted
_LARGEST_BLOCK = 2**24


def read(spec: StoreSpec, requests: Sequence[tuple[ArrayMeta, Region]]) -> list[Values]:
    """Stored values of parts of arrays that many tasks need; those that are not in the cache are read all together.

    Parameters
    ----------
    spec : StoreSpec
        Where the arrays are.
    requests : sequence of (ArrayMeta, Region)
        An array of any rank, and a half-open range of positions along each dimension.

    Returns
    -------
    list of ndarray
        Each of its region's shape. Not to be written to.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded.
    """
    return _read(spec, "shared", requests)


def read_chunks(spec: StoreSpec, requests: Sequence[tuple[ArrayMeta, Region]]) -> list[Values]:
    """The same of data variables, whose chunks are kept one by one, ``spec.max_chunks`` at most."""
    return _read(spec, "data", requests)


def _read(spec: StoreSpec, kind: Kind, requests: Sequence[tuple[ArrayMeta, Region]]) -> list[Values]:
    met = [list(_blocks(array, region, kind)) for array, region in requests]
    arrays = [array for array, _ in requests]
    pieces = _pieces(spec, kind, [(a, block) for a, blocks in zip(arrays, met, strict=True) for block in blocks])
    return [
        _cut(array, region, {block: pieces[array.path, block] for block in blocks})
        for (array, region), blocks in zip(requests, met, strict=True)
    ]


def _pieces(
    spec: StoreSpec, kind: Kind, wanted: Sequence[tuple[ArrayMeta, Region]]
) -> dict[tuple[str, Region], Values]:
    """Pieces by path and region, from the cache or read all together."""
    by_key = {_Key(spec.key(), kind, array.path, block): (array, block) for array, block in wanted}

    def load(keys: Sequence[_Key]) -> list[Values]:
        loaded = storage.read_regions(spec, [by_key[key] for key in keys])
        for values in loaded:
            values.flags.writeable = False  # they are given to whoever asks
        return loaded

    found = CACHE.get_all(list(by_key), load, spec.max_chunks if kind == "data" else spec.max_cached)
    return {(array.path, block): values for (array, block), values in zip(by_key.values(), found, strict=True)}


def _cut(array: ArrayMeta, region: Region, pieces: dict[Region, Values]) -> Values:
    if len(pieces) == 1:
        ((block, values),) = pieces.items()
        return np.asarray(values[_slices(region, block)])  # without a dimension, NumPy gives the value itself
    out = np.empty([stop - start for start, stop in region], dtype=array.dtype)
    for block, values in pieces.items():
        met = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(region, block, strict=True))
        out[_slices(met, region)] = values[_slices(met, block)]
    return out


def prefetch(spec: StoreSpec, columns: Sequence[Column]) -> None:
    """Read some columns whole into the cache, all at the same time."""
    arrays = [
        c.array
        for c in columns
        if c.array is not None and (c.decoding is None or _decoded_key(spec, c.decoding) not in CACHE)
    ]
    arrays = [array for array in arrays if prod(array.shape) <= WHOLE_VALUES]
    _pieces(spec, "shared", [(array, block) for array in arrays for block in _blocks(array, _all_of(array), "shared")])


def whole_column(spec: StoreSpec, column: Column, length: int) -> pl.Series:
    """All decoded values of a column.

    Parameters
    ----------
    spec : StoreSpec
        Where the array is.
    column : Column
        Of any rank.
    length : int
        Number of its values.

    Returns
    -------
    Series
        Flat in C order of the column's dimensions; the positions themselves where a dimension has no array.

    Raises
    ------
    PlanTooLargeError
        If it has more than ``WHOLE_VALUES`` values. (Then the planner leaves its filter to the workers.)
    """
    if length > WHOLE_VALUES:
        raise PlanTooLargeError(
            f"column {column.name!r} of {spec.label} has {length:,} values; {WHOLE_VALUES:,} are held at once, at most. "
            "Choose another index or filter, or a part of the rows."
        )
    array, decoding = column.array, column.decoding
    if array is None or decoding is None:
        return pl.int_range(length, dtype=pl.Int64, eager=True).alias(column.name)
    values: pl.Series
    (values,) = CACHE.get_all(
        [_decoded_key(spec, decoding)], lambda _: [decoding.decode(whole(spec, array))], spec.max_cached
    )
    return values.alias(column.name)


def whole(spec: StoreSpec, array: ArrayMeta) -> Values:
    """All stored values of an array."""
    (values,) = read(spec, [(array, _all_of(array))])
    return values


def first_and_last_chunk(spec: StoreSpec, array: ArrayMeta) -> npt.NDArray[Any]:
    """Stored values of an array's first and last chunk, flat; of all of a short array."""
    if array.num_chunks <= _FEW_CHUNKS:
        return whole(spec, array).reshape(-1)
    grid = array.grid
    ends = [grid.extent([0] * len(grid.axes)), grid.extent([axis.num_chunks - 1 for axis in grid.axes])]
    return np.concatenate([values.reshape(-1) for values in read(spec, [(array, end) for end in ends])])


_FEW_CHUNKS = 16


def usage(openings: Collection[str], variables: Collection[str] = ()) -> dict[str, int]:
    """Say what this process keeps of some openings of stores; a top-level function of plain data, for workers too.

    Parameters
    ----------
    openings : collection of str
        Which: ``StoreSpec.opening_id``.
    variables : collection of str
        Paths of the arrays that are not coordinates.

    Returns
    -------
    dict of str to int
        ``coord_entries`` and ``var_entries``: pieces kept, of about 65,536 values or one chunk; their ``bytes``;
        ``hits`` and ``misses``: pieces that were there, stored or decoded, and that were read, since something is kept.
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
    """Drop what this process keeps of some openings of stores."""
    for opening_id in openings:
        for kind in get_args(Kind):
            CACHE.forget((opening_id, kind))


def _all_of(array: ArrayMeta) -> Region:
    return tuple((0, n) for n in array.shape)


def _forget_soon(opening_id: str) -> None:
    for kind in get_args(Kind):
        CACHE.forget_soon((opening_id, kind))


when_gone(_forget_soon)


def _decoded_key(spec: StoreSpec, decoding: Decoding) -> _Key:
    return _Key(spec.key(), "decoded", decoding, ())


def _blocks(array: ArrayMeta, region: Region, kind: Kind) -> Iterator[Region]:
    """Pieces that are kept of an array and that a region meets."""
    lengths = list(array.chunks)
    if lengths and kind == "shared":
        lengths[0] *= max(1, _BLOCK // max(prod(lengths), 1))
        lengths[0] = max(1, min(lengths[0], _LARGEST_BLOCK // max(prod(lengths[1:]), 1)))
    grid = array.grid.with_chunks(lengths)
    return map(grid.extent, product(*grid.touched(region)))


def _slices(part: Region, whole: Region) -> tuple[slice, ...]:
    """Where a part lies in a whole that starts elsewhere."""
    return tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(part, whole, strict=True))
