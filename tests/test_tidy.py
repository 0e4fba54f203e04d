"""Columns of a box against NumPy's broadcasting."""

from math import prod

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

from rainbear_dask.tidy import nest, pick, spread

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


def test_paths_become_nested_structs_in_place():
    frame = pl.DataFrame({"t": [1], "a/u": [2], "v": [3], "a/b/w": [4], "a/b/x": [5]})
    expected = pl.DataFrame({"t": [1], "a": [{"u": 2, "b": {"w": 4, "x": 5}}], "v": [3]})
    assert_frame_equal(nest(frame), expected)


@pytest.mark.parametrize("frame", [pl.DataFrame({"t": [1, 2]}), pl.DataFrame(height=3)])
def test_a_frame_without_paths_stays_as_it_is(frame):
    assert nest(frame) is frame
