"""A lazy table that remembers its filters, and the plan of queries that only filter and choose columns."""

from collections.abc import Callable, Iterable, Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_, methodcaller
from typing import TYPE_CHECKING, Any, cast

import polars as pl
from polars.io.plugins import register_io_source

from rainbear_dask.exceptions import QueryError, RainbearError
from rainbear_dask.planning.limits import Limits, check_memory, may_exceed_memory
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.query.expression import plan_filter, rows_seen
from rainbear_dask.query.interpolation import interpolates, narrowed
from rainbear_dask.query.io_source import ZarrReader, scans_of
from rainbear_dask.query.pushdown import ends_in_filter, ends_in_scan, fallible_parts, optimized_steps, pushed_down
from rainbear_dask.table.model import Table

if TYPE_CHECKING:
    from distributed import Client

Step = Callable[[pl.LazyFrame], pl.LazyFrame]


def lazy_table(table: Table, client: "Client | None" = None, limits: Limits | None = None) -> pl.LazyFrame:
    """Return a table as a LazyFrame; nothing is read."""
    return _scan(Origin(ZarrReader(table, client, limits or Limits())))


def reader_of(lf: pl.LazyFrame) -> ZarrReader | None:
    """Return the source of a query over one Zarr scan; None for any other query."""
    if isinstance(lf, ScannedFrame) and lf.origin is not None:
        return lf.origin.reader
    found = [request.source for request in pushed_down(lf) if isinstance(request.source, ZarrReader)]
    return found[0] if len(found) == 1 else None


def plan_of_filters(lf: pl.LazyFrame) -> ReadPlan:
    """Return the plan of a query that does no more than filter one Zarr scan row by row and choose columns.

    Parameters
    ----------
    lf : LazyFrame
        The query, which may come from another process.

    Returns
    -------
    ReadPlan
        All filters of the query are part of the plan, including those that Polars would apply itself.

    Raises
    ------
    QueryError
        If the query does more.
    """
    names = lf.collect_schema().names()
    if isinstance(lf, ScannedFrame) and lf.origin is not None:
        table, filters = lf.origin.reader.table, lf.origin.filters
        return plan_filter(table, reduce(and_, filters) if filters else None, names)
    steps = optimized_steps(lf)
    scans = scans_of(lf) if ends_in_scan(steps) or ends_in_filter(steps) else []
    if len(scans) != 1 or (ends_in_filter(steps) and steps not in map(optimized_steps, _rebuilt(scans[0], names))):
        raise QueryError(
            f"This query does more than filter one Zarr scan row by row and choose columns: {steps[0]}. "
            "Make the scan a Dask DataFrame, and do the rest there."
        )
    (scan,) = scans
    return replace(scan, columns=scan.table.leaves(names))


def limits_of(lf: pl.LazyFrame) -> Limits:
    """Return the bounds that the scan of a query has, if it is the only scan of the query."""
    if isinstance(lf, ScannedFrame) and lf.origin is not None:
        return lf.origin.reader.limits
    found = [request.source.limits for request in pushed_down(lf)]
    return found[0] if len(found) == 1 else Limits()


def client_of(lf: pl.LazyFrame) -> "Client | None":
    """Return the client that the scan of a query names, if it is the only scan of the query."""
    reader = reader_of(lf)
    return None if reader is None else reader.client


def _rebuilt(scan: ReadPlan, names: Sequence[str]) -> Iterator[pl.LazyFrame]:
    """Yield queries that only filter by the conditions of a plan. A query does no more if it has the steps of one."""
    if conditions := [conjunct.expr for conjunct in scan.conjuncts]:
        table = lazy_table(scan.table)
        yield table.filter(reduce(and_, conditions)).select(names)
        yield reduce(pl.LazyFrame.filter, conditions, table).select(names)


@dataclass(frozen=True, slots=True, eq=False)
class Origin:
    """How a query began.

    Parameters
    ----------
    reader : ZarrReader
        Its source.
    filters : tuple of Expr
        Its elementwise filters.
    steps : tuple of callable
        All steps so far, from frame to frame: the filters, and choices of columns.
    """

    reader: ZarrReader
    filters: tuple[pl.Expr, ...] = ()
    steps: tuple[Step, ...] = ()


