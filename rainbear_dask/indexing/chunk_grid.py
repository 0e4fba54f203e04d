"""Regular chunk grids: the chunks that a region or a selection touches, and what several grids have in common."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import product
from math import gcd, lcm, prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rainbear_dask.indexing.blocks import Blocks
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Box, Selection

Region = tuple[tuple[int, int], ...]
"""A part of an array: the half-open range of positions along each dimension."""

PartAlong = tuple[int, tuple[int, int], slice]
"""Along one dimension: index of a chunk, the wanted range inside the chunk, its place in the region."""

Part = tuple[tuple[int, ...], Region, tuple[Any, ...]]
"""Of a chunk: its index, the wanted region inside the chunk, its place in the whole region (an index for NumPy)."""


class ChunkAxis(NamedTuple):
    """A chunk grid along one dimension.

    Parameters
    ----------
    dim : str
        Name of the dimension.
    length, chunk, shard : int
        Positions of the array, of a chunk and of a shard. Without shards, ``shard`` is 0.
    """

    dim: str
    length: int
    chunk: int
    shard: int

    @property
    def num_chunks(self) -> int:
        """Number of chunks."""
        return len(touched_chunks(0, self.length, self.chunk))


@dataclass(frozen=True)
class ChunkGrid:
    """The regular grid by which an array is cut into chunks.

    Parameters
    ----------
    dims : tuple of str
        Name of each dimension, in array order.
    shape, chunks : tuple of int
        Length of the array and of a chunk along each dimension. The chunk length is at least 1.
    shards : tuple of int, optional
        Length of a shard along each dimension, a multiple of the chunk length.

    Examples
    --------
    >>> grid = ChunkGrid(("y", "x"), (5, 4), (2, 4))
    >>> grid.touched(((1, 3), (0, 2)))
    (range(0, 2), range(0, 1))
    >>> [(index, inside) for index, inside, _ in grid.iter_chunks(((1, 3), (0, 2)))]
    [((0, 0), ((1, 2), (0, 2))), ((1, 0), ((0, 1), (0, 2)))]
    """

    dims: tuple[str, ...]
    shape: tuple[int, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None

    @cached_property
    def sizes(self) -> Mapping[str, int]:
        """Length of the array along each dimension."""
        return dict(zip(self.dims, self.shape, strict=True))

    @cached_property
    def lengths(self) -> Mapping[str, int]:
        """Length of a chunk along each dimension."""
        return dict(zip(self.dims, self.chunks, strict=True))

    @cached_property
    def axes(self) -> tuple[ChunkAxis, ...]:
        """The grid along each dimension, in array order."""
        shards = self.shards or (0,) * len(self.dims)
        return tuple(map(ChunkAxis, self.dims, self.shape, self.chunks, shards))

    @cached_property
    def stored(self) -> "ChunkGrid":
        """The grid of the stored objects: of shards, or without shards of chunks."""
        return self if self.shards is None else self.with_chunks(self.shards)

    def with_chunks(self, chunks: Sequence[int]) -> "ChunkGrid":
        """Return a grid of the same array with chunks of other lengths, without shards."""
        return replace(self, chunks=tuple(chunks), shards=None)

    def along(self, dim: str) -> ChunkAxis:
        """Return the grid along one dimension."""
        return self.axes[self.dims.index(dim)]

    @cached_property
    def counts(self) -> tuple[int, ...]:
        """Number of chunks along each dimension."""
        return tuple(axis.num_chunks for axis in self.axes)

    @property
    def num_chunks(self) -> int:
        """Number of chunks in the whole array; 1 if it has no dimension."""
        return prod(self.counts)

    def count(self, boxes: Sequence[Box]) -> int:
        """Return the number of chunks that hold a position of a union of boxes.

        Parameters
        ----------
        boxes : sequence of Box
            May overlap. Dimensions that the array does not have are ignored.
        """
        return self.blocks(boxes).num_units

    def touched_by(self, boxes: Sequence[Box]) -> npt.NDArray[np.bool_]:
        """Return the mask of the chunks that hold a position of a union of boxes, of shape `counts`."""
        mask = np.zeros(self.counts, dtype=np.bool_)
        for box in boxes:
            along = [
                box[axis.dim].chunks(axis.chunk).positions() if axis.dim in box else np.arange(axis.num_chunks)
                for axis in self.axes
            ]
            mask[np.ix_(*along)] = True
        return mask

    def select_chunks(self, mask: npt.NDArray[np.bool_]) -> Selection:
        """Return the selection of all positions of some chunks, or of more if these take too many boxes.

        Parameters
        ----------
        mask : ndarray of bool
            The chunks, of shape `counts`.
        """
        order = sorted(range(mask.ndim), key=lambda axis: mask.shape[axis])  # few boxes, each of many spans
        chunks = Selection.where([self.dims[axis] for axis in order], mask.transpose(order))
        boxes: list[Box] = [
            {
                dim: IndexSet(along.starts * self.lengths[dim], np.minimum(along.stops * self.lengths[dim], length))
                for dim, along in box.items()
                if len(along) < self.counts[self.dims.index(dim)]
                for length in [self.sizes[dim]]
            }
            for box in chunks.boxes
        ]
        return replace(chunks, boxes=tuple(boxes))

    def blocks(self, boxes: Sequence[Box]) -> Blocks:
        """Return a union of boxes in units of this grid's chunks."""
        return Blocks(self.sizes, self.lengths, boxes)

    def touched(self, region: Region) -> tuple[range, ...]:
        """Return the indices of the chunks that a region touches, along each dimension."""
        return tuple(touched_chunks(*span, size) for span, size in zip(region, self.chunks, strict=True))

    def count_in(self, region: Region) -> int:
        """Return the number of chunks that a region touches."""
        return prod(map(len, self.touched(region)))

    def parts_along(self, region: Region) -> list[list[PartAlong]]:
        """Return the chunks that a region touches along each dimension by itself; `iter_chunks` combines them.

        Parameters
        ----------
        region : Region
            Part of the array, or of a shard if the positions count from the shard's corner.
        """
        return [
            [
                (
                    i,
                    (max(start - i * size, 0), min(stop - i * size, size)),
                    slice(max(i * size - start, 0), min((i + 1) * size, stop) - start),
                )
                for i in touched_chunks(start, stop, size)
            ]
            for (start, stop), size in zip(region, self.chunks, strict=True)
        ]

    def iter_chunks(self, region: Region) -> Iterator[Part]:
        """Iterate the chunks that a region touches, in C order.

        Yields
        ------
        index : tuple of int
            Place of the chunk in the grid.
        inside : Region
            The region's positions in the chunk, counted from the chunk's corner.
        place : tuple
            Slices that index those positions in an array of the region's shape, and an ellipsis. The ellipsis makes
            NumPy return an array, not a value, if there is no dimension.
        """
        for parts in product(*self.parts_along(region)):
            place = (*(at for _, _, at in parts), ...)
            yield tuple(i for i, _, _ in parts), tuple(inside for _, inside, _ in parts), place

    def extent(self, index: Sequence[int]) -> Region:
        """Return the region of a chunk, clipped to the array."""
        spans = zip(index, self.chunks, self.shape, strict=True)
        return tuple((i * size, min((i + 1) * size, length)) for i, size, length in spans)

    def reads_per_chunk(self, cuts: Mapping[str, int]) -> float:
        """Return how often a chunk is read, on average, if tasks are cut at multiples of some lengths.

        A chunk of length c lies in (c + n - gcd(c, n)) / n of the parts of length n.

        Parameters
        ----------
        cuts : mapping of str to int
            Distance between two cuts along some dimensions.
        """
        lengths = [(c, cuts[dim]) for dim, c in self.lengths.items() if dim in cuts]
        return prod((c + n - gcd(c, n)) / n for c, n in lengths)


