"""From weights of cells and chunk grids to tasks, in the order of the rows of the result."""

import hashlib
from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import product
from math import lcm, prod

import numpy as np

from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Box
from rainbear_dask.planning.task import Scan
from rainbear_dask.regions.coverage import Coverage
from rainbear_dask.regions.statistics import Needs
from rainbear_dask.regions.task import Part, ZonalTask
from rainbear_dask.table.model import Column, Table

Spans = Mapping[str, tuple[int, int]]
"""Half-open ranges of positions, by dimension."""

_MIN_TASK_BYTES = 2**22
"""Decoded bytes of a task, at least, if the store has as many."""

_TASKS = 16
"""Tasks of a query, about, if they are not larger than the setting ``task-bytes``."""


@dataclass(frozen=True)
class Group:
    """Variables with one chunk grid, and their tasks.

    Parameters
    ----------
    scan : Scan
        Store, dimensions and columns.
    others : tuple of str
        Dimensions beside the spatial ones, in table order.
    lengths, chunks : mapping of str to int
        Length of a task, and of a chunk, along each of these.
    sizes : mapping of str to int
        Length of each dimension.
    parts : tuple of tuple of Part
        Chunks along the spatial axes, task by task.
    y, x : str
        The spatial dimensions.
    needs : Needs
        The sums to compute.
    """

    scan: Scan
    others: tuple[str, ...]
    lengths: Mapping[str, int]
    chunks: Mapping[str, int]
    sizes: Mapping[str, int]
    parts: tuple[tuple[Part, ...], ...]
    y: str
    x: str
    needs: Needs

    def tasks(self, within: Spans, boxes: Sequence[Box]) -> Iterator[tuple[Spans, ZonalTask]]:
        """Yield the tasks inside ranges of the other dimensions that meet a box, each with its own ranges."""
        for spans in self._corners(within, boxes):
            for parts in self.parts:
                yield spans, self._task(spans, parts)

    def num_tasks(self, within: Spans, boxes: Sequence[Box]) -> int:
        """Return the number of `tasks`."""
        return sum(1 for _ in self._corners(within, boxes)) * len(self.parts)

    @property
    def task_bytes(self) -> int:
        """Upper bound of the bytes that a worker needs for a task: its chunks, decoded, and the values of its cells."""
        arrays = [column.array for column in self.scan.columns if column.array is not None]
        chunks = prod(-(-min(self.lengths[dim], self.sizes[dim]) // self.chunks[dim]) for dim in self.others)
        depth = prod(min(self.lengths[dim], self.sizes[dim]) for dim in self.others)
        cells = max((sum(len(part.cells) for part in parts) for parts in self.parts), default=0)
        num_parts = max(map(len, self.parts), default=0)
        return chunks * num_parts * sum(array.chunk_bytes for array in arrays) + 8 * depth * cells * len(arrays)

    def _corners(self, within: Spans, boxes: Sequence[Box]) -> Iterator[Spans]:
        """Yield the ranges of tasks along the other dimensions."""
        along = [self._spans(dim, within[dim], boxes) for dim in self.others]
        for corner in product(*along):
            spans = dict(zip(self.others, corner, strict=True))
            if any(_meets(box, spans) for box in boxes):
                yield spans

    def _spans(self, dim: str, within: tuple[int, int], boxes: Sequence[Box]) -> list[tuple[int, int]]:
        """Return the ranges of tasks along one dimension: whole chunks that hold a position of a box."""
        chunk, length = self.chunks[dim], self.lengths[dim]
        every = IndexSet.span(*within)
        wanted = IndexSet.union([box.get(dim, every) & every for box in boxes]) if boxes else IndexSet.span(0, 0)
        return [
            (max(start, at), min(stop, at + length))
            for start, stop in wanted.whole_chunks(chunk, self.sizes[dim]).runs(chunk)
            for at in range(start // length * length, stop, length)
        ]

    def _task(self, spans: Spans, parts: tuple[Part, ...]) -> ZonalTask:
        rows, columns = (
            (min(span[0] for span in found), max(span[1] for span in found))
            for found in ([part.rows for part in parts], [part.columns for part in parts])
        )
        whole = dict(spans) | {self.y: rows, self.x: columns}
        index = tuple(IndexSet.span(*whole[dim]) for dim in self.scan.dims)
        num_zones = len(np.unique(np.concatenate([part.zones for part in parts])))
        num_rows = num_zones * prod(stop - start for start, stop in spans.values())
        return ZonalTask(self.scan, index, num_rows, parts=parts, y=self.y, x=self.x, needs=self.needs)


def _meets(box: Box, spans: Spans) -> bool:
    return all(dim not in box or bool(box[dim] & IndexSet.span(*span)) for dim, span in spans.items())


def groups_of(
    table: Table, columns: Sequence[Column], coverage: Coverage, *, y: str, x: str, needs: Needs, task_bytes: int
) -> list[Group]:
    """Cut variables into tasks that read each chunk once.

    Parameters
    ----------
    table : Table
        The table.
    columns : sequence of Column
        Variables; each has both spatial dimensions.
    coverage : Coverage
        The cells of all zones.
    y, x : str
        The spatial dimensions.
    needs : Needs
        The sums to compute. For quantiles, a task holds all chunks of all zones.
    task_bytes : int
        Decoded bytes of a task, at most, if the chunk grid allows it.

    Returns
    -------
    list of Group
        One for each chunk grid. If no zone has a cell, the groups have no tasks.
    """
    found: dict[ChunkGrid, list[Column]] = {}
    for column in columns:
        if column.array is not None:
            found.setdefault(column.array.grid, []).append(column)
    groups = []
    for grid, same in found.items():
        parts = _parts(coverage, grid.lengths[y], grid.lengths[x])
        dims = tuple(dim for dim in table.sizes if dim in grid.dims)
        others = tuple(dim for dim in dims if dim not in (y, x))
        chunk_bytes = sum(column.array.chunk_bytes for column in same if column.array is not None)
        all_bytes = chunk_bytes * len(parts) * prod(grid.along(dim).num_chunks for dim in others)
        target = min(max(all_bytes // _TASKS, _MIN_TASK_BYTES), task_bytes)
        lengths = _lengths(grid, others, chunk_bytes * len(parts), target)
        per_task = max(len(parts) if needs.quantiles else target // chunk_bytes, 1)
        together = tuple(parts[at : at + per_task] for at in range(0, len(parts), per_task))
        scan = Scan(table.spec, dims, tuple(same))
        groups.append(Group(scan, others, lengths, grid.lengths, grid.sizes, together, y, x, needs))
    return groups


def _lengths(grid: ChunkGrid, others: Sequence[str], unit_bytes: int, target: int) -> dict[str, int]:
    """Return the lengths of a task along the other dimensions: of one chunk, doubled as long as the task stays small."""
    lengths = {dim: grid.lengths[dim] for dim in others}
    for dim in reversed(others):
        while 2 * unit_bytes <= target and lengths[dim] < grid.sizes[dim]:
            lengths[dim] *= 2
            unit_bytes *= 2
    return lengths


def _parts(coverage: Coverage, tall: int, wide: int) -> tuple[Part, ...]:
    """Cut the cells of zones by chunk along the spatial axes, in C order of the chunks."""
    across = int(coverage.column.max(initial=0)) // wide + 1
    chunk = coverage.row // tall * across + coverage.column // wide
    order = np.argsort(chunk, kind="stable")  # in a chunk, cells stay sorted by zone
    starts = np.flatnonzero(np.diff(chunk[order], prepend=-1))
    parts = []
    for start, stop in zip(starts, [*starts[1:], len(order)], strict=False):
        mine = order[start:stop]
        row, column, zone = coverage.row[mine], coverage.column[mine], coverage.zone[mine]
        rows, columns = ((int(at.min()), int(at.max()) + 1) for at in (row, column))
        zones, starts = np.unique(zone, return_index=True)
        part = Part(
            rows,
            columns,
            (row - rows[0]) * (columns[1] - columns[0]) + column - columns[0],
            zones,
            starts.astype(np.int64),
            coverage.fraction[mine],
            coverage.weight[mine],
            "",
        )
        parts.append(replace(part, token=_token(part)))
    return tuple(parts)


def _token(part: Part) -> str:
    content = hashlib.sha256(repr((part.rows, part.columns)).encode())
    for array in (part.cells, part.zones, part.starts, part.fraction, part.weight):
        content.update(np.ascontiguousarray(array).tobytes())
    return content.hexdigest()


def band_length(groups: Sequence[Group], dim: str, size: int) -> int:
    """Return the length, along one dimension, of a band of whole tasks of all groups; at most ``size``."""
    lengths = [group.lengths[dim] for group in groups if dim in group.lengths]
    return min(lcm(*lengths), max(size, 1)) if lengths else max(size, 1)
