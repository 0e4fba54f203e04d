"""`ZonalTask`: chunks that one worker reads, and the sums over the cells of zones in them."""

from dataclasses import dataclass, field
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from dask.base import normalize_token, tokenize

from rainbear_dask.chunks import read as storage
from rainbear_dask.execution.worker import on_a_thread
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.regions.statistics import Floats, Needs, Sums, sums_of
from rainbear_dask.table.model import Column

Integers = npt.NDArray[np.int64]


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The cells of zones in one chunk of the spatial axes.

    Parameters
    ----------
    rows, columns : tuple of int
        Half-open range of positions along y and x, the smallest that holds the cells.
    cells : ndarray of int64, shape (n,)
        Number of each cell in the region, in C order of y and x; the cells of a zone are adjacent.
    zones, starts : ndarray of int64, shape (k,)
        Numbers of the zones in ascending order, and the first cell of each.
    fraction, weight : ndarray of float64, shape (n,)
        Covered share and weight of each cell.
    token : str
        Identifies the content.
    """

    rows: tuple[int, int]
    columns: tuple[int, int]
    cells: Integers
    zones: Integers
    starts: Integers
    fraction: Floats
    weight: Floats
    token: str


@dataclass(frozen=True, kw_only=True)
class ZonalTask(ScanTask):
    """Sums over zones for a box of the other dimensions; plain data.

    Its ``index`` has a box of positions for each dimension of the scan. ``y`` and ``x`` name the spatial dimensions.

    Parameters
    ----------
    parts : tuple of Part
        Chunks along the spatial axes.
    y, x : str
        The spatial dimensions.
    needs : Needs
        The sums to compute.
    """

    parts: tuple[Part, ...] = field(repr=False)
    y: str
    x: str
    needs: Needs

    @property
    def frame_bytes(self) -> int:
        """Upper bound of the bytes of the result, for a bound on tasks in flight."""
        return self.max_rows * len(self.scan.columns) * 8 * (6 + len(self.needs.quantiles))


@dataclass(frozen=True, slots=True)
class ZonalSums:
    """The result of a task.

    Parameters
    ----------
    zones : ndarray of int64, shape (k,)
        Zones with a cell in the task.
    sums : tuple of Sums
        One for each column, of shape (m, k): m cells of the other dimensions, in C order of the scan's dimensions.
    """

    zones: Integers
    sums: tuple[Sums, ...]


def _content(task: ZonalTask) -> Any:
    spans = tuple(one.hull for one in task.index)
    return tokenize(task.scan, spans, [part.token for part in task.parts], task.y, task.x, tokenize(task.needs))


normalize_token.register(ZonalTask, _content)


def run_zonal_task(task: ZonalTask) -> ZonalSums:
    """Read the chunks of a task, each once, and return sums over the cells of each zone.

    A top-level function of plain data, like `execution.worker.run_task`.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names array and chunk.
    """
    with on_a_thread():
        return _run(task)


def _run(task: ZonalTask) -> ZonalSums:
    zones = np.unique(np.concatenate([part.zones for part in task.parts]))
    columns = [(column, column.array) for column in task.scan.columns if column.array is not None]
    regions = [(array, _region(task, part, array)) for part in task.parts for _, array in columns]
    stored = iter(storage.read_regions(task.scan.spec, regions))
    taken: list[list[Floats]] = [[] for _ in columns]
    for part in task.parts:
        for values, (column, array) in zip(taken, columns, strict=True):
            values.append(_take(column, array, next(stored), part, task))
    return ZonalSums(zones, tuple(_sums(task, zones, values) for values in taken))


def _region(task: ZonalTask, part: Part, array: ArrayMeta) -> tuple[tuple[int, int], ...]:
    spans = {dim: one.hull for dim, one in zip(task.scan.dims, task.index, strict=True)}
    spans |= {task.y: part.rows, task.x: part.columns}
    return tuple(spans[dim] for dim in array.dims)


def _take(column: Column, array: ArrayMeta, stored: npt.NDArray[Any], part: Part, task: ZonalTask) -> Floats:
    """Return the decoded values of the cells of zones, shape (m, n); NaN for none. Only these cells are decoded."""
    order = [array.dims.index(dim) for dim in task.scan.dims if dim in array.dims and dim not in (task.y, task.x)]
    stored = stored.transpose([*order, array.dims.index(task.y), array.dims.index(task.x)])
    if stored.flags.c_contiguous:
        cells = stored.reshape(-1, stored.shape[-2] * stored.shape[-1]).take(part.cells, axis=1)
    else:
        row, across = np.divmod(part.cells, stored.shape[-1])
        cells = np.ascontiguousarray(stored[..., row, across]).reshape(-1, len(part.cells))
    assert column.decoding is not None  # noqa: S101  a column with an array has one
    decoded = column.decoding.decode(cells).cast(pl.Float64)
    return decoded.fill_null(float("nan")).to_numpy().reshape(cells.shape)


def _sums(task: ZonalTask, zones: Integers, values: list[Floats]) -> Sums:
    if task.needs.quantiles:  # all values of a zone at once
        number = np.concatenate([np.repeat(p.zones, np.diff(p.starts, append=len(p.cells))) for p in task.parts])
        order = np.argsort(number, kind="stable")
        fraction, weight = (
            np.concatenate([getattr(part, name) for part in task.parts])[order] for name in ("fraction", "weight")
        )
        starts = np.searchsorted(number[order], zones)
        return sums_of(np.concatenate(values, axis=1)[:, order], starts, fraction, weight, task.needs)
    found = Sums.empty((len(values[0]), len(zones)), task.needs)
    for part, each in zip(task.parts, values, strict=True):
        place = (slice(None), np.searchsorted(zones, part.zones))
        found.add(place, sums_of(each, part.starts, part.fraction, part.weight, task.needs))
    return found
