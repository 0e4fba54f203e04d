"""From a selection to tasks: which chunks one task reads, and in which order tasks follow each other."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod

from rainbear_dask.indexing.chunk_grid import common_lengths, longest_shards
from rainbear_dask.indexing.selection import Box
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.planning.task import Scan, ScanTask
from rainbear_dask.planning.tiling import Tile, Tiling
from rainbear_dask.table.model import Table
from rainbear_dask.table.order import FRAME_RATIO

MIN_TASKS = 14
"""A scan has at least this many tasks, unless they would be smaller than `MIN_TASK_BYTES`."""

MIN_TASK_BYTES = 4 * 2**20
"""Decoded bytes below which a task is not divided further."""


def count_chunks(arrays: Sequence[ArrayMeta], boxes: Sequence[Box]) -> dict[str, int]:
    """Return, by path of the array, how many of its chunks hold a position of a union of boxes."""
    counts = {grid: grid.count(boxes) for grid in {array.grid for array in arrays}}
    return {array.path: counts[array.grid] for array in arrays}


@dataclass(frozen=True)
class TaskLayout:
    """How the rows of a selection are cut into tasks.

    The layout depends on the plan alone, not on the workers: the same query has the same task keys everywhere.

    Parameters
    ----------
    table : Table
        The whole table.
    scan : Scan
        Columns and filters that all tasks share.
    arrays : tuple of ArrayMeta
        Arrays that tasks read chunk by chunk.
    boxes : tuple of Box
        The selection; boxes may overlap.
    task_bytes : int
        Decoded bytes of the chunks of one task: a target, not a bound.
    limit : int or None
        Upper bound of the rows wanted after the filter.
    starts_small : bool
        Whether the first tasks are small, because the first rows may satisfy ``limit``.
    """

    table: Table
    scan: Scan
    arrays: tuple[ArrayMeta, ...]
    boxes: tuple[Box, ...]
    task_bytes: int
    limit: int | None = None
    starts_small: bool = False

    @cached_property
    def cut_along(self) -> Sequence[ArrayMeta]:
        """Arrays at whose chunks tasks are cut: arrays of all dimensions, because workers cache parts of the others."""
        data = self.arrays or self.table.data_arrays
        return [array for array in data if len(array.dims) == len(self.table.sizes)] or data

    @cached_property
    def chunks_selected(self) -> Mapping[str, int]:
        """Chunks that the selection touches, by path of the array."""
        return count_chunks(self.arrays, self.boxes)

    @cached_property
    def unit(self) -> Mapping[str, int]:
        """Length along each dimension of the unit that tasks are made of: whole chunks of the arrays."""
        return common_lengths(self.table.sizes, [array.grid for array in self.cut_along])

    @cached_property
    def unit_rows(self) -> int:
        """Upper bound of the selected rows of one unit."""
        return prod(
            min(length, sum(len(box[dim]) if dim in box else length for box in self.boxes))
            for dim, length in self.unit.items()
        )

    @cached_property
    def unit_chunk_bytes(self) -> int:
        """Decoded bytes of the chunks of one unit, over all arrays."""
        return sum(prod(self.unit[dim] for dim in array.dims) * array.itemsize for array in self.arrays)

    @cached_property
    def tiling(self) -> Tiling:
        """The cut of the selection into tiles, one for each task."""
        frame_bytes = self.unit_rows * sum(column.width for column in self.scan.columns)
        unit_bytes = max(self.unit_chunk_bytes, frame_bytes // FRAME_RATIO, 1)
        selected_bytes = sum(array.chunk_bytes * self.chunks_selected[array.path] for array in self.arrays)
        fair_bytes = max(selected_bytes // MIN_TASKS, MIN_TASK_BYTES)
        return Tiling(
            self.table.sizes,
            self.table.blocks,
            self.unit,
            self.boxes,
            budget=min(self.task_bytes // unit_bytes, round(fair_bytes / max(self.unit_chunk_bytes, 1))),
            shards=longest_shards(list(self.table.sizes), [array.grid for array in self.cut_along]),
        )

    def task(self, tile: Tile) -> ScanTask:
        """Return the task that reads a tile."""
        return ScanTask(self.scan, tile.index, tile.max_rows, tile.boxes)

    def tasks(self) -> Iterator[ScanTask]:
        """Yield the tasks in row order, lazily; without filters, only as many as ``limit`` needs."""
        wanted = self.limit
        for tile in self.tiling.from_small() if self.starts_small else self.tiling:
            task = self.task(tile)
            if wanted is None or self.scan.filters:
                yield task
            elif wanted > 0:
                yield task.head(wanted)
                wanted -= task.num_rows
            else:
                return
