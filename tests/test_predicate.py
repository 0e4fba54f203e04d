"""The planner's promise: every row that matches is in the selection."""

from datetime import datetime
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from rainbear_dask.predicate import compile_predicate
from rainbear_dask.selection import Selection

c = pl.col
numbers = st.one_of(
    st.sampled_from([0.1, -0.1, 0.25, 0, 1, -3, 2.5, float("inf"), float("-inf")]),
    st.integers(-5, 5),
    st.floats(-5, 5, width=32),
)


@st.composite
def coordinate(draw, name: str) -> pl.Series:
    """A column with repeats, in no order, perhaps with NaN and null, of some numeric type."""
    dtype = draw(st.sampled_from([pl.Float32, pl.Float64, pl.Int8, pl.Int64, pl.UInt64]))
    whole = st.integers(0, 5) if dtype == pl.UInt64 else st.integers(-5, 5)
    values = whole if dtype.is_integer() else st.one_of(whole, st.sampled_from([0.1, 0.25, -2.5, float("nan")]))
    return pl.Series(name, draw(st.lists(values | st.none(), min_size=1, max_size=7)), dtype=dtype, strict=False)


def leaves(names: list[str]) -> st.SearchStrategy[pl.Expr]:
    column = st.sampled_from(names).map(lambda name: c(name))  # noqa: PLW0108  # c has any name that is asked of it
    term = (
        column
        | column.map(lambda e: e + 1)
        | column.map(lambda e: e.abs())
        | column.map(lambda e: e.cast(pl.Float64) * 0.1)
    )
    ops = st.sampled_from(["__lt__", "__le__", "__gt__", "__ge__", "__eq__", "__ne__"])
    return st.one_of(
        st.builds(lambda e, op, v: getattr(e, op)(v), term, ops, numbers),
        st.builds(lambda e, op, v: getattr(pl.lit(v), op)(e), term, ops, numbers),
        st.builds(
            lambda e, a, b, closed: e.is_between(a, b, closed),
            term,
            numbers,
            numbers,
            st.sampled_from(["both", "left", "right", "none"]),
        ),
        st.builds(lambda e, v: e.cast(pl.Float64).is_in(v), term, st.lists(numbers.map(float), max_size=4)),
        st.builds(lambda e: e.is_null(), term),
        st.builds(lambda e: e.cast(pl.Float64).is_nan(), term),
        st.builds(lambda a, b, op: getattr(a, op)(b), term, term, ops),  # perhaps of two dimensions
        st.sampled_from([pl.lit(True), pl.lit(False), pl.lit(None, dtype=pl.Boolean)]),
    )


def predicates(names: list[str]) -> st.SearchStrategy[pl.Expr]:
    return st.recursive(
        leaves(names),
        lambda inner: st.one_of(
            st.builds(lambda a, b: a & b, inner, inner),
            st.builds(lambda a, b: a | b, inner, inner),
            st.builds(lambda a: ~a, inner),
            st.builds(lambda a, b: a ^ b, inner, inner),
            st.builds(pl.any_horizontal, inner, inner),
        ),
        max_leaves=6,
    )


def ask(predicate: pl.Expr, y: pl.Series, x: pl.Series) -> tuple[set[int], set[int], Selection]:
    """Rows that match by Polars on the whole table, rows selected, and the selection."""
    rows = y.to_frame().join(x.to_frame(), how="cross", maintain_order="left_right").with_columns(v=pl.lit(1.5))
    matching = set(rows.with_row_index().filter(predicate)["index"].to_list())
    selection = compile_predicate(predicate, {"y": "y", "x": "x"}, {"y": y, "x": x}.__getitem__)
    mask = np.zeros((len(y), len(x)), dtype=bool)
    for box in selection.boxes:
        index = [box[d].positions() if d in box else np.arange(n) for d, n in zip("yx", mask.shape, strict=True)]
        mask[np.ix_(*index)] = True
    return matching, set(np.flatnonzero(mask).tolist()), selection


