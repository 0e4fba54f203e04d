"""Random queries for a table: filters on any column or field, and projections."""

from collections.abc import Callable, Iterator
from datetime import timedelta
from functools import reduce
from operator import and_, or_, xor

import hypothesis.strategies as st
import polars as pl

from tests.support.strategies import DIMS, START, TEXTS

MOMENT = START.astype("M8[us]").item()

JOINS = {
    "and": lambda parts: reduce(and_, parts),
    "or": lambda parts: reduce(or_, parts),
    "xor": lambda parts: reduce(xor, parts),
    "not and": lambda parts: ~reduce(and_, parts),
    "not or": lambda parts: ~reduce(or_, parts),
    "all": pl.all_horizontal,
    "any": pl.any_horizontal,
}


def fields(frame: pl.DataFrame) -> Iterator[tuple[pl.Expr, pl.Series]]:
    """Return each column, or each field of a struct, as an expression with its values."""
    todo = [(pl.col(column.name), column) for column in frame]
    for expr, values in todo:
        if isinstance(values.dtype, pl.Struct):
            todo += [(expr.struct.field(f.name), values.struct.field(f.name)) for f in values.dtype.fields]
        else:
            yield expr, values


@st.composite
def predicates(draw, frame: pl.DataFrame, depth: int = 2) -> pl.Expr:
    """Draw a filter on any columns and fields of a table, mostly on coordinates."""
    if depth == 0 or draw(st.integers(0, 2)) == 2:
        every = list(fields(frame))
        known = [pair for pair in every if pair[1].name in DIMS or pair[1].name.startswith("aux")] or every
        leaf = draw(leaves(*draw(st.sampled_from(every if draw(st.integers(0, 2)) == 2 else known))))
        return ~leaf if draw(st.integers(0, 4)) == 4 else leaf
    parts = [draw(predicates(frame, depth - 1)) for _ in range(draw(st.integers(2, 3)))]
    return JOINS[draw(st.sampled_from(sorted(JOINS)))](parts)


COMPARE = {
    "<": lambda a, b: a < b,
    "<=": lambda a, b: a <= b,
    ">": lambda a, b: a > b,
    ">=": lambda a, b: a >= b,
    "==": lambda a, b: a == b,
    "!=": lambda a, b: a != b,
}


def any_of(draw, values: list):
    """Draw one of some values. None if there are none."""
    return draw(st.sampled_from(values or [None]))


def compared(draw, column: pl.Expr, value) -> pl.Expr:
    """Draw a comparison with a value on either side."""
    compare = COMPARE[draw(st.sampled_from(sorted(COMPARE)))]
    return compare(column, value) if draw(st.booleans()) else compare(value, column)


def known(draw, values: pl.Series) -> pl.Expr:
    """Draw a comparison with an existing value."""
    return pl.lit(any_of(draw, values.drop_nulls().to_list()), values.dtype)


def between_known(draw, column: pl.Expr, values: pl.Series) -> pl.Expr:
    """Draw an interval between two existing values."""
    there = values.drop_nulls().to_list()
    low, high = sorted((any_of(draw, there), any_of(draw, there)), key=lambda value: (value is not None, value))
    closed = draw(st.sampled_from(["both", "left", "right", "none"]))
    return column.is_between(pl.lit(low, values.dtype), pl.lit(high, values.dtype), closed)


def among_known(draw, column: pl.Expr, values: pl.Series) -> pl.Expr:
    """Draw `is_in` with some values, possibly with null."""
    some = draw(st.lists(st.sampled_from([*values.to_list(), None]), max_size=6))
    return column.is_in(pl.Series(some, dtype=values.dtype).implode(), nulls_equal=draw(st.booleans()))


