"""The planner's promise: every row that matches is in the selection."""

from datetime import datetime
from functools import reduce
from operator import and_, xor
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import event, given
from hypothesis import strategies as st

from rainbear_dask.indexing.selection import Selection
from rainbear_dask.planning import predicate as predicate_module
from rainbear_dask.planning.predicate import compile_predicate
from rainbear_dask.table.tidy import spread

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
    column = st.sampled_from(names).map(lambda name: c(name))  # noqa: PLW0108  # c has every attribute
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
    sizes = {"y": len(y), "x": len(x)}
    conjuncts = compile_predicate(predicate, {"y": ("y",), "x": ("x",)}, sizes, {"y": y, "x": x}.__getitem__)
    selection = reduce(and_, (conjunct.selection for conjunct in conjuncts))
    mask = np.zeros((len(y), len(x)), dtype=bool)
    for box in selection.boxes:
        index = [box[d].positions() if d in box else np.arange(n) for d, n in zip("yx", mask.shape, strict=True)]
        mask[np.ix_(*index)] = True
    return matching, set(np.flatnonzero(mask).tolist()), selection


@pytest.mark.parametrize("most", [1, 2, 1024])
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
    assert selection.exact
    assert matching == chosen


def select(predicate: pl.Expr, values: pl.Series) -> Selection:
    """What a predicate selects along one dimension."""
    name = values.name
    conjuncts = compile_predicate(predicate, {name: (name,)}, {name: len(values)}, lambda _: values)
    return reduce(and_, (conjunct.selection for conjunct in conjuncts))


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
    selection = select(predicate, HOURS)
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
    selection = select(predicate, LON)
    assert selection.exact
    assert [len(box["lon"]) for box in selection.boxes] == [count]


def test_a_missing_value_passes_neither_a_predicate_nor_its_negation():
    values = pl.Series("y", [1.0, None, 3.0])
    for predicate, found in ((c.y > 2, [2]), (~(c.y > 2), [0]), (~((c.y > 2) & (c.y > 1)), [0])):
        selection = select(predicate, values)
        assert selection.exact
        assert [box["y"].positions().tolist() for box in selection.boxes] == [found]


def test_an_unknown_side_of_and_is_ignored_and_of_or_selects_all():
    assert select((c.lon < 5) & (c.v > 1), LON).boxes == select(c.lon < 5, LON).boxes
    assert select((c.lon < 5) | (c.v > 1), LON).boxes == ({},)


def test_conjuncts_say_what_stands_in_the_way():
    conjuncts = compile_predicate((c.lon < 5) & (c.v > c.u), {"lon": ("lon",)}, {"lon": 144}, lambda _: LON)
    assert [(conjunct.selection.exact, conjunct.obstacle) for conjunct in conjuncts] == [
        (True, ""),
        (False, "it needs v, u"),
    ]


def test_only_coordinates_that_are_named_are_read():
    asked = []

    def read(name):
        asked.append(name)
        return LON.alias(name)

    compile_predicate((c.lon < 5) & (c.v > 1), {"lon": ("lon",), "lat": ("lat",)}, {"lat": 3, "lon": 144}, read)
    assert asked == ["lon"]


def test_a_leaf_that_polars_cannot_evaluate_selects_everything():
    assert select(c.lon.str.to_datetime() > datetime(2020, 1, 1), LON) == Selection.everything()


def test_a_chain_of_many_conjuncts_is_read():
    predicate = c.lon >= 0
    for bound in range(600):
        predicate &= c.lon != bound
    assert len(select(predicate, LON).boxes[0]["lon"]) == 72


def nested(depth: int) -> pl.Expr:
    predicate = c.lon < 5
    for bound in range(depth):
        predicate = (predicate & (c.lon != bound)) | (c.v == bound)
    return predicate


def test_connectives_within_others_to_any_depth_lose_no_row():
    assert select(nested(20), LON) == Selection.everything()
    assert select(nested(2000), LON) == Selection.everything()


def test_a_chain_of_many_xors_is_read():
    odd = reduce(xor, [c.lon == bound for bound in range(60)])
    assert len(select(odd, LON).boxes[0]["lon"]) == 12
    assert len(select(odd ^ (c.v > 0), LON).boxes[0]["lon"]) == len(LON)


# ---------------------------------------------------------------------- several dimensions together

Y, X = 6, 8
PLANE = {"y": ("y",), "x": ("x",), "lat": ("y", "x"), "lon": ("x", "y"), "name": ("x",), "height": ()}
PLANE_VALUES = {
    "y": pl.Series("y", np.arange(Y)),
    "x": pl.Series("x", np.arange(X)),
    "lat": pl.Series("lat", (np.arange(Y)[:, None] * 2.0 + np.arange(X)[None] * 0.3).reshape(-1)),
    "lon": pl.Series("lon", (np.arange(X)[:, None] * 2.0 - np.arange(Y)[None] * 0.4).reshape(-1)),
    "name": pl.Series("name", list("abcdabcd")),
    "height": pl.Series("height", [2.0]),
}


def plane_rows() -> pl.DataFrame:
    box = {"y": Y, "x": X}
    return pl.DataFrame([spread(PLANE_VALUES[name], dims, box) for name, dims in PLANE.items()]).with_columns(
        v=pl.lit(1.0)
    )


plane_predicates = predicates(["y", "x", "lat", "lon", "height", "v"])


@pytest.mark.parametrize("most", [1, 3, 1024])
@pytest.mark.parametrize("cells", [1, 2**23])
@given(predicate=plane_predicates)
def test_selection_holds_every_matching_row_of_a_plane(most, cells, predicate):
    with mock.patch.object(Selection, "MAX_BOXES", most), mock.patch.object(predicate_module, "MAX_CELLS", cells):
        conjuncts = compile_predicate(predicate, PLANE, {"y": Y, "x": X}, PLANE_VALUES.__getitem__)
    selection = reduce(and_, (conjunct.selection for conjunct in conjuncts))
    matching = np.zeros(Y * X, dtype=bool)
    matching[plane_rows().with_row_index().filter(predicate)["index"].to_numpy()] = True
    chosen = np.zeros((Y, X), dtype=bool)
    for box in selection.boxes:
        chosen[np.ix_(*(box[d].positions() if d in box else np.arange(n) for d, n in (("y", Y), ("x", X))))] = True
    assert (matching <= chosen.reshape(-1)).all()
    if selection.exact:
        assert (matching == chosen.reshape(-1)).all()
    if most == 1024 and cells > 1 and "v" not in predicate.meta.root_names():
        assert selection.exact


def test_parts_on_the_same_plane_are_one_conjunct():
    inside = c.lat.is_between(4, 8) & (c.x > 1) & c.lon.is_between(3, 9) & (c.y > 1) & (c.v > 0)
    conjuncts = compile_predicate(inside, PLANE, {"y": Y, "x": X}, PLANE_VALUES.__getitem__)
    assert [set(conjunct.expr.meta.root_names()) for conjunct in conjuncts] == [{"lat", "lon"}, {"x"}, {"y"}, {"v"}]
