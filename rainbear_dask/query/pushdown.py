"""What Polars hands to a reader: Polars itself is asked, with a source that only records."""

from collections.abc import Callable, Iterator, Mapping, Sequence
from contextlib import suppress
from functools import reduce
from operator import and_, eq, ge, gt, le, lt, ne

import polars as pl
from polars.exceptions import PolarsError
from polars.io.plugins import register_io_source

from rainbear_dask.planning.predicate import conjuncts_of

Schema = Mapping[str, pl.DataType]
Request = tuple[list[str] | None, pl.Expr | None]


class EnoughError(Exception):
    """Ends a query that was begun only to see what it requests."""


def request_of(query: Callable[[pl.LazyFrame], pl.LazyFrame], schema: Schema) -> Request | None:
    """Return the columns and the filter that a query requests of its source; None if it never calls it. Nothing is run."""
    requests: list[Request] = []

    def read(
        with_columns: list[str] | None, predicate: pl.Expr | None, _rows: int | None, _batch: int | None
    ) -> Iterator[pl.DataFrame]:
        requests.append((with_columns, predicate))
        raise EnoughError

    with suppress(EnoughError):
        # by name, as the caller may have set another engine for all queries
        query(register_io_source(read, schema=schema)).collect(engine="in-memory")
    return requests[0] if requests else None


def columns_of(expr: pl.Expr, schema: Schema) -> list[str]:
    """Return the columns that an expression needs; for one that only counts rows, some column."""
    request = request_of(lambda table: table.select(expr), schema)
    if request is None:
        return []
    return list(schema) if request[0] is None else request[0]


def pushed_part(predicate: pl.Expr, schema: Schema) -> pl.Expr | None:
    """Return the part of a filter that Polars lets a reader apply before it filters by the rest; None if there is none."""
    with suppress(PolarsError):  # it is several expressions in one, say
        request = request_of(lambda table: table.filter(predicate), schema)
        return pl.lit(value=False) if request is None else request[1]  # without its source, it gives no row
    return None


def elementwise(predicate: pl.Expr, schema: Schema) -> pl.Expr | None:
    """Return the whole of a filter that needs no other row, prepared by Polars; None if it needs other rows.

    Polars keeps parts that may fail from a reader, but only beside others. So it is asked for one expression, of which
    the filter is the only operand. Names are expanded in what it prepares, and types are settled.
    """
    with suppress(PolarsError):  # it is several expressions in one, say
        match request_of(lambda table: table.filter(predicate.is_null()), schema):
            case (_, pl.Expr() as asked):
                (whole,) = asked.meta.pop()
                return whole
    return None


def prepared(predicate: pl.Expr, schema: Schema) -> pl.Expr | None:
    """Return the whole of an elementwise filter, a literal if Polars knows that it is never true; None if it needs other rows."""
    whole = elementwise(predicate, schema)
    part = pushed_part(predicate, schema)
    if part is not None and any(_is_false(each) for each in conjuncts_of(part)):
        return pl.lit(value=False)
    return whole


def _is_false(expr: pl.Expr) -> bool:
    return expr.meta.eq(pl.lit(value=False))


def also(predicate: pl.Expr, conditions: Sequence[pl.Expr]) -> pl.Expr:
    """Return a filter by some more conditions; those that it has are not repeated."""
    given = conjuncts_of(predicate)
    return reduce(and_, (part for part in conditions if not any(part.meta.eq(each) for each in given)), predicate)


def fallible_parts(predicate: pl.Expr, schema: Schema) -> list[pl.Expr] | None:
    """Return the conjuncts of a filter that Polars keeps from a reader as they may fail; None if it needs other rows.

    Some may be missing: Polars forgets that a cast may fail once it has prepared it.
    """
    if schema and all(compares_a_column(each, schema) for each in conjuncts_of(predicate)):
        return []  # most filters do, and Polars need not be asked twice
    whole = elementwise(predicate, schema)
    if whole is None or not schema:
        return None
    parts, given = conjuncts_of(whole), _beside_another(predicate, schema)
    num_kept = len(parts) + 1 - len(given)
    if num_kept <= 0:
        return []
    left = [part for part in parts if not any(part.meta.eq(each) for each in given)]
    # two Python functions are never the same to Polars, so some may have been handed over all the same
    return left if len(left) == num_kept else [part for part in left if len(_beside_another(part, schema)) < 2]


def compares_a_column(expr: pl.Expr, schema: Schema) -> bool:
    """Whether an expression is a comparison of a column with literals that Polars never keeps from a reader.

    It casts values strictly for an ``is_between`` of some types, so only that of floats is counted among them.
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
    """What Polars hands to a reader of a filter and another one that cannot fail."""
    beside = pl.col(next(iter(schema))).is_null()
    with suppress(PolarsError):
        request = request_of(lambda table: table.filter(predicate).filter(beside), schema)
        return conjuncts_of(request[1]) if request is not None and request[1] is not None else []
    return []
