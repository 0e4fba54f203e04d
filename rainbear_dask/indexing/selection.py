"""Selections: unions of boxes that hold every row that may match."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass
from typing import ClassVar, Self

import numpy as np
import numpy.typing as npt

from rainbear_dask.indexing.index_set import IndexSet

Box = Mapping[str, IndexSet]
"""A product of index sets, by dimension. A missing dimension is not constrained."""


@dataclass(frozen=True, slots=True)
class Selection:
    """A union of boxes that holds every matching row, and perhaps others.

    Every operation keeps that promise. Beyond ``MAX_BOXES`` boxes, it widens its result and never narrows it.

    Parameters
    ----------
    boxes : tuple of Box
        The boxes; they may overlap. No box has an empty index set.
    exact : bool
        Whether the boxes hold matching rows only. Then no residual filter is needed.
    """

    boxes: tuple[Box, ...]
    exact: bool

    MAX_BOXES: ClassVar[int] = 1024

    @classmethod
    def everything(cls, *, exact: bool = False) -> Self:
        """Return the selection of every row; ``exact`` if each row is known to match."""
        return cls(({},), exact)

    @classmethod
    def nothing(cls) -> Self:
        """Return the selection of no row."""
        return cls((), exact=True)

    @classmethod
    def along(cls, dim: str, index: IndexSet) -> Self:
        """Return exactly the rows at some positions of one dimension."""
        return cls(({dim: index},), exact=True) if index else cls.nothing()

    @classmethod
    def where(cls, dims: Sequence[str], mask: npt.NDArray[np.bool_]) -> Self:
        """Return exactly the rows at which a mask is true, or more rows if these take more than ``MAX_BOXES`` boxes.

        Positions of the first dimension that have the same pattern along the others share boxes. A mask that is a
        product is one box; a curved region on a grid of n rows is at most n boxes.

        Parameters
        ----------
        dims : sequence of str
            Dimensions of the mask, one for each axis.
        mask : ndarray of bool
            The rows.
        """
        if not mask.any():
            return cls.nothing()
        if mask.ndim == 0:
            return cls.everything(exact=True)
        if mask.ndim == 1:
            return cls.along(dims[0], IndexSet.from_mask(mask))
        rows, step, exact = mask.reshape(len(mask), -1), 1, True
        patterns, kind = distinct_rows(rows)
        while len(patterns) > cls.MAX_BOXES:
            step, exact = 2 * step, False  # neighbours share the union of their patterns
            joined = np.logical_or.reduceat(rows, np.arange(0, len(rows), step), axis=0)
            patterns, kind = distinct_rows(joined)
        kind = np.repeat(kind, step)[: len(mask)]
        boxes: list[Box] = []
        for number, pattern in enumerate(patterns):
            if pattern.any():
                inner = cls.where(dims[1:], pattern.reshape(mask.shape[1:]))
                exact = exact and inner.exact
                along = IndexSet.from_mask(kind == number)
                boxes += [{dims[0]: along, **box} for box in inner.boxes]
        return cls._union(boxes, exact=exact)

    def __and__(self, other: Self) -> Self:
        """Return the rows that may be in both."""
        ours, theirs, exact = self.boxes, other.boxes, self.exact and other.exact
        while len(ours) * len(theirs) > self.MAX_BOXES:
            exact = False
            if len(ours) >= len(theirs):
                ours = _in_pairs(ours)
            else:
                theirs = _in_pairs(theirs)
        met = (_meet(a, b) for a in ours for b in theirs)
        return self._union((box for box in met if all(box.values())), exact=exact)

    def __or__(self, other: Self) -> Self:
        """Return the rows that may be in one or the other."""
        return self._union((*self.boxes, *other.boxes), exact=self.exact and other.exact)

    def coarser(self, lengths: Mapping[str, int], sizes: Mapping[str, int]) -> Self:
        """Round the boxes outwards to whole chunks along some dimensions.

        Parameters
        ----------
        lengths : mapping of str to int
            Chunk length along each of these dimensions.
        sizes : mapping of str to int
            Length of each dimension.
        """
        rounded = (
            {
                d: box[d].whole_chunks(n, sizes[d]) if d in box else IndexSet.span(0, sizes[d])
                for d, n in lengths.items()
            }
            for box in self.boxes
        )
        boxes: list[Box] = [
            {d: index for d, index in {**box, **more}.items() if len(index) < sizes[d]}
            for box, more in zip(self.boxes, rounded, strict=True)
        ]
        return self._union(boxes, exact=False)

    @classmethod
    def _union(cls, boxes: Iterable[Box], *, exact: bool) -> Self:
        """Return the union of any boxes, widened to at most ``MAX_BOXES``."""
        merged = merge_boxes(boxes)
        while len(merged) > cls.MAX_BOXES:
            merged, exact = merge_boxes(_in_pairs(merged)), False
        if {} in merged:  # this box holds all others
            return cls.everything(exact=exact)
        return cls(merged, exact)


def _meet(a: Box, b: Box) -> Box:
    return {**a, **b, **{d: a[d] & b[d] for d in a.keys() & b.keys()}}


def _in_pairs(boxes: Sequence[Box]) -> tuple[Box, ...]:
    """Halve the number of boxes: replace each consecutive pair, often of one region, by its smallest common box."""
    pairs = [boxes[i : i + 2] for i in range(0, len(boxes), 2)]
    return tuple(
        {d: IndexSet.union(box[d] for box in pair) for d in pair[0] if all(d in box for box in pair)} for pair in pairs
    )


def merge_boxes(boxes: Iterable[Box]) -> tuple[Box, ...]:
    """Merge boxes that differ along one dimension only, because their union is a box."""
    merged = list(boxes)
    for dim in {dim: None for box in merged for dim in box}:
        alike: dict[object, Box] = {}
        for box in merged:
            rest = (dim in box, frozenset((d, index) for d, index in box.items() if d != dim))
            twin = alike.get(rest, {})
            alike[rest] = {**box, dim: box[dim] | twin[dim]} if dim in twin else box
        merged = list(alike.values())
    return tuple(merged)


def distinct_rows(rows: npt.NDArray[np.bool_]) -> tuple[npt.NDArray[np.bool_], npt.NDArray[np.intp]]:
    """Return the distinct rows of a mask, and for each row of the mask the number of its distinct row."""
    packed = np.ascontiguousarray(np.packbits(rows, axis=1))
    whole = packed.view(np.dtype((np.void, packed.shape[1]))).reshape(-1)
    _, first, kind = np.unique(whole, return_index=True, return_inverse=True)
    return rows[first], kind.reshape(-1)
