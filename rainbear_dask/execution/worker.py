"""The work of one task: read chunks, filter, and return the rows as a `CompactFrame`."""

import io
from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from functools import cache, partial
from itertools import product
from math import prod
from typing import Any, TypeVar

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PanicException

from rainbear_dask.chunks import cache as value_cache
from rainbear_dask.chunks import read as storage
from rainbear_dask.exceptions import RainbearError
from rainbear_dask.execution.wire import CompactColumn, CompactFrame, compact, lay_out
from rainbear_dask.indexing.chunk_grid import Region
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Selection
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.planning.task import Filter, ScanTask
from rainbear_dask.resources import threads
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column
from rainbear_dask.table.order import in_order, sorted_rows
from rainbear_dask.table.tidy import CellMask, nest

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
    scan, index = task.scan, dict(zip(task.scan.dims, task.index, strict=True))
    cells = CellMask({dim: len(positions) for dim, positions in index.items()}, cells_of(task))
    known: dict[str, pl.Series] = {}  # one value per wanted cell
    tests, failed = deque(scan.filters), 0
    while tests:
        test = tests.popleft()
        # evaluated once per cell of the filter's own dimensions, not once per row
        own = cells.along({dim for column in test.columns for dim in column.dims})
        more = [c for c in test.columns if own is not cells or c.name not in known]
        values = read_columns(scan.spec, more, index, cells)
        laid_out = known | {c.name: own.lay_out(values.pop(c.name), c.dims) for c in more}
        if own is cells:
            known = laid_out
        try:
            passed = _passed(test, laid_out, own.count)
        except (Exception, PanicException):
            # It may fail only on rows that another filter drops. Polars, too, applies conditions that may fail last.
            tests.append(test)
            if (failed := failed + 1) == len(tests):
                raise
            continue
        failed = 0
        if passed.all():
            continue
        kept = own.where(_mask(passed))
        if known:
            if own is not cells:
                passed = pl.Series(np.broadcast_to(kept, tuple(cells.box.values()))[cells.mask])
            known = {name: values.filter(passed) for name, values in known.items()}
        index, cells = _narrow(index, cells, kept)
        if not cells.count:  # no row is left, so no other column is read
            return CompactFrame(0, tuple(CompactColumn(pl.Series(c.name, dtype=c.dtype)) for c in scan.columns))
    # Coordinates are read again: they are cached, and smaller before they are laid out.
    done = {c.name: CompactColumn(known[c.name]) for c in scan.columns if c.name in known and c.role == "data"}
    left = [c for c in scan.columns if c.name not in done]
    values = read_columns(scan.spec, left, index, cells)
    done |= {c.name: CompactColumn(values[c.name], c.dims) for c in left}
    columns, along = [done[c.name] for c in scan.columns], tuple(index.values())
    if in_order(along, scan.blocks):
        return compact(columns, cells)
    order = pl.Series(sorted_rows(along, scan.blocks, cells.rows))
    return CompactFrame(
        cells.count, tuple(CompactColumn(lay_out(part, cells).values.gather(order)) for part in columns)
    )


def make_frame(task: ScanTask) -> pl.DataFrame:
    """Run one task and return its rows as a Polars frame."""
    return run_task(task).to_polars()


def apply_to_frame(task: ScanTask, func: Callable[[pl.DataFrame], T]) -> T:
    """Run one task and return the result of a function of its frame."""
    return func(make_frame(task))


def cells_of(task: ScanTask) -> npt.NDArray[np.bool_] | None:
    """Return which cells of the product of positions lie in the task's boxes; None if all do."""
    if not task.boxes:
        return None
    wanted = np.zeros([len(positions) for positions in task.index], dtype=np.bool_)
    for box in task.boxes:
        ranks = [every.count_below(some.positions()) for every, some in zip(task.index, box, strict=True)]
        wanted[np.ix_(*ranks)] = True
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


def _mask(passed: pl.Series) -> npt.NDArray[np.bool_]:
    """Build sparse masks from row numbers: Polars converts Booleans bit by bit, and holds the GIL meanwhile."""
    if _SPARSE_RATIO * passed.sum() > len(passed):
        return passed.to_numpy()
    mask = np.zeros(len(passed), dtype=np.bool_)
    mask[passed.arg_true().to_numpy()] = True
    return mask


_SPARSE_RATIO = 100
"""A mask is sparse if at most one of so many rows passes."""


def _passed(test: Filter, known: Mapping[str, pl.Series], count: int) -> pl.Series:
    frame = pl.DataFrame([known[c.name] for c in test.columns] or None, height=count)
    # expressions name a variable of a child group as a field of a struct, or as `child/variable`
    frame = nest(frame).hstack([column for column in frame.iter_columns() if "/" in column.name])
    passed = frame.select(pl.Expr.deserialize(io.BytesIO(test.predicate))).to_series().fill_null(value=False)
    return (
        passed.new_from_index(0, count) if len(passed) == 1 else passed
    )  # one value if the expression names no column


