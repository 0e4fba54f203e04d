"""From positions to values: the cells that points need, grouped by chunk, and the values put back in order."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property
from itertools import pairwise, product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.indexing.chunk_grid import ChunkAxis, ChunkGrid, Region
from rainbear_dask.indexing.index_set import IndexSet, Positions
from rainbear_dask.indexing.selection import Selection
from rainbear_dask.planning.task import Scan
from rainbear_dask.sampling.stencils import Stencil
from rainbear_dask.sampling.task import Answers, SampleTask, interpolated
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column

MIN_TASK_BYTES, NUM_TASKS = 4 * 2**20, 16
"""A task has a sixteenth of all decoded bytes, within a lower bound and the setting ``task-bytes``."""

_MAX_MASK = 2**26
"""Chunks of a grid up to which a report tells the used ones exactly."""

_MAX_TASK_ENTRIES = 2**17
"""Points and cells after which a task ends: they travel with it."""


@dataclass(frozen=True)
class Gathering:
    """The cells of arrays of one chunk grid that points need.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    columns : tuple of Column
        Columns whose arrays have the same grid.
    stencils : tuple of Stencil
        For each dimension of points that the arrays have, in their order; all of n points. If there is none, n is 1.
    kept : mapping of str to ndarray
        Wanted positions along each other dimension of the arrays, ascending.
    count : int
        The number n.
    whole : bool
        Whether points are finished where the chunks are, if one chunk has all that they need. Otherwise every cell is
        returned by itself.
    """

    spec: StoreSpec
    columns: tuple[Column, ...]
    stencils: tuple[Stencil, ...]
    kept: Mapping[str, Positions]
    count: int
    whole: bool = True

    @cached_property
    def grid(self) -> ChunkGrid:
        """The common chunk grid."""
        return next(column.array.grid for column in self.columns if column.array)

    @cached_property
    def kept_shape(self) -> tuple[int, ...]:
        """Number of wanted positions along each dimension that points do not have, in the order of the arrays."""
        return tuple(len(self.kept[dim]) for dim in self.grid.dims if dim in self.kept)

    @cached_property
    def chunk_bytes(self) -> int:
        """Decoded bytes of one chunk of each array."""
        return sum(column.array.chunk_bytes for column in self.columns if column.array)

    @property
    def _sized(self) -> Iterator[tuple[Stencil, int]]:
        return ((stencil, self.grid.lengths[stencil.dim]) for stencil in self.stencils)

    @cached_property
    def _inside(self) -> npt.NDArray[np.bool_]:
        """Which points need a single chunk (along the dimensions of points)."""
        inside = np.full(self.count, self.whole)
        for stencil, size in self._sized:
            first = stencil.places[:, 0] // size
            for corner in range(1, stencil.width):
                inside &= stencil.places[:, corner] // size == first
        return inside

    @cached_property
    def _points(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        """Points that one chunk answers, by chunk, and the number of the chunk of each."""
        rows = np.flatnonzero(self._inside)
        firsts = [stencil.places[:, 0] for stencil in self.stencils]
        order, numbers = self._by_chunk(
            firsts if len(rows) == self.count else [first[rows] for first in firsts], len(rows)
        )
        return rows[order], numbers

    @property
    def points(self) -> npt.NDArray[np.int64]:
        """Points that one chunk answers, by chunk."""
        return self._points[0]

    @cached_property
    def split(self) -> npt.NDArray[np.int64]:
        """Points that need several chunks, ascending."""
        return np.flatnonzero(~self._inside)

    @cached_property
    def _cells(self) -> tuple[list[Positions], npt.NDArray[np.int64], npt.NDArray[Any]]:
        """The cells of these points along each dimension, by chunk; their places in the points' own order; numbers."""
        shape = (len(self.split), *[stencil.width for stencil in self.stencils])
        along = []
        for axis, stencil in enumerate(self.stencils):
            places = stencil.places[self.split]
            aside = [1] * len(self.stencils)
            aside[axis] = stencil.width
            along.append(np.broadcast_to(places.reshape(len(places), *aside), shape).reshape(-1))
        order, numbers = self._by_chunk(along, prod(shape))
        return [places[order] for places in along], order, numbers

    def _by_chunk(self, places: Sequence[Positions], count: int) -> tuple[npt.NDArray[np.int64], npt.NDArray[Any]]:
        """Return the order of cells by chunk, and the number of the chunk of each cell in this order.

        Numbers are in C order of the grid along the dimensions of points. NumPy sorts narrow ones faster.
        """
        numbers, total = np.zeros(count, np.int64), 1
        for (stencil, size), at in zip(self._sized, places, strict=True):
            num_chunks = self.grid.along(stencil.dim).num_chunks
            numbers, total = numbers * num_chunks + at // size, total * num_chunks
        narrow = numbers.astype(np.min_scalar_type(total))
        order = np.argsort(narrow, kind="stable")
        return order, narrow[order]

    @cached_property
    def _kept_chunks(self) -> list[list[tuple[int, slice, Positions]]]:
        """For each dimension that points do not have: its chunks, each with its wanted positions, and their numbers."""
        found = []
        for axis in self.grid.axes:
            if axis.dim in self.kept:
                positions = self.kept[axis.dim]
                chunks, first = np.unique(positions // axis.chunk, return_index=True)
                ends = [*first.tolist(), len(positions)]
                found.append(
                    [
                        (chunk, slice(start, stop), positions[start:stop] - chunk * axis.chunk)
                        for chunk, (start, stop) in zip(chunks.tolist(), pairwise(ends), strict=True)
                    ]
                )
        return found

    @cached_property
    def _numbers(self) -> tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], npt.NDArray[np.int64]]:
        """Numbers of the chunks along the dimensions of points; ends of their points, and of their cells."""
        of_points, of_cells = self._points[1], self._cells[2]
        numbers = np.union1d(_distinct(of_points), _distinct(of_cells))
        ends = [np.searchsorted(some, numbers, "right") for some in (of_points, of_cells)]
        return numbers.astype(np.int64), ends[0], ends[1]

    @property
    def num_chunks(self) -> int:
        """Number of chunks of each array."""
        return len(self._numbers[0]) * prod(map(len, self._kept_chunks))

    @property
    def num_bytes(self) -> int:
        """Decoded bytes of all chunks."""
        return self.num_chunks * self.chunk_bytes

    @property
    def selection(self) -> Selection:
        """All cells of the chunks; perhaps more if these take many boxes."""
        axes = [self.grid.along(stencil.dim) for stencil in self.stencils]
        shape = [axis.num_chunks for axis in axes]
        if not axes:
            found = Selection.everything(exact=True)
        elif prod(shape) <= _MAX_MASK:
            used = np.zeros(shape, np.bool_)
            used.reshape(-1)[self._numbers[0]] = True
            found = Selection.where([axis.dim for axis in axes], used)
        else:
            places = np.unravel_index(self._numbers[0], shape)
            box = {axis.dim: IndexSet.from_positions(at) for axis, at in zip(axes, places, strict=True)}
            found = Selection((box,), exact=False)
        beside = {dim: IndexSet.from_positions(positions) for dim, positions in self.kept.items()}
        boxes = [
            beside | {a.dim: _whole(box[a.dim], a) if a.dim in box else IndexSet.span(0, a.length) for a in axes}
            for box in found.boxes
        ]
        return Selection(tuple(boxes), found.exact)

    def _units(self) -> "Iterator[_Unit]":
        numbers, point_ends, cell_ends = self._numbers
        sizes = [self.grid.along(stencil.dim).num_chunks for stencil in self.stencils]
        indexes = (
            zip(*[i.tolist() for i in np.unravel_index(numbers, sizes)], strict=True) if sizes else [()] * len(numbers)
        )
        ends = zip(pairwise([0, *point_ends.tolist()]), pairwise([0, *cell_ends.tolist()]), strict=True)
        point_dims = [stencil.dim for stencil in self.stencils]
        beside = [dim for dim in self.grid.dims if dim in self.kept]
        combined = list(product(*self._kept_chunks))
        for index, (points, cells) in zip(indexes, ends, strict=True):
            of_points = dict(zip(point_dims, index, strict=True))
            for parts in combined:
                chunk = of_points | {dim: part[0] for dim, part in zip(beside, parts, strict=True)}
                region = self.grid.extent([chunk[dim] for dim in self.grid.dims])
                yield _Unit(region, slice(*points), slice(*cells), parts)

    @cached_property
    def _narrow(self) -> list[Stencil]:
        """The stencils with positions inside of chunks."""
        return [
            replace(stencil, places=(stencil.places % size).astype(np.min_scalar_type(size)))
            for stencil, size in self._sized
        ]

    def tasks(self, task_bytes: int) -> "Iterator[tuple[SampleTask, list[_Unit]]]":
        """Yield the tasks, each with its chunks; adjacent chunks share a task."""
        scan = Scan(self.spec, self.grid.dims, self.columns)
        budget = min(max(self.num_bytes // NUM_TASKS, MIN_TASK_BYTES), task_bytes)
        units, size, entries = list[_Unit](), 0, 0
        for unit in self._units():
            if units and (size + self.chunk_bytes > budget or entries > _MAX_TASK_ENTRIES):
                yield self._task(scan, units), units
                units, size, entries = [], 0, 0
            units.append(unit)
            size += self.chunk_bytes
            entries += unit.num_points + unit.num_cells
        if units:
            yield self._task(scan, units), units

    def _task(self, scan: Scan, units: "Sequence[_Unit]") -> SampleTask:
        num_points = np.array([unit.num_points for unit in units])
        num_cells = np.array([unit.num_cells for unit in units])
        rows = self.points[_joined([unit.points for unit in units])]
        some = _joined([unit.cells for unit in units])
        stencils = tuple(stencil.take(rows) for stencil in self._narrow)
        cells = [
            (along[some] % size).astype(np.min_scalar_type(size))
            for (_, size), along in zip(self._sized, self._cells[0], strict=True)
        ]
        num_values = sum((u.num_points + u.num_cells) * prod(len(at) for *_, at in u.beside) for u in units)
        return SampleTask(
            scan,
            tuple(unit.region for unit in units),
            stencils,
            num_points,
            tuple(cells),
            num_cells,
            tuple(tuple(at for *_, at in unit.beside) for unit in units),
            num_values * sum(column.width for column in self.columns),
        )

    def collect(self, answers: Sequence[tuple[Answers, "list[_Unit]"]]) -> "Gathered":
        """Put the results of all tasks in the order of the points."""
        shape = self.kept_shape
        if self.whole:
            where = np.full((self.count, *shape), -1, np.int64)
        places = np.empty((len(self._cells[1]), *shape), np.int64)
        found, alone, num_found, num_alone = [], [], 0, 0
        for (at_points, at_cells), units in answers:
            found.append(at_points)
            alone.append(at_cells)
            for unit in units:
                beside = tuple(part for _, part, _ in unit.beside)
                if unit.num_points:
                    num_found = _number(where, self.points[unit.points], beside, num_found)
                if unit.num_cells:
                    num_alone = _number(places, self._cells[1][unit.cells], beside, num_alone)
        cells = pl.concat(alone)
        if not self.whole:
            widths = [stencil.width for stencil in self.stencils]
            return Gathered(self, cells, places.reshape(self.count, *widths, *shape))
        if len(self.split):
            corners = places.reshape(len(self.split), -1, prod(shape)).transpose(0, 2, 1).reshape(-1)
            rows = self.split.repeat(prod(shape))
            around = [stencil.take(rows) for stencil in self.stencils]
            found.append(
                pl.DataFrame([interpolated(cells[c.name].gather(pl.Series(corners)), around) for c in self.columns])
            )
            where[self.split] = np.arange(num_found, num_found + len(rows)).reshape(-1, *shape)
        return Gathered(self, pl.concat(found), where)


def _whole(chunks: IndexSet, axis: ChunkAxis) -> IndexSet:
    return IndexSet(chunks.starts * axis.chunk, np.minimum(chunks.stops * axis.chunk, axis.length))


def _distinct(ascending: npt.NDArray[Any]) -> npt.NDArray[Any]:
    is_new = np.ones(len(ascending), np.bool_)
    is_new[1:] = ascending[1:] != ascending[:-1]
    return ascending[is_new]


def _joined(parts: Sequence[slice]) -> npt.NDArray[np.int64]:
    return np.concatenate([np.arange(part.start, part.stop) for part in parts])


def _number(into: npt.NDArray[np.int64], rows: npt.NDArray[np.int64], beside: tuple[slice, ...], first: int) -> int:
    """Number the values of some rows, in order, from ``first`` on; return the number of the next value."""
    lengths: list[int] = [part.stop - part.start for part in beside]
    place: tuple[Any, ...] = (rows, *beside)
    last = first + len(rows) * prod(lengths)
    into[place] = np.arange(first, last).reshape(-1, *lengths)
    return last


@dataclass(frozen=True, slots=True)
class _Unit:
    """One chunk: its region, slices of the ordered points and cells, and its part along the other dimensions."""

    region: Region
    points: slice
    cells: slice
    beside: tuple[tuple[int, slice, Positions], ...]

    @property
    def num_points(self) -> int:
        return int(self.points.stop - self.points.start)

    @property
    def num_cells(self) -> int:
        return int(self.cells.stop - self.cells.start)


@dataclass(frozen=True)
class Gathered:
    """Values, and where they belong.

    Parameters
    ----------
    gathering : Gathering
        The request.
    values : DataFrame
        Values of each column, in any order.
    where : ndarray of int64
        Row in ``values``: along the points, then along the positions of each stencil unless points are finished, then
        along the dimensions that points do not have.
    """

    gathering: Gathering
    values: pl.DataFrame
    where: npt.NDArray[np.int64]
