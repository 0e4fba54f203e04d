"""Ask Polars what it pushes down into a source: columns, filter and limit, and which conditions it keeps to itself.

This module holds every question to Polars' optimizer. `request_of` asks about one expression on a blank table, and
`pushed_down` about all scans of a query. Both run the query on sources that record requests and then end it, so nothing
is read. `optimized_steps` reads the text of ``LazyFrame.explain``, the only other source of answers.

``tests/query/test_pushdown.py`` fails if a release of Polars changes the behaviour that this module relies on.
"""

import io
import threading
from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager, suppress
from functools import reduce
from operator import and_, eq, ge, gt, le, lt, ne
from typing import Any, NamedTuple

import polars as pl
from polars.exceptions import PanicException, PolarsError
from polars.io.plugins import register_io_source

from rainbear_dask.planning.predicate import conjuncts_of

Schema = Mapping[str, pl.DataType]


class Request(NamedTuple):
    """What Polars requests of one source.

    Parameters
    ----------
    columns : list of str or None
        Columns; None means all.
    predicate : Expr or None
        Filter that the source applies.
    n_rows : int or None
        Limit. If there is a filter too, the limit counts the rows before it.
    source : callable
        The source, as it was registered.
    """

    columns: list[str] | None
    predicate: pl.Expr | None
    n_rows: int | None
    source: Any = None


class _EnoughError(Exception):
    """Ends a query once its requests are recorded."""


class _Recorder:
    """A source that records requests, and ends the query as soon as its first frame is wanted."""

    def __init__(self, requests: list[Request], source: Any = None) -> None:
        self._requests, self._source = requests, source

    def __call__(
        self, columns: list[str] | None, predicate: pl.Expr | None, n_rows: int | None, _batch_size: int | None
    ) -> Iterator[pl.DataFrame]:
        self._requests.append(Request(columns, predicate, n_rows, self._source))
        return map(_end, [None])


def _end(_: None) -> pl.DataFrame:
    raise _EnoughError


# ---------------------------------------------------------------------- all scans of a query


def pushed_down(query: pl.LazyFrame) -> list[Request]:
    """Return what Polars requests of each scan of a query; nothing is read, and no expression is evaluated.

    Only sources that call `recorder_of` in their ``__reduce__`` count as scans.

    Parameters
    ----------
    query : LazyFrame
        The query.

    Returns
    -------
    list of Request
        In the order in which Polars starts the scans. Scans that Polars skips are absent.
    """
    with _recorded() as recording:
        # a copy of the query, in which a recorder stands for each scan
        copy = pl.LazyFrame.deserialize(query.serialize())
    if recording.sources:
        try:
            # The streaming engine calls all sources before it takes a frame of any, so no expression is evaluated.
            copy.collect(engine="streaming")
        except _EnoughError:
            pass
        except (Exception, PanicException):
            if not recording.requests:
                raise  # else another source of the query failed, which is not in question here
    return recording.requests


def recorder_of(source: Any) -> tuple[Callable[[int], Any], tuple[int]] | None:
    """Return what ``source.__reduce__`` must return while this module copies a query; None at any other time.

    No store is pickled then.
    """
    recording = _this_thread.recording
    if recording is None:
        return None
    recording.sources.append(source)
    return _recorder, (len(recording.sources) - 1,)


class _Recording:
    def __init__(self, sources: Sequence[Any] = (), *, restores: bool = False) -> None:
        self.sources = list(sources)
        self.restores = restores
        self.restored: list[Any] = []
        self.requests: list[Request] = []


class _ThisThread(threading.local):
    recording: _Recording | None = None


_this_thread = _ThisThread()


def _recorder(number: int) -> Any:
    recording = _this_thread.recording
    if recording is None:
        raise RuntimeError("A recorder belongs to the thread that copies its query. Call pushed_down() again.")
    source = recording.sources[number]
    if recording.restores:
        recording.restored.append(source)
        return source
    return _Recorder(recording.requests, source)


@contextmanager
def _recorded(recording: _Recording | None = None) -> Iterator[_Recording]:
    _this_thread.recording = recording = recording or _Recording()
    try:
        yield recording
    finally:
        _this_thread.recording = None


def serialize_without_sources(query: pl.LazyFrame, sources: Sequence[Any] = ()) -> tuple[bytes, list[Any]]:
    """Return Polars' binary form of a query, in which a number stands for each scan.

    Parameters
    ----------
    query : LazyFrame
        The query.
    sources : sequence
        Sources that have numbers already.

    Returns
    -------
    bytes
        The query.
    list
        Each source at the place of its number.
    """
    with _recorded(_Recording(sources)) as recording:
        return query.serialize(), recording.sources


def deserialize_with_sources(data: bytes, sources: Sequence[Any]) -> tuple[pl.LazyFrame, list[Any]]:
    """Return a query from its binary form, and the sources that it scans.

    Parameters
    ----------
    data : bytes
        As `serialize_without_sources` returns it, or edited.
    sources : sequence
        Each source at the place of its number. The query scans these very objects, not copies.
    """
    with _recorded(_Recording(sources, restores=True)) as recording:
        return pl.LazyFrame.deserialize(io.BytesIO(data)), recording.restored


_PROJECTION, _SCAN, _FILTER = "simple π", "PYTHON[", "FILTER"  # how Polars' explain() begins the lines of these steps


def optimized_steps(query: pl.LazyFrame) -> list[str]:
    """Return the steps of Polars' optimized plan, from the last to the first, without a projection that comes last."""
    steps = [step.strip() for step in query.explain().splitlines()]
    return steps[1:] if steps[0].startswith(_PROJECTION) else steps


def ends_in_scan(steps: Sequence[str]) -> bool:
    """Whether the last step of `optimized_steps` is the scan of a Python source."""
    return steps[0].startswith(_SCAN)


