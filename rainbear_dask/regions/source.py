"""The source that Polars calls to read zonal statistics: it cuts tasks, runs them, joins their sums, and yields rows."""

from collections import deque
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from functools import cached_property, reduce
from math import gcd, prod
from operator import and_
from typing import TYPE_CHECKING, Any

import numpy as np
import polars as pl

from rainbear_dask.diagnostics.progress import counted
from rainbear_dask.diagnostics.report import Report
from rainbear_dask.execution.clients import client_for
from rainbear_dask.execution.executors import Work
from rainbear_dask.execution.run import run_tasks
from rainbear_dask.geo.outlines import Outline
from rainbear_dask.indexing.selection import Box, Selection
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.predicate import Conjunct, compile_predicate
from rainbear_dask.query.pushdown import recorder_of
from rainbear_dask.regions.axes import CellAxis
from rainbear_dask.regions.coverage import Coverage, Weights, cover
from rainbear_dask.regions.layout import Group, Spans, band_length, groups_of
from rainbear_dask.regions.statistics import Floats, Needs, Sums
from rainbear_dask.regions.task import Integers, ZonalSums, ZonalTask, run_zonal_task
from rainbear_dask.regions.zones import Zones
from rainbear_dask.resources.settings import num_bytes
from rainbear_dask.table.columns import whole_column
from rainbear_dask.table.model import Column, Table

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class ZonalSource:
    """A source for ``polars.io.plugins.register_io_source``; it pickles without its client.

    Parameters
    ----------
    table : Table
        The table of the store.
    columns : tuple of Column
        Variables; each has both spatial dimensions.
    x, y : CellAxis
        The spatial axes.
    lonlat : bool
        Whether they are longitude and latitude.
    zones : Zones
        The zones.
    stats : tuple of str
        Names of the statistics.
    weights : {"fraction", "area", "center"}
        Weights of cells.
    client : distributed.Client, optional
        The client that the caller asked for.
    """

    table: Table
    columns: tuple[Column, ...]
    x: CellAxis
    y: CellAxis
    lonlat: bool
    zones: Zones
    stats: tuple[str, ...]
    weights: Weights
    client: "Client | None" = None

    @property
    def others(self) -> dict[str, int]:
        """Length of each dimension of the rows but the zones, in table order."""
        used = {dim for column in self.columns for dim in column.dims} - {self.x.dim, self.y.dim}
        return {dim: size for dim, size in self.table.sizes.items() if dim in used}

    @property
    def outputs(self) -> dict[str, tuple[Column, str]]:
        """Variable and statistic of each column of results."""
        return {f"{column.name}_{stat}": (column, stat) for column in self.columns for stat in self.stats}

    @property
    def schema(self) -> dict[str, pl.DataType]:
        """Name and type of each column of the result."""
        dims = {dim: self.table.columns[dim].dtype for dim in self.others}
        return {**dims, self.zones.ids.name: self.zones.ids.dtype, **dict.fromkeys(self.outputs, pl.Float64())}

    @cached_property
    def coverage(self) -> Coverage:
        """The cells of all zones."""
        return cover(self.zones.polygons, self.x, self.y, self.weights, lonlat=self.lonlat)

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        fields = (self.table, self.columns, self.x, self.y, self.lonlat, self.zones, self.stats, self.weights)
        return recorder_of(self) or (ZonalSource, fields)

    def __call__(
        self, with_columns: Sequence[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        names = list(self.schema) if with_columns is None else list(with_columns)
        query = self._query(names, predicate, n_rows)
        client = client_for(self.plan(list(query.names), predicate, n_rows), self.client)
        return _finished(query.frames(client), names, predicate)

    def _query(self, names: Sequence[str], predicate: pl.Expr | None, n_rows: int | None) -> "_Query":
        named = predicate.meta.root_names() if predicate is not None else []
        return _Query(self, tuple(dict.fromkeys([*names, *named])), self._boxes(predicate, n_rows), n_rows)

    @cached_property
    def _chunks(self) -> Selection:
        """The chunks along the spatial axes that hold a cell of a zone; cells would take many more boxes."""
        grids = [column.array.grid for column in self.columns if column.array is not None]
        tall, wide = (gcd(*(grid.lengths[axis.dim] for grid in grids)) for axis in (self.y, self.x))
        rows, columns = len(self.y.centers), len(self.x.centers)
        held = np.zeros((-(-rows // tall), -(-columns // wide)), dtype=np.bool_)
        held[self.coverage.row // tall, self.coverage.column // wide] = True
        mask = held.repeat(tall, axis=0).repeat(wide, axis=1)[:rows, :columns]
        return Selection.where((self.y.dim, self.x.dim), mask)

    def _boxes(self, predicate: pl.Expr | None, n_rows: int | None) -> tuple[Box, ...]:
        """Return boxes of the other dimensions that hold all rows of the result."""
        conjuncts = self._conjuncts(predicate, n_rows)
        return reduce(and_, (conjunct.selection for conjunct in conjuncts), Selection.everything()).boxes

    def _conjuncts(self, predicate: pl.Expr | None, n_rows: int | None) -> list[Conjunct]:
        """Return the conjuncts of a filter, each with the rows of the result that may pass it."""
        if predicate is None or n_rows is not None:  # a limit counts the rows before the filter
            return []
        dims = {dim: (dim,) for dim in self.others}
        return compile_predicate(predicate, dims, self.others, self._labels)

    def _labels(self, dim: str) -> pl.Series:
        return whole_column(self.table.spec, self.table.columns[dim], self.table.sizes[dim])

    def plan(self, columns: Sequence[str] | None, predicate: pl.Expr | None, n_rows: int | None) -> ReadPlan:
        """Return a plan that reads the same chunks, for reports and for the choice of a client."""
        outputs = self.outputs
        wanted = [outputs[name][0] for name in (columns or outputs) if name in outputs]
        name = pl.lit(f"cells of zones ({len(self.zones.ids):,})")
        zones = Conjunct(name, replace(self._chunks, exact=True), "")
        found, others = tuple(dict.fromkeys(wanted)), self.others
        rows = [  # other conjuncts are about statistics, and keep all chunks
            replace(conjunct, selection=replace(conjunct.selection, exact=True), obstacle="")
            for conjunct in self._conjuncts(predicate, n_rows)
            if others.keys() >= {*conjunct.expr.meta.root_names()}
        ]
        return ReadPlan(self.table, found, (zones, *rows))

    def report(self, columns: Sequence[str] | None, predicate: pl.Expr | None, n_rows: int | None) -> Report:
        """Return the rows, the tasks and the zones of one request of Polars, with its `plan`."""
        query = self._query(columns or list(self.schema), predicate, n_rows)
        others = self.others
        held = sum(prod(len(box[dim]) if dim in box else size for dim, size in others.items()) for box in query.boxes)
        rows = min(held, prod(others.values())) * len(self.zones.ids)
        return Report(
            self.plan(list(query.names), predicate, n_rows),
            "ZONAL",
            rows if n_rows is None else min(rows, n_rows),
            query.num_tasks,
            max((group.task_bytes for group in query.groups), default=0),
            (Outline(self.x.dim, self.y.dim, self.zones.polygons, self.lonlat),),
        )


_Band = dict[str, tuple[int, int]]
"""Range of positions along each of the other dimensions: a part of the first one, all of the others."""

_Sent = deque[tuple[int, Group, Spans]]
"""Of each task in flight: number of its band, its group, and its ranges of positions."""


@dataclass(frozen=True)
class _Query:
    """One request of Polars.

    Parameters
    ----------
    source : ZonalSource
        The source.
    names : tuple of str
        Columns to make.
    boxes : tuple of Box
        Where the rows of the result lie.
    n_rows : int or None
        Rows of the result, at most.
    """

    source: ZonalSource
    names: tuple[str, ...]
    boxes: tuple[Box, ...]
    n_rows: int | None

    @cached_property
    def needs(self) -> Needs:
        return Needs.of([stat for stat in self.source.stats if any(stat == found for _, found in self.wanted.values())])

    @cached_property
    def wanted(self) -> dict[str, tuple[Column, str]]:
        outputs = self.source.outputs
        return {name: outputs[name] for name in self.names if name in outputs}

    @cached_property
    def groups(self) -> list[Group]:
        source = self.source
        columns = list(dict.fromkeys(column for column, _ in self.wanted.values()))
        if not columns:
            return []
        return groups_of(
            source.table,
            columns,
            source.coverage,
            y=source.y.dim,
            x=source.x.dim,
            needs=self.needs,
            task_bytes=num_bytes("task-bytes"),
        )

    @cached_property
    def weight_of_zones(self) -> Floats:
        """Weight of all cells of each zone; NaN for a zone without a cell."""
        found = self.source.coverage
        total = np.bincount(found.zone, found.weight, len(self.source.zones.ids))
        return np.where(total > 0, total, np.nan)

    def frames(self, client: "Client | None") -> Iterator[pl.DataFrame]:
        """Yield the rows, band by band along the first of the other dimensions."""
        sent, bands = _Sent(), self._bands()
        left, kept = self.n_rows, dict[str, Sums]()
        work: Work[ZonalSums] = Work(run_zonal_task)
        title = f"zonal {self.source.table.spec.label}"
        results = counted(
            run_tasks(self._tasks(bands, sent), client, work),
            title,
            lambda: self.num_tasks if self.n_rows is None else None,
        )
        with closing(results):  # type: ignore[type-var]  # a generator
            found = next(results, None)
            for number, band in enumerate(bands):
                if left is not None and left <= 0:
                    return
                sums = kept | self._blank(band, kept)
                while found is not None and sent[0][0] == number:
                    _, group, spans = sent.popleft()
                    for column, each in zip(group.scan.columns, found.sums, strict=True):
                        self._add(sums[column.name], spans, band, found.zones, each)
                    found = next(results, None)
                frame = self._frame(band, sums)
                kept = {name: each for name, each in sums.items() if self._is_constant(name)}
                if left is not None:
                    frame, left = frame.head(left), left - frame.height
                yield frame

    def _tasks(self, bands: "Sequence[_Band]", sent: "_Sent") -> Iterator[ZonalTask]:
        """Yield the tasks in the order of the rows, and note for each where its sums belong."""
        for number, group, within in self._steps(bands):
            for spans, task in group.tasks(within, self.boxes):
                sent.append((number, group, spans))
                yield task

    @property
    def num_tasks(self) -> int:
        """Number of tasks of all bands."""
        return sum(group.num_tasks(within, self.boxes) for _, group, within in self._steps(self._bands()))

    def _steps(self, bands: "Sequence[_Band]") -> Iterator[tuple[int, Group, _Band]]:
        """Yield the number of each band, and each group that has tasks in it, with their ranges of positions."""
        for number, band in enumerate(bands):
            for group in self.groups:
                if not number or not self._is_constant(group.scan.columns[0].name):  # else kept from the first band
                    yield number, group, {dim: band[dim] for dim in group.others}

    def _bands(self) -> "list[_Band]":
        others = self.source.others
        whole = {dim: (0, size) for dim, size in others.items()}
        if not others:
            return [whole]
        first, size = next(iter(others.items()))
        length = band_length(self.groups, first, size)
        return [whole | {first: (start, min(start + length, size))} for start in range(0, size, length)]

    def _is_constant(self, name: str) -> bool:
        """Whether a variable does not vary along the bands."""
        first = next(iter(self.source.others), None)
        return first not in self.source.table.columns[name].dims

    def _blank(self, band: Spans, kept: Mapping[str, Sums]) -> dict[str, Sums]:
        found = {}
        for group in self.groups:
            shape = (*(band[dim][1] - band[dim][0] for dim in group.others), len(self.source.zones.ids))
            for column in group.scan.columns:
                if column.name not in kept:
                    found[column.name] = Sums.empty(shape, self.needs)
        return found

    def _add(self, sums: Sums, spans: Spans, band: Spans, zones: Integers, found: Sums) -> None:
        place = [slice(start - band[dim][0], stop - band[dim][0]) for dim, (start, stop) in spans.items()]
        sums.add((*place, zones), found.reshaped((*(at.stop - at.start for at in place), len(zones))))

    def _frame(self, band: Spans, sums: Mapping[str, Sums]) -> pl.DataFrame:
        source, others = self.source, list(self.source.others)
        shape = (*(stop - start for start, stop in band.values()), len(source.zones.ids))
        whole = self.weight_of_zones if self.wanted else None
        columns = []
        for name in self.names:
            if name in self.wanted:
                column, stat = self.wanted[name]
                values = sums[column.name].statistic(stat, self.needs, whole)  # type: ignore[arg-type]
                values = np.where(np.isnan(whole), np.nan, values)  # type: ignore[arg-type]
                lacking = tuple(axis for axis, dim in enumerate(others) if dim not in column.dims)
                spread = np.broadcast_to(np.expand_dims(values, lacking), shape)
                columns.append(pl.Series(name, spread.reshape(-1), nan_to_null=True))
            else:
                labels = source.zones.ids if name == source.zones.ids.name else source._labels(name)[slice(*band[name])]  # noqa: SLF001
                axis = others.index(name) if name in others else len(others)
                rows = np.arange(shape[axis]).reshape([-1 if a == axis else 1 for a in range(len(shape))])
                columns.append(labels.gather(np.broadcast_to(rows, shape).reshape(-1)).alias(name))
        return pl.DataFrame(columns)


def _finished(frames: Iterator[pl.DataFrame], names: list[str], predicate: pl.Expr | None) -> Iterator[pl.DataFrame]:
    for frame in frames:
        found = frame if predicate is None else frame.filter(predicate)
        yield found.select(names)
