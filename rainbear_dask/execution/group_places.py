"""Where chunk groups lie: the places of the chunk grid that hold a wanted cell of a task, some of them together."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from itertools import pairwise, product
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt

from rainbear_dask.indexing.chunk_grid import ChunkGrid, common_lengths
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.table.tidy import CellMask


@dataclass(frozen=True, slots=True)
class GroupPlace:
    """Place of a group.

    Parameters
    ----------
    index : dict of str to IndexSet
        Positions of the table along each of its dimensions.
    box : tuple of slice
        Place of these positions among the positions of the task, along each dimension.
    cells : CellMask
        The wanted cells of their product.
    """

    index: dict[str, IndexSet]
    box: tuple[slice, ...]
    cells: CellMask


class GroupUnit(NamedTuple):
    """The unit that groups consist of.

    Parameters
    ----------
    lengths : mapping of str to int
        Length along each dimension: whole chunks of all arrays.
    most : int
        Largest number of units of a group.
    """

    lengths: Mapping[str, int]
    most: int


def group_unit(index: Mapping[str, IndexSet], arrays: Sequence[ArrayMeta], max_bytes: int) -> GroupUnit:
    """Return the unit of the groups of a task.

    Parameters
    ----------
    index : mapping of str to IndexSet
        Positions of the task along each dimension of the table.
    arrays : sequence of ArrayMeta
        Arrays over all dimensions of the table.
    max_bytes : int
        Decoded bytes of a group, unless one unit has more.

    Returns
    -------
    GroupUnit
        The whole task if the chunk grids have no short common unit, because chunks would be decoded for several groups.
    """
    grids = [array.grid for array in arrays]
    sizes = {dim: max(positions.hull[1], 1) for dim, positions in index.items()}
    unit = common_lengths(sizes, grids)
    if not grids or not all(_divides(grid, unit, sizes) for grid in grids):
        return GroupUnit(sizes, 1)
    return GroupUnit(unit, max(max_bytes // sum(prod(unit[d] for d in a.dims) * a.itemsize for a in arrays), 1))


def _divides(grid: ChunkGrid, unit: Mapping[str, int], sizes: Mapping[str, int]) -> bool:
    return all(unit[dim] % length == 0 or unit[dim] >= sizes[dim] for dim, length in grid.lengths.items())


def find_groups(index: Mapping[str, IndexSet], cells: CellMask, unit: GroupUnit) -> list[GroupPlace]:
    """Return the groups that hold a wanted cell.

    A group extends along the first dimension with several units, so that each chunk is one piece of memory in its
    group. It spans adjacent units with a wanted cell, because it is read as one region.
    """
    if not cells.count:
        return []
    if not index:  # a table without dimensions has one row
        return [GroupPlace({}, (), cells)]
    units = {dim: positions.chunks(unit.lengths[dim]).positions() for dim, positions in index.items()}
    ranks = {  # of the first position of each unit, and of the end
        dim: np.append(positions.count_below(units[dim] * unit.lengths[dim]), len(positions))
        for dim, positions in index.items()
    }
    used = _used_units(cells, ranks)
    axis = next((axis for axis, length in enumerate(used.shape) if length > 1), 0)
    spans = list(_spans(used, axis, list(units.values())[axis], unit.most))
    boxes = [
        tuple(slice(int(ranks[dim][a]), int(ranks[dim][b])) for dim, (a, b) in zip(index, span, strict=True))
        for span in spans
    ]
    wanted = _wanted_cells(cells, ranks, used.shape, spans, boxes)
    parts = cache(lambda dim, start, stop: next(index[dim].split([start, stop])))  # groups share them
    return [
        GroupPlace({dim: parts(dim, at.start, at.stop) for dim, at in zip(index, box, strict=True)}, box, some)
        for box, some in zip(boxes, wanted, strict=True)
    ]


_Span = list[tuple[int, int]]
"""Along each dimension, the first unit of a group and the unit after the last."""


def _used_units(cells: CellMask, ranks: Mapping[str, npt.NDArray[np.int64]]) -> npt.NDArray[np.bool_]:
    """Return the mask of the units that hold a wanted cell."""
    shape = [len(along) - 1 for along in ranks.values()]
    if cells.is_whole or prod(shape) == 1:
        return np.ones(shape, np.bool_)
    if cells.is_sparse:
        used = np.zeros(shape, np.bool_)
        used[_unit_of_rows(cells, ranks)] = True
        return used
    used = cells.mask
    for axis, along in enumerate(ranks.values()):
        used = np.logical_or.reduceat(used, along[:-1], axis=axis)
    return used


def _unit_of_rows(cells: CellMask, ranks: Mapping[str, npt.NDArray[np.int64]]) -> tuple[npt.NDArray[np.int64], ...]:
    return tuple(np.searchsorted(ranks[dim], at, side="right") - 1 for dim, at in cells.positions().items())


def _spans(used: npt.NDArray[np.bool_], axis: int, numbers: npt.NDArray[np.int64], most: int) -> Iterator[_Span]:
    """Yield the groups: along one axis, runs of adjacent units that are used."""
    gaps = np.append(np.diff(numbers) != 1, True)  # after each unit
    others = [range(length) for number, length in enumerate(used.shape) if number != axis]
    for place in product(*others):
        where: tuple[Any, ...] = (*place[:axis], slice(None), *place[axis:])
        along = used[where]
        start = None
        for unit in np.flatnonzero(along).tolist():
            start = unit if start is None else start
            is_last = gaps[unit] or not along[unit + 1] or unit + 1 - start == most
            if is_last:
                span = [(one, one + 1) for one in place]
                span.insert(axis, (start, unit + 1))
                yield span
                start = None


def _wanted_cells(
    cells: CellMask,
    ranks: Mapping[str, npt.NDArray[np.int64]],
    shape: tuple[int, ...],
    spans: Sequence[_Span],
    boxes: Sequence[tuple[slice, ...]],
) -> Iterator[CellMask]:
    """Yield the wanted cells of each group."""
    lengths = [dict(zip(ranks, (at.stop - at.start for at in box), strict=True)) for box in boxes]
    if not cells.is_sparse:
        for box, sizes in zip(boxes, lengths, strict=True):
            yield CellMask(sizes, None if cells.wanted is None else cells.wanted[box])
        return
    group = np.zeros(shape, dtype=np.int64)
    for number, span in enumerate(spans):
        group[tuple(slice(*along) for along in span)] = number
    number_of = group[_unit_of_rows(cells, ranks)]
    row = np.zeros(cells.count, dtype=np.int64)
    for axis, (dim, at) in enumerate(cells.positions().items()):
        starts = np.array([box[axis].start for box in boxes])
        row = row * np.array([sizes[dim] for sizes in lengths])[number_of] + at - starts[number_of]
    order = np.argsort(number_of, kind="stable")
    firsts = np.searchsorted(number_of[order], np.arange(len(spans) + 1))
    for (first, last), sizes in zip(pairwise(firsts.tolist()), lengths, strict=True):
        yield CellMask.of_rows(sizes, row[order[first:last]])
