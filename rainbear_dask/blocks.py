"""Cutting a union of boxes into blocks of a grid, and counting them, without multiplying the union out."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from functools import cache
from heapq import merge
from math import prod
from typing import NamedTuple

import numpy as np

from rainbear_dask.selection import Box, IndexSet, Positions, Selection, distinct_rows

MAX_EFFORT = 2**17
"""Steps for which a selection is cut as it is: about a second."""


class Blocks:
    """Boxes of a grid, cut to size, over the union of boxes that a selection is.

    The union is never multiplied out. Dimension by dimension, units of the grid are put together that the same boxes
    of the selection reach, so that no block holds a unit that no box wants, and counts are sums of products.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of each dimension.
    grains : mapping of str to int
        Length of the grid's unit along each dimension.
    boxes : sequence of Box
        The union. Dimensions that are not in ``sizes`` do not matter.
    units : int
        Units in one block at most. The last dimensions are kept whole first, so that blocks in order are rows in
        order wherever they can be.
    shards : mapping of str to int
        Units that are stored together, along each dimension: a block ends with a shard where it can.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        grains: Mapping[str, int],
        boxes: Sequence[Box],
        *,
        units: int = 1,
        shards: Mapping[str, int] | None = None,
    ) -> None:
        self._dims, self._grains, self._shards = list(sizes), grains, shards or {}
        some = all(n > 0 for n in sizes.values())
        whole = {d: IndexSet.span(0, n) for d, n in sizes.items()}
        self._boxes = [{d: box.get(d, whole[d]) for d in sizes} for box in boxes if some]
        self._every = tuple(range(len(self._boxes)))
        touched = cache(IndexSet.chunks)  # boxes share index sets
        self._units = [{d: touched(index, grains[d]) for d, index in box.items()} for box in self._boxes]
        self._most: dict[str, int] = {}
        for dim in reversed(self._dims):
            there = max((len(reached[dim]) for reached in self._units), default=0)
            self._most[dim] = max(1, min(units, there))
            units //= self._most[dim]
        self._kinds_of: dict[tuple[int, tuple[int, ...]], list[_Kind]] = {}
        self._union_of: dict[tuple[int, tuple[int, ...]], IndexSet] = {}

    def __iter__(self) -> Iterator[tuple[tuple[IndexSet, ...], int]]:
        """Index sets of each block, in C order of the grid, and the number of boxes that it lies in."""
        return self._walk(0, self._every, ())

    @property
    def num_blocks(self) -> int:
        """Blocks in all."""
        return self._total(lambda axis, kind: len(self._cuts(axis, kind)) - 1)

    @property
    def num_units(self) -> int:
        """Units of the grid that hold a position."""
        return self._total(lambda _, kind: len(kind.units))

    @property
    def num_rows(self) -> int:
        """Cells in all blocks: exact for one box, an upper bound where boxes share a unit."""
        return self._total(lambda axis, kind: len(self._positions(axis, kind.boxes, kind.units)))

    @property
    def most_units(self) -> int:
        """Units in a block at most."""
        return prod(self._most.values()) if self._boxes else 0

    def cuts(self, dim: str) -> bool:
        """Whether blocks hold fewer units along a dimension than some box reaches."""
        return any(len(reached[dim]) > self._most[dim] for reached in self._units)

    @property
    def num_kinds(self) -> int:
        """Ways in which boxes overlap along the first dimension."""
        return len(self._kinds(0, self._every)) if self._boxes else 0

    def exceeds(self, effort: int) -> bool:
        """Whether counts and blocks go through more sets and kinds of units than ``effort``."""
        found, seen = 0, set()
        todo = [(0, self._every)] if self._boxes and self._dims else []
        while todo and found <= effort:
            if (state := todo.pop()) not in seen:
                seen.add(state)
                axis, active = state
                kinds = self._kinds(axis, active)
                found += len(kinds) + len(active)
                todo += [(axis + 1, kind.boxes) for kind in kinds if axis + 1 < len(self._dims)]
        return found > effort

    def num_touched(self, chunks: Mapping[str, int]) -> int:
        """Chunks of another grid that blocks touch, one that two blocks touch being counted twice.

        Parameters
        ----------
        chunks : mapping of str to int
            Chunk length along each dimension.
        """

        def touched(axis: int, kind: _Kind) -> int:
            dim = self._dims[axis]
            held = self._positions(axis, kind.boxes, kind.units)
            seams = kind.units.at(self._cuts(axis, kind)[1:-1]) * self._grains[dim]
            beyond = held.count_below(seams)
            across = held.at(beyond - 1) // chunks[dim] == held.at(beyond) // chunks[dim]
            return len(held.chunks(chunks[dim])) + int(np.count_nonzero(across))

        return self._total(touched)

    def _total(self, weigh: "Callable[[int, _Kind], int]") -> int:
        @cache
        def total(axis: int, active: tuple[int, ...]) -> int:
            if axis == len(self._dims):
                return 1
            return sum(weigh(axis, kind) * total(axis + 1, kind.boxes) for kind in self._kinds(axis, active))

        return total(0, self._every) if self._boxes else 0

    def _walk(
        self, axis: int, active: tuple[int, ...], pieces: tuple[IndexSet, ...]
    ) -> Iterator[tuple[tuple[IndexSet, ...], int]]:
        if not active:
            return
        if axis == len(self._dims):
            yield tuple(self._positions(i, active, piece) for i, piece in enumerate(pieces)), len(active)
            return
        kinds = (self._pieces(axis, kind) for kind in self._kinds(axis, active))
        for piece, boxes in merge(*kinds, key=lambda found: found[0].hull):
            yield from self._walk(axis + 1, boxes, (*pieces, piece))

    def _positions(self, axis: int, active: tuple[int, ...], units: IndexSet) -> IndexSet:
        """What some boxes hold in some units."""
        dim = self._dims[axis]
        if (axis, active) not in self._union_of:
            self._union_of[axis, active] = IndexSet.union({self._boxes[i][dim] for i in active})
        return self._union_of[axis, active].within_chunks(units, self._grains[dim])

    def _pieces(self, axis: int, kind: "_Kind") -> Iterator[tuple[IndexSet, tuple[int, ...]]]:
        return ((piece, kind.boxes) for piece in kind.units.split(self._cuts(axis, kind)))

    def _cuts(self, axis: int, kind: "_Kind") -> Positions:
        """Where units of one kind, counted from the first, are cut into pieces."""
        dim, units = self._dims[axis], kind.units
        most, per_shard = self._most[dim], self._shards.get(dim, 1)
        if per_shard == 1:
            lengths = np.diff(kind.runs)
            pieces = -(-lengths // most)
            number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of each in its run
            return np.append(np.repeat(kind.runs[:-1], pieces) + most * number, len(units))
        closing = set(kind.runs.tolist())
        ends = units.count_below((units.chunks(per_shard).positions() + 1) * per_shard).tolist()
        ends = sorted({*ends, *closing} - {0})
        cuts = [0]
        for end, following in zip(ends, [*ends[1:], 0], strict=True):
            while end - cuts[-1] > most:  # a shard that is more than a block, in even parts
                left = end - cuts[-1]
                cuts.append(cuts[-1] + -(-left // -(-left // most)))
            if end in closing or following - cuts[-1] > most:
                cuts.append(end)
        return np.array(cuts)

    def _kinds(self, axis: int, active: tuple[int, ...]) -> "list[_Kind]":
        """Units of one dimension that some boxes reach, by which of the boxes reach them."""
        if (axis, active) not in self._kinds_of:
            together: dict[IndexSet, list[int]] = {}
            for i in active:
                together.setdefault(self._units[i][self._dims[axis]], []).append(i)
            self._kinds_of[axis, active] = _kinds(list(together), list(together.values()))
        return self._kinds_of[axis, active]


def simplified(selection: Selection, sizes: Mapping[str, int], grids: Sequence[Mapping[str, int]]) -> Selection:
    """Widen a selection whose boxes overlap in so many ways that cutting it into blocks would take long.

    Parameters
    ----------
    selection : Selection
        What is to be cut.
    sizes : mapping of str to int
        Length of each dimension.
    grids : sequence of mapping of str to int
        Grids by which it is to be cut: chunk lengths along some of the dimensions.

    Returns
    -------
    Selection
        The same, if it can be cut within ``MAX_EFFORT``; else with boxes rounded outwards to multiples of chunks, which
        are longer the less is enough.
    """
    if len(selection.boxes) <= 1:
        return selection
    finest = {dim: min(grid[dim] for grid in grids if dim in grid) for dim in sizes}
    ways = {dim: Blocks({dim: n}, finest, selection.boxes).num_kinds for dim, n in sizes.items()}
    allowed, found = MAX_EFFORT, selection
    while len(found.boxes) > 1 and any(
        Blocks({dim: sizes[dim] for dim in grid}, grid, found.boxes).exceeds(MAX_EFFORT) for grid in grids
    ):
        left, lengths = allowed, {}
        for number, dim in enumerate(sorted(sizes, key=ways.__getitem__)):
            share = max(int(left ** (1 / (len(sizes) - number))), 1)
            units = -(-sizes[dim] // (share * finest[dim])) if ways[dim] > share else 1
            lengths[dim] = units * finest[dim]
            left //= max(min(ways[dim], share), 1)
        found = selection.coarser(lengths, sizes)
        allowed //= 2 ** len(sizes)  # half as many along each dimension
    return found


class _Kind(NamedTuple):
    """Units of one dimension that the same boxes reach.

    Parameters
    ----------
    units : IndexSet
        All of them.
    runs : ndarray of int64, shape (n + 1,)
        Counted along the units, where their n runs begin and end: units that other boxes reach lie between.
    boxes : tuple of int
        Boxes that reach all of the units.
    """

    units: IndexSet
    runs: Positions
    boxes: tuple[int, ...]


def _kinds(sets: Sequence[IndexSet], boxes: Sequence[Sequence[int]]) -> list[_Kind]:
    """Sort positions that some sets hold, each set being that of some boxes, by which of the sets hold them."""
    if len(sets) == 1:
        return [_Kind(sets[0], np.array([0, len(sets[0])]), tuple(boxes[0]))]
    edges = np.unique(np.concatenate([part for one in sets for part in (one.starts, one.stops)]))
    starts, stops = edges[:-1], edges[1:]
    holds = np.array(
        [np.searchsorted(one.starts, starts, "right") > np.searchsorted(one.stops, starts, "right") for one in sets]
    )
    some = holds.any(axis=0)
    starts, stops = starts[some], stops[some]
    patterns, kind = distinct_rows(holds[:, some].T)
    spans = np.split(np.argsort(kind, kind="stable"), np.cumsum(np.bincount(kind))[:-1])  # of each kind, ascending
    kinds = []
    for pattern, mine in zip(patterns, spans, strict=True):
        after = np.cumsum(stops[mine] - starts[mine])
        last = np.append(np.diff(mine) > 1, True)  # a gap that no set holds does not end a run
        names = sorted(name for part, there in zip(boxes, pattern, strict=True) if there for name in part)
        kinds.append(_Kind(IndexSet(starts[mine], stops[mine]), np.append(0, after[last]), tuple(names)))
    return kinds