def read_columns(
    spec: StoreSpec, columns: Sequence[Column], index: Mapping[str, IndexSet], cells: CellMask
) -> dict[str, pl.Series]:
    """Read and decode columns at some positions.

    Parameters
    ----------
    spec : StoreSpec
        The store of the arrays.
    columns : sequence of Column
        Columns to read. All requests are in flight together.
    index : mapping of str to IndexSet
        Positions along each dimension of the table, in row order.
    cells : CellMask
        The wanted cells of the product of all positions.

    Returns
    -------
    dict of str to Series
        Values of each column at the product of the positions of its own dimensions, flat in C order. Values from chunks
        without a wanted cell are undefined.
    """
    regions = cache(partial(_regions, index, cells))  # the same for all columns of one grid
    stored = [(c, c.array, regions(c.dims, c.array.chunks, _chunk_cost(c.array))) for c in columns if c.array]
    own, kept, shared = list[_Request](), list[_Request](), list[_Request]()
    for column, array, parts in stored:
        requests = [(column.name, array, region) for region in parts]
        if column.role != "data" or len(column.dims) < len(index):
            shared += requests  # other tasks need the same regions of it
        elif spec.max_chunks and all(_is_small_part(*request) for request in requests):
            kept += requests
        else:
            own += requests
    if sum(array.chunk_bytes for _, array, _ in kept) > MAX_CACHED_CHUNK_BYTES:
        own, kept = own + kept, []
    pieces: dict[str, list[npt.NDArray[Any]]] = {}
    for read, requests in ((value_cache.read, shared), (value_cache.read_chunks, kept), (storage.read_regions, own)):
        found = read(spec, [request[1:] for request in requests]) if requests else []
        for (name, *_), piece in zip(requests, found, strict=True):
            pieces.setdefault(name, []).append(piece)
    values = {
        c.name: pl.Series(c.name, index[c.dims[0]].positions())
        for c in columns
        if c.array is None or c.decoding is None
    }
    for column, _, parts in stored:
        if column.decoding is not None:
            whole = _assemble([index[dim] for dim in column.dims], parts, pieces.pop(column.name))
            values[column.name] = column.decoding.decode(whole).alias(column.name)
    return values


_Request = tuple[str, ArrayMeta, Region]

MAX_CACHED_CHUNK_BYTES = 16 * 2**20
"""Decoded bytes of chunks that one task may cache for later queries. A large query would evict everything else."""

_SMALL_PART_RATIO = 16
"""A region is a small part of its chunk if it has at most this fraction of the chunk's cells."""


def _is_small_part(_: str, array: ArrayMeta, region: Region) -> bool:
    """Whether so little of a chunk is wanted that the next query may well want another part of it."""
    return _SMALL_PART_RATIO * prod(stop - start for start, stop in region) <= prod(array.chunks)


_REQUEST_COST_BYTES = 2**19
"""Cost of one more region or stored object, as the number of bytes that are decoded in the same time."""


def _chunk_cost(array: ArrayMeta) -> int:
    """Return the cost of reading a chunk, in decoded bytes. Chunks of a shard are mostly read together."""
    return array.chunk_bytes if array.shards else max(array.chunk_bytes, _REQUEST_COST_BYTES)


def _regions(
    index: Mapping[str, IndexSet], cells: CellMask, dims: tuple[str, ...], sizes: tuple[int, ...], chunk_cost: int
) -> list[Region]:
    """Return the regions of an array to read for some cells; ``dims`` and ``sizes`` describe its chunk grid.

    No chunk lies in two regions. Chunks without a wanted cell are skipped if that saves time.
    """
    along = [index[dim] for dim in dims]
    box = list(product(*(one.runs(size) for one, size in zip(along, sizes, strict=True))))
    if cells.wanted is None:
        return box
    chunks = [one.chunks(size).positions() for one, size in zip(along, sizes, strict=True)]
    if max(map(len, chunks), default=1) == 1:
        return box
    used = cells.project(dims)
    for axis, size in enumerate(sizes):
        used = np.logical_or.reduceat(used, along[axis].count_below(chunks[axis] * size), axis=axis)
    parts: list[Region] = []
    for some in Selection.where(dims, used).boxes:
        found = (IndexSet.from_positions(those[some[dim].positions()]) for dim, those in zip(dims, chunks, strict=True))
        spans = (one.within_chunks(f, size).runs(size) for one, f, size in zip(along, found, sizes, strict=True))
        parts += product(*spans)
    spared = used.size - np.count_nonzero(used)
    return parts if (len(parts) - len(box)) * _REQUEST_COST_BYTES < spared * chunk_cost else box


def _assemble(
    index: Sequence[IndexSet], regions: Sequence[Region], pieces: Sequence[npt.NDArray[Any]]
) -> npt.NDArray[Any]:
    """Take the wanted positions from regions of an array; positions outside of all regions are undefined."""
    positions = [along.positions() for along in index]
    taken = []
    for region, piece in zip(regions, pieces, strict=True):
        place, part = list[slice](), piece
        for axis, (wanted, (start, stop)) in enumerate(zip(positions, region, strict=True)):
            first, last = np.searchsorted(wanted, (start, stop))
            place.append(slice(first, last))
            if last - first < stop - start:
                part = part.take(wanted[first:last] - start, axis=axis)
        taken.append((tuple(place), part))
    if len(taken) == 1:
        return taken[0][1]
    any_value = pieces[0].flat[0]  # a stored value, so that decoding it cannot fail
    whole = np.full([len(wanted) for wanted in positions], any_value, dtype=pieces[0].dtype)
    for where, part in taken:
        whole[where] = part
    return whole
