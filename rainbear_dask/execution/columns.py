"""Columns of a task: stored values at the wanted positions, decoded."""

from collections.abc import Mapping, Sequence
from functools import cache, partial
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.chunks import cache as value_cache
from rainbear_dask.chunks import read as storage
from rainbear_dask.indexing.chunk_grid import Region
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Selection
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column
from rainbear_dask.table.tidy import CellMask


def read_columns(
    spec: StoreSpec, columns: Sequence[Column], index: Mapping[str, IndexSet], cells: CellMask
) -> dict[str, pl.Series]:
    """Read and decode columns at some positions.

    Parameters
    ----------
    spec : StoreSpec
        The store of the arrays.
    columns : sequence of Column
        Columns to read. All requests are in flight together.
    index : mapping of str to IndexSet
        Positions along each dimension of the table, in row order.
    cells : CellMask
        The wanted cells of the product of all positions.

    Returns
    -------
    dict of str to Series
        Values of each column at the product of the positions of its own dimensions, flat in C order. Values from chunks
        without a wanted cell are undefined.
    """
    regions = cache(partial(_regions, index, cells))  # the same for all columns of one grid
    stored = [(c, c.array, regions(c.dims, c.array.chunks, _chunk_cost(c.array))) for c in columns if c.array]
    own, kept, shared = list[_Request](), list[_Request](), list[_Request]()
    for column, array, parts in stored:
        requests = [(column.name, array, region) for region in parts]
        if column.role != "data" or len(column.dims) < len(index):
            shared += requests  # other tasks need the same regions of it
        elif spec.max_chunks and all(_is_small_part(*request) for request in requests):
            kept += requests
        else:
            own += requests
    if sum(array.chunk_bytes for _, array, _ in kept) > MAX_CACHED_CHUNK_BYTES:
        own, kept = own + kept, []
    pieces: dict[str, list[npt.NDArray[Any]]] = {}
    for read, requests in ((value_cache.read, shared), (value_cache.read_chunks, kept), (storage.read_regions, own)):
        found = read(spec, [request[1:] for request in requests]) if requests else []
        for (name, *_), piece in zip(requests, found, strict=True):
            pieces.setdefault(name, []).append(piece)
    values = {
        c.name: pl.Series(c.name, index[c.dims[0]].positions())
        for c in columns
        if c.array is None or c.decoding is None
    }
    for column, _, parts in stored:
        if column.decoding is not None:
            whole = _assemble([index[dim] for dim in column.dims], parts, pieces.pop(column.name))
            values[column.name] = column.decoding.decode(whole).alias(column.name)
    return values


_Request = tuple[str, ArrayMeta, Region]

MAX_CACHED_CHUNK_BYTES = 16 * 2**20
"""Decoded bytes of chunks that one task may cache for later queries. A large query would evict everything else."""

_SMALL_PART_RATIO = 16
"""A region is a small part of its chunk if it has at most this fraction of the chunk's cells."""


def _is_small_part(_: str, array: ArrayMeta, region: Region) -> bool:
    """Whether so little of a chunk is wanted that the next query may well want another part of it."""
    return _SMALL_PART_RATIO * prod(stop - start for start, stop in region) <= prod(array.chunks)


_REQUEST_COST_BYTES = 2**19
"""Cost of one more region or stored object, as the number of bytes that are decoded in the same time."""


def _chunk_cost(array: ArrayMeta) -> int:
    """Return the cost of reading a chunk, in decoded bytes. Chunks of a shard are mostly read together."""
    return array.chunk_bytes if array.shards else max(array.chunk_bytes, _REQUEST_COST_BYTES)


def _regions(
    index: Mapping[str, IndexSet], cells: CellMask, dims: tuple[str, ...], sizes: tuple[int, ...], chunk_cost: int
) -> list[Region]:
    """Return the regions of an array to read for some cells; ``dims`` and ``sizes`` describe its chunk grid.

    No chunk lies in two regions. Chunks without a wanted cell are skipped if that saves time.
    """
    along = [index[dim] for dim in dims]
    box = list(product(*(one.runs(size) for one, size in zip(along, sizes, strict=True))))
    if cells.is_whole:
        return box
    chunks = [one.chunks(size).positions() for one, size in zip(along, sizes, strict=True)]
    if max(map(len, chunks), default=1) == 1:
        return box
    used = cells.project(dims)
    for axis, size in enumerate(sizes):
        used = np.logical_or.reduceat(used, along[axis].count_below(chunks[axis] * size), axis=axis)
    parts: list[Region] = []
    for some in Selection.where(dims, used).boxes:
        found = (IndexSet.from_positions(those[some[dim].positions()]) for dim, those in zip(dims, chunks, strict=True))
        spans = (one.within_chunks(f, size).runs(size) for one, f, size in zip(along, found, sizes, strict=True))
        parts += product(*spans)
    spared = used.size - np.count_nonzero(used)
    return parts if (len(parts) - len(box)) * _REQUEST_COST_BYTES < spared * chunk_cost else box


def _assemble(
    index: Sequence[IndexSet], regions: Sequence[Region], pieces: Sequence[npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Take the wanted positions from regions of an array; positions outside of all regions are undefined."""
    positions = [along.positions() for along in index]
    shape = tuple(map(len, positions))
    taken = []
    for region, piece in zip(regions, pieces, strict=True):
        place, part = list[slice](), piece
        for axis, (wanted, (start, stop)) in enumerate(zip(positions, region, strict=True)):
            first, last = np.searchsorted(wanted, (start, stop))
            place.append(slice(first, last))
            if last - first < stop - start:
                part = part.take(wanted[first:last] - start, axis=axis)
        taken.append((tuple(place), part))
    if len(taken) == 1 and taken[0][1].shape == shape:  # else chunks at an end were skipped
        return taken[0][1]
    any_value = pieces[0].flat[0]  # a stored value, so that decoding it cannot fail
    whole = np.full(shape, any_value, dtype=pieces[0].dtype)
    for where, part in taken:
        whole[where] = part
    return whole
