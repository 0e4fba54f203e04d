"""`ReadPlan`: a query as plain data, with its selection, residual filters and tasks."""

from collections.abc import Iterator
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from operator import and_

import polars as pl

from rainbear_dask.indexing.blocks import simplified
from rainbear_dask.indexing.cells import selection_of_cells
from rainbear_dask.indexing.chunk_grid import ChunkGrid, finest_lengths
from rainbear_dask.indexing.selection import Selection
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.planning.counts import PlanCounts
from rainbear_dask.planning.keys import KeyCells, TaskCells
from rainbear_dask.planning.layout import TaskLayout, count_chunks
from rainbear_dask.planning.predicate import Conjunct
from rainbear_dask.planning.pruning import StatisticsUse
from rainbear_dask.planning.task import Filter, Scan, ScanTask
from rainbear_dask.table.model import Column, Table
from rainbear_dask.table.order import first_rows
from rainbear_dask.table.tidy import nest

TASK_BYTES = 64 * 2**20
"""Decoded bytes of the chunks of one task, if the chunk grid allows it."""


@dataclass(frozen=True)
class ReadPlan:
    """The plan of a scan; nothing is read for it but coordinates.

    Parameters
    ----------
    table : Table
        Rows and columns of the whole table.
    columns : tuple of Column
        Columns of the frame, in order.
    conjuncts : tuple of Conjunct
        The filter, conjunct by conjunct, each with the index positions that it may match.
    limit : int or None
        Upper bound of the rows wanted after the filter. Tasks end there if workers need not filter.
    head : int or None
        Number of first rows of the table that the filter sees; None for all.
    task_bytes : int
        Decoded bytes of the chunks of one task: a target, not a bound.
    keys : tuple of KeyCells
        Cells with a partner in a join. The join, which Polars computes, drops all other rows.
    statistics : tuple of StatisticsUse
        Statistics of chunks that have pruned the selections of conjuncts, or could have.
    """

    table: Table
    columns: tuple[Column, ...]
    conjuncts: tuple[Conjunct, ...] = ()
    limit: int | None = None
    head: int | None = None
    task_bytes: int = TASK_BYTES
    keys: tuple[KeyCells, ...] = ()
    statistics: tuple[StatisticsUse, ...] = ()

    @cached_property
    def selection(self) -> Selection:
        """Index positions that may match; exact unless it had to be widened."""
        # each conjunct counts as exact here, because `filters` keeps those that are not
        parts = [replace(conjunct.selection, exact=True) for conjunct in self.conjuncts]
        parts += [replace(kept, exact=True) for kept in self._kept_by_keys]
        if not self.table.columns:
            return Selection.nothing()  # no array, no row
        if self.head is None:
            return _simplified(self, reduce(and_, parts, Selection.everything(exact=True)))
        first = first_rows(self.table.sizes, self.table.blocks, self.head)
        found = _simplified(self, reduce(and_, parts, first))
        # no filter drops the rows behind the first ones, so these are never widened
        return found if found.exact else replace(first, exact=False)

    @cached_property
    def filters(self) -> tuple[Filter, ...]:
        """Residual filters, which workers apply: those on coordinates alone first, then by bytes that they read."""
        settled = self.selection.exact
        conjuncts = [c for c in self.conjuncts if not (settled and c.selection.exact)]
        filters = [
            Filter(conjunct.expr.meta.serialize(), self.table.leaves(dict.fromkeys(conjunct.expr.meta.root_names())))
            for conjunct in conjuncts
        ]
        return tuple(sorted(filters, key=lambda f: sum(c.width for c in f.columns if c.role == "data")))

    @cached_property
    def filter_columns(self) -> tuple[Column, ...]:
        """Columns that the filter names."""
        return self.table.leaves(name for conjunct in self.conjuncts for name in conjunct.expr.meta.root_names())

    @cached_property
    def arrays(self) -> tuple[ArrayMeta, ...]:
        """Arrays that tasks read chunk by chunk: the data variables. Workers cache coordinates."""
        wanted = {c.name: c for columns in (self.columns, *(f.columns for f in self.filters)) for c in columns}
        return tuple(c.array for c in wanted.values() if c.array is not None and c.role == "data")

    @cached_property
    def layout(self) -> TaskLayout:
        """The cut into tasks."""
        table = self.table
        scan = Scan(table.spec, tuple(table.sizes), self.columns, self.filters, tuple(table.blocks.values()))
        starts_small = self.limit is not None and bool(self.conjuncts)
        return TaskLayout(table, scan, self.arrays, self.selection.boxes, self.task_bytes, self.limit, starts_small)

    @cached_property
    def counts(self) -> PlanCounts:
        """Chunks, bytes, rows, tasks and memory."""
        return PlanCounts(self.layout, sum({c.name: c.width for c in (*self.columns, *self.filter_columns)}.values()))

    def tasks(self) -> Iterator[ScanTask]:
        """Yield the tasks in row order, lazily."""
        if not self.keys or (self.selection.exact and all(kept.exact for kept in self._kept_by_keys)):
            return self.layout.tasks()
        return (replace(task, cells=self._cells_of(task)) for task in self.layout.tasks())

    def _cells_of(self, task: ScanTask) -> tuple[TaskCells, ...]:
        index = dict(zip(task.scan.dims, task.index, strict=True))
        return tuple(keys.within(index) for keys in self.keys)

    @cached_property
    def _kept_by_keys(self) -> tuple[Selection, ...]:
        return tuple(cells_kept_by(self, keys) for keys in self.keys)

    def no_rows(self) -> pl.DataFrame:
        """Return a frame with the columns of the plan, without rows."""
        return nest(pl.DataFrame(schema={column.name: column.dtype for column in self.columns}))


def num_chunks_kept_by(plan: ReadPlan, part: Conjunct | KeyCells) -> int:
    """Return the number of chunks, over all arrays of a plan, that one part of its conditions keeps by itself."""
    if len(plan.conjuncts) + len(plan.keys) == 1:
        alone = plan.selection
    else:
        alone = _simplified(plan, part.selection if isinstance(part, Conjunct) else cells_kept_by(plan, part))
    return sum(count_chunks(plan.arrays, alone.boxes).values())


def cells_kept_by(plan: ReadPlan, keys: KeyCells) -> Selection:
    """Return the selection of the keys of a join, which holds whole chunks only where it needs them."""
    sizes = plan.table.sizes
    return selection_of_cells(keys.dims, keys.cells, finest_lengths(sizes, _grids(plan)), sizes)


def _simplified(plan: ReadPlan, selection: Selection) -> Selection:
    """Return a selection that can be cut along the grids of a plan in reasonable time: the same, or a wider one."""
    sizes, grids = plan.table.sizes, _grids(plan)
    fewer = [grid.lengths for grid in grids if len(grid.dims) < len(sizes)]
    return simplified(selection, sizes, [finest_lengths(sizes, grids), *fewer])


def _grids(plan: ReadPlan) -> list[ChunkGrid]:
    data = [
        c.array for c in (*plan.columns, *plan.filter_columns) if c.role == "data" and c.array
    ] or plan.table.data_arrays
    return list(dict.fromkeys(array.grid for array in data))
