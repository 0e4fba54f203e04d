"""What Polars calls to read a table: plans, runs, and hands on the frames."""

import threading
from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, field, replace
from functools import partial, reduce
from itertools import chain
from operator import and_, methodcaller
from typing import TYPE_CHECKING, Any, cast

import polars as pl
from polars.exceptions import PanicException
from polars.io.plugins import register_io_source

from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.execution.clients import client_for
from rainbear_dask.execution.run import iter_frames
from rainbear_dask.planning.limits import Limits, check_limits
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.query.pushdown import EnoughError, also, fallible_parts
from rainbear_dask.table.model import Table

if TYPE_CHECKING:
    from distributed import Client
from rainbear_dask.planning.build import plan_scan


def lazy_table(table: Table, client: "Client | None" = None, limits: Limits | None = None) -> pl.LazyFrame:
    """A table as Polars sees it; nothing is read for it."""
    return _scanned(Origin(ZarrReader(table, client, limits or Limits())))


Step = Callable[[pl.LazyFrame], pl.LazyFrame]


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """How a query began.

    Parameters
    ----------
    reader : ZarrReader
        What it reads.
    filters : tuple of Expr
        Conditions that rows pass, each row by itself.
    steps : tuple of callable
        All that was done so far, from frame to frame: these filters, and choices of columns.
    """

    reader: "ZarrReader"
    filters: tuple[pl.Expr, ...] = ()
    steps: tuple[Step, ...] = ()


class ScannedFrame(pl.LazyFrame):
    """A lazy table whose reader also knows the conditions that Polars keeps to itself because they may fail.

    Polars hands a strict cast to a reader if it is the only condition. Beside another one, Polars applies the cast itself,
    above the reader, which then could not prune by it. So as long as a query only filters row by row and chooses columns,
    each filter tells the reader such conditions, and Polars applies them once more.
    """

    origin: Origin | None = None
    """How the query began; None if anything else was done since."""

    def filter(self, *predicates: Any, **constraints: Any) -> pl.LazyFrame:
        """Filter as any LazyFrame does."""
        filtered = super().filter(*predicates, **constraints)
        conditions = _conditions(predicates, constraints)
        if self.origin is None or not conditions:
            return filtered
        reader = self.origin.reader
        kept = fallible_parts(reduce(and_, conditions), reader.table.schema)
        if kept is None:  # it looks at all rows that are left here, so no condition of a later filter may drop any
            return filtered
        step: Step = methodcaller("filter", *conditions)
        origin = Origin(reader.knowing(kept), (*self.origin.filters, *conditions), (*self.origin.steps, step))
        return _scanned(origin) if kept else _begun(filtered, origin)

    def select(self, *exprs: Any, **named_exprs: Any) -> pl.LazyFrame:
        """Select as any LazyFrame does."""
        selected = super().select(*exprs, **named_exprs)
        names = _names(exprs)
        if self.origin is None or named_exprs or not all(name in self.origin.reader.table.schema for name in names):
            return selected
        step: Step = methodcaller("select", *names)
        return _begun(selected, replace(self.origin, steps=(*self.origin.steps, step)))


def _scanned(origin: Origin) -> pl.LazyFrame:
    table = origin.reader.table
    frame = register_io_source(
        origin.reader, schema=table.schema, is_pure=True, explain_name="SCAN ZARR", explain_detail=table.spec.label
    )
    return _begun(reduce(lambda done, step: step(done), origin.steps, frame), origin)


def _begun(frame: pl.LazyFrame, origin: Origin) -> pl.LazyFrame:
    frame.__class__ = ScannedFrame
    cast(ScannedFrame, frame).origin = origin
    return frame


def _conditions(predicates: Iterable[Any], constraints: Mapping[str, Any]) -> list[pl.Expr] | None:
    """The arguments of a filter as expressions; None if one is anything else, as a mask or a name is."""
    found: list[pl.Expr] = [pl.col(name).eq(value) for name, value in constraints.items()]
    for each in predicates:
        several = each if isinstance(each, list | tuple) else [each]
        if not all(isinstance(one, pl.Expr) for one in several):
            return None
        found += several
    return found


def _names(exprs: Iterable[Any]) -> list[str | None]:
    """Names of the columns that are chosen; None in place of what is no name."""
    several = [one for each in exprs for one in (each if isinstance(each, list | tuple) else [each])]
    return [
        one
        if isinstance(one, str)
        else one.meta.output_name()
        if isinstance(one, pl.Expr) and _is_column(one)
        else None
        for one in several
    ]


def _is_column(expr: pl.Expr) -> bool:
    return expr.meta.is_column() and expr.meta.eq(pl.col(expr.meta.output_name()))


