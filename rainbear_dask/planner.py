"""What a scan will read, known before anything is read: tasks, limits and a report."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from math import lcm, prod
from operator import and_
from typing import Any

import polars as pl

from rainbear_dask.blocks import Blocks
from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.metadata import ArrayMeta, StoreSpec
from rainbear_dask.picture import draw_chunks, draw_report
from rainbear_dask.predicate import Conjunct
from rainbear_dask.selection import Box, IndexSet, Selection
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
        anew = replace(scan, filters=self._ordered(self.conjuncts)) if len(self.selection.boxes) > 1 else scan
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
