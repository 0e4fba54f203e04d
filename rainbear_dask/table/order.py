"""Row order: a function of the table alone.

Rows are in C order of blocks of whole chunks, with C order inside each block. If blocks of 64 MiB, decoded, span all
dimensions but the first, row order is C order of the table, and the table is one block. Filters, columns, limits,
settings, threads and clusters have no influence.
"""

from collections.abc import Callable, Mapping, Sequence
from itertools import product
from math import prod

import numpy as np
import numpy.typing as npt

from rainbear_dask.indexing.chunk_grid import ChunkGrid, common_lengths, finest_lengths, longest_shards, touched_chunks
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Box, Selection
from rainbear_dask.metadata.model import ArrayMeta

BLOCK_BYTES = 64 * 2**20
"""Decoded bytes of a block, unless chunks are larger. A constant and no setting, because row order depends on it."""

MAX_UNIT_BYTES = 256 * 2**20
"""Decoded bytes of the common unit of several chunk grids. A larger unit is cut, and chunks are read more than once."""

FRAME_RATIO = 4
"""Bytes of the frame of a block or task for each decoded byte, at most: coordinates and repeats add to the frame."""

_MAX_TRIED_BLOCKS = 2**13
"""Blocks that are compared, at most, if the common unit of chunk grids is too large: some hundredths of a second."""


def block_lengths(sizes: Mapping[str, int], arrays: Sequence[ArrayMeta], row_bytes: int) -> dict[str, int]:
    """Return the lengths of the blocks that row order follows.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of each dimension of the table, in row order.
    arrays : sequence of ArrayMeta
        All data variables of the table.
    row_bytes : int
        Bytes of a row with all columns of the table.

    Returns
    -------
    dict of str to int
        Length along each dimension. If they are the lengths of the table, rows are in C order.
    """
    dims = list(sizes)
    spanning = [array for array in arrays if len(array.dims) == len(dims)] or list(arrays)
    # a query may read all variables together, so a chunk of any of them lies in one block
    # (workers cache variables of fewer dimensions, so a cut across their chunks costs nothing)
    grids = list({(a.dims, a.chunks): a.grid for a in spanning}.values())
    unit = common_lengths(sizes, grids) if arrays else dict.fromkeys(sizes, 1)
    shards = longest_shards(dims, [a.grid for a in spanning])

    def num_bytes(lengths: Mapping[str, int]) -> int:
        decoded = sum(prod(lengths[d] for d in a.dims) * a.itemsize for a in spanning)
        return max(decoded, prod(lengths.values()) * row_bytes // FRAME_RATIO, 1)

    if len(grids) > 1 and num_bytes(unit) > MAX_UNIT_BYTES:
        unit = _least_rereading(sizes, unit, grids, num_bytes)
    left = BLOCK_BYTES // num_bytes(unit)
    lengths = dict(unit)
    for dim in reversed(dims):
        units = max(len(touched_chunks(0, sizes[dim], unit[dim])), 1)
        most = max(1, min(left, units))
        shard = shards[dim] // unit[dim]
        if most < units and shard > 1:
            most = most // shard * shard if most >= shard else max(k for k in range(1, most + 1) if shard % k == 0)
        left //= most
        lengths[dim] = max(min(most * unit[dim], sizes[dim]), 1)
    first = next((axis for axis, dim in enumerate(dims) if lengths[dim] > 1), len(dims))
    if all(lengths[dim] >= sizes[dim] for dim in dims[first + 1 :]):
        return {dim: max(n, 1) for dim, n in sizes.items()}  # C order: no block boundary may cut a task short
    return lengths


def _least_rereading(
    sizes: Mapping[str, int],
    unit: Mapping[str, int],
    grids: Sequence[ChunkGrid],
    num_bytes: Callable[[Mapping[str, int]], int],
) -> dict[str, int]:
    """Return the block, within `MAX_UNIT_BYTES`, that minimizes the reads per chunk of the grid that is read most."""
    tried = []
    for dim, least in finest_lengths(sizes, grids).items():
        parts = {max(unit[dim] // number // least, 1) * least for number in range(1, 9)}
        doubled = {least * 2**k for k in range((unit[dim] // least).bit_length())}
        tried.append(sorted({min(length, unit[dim]) for length in parts | doubled | {unit[dim]}}))
    each = int(_MAX_TRIED_BLOCKS ** (1 / len(tried)))
    tried = [lengths[:: -(-len(lengths) // each)] for lengths in tried]
    found, best = dict(unit), None
    for lengths in product(*tried):
        block = dict(zip(sizes, lengths, strict=True))
        if num_bytes(block) <= MAX_UNIT_BYTES:
            reread = [grid.reads_per_chunk(block) for grid in grids]
            cost = (max(reread), sum(reread), -prod(lengths))
            if best is None or cost < best:
                found, best = block, cost
    return found


def first_rows(sizes: Mapping[str, int], lengths: Mapping[str, int], count: int) -> Selection:
    """Select exactly the first rows of a table.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of each dimension of the table, in row order.
    lengths : mapping of str to int
        Lengths of its blocks.
    count : int
        Number of rows; if the table has fewer, all.

    Returns
    -------
    Selection
        At most two boxes for each dimension: whole blocks, and whole rows of the last block.
    """
    if count >= prod(sizes.values()):
        return Selection.everything(exact=True)
    boxes: list[Box] = []
    spans = {dim: (0, n) for dim, n in sizes.items()}  # the part not yet divided
    for steps in (lengths, dict.fromkeys(sizes, 1)):
        for dim, step in steps.items():
            start, stop = spans[dim]
            per_position = prod(high - low for d, (low, high) in spans.items() if d != dim)
            reached = min(start + count // (per_position * step) * step, stop) if per_position else stop
            if reached > start:
                box = {**spans, dim: (start, reached)}
                boxes.append({d: IndexSet.span(*span) for d, span in box.items() if span != (0, sizes[d])})
                count -= (reached - start) * per_position
            spans[dim] = (reached, min(reached + step, stop))
            if not count:
                return Selection(tuple(boxes), exact=True)
    return Selection(tuple(boxes), exact=True)


def in_order(index: Sequence[IndexSet], lengths: Sequence[int]) -> bool:
    """Whether C order of a product of positions is row order, for blocks of some lengths."""
    several = False  # positions of one block along an earlier dimension
    for positions, length in zip(index, lengths, strict=True):
        blocks = len(positions.chunks(length))
        if several and blocks > 1:
            return False
        several = several or len(positions) > blocks
    return True


def sorted_rows(
    index: Sequence[IndexSet], lengths: Sequence[int], rows: npt.NDArray[np.int64]
) -> npt.NDArray[np.int64]:
    """Return the permutation that puts cells of a product of positions in row order.

    Parameters
    ----------
    index : sequence of IndexSet
        Positions along each dimension.
    lengths : sequence of int
        Lengths of the blocks.
    rows : ndarray of int64, shape (k,)
        Numbers of the cells in C order of the product, ascending.

    Returns
    -------
    ndarray of int64, shape (k,)
        Indices into ``rows``, in row order.
    """
    block, left, stride = np.zeros(len(rows), dtype=np.int64), rows, 1
    for positions, length in zip(reversed(index), reversed(lengths), strict=True):
        left, at = np.divmod(left, len(positions))
        numbers = np.unique(positions.positions() // length, return_inverse=True)[1]
        block += numbers[at] * stride
        stride *= int(numbers[-1]) + 1
    order: npt.NDArray[np.int64] = np.argsort(block.astype(np.min_scalar_type(stride)), kind="stable")
    return order
