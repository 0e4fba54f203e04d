"""The work of one task: read chunks, filter, and return the rows as a `CompactFrame`."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from typing import TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.exceptions import RainbearError
from rainbear_dask.execution.columns import read_columns
from rainbear_dask.execution.filters import EvaluationError, evaluate, mask_of
from rainbear_dask.execution.survivors import can_pick, is_sparse, passing, values_at
from rainbear_dask.execution.wire import CompactColumn, CompactFrame, compact, lay_out
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.planning.task import Filter, ScanTask
from rainbear_dask.resources import threads
from rainbear_dask.table.model import Column
from rainbear_dask.table.order import in_order, sorted_rows
from rainbear_dask.table.tidy import CellMask

T = TypeVar("T")


def run_task(task: ScanTask) -> CompactFrame:
    """Read and filter the chunks of one task.

    A top-level function of plain data: it pickles by name, tests call it without a cluster, and a retry on another
    worker returns the same rows.

    Parameters
    ----------
    task : ScanTask
        The task to run.

    Returns
    -------
    CompactFrame
        The cells that pass the filter, as rows of the task's columns, in the order of the table's rows.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names array and chunk.
    """
    with on_a_thread():
        return _run(task)


@contextmanager
def on_a_thread() -> Iterator[None]:
    """Count the calling thread as one that reads, and let errors pickle."""
    try:
        with threads.busy():
            yield
    except RainbearError as error:
        if error.__suppress_context__:  # Dask would send a context that tracebacks hide and that may not even pickle
            error.__context__ = None
        raise


def _run(task: ScanTask) -> CompactFrame:
    return filtered(task).rows()


def filtered(task: ScanTask) -> "RowsLeft":
    """Return the rows of a task that pass its filters."""
    left, tests, failed = RowsLeft(task), deque(task.scan.filters), 0
    while tests and left.cells.count:
        test = tests.popleft()
        try:
            left.apply(test)
        except EvaluationError as err:
            # It may fail only on rows that another filter drops. Polars, too, applies conditions that may fail last.
            tests.append(test)
            if (failed := failed + 1) == len(tests):
                raise err.error from None
            continue
        failed = 0
    return left


class RowsLeft:
    """The cells of a task that no filter has dropped yet."""

    def __init__(self, task: ScanTask) -> None:
        self._scan, self._index = task.scan, dict(zip(task.scan.dims, task.index, strict=True))
        self.cells = CellMask({dim: len(positions) for dim, positions in self._index.items()}, cells_of(task))
        self._known: dict[str, pl.Series] = {}  # one value per cell
        if task.cells and self.cells.count:  # a box of cells is their smallest one
            self._index, self.cells = _narrow(self._index, self.cells, self.cells.mask)

    def apply(self, test: Filter) -> None:
        """Drop the cells that do not pass a filter."""
        data = [c for c in test.columns if c.role == "data"]
        if not self._known and can_pick(self._scan.spec, data, self._index):
            self.take(*passing(test, self._scan.spec, self._index, self.cells))
            return
        # evaluated once per cell of the filter's own dimensions, not once per row
        own = self.cells.along({dim for column in test.columns for dim in column.dims})
        more = [c for c in test.columns if own is not self.cells or c.name not in self._known]
        laid_out = self._known | self._read(more, own)
        if own is self.cells:
            self._known = laid_out
        passed = evaluate(test, laid_out, own.count)
        if not passed.all():
            self._keep(own, passed)

    def take(self, cells: CellMask, values: Mapping[str, pl.Series]) -> None:
        """Keep some of the cells, all of them still there, and the values of some columns at these."""
        self._known = dict(values)
        self._shrink_to(cells)

    def choose(self, columns: Sequence[Column], choose: Callable[[pl.DataFrame], pl.Series]) -> None:
        """Drop the rows that a function does not choose.

        Parameters
        ----------
        columns : sequence of Column
            Columns to read.
        choose : callable
            From a frame of these columns, in the order of rows, to the numbers of the rows to keep.
        """
        self._known |= self._read([c for c in columns if c.name not in self._known], self.cells)
        frame, along = pl.DataFrame([self._known[c.name] for c in columns]), tuple(self._index.values())
        kept = np.zeros(self.cells.count, dtype=np.bool_)
        if in_order(along, self._scan.blocks):
            kept[choose(frame).to_numpy()] = True
        else:
            order = sorted_rows(along, self._scan.blocks, self.cells.rows)
            kept[order[choose(frame[order]).to_numpy()]] = True
        self._keep(self.cells, pl.Series(kept))

    def _read(self, columns: Sequence[Column], own: CellMask) -> dict[str, pl.Series]:
        """Read columns, one value for each cell of ``own``, which are the cells left or a projection of them."""
        spec, picked = self._scan.spec, self._picked(columns) if own is self.cells else []
        values = read_columns(spec, [c for c in columns if c not in picked], self._index, self.cells)
        laid_out = {c.name: own.lay_out(values.pop(c.name), c.dims) for c in columns if c.name in values}
        return laid_out | (values_at(spec, picked, self._index, self.cells) if picked else {})

    def _keep(self, own: CellMask, passed: pl.Series) -> None:
        """Keep the cells that pass; ``passed`` has a value for each cell of ``own``."""
        kept = mask_of(passed)
        if not self._known and not self.cells.is_sparse:  # chunks are dropped before the mask is spread over the box
            self._index, self.cells = _narrow(self._index, self.cells, own.where(kept))
            return
        if own is not self.cells:
            kept = self.cells.at(own.where(kept))
            passed = pl.Series(kept)
        self._known = {name: values.filter(passed) for name, values in self._known.items()}
        self._shrink_to(self.cells.keep(kept))

    def _shrink_to(self, cells: CellMask) -> None:
        """Replace the cells; if they are held as a mask, in their smallest box."""
        self.cells = cells
        if not cells.is_sparse and not cells.is_whole:
            self._index, self.cells = _narrow(self._index, cells, cells.mask)

    def rows(self) -> CompactFrame:
        """Read the columns that are not known yet, and put the rows in order."""
        scan, index, cells = self._scan, self._index, self.cells
        if not cells.count:  # no other column is read
            return CompactFrame(0, tuple(CompactColumn(pl.Series(c.name, dtype=c.dtype)) for c in scan.columns))
        # Coordinates are read again: they are cached, and smaller before they are laid out.
        data = {c.name for c in scan.columns if c.role == "data"}
        done = {name: CompactColumn(values) for name, values in self._known.items() if name in data}
        left = [c for c in scan.columns if c.name not in done]
        if picked := self._picked(left):
            done |= {name: CompactColumn(values) for name, values in values_at(scan.spec, picked, index, cells).items()}
            left = [c for c in left if c.name not in done]
        values = read_columns(scan.spec, left, index, cells)
        done |= {c.name: CompactColumn(values[c.name], c.dims) for c in left}
        columns, along = [done[c.name] for c in scan.columns], tuple(index.values())
        if in_order(along, scan.blocks):
            return compact(columns, cells)
        order = pl.Series(sorted_rows(along, scan.blocks, cells.rows))
        return CompactFrame(
            cells.count, tuple(CompactColumn(lay_out(part, cells).values.gather(order)) for part in columns)
        )

    def _picked(self, columns: Sequence[Column]) -> list[Column]:
        """Return the data variables whose values are picked group by group, because few cells are left."""
        data = [c for c in columns if c.role == "data" and can_pick(self._scan.spec, [c], self._index)]
        return data if is_sparse(self.cells) else []


def make_frame(task: ScanTask) -> pl.DataFrame:
    """Run one task and return its rows as a Polars frame."""
    return run_task(task).to_polars()


def apply_to_frame(task: ScanTask, func: Callable[[pl.DataFrame], T]) -> T:
    """Run one task and return the result of a function of its frame."""
    return func(make_frame(task))


def cells_of(task: ScanTask) -> npt.NDArray[np.bool_] | None:
    """Return which cells of the product of positions are rows of the task; None if all are."""
    if not task.boxes and not task.cells:
        return None
    shape = [len(positions) for positions in task.index]
    wanted = np.full(shape, not task.boxes)
    for box in task.boxes:
        ranks = [every.count_below(some.positions()) for every, some in zip(task.index, box, strict=True)]
        wanted[np.ix_(*ranks)] = True
    for cells in task.cells:
        wanted &= cells.mask(shape)
    return wanted


def _narrow(
    index: Mapping[str, IndexSet], cells: CellMask, kept: npt.NDArray[np.bool_]
) -> tuple[dict[str, IndexSet], CellMask]:
    """Return the wanted cells that are kept, in their smallest box; ``kept`` broadcasts to the present box."""
    wanted = kept if cells.wanted is None else kept & cells.wanted
    narrow = dict(index)
    for axis, (dim, positions) in enumerate(index.items()):
        if wanted.shape[axis] == len(positions):
            used = wanted.any(axis=tuple(a for a in range(wanted.ndim) if a != axis))
            if not used.all():
                wanted = wanted.compress(used, axis=axis)
                narrow[dim] = IndexSet.from_positions(positions.positions()[used])
    box = {dim: len(positions) for dim, positions in narrow.items()}
    return narrow, CellMask(box, None if wanted.all() else np.broadcast_to(wanted, tuple(box.values())))
