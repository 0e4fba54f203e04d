"""What a scan will read, known before anything is read: tasks, counts and limits."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import islice
from math import prod
from operator import and_

import polars as pl

from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.indexing.blocks import Blocks, simplified
from rainbear_dask.indexing.chunk_grid import common_lengths, finest_lengths, longest_shards
from rainbear_dask.indexing.selection import Selection
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.planning.predicate import Conjunct
from rainbear_dask.planning.task import Filter, Scan, ScanTask
from rainbear_dask.planning.tiling import Tile, Tiling
from rainbear_dask.table.model import Column, Table
from rainbear_dask.table.order import FRAME_RATIO, first_rows
from rainbear_dask.table.tidy import nest

TASK_BYTES = 64 * 2**20
"""Decoded bytes of the chunks that one task reads at most, where the chunk grid allows it."""

_FEW_TASKS, _SMALL_TASK = 16, 4 * 2**20  # a scan is cut into so many tasks, unless they would be smaller than that

_FEW_BOXES = 16  # boxes whose rows are counted one position at a time, however they overlap

_SAMPLE = 256  # tasks of which what is read more than once is counted; of more, it is estimated


@dataclass(frozen=True, slots=True)
class Limits:
    """What a plan may need at most; None for no limit.

    Parameters
    ----------
    chunks : int or None
        Places in the chunk grids of the data variables; variables on one grid count once.
    rows : int or None
        Rows, before a filter that needs them is applied.
    bytes : int or None
        Decoded bytes of chunks.
    """

    chunks: int | None = None
    rows: int | None = None
    bytes: int | None = None


@dataclass(frozen=True)
class ReadPlan:
    """What a scan will read.

    Parameters
    ----------
    table : Table
        Rows and columns of the whole table.
    columns : tuple of Column
        What a frame holds, in order.
    conjuncts : tuple of Conjunct
        The filter, part by part, each with the index positions that it may match.
    limit : int or None
        Rows wanted at most, of those that pass the filter. Tasks are cut short by it where no filter is left to apply.
    head : int or None
        Rows of the table that the filter sees: so many, from the first.
    task_bytes : int
        Decoded bytes that a task reads at most, about.
    """

    table: Table
    columns: tuple[Column, ...]
    conjuncts: tuple[Conjunct, ...] = ()
    limit: int | None = None
    head: int | None = None
    task_bytes: int = TASK_BYTES

    # ------------------------------------------------------------------ what is read

    @cached_property
    def selection(self) -> Selection:
        """Index positions that may match."""
        # as if each part were exact: the whole is then not only where it had to be widened
        parts = (replace(conjunct.selection, exact=True) for conjunct in self.conjuncts)
        if not self.table.columns:
            return Selection.nothing()  # no array, no row
        if self.head is None:
            return self._simplified(reduce(and_, parts, Selection.everything(exact=True)))
        first = first_rows(self.table.sizes, self.table.blocks, self.head)
        found = self._simplified(reduce(and_, parts, first))
        # a filter does not leave out what is behind the first rows, so these are never widened
        return found if found.exact else replace(first, exact=False)

    @property
    def is_widened(self) -> bool:
        """Whether the selection holds more than it could, so that counts are upper bounds."""
        return not self.selection.exact

    def _simplified(self, selection: Selection) -> Selection:
        """A selection, or where it cannot be cut into blocks within reasonable time, one that holds more."""
        sizes = self.table.sizes
        named = self.table.leaves(n for conjunct in self.conjuncts for n in conjunct.expr.meta.root_names())
        data = [c.array for c in (*self.columns, *named) if c.role == "data" and c.array]
        data = data or [c.array for c in self.table.columns.values() if c.role == "data" and c.array]
        grids = {array.grid: None for array in data}
        fewer = [grid.lengths for grid in grids if len(grid.dims) < len(sizes)]
        return simplified(selection, sizes, [finest_lengths(sizes, list(grids)), *fewer])

    @cached_property
    def filters(self) -> tuple[Filter, ...]:
        """Conjuncts that the selection does not settle: first on coordinates alone, then those that read least."""
        settled = self.selection.exact
        conjuncts = [c for c in self.conjuncts if not (settled and c.selection.exact)]
        filters = [
            Filter(conjunct.expr.meta.serialize(), self.table.leaves(dict.fromkeys(conjunct.expr.meta.root_names())))
            for conjunct in conjuncts
        ]
        return tuple(sorted(filters, key=lambda f: sum(c.width for c in f.columns if c.role == "data")))

    @cached_property
    def arrays(self) -> tuple[ArrayMeta, ...]:
        """Arrays read chunk by chunk: all but the coordinates, which workers keep."""
        wanted = {c.name: c for columns in (self.columns, *(f.columns for f in self.filters)) for c in columns}
        return tuple(c.array for c in wanted.values() if c.array is not None and c.role == "data")

    def chunks_left_by(self, conjunct: Conjunct) -> int:
        """Chunks, over all arrays, that one part of the filter keeps by itself."""
        alone = self.selection if len(self.conjuncts) == 1 else self._simplified(conjunct.selection)
        return sum(self._count(alone).values())

    def _count(self, selection: Selection) -> dict[str, int]:
        counts = {grid: grid.count(selection.boxes) for grid in {array.grid for array in self.arrays}}
        return {array.path: counts[array.grid] for array in self.arrays}

    @cached_property
    def _chunks_selected(self) -> Mapping[str, int]:
        return self._count(self.selection)

    @property
    def is_cut_short(self) -> bool:
        """Whether ``limit`` spares chunks that are selected."""
        return self.limit is not None and not self.filters and self.limit < self._num_rows

    @cached_property
    def chunks_kept(self) -> Mapping[str, int]:
        """Chunks that will be read, by path of the array."""
        if not self.is_cut_short:
            return self._chunks_selected
        tasks = list(self.tasks())
        return {array.path: sum(task.num_chunks(array) for task in tasks) for array in self.arrays}

    @property
    def num_chunks_kept(self) -> int:
        """Chunks that will be read, over all arrays."""
        return sum(self.chunks_kept.values())

    @property
    def num_chunks(self) -> int:
        """Chunks of the arrays that are read, before pruning."""
        return sum(array.num_chunks for array in self.arrays)

    @property
    def bytes_kept(self) -> int:
        """Decoded bytes that will be read."""
        return sum(self.chunks_kept[array.path] * array.chunk_bytes for array in self.arrays)

    @property
    def bytes_total(self) -> int:
        """Decoded bytes of the arrays that are read, before pruning."""
        return sum(array.num_chunks * array.chunk_bytes for array in self.arrays)

    # ------------------------------------------------------------------ tasks

    @cached_property
    def tiling(self) -> Tiling:
        """How the selection is cut into tasks."""
        sizes, arrays, grains = self.table.sizes, self.cut_along, self._grains
        read = sum(prod(grains[d] for d in array.dims) * array.itemsize for array in self.arrays)
        made = self._rows_in_unit * sum(column.width for column in self.columns)
        unit_bytes = max(read, made // FRAME_RATIO, 1)
        # from the plan alone, not from the workers there are: the same question has the same keys everywhere
        fair = max(sum(a.chunk_bytes * self._chunks_selected[a.path] for a in self.arrays) // _FEW_TASKS, _SMALL_TASK)
        return Tiling(
            sizes,
            self.table.blocks,
            grains,
            self.selection.boxes,
            budget=min(self.task_bytes // unit_bytes, round(fair / unit_bytes)),
            shards=longest_shards(list(sizes), [array.grid for array in arrays]),
        )

    @cached_property
    def _num_rows(self) -> int:
        """Rows that the selection holds; an upper bound where many boxes share a unit."""
        boxes = self.selection.boxes
        grains = dict.fromkeys(self.table.sizes, 1) if len(boxes) <= _FEW_BOXES else self._grains
        return Blocks(self.table.sizes, grains, boxes).num_rows

    @cached_property
    def _grains(self) -> Mapping[str, int]:
        """Lengths of which tasks are multiples."""
        return common_lengths(self.table.sizes, [array.grid for array in self.cut_along])

    @cached_property
    def _rows_in_unit(self) -> int:
        """Rows wanted of what tasks are multiples of, at most."""
        boxes = self.selection.boxes
        return prod(
            min(grain, sum(len(box[dim]) if dim in box else grain for box in boxes))
            for dim, grain in self._grains.items()
        )

    @cached_property
    def cut_along(self) -> Sequence[ArrayMeta]:
        """Arrays by whose chunks tasks are cut: those of all dimensions, as workers keep parts of the others."""
        data = self.arrays or tuple(c.array for c in self.table.columns.values() if c.role == "data" and c.array)
        return [array for array in data if len(array.dims) == len(self.table.sizes)] or data

    @property
    def amplification(self) -> float:
        """Bytes read for each byte of the chunks selected: above 1 where a chunk lies across a cut between tasks."""
        arrays = [array for array in self.arrays if len(array.dims) == len(self.table.sizes)]
        cuts = [(dim, self._grains[dim], self.table.blocks[dim], n) for dim, n in self.table.sizes.items()]
        if all(
            grain % (c := array.grid.lengths[dim]) == 0 and (length % c == 0 or length >= n)
            for array in arrays
            for dim, grain, length, n in cuts
        ):
            return 1.0
        bytes_of = {array: self._chunks_selected[array.path] * array.chunk_bytes for array in arrays}
        some = [self._task(tile) for tile in islice(self.tiling, _SAMPLE + 1)]
        if len(some) <= _SAMPLE:
            read = float(sum(task.num_chunks(array) * array.chunk_bytes for task in some for array in arrays))
        else:
            first = dict(zip(self.table.sizes, some[0].index, strict=True))
            cut = {d: len(one) for d, one in first.items() if len(one) < self.table.sizes[d]}
            read = sum(array.grid.reads_per_chunk(cut) * selected for array, selected in bytes_of.items())
        return read / sum(bytes_of.values()) if any(bytes_of.values()) else 1.0

    @property
    def num_tasks(self) -> int:
        """Tasks of the whole plan; ``limit`` may make do with fewer, of which the first are smaller."""
        return self.tiling.num_tiles

    @property
    def task_bytes_at_most(self) -> int:
        """Bytes that a worker needs for any of the tasks at most, about; as ``ScanTask.memory_bytes``."""
        named = self.table.leaves(n for conjunct in self.conjuncts for n in conjunct.expr.meta.root_names())
        width = sum({c.name: c.width for c in (*self.columns, *named)}.values())
        read = sum(prod(self._grains[d] for d in array.dims) * array.itemsize for array in self.arrays)
        return self.tiling.most_units * (read + self._rows_in_unit * width)

    @property
    def max_rows(self) -> int:
        """Rows that the selection holds: an upper bound of the rows returned."""
        return self._num_rows if self.limit is None else min(self._num_rows, self.limit)

    def no_rows(self) -> pl.DataFrame:
        """A frame of the plan's columns, without rows."""
        return nest(pl.DataFrame(schema={column.name: column.dtype for column in self.columns}))

    def tasks(self) -> Iterator[ScanTask]:
        """Tasks in the order of rows, made one by one as they are asked for."""
        wanted = self.limit
        # where a few rows of those that pass a filter are wanted, one chunk may have them
        for tile in self.tiling if wanted is None or not self.conjuncts else self.tiling.from_small():
            task = self._task(tile)
            if wanted is None or self.filters:
                yield task
            elif wanted > 0:
                yield task.head(wanted)
                wanted -= task.num_rows
            else:
                return

    def _task(self, tile: Tile) -> ScanTask:
        return ScanTask(self._scan, tile.index, tile.max_rows, tile.boxes)

    @cached_property
    def _scan(self) -> Scan:
        return Scan(
            self.table.spec,
            tuple(self.table.sizes),
            self.columns,
            self.filters,
            tuple(self.table.blocks.values()),
        )

    # ------------------------------------------------------------------ limits

    def check(self, limits: Limits) -> None:
        """Refuse a plan that reads too much, before anything is read.

        Parameters
        ----------
        limits : Limits
            What is allowed.

        Raises
        ------
        PlanTooLargeError
            If more is needed than a limit allows.
        """
        if limits == Limits():  # as most scans are: nothing is counted for it
            return
        # variables on one grid count once: the limit is on places in the grid
        chunks = sum({a.grid: self.chunks_kept[a.path] for a in self.arrays}.values())
        for option, needed, limit, what in (
            ("max_chunks_to_read", chunks, limits.chunks, "chunks"),
            ("max_rows", self.max_rows, limits.rows, "rows"),
            ("max_bytes", self.bytes_kept, limits.bytes, "decoded bytes"),
        ):
            if limit is not None and needed > limit:
                raise PlanTooLargeError(
                    f"{option} exceeded: {needed} {what} needed, limit is {limit}. "
                    f"Narrow the filter on {', '.join(self.table.sizes)} of {self.table.spec.label}, or raise the limit."
                )


def build_plan(
    table: Table,
    *,
    columns: Sequence[Column],
    conjuncts: Sequence[Conjunct] = (),
    limit: int | None = None,
    head: int | None = None,
    task_bytes: int = TASK_BYTES,
) -> ReadPlan:
    """Plan a scan.

    Parameters
    ----------
    table : Table
        What is scanned.
    columns : sequence of Column
        Columns wanted, in order.
    conjuncts : sequence of Conjunct
        The filter, compiled.
    limit : int, optional
        Rows wanted at most, of those that pass the filter.
    head : int, optional
        Rows of the table that the filter sees, from the first.
    task_bytes : int
        Decoded bytes of the chunks that one task reads, about.

    Returns
    -------
    ReadPlan
        Nothing has been read for it but coordinates.
    """
    return ReadPlan(table, tuple(columns), tuple(conjuncts), limit, head, task_bytes)
