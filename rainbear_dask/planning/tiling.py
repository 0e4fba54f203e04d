"""Cut a selection into tiles: intervals of the row order, one for each task."""

from collections.abc import Collection, Iterator, Mapping, Sequence
from dataclasses import dataclass
from itertools import islice, starmap
from math import prod
from typing import NamedTuple

import numpy as np

from rainbear_dask.indexing.blocks import Blocks
from rainbear_dask.indexing.chunk_grid import touched_chunks
from rainbear_dask.indexing.index_set import IndexSet, Positions
from rainbear_dask.indexing.selection import Box, merge_boxes
from rainbear_dask.table.order import in_order

MAX_CELLS = 2**24
"""Cells of the product around a tile of several boxes, at most. A worker builds a mask of them: 16 MiB."""

MAX_SORTED = 2**18
"""Rows of a tile with parts of several blocks, at most. A worker sorts them in some milliseconds."""

_MAX_COMPARED = 2**16
"""Columns times index sets that are compared position by position to count tiles, at most."""

_MAX_COLUMNS = 2**12
"""Columns that are examined together, at most; of more columns, neighbours are merged first."""


@dataclass(frozen=True, slots=True)
class Tile:
    """Rows that are neighbours in row order.

    Parameters
    ----------
    index : tuple of IndexSet
        Positions along each dimension.
    max_rows : int
        Upper bound of the rows.
    boxes : tuple of tuple of IndexSet
        The boxes that hold the rows, each in the form of ``index``. Empty if the rows are the whole product of ``index``.
    """

    index: tuple[IndexSet, ...]
    max_rows: int
    boxes: tuple[tuple[IndexSet, ...], ...] = ()


