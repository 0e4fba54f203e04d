"""Conditions on bounds: a chunk that holds a matching value is never left out."""

from datetime import date, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from rainbear_dask.planning.intervals import Bounds, image_of, may_hold

c = pl.col("x")
NAN, INF = float("nan"), float("inf")

FLOATS = st.one_of(
    st.sampled_from([0.0, -0.0, 0.1, 22.1, -2.5, 1e30, -1e38, 1e-40, NAN, INF, -INF]),
    st.floats(-5, 5, width=32),
    st.integers(-5, 5).map(float),
)
INTEGERS = st.one_of(st.integers(-5, 5), st.sampled_from([2**53, 2**53 + 1, -(2**53) - 1, 2**62 + 1]))
KINDS = {
    pl.Float32: FLOATS,
    pl.Float64: FLOATS,
    pl.Int8: st.integers(-128, 127) | st.integers(-3, 3),
    pl.Int64: INTEGERS,
    pl.UInt64: st.integers(0, 5) | st.sampled_from([2**63 + 1, 2**64 - 1]),
    pl.Boolean: st.booleans(),
    pl.String: st.text("abé\U0010ffff", max_size=3),
    pl.Binary: st.binary(max_size=2),
    pl.Datetime("ns"): st.integers(-5, 5).map(lambda n: datetime(2020, 1, 1) + timedelta(hours=n)),
    pl.Duration("us"): st.integers(-5, 5).map(lambda n: timedelta(hours=n)),
}
COMPARISONS = ["__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"]


def constants(kind, values):
    """Return constants of the column's type, of other types, and null."""
    other = st.one_of(FLOATS, INTEGERS) if kind.is_numeric() else values
    return st.one_of(
        values,
        other,
        other.map(pl.lit),
        values.map(lambda v: pl.lit(v, dtype=kind)),
        st.just(pl.lit(None)),
    )


def terms(kind):
    """Return functions of the column, monotone and others."""
    if not kind.is_numeric():
        return st.just(c)
    factor = st.one_of(FLOATS, st.integers(-3, 3))
    return st.recursive(
        st.just(c),
        lambda inner: st.one_of(
            st.builds(lambda e, k: e + k, inner, factor),
            st.builds(lambda e, k: k - e, inner, factor),
            st.builds(lambda e, k: e - k, inner, factor),
            st.builds(lambda e, k: e * k, inner, factor),
            st.builds(lambda e, k: e / k, inner, factor),
            st.builds(lambda e, k: k / e, inner, factor),
            st.builds(lambda e: -e, inner),
            st.builds(lambda e: e.abs(), inner),
            st.builds(lambda e, k: e.cast(k, strict=False), inner, st.sampled_from([pl.Float32, pl.Float64, pl.Int16])),
            st.builds(lambda e: e.cast(pl.Float64), inner),
            st.builds(lambda e: e.fill_null(1), inner),
            st.builds(lambda e: e.alias("y"), inner),
        ),
        max_leaves=3,
    )


@st.composite
def questions(draw):
    """Return chunks of one column, and a condition on it."""
    kind = draw(st.sampled_from(list(KINDS)))
    values = KINDS[kind]
    chunk = st.lists(values | st.none(), min_size=1, max_size=4)
    chunks = [pl.Series("x", one, dtype=kind) for one in draw(st.lists(chunk, min_size=1, max_size=5))]
    constant, term = constants(kind, values), terms(kind)
    leaf = st.one_of(
        st.builds(lambda e, op, k: getattr(e, op)(k), term, st.sampled_from(COMPARISONS), constant),
        st.builds(lambda e, op, k: getattr(pl.lit(k), op)(e), term, st.sampled_from(COMPARISONS), values),
        st.builds(
            lambda e, a, b, closed: e.is_between(a, b, closed=closed),
            term,
            constant,
            constant,
            st.sampled_from(["both", "left", "right", "none"]),
        ),
        st.builds(lambda e, found: e.is_in(found), term, st.lists(values | st.none(), max_size=4)),
        st.builds(lambda e, found: e.is_in(pl.Series(found, dtype=kind).implode()), term, st.lists(values, max_size=4)),
        st.sampled_from([c, c.is_null(), c.is_not_null(), c.is_nan(), c.is_not_nan(), c.eq_missing(1), c.is_finite()]),
    )
    return chunks, draw(leaf)


def bounds_of(chunks):
    """Return the bounds of chunks, by Polars."""
    dtype = chunks[0].dtype
    numbers = [one.filter(one.is_not_nan()) if dtype.is_float() else one for one in chunks]
    return Bounds(
        pl.Series([one.min() for one in numbers], dtype=dtype),
        pl.Series([one.max() for one in numbers], dtype=dtype),
        np.array([bool(dtype.is_float() and one.is_nan().any()) for one in chunks]),
        np.array([one.has_nulls() for one in chunks]),
    )


