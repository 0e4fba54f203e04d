"""What a worker does: from a scan task to a Polars frame."""

import io
from collections.abc import Sequence
from itertools import product
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask import coords, store
from rainbear_dask.metadata import ArrayMeta, Region
from rainbear_dask.plan import ScanTask
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
    scan = task.scan
    box = {dim: len(positions) for dim, positions in zip(scan.dims, task.index, strict=True)}
    if scan.predicate is None:
        values = read_columns(task, scan.columns)
        return pl.DataFrame([spread(values[c.name], c.dims, box) for c in scan.columns], height=task.num_rows)

    values = read_columns(task, scan.filters)
    tested = {c.name: spread(values[c.name], c.dims, box) for c in scan.filters}
    predicate = pl.Expr.deserialize(io.BytesIO(scan.predicate))
    rows = nest(pl.DataFrame(list(tested.values()), height=task.num_rows)).select(predicate).to_series().arg_true()
    if rows.is_empty():
        return pl.DataFrame(schema={c.name: c.dtype for c in scan.columns})
    # what the filter did not need is read only now that a row survives
    values |= read_columns(task, [c for c in scan.columns if c.name not in tested])
    if len(rows) == task.num_rows:
        kept = [tested[c.name] if c.name in tested else spread(values[c.name], c.dims, box) for c in scan.columns]
    else:
        where = rows.to_numpy().astype(np.int64)
        kept = [
            tested[c.name].gather(rows) if c.name in tested else pick(values[c.name], c.dims, box, where)
            for c in scan.columns
        ]
    return pl.DataFrame(kept, height=len(rows))


def read_columns(task: ScanTask, columns: Sequence[Column]) -> dict[str, pl.Series]:
    """Read and decode some columns at the positions of a task.

    Returns
    -------
    dict of str to Series
        Per column, its values at the task's index sets of the column's own dimensions, flat in C order.
    """
    index = dict(zip(task.scan.dims, task.index, strict=True))
    rank = len(task.scan.dims)
    stored: dict[str, npt.NDArray[Any]] = {}
    wanted: list[tuple[ArrayMeta, Region]] = []
    for column in columns:
        if column.array is not None:
            if column.role == "data" and len(column.dims) == rank:
                wanted += [(column.array, region) for region in _regions(column, index)]
            else:  # other tasks need the same part of it
                pieces = [coords.read(task.scan.spec, column.array, region) for region in _regions(column, index)]
                stored[column.name] = _assemble(column, index, pieces)
    arrived = iter(store.read_regions(task.scan.spec, wanted))
    out: dict[str, pl.Series] = {}
    for column in columns:
        if column.array is None or column.decoding is None:
            out[column.name] = pl.Series(column.name, index[column.dims[0]].positions())
            continue
        if column.name not in stored:
            pieces = [next(arrived) for _ in _regions(column, index)]
            stored[column.name] = _assemble(column, index, pieces)
        out[column.name] = column.decoding.decode(stored.pop(column.name)).alias(column.name)
    return out


def _regions(column: Column, index: dict[str, IndexSet]) -> list[Region]:
    """Parts of a column's array to read: runs of neighbouring chunks, no wider than the positions need."""
    chunks = column.array.chunks if column.array else ()
    return list(product(*(index[dim].runs(size) for dim, size in zip(column.dims, chunks, strict=True))))


def _assemble(column: Column, index: dict[str, IndexSet], pieces: Sequence[npt.NDArray[Any]]) -> npt.NDArray[Any]:
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