class Tiling:
    """A union of boxes, cut into tiles.

    A tile is an interval of the row order. Tiles and their rows are therefore in table order for every selection.
    Neighbouring blocks share a tile within the budget; so do, inside a block, neighbouring units along its first
    dimension.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of each dimension, in row order.
    lengths : mapping of str to int
        Lengths of the blocks that row order follows.
    grains : mapping of str to int
        Lengths of the grid's unit. A tile ends with a unit, so that no chunk is read for two tiles.
    boxes : sequence of Box
        The union; boxes may overlap.
    budget : int
        Units of a tile, at most. A tile that cannot be cut within row order may have more.
    shards : mapping of str to int
        Length of a shard along each dimension, or 0. If possible, a tile ends with a shard.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        lengths: Mapping[str, int],
        grains: Mapping[str, int],
        boxes: Sequence[Box],
        *,
        budget: int,
        shards: Mapping[str, int] | None = None,
    ) -> None:
        self._sizes, self._lengths, self._grains = sizes, lengths, grains
        self._budget = max(budget, 1)
        self._levels = [_Level(dim, length, within_block=False, is_unit=False) for dim, length in lengths.items()]
        for dim, grain in grains.items():
            if shards and shards[dim] > grain:
                self._levels.append(_Level(dim, shards[dim] // grain * grain, within_block=True, is_unit=False))
            self._levels.append(_Level(dim, grain, within_block=True, is_unit=True))
        whole = {d: IndexSet.span(0, n) for d, n in sizes.items()}
        self._boxes: list[Box] = [{d: box.get(d, whole[d]) for d in sizes} for box in boxes if all(sizes.values())]

    def __iter__(self) -> Iterator[Tile]:
        """Yield the tiles in row order, lazily."""
        return starmap(self._tile, self._walk(self._boxes, _Ramp(self._budget, self._budget)))

    def from_small(self) -> Iterator[Tile]:
        """Yield tiles that start with one unit and may double, for a caller that may stop after the first rows."""
        tiles = self._walk(self._boxes, _Ramp(1, self._budget))
        for boxes, num_units in islice(tiles, 1):
            yield from (self._tile(some, num_units) for some in self._split_first_unit(boxes) if some)
        yield from starmap(self._tile, tiles)

    @property
    def num_tiles(self) -> int:
        """Number of tiles, counted without making them."""
        return self._count(self._boxes)

    @property
    def max_units(self) -> int:
        """Upper bound of the units of a tile: the budget, or the largest part that cannot be cut."""
        uncut, several = 1, False
        for dim, grain in self._grains.items() if self._boxes else ():
            touched = len(_union(self._boxes, dim).chunks(grain))
            uncut *= min(len(touched_chunks(0, self._lengths[dim], grain)), touched) if several else 1
            several = several or grain > 1
        return min(max(self._budget, uncut), Blocks(self._sizes, self._grains, self._boxes).num_units)

    def _tile(self, boxes: Sequence[Box], num_units: int) -> Tile:
        index = tuple(_union(boxes, dim) for dim in self._sizes)
        max_rows = prod(map(len, index))
        if len(boxes) == 1:
            return Tile(index, max_rows)
        max_rows = min(max_rows, num_units * prod(self._grains.values()))
        return Tile(index, max_rows, tuple(tuple(box[dim] for dim in self._sizes) for box in boxes))

    def _walk(self, boxes: Sequence[Box], ramp: "_Ramp") -> Iterator[tuple[Sequence[Box], int]]:
        """Yield the boxes of each tile, and the number of their units."""
        if not boxes:
            return
        columns = self._columns(boxes, ramp.current)
        if columns is None:
            yield boxes, Blocks(self._sizes, self._grains, boxes).num_units if len(boxes) > 1 else 1
            ramp.rise()
            return
        for start, stop, is_over in columns.runs(ramp):
            some = _within(boxes, columns.dim, columns.span(start, stop))
            if is_over:
                yield from self._walk(some, ramp)
            else:
                yield some, int(columns.units[stop] - columns.units[start])
                ramp.rise()

    def _split_first_unit(self, boxes: Sequence[Box]) -> Iterator[Sequence[Box]]:
        """Split a tile into its first rows, as far as they lie in one unit, and the others. Both read that unit."""
        union = {dim: _union(boxes, dim) for dim in self._sizes}
        across = [dim for dim, grain in self._grains.items() if len(union[dim].chunks(grain)) > 1]
        if not across or not self._is_in_order(union):
            yield boxes
            return
        dims, behind = list(self._sizes), list[Box]()
        first = dict(union)
        for dim in dims[: dims.index(across[-1]) + 1]:
            begin = union[dim].hull[0]
            end = (begin // self._grains[dim] + 1) * self._grains[dim] if dim == across[-1] else begin + 1
            behind.append({**first, dim: union[dim] & IndexSet.span(end, self._sizes[dim])})
            first[dim] = union[dim] & IndexSet.span(begin, end)
        yield _intersection(boxes, [first])
        yield _intersection(boxes, behind)

    def _count(self, boxes: Sequence[Box]) -> int:
        """Return the number of tiles that `_walk` yields."""
        if not boxes:
            return 0
        columns = self._columns(boxes, self._budget)
        if columns is None:
            return 1
        count, over = 0, list[int]()
        for start, _, is_over in columns.runs(_Ramp(self._budget, self._budget)):
            if is_over:
                over.append(start)
            else:
                count += 1
        for column, repeats in columns.alike(over, boxes, self._grains[columns.dim]) if over else ():
            count += repeats * self._count(_within(boxes, columns.dim, columns.span(column, column + 1)))
        return count

    def _columns(self, boxes: Sequence[Box], budget: int) -> "_Columns | None":
        """Return the columns into which boxes are cut next; None if the boxes are one tile."""
        union = {dim: _union(boxes, dim) for dim in self._sizes}
        num_units = Blocks(self._sizes, self._grains, boxes).num_units
        num_cells = prod(len(positions) for positions in union.values())
        max_cells = MAX_CELLS if len(boxes) > 1 else num_cells
        if num_units <= budget and num_cells <= (max_cells if self._is_in_order(union) else min(max_cells, MAX_SORTED)):
            return None
        for level in self._levels:
            positions, length = union[level.dim], level.length
            held = len(positions.chunks(length))
            if held > 1:
                break
            if level.is_unit and len(positions) > 1:
                return None  # the dimensions behind it cannot be cut within row order
        else:
            return None
        if held > _MAX_COLUMNS:  # merge as many as make a tile, so that no tile is short
            together = max(min(budget * held // num_units, max_cells * held // num_cells, held // 2), 1)
            length *= together * -(-held // (together * _MAX_COLUMNS))
        dim, grain = level.dim, self._grains[level.dim]
        if not level.within_block and not self._may_share(union, dim, held):
            max_cells = min(max_cells, MAX_SORTED)
        numbers = positions.chunks(length).positions()
        units = Blocks({dim: self._sizes[dim], **self._sizes}, self._grains, boxes)
        begin, end = numbers * length // grain, -(-(numbers + 1) * length // grain)
        before = np.cumsum(units.units_before(end) - units.units_before(begin))
        cells = positions.count_below((numbers + 1) * length) * (num_cells // len(positions))
        return _Columns(dim, length, numbers, np.append(0, before), np.append(0, cells), max_cells)

    def _is_in_order(self, union: Box) -> bool:
        return in_order(tuple(union.values()), tuple(self._lengths.values()))

    def _may_share(self, union: Box, dim: str, num_columns: int) -> bool:
        """Whether the rows of several columns of blocks are in C order of the product around them."""
        dims = list(self._sizes)
        axis = dims.index(dim)
        behind = dims[axis + 1 :]
        if any(len(union[d]) > 1 for d in dims[:axis]):
            return False
        if len(union[dim]) > num_columns:
            return all(len(union[d].chunks(self._lengths[d])) == 1 for d in behind)
        return in_order([union[d] for d in behind], [self._lengths[d] for d in behind])


class _Level(NamedTuple):
    """A level of the cut, from the table down to a unit: columns of some length along one dimension."""

    dim: str
    length: int
    within_block: bool
    is_unit: bool


@dataclass(slots=True)
class _Ramp:
    """A budget that doubles with each tile, up to a maximum."""

    current: int
    maximum: int

    def rise(self) -> None:
        self.current = min(2 * self.current, self.maximum)


@dataclass(frozen=True, slots=True)
class _Columns:
    """Columns along one dimension that hold a row.

    Parameters
    ----------
    dim : str
        The dimension.
    length : int
        Length of a column.
    numbers : ndarray of int64, shape (n,)
        Numbers of the columns, ascending.
    units, cells : ndarray of int64, shape (n + 1,)
        Units, and cells of the product around the boxes, in all columns before each.
    max_cells : int
        Cells of several columns together, at most.
    """

    dim: str
    length: int
    numbers: Positions
    units: Positions
    cells: Positions
    max_cells: int

    def runs(self, ramp: _Ramp) -> Iterator[tuple[int, int, bool]]:
        """Yield runs of columns within the budget: start, stop, and whether it is one column over the budget."""
        start = 0
        while start < len(self.numbers):
            by_units = np.searchsorted(self.units, self.units[start] + ramp.current, side="right")
            by_cells = np.searchsorted(self.cells, self.cells[start] + self.max_cells, side="right")
            stop = int(min(by_units, by_cells)) - 1
            yield start, max(stop, start + 1), stop <= start
            start = max(stop, start + 1)

    def span(self, start: int, stop: int) -> IndexSet:
        """Return the positions from one column up to another."""
        return IndexSet.span(int(self.numbers[start] * self.length), int((self.numbers[stop - 1] + 1) * self.length))

    def alike(self, some: Sequence[int], boxes: Sequence[Box], grain: int) -> Iterator[tuple[int, int]]:
        """Group columns in which each box holds the same positions; yield one of each group and the group's size.

        Among very many columns, those in which each box holds equally many positions count as alike.
        """
        sets = _distinct(boxes, self.dim)
        starts = self.numbers[some] * self.length
        held = np.stack([one.count_below(starts + self.length) - one.count_below(starts) for one in sets], axis=1)
        filled = ((held == 0) | (held == self.length)).all(axis=1) & (self.length % grain == 0)
        found: dict[object, list[int]] = {}
        for column, start, counts, is_filled in zip(some, starts.tolist(), held, filled.tolist(), strict=True):
            key: object = counts.tobytes(), start % grain
            if not is_filled and len(sets) * len(some) <= _MAX_COMPARED:
                span = IndexSet.span(start, start + self.length)
                parts = [one & span for one in sets]
                key = key, *((ends - start).tobytes() for part in parts for ends in (part.starts, part.stops))
            found.setdefault(key, []).append(column)
        yield from ((columns[0], len(columns)) for columns in found.values())


def _union(boxes: Sequence[Box], dim: str) -> IndexSet:
    if len(boxes) == 1:
        return boxes[0][dim]
    return IndexSet.union(_distinct(boxes, dim))


def _distinct(boxes: Sequence[Box], dim: str) -> Collection[IndexSet]:
    """Return the index sets along a dimension, each object once; identity is faster than equality for hundreds."""
    return {id(box[dim]): box[dim] for box in boxes}.values()


def _within(boxes: Sequence[Box], dim: str, span: IndexSet) -> Sequence[Box]:
    """Intersect boxes with a span along one dimension."""
    if len(boxes) == 1:
        return [{**boxes[0], dim: boxes[0][dim] & span}]
    kept = {id(one): one & span for one in _distinct(boxes, dim)}
    some: list[Box] = [{**box, dim: kept[id(box[dim])]} for box in boxes if kept[id(box[dim])]]
    left = [one for one in kept.values() if one]
    return merge_boxes(some) if len(set(left)) < len(left) else some


def _intersection(boxes: Sequence[Box], others: Sequence[Box]) -> Sequence[Box]:
    """Intersect two unions of boxes that name every dimension."""
    met: list[Box] = [{dim: box[dim] & other[dim] for dim in box} for other in others for box in boxes]
    return merge_boxes(box for box in met if all(box.values()))
