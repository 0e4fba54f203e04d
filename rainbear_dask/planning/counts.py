"""The size of a plan, known before anything is read: chunks, bytes, rows, tasks and memory."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import cached_property
from itertools import islice

from rainbear_dask.indexing.blocks import Blocks
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.planning.layout import TaskLayout

MAX_BOXES_COUNTED_BY_ROW = 16
"""Boxes up to which rows are counted exactly, however the boxes overlap; beyond, an upper bound is enough."""

MAX_SAMPLED_TASKS = 256
"""Tasks up to which repeated reads are counted; beyond, they are estimated."""


@dataclass(frozen=True)
class PlanCounts:
    """Chunks, bytes, rows, tasks and memory of a plan; each is counted when it is first asked for.

    If the selection was widened, all counts are upper bounds.

    Parameters
    ----------
    layout : TaskLayout
        The tasks of the plan.
    row_bytes : int
        Bytes of one row with the columns of the frame and of the filter.
    """

    layout: TaskLayout
    row_bytes: int

    @cached_property
    def chunks_kept(self) -> Mapping[str, int]:
        """Chunks that the plan reads, by path of the array."""
        if not self.is_cut_short:
            return self.layout.chunks_selected
        tasks = list(self.layout.tasks())
        return {array.path: sum(task.num_chunks(array) for task in tasks) for array in self._arrays}

    @property
    def num_chunks_kept(self) -> int:
        """Chunks that the plan reads, over all arrays."""
        return sum(self.chunks_kept.values())

    @property
    def num_chunks(self) -> int:
        """Chunks of the arrays that the plan reads, before pruning."""
        return sum(array.num_chunks for array in self._arrays)

    @property
    def bytes_kept(self) -> int:
        """Decoded bytes that the plan reads."""
        return sum(self.chunks_kept[array.path] * array.chunk_bytes for array in self._arrays)

    @property
    def bytes_total(self) -> int:
        """Decoded bytes of the arrays that the plan reads, before pruning."""
        return sum(array.num_chunks * array.chunk_bytes for array in self._arrays)

    @cached_property
    def rows_selected(self) -> int:
        """Rows that the selection holds; an upper bound if many boxes share a unit."""
        layout = self.layout
        by_row = len(layout.boxes) <= MAX_BOXES_COUNTED_BY_ROW
        unit = dict.fromkeys(layout.table.sizes, 1) if by_row else layout.unit
        return Blocks(layout.table.sizes, unit, layout.boxes).num_rows

    @property
    def max_rows(self) -> int:
        """Upper bound of the rows of the result."""
        limit = self.layout.limit
        return self.rows_selected if limit is None else min(self.rows_selected, limit)

    @property
    def is_cut_short(self) -> bool:
        """Whether ``limit`` spares selected chunks."""
        limit = self.layout.limit
        return limit is not None and not self.layout.scan.filters and limit < self.rows_selected

    @property
    def num_tasks(self) -> int:
        """Tasks of the whole plan. With ``limit``, fewer may be enough, and the first are smaller."""
        return self.layout.tiling.num_tiles

    @property
    def task_bytes_at_most(self) -> int:
        """Upper bound, estimated, of the bytes that a worker needs for one task; as ``ScanTask.memory_bytes``."""
        layout = self.layout
        return layout.tiling.max_units * (layout.unit_chunk_bytes + layout.unit_rows * self.row_bytes)

    @property
    def amplification(self) -> float:
        """Bytes read for each byte of the selected chunks: above 1 if chunks lie across a cut between tasks."""
        arrays = [array for array in self._arrays if len(array.dims) == len(self.layout.table.sizes)]
        if not any(self._lies_across_cuts(array) for array in arrays):
            return 1.0
        bytes_of = {a: self.layout.chunks_selected[a.path] * a.chunk_bytes for a in arrays}
        total = sum(bytes_of.values())
        return self._bytes_read(bytes_of) / total if total else 1.0

    @property
    def _arrays(self) -> tuple[ArrayMeta, ...]:
        return self.layout.arrays

    def _lies_across_cuts(self, array: ArrayMeta) -> bool:
        """Whether a cut between units or blocks divides a chunk of an array of all dimensions."""
        unit, blocks = self.layout.unit, self.layout.table.blocks
        return any(
            unit[dim] % chunk != 0 or (blocks[dim] % chunk != 0 and blocks[dim] < length)
            for dim, length, chunk, _ in array.grid.axes
        )

    def _bytes_read(self, selected: Mapping[ArrayMeta, int]) -> float:
        """Bytes that all tasks read of some arrays: counted for few tasks, else estimated from the first."""
        layout = self.layout
        tasks = list(map(layout.task, islice(layout.tiling, MAX_SAMPLED_TASKS + 1)))
        if len(tasks) <= MAX_SAMPLED_TASKS:
            return float(sum(task.num_chunks(array) * array.chunk_bytes for task in tasks for array in selected))
        first = dict(zip(layout.table.sizes, tasks[0].index, strict=True))
        cuts = {dim: len(index) for dim, index in first.items() if len(index) < layout.table.sizes[dim]}
        return sum(array.grid.reads_per_chunk(cuts) * selected_bytes for array, selected_bytes in selected.items())
