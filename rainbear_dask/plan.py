"""What a scan will read, known before anything is read: tasks, limits and a report."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, reduce
from itertools import pairwise
from math import lcm, prod
from operator import and_
from typing import NamedTuple

import numpy as np
import polars as pl

from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.metadata import ArrayMeta, StoreSpec
from rainbear_dask.predicate import Conjunct
from rainbear_dask.selection import Box, IndexSet, Positions, Selection
from rainbear_dask.table import Column, Table

TASK_BYTES = 64 * 2**20
"""Decoded bytes of the chunks that one task reads, where the chunk grid allows it."""

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


@dataclass(frozen=True, slots=True)
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


class Blocks:
    """Boxes of a grid, cut to size, over the union of boxes that a selection is.

    The union is never multiplied out. Dimension by dimension, units of the grid are put together that the same boxes
    of the selection reach, so that no block holds a unit that no box wants, and counts are sums of products.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of each dimension.
    grains : mapping of str to int
        Length of the grid's unit along each dimension.
    boxes : sequence of Box
        The union. Dimensions that are not in ``sizes`` do not matter.
    units : int
        Units in one block at most. The last dimensions are kept whole first, so that blocks in order are rows in
        order wherever they can be.
    """

    def __init__(
        self, sizes: Mapping[str, int], grains: Mapping[str, int], boxes: Sequence[Box], units: int = 1
    ) -> None:
        self._dims = list(sizes)
        self._grains = grains
        self._boxes = [{d: box.get(d, IndexSet.span(0, n)) for d, n in sizes.items()} for box in boxes]
        if any(n == 0 for n in sizes.values()):
            self._boxes = []
        self._per_block: dict[str, int] = {}
        for dim in reversed(self._dims):
            there = max((len(box[dim].chunks(grains[dim])) for box in self._boxes), default=0)
            self._per_block[dim] = max(1, min(units, there))
            units //= self._per_block[dim]
        self._memo: dict[tuple[int, tuple[int, ...]], list[_Run]] = {}

    def __iter__(self) -> Iterator[tuple[tuple[IndexSet, ...], int]]:
        """Index sets of each block, in C order of the grid, and the number of boxes that it lies in."""
        return self._walk(0, tuple(range(len(self._boxes))), ())

    @property
    def num_blocks(self) -> int:
        """Blocks in all."""
        return self._total(lambda axis, run: -(-len(run.units) // self._per_block[self._dims[axis]]))

    @property
    def num_units(self) -> int:
        """Units of the grid that hold a position."""
        return self._total(lambda _, run: len(run.units))

    @property
    def num_rows(self) -> int:
        """Cells in all blocks: exact for one box, an upper bound where boxes share a unit."""
        return self._total(lambda axis, run: len(self._positions(axis, run.boxes, run.units[0], run.units[-1])))

    def _total(self, weigh: "Callable[[int, _Run], int]") -> int:
        @cache
        def total(axis: int, active: tuple[int, ...]) -> int:
            if axis == len(self._dims):
                return 1
            return sum(weigh(axis, run) * total(axis + 1, run.boxes) for run in self._runs(axis, active))

        return total(0, tuple(range(len(self._boxes)))) if self._boxes else 0

    def _walk(
        self, axis: int, active: tuple[int, ...], pieces: tuple[Positions, ...]
    ) -> Iterator[tuple[tuple[IndexSet, ...], int]]:
        if not active:
            return
        if axis == len(self._dims):
            yield tuple(self._positions(i, active, p[0], p[-1]) for i, p in enumerate(pieces)), len(active)
            return
        most = self._per_block[self._dims[axis]]
        for run in self._runs(axis, active):
            for first in range(0, len(run.units), most):
                yield from self._walk(axis + 1, run.boxes, (*pieces, run.units[first : first + most]))

    def _positions(self, axis: int, active: Sequence[int], first: int, last: int) -> IndexSet:
        """What some boxes hold of the units from first to last."""
        dim = self._dims[axis]
        start, stop = int(first) * self._grains[dim], (int(last) + 1) * self._grains[dim]
        return reduce(IndexSet.__or__, (self._boxes[i][dim].within(start, stop) for i in active))

    def _runs(self, axis: int, active: tuple[int, ...]) -> "list[_Run]":
        """Units of one dimension that some boxes hold, ascending, cut where the boxes that hold them change."""
        if (axis, active) not in self._memo:
            dim = self._dims[axis]
            held = [self._boxes[i][dim].chunks(self._grains[dim]).positions() for i in active]
            units = held[0] if len(held) == 1 else np.unique(np.concatenate(held))
            holds = np.array([np.isin(units, some, assume_unique=True) for some in held])
            cuts = np.flatnonzero((holds[:, 1:] != holds[:, :-1]).any(axis=0)) + 1
            edges = [0, *cuts.tolist(), len(units)]
            self._memo[axis, active] = [
                _Run(units[a:b], tuple(i for i, there in zip(active, holds[:, a], strict=True) if there))
                for a, b in pairwise(edges)
            ]
        return self._memo[axis, active]


class _Run(NamedTuple):
    units: Positions
    boxes: tuple[int, ...]


@dataclass(frozen=True)
class ScanPlan:
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
        Decoded bytes that a task reads, about.
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
        return reduce(and_, parts, Selection.everything(exact=True))

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

    def chunks_kept(self, array: ArrayMeta, selection: Selection | None = None) -> int:
        """Chunks of one array that hold a position of a selection, by default of the plan's."""
        sizes = {dim: self.table.sizes[dim] for dim in array.dims}
        grid = dict(zip(array.dims, array.chunks, strict=True))
        return Blocks(sizes, grid, (selection or self.selection).boxes).num_units

    @property
    def num_chunks_kept(self) -> int:
        """Chunks that will be read, over all arrays."""
        return sum(self.chunks_kept(array) for array in self.arrays)

    @property
    def num_chunks(self) -> int:
        """Chunks of the arrays that are read, before pruning."""
        return sum(array.num_chunks for array in self.arrays)

    @property
    def bytes_kept(self) -> int:
        """Decoded bytes that will be read."""
        return sum(self.chunks_kept(array) * array.chunk_bytes for array in self.arrays)

    @property
    def bytes_total(self) -> int:
        """Decoded bytes of the arrays that are read, before pruning."""
        return sum(array.num_chunks * array.chunk_bytes for array in self.arrays)

    # ------------------------------------------------------------------ tasks

    @cached_property
    def blocks(self) -> Blocks:
        """How the selection is cut into tasks."""
        sizes = self.table.sizes
        data = self.arrays or tuple(c.array for c in self.table.columns.values() if c.role == "data" and c.array)
        # arrays of fewer dimensions are kept by workers, so they need not be cut along their own chunks
        arrays = [array for array in data if len(array.dims) == len(sizes)] or data
        grains = {dim: _grain(dim, size, arrays, self.task_bytes) for dim, size in sizes.items()}
        read = sum(prod(grains[d] for d in array.dims) * array.itemsize for array in self.arrays)
        made = prod(grains.values()) * sum(column.width for column in self.columns)
        unit_bytes = max(read, made // _FRAME_RATIO, 1)
        return Blocks(sizes, grains, self.selection.boxes, units=self.task_bytes // unit_bytes)

    @property
    def num_tasks(self) -> int:
        """Tasks of the whole plan; ``limit`` may make do with fewer."""
        return self.blocks.num_blocks

    @property
    def max_rows(self) -> int:
        """Rows that the selection holds: an upper bound of the rows returned."""
        rows = self.blocks.num_rows
        return rows if self.limit is None else min(rows, self.limit)

    def tasks(self) -> Iterator[ScanTask]:
        """Tasks in C order of the chunk grid, made one by one as they are asked for."""
        wanted = self.limit
        scan = Scan(self.table.spec, tuple(self.table.sizes), self.columns, self.filters)
        # where boxes overlap in a block, its positions are more than those of any box: all conjuncts are applied again
        anew = replace(scan, filters=self._ordered(self.conjuncts))
        for index, num_boxes in self.blocks:
            task = ScanTask(scan if num_boxes == 1 else anew, index)
            if wanted is None or task.scan.filters:
                yield task
            elif wanted > 0:
                yield task.head(wanted)
                wanted -= task.num_rows
            else:
                return

    # ------------------------------------------------------------------ limits and report

    def check(self, max_chunks_to_read: int | None) -> None:
        """Refuse a plan that reads too much, before anything is read.

        Raises
        ------
        PlanTooLargeError
            If more chunks are needed than the limit allows.
        """
        if max_chunks_to_read is None:
            return
        # variables on one grid count once: the limit is on places in the grid
        needed = sum({(a.dims, a.chunks, a.shards): self.chunks_kept(a) for a in self.arrays}.values())
        if needed > max_chunks_to_read:
            raise PlanTooLargeError(
                f"max_chunks_to_read exceeded: {needed} chunks needed, limit is {max_chunks_to_read}. "
                f"Narrow the filter on {', '.join(self.table.sizes)} of {self.table.spec.label}, or raise the limit."
            )

    def explain(self) -> str:
        """Report of what will be read, and of what each part of the filter does for it."""
        kept, total = self.num_chunks_kept, self.num_chunks
        lines = [
            f"SCAN {self.table.spec.label}",
            f"  chunks   {kept:,} of {total:,}, {_bytes(self.bytes_kept)} of {_bytes(self.bytes_total)} decoded",
            f"  rows     {self.max_rows:,} at most, of {self.table.num_rows:,}",
            f"  tasks    {self.num_tasks:,}",
            f"  columns  {', '.join(c.name for c in self.columns)}",
        ]
        for conjunct in self.conjuncts:
            alone = sum(self.chunks_kept(array, conjunct.selection) for array in self.arrays)
            note = f"; then filters rows, as it {conjunct.obstacle}" if conjunct.obstacle else ""
            lines.append(f"  filter   {_short(conjunct.expr)}: keeps {alone:,} chunks{note}")
        if self.table.repeats > 1:
            lines.append(f"  repeats  {self.table.repeats:,.3g} rows for each value of the largest variable")
        return "\n".join(lines)


def build_plan(
    table: Table,
    *,
    columns: Sequence[Column],
    conjuncts: Sequence[Conjunct] = (),
    limit: int | None = None,
    task_bytes: int = TASK_BYTES,
) -> ScanPlan:
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
    ScanPlan
        Nothing has been read for it but coordinates.
    """
    return ScanPlan(table, tuple(columns), tuple(conjuncts), limit, task_bytes)


_MAX_MULTIPLE = 4


def _grain(dim: str, size: int, arrays: Sequence[ArrayMeta], task_bytes: int) -> int:
    """Length along which a dimension is cut: whole chunks of every array, where that is not too long.

    A shard is kept whole where it fits a task. Where chunk lengths have no small common multiple, the longest is
    taken, and shorter chunks that lie across a cut are read on both sides of it.
    """
    lengths = set()
    for array in arrays:
        if dim in array.dims:
            whole = array.shards is not None and prod(array.shards) * array.itemsize <= task_bytes
            unit = array.shards if whole and array.shards else array.chunks
            lengths.add(unit[array.dims.index(dim)])
    if not lengths:
        return max(size, 1)
    common, longest = lcm(*lengths), max(lengths)
    return min(common if common <= _MAX_MULTIPLE * longest else longest, max(size, 1))


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _short(expr: pl.Expr) -> str:
    text = str(expr)
    return text if len(text) <= 100 else f"{text[:97]}..."