def ends_in_filter(steps: Sequence[str]) -> bool:
    """Whether the last step of `optimized_steps` is a filter that Polars applies itself."""
    return steps[0].startswith(_FILTER)


def filters_above_scans(query: pl.LazyFrame) -> list[str]:
    """Return the filters that Polars applies itself directly above the scan of a Python source, as text."""
    steps = [step for step in optimized_steps(query) if step]
    found = []
    for number, step in enumerate(steps):
        if step.startswith(f"{_FILTER} "):
            below = [later for later in steps[number + 1 :] if later != "FROM" and not later.startswith(_PROJECTION)]
            if below and below[0].startswith(_SCAN):
                found.append(step.removeprefix(f"{_FILTER} "))
    return found


# ---------------------------------------------------------------------- one expression


def request_of(query: Callable[[pl.LazyFrame], pl.LazyFrame], schema: Schema) -> Request | None:
    """Return what a query requests of a table of some schema; None if Polars skips the table. Nothing is read."""
    requests: list[Request] = []
    with suppress(_EnoughError):
        # The engine is named because the caller may have set another one for all queries.
        query(register_io_source(_Recorder(requests), schema=schema)).collect(engine="in-memory")
    return requests[0] if requests else None


def columns_of(expr: pl.Expr, schema: Schema) -> list[str]:
    """Return the columns that an expression needs; if it only counts rows, one of the columns."""
    request = request_of(lambda table: table.select(expr), schema)
    if request is None:
        return []
    return list(schema) if request.columns is None else request.columns


def pushed_part(predicate: pl.Expr, schema: Schema) -> pl.Expr | None:
    """Return the part of a filter that Polars pushes down; None if it keeps the whole filter as a residual filter."""
    with suppress(PolarsError):  # the predicate is several expressions in one, say
        request = request_of(lambda table: table.filter(predicate), schema)
        return pl.lit(value=False) if request is None else request.predicate  # a skipped table has no row
    return None


def elementwise(predicate: pl.Expr, schema: Schema) -> pl.Expr | None:
    """Return the whole of an elementwise filter as Polars prepares it; None if the filter needs other rows.

    Polars keeps conditions that may fail to itself, but only beside other conditions. So this function asks about a
    single expression, whose only operand is the filter. In the result, names are expanded and types are settled.
    """
    with suppress(PolarsError):  # the predicate is several expressions in one, say
        match request_of(lambda table: table.filter(predicate.is_null()), schema):
            case Request(predicate=pl.Expr() as asked):
                (whole,) = asked.meta.pop()
                return whole
    return None


def prepared(predicate: pl.Expr, schema: Schema) -> pl.Expr | None:
    """Return the whole of an elementwise filter; None if it needs other rows.

    If Polars knows that the filter is never true, the result is a literal False.
    """
    whole = elementwise(predicate, schema)
    part = pushed_part(predicate, schema)
    if part is not None and any(_is_false(each) for each in conjuncts_of(part)):
        return pl.lit(value=False)
    return whole


def _is_false(expr: pl.Expr) -> bool:
    return expr.meta.eq(pl.lit(value=False))


def also(predicate: pl.Expr, conditions: Sequence[pl.Expr]) -> pl.Expr:
    """Return the conjunction of a filter and further conditions, without repeating a conjunct."""
    given = conjuncts_of(predicate)
    return reduce(and_, (part for part in conditions if not any(part.meta.eq(each) for each in given)), predicate)


def fallible_parts(predicate: pl.Expr, schema: Schema) -> list[pl.Expr] | None:
    """Return the conjuncts of a filter that Polars keeps to itself because they may fail; None if it needs other rows.

    Some may be missing: once Polars has prepared a cast, it no longer knows that the cast may fail.
    """
    if schema and all(compares_a_column(each, schema) for each in conjuncts_of(predicate)):
        return []  # true of most filters, and saves asking Polars twice
    whole = elementwise(predicate, schema)
    if whole is None or not schema:
        return None
    parts, given = conjuncts_of(whole), _beside_another(predicate, schema)
    num_kept = len(parts) + 1 - len(given)
    if num_kept <= 0:
        return []
    left = [part for part in parts if not any(part.meta.eq(each) for each in given)]
    # Polars never finds two Python functions equal, so some of these may have been pushed down all the same.
    return left if len(left) == num_kept else [part for part in left if len(_beside_another(part, schema)) < 2]


def compares_a_column(expr: pl.Expr, schema: Schema) -> bool:
    """Whether an expression compares a column with literals, and Polars always pushes it down.

    For ``is_between`` on some types Polars casts strictly, so only ``is_between`` on floats counts.
    """
    match expr.meta.pop()[::-1]:  # Polars pops the last operand first
        case [column, *literals] if column.meta.is_column() and all(each.meta.is_literal() for each in literals):
            match literals:
                case [value]:
                    return any(compare(column, value).meta.eq(expr) for compare in _COMPARISONS)
                case [low, high]:
                    dtype = schema.get(column.meta.output_name())
                    return dtype is not None and dtype.is_float() and column.is_between(low, high).meta.eq(expr)
    return False


_COMPARISONS: tuple[Callable[[pl.Expr, pl.Expr], pl.Expr], ...] = (ge, le, gt, lt, eq, ne)


def _beside_another(predicate: pl.Expr, schema: Schema) -> list[pl.Expr]:
    """Return the conjuncts that Polars pushes down of a filter and another one that cannot fail."""
    beside = pl.col(next(iter(schema))).is_null()
    with suppress(PolarsError):
        request = request_of(lambda table: table.filter(predicate).filter(beside), schema)
        return conjuncts_of(request.predicate) if request is not None and request.predicate is not None else []
    return []
