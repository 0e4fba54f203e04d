"""The values of one batch of points: the chunks are read once each, then values return to the order of the points."""

from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import reduce
from math import prod
from operator import and_, or_
from typing import TYPE_CHECKING, Any, Self

import numpy as np
import numpy.typing as npt
import polars as pl
from dask.base import get_annotations

from rainbear_dask.diagnostics.progress import counted
from rainbear_dask.execution.clients import chosen_client
from rainbear_dask.execution.executors import Work
from rainbear_dask.execution.run import run_tasks
from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.indexing.selection import Selection
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.predicate import Conjunct
from rainbear_dask.resources.settings import num_bytes
from rainbear_dask.sampling.gather import Gathered, Gathering
from rainbear_dask.sampling.locate import Coordinates, Located, locate
from rainbear_dask.sampling.task import READ_BYTES, Answers, interpolated, only_where, run_task
from rainbear_dask.table.model import Column
from rainbear_dask.table.tidy import nest

if TYPE_CHECKING:
    from distributed import Client

Rows = npt.NDArray[np.int64]


@dataclass(frozen=True)
class Place:
    """Where the tasks of a query run; known when it starts, because Polars asks for frames on threads of its own.

    Parameters
    ----------
    client : distributed.Client or None
        The caller's client, or the active one.
    annotations : mapping
        Active Dask annotations.
    may_stay : bool
        Whether batches that read little run on threads of this process, which finish sooner.
    """

    client: "Client | None"
    annotations: Mapping[str, Any]
    may_stay: bool

    @classmethod
    def here(cls, client: "Client | None") -> Self:
        """Return the place of a query that starts now, on the calling thread."""
        annotations = get_annotations()
        return cls(chosen_client(client), annotations, client is None and not annotations)

    def client_for(self, size: int) -> "Client | None":
        """Return the client that reads so many decoded bytes."""
        return None if self.may_stay and size <= num_bytes("small-plan-bytes") else self.client


def sample_batch(found: Coordinates, points: pl.DataFrame, names: Sequence[str], place: Place) -> pl.DataFrame:
    """Return points with their values.

    Parameters
    ----------
    found : Coordinates
        From `locate.read_coordinates`.
    points : DataFrame
        Some points.
    names : sequence of str
        Columns of the result. Values that are not among them are not read.
    place : Place
        Where chunks are read.

    Returns
    -------
    DataFrame
        Rows in the order of the points. Along the dimensions that points do not have, each gives a row for every wanted
        position; the last one varies fastest.
    """
    request, located = found.request, locate(found, points)
    kept = {dim: found.wanted[dim] for dim in request.kept}
    each = found.rows_per_point
    new: dict[str, pl.Series] = {}
    for dim, positions in zip(kept, np.meshgrid(*kept.values(), indexing="ij"), strict=True):
        new[dim] = found.labels[dim].gather(pl.Series(np.tile(positions.reshape(-1), points.height)))
    beside = dict(located.cells)
    if request.distance is not None and located.distances is not None:
        beside[request.distance] = located.distances
    rows = pl.Series(np.arange(points.height).repeat(each))
    new |= {name: values if each == 1 else values.gather(rows) for name, values in beside.items()}
    new |= _values(found, located, _wanted(found, names), points.height, place)
    frame = nest(
        pl.DataFrame([values.alias(name) for name, values in new.items()] or None, height=points.height * each)
    )
    frame = frame.rename({name: final for name, final in request.names.items() if name in frame.columns})
    repeated = points if each == 1 else points[rows]
    return repeated.hstack(frame).select(names)


def _wanted(found: Coordinates, names: Sequence[str]) -> list[Column]:
    """Return the variables behind names of the result."""
    final = found.request.names
    return [c for c in found.request.columns if final.get(head := c.name.partition("/")[0], head) in names]