class ZarrReader:
    """A source in the sense of ``polars.io.plugins.register_io_source``.

    It pickles without its client; in another process it uses the one that is active there.
    """

    def __init__(
        self,
        table: Table,
        client: "Client | None" = None,
        limits: Limits | None = None,
        known: tuple[pl.Expr, ...] = (),
        recording: "_Recording | None" = None,
    ) -> None:
        self.table = table
        self.client = client
        self.limits = limits or Limits()
        self.known = known
        """Conditions that Polars filters by above this reader, whatever it hands over."""
        self.recording = recording
        """Where to put the plan instead of running it."""

    def __reduce__(self) -> tuple[Callable[..., "ZarrReader"], tuple[Any, ...]]:
        if _this_thread.recording is not None:
            return _twin, (_this_thread.recording.register(self),)
        return ZarrReader, (self.table, None, self.limits, self.known)

    def knowing(self, conditions: Sequence[pl.Expr]) -> "ZarrReader":
        """The same reader below a filter by some more conditions."""
        return ZarrReader(self.table, self.client, self.limits, (*self.known, *conditions))

    def __call__(
        self,
        with_columns: Sequence[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # a hint; so many small frames would cost more than they save
    ) -> Iterator[pl.DataFrame]:
        if self.recording is not None:
            return self.recording.add(partial(self._plan, with_columns, predicate, n_rows))
        todo = self._plan(with_columns, predicate, n_rows)
        names = list(self.table.schema) if with_columns is None else list(with_columns)
        empty = pl.DataFrame(schema={name: self.table.schema[name] for name in names})
        check_limits(todo, self.limits)
        # here, not when the first frame is asked for: Polars does that on a thread without the caller's annotations
        frames = shown(iter_frames(todo.tasks(), client_for(todo, self.client), limit=todo.limit), todo)
        return chain([empty], chain.from_iterable(map(_pieces, frames)))

    def _plan(self, columns: Sequence[str] | None, predicate: pl.Expr | None, n_rows: int | None) -> ReadPlan:
        if self.known and n_rows is None:  # rows are limited before Polars filters
            predicate = reduce(and_, self.known) if predicate is None else also(predicate, self.known)
        # given both, Polars wants the filter to see the first n_rows rows of the table
        first, limit = (None, n_rows) if predicate is None else (n_rows, None)
        return plan_scan(self.table, columns=columns, predicate=predicate, n_rows=limit, head=first)


_LARGE_BYTES = 2**27
"""A frame that is larger..."""

_PIECE_BYTES = 2**25
"""...is handed on in pieces of at most so many bytes: Polars' writers hold several of what they are given, nine at times."""


def _pieces(frame: pl.DataFrame) -> Iterable[pl.DataFrame]:
    """The same rows in the same order, in the same memory."""
    size = frame.estimated_size()
    return [frame] if size <= _LARGE_BYTES else frame.iter_slices(int(frame.height * _PIECE_BYTES // size) or 1)


def plans_of(lf: pl.LazyFrame) -> list[ReadPlan]:
    """Plan of each Zarr scan in a query, in the order in which Polars starts them; nothing is run."""
    recording = _this_thread.recording = _Recording()
    try:
        # a copy of the query, in which each reader has a twin that records
        copy = pl.LazyFrame.deserialize(lf.serialize())
    finally:
        _this_thread.recording = None
    if recording.readers:
        try:
            # this engine calls all readers before it takes a frame of any; there is none, so no expression is evaluated
            copy.collect(engine="streaming")
        except EnoughError:
            pass
        except (Exception, PanicException):
            if recording.has_failed or not recording.plans:
                raise  # else it is of some other source of the query, which is not what is asked about
    return recording.plans


@dataclass(slots=True)
class _Recording:
    readers: list[ZarrReader] = field(default_factory=list)
    plans: list[ReadPlan] = field(default_factory=list)
    has_failed: bool = False

    def register(self, reader: ZarrReader) -> int:
        self.readers.append(reader)
        return len(self.readers) - 1

    def add(self, plan: Callable[[], ReadPlan]) -> Iterator[pl.DataFrame]:
        """Plan, and give what ends the query when its first frame is wanted."""
        try:
            self.plans.append(plan())
        except Exception:
            self.has_failed = True
            raise
        return map(_end, [None])


def _end(_: None) -> pl.DataFrame:
    raise EnoughError


class _ThisThread(threading.local):
    recording: _Recording | None = None


_this_thread = _ThisThread()


def _twin(number: int) -> ZarrReader:
    """The copy of a reader in a query that is copied to record its plans: no store is pickled for it."""
    recording = cast(_Recording, _this_thread.recording)
    reader = recording.readers[number]
    return ZarrReader(reader.table, known=reader.known, recording=recording)
