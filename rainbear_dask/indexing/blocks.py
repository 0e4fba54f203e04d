"""Count and cut a union of boxes in units of a grid, without expanding the union into positions."""

from collections.abc import Iterator, Mapping, Sequence
from functools import cache
from itertools import product
from typing import NamedTuple

import numpy as np

from rainbear_dask.indexing.index_set import IndexSet, Positions
from rainbear_dask.indexing.selection import Box, Selection, distinct_rows

MAX_EFFORT = 2**17
"""Steps of counting, at most, before a selection is widened: about a second."""


class Blocks:
    """A union of boxes in units of a grid.

    The union is never expanded. Along each dimension, the units that the same boxes touch form one kind. Counts are
    sums of products over kinds.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of each dimension.
    grains : mapping of str to int
        Length of the grid's unit along each dimension.
    boxes : sequence of Box
        The union. Dimensions that are not in ``sizes`` are ignored.
    """

    def __init__(self, sizes: Mapping[str, int], grains: Mapping[str, int], boxes: Sequence[Box]) -> None:
        self._dims, self._grains = list(sizes), grains
        some = all(n > 0 for n in sizes.values())
        whole = {d: IndexSet.span(0, n) for d, n in sizes.items()}
        self._boxes = [{d: box.get(d, whole[d]) for d in sizes} for box in boxes if some]
        self._every = tuple(range(len(self._boxes)))
        # boxes share index sets; identity distinguishes them faster than equality
        distinct = {(d, id(index)): index for box in self._boxes for d, index in box.items()}
        touched = {(d, number): index.chunks(grains[d]) for (d, number), index in distinct.items()}
        self._units = [{d: touched[d, id(index)] for d, index in box.items()} for box in self._boxes]
        self._kinds_of: dict[tuple[int, tuple[int, ...]], list[_Kind]] = {}
        self._total_of: dict[tuple[int, tuple[int, ...]], int] = {}

    def places(self) -> Iterator[tuple[int, ...]]:
        """Yield the index of each unit that holds a position, once, in no particular order."""
        return self._places(0, self._every)

    @property
    def num_units(self) -> int:
        """Number of units that hold a position."""
        return self._num_units(0, self._every) if self._boxes else 0

    @property
    def num_rows(self) -> int:
        """Number of positions of the union; an upper bound if several boxes share a unit longer than one position."""

        @cache
        def rows(axis: int, active: tuple[int, ...]) -> int:
            if axis == len(self._dims):
                return 1
            dim = self._dims[axis]
            held = IndexSet.union({self._boxes[i][dim] for i in active})
            return sum(
                len(held.within_chunks(kind.units, self._grains[dim])) * rows(axis + 1, kind.boxes)
                for kind in self._kinds(axis, active)
            )

        return rows(0, self._every) if self._boxes else 0

    def units_before(self, bounds: Positions) -> Positions:
        """Return, for each bound, the number of units before it along the first dimension; bounds count in units."""
        before = np.zeros(len(bounds), dtype=np.int64)
        for kind in self._kinds(0, self._every) if self._boxes else ():
            before += kind.units.count_below(bounds) * self._num_units(1, kind.boxes)
        return before

    @property
    def num_kinds(self) -> int:
        """Number of kinds of units along the first dimension: of ways in which boxes overlap there."""
        return len(self._kinds(0, self._every)) if self._boxes else 0

    def exceeds(self, effort: int) -> bool:
        """Whether counting visits more index sets and kinds than ``effort``."""
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

    def _num_units(self, axis: int, active: tuple[int, ...]) -> int:
        """Return the number of units of some boxes, over one dimension and those behind it."""
        if axis == len(self._dims):
            return 1
        if (axis, active) not in self._total_of:
            self._total_of[axis, active] = sum(
                len(kind.units) * self._num_units(axis + 1, kind.boxes) for kind in self._kinds(axis, active)
            )
        return self._total_of[axis, active]

    def _places(self, axis: int, active: tuple[int, ...]) -> Iterator[tuple[int, ...]]:
        if axis == len(self._dims):
            yield from [()] if active else []
            return
        for kind in self._kinds(axis, active):
            inner = list(self._places(axis + 1, kind.boxes))
            yield from ((first, *rest) for first, rest in product(kind.units.positions().tolist(), inner))

    def _kinds(self, axis: int, active: tuple[int, ...]) -> "list[_Kind]":
        """Return the units of one dimension that some boxes touch, grouped by the boxes that touch them."""
        if (axis, active) not in self._kinds_of:
            together: dict[int, tuple[IndexSet, list[int]]] = {}
            for i in active:
                units = self._units[i][self._dims[axis]]
                together.setdefault(id(units), (units, []))[1].append(i)
            self._kinds_of[axis, active] = _kinds(*zip(*together.values(), strict=True)) if active else []
        return self._kinds_of[axis, active]


def simplified(selection: Selection, sizes: Mapping[str, int], grids: Sequence[Mapping[str, int]]) -> Selection:
    """Widen a selection if its boxes overlap in too many ways to be cut into blocks quickly.

    Parameters
    ----------
    selection : Selection
        The selection to be cut.
    sizes : mapping of str to int
        Length of each dimension.
    grids : sequence of mapping of str to int
        Grids along which it will be cut: chunk lengths along some of the dimensions.

    Returns
    -------
    Selection
        The same selection if it can be cut within ``MAX_EFFORT``. Otherwise boxes are rounded outwards to multiples of
        chunks, in steps that double until the effort suffices.
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
    """Units of one dimension that the same boxes touch.

    Parameters
    ----------
    units : IndexSet
        The units.
    boxes : tuple of int
        Numbers of the boxes; each touches all of the units.
    """

    units: IndexSet
    boxes: tuple[int, ...]


def _kinds(sets: Sequence[IndexSet], boxes: Sequence[Sequence[int]]) -> list[_Kind]:
    """Group the positions of some index sets by the sets that hold them; ``boxes`` names the boxes of each set."""
    if len(sets) == 1:
        return [_Kind(sets[0], tuple(boxes[0]))]
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
        names = sorted(name for part, there in zip(boxes, pattern, strict=True) if there for name in part)
        kinds.append(_Kind(IndexSet(starts[mine], stops[mine]), tuple(names)))
    return kinds