def plan_of_points(found: Coordinates, points: pl.DataFrame, names: Sequence[str]) -> ReadPlan:
    """Return a plan that selects all cells of the chunks that points need.

    Parameters
    ----------
    found, points, names
        As in `sample_batch`, for all points together.
    """
    table, columns = found.request.table, _wanted(found, names)
    located = locate(found, points)
    selection = Selection.nothing()
    if len(located.rows):
        todo = gatherings(found, located, (*columns, *_of_conditions(found)))
        selection = reduce(or_, [one.selection for one in todo], selection)
    methods = ", ".join(dict.fromkeys(match.method for match in found.request.matches))
    of_points = Conjunct(pl.lit(value=True).alias(f"{points.height:,} points, {methods}"), selection, "")
    return ReadPlan(table, tuple(columns), (of_points,))


def measured_tasks(found: Coordinates, points: pl.DataFrame, names: Sequence[str]) -> list[int]:
    """Return, for each task of a batch, an upper bound of its bytes, estimated: chunks that are read together, and result.

    Parameters
    ----------
    found, points, names
        As in `sample_batch`.
    """
    columns, located = _wanted(found, names), locate(found, points)
    if not columns or not len(located.rows):
        return []
    return [
        min(len(task.regions) * one.chunk_bytes, max(READ_BYTES, one.chunk_bytes)) + task.frame_bytes + task.sent_bytes
        for one in gatherings(found, located, list(dict.fromkeys((*columns, *_of_conditions(found)))))
        for task, _ in one.tasks(num_bytes("task-bytes"))
    ]


def _of_conditions(found: Coordinates) -> tuple[Column, ...]:
    """Return the columns of the conditions that are evaluated cell by cell."""
    return found.request.table.leaves(dict.fromkeys(name for c in found.conditions for name in c.meta.root_names()))


def gatherings(found: Coordinates, located: Located, columns: Sequence[Column]) -> list[Gathering]:
    """Return the cells that columns need, one request for each chunk grid."""
    by_grid: dict[ChunkGrid, list[Column]] = {}
    for column in columns:
        if column.array is not None:
            by_grid.setdefault(column.array.grid, []).append(column)
    result = []
    for grid, some in by_grid.items():
        stencils = tuple(located.stencils[dim] for dim in grid.dims if dim in located.stencils)
        kept = {dim: found.wanted[dim] for dim in grid.dims if dim not in located.stencils}
        count = len(located.rows) if stencils else 1
        result.append(Gathering(found.request.table.spec, tuple(some), stencils, kept, count, not found.conditions))
    return result


def _values(
    found: Coordinates, located: Located, columns: Sequence[Column], count: int, place: Place
) -> dict[str, pl.Series]:
    """Return a value of each column for each point and each wanted position along the other dimensions."""
    dims = found.request.kept
    shape = tuple(len(found.wanted[dim]) for dim in dims)
    if not columns:
        return {}
    if not len(located.rows) or not all(shape):
        kinds = found.request.value_types
        return {c.name: pl.Series(c.name, [None] * (count * prod(shape)), dtype=kinds[c.name]) for c in columns}
    if found.conditions:
        return _filtered_values(found, located, columns, count, place)
    values = dict[str, pl.Series]()
    for gathered in _gathered(gatherings(found, located, columns), place):
        axes = [dim for dim in gathered.gathering.grid.dims if dim in dims]
        where = _spread(gathered.where, axes, dims, (len(located.rows), *shape))
        at = _everywhere(where.reshape(len(located.rows), -1), located.rows, count)
        values |= {c.name: gathered.values[c.name].gather(at) for c in gathered.gathering.columns}
    return {c.name: values[c.name] for c in columns}


