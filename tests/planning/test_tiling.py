"""Tiles hold each selected row once, and are intervals of the row order for every selection."""

from itertools import product
from math import prod
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.planning import tiling
from rainbear_dask.planning.tiling import Tiling
from rainbear_dask.table.order import in_order
from tests.support.oracle import ranked

SIZES = {"t": 9, "y": 7, "x": 8}
SHAPE = tuple(SIZES.values())
masks = {d: st.lists(st.booleans(), min_size=n, max_size=n).filter(any).map(np.array) for d, n in SIZES.items()}
boxes = st.lists(st.fixed_dictionaries({}, optional=masks), max_size=4)


def cells_of(index) -> list[tuple[int, ...]]:
    return list(product(*(positions.positions().tolist() for positions in index)))


def rows_of(tile) -> set[tuple[int, ...]]:
    """Cells of a tile."""
    return {cell for box in tile.boxes or [tile.index] for cell in cells_of(box)}


@st.composite
def tilings(draw, *, may_straddle=False):
    """A tiling of a random union of boxes, the union, and its arguments."""
    some = draw(boxes, label="boxes")
    grains = {d: draw(st.integers(1, n), label="grain") for d, n in SIZES.items()}
    lengths = {
        d: draw(st.integers(1, n)) if may_straddle else min(n, grains[d] * draw(st.integers(1, n)))
        for d, n in SIZES.items()
    }
    shards = {d: draw(st.sampled_from([0, grains[d], 2 * grains[d], 3 * grains[d]])) for d in SIZES}
    budget = draw(st.integers(1, 60), label="budget")
    union = np.zeros(SHAPE, dtype=bool)
    for box in some:
        union[np.ix_(*(np.flatnonzero(box[d]) if d in box else np.arange(n) for d, n in SIZES.items()))] = True
    chosen = [{d: IndexSet.from_mask(mask) for d, mask in box.items()} for box in some]
    return Tiling(SIZES, lengths, grains, chosen, budget=budget, shards=shards), union, lengths, grains, budget


limits = st.fixed_dictionaries(
    {
        "MAX_CELLS": st.sampled_from([1, 20, 2**24]),
        "MAX_SORTED": st.sampled_from([0, 20, 2**18]),
        "_MAX_COLUMNS": st.sampled_from([2, 2**12]),
    }
)


@given(tilings(may_straddle=True), limits)
def test_tiles_are_stretches_of_the_order_of_rows(found, limited):
    cut, union, lengths, *_ = found
    with mock.patch.multiple(tiling, **limited):
        tiles, small = list(cut), list(cut.from_small())
        assert cut.num_tiles == len(tiles)
    place = np.empty(SHAPE, dtype=int)
    place.reshape(-1)[ranked(SHAPE, tuple(lengths.values()))] = np.arange(union.size)
    for some in (tiles, small):
        ranks = [sorted(int(place[cell]) for cell in rows_of(tile)) for tile in some]
        assert [rank for tile in ranks for rank in tile] == sorted(place[union].tolist())
    for tile in tiles:
        assert tile.index == tuple(
            IndexSet.from_positions(np.array(along)) for along in zip(*rows_of(tile), strict=True)
        )


@given(tilings(), limits)
def test_no_unit_of_the_grid_is_in_two_tiles(found, limited):
    cut, _, _, grains, _ = found
    with mock.patch.multiple(tiling, **limited):
        units = [
            {tuple(i // grains[d] for i, d in zip(cell, SIZES, strict=True)) for cell in rows_of(tile)} for tile in cut
        ]
    assert sum(map(len, units)) == len(set().union(*units))


@given(tilings(), limits)
def test_a_tile_over_its_bounds_cannot_be_cut(found, limited):
    cut, _, lengths, grains, budget = found
    with mock.patch.multiple(tiling, **limited):
        tiles = list(cut)
        most = cut.max_units
    for tile in tiles:
        units = {tuple(i // grains[d] for i, d in zip(cell, SIZES, strict=True)) for cell in rows_of(tile)}
        product_cells = prod(map(len, tile.index))
        blocks = tuple(lengths.values())
        assert len(units) <= most
        is_large = len(units) > budget or (tile.boxes and product_cells > limited["MAX_CELLS"])
        if is_large or (not in_order(tile.index, blocks) and product_cells > limited["MAX_SORTED"]):
            several = [(len(one) > 1, len(one.chunks(grains[d])) > 1) for one, d in zip(tile.index, SIZES, strict=True)]
            first = next((axis for axis, (positions, _) in enumerate(several) if positions), None)
            assert first is None or not several[first][1]
            assert in_order(tile.index, blocks)


@given(tilings())
def test_tiles_grow_from_one_unit_for_a_caller_whom_the_first_rows_may_satisfy(found):
    cut, _, _, grains, budget = found
    allowed = 1
    for tile in cut.from_small():
        units = prod(len(one.chunks(grains[d])) for one, d in zip(tile.index, SIZES, strict=True))
        if not tile.boxes and units <= budget:
            several = [len(one) > 1 for one in tile.index]
            cuttable = any(len(one.chunks(grains[d])) > 1 for one, d in zip(tile.index, SIZES, strict=True))
            first = several.index(True) if any(several) else 0
            if cuttable and len(tile.index[first].chunks(list(grains.values())[first])) > 1:
                assert units <= allowed
        allowed = min(2 * allowed, budget)


@pytest.mark.parametrize("chunk", [1, 3])
def test_the_number_of_tiles_of_a_large_table_is_counted_without_making_them(chunk):
    sizes = {"t": 10**9, "y": 1000, "x": 1000}
    grains = {"t": chunk, "y": 100, "x": 100}
    cut = Tiling(sizes, sizes, grains, [{}], budget=1000)
    assert cut.num_tiles == pytest.approx(10**9 / chunk / 10, rel=0.01)
    assert next(iter(cut)).index[0] == IndexSet.span(0, 10 * chunk)


def test_columns_that_boxes_fill_in_part_are_counted_one_by_one():
    sizes, grains = {"t": 8, "y": 4}, {"t": 2, "y": 2}
    scattered = IndexSet.from_positions(np.array([0, 1, 4, 6]))  # two of each block, in one unit and in two
    cut = Tiling(sizes, {"t": 4, "y": 4}, grains, [{"t": scattered}], budget=1)
    assert cut.num_tiles == len(list(cut)) == 5


def test_tiles_end_with_shards():
    sizes = {"t": 100, "y": 10}
    cut = Tiling(sizes, sizes, {"t": 5, "y": 10}, [{}], budget=5, shards={"t": 20, "y": 10})
    assert [tile.index[0].hull for tile in cut] == [(i, i + 20) for i in range(0, 100, 20)]


def test_scattered_positions_share_a_tile():
    sizes = {"t": 10_000, "y": 10}
    every_100th = IndexSet.from_mask(np.arange(10_000) % 100 == 0)
    cut = Tiling(sizes, sizes, {"t": 1, "y": 10}, [{"t": every_100th}], budget=100)
    (tile,) = cut
    assert tile.index == (every_100th, IndexSet.span(0, 10))


def test_a_tile_of_few_rows_has_parts_of_several_blocks():
    sizes = {"t": 512, "y": 256}
    lengths = {"t": 512, "y": 64}
    some = IndexSet.from_mask(np.arange(256) % 50 == 0)
    cut = Tiling(sizes, lengths, {"t": 512, "y": 1}, [{"y": some}], budget=100)
    assert [tile.index[1] for tile in cut] == [some]
    with mock.patch.object(tiling, "MAX_SORTED", 0):
        assert [len(tile.index[1]) for tile in cut] == [2, 1, 1, 2]
