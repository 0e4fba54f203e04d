"""Comparisons of columns with literals: type errors and suspicious comparisons, found before anything is read."""

import re
from collections.abc import Callable, Container, Iterator, Mapping
from operator import eq, ge, gt, le, lt, ne
from typing import Any, Literal, NamedTuple

import polars as pl
from polars.exceptions import PanicException

from rainbear_dask.exceptions import PredicateError

_COMPARISONS: tuple[Callable[[pl.Expr, pl.Expr], pl.Expr], ...] = (ge, le, gt, lt, eq, ne)
_COMPARES = re.compile("cannot compare|could not evaluate .*comparison|'is_in' cannot check")  # of Polars
_CLOSED: tuple[Literal["both", "left", "right", "none"], ...] = ("both", "left", "right", "none")


class Comparison(NamedTuple):
    """A comparison of one column with literals.

    Parameters
    ----------
    kind : {"order", "equal", "between"}
        ``<`` and its like; ``==`` and ``!=``; ``is_between``.
    column : str
        Name of the column.
    values : tuple
        Values of the literals, as Python objects; lower bound first.
    """

    kind: Literal["order", "equal", "between"]
    column: str
    values: tuple[Any, ...]


def comparisons_of(expr: pl.Expr, columns: Container[str]) -> Iterator[Comparison]:
    """Yield each comparison of some columns with literals that an expression holds, at any depth."""
    todo = [expr]
    while todo:
        node = todo.pop()
        parts = node.meta.pop()[::-1]  # Polars pops the last operand first
        if (found := _comparison(node, parts, columns)) is not None:
            yield found
        else:
            todo += parts


def _comparison(node: pl.Expr, parts: list[pl.Expr], columns: Container[str]) -> Comparison | None:
    match parts:
        case [column, *literals] if literals and column.meta.is_column() and all(map(_is_literal, literals)):
            name = column.meta.output_name()
            if name not in columns:
                return None
            if len(literals) == 1:
                for compare in _COMPARISONS:
                    if compare(column, literals[0]).meta.eq(node):
                        return Comparison("equal" if compare in (eq, ne) else "order", name, _values(literals))
            elif len(literals) == 2:
                low, high = literals
                if any(column.is_between(low, high, closed=closed).meta.eq(node) for closed in _CLOSED):
                    return Comparison("between", name, _values(literals))
    return None


def _is_literal(expr: pl.Expr) -> bool:
    return expr.meta.is_literal(allow_aliasing=True)


def _values(literals: list[pl.Expr]) -> tuple[Any, ...]:
    return tuple(pl.select(literal).to_series().to_list()[0] for literal in literals)


def check_types(expr: pl.Expr, values: pl.DataFrame) -> None:
    """Refuse an expression that compares values of different types, so that it fails for every row.

    Parameters
    ----------
    expr : Expr
        An expression that has failed on some values.
    values : DataFrame
        The values.

    Raises
    ------
    PredicateError
        If the comparison fails without values too.
    """
    try:
        values.clear().select(expr)
    except (Exception, PanicException) as err:  # noqa: BLE001  a function of the user may raise anything
        text = str(err).partition("\n")[0].rstrip(".")
        if _COMPARES.search(text):  # others may come from a function of the user, which expects values
            raise PredicateError(
                f"The filter {_short(expr)} fails for every row: {text}. {_remedy(expr, values)}"
            ) from None


def _remedy(expr: pl.Expr, values: pl.DataFrame) -> str:
    zones = {_zone(literal) for literal in _literals_of(expr)} - {None}
    for name, dtype in values.schema.items():
        if zones and isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
            return (
                f"The times of {name!r} have no time zone. Compare them with a time in UTC without zone: "
                "`value.astimezone(timezone.utc).replace(tzinfo=None)`."
            )
    types = ", ".join(f"{name!r} is {dtype!r}" for name, dtype in values.schema.items())
    return f"Compare each column with values of its type: {types}."


def _literals_of(expr: pl.Expr) -> Iterator[pl.Series]:
    todo = [expr]
    while todo:
        node = todo.pop()
        if _is_literal(node):
            yield pl.select(node).to_series()
        todo += node.meta.pop()


def _zone(literal: pl.Series) -> str | None:
    dtype: Any = literal.dtype
    while isinstance(dtype, pl.List):
        dtype = dtype.inner
    return dtype.time_zone if isinstance(dtype, pl.Datetime) else None


def suspicious(expr: pl.Expr, dtypes: Mapping[str, pl.DataType]) -> Iterator[str]:
    """Yield a warning for each comparison of times with a number, which Polars takes as a count since 1970.

    Parameters
    ----------
    expr : Expr
        A filter.
    dtypes : mapping of str to polars.DataType
        Types of its columns.
    """
    for found in comparisons_of(expr, {name for name, dtype in dtypes.items() if dtype.is_temporal()}):
        dtype = dtypes[found.column]
        numbers = [value for value in found.values if isinstance(value, int | float) and not isinstance(value, bool)]
        if not numbers:
            continue
        unit = getattr(dtype, "time_unit", "day")
        since = " since 1970" if isinstance(dtype, pl.Datetime) else ""
        remedy = f"pl.col({found.column!r}).dt.year()" if since else "a timedelta"
        yield (
            f"The filter compares the times of {found.column!r} with the number {numbers[0]}, which counts {unit}{since}. "
            + (f"Compare {remedy} with a year, or the times with a datetime." if since else f"Compare with {remedy}.")
        )


def _short(expr: pl.Expr) -> str:
    text = str(expr)
    return text if len(text) <= 200 else f"{text[:197]}..."
