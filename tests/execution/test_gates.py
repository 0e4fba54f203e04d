"""Gates: every row that passes a filter passes its gate, for all types, decodings and literals."""

from datetime import datetime

import numpy as np
import polars as pl
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from rainbear_dask.coding.cf import decoding_of
from rainbear_dask.execution.filters import evaluate
from rainbear_dask.execution.gates import gate_of
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.planning.task import Filter
from rainbear_dask.table.model import Column

c = pl.col("v")
DTYPES = ["i1", "u1", "i2", "u2", "i4", "u4", "i8", "u8", "f4", "f8", "f2", "?"]


def column_of(dtype, attributes):
    array = ArrayMeta("v", ("x",), (9,), (9,), None, np.dtype(dtype), None, attributes, "")
    found = decoding_of(array, coordinate=False)
    return Column("v", "data", ("x",), array, found)


def filter_of(expr, column):
    return Filter(expr.meta.serialize(), (column,))


@st.composite
def columns(draw):
    dtype = np.dtype(draw(st.sampled_from(DTYPES)))
    attributes = {}
    if dtype.kind != "b" and draw(st.booleans()):
        attributes["scale_factor"] = draw(st.sampled_from([0.01, -2.0, 1e-30, 3.0, 0.0]))
    if dtype.kind != "b" and draw(st.booleans()):
        attributes["add_offset"] = draw(st.sampled_from([280.0, -1e6, 0.1]))
    if dtype.kind != "b" and draw(st.booleans()):
        attributes["_FillValue"] = draw(st.sampled_from([0, 1, "NaN"] if dtype.kind == "f" else [0, 1]))
        if attributes["_FillValue"] == "NaN":
            attributes["_FillValue"] = float("nan")
    return column_of(dtype, attributes)


def literals(column):
    ints = st.integers(-300, 300) | st.sampled_from([2**31, -(2**31) - 1, 2**63 - 1, 2**53 + 1])
    floats = st.floats(width=32) | st.floats() | st.sampled_from([20.1, 0.1, float("nan"), float("inf"), -0.0])
    typed = floats.map(lambda value: pl.lit(value, dtype=pl.Float32))
    return (
        ints | floats | typed | st.just(pl.lit(None, dtype=pl.Float64)) if column.dtype != pl.Boolean else st.booleans()
    )


@st.composite
def predicates(draw, column):
    one, other = draw(literals(column)), draw(literals(column))
    forms = [
        lambda: c > one,
        lambda: c >= one,
        lambda: c < one,
        lambda: c <= one,
        lambda: c == one,
        lambda: c != one,
        lambda: pl.lit(one) < c if not isinstance(one, pl.Expr) else one < c,
        lambda: c.is_between(one, other, draw(st.sampled_from(["both", "left", "right", "none"]))),
        lambda: c.is_in([one, other]) if not any(isinstance(x, pl.Expr) for x in (one, other)) else c > one,
        c.is_null,
        c.is_not_null,
        lambda: ~(c > one),
        lambda: (c > one) | (c < other),
        lambda: c.cast(pl.Float64, strict=False) > 3,
    ]
    try:
        return draw(st.sampled_from(forms))()
    except TypeError:  # Polars builds no list of such literals
        return c > one


@given(st.data())
def test_a_row_that_passes_the_filter_passes_its_gate(data):
    column = data.draw(columns())
    dtype = column.array.dtype
    expr = data.draw(predicates(column))
    if dtype.kind == "f":
        numbers = st.floats(width=8 * min(dtype.itemsize, 4)) | st.sampled_from([0.0, -0.0, float("nan"), 20.5, 0.1])
    elif dtype.kind == "b":
        numbers = st.booleans()
    else:
        info = np.iinfo(dtype)
        numbers = st.integers(int(info.min), int(info.max)) | st.integers(
            max(-300, int(info.min)), min(300, int(info.max))
        )
    stored = np.array(data.draw(st.lists(numbers, min_size=1, max_size=30)), dtype=dtype)
    test = filter_of(expr, column)
    try:
        passed = evaluate(test, {"v": column.decoding.decode(stored).alias("v")}, len(stored)).to_numpy()
    except Exception:  # noqa: BLE001  a comparison that Polars refuses
        return
    gate = gate_of(test)
    event(f"gate: {gate is not None}")
    if gate is not None:
        mask = np.empty(stored.shape, np.bool_)
        gate(stored, mask)
        assert not (passed & ~mask).any()


