"""Unions of boxes in units of a grid: counts equal a brute-force count, and widening loses no cell."""

from unittest import mock

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.indexing import blocks as blocks_module
from rainbear_dask.indexing.blocks import Blocks, simplified
from rainbear_dask.indexing.selection import Selection
from tests.support.boxes import SIZES, boxes, index_sets, wanted

grids = st.fixed_dictionaries({d: st.integers(1, n) for d, n in SIZES.items()})


def units_of(cells: np.ndarray, grid) -> set[tuple[int, ...]]:
    return {tuple(int(i) // grid[d] for i, d in zip(cell, SIZES, strict=True)) for cell in np.argwhere(cells)}


@given(boxes, grids, st.lists(st.integers(0, 9), min_size=1, max_size=4))
def test_units_of_a_union_are_counted_without_making_them(some, grid, bounds):
    some = [box for box in some if all(mask.any() for mask in box.values())]
    union = np.any([wanted(box) for box in some], axis=0) if some else np.zeros(tuple(SIZES.values()), dtype=bool)
    units = units_of(union, grid)
    blocks = Blocks(SIZES, grid, [index_sets(box) for box in some])
    places = list(blocks.places())
    assert set(places) == units
    assert blocks.num_units == len(units) == len(places)
    assert blocks.num_rows >= int(union.sum())
    assert Blocks(SIZES, dict.fromkeys(SIZES, 1), [index_sets(box) for box in some]).num_rows == int(union.sum())
    if len(some) == 1:
        assert blocks.num_rows == int(union.sum())
    assert blocks.units_before(np.array(bounds)).tolist() == [sum(u[0] < bound for u in units) for bound in bounds]


@given(boxes, grids, st.integers(0, 40))
def test_a_selection_that_takes_long_to_cut_is_widened(some, grid, effort):
    some = [box for box in some if all(mask.any() for mask in box.values())]
    selection = Selection(tuple(map(index_sets, some)), exact=True)
    with mock.patch.object(blocks_module, "MAX_EFFORT", effort):
        found = simplified(selection, SIZES, [{dim: grid[dim] for dim in SIZES}])
    held = np.zeros(tuple(SIZES.values()), dtype=bool)
    for box in found.boxes:
        held[np.ix_(*(box[d].positions() if d in box else np.arange(n) for d, n in SIZES.items()))] = True
    assert all((wanted(box) <= held).all() for box in some)
    assert found is selection or not found.exact
    assert len(found.boxes) < 2 or not Blocks(SIZES, grid, found.boxes).exceeds(effort)
