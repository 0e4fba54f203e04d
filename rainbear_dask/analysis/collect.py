"""`collect_chunks`: the statistics of the chunks of one task, made where they are decoded."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from itertools import product
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from dask.base import normalize_token

from rainbear_dask.coding.cf import Decoding
from rainbear_dask.execution.graph import content_of
from rainbear_dask.execution.groups import ChunkGroup, consume_groups
from rainbear_dask.execution.worker import cells_of, on_a_thread
from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.statistics.form import COUNTS
from rainbear_dask.table.tidy import CellMask

MAX_TEXT = 256
"""Characters, or bytes, of the longest text that bounds a chunk. A chunk with longer ones gets no statistics."""

_ROW_BYTES = 256
"""Bytes of the statistics of a chunk in memory."""

Row: TypeAlias = tuple[Any, Any, int | None, int | None, int | None]
"""Least and greatest value, in physical form; number of nulls, of NaNs, and of cells."""

Place: TypeAlias = tuple[slice, ...]
"""Place of a chunk among the positions of its group."""

_NONE: Row = (None, None, None, None, None)
"""Row of a chunk that gets no statistics."""


@dataclass(frozen=True)
class CollectTask(ScanTask):
    """Whole chunks of one array, for one worker to collect their statistics.

    Parameters
    ----------
    call : str
        Name of the call of `analyze`. Chunks may be overwritten between two calls, so no result of one serves another.
    """

    call: str = ""

    @property
    def frame_bytes(self) -> int:
        """Estimated bytes of the result."""
        (column,) = self.scan.columns
        return _ROW_BYTES * (self.num_chunks(column.array) if column.array else 1)


def _content(task: CollectTask) -> tuple[Any, ...]:
    return "collect", content_of(task), task.call


normalize_token.register(CollectTask, _content)


def collect_chunks(task: CollectTask) -> pl.DataFrame:
    """Collect the statistics of the chunks of a task.

    A top-level function of plain data: it pickles by name.

    Parameters
    ----------
    task : CollectTask
        The task, whose positions are whole chunks of its only column.

    Returns
    -------
    DataFrame
        ``chunk`` (number in C order of the grid), ``min``, ``max``, ``nulls``, ``nans``, ``count``; one row for each
        chunk, in any order. ``count`` is null if the chunk gets no statistics.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names array and chunk.
    """
    (column,) = task.scan.columns
    assert column.array is not None  # noqa: S101  only such columns are collected
    assert column.decoding is not None  # noqa: S101
    grid, decoding = column.array.grid, column.decoding
    index = dict(zip(task.scan.dims, task.index, strict=True))
    cells = CellMask({dim: len(positions) for dim, positions in index.items()}, cells_of(task))
    with on_a_thread():
        strips = consume_groups(
            task.scan.spec, [column], index, cells, lambda: _Collection(column.name, grid, decoding)
        )
    rows = {number: row for strip in strips for number, row in strip.items()}
    return frame_of(rows, column.dtype)


class _Collection:
    """Collects the chunks of one strip."""

    def __init__(self, name: str, grid: ChunkGrid, decoding: Decoding) -> None:
        self._name, self._grid, self._decoding = name, grid, decoding
        self._rows = dict[int, Row]()

    def use(self, group: ChunkGroup) -> None:
        """Collect the chunks of a group."""
        stored, decoding = group.stored[self._name], self._decoding
        rows_of = _others(decoding, stored) if not decoding.holds_numbers else _numbers(decoding, stored)
        for number, place in chunks_in(group.index, self._grid):
            self._rows[number] = rows_of(place)

    def done(self) -> dict[int, Row]:
        """Return the statistics by number of the chunk."""
        return self._rows


def chunks_in(index: Mapping[str, IndexSet], grid: ChunkGrid) -> Iterator[tuple[int, Place]]:
    """Yield the chunks that some positions consist of: the number in C order, and the place among the positions."""
    along, stride = list[list[tuple[int, slice]]](), grid.num_chunks
    for axis in grid.axes:
        positions = index[axis.dim]
        chunks = positions.chunks(axis.chunk).positions()
        ends = positions.count_below(np.append(chunks * axis.chunk, positions.hull[1])).tolist()
        stride //= axis.num_chunks
        along.append([(stride * n, slice(a, b)) for n, a, b in zip(chunks.tolist(), ends, ends[1:], strict=False)])
    for parts in product(*along):
        yield sum(number for number, _ in parts), tuple([place for _, place in parts])


def _numbers(decoding: Decoding, stored: npt.NDArray[Any]) -> Callable[[Place], Row]:
    """Return a function that makes the row of a chunk from the stored numbers of a group."""
    if decoding.keeps_values:  # nothing but NaN is masked, and most chunks hold none
        return lambda place: _row_of(stored[place], None, nan_is_null=decoding.nan_is_fill)
    values, masked = decoding.decode_numbers(stored)
    if masked is None:
        return lambda place: _row_of(values[place], None)
    return lambda place: _row_of(values[place], masked[place])


def _row_of(values: npt.NDArray[Any], masked: npt.NDArray[np.bool_] | None, *, nan_is_null: bool = False) -> Row:
    kept = values if masked is None else values[~masked]
    if not kept.size:
        return None, None, values.size, 0, values.size
    low, nulls, nans = kept.min(), values.size - kept.size, 0
    if kept.dtype.kind == "f" and np.isnan(low):
        kept, size = kept[~np.isnan(kept)], kept.size
        nans = size - kept.size
        if nan_is_null:
            nulls, nans = nans, 0
        if not kept.size:
            return None, None, nulls, nans, values.size
        low = kept.min()
    return low.item(), kept.max().item(), nulls, nans, values.size


def _others(decoding: Decoding, stored: npt.NDArray[Any]) -> Callable[[Place], Row]:
    """Return a function that makes the row of a chunk from the stored times or texts of a group."""

    def row_of(place: Place) -> Row:
        series = decoding.decode(stored[place]).to_physical()
        low, high = series.min(), series.max()
        if any(isinstance(end, str | bytes) and len(end) > MAX_TEXT for end in (low, high)):
            return _NONE
        return low, high, series.null_count(), 0, len(series)

    return row_of


def frame_of(rows: Mapping[int, Row], dtype: pl.DataType) -> pl.DataFrame:
    """Return rows as the frame of `collect_chunks`."""
    physical = pl.Series(dtype=dtype).to_physical().dtype
    ends = [
        pl.Series(name, [row[at] for row in rows.values()], dtype=physical) for at, name in enumerate(("min", "max"))
    ]
    counts = [pl.Series(name, [row[at] for row in rows.values()], dtype=pl.Int64) for at, name in enumerate(COUNTS, 2)]
    return pl.DataFrame([pl.Series("chunk", list(rows), dtype=pl.Int64), *(end.cast(dtype) for end in ends), *counts])
