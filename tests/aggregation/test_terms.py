"""Comparisons in NumPy agree with Polars at every number."""

import operator

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.aggregation.terms import Term, Values, comparison_of

c = pl.col
DTYPES = [pl.Float32(), pl.Float64(), pl.Int8(), pl.Int32(), pl.Int64(), pl.UInt8(), pl.UInt64()]
OPERATORS = [operator.gt, operator.ge, operator.lt, operator.le, operator.eq, operator.ne]


@given(
    dtype=st.sampled_from(DTYPES),
    compare=st.sampled_from(OPERATORS),
    literal=st.integers(-300, 300) | st.floats(allow_nan=True) | st.sampled_from([0.1, 20.5, 303.7, 2**40, 2**63, -1]),
    data=st.data(),
)
def test_a_comparison_agrees_with_polars(dtype, compare, literal, data):
    expr = compare(c("x"), literal)
    found = comparison_of(Term.of(expr), dtype)
    if found is None:
        return
    array_type = pl.Series(dtype=dtype).to_numpy().dtype
    if array_type.kind == "f":
        drawn = data.draw(st.lists(st.floats(width=array_type.itemsize * 8), max_size=9))
        near = array_type.type(literal)
        values = np.array([*drawn, near, np.nextafter(near, array_type.type(np.inf)), np.nan, -0.0], array_type)
    else:
        info = np.iinfo(array_type)
        drawn = data.draw(st.lists(st.integers(int(info.min), int(info.max)), max_size=9))
        values = np.array([*drawn, literal], array_type)
    expected = pl.DataFrame({"x": values}).select(expr).to_series()
    assert found(values).tolist() == expected.to_list()


@pytest.mark.parametrize("dtype", DTYPES)
@pytest.mark.parametrize("compare", OPERATORS)
def test_a_comparison_with_a_small_number_is_known(dtype, compare):
    assert comparison_of(Term.of(compare(c("x"), 5)), dtype)


@pytest.mark.parametrize(
    "expr",
    [c("x") + 1 > 3, c("x").is_between(1, 2), c("x") == c("x"), c("x") > pl.lit(None), c("x") > pl.lit("a"), c("x")],
)
def test_anything_else_is_no_comparison(expr):
    assert comparison_of(Term.of(expr), pl.Float64()) is None


def test_a_literal_that_polars_compares_in_a_wider_type():
    assert comparison_of(Term.of(c("x") > pl.lit(303.7, pl.Float64)), pl.Float32()) is None
    assert comparison_of(Term.of(c("x") > 1000), pl.Int8()) is None


def test_masked_nan_becomes_null():
    values = Values(np.array([1.0, np.nan]), None, nan_is_null=True).settled()
    assert values.valid.tolist() == [True, False]
    known = Values(np.array([1.0, np.nan]), np.array([False, True]), nan_is_null=True).settled()
    assert known.valid.tolist() == [False, False]
    assert Values(np.array([np.nan])).settled().valid is None
