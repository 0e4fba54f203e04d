"""Plans into slots: each task reads the cells of a unit and writes them where it reads."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING, Any
from uuid import uuid4

import numpy as np
import polars as pl
from zarr.abc.store import Store

from rainbear_dask.execution.executors import Work
from rainbear_dask.execution.run import run_tasks
from rainbear_dask.execution.worker import make_frame
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.task import Filter, Scan, ScanTask
from rainbear_dask.table.model import Column
from rainbear_dask.writing.slots import Slot, no_fill, unit_lengths, units, write_unit

if TYPE_CHECKING:
    from distributed import Client

_PLACE = "\0place of "
"""Begins the names of the columns with the position of each row, along the dimension that follows."""


def selected(plan: ReadPlan) -> dict[str, IndexSet]:
    """Return the positions of each dimension that the boxes of a plan select."""
    everything = {dim: IndexSet.span(0, size) for dim, size in plan.table.sizes.items()}
    boxes = plan.selection.boxes
    return {
        dim: IndexSet.union([box.get(dim, whole) for box in boxes]) if boxes else IndexSet.span(0, 0)
        for dim, whole in everything.items()
    }


def filters_of(plan: ReadPlan) -> tuple[Filter, ...]:
    """Return the conditions that tasks must apply because `selected` positions have cells that they drop."""
    if len(plan.selection.boxes) <= 1:
        return plan.filters
    return tuple(
        Filter(each.expr.meta.serialize(), plan.table.leaves(dict.fromkeys(each.expr.meta.root_names())))
        for each in plan.conjuncts
    )


@dataclass(frozen=True)
class UnitWriter:
    """Writes the rows of a task into slots.

    Parameters
    ----------
    place : callable
        Returns the writable store, in any process.
    slots : tuple of Slot
        The arrays.
    axes : mapping of str to IndexSet
        Positions of the source along each dimension, in the order of the target.
    starts : mapping of str to int
        First position of the target along each dimension.
    sparse : bool
        Whether a condition may drop cells.
    may_miss : bool
        Whether cells without a row are fill. Otherwise they are an error.
    call : str
        Name of the call, so that Dask never takes an earlier call for this one.
    """

    place: Callable[[], Store]
    slots: tuple[Slot, ...]
    axes: Mapping[str, IndexSet]
    starts: Mapping[str, int]
    sparse: bool
    may_miss: bool
    call: str

    __name__ = "write-zarr"  # for Dask's keys

    def __call__(self, task: ScanTask, frame: pl.DataFrame) -> int:
        """Write the rows of a task, and return their number."""
        spans = {}
        for dim, index in zip(task.scan.dims, task.index, strict=True):
            start = self.starts[dim] + (int(self.axes[dim].count_below(np.array([index.hull[0]]))[0]) if index else 0)
            spans[dim] = (start, start + len(index))
        num_cells = prod(map(len, task.index))
        cells = None
        if self.sparse and frame.height < num_cells:
            if not self.may_miss:
                raise no_fill(self.slots[0].name)
            cells = np.zeros(frame.height, dtype=np.int64)
            for dim, index in zip(task.scan.dims, task.index, strict=True):
                cells *= len(index)
                cells += index.count_below(frame[_PLACE + dim].to_numpy())
            if not frame.height:
                self._check_fills()
                return 0
        store = self.place()
        for slot in self.slots:
            write_unit(store, slot, spans, frame[slot.name], cells, keep=False)
        return frame.height

    def _check_fills(self) -> None:
        for slot in self.slots:
            if slot.fill is None:
                raise no_fill(slot.name)


def can_drop(column: Column, plan: ReadPlan) -> bool:
    """Whether conditions on rows drop cells of a column; coordinates stay whole."""
    return column.role == "data" and set(column.dims) == set(plan.table.sizes)


def write_task(task: ScanTask, writer: UnitWriter) -> int:
    """Read the cells of a unit, and write them; a retry writes the same."""
    return writer(task, make_frame(task))


def write_plan(
    plan: ReadPlan,
    place: Callable[[], Store],
    slots: Mapping[str, Slot],
    starts: Mapping[str, int],
    *,
    may_miss: bool,
    client: "Client | None",
    run: Callable[..., Any] = write_task,
) -> Iterator[Any]:
    """Write the columns of a plan, and yield the result of each task.

    Parameters
    ----------
    plan : ReadPlan
        The rows. Variables of the same dimensions are written together, each value once.
    place, may_miss
        As in `UnitWriter`.
    slots : mapping of str to Slot
        Arrays by column.
    starts : mapping of str to int
        First position of the target along each dimension.
    client : distributed.Client, optional
        Client that runs the tasks.
    run : callable
        Function of a task and of a `UnitWriter`, as `write_task`.
    """
    axes, filters, call = selected(plan), filters_of(plan), uuid4().hex
    columns = {column.name: column for column in plan.columns if column.name in slots}
    for dims, drops in dict.fromkeys((slots[n].dims, can_drop(c, plan)) for n, c in columns.items()):
        own = [c for n, c in columns.items() if (slots[n].dims, can_drop(c, plan)) == (dims, drops)]
        sparse = bool(drops and filters)
        writer = UnitWriter(
            place=place,
            slots=tuple(slots[column.name] for column in own),
            axes={dim: axes[dim] for dim in dims},
            starts={dim: starts.get(dim, 0) for dim in dims},
            sparse=sparse,
            may_miss=may_miss,
            call=call,
        )
        tasks = _tasks(plan, writer, dims, own, filters if sparse else ())
        work: Work[Any] = Work(run, args=(writer,))
        with closing(run_tasks(tasks, client, work, ordered=False)) as done:  # type: ignore[type-var]  # a generator
            yield from done


def _tasks(
    plan: ReadPlan, writer: UnitWriter, dims: tuple[str, ...], columns: Sequence[Column], filters: tuple[Filter, ...]
) -> Iterator[ScanTask]:
    """Yield a task for each unit: a product of positions in C order of the target's dimensions."""
    places = tuple(Column(_PLACE + dim, "dimension", (dim,)) for dim in dims) if writer.sparse else ()
    sizes = tuple(plan.table.sizes[dim] for dim in dims)
    scan = Scan(plan.table.spec, dims, (*columns, *places), filters, tuple(max(n, 1) for n in sizes))
    stops = {dim: writer.starts[dim] + len(writer.axes[dim]) for dim in dims}
    chunks: dict[str, int] = {}
    for column in columns:
        if column.array is not None:
            for dim, length in zip(column.array.dims, column.array.chunks, strict=True):
                chunks[dim] = max(chunks.get(dim, 1), length)
    row_bytes = sum(column.width for column in scan.columns)
    lengths = unit_lengths(stops, writer.slots, chunks, row_bytes, plan.task_bytes)
    for unit in units({dim: (writer.starts[dim], stops[dim]) for dim in dims}, lengths):
        index = []
        for dim, (start, stop) in unit.items():
            low, high = start - writer.starts[dim], stop - writer.starts[dim]
            positions = writer.axes[dim].positions()[low:high]
            index.append(IndexSet.from_positions(positions))
        yield ScanTask(scan, tuple(index), prod(map(len, index)))


def is_contiguous(positions: Any) -> bool:
    """Whether positions are a stretch, in order."""
    return len(positions) < 2 or bool((np.diff(positions) == 1).all())
