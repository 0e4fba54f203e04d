"""Arrays that many tasks need the same parts of, coordinates above all: read once per process, kept while there is room.

Kept are stored values, chunk by chunk, so that any part of the array can be cut from what any other part has left.
"""

from collections.abc import Collection, Iterator, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask import storage
from rainbear_dask.cache import ByteLRU
from rainbear_dask.configuration import num_bytes
from rainbear_dask.metadata import ArrayMeta, Region, StoreSpec
from rainbear_dask.table import Column

# values kept as one piece, about: many chunks where chunks are short, as an appended time axis has them
_BLOCK = 65_536

CACHE: ByteLRU[tuple[StoreSpec, str, Region], npt.NDArray[Any]] = ByteLRU(
    max_bytes=partial(num_bytes, "cache-bytes"),
    sizeof=lambda values: values.nbytes + 100,
    owner=lambda key: key[0].opened,
)


def read(spec: StoreSpec, array: ArrayMeta, region: Region) -> npt.NDArray[Any]:
    """Stored values of a part of an array, from the cache where they are there.

    Parameters
    ----------
    spec : StoreSpec
        Where the array is.
    array : ArrayMeta
        Of any rank.
    region : tuple of (int, int)
        Half-open range of positions along each dimension.

    Returns
    -------
    ndarray
        Of the region's shape. Not to be written to.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded.
    """
    pieces = {block: _block(spec, array, block) for block in _blocks(array, region)}
    if len(pieces) == 1:
        ((block, values),) = pieces.items()
        part: npt.NDArray[Any] = values[_slices(region, block)]
        return np.asarray(part)  # without a dimension, NumPy gives the value itself
    out = np.empty([stop - start for start, stop in region], dtype=array.dtype)
    for block, values in pieces.items():
        met = tuple((max(a, c), min(b, d)) for (a, b), (c, d) in zip(region, block, strict=True))
        out[_slices(met, region)] = values[_slices(met, block)]
    return out


def prefetch(spec: StoreSpec, arrays: Sequence[ArrayMeta]) -> None:
    """Read some arrays whole into the cache, all at the same time."""
    missing = [a for a in arrays if any((spec, a.path, block) not in CACHE for block in _blocks(a, _all_of(a)))]
    if len(missing) > 1:
        with ThreadPoolExecutor(len(missing)) as pool:
            list(pool.map(lambda array: whole(spec, array), missing))


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
    """
    if column.array is None or column.decoding is None:
        return pl.int_range(length, dtype=pl.Int64, eager=True).alias(column.name)
    return column.decoding.decode(whole(spec, column.array)).alias(column.name)


def whole(spec: StoreSpec, array: ArrayMeta) -> npt.NDArray[Any]:
    """All stored values of an array."""
    return read(spec, array, _all_of(array))


def ends(spec: StoreSpec, array: ArrayMeta) -> npt.NDArray[Any]:
    """Stored values of an array's first and last chunk, flat; of all of a short array."""
    if array.num_chunks <= _FEW_CHUNKS:
        return whole(spec, array).reshape(-1)
    first: Region = tuple((0, min(c, n)) for c, n in zip(array.chunks, array.shape, strict=True))
    last: Region = tuple(((n - 1) // c * c, n) for c, n in zip(array.chunks, array.shape, strict=True))
    return np.concatenate([read(spec, array, part).reshape(-1) for part in (first, last)])


_FEW_CHUNKS = 16


def usage(openings: Collection[str], variables: Collection[str] = ()) -> dict[str, int]:
    """Say what this process keeps of some openings of stores; a top-level function of plain data, for workers too.

    Parameters
    ----------
    openings : collection of str
        Which: ``StoreSpec.opened``.
    variables : collection of str
        Paths of the arrays that are not coordinates.

    Returns
    -------
    dict of str to int
        ``coord_entries`` and ``var_entries``: pieces kept, of about 65,536 values or one chunk; their ``bytes``;
        ``hits`` and ``misses``: pieces that were there, and that were read, since something is kept.
    """
    sizes = {key: size for opened in openings for key, size in CACHE.sizes(opened).items()}
    var_entries = sum(path in variables for _, path, _ in sizes)
    return {
        "coord_entries": len(sizes) - var_entries,
        "var_entries": var_entries,
        "bytes": sum(sizes.values()),
        "hits": sum(CACHE.hits[opened] for opened in openings),
        "misses": sum(CACHE.misses[opened] for opened in openings),
    }


def forget(openings: Collection[str]) -> None:
    """Drop what this process keeps of some openings of stores."""
    for opened in openings:
        CACHE.forget(opened)


def _all_of(array: ArrayMeta) -> Region:
    return tuple((0, n) for n in array.shape)


def _blocks(array: ArrayMeta, region: Region) -> Iterator[Region]:
    """Pieces that are kept of an array and that a region meets."""
    lengths = list(array.chunks)
    if lengths:
        lengths[0] *= max(1, _BLOCK // max(prod(lengths), 1))
    along = [
        [(first, min(first + length, n)) for first in range(start // length * length, stop, length)]
        for (start, stop), length, n in zip(region, lengths, array.shape, strict=True)
    ]
    return product(*along)


def _block(spec: StoreSpec, array: ArrayMeta, block: Region) -> npt.NDArray[Any]:
    def load() -> npt.NDArray[Any]:
        (values,) = storage.read_regions(spec, [(array, block)])
        return values

    return CACHE.get((spec, array.path, block), load, spec.max_cached)


def _slices(part: Region, whole: Region) -> tuple[slice, ...]:
    """Where a part lies in a whole that starts elsewhere."""
    return tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(part, whole, strict=True))