@pytest.mark.parametrize("most", [1, 2, 64])
@given(y=coordinate("y"), x=coordinate("x"), predicate=predicates(["y", "x", "v"]))
def test_selection_holds_every_matching_row(most, y, x, predicate):
    with mock.patch.object(Selection, "MAX_BOXES", most):
        matching, chosen, selection = ask(predicate, y, x)
    event("pruned" if len(chosen) < len(y) * len(x) else "everything")
    assert matching <= chosen
    if selection.exact:
        event("exact")
        assert matching == chosen


@given(y=coordinate("y"), x=coordinate("x"), predicate=predicates(["y"]))
def test_a_predicate_on_one_dimension_is_exact(y, x, predicate):
    matching, chosen, selection = ask(predicate, y, x)
    if "^" not in str(predicate) and "any_horizontal" not in str(predicate):
        assert selection.exact
    assert matching == chosen


HOURS = pl.Series("time", [datetime(2020, 1, 1 + h // 24, h % 24) for h in range(96)], dtype=pl.Datetime("ns"))
LON = pl.Series("lon", np.arange(0, 360, 2.5))


@pytest.mark.parametrize(
    ("predicate", "count"),
    [
        (c.time >= datetime(2020, 1, 3), 48),
        (c.time.is_between(datetime(2020, 1, 2), datetime(2020, 1, 3), closed="left"), 24),
        (c.time.dt.hour() == 7, 4),
        (c.time.dt.date() == datetime(2020, 1, 2).date(), 24),
        (c.time.dt.truncate("1d") == datetime(2020, 1, 4), 24),
        (c.time.dt.strftime("%H") == "05", 4),
        (c.time.cast(pl.Int64) == 1577836800000000000, 1),
        (c.time.is_in([datetime(2020, 1, 1), datetime(2021, 1, 1)]), 1),
        (~(c.time < datetime(2020, 1, 4)), 24),
    ],
)
def test_times_prune_in_any_form(predicate, count):
    selection = compile_predicate(predicate, {"time": "time"}, lambda _: HOURS)
    assert selection.exact
    assert [len(box["time"]) for box in selection.boxes] == [count]


@pytest.mark.parametrize(
    ("predicate", "count"),
    [
        (((c.lon + 180) % 360 - 180).is_between(-10, 10), 9),
        ((c.lon - 180).abs() < 5, 3),
        (c.lon.cast(pl.Int32) == 357, 1),
        (c.lon.round() == 2, 1),
        (c.lon.cast(pl.String).str.ends_with(".5"), 72),
        (c.lon.map_elements(lambda v: {True: 1}.get(v > 350) == 1, return_dtype=pl.Boolean), 3),
    ],
)
def test_arithmetic_casts_and_functions_prune(predicate, count):
    selection = compile_predicate(predicate, {"lon": "lon"}, lambda _: LON)
    assert selection.exact
    assert [len(box["lon"]) for box in selection.boxes] == [count]


def test_an_unknown_side_of_and_is_ignored_and_of_or_selects_all():
    dims, read = {"lon": "lon"}, lambda _: LON
    assert (
        compile_predicate((c.lon < 5) & (c.v > 1), dims, read).boxes == compile_predicate(c.lon < 5, dims, read).boxes
    )
    assert compile_predicate((c.lon < 5) | (c.v > 1), dims, read).boxes == ({},)


def test_only_coordinates_that_are_named_are_read():
    asked = []

    def read(name):
        asked.append(name)
        return LON.alias(name)

    compile_predicate((c.lon < 5) & (c.v > 1), {"lon": "lon", "lat": "lat"}, read)
    assert asked == ["lon"]


def test_a_leaf_that_polars_cannot_evaluate_selects_everything():
    selection = compile_predicate(c.lon.str.to_datetime() > datetime(2020, 1, 1), {"lon": "lon"}, lambda _: LON)
    assert selection == Selection.everything()


def test_a_chain_of_many_conjuncts_is_read():
    predicate = pl.all_horizontal(c.lon >= 0)
    for bound in range(600):
        predicate &= c.lon != bound
    assert len(compile_predicate(predicate, {"lon": "lon"}, lambda _: LON).boxes[0]["lon"]) == 72