def touched_chunks(start: int, stop: int, size: int) -> range:
    """Return the indices of the chunks of ``size`` positions that a half-open range of positions touches."""
    return range(start // size, -(-stop // size)) if start < stop else range(0)


def part_of_region(region: Region, place: Sequence[Any]) -> Region:
    """Return the positions, in the array, of a place in a region as `ChunkGrid.iter_chunks` yields it."""
    return tuple((start + at.start, start + at.stop) for (start, _), at in zip(region, place, strict=False))


_MAX_MULTIPLE = 4
"""Length of a common unit, in longest chunks, at most. A constant and no setting, because row order depends on it."""


def common_lengths(sizes: Mapping[str, int], grids: Sequence[ChunkGrid]) -> dict[str, int]:
    """Return the lengths of a unit of whole chunks of every grid, if it is not too long.

    If chunk lengths have no small common multiple, the unit is four of the longest chunks. Few of the shorter chunks
    then lie across a cut and are read on both sides of it.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of each dimension. The unit is no longer, and at least 1.
    grids : sequence of ChunkGrid
        A dimension that no grid has is not cut.
    """
    found = {}
    for dim, size in sizes.items():
        lengths = {grid.lengths[dim] for grid in grids if dim in grid.lengths}
        multiple = min(lcm(*lengths), _MAX_MULTIPLE * max(lengths)) if lengths else size
        found[dim] = max(min(multiple, size), 1)
    return found


def finest_lengths(sizes: Mapping[str, int], grids: Sequence[ChunkGrid]) -> dict[str, int]:
    """Return the length of the shortest chunk along each dimension; without a grid the dimension's length."""
    return {
        dim: min((grid.lengths[dim] for grid in grids if dim in grid.lengths), default=max(size, 1))
        for dim, size in sizes.items()
    }


def longest_shards(dims: Sequence[str], grids: Sequence[ChunkGrid]) -> dict[str, int]:
    """Return the length of the longest shard along each dimension; 0 if no grid with that dimension has shards."""
    return {dim: max((grid.along(dim).shard for grid in grids if dim in grid.lengths), default=0) for dim in dims}