class ScannedFrame(pl.LazyFrame):
    """A lazy table whose source also learns the conditions that Polars keeps to itself because they may fail.

    Polars pushes a strict cast down if it is the only condition. Beside another condition, Polars applies the cast
    itself, above the source, which then could not prune by it. So as long as a query only filters row by row and
    chooses columns, each filter tells the source such conditions, and Polars applies them once more.
    """

    origin: Origin | None = None
    """How the query began; None after any other step."""

    def filter(self, *predicates: Any, **constraints: Any) -> pl.LazyFrame:
        """Filter as any LazyFrame does."""
        filtered = super().filter(*predicates, **constraints)
        conditions = _conditions(predicates, constraints)
        if self.origin is None or not conditions:
            return filtered
        reader = self.origin.reader
        kept = fallible_parts(reduce(and_, conditions), reader.table.schema)
        if kept is None:  # it needs all rows that are left here, so no condition of a later filter may prune any
            return filtered
        step: Step = methodcaller("filter", *conditions)
        origin = Origin(reader.knowing(kept), (*self.origin.filters, *conditions), (*self.origin.steps, step))
        return _scan(origin) if kept else _with_origin(filtered, origin)

    def collect(self, *args: Any, **kwargs: Any) -> Any:
        """Collect as any LazyFrame does, unless the result exceeds the memory of this machine.

        Raises
        ------
        PlanTooLargeError
            As `rainbear_dask.planning.limits.check_memory`.
        """
        self._check_memory()
        return super().collect(*args, **kwargs)

    def collect_async(self, *args: Any, **kwargs: Any) -> Any:
        """Collect as any LazyFrame does, unless the result exceeds the memory of this machine, as `collect`."""
        self._check_memory()
        return super().collect_async(*args, **kwargs)

    def _check_memory(self) -> None:
        if self.origin is None:  # Polars may aggregate, and then the result counts, not the rows
            return
        reader = self.origin.reader
        widths = sum(column.width for column in reader.table.columns.values())
        if may_exceed_memory(reader.table.num_rows, widths):  # else no plan is needed to know
            check_memory(plan_of_filters(self), reader.limits)

    def select(self, *exprs: Any, **named_exprs: Any) -> pl.LazyFrame:
        """Select as any LazyFrame does; interpolations of interpolars only take the rows that they need.

        The labels of their coordinates are read at once.
        """
        if self.origin is not None and (narrow := self._narrowed(exprs, named_exprs)) is not None:
            return narrow
        selected = super().select(*exprs, **named_exprs)
        names = _names(exprs)
        if self.origin is None or named_exprs or not all(name in self.origin.reader.table.schema for name in names):
            return selected
        step: Step = methodcaller("select", *names)
        return _with_origin(selected, replace(self.origin, steps=(*self.origin.steps, step)))

    def _narrowed(self, exprs: Iterable[Any], named_exprs: Mapping[str, Any]) -> pl.LazyFrame | None:
        """Return the selection if an interpolation needs a part of the rows; else None."""
        given = [one for each in exprs for one in (each if isinstance(each, list | tuple) else [each])]
        if self.origin is None or not any(
            isinstance(one, pl.Expr) and interpolates(one) for one in (*given, *named_exprs.values())
        ):
            return None
        table, filters = self.origin.reader.table, self.origin.filters
        wanted = [pl.col(one) if isinstance(one, str) else one for one in given]
        wanted += [one.alias(name) for name, one in named_exprs.items() if isinstance(one, pl.Expr)]
        if len(wanted) < len(given) + len(named_exprs) or not all(isinstance(one, pl.Expr) for one in wanted):
            return None
        with suppress(RainbearError):  # a store that does not answer; the query says so when it runs
            changed = [narrowed(one, table, filters) for one in wanted]
            seen = rows_seen(changed, table.schema)
            return pl.LazyFrame.select(self if seen is None else self.filter(seen), changed)
        return None


def scan(reader: ZarrReader) -> pl.LazyFrame:
    """Return the scan of a source, as Polars knows it."""
    table = reader.table
    return register_io_source(
        reader, schema=table.schema, is_pure=True, explain_name="SCAN ZARR", explain_detail=table.spec.label
    )


def _scan(origin: Origin) -> pl.LazyFrame:
    return _with_origin(reduce(lambda done, step: step(done), origin.steps, scan(origin.reader)), origin)


def _with_origin(frame: pl.LazyFrame, origin: Origin) -> pl.LazyFrame:
    frame.__class__ = ScannedFrame
    cast(ScannedFrame, frame).origin = origin
    return frame


def _conditions(predicates: Iterable[Any], constraints: Mapping[str, Any]) -> list[pl.Expr] | None:
    """Return the arguments of a filter as expressions; None if one is no expression, but a mask or a name."""
    found: list[pl.Expr] = [pl.col(name).eq(value) for name, value in constraints.items()]
    for each in predicates:
        several = each if isinstance(each, list | tuple) else [each]
        if not all(isinstance(one, pl.Expr) for one in several):
            return None
        found += several
    return found


def _names(exprs: Iterable[Any]) -> list[str | None]:
    """Return the names of selected columns, with None in place of anything else."""
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
