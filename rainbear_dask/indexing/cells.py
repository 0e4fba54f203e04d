"""From scattered cells to the boxes that hold them."""

from collections.abc import Mapping, Sequence

import numpy as np

from rainbear_dask.indexing.index_set import IndexSet, Positions
from rainbear_dask.indexing.selection import Box, Selection, merge_boxes


class _TooManyBoxesError(Exception):
    """A union of cells needs more boxes than a selection may hold."""


def selection_of_cells(
    dims: Sequence[str], cells: Positions, lengths: Mapping[str, int], sizes: Mapping[str, int]
) -> Selection:
    """Select some cells, and as few others as boxes allow.

    Parameters
    ----------
    dims : sequence of str
        Dimensions of the cells.
    cells : ndarray of int64, shape (n, len(dims))
        Positions of each cell; distinct rows in ascending order.
    lengths, sizes : mapping of str to int
        Length of a chunk, and of the table, along each dimension.

    Returns
    -------
    Selection
        The cells alone if `Selection.MAX_BOXES` boxes hold them. Otherwise, no other chunk than the cells', if so many
        boxes hold these chunks. Otherwise, a wider selection. It is exact only in the first case.
    """
    if not len(cells):
        return Selection.nothing()
    try:
        return Selection(merge_boxes(_boxes(dims, cells)), exact=True)
    except _TooManyBoxesError:
        pass
    units = cells // np.array([lengths[dim] for dim in dims], dtype=np.int64)
    order = np.lexsort(units.T[::-1])
    units, cells = units[order], cells[order]
    first = np.flatnonzero(np.append(True, (units[1:] != units[:-1]).any(axis=1)))
    if len(first) <= Selection.MAX_BOXES:
        parts = np.split(cells, first[1:])
        hulls = [{d: IndexSet.from_positions(part[:, axis]) for axis, d in enumerate(dims)} for part in parts]
        return Selection(merge_boxes(hulls), exact=False)
    step = 1
    while True:
        try:
            boxes = [
                _scaled(box, {d: lengths[d] * step for d in dims}, sizes)
                for box in _boxes(dims, _coarse(units[first], step))
            ]
            return Selection(merge_boxes(boxes), exact=False)
        except _TooManyBoxesError:
            step *= 2


def _boxes(dims: Sequence[str], cells: Positions, left: int | None = None) -> list[Box]:
    """Return boxes of exactly some cells; positions with the same cells along the other dimensions share boxes."""
    if len(dims) == 1:
        if left is not None and left < 1:
            raise _TooManyBoxesError
        return [{dims[0]: IndexSet.from_positions(cells[:, 0])}]
    most = Selection.MAX_BOXES if left is None else left
    begins = np.flatnonzero(np.append(True, cells[1:, 0] != cells[:-1, 0]))
    alike: dict[bytes, tuple[Positions, list[int]]] = {}
    for part in np.split(cells, begins[1:]):
        rest = np.ascontiguousarray(part[:, 1:])
        alike.setdefault(rest.tobytes(), (rest, []))[1].append(int(part[0, 0]))
        if len(alike) > most:
            raise _TooManyBoxesError
    found: list[Box] = []
    for rest, places in alike.values():
        along = IndexSet.from_positions(np.array(places, dtype=np.int64))
        found += [{dims[0]: along, **box} for box in _boxes(dims[1:], rest, most - len(found))]
    return found


def _coarse(units: Positions, step: int) -> Positions:
    return np.unique(units // step, axis=0)


def _scaled(box: Box, lengths: Mapping[str, int], sizes: Mapping[str, int]) -> Box:
    """Return a box in units of some lengths as positions."""
    return {
        dim: IndexSet(index.starts * lengths[dim], np.minimum(index.stops * lengths[dim], sizes[dim]))
        for dim, index in box.items()
    }
