"""`SampleTask`: some chunks, and the cells in them that points need. `run_task` reads each chunk once."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from dask.base import tokenize

from rainbear_dask.chunks.read import read_regions
from rainbear_dask.execution.graph import token_of
from rainbear_dask.execution.worker import on_a_thread
from rainbear_dask.indexing.chunk_grid import Region
from rainbear_dask.planning.task import Scan
from rainbear_dask.sampling.evaluate import Masked, evaluate
from rainbear_dask.sampling.stencils import Stencil
from rainbear_dask.table.model import Column

READ_BYTES = 16 * 2**20
"""Decoded bytes of the chunks that a task reads together, unless one chunk has more."""

Counts = npt.NDArray[np.int64]


@dataclass(frozen=True)
class SampleTask:
    """Chunks of arrays that share a grid, and the cells in them that points need.

    Positions along a dimension of points count from the corner of their chunk, in a narrow type. Along the other
    dimensions of the arrays, every point needs the same positions.

    Parameters
    ----------
    scan : Scan
        The store, the dimensions of the arrays, and their columns.
    regions : tuple of Region
        One for each chunk.
    stencils : tuple of Stencil
        For each dimension of points, in the order of the arrays: the points that one chunk answers alone, chunk by
        chunk.
    num_points : ndarray of int64
        Number of these points in each chunk.
    cells : tuple of ndarray
        For each dimension of points: the positions of single cells, chunk by chunk. They belong to points that need
        several chunks.
    num_cells : ndarray of int64
        Number of cells in each chunk.
    kept : tuple of tuple of ndarray
        For each chunk, the positions inside of it along each dimension that points do not have.
    frame_bytes : int
        Estimated bytes of the result.
    """

    scan: Scan
    regions: tuple[Region, ...]
    stencils: tuple[Stencil, ...]
    num_points: Counts
    cells: tuple[npt.NDArray[Any], ...]
    num_cells: Counts
    kept: tuple[tuple[npt.NDArray[np.int64], ...], ...]
    frame_bytes: int

    @property
    def sent_bytes(self) -> int:
        """Estimated bytes of the task itself, beside the part that it shares."""
        arrays = [array for s in self.stencils for array in (s.places, s.factors)] + [*self.cells]
        of_kept = {id(along): along.nbytes for chunk in self.kept for along in chunk}  # chunks share them
        return sum(int(array.nbytes) for array in arrays if array is not None) + sum(of_kept.values())

    def __dask_tokenize__(self) -> tuple[str, str]:
        rest = (self.regions, self.stencils, self.num_points, self.cells, self.num_cells, self.kept)
        return token_of(self.scan), str(tokenize(rest))


Answers = tuple[pl.DataFrame, pl.DataFrame]


def run_task(task: SampleTask) -> Answers:
    """Read the chunks of a task.

    A top-level function of plain data, so a retry on another worker returns the same values.

    Parameters
    ----------
    task : SampleTask
        The task to run.

    Returns
    -------
    points, cells : DataFrame
        Values at the points that one chunk answers, and of the single cells. Rows are in the order of the task. Each is
        repeated for the positions along the other dimensions, which vary fastest.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names array and chunk.
    """
    with on_a_thread():
        return _run(task)


def _run(task: SampleTask) -> Answers:
    point_dims = [stencil.dim for stencil in task.stencils]
    axes = [task.scan.dims.index(dim) for dim in point_dims]
    kept_axes = [axis for axis, dim in enumerate(task.scan.dims) if dim not in point_dims]
    at_points: list[list[npt.NDArray[Any]]] = [[] for _ in task.scan.columns]
    at_cells: list[list[npt.NDArray[Any]]] = [[] for _ in task.scan.columns]
    first_point = np.concatenate([[0], np.cumsum(task.num_points)])
    first_cell = np.concatenate([[0], np.cumsum(task.num_cells)])
    for start, stop in _rounds(task):
        regions = task.regions[start:stop]
        requests = [(column.array, region) for region in regions for column in task.scan.columns if column.array]
        values = iter(read_regions(task.scan.spec, requests))
        for number, region in enumerate(regions, start):
            strides = _strides([high - low for low, high in region])
            beside = _sums([along * strides[axis] for along, axis in zip(task.kept[number], kept_axes, strict=True)])
            some = slice(first_point[number], first_point[number + 1])
            near = [
                s.places[some].astype(np.int64) * strides[axis] for s, axis in zip(task.stencils, axes, strict=True)
            ]
            points = _corner_sums(near, task.num_points[number])[:, None, :] + beside[None, :, None]
            some = slice(first_cell[number], first_cell[number + 1])
            alone = [
                c[some].astype(np.int64)[:, None] * strides[axis] for c, axis in zip(task.cells, axes, strict=True)
            ]
            cells = _corner_sums(alone, task.num_cells[number]) + beside
            for into_points, into_cells in zip(at_points, at_cells, strict=True):
                flat = next(values).reshape(-1)
                into_points.append(flat[points.reshape(-1)])
                into_cells.append(flat[cells.reshape(-1)])
    repeats = np.repeat([prod(map(len, along)) for along in task.kept], task.num_points)
    rows = np.arange(len(repeats)).repeat(repeats)
    stencils = [stencil.take(rows) if len(rows) > len(repeats) else stencil for stencil in task.stencils]
    return (
        pl.DataFrame(
            [_at_points(c, np.concatenate(v), stencils) for c, v in zip(task.scan.columns, at_points, strict=True)]
        ),
        pl.DataFrame([decode(c, np.concatenate(v)) for c, v in zip(task.scan.columns, at_cells, strict=True)]),
    )


def _rounds(task: SampleTask) -> Iterator[tuple[int, int]]:
    """Split the chunks into those that are read together."""
    chunk_bytes = sum(column.array.chunk_bytes for column in task.scan.columns if column.array)
    count = max(READ_BYTES // max(chunk_bytes, 1), 1)
    for start in range(0, len(task.regions), count):
        yield start, min(start + count, len(task.regions))


def _strides(shape: Sequence[int]) -> list[int]:
    return [prod(shape[axis + 1 :]) for axis in range(len(shape))]


def _sums(offsets: Sequence[npt.NDArray[np.int64]]) -> npt.NDArray[np.int64]:
    """Return the sums of one offset of each dimension, in C order."""
    total = np.zeros(1, np.int64)
    for along in offsets:
        total = (total[:, None] + along).reshape(-1)
    return total


def _corner_sums(offsets: Sequence[npt.NDArray[np.int64]], count: int) -> npt.NDArray[np.int64]:
    """Return, for each point, the sums of one of its offsets of each dimension, in C order: shape (count, corners)."""
    total = np.zeros((count, 1), np.int64)
    for along in offsets:
        total = (total[:, :, None] + along[:, None, :]).reshape(count, total.shape[1] * along.shape[1])
    return total


def decode(column: Column, stored: npt.NDArray[Any]) -> pl.Series:
    """Return stored values of an array as values of its column, with its name."""
    if column.decoding is None:
        return pl.Series(column.name, stored)
    return column.decoding.decode(stored).alias(column.name)


def _at_points(column: Column, stored: npt.NDArray[Any], stencils: Sequence[Stencil]) -> pl.Series:
    return interpolated(decode(column, stored), stencils)


def interpolated(values: pl.Series, stencils: Sequence[Stencil]) -> pl.Series:
    """Return values at points from values at the corners around them.

    Parameters
    ----------
    values : Series
        For each point, the values at the product of the stencils' positions, in C order.
    stencils : sequence of Stencil
        Of the same points.

    Returns
    -------
    Series
        The values themselves if all stencils are lookups. Otherwise Float32 stays Float32, and all else is Float64.
    """
    if all(stencil.factors is None for stencil in stencils):
        return _first_of(values, prod(stencil.width for stencil in stencils))
    numbers, masked = _as_floats(values)
    shape = (-1, *[stencil.width for stencil in stencils])
    if not len(numbers):
        return pl.Series(values.name, [], dtype=float_type(values.dtype))
    found, nulls = evaluate(numbers.reshape(shape), None if masked is None else masked.reshape(shape), stencils)
    series = pl.Series(values.name, found).cast(float_type(values.dtype))
    return series if nulls is None else only_where(series, ~nulls)


def _first_of(values: pl.Series, corners: int) -> pl.Series:
    """Return the first of each point's equal values; null if one of them is null."""
    if corners == 1:
        return values
    found = values.gather_every(corners)
    return only_where(found, ~np.logical_or.reduce(values.is_null().to_numpy().reshape(-1, corners), axis=1))


def only_where(values: pl.Series, keep: Masked) -> pl.Series:
    """Return values with nulls where a mask is false."""
    if keep.all():
        return values
    return (
        pl.DataFrame({"values": values, "keep": keep})
        .select(pl.when("keep").then("values"))
        .to_series()
        .alias(values.name)
    )


def _as_floats(values: pl.Series) -> tuple[npt.NDArray[Any], Masked | None]:
    if not values.has_nulls():
        return values.to_numpy(), None
    return values.fill_null(0).to_numpy(), values.is_null().to_numpy()


def float_type(dtype: pl.DataType) -> pl.DataType:
    """Return the type of interpolated values."""
    return pl.Float32() if dtype == pl.Float32 else pl.Float64()
