"""The IO source that Polars calls for sampled points: batch by batch, in the order of the points."""

from collections.abc import Callable, Iterator, Sequence
from dataclasses import replace
from functools import reduce
from math import prod
from operator import and_
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.io.plugins import register_io_source

from rainbear_dask.diagnostics.report import Report
from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.planning.limits import Limits, check_limits
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.predicate import conjuncts_of
from rainbear_dask.query.pushdown import recorder_of
from rainbear_dask.sampling.batch import Place, measured_tasks, plan_of_points, sample_batch
from rainbear_dask.sampling.locate import Coordinates, read_coordinates
from rainbear_dask.sampling.request import Request
from rainbear_dask.sampling.stencils import num_corners

if TYPE_CHECKING:
    from distributed import Client

_MAX_CELLS = 2**23
"""Cells that the points of one batch need, at most, unless a single point needs more."""


class SampleReader:
    """A source for ``polars.io.plugins.register_io_source``.

    It pickles without its client. In another process it uses the client that is active there.

    Parameters
    ----------
    request : Request
        What to sample.
    points : LazyFrame
        The points.
    client : distributed.Client, optional
        The client that the caller asked for.
    limits : Limits, optional
        Bounds on each batch.
    """

    def __init__(
        self, request: Request, points: pl.LazyFrame, client: "Client | None" = None, limits: Limits | None = None
    ) -> None:
        self.request, self.points, self.client, self.limits = request, points, client, limits or Limits()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return recorder_of(self) or (SampleReader, (self.request, self.points, None, self.limits))

    def __call__(
        self,
        with_columns: Sequence[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # only a hint: more batches would read more chunks twice
    ) -> Iterator[pl.DataFrame]:
        names = list(self.request.result_schema) if with_columns is None else list(with_columns)
        return self._frames(names, predicate, n_rows, Place.here(self.client))

    def _frames(
        self, names: list[str], predicate: pl.Expr | None, n_rows: int | None, place: Place
    ) -> Iterator[pl.DataFrame]:
        schema = self.request.result_schema
        yield pl.DataFrame(schema={name: schema[name] for name in names})
        found = read_coordinates(self.request)
        points, late = self._first_points(found, predicate, n_rows)
        needed = _with_columns_of(names, late)
        for some in _batches(points, self._batch_size(found)):
            self._check_limits(found, some, needed)
            frame = sample_batch(found, some, needed, place)
            if n_rows is not None:
                frame, n_rows = frame.head(n_rows), max(n_rows - frame.height, 0)
            yield (frame.filter(reduce(and_, late)) if late else frame).select(names)

    def _batch_size(self, found: Coordinates) -> int:
        """Return the number of points of one batch."""
        of_match = [num_corners(found.axes[m.coordinate.name][0], m.method) for m in self.request.matches if m.is_line]
        return max(_MAX_CELLS // max(found.rows_per_point * prod(of_match), 1), 1)

    def _check_limits(self, found: Coordinates, points: pl.DataFrame, names: Sequence[str]) -> None:
        """Refuse a batch that exceeds a limit, before any of its chunks is read."""
        count, most = points.height * found.rows_per_point, self.limits.rows
        if most is not None and count > most:
            raise PlanTooLargeError(f"max_rows exceeded: {count} rows needed, limit is {most}. Filter the points.")
        if self.limits != Limits(rows=most):
            check_limits(plan_of_points(found, points, names), replace(self.limits, rows=None))

    def _first_points(
        self, found: Coordinates, predicate: pl.Expr | None, n_rows: int | None
    ) -> tuple[pl.LazyFrame, list[pl.Expr]]:
        """Return the points that a request needs, and the conditions that remain for their values."""
        early, late = list[pl.Expr](), list[pl.Expr]()
        for condition in [] if predicate is None else conjuncts_of(predicate):
            of_points = n_rows is None and {*condition.meta.root_names()} <= {*self.request.schema}
            (early if of_points else late).append(condition)
        points = self.points.filter(reduce(and_, early)) if early else self.points
        if n_rows is not None:  # a limit counts rows before the filter
            points = points.head(-(-n_rows // max(found.rows_per_point, 1)))
        return points, late

    def plan(self, columns: Sequence[str] | None, predicate: pl.Expr | None, n_rows: int | None) -> ReadPlan:
        """Return the chunks that one request of Polars reads, as a plan whose selection are all cells of these chunks.

        Points are collected for it, and coordinates are read.
        """
        return self.report(columns, predicate, n_rows).plan

    def report(self, columns: Sequence[str] | None, predicate: pl.Expr | None, n_rows: int | None) -> Report:
        """Return the rows and the tasks of one request of Polars, batch by batch, with its `plan`."""
        found = read_coordinates(self.request)
        lazy, late = self._first_points(found, predicate, n_rows)
        points = lazy.collect()
        names = _with_columns_of(list(self.request.result_schema) if columns is None else columns, late)
        tasks = [
            size for some in points.iter_slices(self._batch_size(found)) for size in measured_tasks(found, some, names)
        ]
        rows = points.height * found.rows_per_point
        return Report(
            plan_of_points(found, points, names),
            "SAMPLE",
            rows if n_rows is None else min(rows, n_rows),
            len(tasks),
            max(tasks, default=0),
        )


def _with_columns_of(names: Sequence[str], conditions: Sequence[pl.Expr]) -> list[str]:
    return list(dict.fromkeys([*names, *(name for condition in conditions for name in condition.meta.root_names())]))


def lazy_points(
    request: Request, points: pl.LazyFrame, client: "Client | None" = None, limits: Limits | None = None
) -> pl.LazyFrame:
    """Return sampled points as a LazyFrame; nothing is read."""
    return register_io_source(
        SampleReader(request, points, client, limits),
        schema=request.result_schema,
        is_pure=True,
        explain_name="SAMPLE ZARR",
        explain_detail=request.table.spec.label,
    )


def _batches(points: pl.LazyFrame, size: int) -> Iterator[pl.DataFrame]:
    """Yield the points in batches of some rows; an engine of Polars makes no promise about its own batches."""
    waiting: list[pl.DataFrame] = []
    for batch in points.collect_batches(chunk_size=size, maintain_order=True):
        waiting.append(batch)
        count = sum(frame.height for frame in waiting)
        while count >= size:
            joined = pl.concat(waiting)
            yield joined.head(size)
            waiting, count = [joined.slice(size)], count - size
    rest = pl.concat(waiting) if waiting else None
    if rest is not None and rest.height:
        yield rest
