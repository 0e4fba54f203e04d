"""Parameters become literals of their type, and never a part of the statement."""

from datetime import UTC, datetime, timedelta

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError

ONE = pl.DataFrame({"row": [1]})
TIMES = st.datetimes(datetime(1, 1, 1), datetime(9999, 12, 31))
VALUES = st.one_of(
    st.none(),
    st.booleans(),
    st.integers(-(2**63), 2**64 - 1),
    st.floats(allow_nan=False),
    st.text(st.characters(exclude_categories=["Cs"])),
    st.binary(),
    st.dates(),
    TIMES,
    st.times(),
    st.timedeltas(timedelta(days=-100_000), timedelta(days=100_000)),
    st.decimals(-(10**9), 10**9, places=6),
)


@given(VALUES)
def test_a_value_comes_back(value):
    found = rd.sql("SELECT :value AS value, row FROM one", params={"value": value}, one=ONE).collect()
    assert found.shape == (1, 2)
    actual = found["value"].item()
    assert actual == value
    assert type(actual) is type(value)


@given(VALUES)
def test_a_value_stands_anywhere(value):
    """Also where a sign or a quote precedes it."""
    statement = "SELECT CASE WHEN :v IS NULL THEN 0 ELSE-1 END AS a, 5 -(CASE WHEN :v IS NULL THEN 0 ELSE 1 END)-:n AS b FROM one"
    found = rd.sql(statement, params={"v": value, "n": -3}, one=ONE).collect()
    missing = value is None
    assert found.row(0) == (0 if missing else -1, 8 if missing else 7)


@pytest.mark.parametrize(
    ("value", "dtype"),
    [
        (np.datetime64("2020-01-01T00:00:00.123456789"), pl.Datetime("ns")),
        (np.datetime64("1677-09-22T00:00:00.000000001"), pl.Datetime("ns")),
        (np.datetime64("2020-02", "D"), pl.Datetime("us")),
        (np.datetime64("1500-02-03T04:05:06.007"), pl.Datetime("us")),
        (np.timedelta64(-5, "ms"), pl.Duration("us")),
        (np.float32(0.1), pl.Float32),
        (np.float16(0.1), pl.Float32),
        (np.float64(0.1), pl.Float64),
        (np.int8(-7), pl.Int32),
        (np.uint64(2**64 - 1), pl.UInt64),
        (np.True_, pl.Boolean),
        (np.str_("it's"), pl.String),
        (float("inf"), pl.Float64),
    ],
)
def test_numpy_scalars_keep_their_values(value, dtype):
    found = rd.sql("SELECT :value AS value FROM one", params={"value": value}, one=ONE).collect().to_series()
    assert found.dtype == dtype
    expected = pl.Series(np.array([value]))
    assert found.cast(expected.dtype).item() == expected.item()


def test_nan_and_nat():
    found = rd.sql(
        "SELECT :a AS a, :b AS b FROM one", params={"a": float("nan"), "b": np.datetime64("NaT", "s")}, one=ONE
    )
    assert found.collect()["a"].is_nan().item()
    assert found.collect()["b"].is_null().item()


@pytest.mark.parametrize("form", ["IN :x", "in(:x)", "= ANY(:x)"])
@pytest.mark.parametrize("kind", [list, tuple, np.array, pl.Series, set])
def test_lists(form, kind):
    table = pl.DataFrame({"n": [1, 2, 3, 4]})
    found = rd.sql(f"SELECT n FROM t WHERE n {form} ORDER BY n", params={"x": kind([2, 4])}, t=table)
    assert found.collect().to_series().to_list() == [2, 4]


def test_texts_stay_texts():
    hostile = "x' OR '1' = '1"
    found = rd.sql("SELECT * FROM one WHERE 'x' = :a", params={"a": hostile}, one=ONE).collect()
    assert found.height == 0
    # names of parameters inside of quotes, comments, casts and slices are none
    found = rd.sql("SELECT ':a' AS t, 1::BIGINT AS n /* :b */ FROM one -- :c", one=ONE).collect()
    assert found.row(0) == (":a", 1)


@pytest.mark.parametrize(
    ("value", "message"),
    [
        (datetime(2020, 1, 1, tzinfo=UTC), "has a time zone"),
        ([], "an empty list"),
        (2**64, "does not fit into 64 bits"),
        (object(), "has no SQL literal"),
        (np.timedelta64(1, "M"), "no fixed length"),
        (np.timedelta64(1, "ns"), "no whole number of microseconds"),
    ],
)
def test_values_without_a_literal(value, message):
    with pytest.raises(QueryError, match=message):
        rd.sql("SELECT * FROM one WHERE row IN :x", params={"x": value}, one=ONE)


def test_missing_parameters():
    with pytest.raises(QueryError, match=r"The parameter :end has no value.*Given: start"):
        rd.sql("SELECT * FROM 'no.zarr' WHERE time < :end", params={"start": 1})
    with pytest.raises(QueryError, match="`params` is no mapping"):
        rd.sql("SELECT 1", params=[1])
