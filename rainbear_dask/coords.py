"""Arrays that many tasks need the same parts of, coordinates above all: read once per process, kept while there is room.

Kept are stored values, chunk by chunk, so that any part of the array can be cut from what any other part has left.
"""

from collections.abc import Sequence
from concurrent.futures import ThreadPoolExecutor
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask import storage
from rainbear_dask.cache import ByteLRU
from rainbear_dask.metadata import ArrayMeta, Region, StoreSpec
from rainbear_dask.table import Column

_BLOCK = (
    65_536  # values kept as one piece, about: many chunks where chunks are short, as an appended time axis has them
)

CACHE: ByteLRU[tuple[StoreSpec, str, Region], npt.NDArray[Any]] = ByteLRU(
    max_bytes=256 * 2**20, sizeof=lambda values: values.nbytes + 100
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
    lengths = list(array.chunks)
    if lengths:
        lengths[0] *= max(1, _BLOCK // max(prod(lengths), 1))
    blocks = [
        [(first, min(first + length, n)) for first in range(start // length * length, stop, length)]
        for (start, stop), length, n in zip(region, lengths, array.shape, strict=True)
    ]
    pieces = {block: _block(spec, array, block) for block in product(*blocks)}
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
    if len(arrays) > 1:
        with ThreadPoolExecutor(len(arrays)) as pool:
            list(pool.map(lambda array: whole(spec, array), arrays))


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
    return read(spec, array, tuple((0, n) for n in array.shape))


def ends(spec: StoreSpec, array: ArrayMeta) -> npt.NDArray[Any]:
    """Stored values of an array's first and last chunk, flat; of all of a short array."""
    if array.num_chunks <= _FEW_CHUNKS:
        return whole(spec, array).reshape(-1)
    first: Region = tuple((0, min(c, n)) for c, n in zip(array.chunks, array.shape, strict=True))
    last: Region = tuple(((n - 1) // c * c, n) for c, n in zip(array.chunks, array.shape, strict=True))
    return np.concatenate([read(spec, array, part).reshape(-1) for part in (first, last)])


_FEW_CHUNKS = 16


def _block(spec: StoreSpec, array: ArrayMeta, block: Region) -> npt.NDArray[Any]:
    def load() -> npt.NDArray[Any]:
        (values,) = storage.read_regions(spec, [(array, block)])
        return values

    return CACHE.get((spec, array.path, block), load)


def _slices(part: Region, whole: Region) -> tuple[slice, ...]:
    """Where a part lies in a whole that starts elsewhere."""
    return tuple(slice(a - c, b - c) for (a, b), (c, _) in zip(part, whole, strict=True))
