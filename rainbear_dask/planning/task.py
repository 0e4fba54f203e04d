"""`ScanTask`: the part of a scan that one worker reads at once, as plain data."""

from dataclasses import dataclass, field, replace
from functools import cached_property
from math import prod
from typing import Any, ClassVar, Protocol

from rainbear_dask.indexing.blocks import Blocks
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.planning.keys import TaskCells
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column
from rainbear_dask.table.order import in_order


@dataclass(frozen=True, slots=True)
class Filter:
    """A residual filter: a conjunct that workers apply after reading.

    Parameters
    ----------
    predicate : bytes
        The expression, serialized by Polars. A value that is compared and hashed cannot hold an expression, because
        ``==`` on an expression builds another one.
    columns : tuple of Column
        Columns that it names.
    """

    predicate: bytes
    columns: tuple[Column, ...]


@dataclass(frozen=True, slots=True, weakref_slot=True)
class Scan:
    """The part of a plan that its tasks share.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    dims : tuple of str
        Dimensions of the rows; the last one varies fastest.
    columns : tuple of Column
        Columns of the frame, in order.
    filters : tuple of Filter
        Residual filters, in the order in which workers apply them.
    blocks : tuple of int
        Length, along each dimension, of the blocks that row order follows.
    """

    spec: StoreSpec
    dims: tuple[str, ...]
    columns: tuple[Column, ...]
    filters: tuple[Filter, ...] = ()
    blocks: tuple[int, ...] = ()


class Task(Protocol):
    """The part of any task, a dataclass of plain data, that executors know."""

    __dataclass_fields__: ClassVar[dict[str, Any]]

    @property
    def scan(self) -> Scan:
        """The part that it shares with other tasks: the store above all."""

    @property
    def frame_bytes(self) -> int:
        """Estimated upper bound of the bytes of the result."""

    @property
    def sent_bytes(self) -> int:
        """Estimated bytes of the task itself, beside the part that it shares."""


@dataclass(frozen=True)
class ScanTask:
    """The rows that one worker reads at once, as plain data.

    Parameters
    ----------
    scan : Scan
        The part that it shares with the other tasks.
    index : tuple of IndexSet
        Selected positions along each dimension.
    max_rows : int
        Upper bound of the rows before the residual filters.
    boxes : tuple of tuple of IndexSet
        The boxes, each in the form of ``index``, whose union are the rows. Empty if the rows are the whole product of
        ``index``.
    cells : tuple of TaskCells
        Cells that count; of several, those in all. Empty if all do.
    """

    scan: Scan
    index: tuple[IndexSet, ...]
    max_rows: int
    boxes: tuple[tuple[IndexSet, ...], ...] = ()
    cells: tuple[TaskCells, ...] = field(default=(), kw_only=True)

    @cached_property
    def num_rows(self) -> int:
        """Rows before the residual filters. Counting hundreds of boxes takes some milliseconds."""
        if not self.boxes:
            return self.max_rows
        dims = self.scan.dims
        sizes = {dim: positions.hull[1] for dim, positions in zip(dims, self.index, strict=True)}
        return Blocks(sizes, dict.fromkeys(dims, 1), [dict(zip(dims, box, strict=True)) for box in self.boxes]).num_rows

    @property
    def frame_bytes(self) -> int:
        """Estimated upper bound of the bytes of the frame."""
        return self.max_rows * sum(column.width for column in self.scan.columns)

    @property
    def sent_bytes(self) -> int:
        """Estimated bytes of the task itself, beside the part that it shares."""
        positions = sum(one.starts.nbytes + one.stops.nbytes for box in (self.index, *self.boxes) for one in box)
        return positions + sum(some.numbers.nbytes for some in self.cells)

    @property
    def memory_bytes(self) -> int:
        """Estimated upper bound of the bytes that a worker needs: decoded chunks, filter columns and the frame."""
        wanted = {
            c.name: c for columns in (self.scan.columns, *(f.columns for f in self.scan.filters)) for c in columns
        }
        arrays = [c.array for c in wanted.values() if c.array is not None and c.role == "data"]
        chunks = sum(self.num_chunks(array) * array.chunk_bytes for array in arrays)
        return chunks + self.max_rows * sum(column.width for column in wanted.values())

    def num_chunks(self, array: ArrayMeta) -> int:
        """Return the number of chunks of an array that hold a row of the task."""
        boxes = [dict(zip(self.scan.dims, box, strict=True)) for box in self.boxes or [self.index]]
        return array.grid.count(boxes)

    def head(self, count: int) -> "ScanTask":
        """Return the smallest task with the first ``count`` rows; itself if its rows are not a product in C order."""
        if self.boxes or self.cells or not in_order(self.index, self.scan.blocks):
            return self
        index, wanted = list(self.index), count
        for axis, positions in enumerate(self.index):
            inner = prod(len(other) for other in self.index[axis + 1 :])
            needed = -(-wanted // max(inner, 1))
            index[axis] = positions.first(needed)
            if needed > 1:
                break
        return replace(self, index=tuple(index), max_rows=prod(map(len, index)))