# Boolean expressions of one column or field, from its values. The first list suits any type.
Leaf = Callable[..., pl.Expr]
GENERAL: list[Leaf] = [
    lambda draw, column, values: compared(draw, column, known(draw, values)),
    between_known,
    among_known,
    lambda draw, column, values: column.is_in(values[:: draw(st.integers(1, 3))].implode()),
    lambda draw, column, values: column.is_not_null(),
    lambda draw, column, values: column.is_null(),
    lambda draw, column, values: column.eq_missing(pl.lit(None, values.dtype)),
    lambda draw, column, values: compared(draw, column, column.max()),  # not elementwise: Polars never pushes it down
    lambda draw, column, values: column.map_elements(values.to_list()[:3].__contains__, return_dtype=pl.Boolean),
    lambda draw, column, values: column.is_in(pl.Series([], dtype=values.dtype).implode()),
    lambda draw, column, values: pl.lit(draw(st.sampled_from([True, False, None])), dtype=pl.Boolean),
]
BOOLEAN: list[Leaf] = [
    lambda draw, column, values: column,
    lambda draw, column, values: ~column,
]
TEXT: list[Leaf] = [
    lambda draw, column, values: column.str.starts_with(draw(st.sampled_from(TEXTS))),
    lambda draw, column, values: column.str.contains(draw(st.sampled_from(TEXTS)), literal=True),
    lambda draw, column, values: compared(draw, column.str.len_chars(), draw(st.integers(0, 3))),
    lambda draw, column, values: compared(
        draw, column, draw(st.sampled_from([*TEXTS, "2000-03", "2000-02-30T06:00:00"]))
    ),
    lambda draw, column, values: compared(draw, column.str.slice(5, 2), draw(st.sampled_from(["02", "03"]))),
]
DATETIME: list[Leaf] = [
    lambda draw, column, values: compared(draw, column.dt.hour(), draw(st.integers(0, 23))),
    lambda draw, column, values: compared(draw, column.dt.month(), draw(st.integers(1, 12))),
    lambda draw, column, values: compared(draw, column, MOMENT + timedelta(hours=draw(st.integers(-50, 50)))),
    lambda draw, column, values: compared(draw, column.dt.truncate("1d"), column),
    lambda draw, column, values: compared(draw, column.dt.offset_by("1mo").dt.date(), MOMENT.date()),
    lambda draw, column, values: compared(draw, column.cast(pl.Date), MOMENT.date()),  # may fail, according to Polars
]
DURATION: list[Leaf] = [
    lambda draw, column, values: compared(draw, column, timedelta(hours=draw(st.integers(-50, 50)))),
    lambda draw, column, values: compared(draw, column.dt.total_hours() % 7, draw(st.integers(0, 7))),
]
NUMBER: list[Leaf] = [
    lambda draw, column, values: compared(draw, column, draw(numbers)),
    lambda draw, column, values: compared(draw, column, draw(numbers)),
    lambda draw, column, values: compared(draw, column.cast(pl.Float64) * 3 - draw(numbers), draw(numbers)),
    lambda draw, column, values: compared(draw, (column.cast(pl.Float64) + 180) % 7 - 3, draw(digits)),
    lambda draw, column, values: compared(draw, (column.cast(pl.Float64) * 10) % 3, draw(st.integers(0, 2))),
    lambda draw, column, values: compared(draw, column.cast(pl.Float64).abs(), draw(numbers)),
    lambda draw, column, values: compared(draw, column.cast(pl.Int8, strict=False), draw(digits)),
    lambda draw, column, values: compared(draw, column.cast(pl.String).str.len_chars(), draw(st.integers(1, 5))),
    lambda draw, column, values: column.is_between(low := draw(digits), low + draw(st.integers(-1, 9))),
    lambda draw, column, values: column.is_between(draw(digits) - 0.5, 3.0),  # may fail on integers
    lambda draw, column, values: compared(draw, column.cast(pl.Int32), draw(digits)),  # may fail
    lambda draw, column, values: column.is_in(draw(st.lists(st.integers(0, 9), min_size=1))),
    lambda draw, column, values: pl.when(column > (n := draw(digits))).then(True).otherwise(column < -n),
]
FLOAT: list[Leaf] = [
    *NUMBER,
    lambda draw, column, values: column.is_nan(),
    lambda draw, column, values: column.is_not_nan(),
    lambda draw, column, values: column.is_finite(),
    lambda draw, column, values: column.is_infinite(),
]
digits = st.integers(-9, 9)
numbers = st.one_of(
    st.integers(-9, 20),
    st.integers(-90, 90).map(lambda k: k / 10),
    st.sampled_from([float("nan"), float("inf"), 2**63 + 3, -(2**40)]),
)


@st.composite
def leaves(draw, column: pl.Expr, values: pl.Series) -> pl.Expr:
    """Draw a Boolean expression of one column or field."""
    return draw(st.sampled_from(GENERAL + special(values.dtype)))(draw, column, values)


def special(dtype: pl.DataType) -> list[Leaf]:
    """Return the expressions that only some types have."""
    if dtype.is_numeric():
        return FLOAT if dtype.is_float() else NUMBER
    by_type = {pl.Boolean: BOOLEAN, pl.String: TEXT, pl.Datetime: DATETIME, pl.Duration: DURATION, pl.Binary: []}
    return by_type[dtype.base_type()]


@st.composite
def projections(draw, frame: pl.DataFrame) -> list[pl.Expr]:
    """Draw some columns in any order, sometimes with a computed one, and one field of a struct."""
    columns = [pl.col(name) for name in draw(st.lists(st.sampled_from(frame.columns), unique=True, min_size=1))]
    if draw(st.integers(0, 3)) == 3:
        expr, _ = draw(st.sampled_from(list(fields(frame))))
        columns += draw(st.sampled_from([[expr.is_null().alias("computed")], [expr.alias("field")]]))
    return columns
