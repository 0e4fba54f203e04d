"""What a worker does: from a scan task to a Polars frame."""

import io
from collections.abc import Mapping, Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask import coords, storage
from rainbear_dask.metadata import ArrayMeta, Region, StoreSpec
from rainbear_dask.planner import Filter, Scan, ScanTask
from rainbear_dask.selection import IndexSet, Positions
from rainbear_dask.table import Column
from rainbear_dask.tidy import nest, pick, spread


def run_task(task: ScanTask) -> pl.DataFrame:
    """Read, filter and tidy the chunks of one task.

    A top-level function of plain data: it pickles by name, a test calls it without a cluster, and a retry on another
    worker gives the same frame.

    Parameters
    ----------
    task : ScanTask
        What to read.

    Returns
    -------
    DataFrame
        The task's columns, one row per cell that passes the filter, in C order of the task's index sets. Fields of
        child groups are still columns of their own.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names array and chunk.
    """
    scan, index = task.scan, dict(zip(task.scan.dims, task.index, strict=True))
    cells = _Cells(index, np.ones([len(positions) for positions in task.index], dtype=bool))
    known: dict[str, pl.Series] = {}
    for test in scan.filters:
        known |= _columns(scan, [c for c in test.columns if c.name not in known], cells)
        passed = _passed(test, known, cells.count)
        if passed.all():
            continue
        known = {name: values.filter(passed) for name, values in known.items()}
        cells = cells.where(passed.to_numpy())
        if not cells.count:  # what no row needs is not read
            return pl.DataFrame(schema={c.name: c.dtype for c in scan.columns})
    known |= _columns(scan, [c for c in scan.columns if c.name not in known], cells)
    return pl.DataFrame([known[c.name] for c in scan.columns] or None, height=cells.count)


class _Cells:
    """Cells of a box that are still wanted.

    Parameters
    ----------
    index : mapping of str to IndexSet
        Positions along each dimension.
    wanted : ndarray of bool
        Of the box's shape.
    """

    def __init__(self, index: Mapping[str, IndexSet], wanted: npt.NDArray[np.bool_]) -> None:
        self.index, self._wanted = index, wanted
        self.box = dict(zip(index, wanted.shape, strict=True))
        self.count = int(np.count_nonzero(wanted))

    def where(self, passed: npt.NDArray[np.bool_]) -> "_Cells":
        """Those of the wanted cells that passed, in the smallest box that holds them."""
        wanted = self._wanted.copy()
        wanted[self._wanted] = passed
        index = {}
        for axis, (dim, positions) in enumerate(self.index.items()):
            used = wanted.any(axis=tuple(a for a in range(wanted.ndim) if a != axis))
            index[dim] = positions
            if not used.all():
                wanted = wanted.compress(used, axis=axis)
                index[dim] = IndexSet.from_positions(positions.positions()[used])
        return _Cells(index, wanted)

    def column(self, values: pl.Series, dims: tuple[str, ...]) -> pl.Series:
        """An array's values, given flat over the box of its dimensions, one for each wanted cell."""
        if self.count == self._wanted.size:
            return spread(values, dims, self.box)
        if 3 * self.count > self._wanted.size:  # most are wanted: all are built faster than some are looked up
            return spread(values, dims, self.box).filter(pl.Series(self._wanted.reshape(-1)))
        return pick(values, dims, self.box, np.flatnonzero(self._wanted))


def _columns(scan: Scan, columns: Sequence[Column], cells: _Cells) -> dict[str, pl.Series]:
    values = read_columns(scan.spec, columns, cells.index)
    return {c.name: cells.column(values.pop(c.name), c.dims) for c in columns}


def _passed(test: Filter, known: Mapping[str, pl.Series], count: int) -> pl.Series:
    frame = pl.DataFrame([known[c.name] for c in test.columns] or None, height=count)
    passed = nest(frame).select(pl.Expr.deserialize(io.BytesIO(test.predicate))).to_series().fill_null(value=False)
    return passed.new_from_index(0, count) if len(passed) == 1 else passed  # one value where no column is named


def read_columns(spec: StoreSpec, columns: Sequence[Column], index: Mapping[str, IndexSet]) -> dict[str, pl.Series]:
    """Read and decode some columns at some positions.

    Parameters
    ----------
    spec : StoreSpec
        Where the arrays are.
    columns : sequence of Column
        What to read. All requests are in flight together.
    index : mapping of str to IndexSet
        Positions along each dimension of the table, in row order.

    Returns
    -------
    dict of str to Series
        Per column, its values at the product of the positions of its own dimensions, flat in C order.
    """
    pieces: dict[str, list[npt.NDArray[Any]]] = {}
    wanted: list[tuple[str, ArrayMeta, Region]] = []
    for column in columns:
        if column.array is not None:
            if column.role == "data" and len(column.dims) == len(index):
                wanted += [(column.name, column.array, region) for region in _regions(column, index)]
            else:  # other tasks need the same parts of it
                pieces[column.name] = [coords.read(spec, column.array, region) for region in _regions(column, index)]
    for (name, *_), piece in zip(wanted, storage.read_regions(spec, [w[1:] for w in wanted]), strict=True):
        pieces.setdefault(name, []).append(piece)
    values: dict[str, pl.Series] = {}
    for column in columns:
        if column.array is None or column.decoding is None:
            values[column.name] = pl.Series(column.name, index[column.dims[0]].positions())
        else:
            stored = _assemble(column, index, pieces.pop(column.name))
            values[column.name] = column.decoding.decode(stored).alias(column.name)
    return values


def _regions(column: Column, index: Mapping[str, IndexSet]) -> list[Region]:
    """Parts of a column's array to read: runs of neighbouring chunks, no wider than the positions need."""
    chunks = column.array.chunks if column.array else ()
    return list(product(*(index[dim].runs(size) for dim, size in zip(column.dims, chunks, strict=True))))


def _assemble(column: Column, index: Mapping[str, IndexSet], pieces: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
    """Put the parts of an array together and take the positions wanted from them."""
    chunks = column.array.chunks if column.array else ()
    runs = [index[dim].runs(size) for dim, size in zip(column.dims, chunks, strict=True)]
    if len(pieces) == 1:
        whole = pieces[0]
    else:
        ends = [np.cumsum([b - a for a, b in spans]) for spans in runs]
        whole = np.empty([end[-1] for end in ends], dtype=pieces[0].dtype)
        places = [
            [slice(e - (b - a), e) for e, (a, b) in zip(end, spans, strict=True)]
            for end, spans in zip(ends, runs, strict=True)
        ]
        for place, piece in zip(product(*places), pieces, strict=True):
            whole[place] = piece
    for axis, (dim, spans) in enumerate(zip(column.dims, runs, strict=True)):
        if len(index[dim]) < whole.shape[axis]:
            whole = whole.take(_local(index[dim], spans), axis=axis)
    return whole


def _local(wanted: IndexSet, spans: Sequence[tuple[int, int]]) -> Positions:
    """Where the wanted positions are, counted along the spans laid end to end."""
    starts = np.array([start for start, _ in spans])
    before = np.cumsum([0, *(stop - start for start, stop in spans[:-1])])
    positions = wanted.positions()
    span = np.searchsorted(starts, positions, side="right") - 1
    local: Positions = positions - starts[span] + before[span]
    return local
