"""Tests of points and geometries in SQL, by the expressions of `rainbear_dask.geo`, which prune chunks.

Polars' SQL has no place for an expression of Python. So a test filters its table before Polars joins it, and its call in
WHERE becomes a condition on nulls. This is right for conditions that AND joins, and for tables that no outer join extends
by nulls. Any other place is an error.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import partial
from typing import Any

import polars as pl

from rainbear_dask.dialect.arguments import Arguments
from rainbear_dask.dialect.edits import Edit
from rainbear_dask.dialect.references import CLAUSES, Outline, Reference, end_of_parentheses, split_arguments
from rainbear_dask.dialect.tokens import Token, error_at
from rainbear_dask.geo.expressions import dwithin, within

Column = tuple[str, str]
"""The name of a table, "" for none, and of a column."""


@dataclass(frozen=True, slots=True)
class GeometryTest:
    """A call in the text.

    Parameters
    ----------
    expr : Expr
        The test, on the columns of the table.
    table : str
        The name of the table before the columns; "" if none is given.
    columns : tuple of str
        The columns of the point.
    candidates : tuple of Reference
        The tables that it may filter.
    start : int
        Its place in the text.
    edit : Edit
        The condition that takes its place.
    """

    expr: pl.Expr
    table: str
    columns: tuple[str, str]
    candidates: tuple[Reference, ...]
    start: int
    edit: Edit


def geometry_tests(arguments: Arguments, outline: Outline) -> list[GeometryTest]:
    """Return the calls of ST_Within, ST_Intersects and ST_DWithin.

    Raises
    ------
    SQLError
        If a call has other arguments than a point of two columns and a geometry, or stands in another place than WHERE.
    GeometryError
        If a geometry cannot be used.
    """
    tokens = arguments.tokens
    calls = [
        number for number, token in enumerate(tokens[:-1]) if token.keyword in _TESTS and tokens[number + 1].text == "("
    ]
    return [_test(arguments, outline, number) for number in calls]


def _test(arguments: Arguments, outline: Outline, number: int) -> GeometryTest:
    tokens, name = arguments.tokens, arguments.tokens[number]
    parts, usage = split_arguments(tokens, number + 1), f"Write {_USAGE[name.keyword]}."
    if len(parts) != (3 if name.keyword == "ST_DWITHIN" else 2):
        raise error_at(arguments.statement, name.start, usage)
    first, second, *rest = parts
    if name.keyword != "ST_WITHIN" and _columns(tokens, first) is None:  # the other tests are symmetric
        first, second = second, first
    columns = _columns(tokens, first)
    if columns is None or _columns(tokens, second) is not None or columns[0][0] != columns[1][0]:
        raise error_at(arguments.statement, name.start, f"{usage} ST_Point has two columns of one table in one place.")
    (table, x), (_, y) = columns
    candidates = _candidates(arguments, outline, number)
    geometry, values = _geometry(arguments, second), [arguments.value(*each) for each in rest]
    (x_first, x_last), (y_first, y_last) = split_arguments(tokens, first[0] + 1)
    x_text, y_text = (
        arguments.statement[tokens[start].start : tokens[end].end]
        for start, end in ((x_first, x_last), (y_first, y_last))
    )
    # Rows with a null fail the test. And Polars checks the names.
    edit = Edit(
        name.start,
        tokens[end_of_parentheses(tokens, number + 1)].end,
        f"({x_text} IS NOT NULL AND {y_text} IS NOT NULL)",
    )
    return GeometryTest(_TESTS[name.keyword](geometry, *values, x, y), table, (x, y), candidates, name.start, edit)


def _columns(tokens: Sequence[Token], part: tuple[int, int]) -> list[Column] | None:
    """Return the columns in ``ST_Point(x, y)``; None if an argument is anything else."""
    first, last = part
    if not (first + 1 < last and tokens[first].keyword == "ST_POINT" and tokens[last].text == ")"):
        return None
    found = [_column(tokens[start : end + 1]) for start, end in split_arguments(tokens, first + 1)]
    return [each for each in found if each is not None] if len(found) == 2 and None not in found else None


def _column(tokens: Sequence[Token]) -> Column | None:
    names = [token.value for token in tokens if token.kind in ("word", "name")]
    dots = [token.text for token in tokens if token.kind not in ("word", "name")]
    if len(names) == 1 and not dots:
        return "", names[0]
    return (names[0], names[1]) if len(names) == 2 and dots == ["."] else None


def _candidates(arguments: Arguments, outline: Outline, number: int) -> tuple[Reference, ...]:
    """Return the tables that a test in WHERE may filter; raise an error if it stands elsewhere."""
    tokens, scope = arguments.tokens, outline.scopes[number]
    words = [(place, tokens[place].keyword) for place, each in enumerate(outline.scopes) if each == scope]
    before = [(place, word) for place, word in words if place < number]
    start = max((place for place, word in before if word in CLAUSES), default=-1)
    end = min((place for place, word in words if place > number and word in CLAUSES), default=len(tokens))
    after = end_of_parentheses(tokens, number + 1) + 1
    is_joined = (
        start >= 0
        and tokens[start].keyword == "WHERE"
        and tokens[number - 1].keyword in ("WHERE", "AND")
        and (after >= end or tokens[after].keyword == "AND" or tokens[after].text in (")", ";"))
        and not any(start < place < end and word in ("OR", "XOR", "CASE") for place, word in words)
    )
    if not is_joined:
        raise error_at(
            arguments.statement,
            tokens[number].start,
            f"{tokens[number].text} filters a table: write it in WHERE, beside other conditions only with AND.",
        )
    begin = max((place for place, word in before if place < start and word in CLAUSES), default=-1)
    here = tuple(each for each in outline.references if each.scope == scope and begin < each.first < start)
    joins = {word for place, word in words if begin < place < start}
    if joins & {"RIGHT", "FULL", "ASOF", "NATURAL"}:
        here = ()
    elif "LEFT" in joins:
        here = here[:1]
    return here


def _geometry(arguments: Arguments, part: tuple[int, int]) -> Any:
    """Return a geometry: ``ST_GeomFromText('...')``, ``ST_Point(1, 2)`` of numbers, a parameter, or WKT."""
    first, last = part
    function = arguments.tokens[first].keyword
    if function not in ("ST_POINT", "ST_GEOMFROMTEXT") or first == last:
        return arguments.value(first, last)
    values = [arguments.value(*each) for each in split_arguments(arguments.tokens, first + 1)]
    if len(values) != (2 if function == "ST_POINT" else 1):
        raise error_at(arguments.statement, arguments.tokens[first].start, "The number of its arguments is wrong.")
    return tuple(values) if function == "ST_POINT" else values[0]


def _within(geometry: Any, x: str, y: str, *, strict: bool) -> pl.Expr:
    return within(geometry, x, y, boundary="exclude" if strict else "include")


_TESTS: Mapping[str, Callable[..., pl.Expr]] = {
    "ST_WITHIN": partial(_within, strict=True),  # OGC: a point of the boundary is not within
    "ST_INTERSECTS": partial(_within, strict=False),
    "ST_DWITHIN": dwithin,
}
_USAGE = {
    "ST_WITHIN": "ST_Within(ST_Point(lon, lat), ST_GeomFromText('POLYGON ...'))",
    "ST_INTERSECTS": "ST_Intersects(ST_Point(lon, lat), ST_GeomFromText('POLYGON ...'))",
    "ST_DWITHIN": "ST_DWithin(ST_Point(lon, lat), ST_Point(4.9, 52.4), metres)",
}


def table_of(
    test: GeometryTest, statement: str, names: Mapping[Reference, str], frames: Mapping[Reference, pl.LazyFrame]
) -> Reference:
    """Return the table that a test filters.

    Parameters
    ----------
    test : GeometryTest
        The test.
    statement : str
        The SQL text, for messages.
    names, frames : mapping
        For each table the name by which its query knows it, and its rows.

    Raises
    ------
    SQLError
        If the test belongs to no table that it may filter.
    """
    for each in test.candidates:
        is_named = not test.table or names.get(each, "").lower() == test.table.lower()
        if is_named and each in frames and set(test.columns) <= set(frames[each].collect_schema()):
            return each
    raise error_at(
        statement,
        test.start,
        f"No table that this test may filter has the columns {' and '.join(test.columns)}. Put the test into a subquery "
        "over its table.",
    )