def _gathered(todo: Sequence[Gathering], place: Place) -> Iterator[Gathered]:
    client = place.client_for(sum(one.num_bytes for one in todo))
    task_bytes = num_bytes("task-bytes")
    begun = [list(one.tasks(task_bytes)) for one in todo]
    work: Work[Answers] = Work(run_task, annotations=place.annotations)
    title = f"sample {todo[0].spec.label}" if todo else ""
    answers = counted(
        run_tasks((task for tasks in begun for task, _ in tasks), client, work), title, lambda: sum(map(len, begun))
    )
    with closing(answers):  # type: ignore[type-var]  # a generator
        for one, tasks in zip(todo, begun, strict=True):
            yield one.collect([(next(answers), units) for _, units in tasks])


def _spread(where: Rows, own: Sequence[str], dims: Sequence[str], shape: tuple[int, ...]) -> Rows:
    """Repeat an index along dimensions; its first axis is the points, the others are ``own``."""
    order = [own.index(dim) for dim in dims if dim in own]
    ordered = where.transpose(0, *[axis + 1 for axis in order])
    lengths = iter(ordered.shape[1:])
    full: Rows = np.broadcast_to(
        ordered.reshape(len(where), *[next(lengths) if dim in own else 1 for dim in dims]), shape
    )
    return full


def _everywhere(where: Rows, rows: Rows, count: int) -> pl.Series:
    """Return the index of all points, from that of some; null for the others."""
    if len(rows) == count:
        return pl.Series(where.reshape(-1))
    full = np.zeros((count, where.shape[1]), np.int64)
    full[rows] = where
    present = np.zeros(count, np.bool_)
    present[rows] = True
    return only_where(pl.Series(full.reshape(-1)), present.repeat(where.shape[1]))


# ---------------------------------------------------------------------- scans with conditions on cells


def _filtered_values(
    found: Coordinates, located: Located, columns: Sequence[Column], count: int, place: Place
) -> dict[str, pl.Series]:
    """Return values as `_values` does; cells that fail a condition of the scan are null before anything is weighed."""
    condition = reduce(and_, found.conditions)
    named = _of_conditions(found)
    every = list({c.name: c for c in (*columns, *named)}.values())
    # corners vary fastest, so that they become one value
    dims = (*found.request.kept, *located.stencils)
    kept_shape = tuple(len(found.wanted[dim]) for dim in found.request.kept)
    shape = (len(located.rows), *kept_shape, *[stencil.width for stencil in located.stencils.values()])
    cells: dict[str, pl.Series] = {}
    for gathered in _gathered(gatherings(found, located, every), place):
        gathering = gathered.gathering
        axes = [stencil.dim for stencil in gathering.stencils] + [
            dim for dim in gathering.grid.dims if dim in gathering.kept
        ]
        at = pl.Series(_spread(gathered.where, axes, dims, shape).reshape(-1))
        cells |= {c.name: gathered.values[c.name].gather(at) for c in gathering.columns}
    for column in every:
        if column.array is None:
            (dim,) = column.dims
            where = located.stencils[dim].places if dim in located.stencils else found.wanted[dim][None, :]
            cells[column.name] = pl.Series(column.name, _spread(where, [dim], dims, shape).reshape(-1))
    leaves = pl.DataFrame([cells[c.name] for c in named] or None, height=prod(shape))
    # conditions name a variable of a child group as a field of a struct, or as `child/variable`
    frame = nest(leaves).hstack([column for column in leaves.iter_columns() if "/" in column.name])
    answer = frame.select(condition).to_series().fill_null(value=False)
    passed = (answer.new_from_index(0, prod(shape)) if len(answer) == 1 else answer).to_numpy()
    rows = np.arange(len(located.rows)).repeat(prod(kept_shape))
    at = _everywhere(np.arange(len(rows)).reshape(len(located.rows), -1), located.rows, count)
    values = {}
    for column in columns:
        stencils = [
            stencil.take(rows) if dim in column.dims else replace(stencil.take(rows), factors=None)
            for dim, stencil in located.stencils.items()
        ]
        values[column.name] = interpolated(only_where(cells[column.name], passed), stencils).gather(at)
    return values
