"""What a scan will read, known before anything is read: tasks, limits and a report."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cache, cached_property, reduce
from heapq import merge
from math import lcm, prod
from operator import and_
from typing import Any, NamedTuple

import numpy as np
import polars as pl

from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.metadata import ArrayMeta, StoreSpec
from rainbear_dask.picture import draw_chunks, draw_report
from rainbear_dask.predicate import Conjunct
from rainbear_dask.selection import Box, IndexSet, Positions, Selection, distinct_rows
from rainbear_dask.table import Column, Table

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

    @property
    def frame_bytes(self) -> int:
        """Bytes of the frame at most, about."""
        return self.num_rows * sum(column.width for column in self.scan.columns)

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
    shards : mapping of str to int
        Units that are stored together, along each dimension: a block ends with a shard where it can.
    """

    def __init__(
        self,
        sizes: Mapping[str, int],
        grains: Mapping[str, int],
        boxes: Sequence[Box],
        *,
        units: int = 1,
        shards: Mapping[str, int] | None = None,
    ) -> None:
        self._dims, self._grains, self._shards = list(sizes), grains, shards or {}
        some = all(n > 0 for n in sizes.values())
        whole = {d: IndexSet.span(0, n) for d, n in sizes.items()}
        self._boxes = [{d: box.get(d, whole[d]) for d in sizes} for box in boxes if some]
        touched = cache(IndexSet.chunks)  # boxes share index sets
        self._units = [{d: touched(index, grains[d]) for d, index in box.items()} for box in self._boxes]
        self._most: dict[str, int] = {}
        for dim in reversed(self._dims):
            there = max((len(reached[dim]) for reached in self._units), default=0)
            self._most[dim] = max(1, min(units, there))
            units //= self._most[dim]
        self._kinds_of: dict[tuple[int, tuple[int, ...]], list[_Kind]] = {}
        self._union_of: dict[tuple[int, tuple[int, ...]], IndexSet] = {}

    def __iter__(self) -> Iterator[tuple[tuple[IndexSet, ...], int]]:
        """Index sets of each block, in C order of the grid, and the number of boxes that it lies in."""
        return self._walk(0, tuple(range(len(self._boxes))), ())

    @property
    def num_blocks(self) -> int:
        """Blocks in all."""
        return self._total(lambda axis, kind: len(self._cuts(axis, kind)) - 1)

    @property
    def num_units(self) -> int:
        """Units of the grid that hold a position."""
        return self._total(lambda _, kind: len(kind.units))

    @property
    def num_rows(self) -> int:
        """Cells in all blocks: exact for one box, an upper bound where boxes share a unit."""
        return self._total(lambda axis, kind: len(self._positions(axis, kind.boxes, kind.units)))

    def num_touched(self, chunks: Mapping[str, int]) -> int:
        """Chunks of another grid that blocks touch, one that two blocks touch being counted twice.

        Parameters
        ----------
        chunks : mapping of str to int
            Chunk length along each dimension.
        """

        def touched(axis: int, kind: _Kind) -> int:
            dim = self._dims[axis]
            held = self._positions(axis, kind.boxes, kind.units)
            seams = kind.units.at(self._cuts(axis, kind)[1:-1]) * self._grains[dim]
            beyond = held.count_below(seams)
            across = held.at(beyond - 1) // chunks[dim] == held.at(beyond) // chunks[dim]
            return len(held.chunks(chunks[dim])) + int(np.count_nonzero(across))

        return self._total(touched)

    def _total(self, weigh: "Callable[[int, _Kind], int]") -> int:
        @cache
        def total(axis: int, active: tuple[int, ...]) -> int:
            if axis == len(self._dims):
                return 1
            return sum(weigh(axis, kind) * total(axis + 1, kind.boxes) for kind in self._kinds(axis, active))

        return total(0, tuple(range(len(self._boxes)))) if self._boxes else 0

    def _walk(
        self, axis: int, active: tuple[int, ...], pieces: tuple[IndexSet, ...]
    ) -> Iterator[tuple[tuple[IndexSet, ...], int]]:
        if not active:
            return
        if axis == len(self._dims):
            yield tuple(self._positions(i, active, piece) for i, piece in enumerate(pieces)), len(active)
            return
        kinds = (self._pieces(axis, kind) for kind in self._kinds(axis, active))
        for piece, boxes in merge(*kinds, key=lambda found: found[0].hull):
            yield from self._walk(axis + 1, boxes, (*pieces, piece))

    def _positions(self, axis: int, active: tuple[int, ...], units: IndexSet) -> IndexSet:
        """What some boxes hold in some units."""
        dim = self._dims[axis]
        if (axis, active) not in self._union_of:
            self._union_of[axis, active] = IndexSet.union({self._boxes[i][dim] for i in active})
        return self._union_of[axis, active].within_chunks(units, self._grains[dim])

    def _pieces(self, axis: int, kind: "_Kind") -> Iterator[tuple[IndexSet, tuple[int, ...]]]:
        return ((piece, kind.boxes) for piece in kind.units.split(self._cuts(axis, kind)))

    def _cuts(self, axis: int, kind: "_Kind") -> Positions:
        """Where units of one kind, counted from the first, are cut into pieces."""
        dim, units = self._dims[axis], kind.units
        most, per_shard = self._most[dim], self._shards.get(dim, 1)
        if per_shard == 1:
            lengths = np.diff(kind.runs)
            pieces = -(-lengths // most)
            number = np.arange(pieces.sum()) - np.repeat(np.cumsum(pieces) - pieces, pieces)  # of each in its run
            return np.append(np.repeat(kind.runs[:-1], pieces) + most * number, len(units))
        closing = set(kind.runs.tolist())
        ends = units.count_below((units.chunks(per_shard).positions() + 1) * per_shard).tolist()
        ends = sorted({*ends, *closing} - {0})
        cuts = [0]
        for end, following in zip(ends, [*ends[1:], 0], strict=True):
            while end - cuts[-1] > most:  # a shard that is more than a block, in even parts
                left = end - cuts[-1]
                cuts.append(cuts[-1] + -(-left // -(-left // most)))
            if end in closing or following - cuts[-1] > most:
                cuts.append(end)
        return np.array(cuts)

    def _kinds(self, axis: int, active: tuple[int, ...]) -> "list[_Kind]":
        """Units of one dimension that some boxes reach, by which of the boxes reach them."""
        if (axis, active) not in self._kinds_of:
            together: dict[IndexSet, list[int]] = {}
            for i in active:
                together.setdefault(self._units[i][self._dims[axis]], []).append(i)
            self._kinds_of[axis, active] = _kinds(list(together), list(together.values()))
        return self._kinds_of[axis, active]


class _Kind(NamedTuple):
    """Units of one dimension that the same boxes reach.

    Parameters
    ----------
    units : IndexSet
        All of them.
    runs : ndarray of int64, shape (n + 1,)
        Counted along the units, where their n runs begin and end: units that other boxes reach lie between.
    boxes : tuple of int
        Boxes that reach all of the units.
    """

    units: IndexSet
    runs: Positions
    boxes: tuple[int, ...]


def _kinds(sets: Sequence[IndexSet], boxes: Sequence[Sequence[int]]) -> list[_Kind]:
    """Sort positions that some sets hold, each set being that of some boxes, by which of the sets hold them."""
    if len(sets) == 1:
        return [_Kind(sets[0], np.array([0, len(sets[0])]), tuple(boxes[0]))]
    edges = np.unique(np.concatenate([part for one in sets for part in (one.starts, one.stops)]))
    starts, stops = edges[:-1], edges[1:]
    holds = np.array(
        [np.searchsorted(one.starts, starts, "right") > np.searchsorted(one.stops, starts, "right") for one in sets]
    )
    some = holds.any(axis=0)
    starts, stops = starts[some], stops[some]
    patterns, kind = distinct_rows(holds[:, some].T)
    spans = np.split(np.argsort(kind, kind="stable"), np.cumsum(np.bincount(kind))[:-1])  # of each kind, ascending
    kinds = []
    for pattern, mine in zip(patterns, spans, strict=True):
        after = np.cumsum(stops[mine] - starts[mine])
        last = np.append(np.diff(mine) > 1, True)  # a gap that no set holds does not end a run
        names = sorted(name for part, there in zip(boxes, pattern, strict=True) if there for name in part)
        kinds.append(_Kind(IndexSet(starts[mine], stops[mine]), np.append(0, after[last]), tuple(names)))
    return kinds


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
        return reduce(and_, parts, whole)

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

    def _chunks_of(self, selection: Selection) -> dict[str, int]:
        """Chunks that hold a position of a selection, by path of the array."""
        grids = {
            (dims, chunks): Blocks(
                {dim: self.table.sizes[dim] for dim in dims}, dict(zip(dims, chunks, strict=True)), selection.boxes
            ).num_units
            for dims, chunks in {(array.dims, array.chunks) for array in self.arrays}
        }
        return {array.path: grids[array.dims, array.chunks] for array in self.arrays}

    @cached_property
    def _chunks_selected(self) -> Mapping[str, int]:
        return self._chunks_of(self.selection)

    @property
    def _cut_short(self) -> bool:
        """Whether ``limit`` spares chunks that are selected."""
        return self.limit is not None and not self.filters and self.limit < self.blocks.num_rows

    @cached_property
    def chunks_kept(self) -> Mapping[str, int]:
        """Chunks that will be read, by path of the array."""
        if not self._cut_short:
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
        sizes = self.table.sizes
        arrays = self._cut_along
        grains = {dim: _grain(dim, size, arrays) for dim, size in sizes.items()}
        read = sum(prod(grains[d] for d in array.dims) * array.itemsize for array in self.arrays)
        made = prod(grains.values()) * sum(column.width for column in self.columns)
        unit_bytes = max(read, made // _FRAME_RATIO, 1)
        shards = {dim: max(_shard(dim, arrays) // grain, 1) for dim, grain in grains.items()}
        # from the plan alone, not from the workers there are: the order of rows follows from the tasks
        fair = max(sum(a.chunk_bytes * self._chunks_selected[a.path] for a in self.arrays) // _FEW_TASKS, _SMALL_TASK)
        units = min(self.task_bytes, fair) // unit_bytes
        return Blocks(sizes, grains, self.selection.boxes, units=units, shards=shards)

    @cached_property
    def _cut_along(self) -> Sequence[ArrayMeta]:
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

    def selected_chunks(self) -> dict[str, Any]:
        """List the chunks that hold a selected position, grid by grid.

        Returns
        -------
        dict
            ``{"grids": [{"dims", "variables", "chunks": [{"indices", "origin", "shape", "shards"}]}], "coord_reads"}``:
            a grid for each (dims, chunk shape, shard shape), sorted by them; chunks in C order, with their nominal shape;
            ``shards`` has the shard that holds the chunk, clipped to the array. A coordinate's own grid is listed only if
            no larger one has its dimension. ``coord_reads`` is the number of coordinates that planning has read.

        Notes
        -----
        Every chunk has an entry: for looking at a plan, not for running one.
        """
        grids: dict[tuple[Any, ...], list[ArrayMeta]] = {}
        for column in self.columns:
            if column.array is not None and column.dims:
                array = column.array
                grids.setdefault((array.dims, array.chunks, array.shards or ()), []).append(array)
        listed = []
        for (dims, chunks, _), arrays in sorted(grids.items()):
            covered = any(set(dims) < set(other) for other, *_ in grids)
            if covered and all(self.table.columns[array.path].role == "dimension" for array in arrays):
                continue
            grid = dict(zip(dims, chunks, strict=True))
            blocks = Blocks({dim: self.table.sizes[dim] for dim in dims}, grid, self.selection.boxes)
            places = [
                [positions.hull[0] // size for positions, size in zip(index, chunks, strict=True)]
                for index, _ in blocks
            ]
            if places:
                found = [_chunk_entry(arrays[0], place) for place in sorted(places)]
                listed.append({"dims": list(dims), "variables": [array.path for array in arrays], "chunks": found})
        named = {name for conjunct in self.conjuncts for name in conjunct.expr.meta.root_names()}
        reads = sum(column.array is not None and column.role != "data" for column in self.table.leaves(named))
        return {"grids": listed, "coord_reads": reads}

    def explain(self) -> str:
        """Report of what will be read, and of what each part of the filter does for it."""
        return "\n".join([self._title, *(f"  {name:8} {text}" for name, text in self._facts)])

    def _repr_html_(self) -> str:
        """The same report, with a picture of the chunks kept."""
        drawn = ""
        if self.arrays:
            array = self._cut_along[0]
            sizes = {dim: self.table.sizes[dim] for dim in array.dims}
            boxes: Sequence[Box] = self.selection.boxes
            if self._cut_short:
                boxes = [dict(zip(task.scan.dims, task.index, strict=True)) for task in self.tasks()]
            drawn = draw_chunks(sizes, dict(zip(array.dims, array.chunks, strict=True)), boxes)
        return draw_report(self._title, self._facts, drawn)

    @property
    def _title(self) -> str:
        return f"SCAN {self.table.spec.label}"

    @cached_property
    def _facts(self) -> Sequence[tuple[str, str]]:
        """Lines of the report, each with its name."""
        chunks = f"{self.num_chunks_kept:,} of {self.num_chunks:,}"
        facts = [
            ("chunks", f"{chunks}, {_bytes(self.bytes_kept)} of {_bytes(self.bytes_total)} decoded"),
            ("rows", f"{self.max_rows:,} at most, of {self.table.num_rows:,}"),
            ("tasks", f"{self.num_tasks:,}"),
            ("columns", ", ".join(c.name for c in self.columns)),
        ]
        for conjunct in self.conjuncts:
            alone = sum(self._chunks_of(conjunct.selection).values())
            note = f"; then filters rows, as it {conjunct.obstacle}" if conjunct.obstacle else ""
            facts.append(("filter", f"{_short(conjunct.expr)}: keeps {alone:,} chunks{note}"))
        if (amplification := self.amplification) > _WORTH_SAYING:
            facts.append(("reads", f"{amplification:.1f} times the bytes of its chunks, as chunk grids differ"))
        if self.table.repeats > 1:
            facts.append(("repeats", f"{self.table.repeats:,.3g} rows for each value of the largest variable"))
        return facts


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
_WORTH_SAYING = 1.5


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


def _bytes(count: float) -> str:
    for unit in ("B", "kB", "MB", "GB"):
        if count < 1000:
            return f"{count:.3g} {unit}"
        count /= 1000
    return f"{count:,.3g} TB"


def _chunk_entry(array: ArrayMeta, place: Sequence[int]) -> dict[str, Any]:
    entry: dict[str, Any] = {
        "indices": list(place),
        "origin": [i * size for i, size in zip(place, array.chunks, strict=True)],
        "shape": list(array.chunks),
        "shards": [],
    }
    if array.shards:
        holder = [at // size for at, size in zip(entry["origin"], array.shards, strict=True)]
        corner = [i * size for i, size in zip(holder, array.shards, strict=True)]
        clipped = [min(size, n - at) for at, size, n in zip(corner, array.shards, array.shape, strict=True)]
        entry["shards"] = [{"indices": holder, "origin": corner, "shape": clipped}]
    return entry


def _short(expr: pl.Expr) -> str:
    text = str(expr)
    return text if len(text) <= 100 else f"{text[:97]}..."