@given(questions())
def test_no_chunk_with_a_match_is_left_out(question):
    chunks, condition = question
    bounds = bounds_of(chunks)
    for outcome in (True, False):
        held = may_hold(condition, bounds, outcome=outcome)
        if held is None:
            event("it tells nothing")
            continue
        event("it drops a chunk" if not held.all() else "it keeps all")
        for chunk, kept in zip(chunks, held, strict=True):
            try:
                found = chunk.to_frame().select(condition).to_series()
            except (pl.exceptions.PolarsError, pl.exceptions.PanicException):
                continue  # the workers raise the error if the chunk is read
            if found.dtype == pl.Boolean and (found == outcome).any():
                assert kept


def held(condition, *chunks, dtype=pl.Float32, outcome=True):
    found = may_hold(condition, bounds_of([pl.Series("x", one, dtype=dtype) for one in chunks]), outcome=outcome)
    return None if found is None else found.tolist()


@pytest.mark.parametrize(
    ("condition", "expected"),
    [
        # chunks: [1, 2], [22.1], [3, nan], [null], [nan], [4, null]
        (c > 3, [False, True, True, False, True, True]),
        (c >= 22.1, [False, True, True, False, True, False]),  # 22.1 as float32, as Polars compares
        (c <= 22.1, [True, True, True, False, False, True]),
        (c < 2, [True, False, False, False, False, False]),
        (c == NAN, [False, False, True, False, True, False]),
        (c == 22.1, [False, True, False, False, False, False]),
        (c != 22.1, [True, False, True, False, True, True]),
        (c.is_between(22, 30), [False, True, True, False, False, False]),
        (c.is_in([2.0, 4.0]), [True, False, False, False, False, True]),
        (c.is_in([NAN]), [False, False, True, False, True, False]),
        (c.is_null(), [False, False, False, True, False, True]),
        (c.is_not_null(), [True, True, True, False, True, True]),
        (c.is_nan(), [False, False, True, False, True, False]),
        (c.is_not_nan(), [True, True, True, False, False, True]),
        (c - 273.15 > -270, [False, True, True, False, True, True]),
        (2 - c > 0.5, [True, False, True, False, True, False]),
        (c.abs() * -1 > -1.5, [True, False, True, False, True, False]),
        (c.cast(pl.Float64) / 2 > 3, [False, True, True, False, True, False]),
        (pl.lit(3) < c, [False, True, True, False, True, True]),
        (c > pl.lit(None), [False] * 6),
    ],
)
def test_bounds_leave_out_chunks(condition, expected):
    assert held(condition, [1, 2], [22.1], [3, NAN], [None], [NAN], [4, None]) == expected


@pytest.mark.parametrize(
    "condition",
    [
        c.sin() > 2,
        c.fill_null(9) > 5,
        c % 2 > 5,
        1 / c > 5,
        c.eq_missing(5),
        c / 0 > 5,
        c * INF > 5,
        c + NAN > 5,
        c > "a",
    ],
    ids=str,
)
def test_other_conditions_keep_all_chunks(condition):
    assert held(condition, [1, 2]) is None


@pytest.mark.parametrize("condition", [c + 100 > 0, c * 2 > 100, -c > 0, c.abs() > 100], ids=str)
def test_integers_wrap_around_so_their_arithmetic_tells_nothing(condition):
    assert held(condition, [-128, 127], dtype=pl.Int8) is None


def test_infinity_that_becomes_nan_keeps_a_chunk():
    assert held(c * 0 > 5, [1, INF], [1, 2]) == [True, False]
    assert held(c * 0 < 5, [1, INF], [1, 2]) == [True, True]


def test_a_negation_swaps_the_ends():
    assert held(c > 3, [1, 2], [4, 5], [2, 4], [NAN], [None], outcome=False) == [True, False, True, False, False]


def test_many_members_count_as_a_range():
    days = [date(2020, 1, 1) + timedelta(days=n) for n in range(100)]
    assert held(c.is_in(days), [date(2020, 2, 1)], [date(2021, 1, 1)], dtype=pl.Date) == [True, False]


def test_a_sum_of_floats_has_an_image():
    image = image_of(c + 1, bounds_of([pl.Series("x", [1.0, 2.0])]))
    assert image.low[0] == pytest.approx(2)
    assert image.high[0] == pytest.approx(3)
    assert image.low[0] < 2
    assert image.high[0] > 3
