"""Columns of a box against NumPy's broadcasting."""

import gc
from math import prod

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

from rainbear_dask.table import tidy
from rainbear_dask.table.tidy import nest, pick, spread

boxes = st.permutations("tyx").flatmap(
    lambda dims: st.fixed_dictionaries({d: st.integers(0, 4) for d in dims[: 1 + len(dims) // 2 + 1]})
)
makers = st.sampled_from(
    [
        lambda n: pl.Series("v", np.arange(n, dtype="f4")),
        lambda n: pl.Series("v", [None if i % 3 == 1 else i for i in range(n)], dtype=pl.Int16),
        lambda n: pl.Series("v", [f"s{i}" for i in range(n)], dtype=pl.String),
        lambda n: pl.Series("v", [i % 2 == 0 for i in range(n)], dtype=pl.Boolean),
        lambda n: pl.Series("v", np.arange(n)).cast(pl.Datetime("ns")),
    ]
)


@given(boxes, makers, st.data())
def test_spread_and_pick_are_broadcasting(box, make, data):
    dims = tuple(data.draw(st.lists(st.sampled_from(sorted(box)), unique=True)))
    values = make(prod(box[d] for d in dims))
    places = np.arange(len(values)).reshape([box[d] for d in dims])
    order = [d for d in box if d in dims]
    cube = places.transpose([dims.index(d) for d in order]).reshape([box[d] if d in dims else 1 for d in box])
    everywhere = np.broadcast_to(cube, tuple(box.values())).reshape(-1)
    expected = values.gather(everywhere.tolist())
    assert_series_equal(spread(values, dims, box), expected)
    rows = np.array([i for i in range(len(everywhere)) if i % 3 != 1], dtype=np.int64)
    assert_series_equal(pick(values, dims, box, rows), expected.gather(rows.tolist()))


def test_an_array_over_the_whole_box_is_not_copied():
    values = np.zeros((3, 4))
    column = spread(pl.Series("v", values.reshape(-1)), ("y", "x"), {"y": 3, "x": 4})
    assert np.shares_memory(column.to_numpy(), values)


BOX = {"t": 6, "y": 20, "x": 30}


def column(values=None, dims=("y",), box=BOX, name="lat"):
    values = np.linspace(-1, 1, prod(box[d] for d in dims)) if values is None else values
    return spread(pl.Series(name, values), dims, box)


@pytest.mark.parametrize("name", ["lat", "other"])
def test_what_is_repeated_often_is_in_memory_once(name):
    first = column()
    second = column(name=name)
    assert np.shares_memory(first.to_numpy(), second.to_numpy())
    assert second.name == name
    assert_series_equal(first, second, check_names=False)


@pytest.mark.parametrize(
    "other",
    [
        {"values": np.linspace(-1, 1, 20) + 1e-9},
        {"values": np.linspace(-1, 1, 20).astype("f4")},
        {"values": np.linspace(-1, 1, 20).view("i8")},
        {"dims": ("t",)},
        {"box": {"t": 20, "y": 20, "x": 18}},
        {"box": {"y": 20, "t": 20, "x": 9}},
    ],
)
def test_what_differs_is_not_shared(other):
    box = {"t": 20, "y": 20, "x": 9}
    first, second = column(box=box), column(**({"box": box} | other))
    assert not np.shares_memory(first.to_numpy(), second.to_numpy())
    assert first.to_list() == np.broadcast_to(np.linspace(-1, 1, 20)[:, None], (20, 20, 9)).reshape(-1).tolist()


def test_what_is_repeated_is_not_kept():
    gc.collect()
    before = len(tidy._shared)
    one = column()
    assert len(tidy._shared) == before + 1
    del one
    assert len(tidy._shared) == before


CHANGES = {
    "plus": pl.col("lat") + 1,
    "minus": -pl.col("lat"),
    "clip": pl.col("lat").clip(0, 0.1),
    "round": pl.col("lat").round(0),
    "sort": pl.col("lat").sort(descending=True),
    "sum": pl.col("lat").cum_sum(),
    "when": pl.when(pl.col("lat") > 0).then(7.0).otherwise(pl.col("lat")),
}


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize("change", CHANGES.values(), ids=CHANGES)
def test_who_changes_a_column_changes_it_for_nobody_else(change, engine):
    kept, expected = column(), column().to_list()
    frame = pl.DataFrame([column()])
    frame.lazy().with_columns(change).collect(engine=engine)
    question = frame.lazy().select(change)
    del frame
    question.collect(engine=engine)
    assert kept.to_list() == expected


def test_a_column_in_several_frames_is_changed_in_none():
    kept, expected = column(), column().to_list()
    mine = column()
    mine[0] = 99.0
    mine += 1
    mine.scatter([1], 5.0)
    mine.sort(in_place=True)
    with pytest.raises(ValueError, match="read-only"):
        column().to_numpy()[0] = 99
    column().to_numpy(writable=True)[:] = 99
    assert kept.to_list() == column().to_list() == expected


def test_paths_become_nested_structs_in_place():
    frame = pl.DataFrame({"t": [1], "a/u": [2], "v": [3], "a/b/w": [4], "a/b/x": [5]})
    expected = pl.DataFrame({"t": [1], "a": [{"u": 2, "b": {"w": 4, "x": 5}}], "v": [3]})
    assert_frame_equal(nest(frame), expected)


@pytest.mark.parametrize("frame", [pl.DataFrame({"t": [1, 2]}), pl.DataFrame(height=3)])
def test_a_frame_without_paths_stays_as_it_is(frame):
    assert nest(frame) is frame