@pytest.mark.parametrize("dtype", ["f4", "f8", "i4", "u8", "i2", "u1"])
@pytest.mark.parametrize(
    "expr",
    [c > 20.5, c >= 20, c < 20.1, c <= 21, c == 20, pl.lit(20) < c, c.is_between(3, 20, "none")],
    ids=str,
)
def test_a_gate_of_plain_numbers_stops_all_others(dtype, expr):
    column = column_of(dtype, {})
    around = np.array([20, 20.1, 20.5, 21, 3, 0], dtype)
    stored = (
        np.concatenate(
            [around, np.nextafter(around, around.dtype.type(99)), np.nextafter(around, around.dtype.type(0))]
        )
        if dtype[0] == "f"
        else around
    )
    mask = np.empty(stored.shape, np.bool_)
    gate_of(filter_of(expr, column))(stored, mask)
    if "between" in str(expr) and stored.itemsize > 2:
        expr = c.is_between(3, 20)  # the ends are left to Polars
    expected = pl.DataFrame({"v": stored}).select(expr).to_series().to_numpy()
    np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize("dtype", ["i4", "u4", "i8", "u8"])
def test_bounds_at_the_ends_of_a_type(dtype):
    ends = np.iinfo(dtype)
    stored = np.array([ends.min, ends.min + 1, ends.max // 2, ends.max - 1, ends.max], dtype)
    for literal in (int(ends.min), int(ends.max) // 2, int(ends.max) - 1, int(ends.max)):
        for expr in (c >= literal, c > literal, c < literal, c <= literal, c == literal):
            mask = np.empty(stored.shape, np.bool_)
            gate_of(filter_of(expr, column_of(dtype, {})))(stored, mask)
            expected = pl.DataFrame({"v": stored}).select(expr).to_series().to_numpy()
            np.testing.assert_array_equal(mask, expected, str(expr))


def test_a_value_without_dimensions_has_a_gate():
    for dtype in ("i2", "f4"):
        mask = np.empty((), np.bool_)
        gate_of(filter_of(c > 3, column_of(dtype, {})))(np.array(5, dtype), mask)
        assert mask.item() is True


def test_nan_passes_where_polars_orders_it_above_all_numbers():
    stored = np.array([1, np.nan, 30], "f4")
    for attributes, expr, expected in [
        ({}, c > 20, [False, True, True]),
        ({}, c < 20, [True, False, False]),
        ({"_FillValue": float("nan")}, c > 20, [False, False, True]),
    ]:
        mask = np.empty(3, np.bool_)
        gate_of(filter_of(expr, column_of("f4", attributes)))(stored, mask)
        assert mask.tolist() == expected


def test_a_fill_value_beyond_the_bound_does_not_move_it():
    """1e20 is masked, and values between the bound and 1e20 pass."""
    stored = np.array([1, 21, 1e20, 1e21], "f4")
    mask = np.empty(4, np.bool_)
    gate_of(filter_of(c > 20, column_of("f4", {"_FillValue": np.float32(1e20)})))(stored, mask)
    assert mask[[1, 3]].all()
    assert not mask[0]


def test_packed_values_are_compared_as_they_are_stored():
    column = column_of("i2", {"scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768})
    stored = np.arange(-(2**15), 2**15, dtype="i2")
    for expr in (c > 303.7, c.is_in([280.0, 281.0]), (c * 2).sqrt() < 23, c.is_null(), c > 1e9):
        test = filter_of(expr, column)
        mask = np.empty(stored.shape, np.bool_)
        gate_of(test)(stored, mask)
        expected = evaluate(test, {"v": column.decoding.decode(stored).alias("v")}, len(stored)).to_numpy()
        np.testing.assert_array_equal(mask, expected)


@pytest.mark.parametrize(
    "expr", [c * 2 > 3, c > pl.col("w"), (c > 3) | (c < 1), c.is_in([1.0, 2.0]), c.sqrt() > 2], ids=str
)
def test_filters_without_a_known_bound_have_no_gate(expr):
    column = column_of("f4", {})
    names = expr.meta.root_names()
    assert gate_of(Filter(expr.meta.serialize(), tuple([column] * len(names)))) is None


def test_times_have_no_gate():
    column = column_of("i8", {"units": "days since 2000-01-01"})
    assert column.dtype == pl.Datetime("ns")
    assert gate_of(filter_of(c > datetime(2020, 1, 1), column)) is None
