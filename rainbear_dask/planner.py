"""What a scan will read, known before anything is read: tasks, counts and limits."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from itertools import chain, islice
from math import lcm, prod
from operator import and_

import numpy as np
import polars as pl

from rainbear_dask.blocks import Blocks, simplified
from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.metadata import ArrayMeta, StoreSpec
from rainbear_dask.predicate import Conjunct
from rainbear_dask.selection import IndexSet, Selection
from rainbear_dask.table import Column, Table
from rainbear_dask.tidy import nest

TASK_BYTES = 64 * 2**20
"""Decoded bytes of the chunks that one task reads at most, where the chunk grid allows it."""

_FEW_TASKS, _SMALL_TASK = 16, 4 * 2**20  # a scan is cut into so many tasks, unless they would be smaller than that

_FRAME_RATIO = 4  # a task's frame may be this many times as large: coordinates and repeated variables add to it


@dataclass(frozen=True, slots=True)
class Filter:
    """A conjunct that is still to be applied after reading.

    Parameters
    ----------
    predicate : bytes
        The expression, as Polars serializes it: ``==`` on an expression builds another expression, so a value that is
        compared and hashed holds bytes.
    columns : tuple of Column
        What it needs.
    """

    predicate: bytes
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Scan:
    """What tasks of one plan have in common.

    Parameters
    ----------
    spec : StoreSpec
        Where the arrays are.
    dims : tuple of str
        Dimensions of the rows, the last one varying fastest.
    columns : tuple of Column
        What a frame holds, in order.
    filters : tuple of Filter
        Filters still to be applied, in the order in which they are.
    """

    spec: StoreSpec
    dims: tuple[str, ...]
    columns: tuple[Column, ...]
    filters: tuple[Filter, ...] = ()


@dataclass(frozen=True, slots=True)
class ScanTask:
    """The chunks that one worker reads in one go, as plain data.

    Parameters
    ----------
    scan : Scan
        What it shares with the other tasks.
    index : tuple of IndexSet
        Positions wanted along each dimension; the rows are their product, in C order.
    """

    scan: Scan
    index: tuple[IndexSet, ...]

    @property
    def num_rows(self) -> int:
        """Rows before the filter."""
        return prod(len(positions) for positions in self.index)

    @property
    def frame_bytes(self) -> int:
        """Bytes of the frame at most, about."""
        return self.num_rows * sum(column.width for column in self.scan.columns)

    @property
    def memory_bytes(self) -> int:
        """Bytes that a worker needs for it at most, about: decoded chunks, the columns of the filters, and the frame."""
        wanted = {
            c.name: c for columns in (self.scan.columns, *(f.columns for f in self.scan.filters)) for c in columns
        }
        arrays = [c.array for c in wanted.values() if c.array is not None and c.role == "data"]
        chunks = sum(self.num_chunks(array) * array.chunk_bytes for array in arrays)
        return chunks + self.num_rows * sum(column.width for column in wanted.values())

    def num_chunks(self, array: ArrayMeta) -> int:
        """Chunks of one array that the task touches."""
        index = dict(zip(self.scan.dims, self.index, strict=True))
        return prod(len(index[dim].chunks(size)) for dim, size in zip(array.dims, array.chunks, strict=True))

    def head(self, count: int) -> "ScanTask":
        """The smallest task of this form that has the first ``count`` rows."""
        index, wanted = list(self.index), count
        for axis, positions in enumerate(self.index):
            inner = prod(len(other) for other in self.index[axis + 1 :])
            needed = -(-wanted // max(inner, 1))
            index[axis] = positions.first(needed)
            if needed > 1:
                break
        return replace(self, index=tuple(index))


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
        Rows wanted at most. Tasks are cut short by it where no filter is left to apply.
    task_bytes : int
        Decoded bytes that a task reads at most, about.
    """

    table: Table
    columns: tuple[Column, ...]
    conjuncts: tuple[Conjunct, ...] = ()
    limit: int | None = None
    task_bytes: int = TASK_BYTES

    # ------------------------------------------------------------------ what is read

    @cached_property
    def selection(self) -> Selection:
        """Index positions that may match."""
        # as if each part were exact: the whole is then not only where it had to be widened
        parts = (replace(conjunct.selection, exact=True) for conjunct in self.conjuncts)
        whole = Selection.everything(exact=True) if self.table.columns else Selection.nothing()  # no array, no row
        return self._simplified(reduce(and_, parts, whole))

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
        finest = {
            dim: min((a.chunks[a.dims.index(dim)] for a in data if dim in a.dims), default=max(size, 1))
            for dim, size in sizes.items()
        }
        fewer = {(a.dims, a.chunks) for a in data if len(a.dims) < len(sizes)}
        return simplified(selection, sizes, [finest, *(dict(zip(*grid, strict=True)) for grid in fewer)])

    @cached_property
    def filters(self) -> tuple[Filter, ...]:
        """Conjuncts that a box of the selection does not settle: first on coordinates alone, then those that read least."""
        settled = self.selection.exact
        return self._ordered(c for c in self.conjuncts if not (settled and c.selection.exact))

    def _ordered(self, conjuncts: Iterable[Conjunct]) -> tuple[Filter, ...]:
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
        grids = {
            (dims, chunks): Blocks(
                {dim: self.table.sizes[dim] for dim in dims}, dict(zip(dims, chunks, strict=True)), selection.boxes
            ).num_units
            for dims, chunks in {(array.dims, array.chunks) for array in self.arrays}
        }
        return {array.path: grids[array.dims, array.chunks] for array in self.arrays}

    @cached_property
    def _chunks_selected(self) -> Mapping[str, int]:
        return self._count(self.selection)

    @property
    def is_cut_short(self) -> bool:
        """Whether ``limit`` spares chunks that are selected."""
        return self.limit is not None and not self.filters and self.limit < self.blocks.num_rows

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
    def blocks(self) -> Blocks:
        """How the selection is cut into tasks."""
        sizes, arrays, grains = self.table.sizes, self.cut_along, self._grains
        read = sum(prod(grains[d] for d in array.dims) * array.itemsize for array in self.arrays)
        made = self._rows_in_unit * sum(column.width for column in self.columns)
        unit_bytes = max(read, made // _FRAME_RATIO, 1)
        shards = {dim: max(_shard(dim, arrays) // grain, 1) for dim, grain in grains.items()}
        # from the plan alone, not from the workers there are: the order of rows follows from the tasks
        fair = max(sum(a.chunk_bytes * self._chunks_selected[a.path] for a in self.arrays) // _FEW_TASKS, _SMALL_TASK)
        units = min(self.task_bytes // unit_bytes, round(fair / unit_bytes))
        return Blocks(sizes, grains, self.selection.boxes, units=units, shards=shards)

    @cached_property
    def _grains(self) -> Mapping[str, int]:
        """Lengths of which tasks are multiples."""
        return {dim: _grain(dim, size, self.cut_along) for dim, size in self.table.sizes.items()}

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
        grids = {(array.dims, array.chunks) for array in arrays}
        touched = {(d, chunks): self.blocks.num_touched(dict(zip(d, chunks, strict=True))) for d, chunks in grids}
        selected = sum(self._chunks_selected[array.path] * array.chunk_bytes for array in arrays)
        read = sum(touched[array.dims, array.chunks] * array.chunk_bytes for array in arrays)
        return read / selected if selected else 1.0

    @property
    def num_tasks(self) -> int:
        """Tasks of the whole plan; ``limit`` may make do with fewer."""
        return self.blocks.num_blocks + (self._first is not None)

    @cached_property
    def _first(self) -> Sequence[tuple[tuple[IndexSet, ...], int]] | None:
        """What is read of the first block alone, and the rest of it; None if it is read at once.

        Where a few rows of those that pass a filter are wanted, one chunk may have them. The block is cut where that
        leaves the order of the rows as it is, or where blocks are cut in any case.
        """
        first = next(iter(self.blocks), None) if self.conjuncts and self.limit is not None else None
        if first is None:
            return None
        index, num_boxes = first
        for axis, (dim, positions) in enumerate(zip(self.table.sizes, index, strict=True)):
            grain = self._grains[dim]
            if (reached := positions.chunks(grain)) != IndexSet.span(reached.hull[0], reached.hull[0] + 1):
                if any(len(outer) > 1 for outer in index[:axis]) and not self.blocks.cuts(dim):
                    return None
                if any(grain % a.chunks[a.dims.index(dim)] for a in self.cut_along if dim in a.dims):
                    return None  # a chunk would be read for both parts
                seam = int(positions.count_below(np.array([(reached.hull[0] + 1) * grain]))[0])
                parts = positions.split([0, seam, len(positions)])
                return [((*index[:axis], part, *index[axis + 1 :]), num_boxes) for part in parts]
        return None

    @property
    def task_bytes_at_most(self) -> int:
        """Bytes that a worker needs for any of the tasks at most, about; as ``ScanTask.memory_bytes``."""
        named = self.table.leaves(n for conjunct in self.conjuncts for n in conjunct.expr.meta.root_names())
        width = sum({c.name: c.width for c in (*self.columns, *named)}.values())
        read = sum(prod(self._grains[d] for d in array.dims) * array.itemsize for array in self.arrays)
        return self.blocks.most_units * (read + self._rows_in_unit * width)

    @property
    def max_rows(self) -> int:
        """Rows that the selection holds: an upper bound of the rows returned."""
        rows = self.blocks.num_rows
        return rows if self.limit is None else min(rows, self.limit)

    def no_rows(self) -> pl.DataFrame:
        """A frame of the plan's columns, without rows."""
        return nest(pl.DataFrame(schema={column.name: column.dtype for column in self.columns}))

    def tasks(self) -> Iterator[ScanTask]:
        """Tasks in C order of the chunk grid, made one by one as they are asked for."""
        wanted = self.limit
        scan = Scan(self.table.spec, tuple(self.table.sizes), self.columns, self.filters)
        # where boxes overlap in a block, its positions are more than those of any box: all conjuncts are applied again
        anew = replace(scan, filters=self._ordered(self.conjuncts)) if len(self.selection.boxes) > 1 else scan
        blocks = iter(self.blocks) if self._first is None else chain(self._first, islice(self.blocks, 1, None))
        for index, num_boxes in blocks:
            task = ScanTask(scan if num_boxes == 1 else anew, index)
            if wanted is None or task.scan.filters:
                yield task
            elif wanted > 0:
                yield task.head(wanted)
                wanted -= task.num_rows
            else:
                return

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
        chunks = sum({(a.dims, a.chunks, a.shards): self.chunks_kept[a.path] for a in self.arrays}.values())
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
        Rows wanted at most.
    task_bytes : int
        Decoded bytes of the chunks that one task reads, about.

    Returns
    -------
    ReadPlan
        Nothing has been read for it but coordinates.
    """
    return ReadPlan(table, tuple(columns), tuple(conjuncts), limit, task_bytes)


_MAX_MULTIPLE = 4


def _grain(dim: str, size: int, arrays: Sequence[ArrayMeta]) -> int:
    """Length of which tasks are multiples: whole chunks of every array, where that is not too long.

    Where chunk lengths have no small common multiple, it is several of the longest, so that few of the shorter chunks
    lie across a cut and are read on both sides of it.
    """
    lengths = {array.chunks[array.dims.index(dim)] for array in arrays if dim in array.dims}
    if not lengths:
        return max(size, 1)
    most = _MAX_MULTIPLE * max(lengths)
    return min(common if (common := lcm(*lengths)) <= most else most, max(size, 1))


def _shard(dim: str, arrays: Sequence[ArrayMeta]) -> int:
    """Length that is stored together."""
    return max((a.shards[a.dims.index(dim)] for a in arrays if a.shards and dim in a.dims), default=0)
