"""What one worker reads in one go, as plain data."""

from dataclasses import dataclass, replace
from functools import cached_property
from math import prod

from rainbear_dask.indexing.blocks import Blocks
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column
from rainbear_dask.table.order import in_order


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
    blocks : tuple of int
        Lengths of the blocks that the order of rows follows, one for each dimension.
    """

    spec: StoreSpec
    dims: tuple[str, ...]
    columns: tuple[Column, ...]
    filters: tuple[Filter, ...] = ()
    blocks: tuple[int, ...] = ()


@dataclass(frozen=True)
class ScanTask:
    """The chunks that one worker reads in one go, as plain data.

    Parameters
    ----------
    scan : Scan
        What it shares with the other tasks.
    index : tuple of IndexSet
        Positions wanted along each dimension.
    max_rows : int
        Rows at most, before the filter.
    boxes : tuple of tuple of IndexSet
        The boxes whose union the rows are, each as ``index``; empty where they are the whole product of ``index``.
    """

    scan: Scan
    index: tuple[IndexSet, ...]
    max_rows: int
    boxes: tuple[tuple[IndexSet, ...], ...] = ()

    @cached_property
    def num_rows(self) -> int:
        """Rows before the filter, counted: of hundreds of boxes it takes some milliseconds."""
        if not self.boxes:
            return self.max_rows
        dims = self.scan.dims
        sizes = {dim: positions.hull[1] for dim, positions in zip(dims, self.index, strict=True)}
        return Blocks(sizes, dict.fromkeys(dims, 1), [dict(zip(dims, box, strict=True)) for box in self.boxes]).num_rows

    @property
    def frame_bytes(self) -> int:
        """Bytes of the frame at most, about."""
        return self.max_rows * sum(column.width for column in self.scan.columns)

    @property
    def memory_bytes(self) -> int:
        """Bytes that a worker needs for it at most, about: decoded chunks, the columns of the filters, and the frame."""
        wanted = {
            c.name: c for columns in (self.scan.columns, *(f.columns for f in self.scan.filters)) for c in columns
        }
        arrays = [c.array for c in wanted.values() if c.array is not None and c.role == "data"]
        chunks = sum(self.num_chunks(array) * array.chunk_bytes for array in arrays)
        return chunks + self.max_rows * sum(column.width for column in wanted.values())

    def num_chunks(self, array: ArrayMeta) -> int:
        """Chunks of one array that hold a row of the task."""
        boxes = [dict(zip(self.scan.dims, box, strict=True)) for box in self.boxes or [self.index]]
        return array.grid.count(boxes)

    def head(self, count: int) -> "ScanTask":
        """The smallest task of this form that has the first ``count`` rows; itself where its rows are no product in C order."""
        if self.boxes or not in_order(self.index, self.scan.blocks):
            return self
        index, wanted = list(self.index), count
        for axis, positions in enumerate(self.index):
            inner = prod(len(other) for other in self.index[axis + 1 :])
            needed = -(-wanted // max(inner, 1))
            index[axis] = positions.first(needed)
            if needed > 1:
                break
        return replace(self, index=tuple(index), max_rows=prod(map(len, index)))
