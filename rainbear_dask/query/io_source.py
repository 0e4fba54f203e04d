"""The IO source that Polars calls to read a table: it plans, runs the tasks, and yields frames."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from functools import reduce
from itertools import chain
from operator import and_
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.execution.clients import client_for
from rainbear_dask.execution.run import iter_frames
from rainbear_dask.planning.build import plan_scan
from rainbear_dask.planning.limits import Limits, check_limits
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.query.pushdown import Request, also, pushed_down, recorder_of
from rainbear_dask.table.model import Table

if TYPE_CHECKING:
    from distributed import Client

_MAX_FRAME_BYTES = 2**27
"""Frames up to this size are yielded whole."""

_SLICE_BYTES = 2**25
"""Size of the slices of larger frames. Polars' writers hold several frames at a time, up to nine."""


class ZarrReader:
    """A source for ``polars.io.plugins.register_io_source``.

    It pickles without its client. In another process it uses the client that is active there.

    Parameters
    ----------
    table : Table
        The table to read.
    client : distributed.Client, optional
        The client that the caller asked for.
    limits : Limits, optional
        Bounds on plans.
    known : tuple of Expr
        Conditions by which Polars filters the rows of this source in any case.
    """

    def __init__(
        self,
        table: Table,
        client: "Client | None" = None,
        limits: Limits | None = None,
        known: tuple[pl.Expr, ...] = (),
    ) -> None:
        self.table = table
        self.client = client
        self.limits = limits or Limits()
        self.known = known

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return recorder_of(self) or (ZarrReader, (self.table, None, self.limits, self.known))

    def knowing(self, conditions: Sequence[pl.Expr]) -> "ZarrReader":
        """Return the same reader for a query that filters by further conditions."""
        return ZarrReader(self.table, self.client, self.limits, (*self.known, *conditions))

    def __call__(
        self,
        with_columns: Sequence[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # only a hint: so many small frames would cost more than they save
    ) -> Iterator[pl.DataFrame]:
        todo = self.plan(with_columns, predicate, n_rows)
        names = list(self.table.schema) if with_columns is None else list(with_columns)
        check_limits(todo, self.limits)
        # Not with the first frame: Polars takes that on a thread without the caller's Dask annotations.
        frames = shown(iter_frames(todo.tasks(), client_for(todo, self.client), limit=todo.limit), todo)
        return _at_least_one(
            chain.from_iterable(map(_slices, frames)), {name: self.table.schema[name] for name in names}
        )

    def plan(self, columns: Sequence[str] | None, predicate: pl.Expr | None, n_rows: int | None) -> ReadPlan:
        """Plan for one request of Polars."""
        if self.known and n_rows is None:  # a limit counts rows before Polars filters
            predicate = reduce(and_, self.known) if predicate is None else also(predicate, self.known)
        # if Polars pushes down both, the filter sees the first n_rows rows of the table
        first, limit = (None, n_rows) if predicate is None else (n_rows, None)
        return plan_scan(self.table, columns=columns, predicate=predicate, n_rows=limit, head=first)


def _at_least_one(frames: Iterable[pl.DataFrame], schema: Mapping[str, pl.DataType]) -> Iterator[pl.DataFrame]:
    """Yield frames; if there is none, yield one without rows, because Polars needs its schema."""
    found = False
    for frame in frames:
        found = True
        yield frame
    if not found:
        yield pl.DataFrame(schema=schema)


def _slices(frame: pl.DataFrame) -> Iterable[pl.DataFrame]:
    """Yield the same rows in the same order, without copying them."""
    size = frame.estimated_size()
    return [frame] if size <= _MAX_FRAME_BYTES else frame.iter_slices(int(frame.height * _SLICE_BYTES // size) or 1)


def plans_of(lf: pl.LazyFrame) -> list[ReadPlan]:
    """Return the plan of each Zarr source of a query, in the order in which Polars starts them; no task runs."""
    return [_plan(request) for request in pushed_down(lf)]


def plans_with_clients(lf: pl.LazyFrame) -> "list[tuple[ReadPlan, Client | None]]":
    """Return the plan of each Zarr source of a query with the client that its caller named, as `plans_of` does."""
    return [(_plan(request), request.source.client) for request in pushed_down(lf)]


def scans_of(lf: pl.LazyFrame) -> list[ReadPlan]:
    """Return the plans of scans alone. The rows of sampled points are not the rows of a plan."""
    return [_plan(request) for request in pushed_down(lf) if isinstance(request.source, ZarrReader)]


def _plan(request: Request) -> ReadPlan:
    plan: ReadPlan = request.source.plan(request.columns, request.predicate, request.n_rows)
    return plan
