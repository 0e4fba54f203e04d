"""Chunk grids against brute force: every position of a region or a selection is looked up by itself."""

from itertools import product
from math import lcm, prod

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.indexing.chunk_grid import (
    ChunkGrid,
    common_lengths,
    finest_lengths,
    longest_shards,
    part_of_region,
)
from rainbear_dask.indexing.index_set import IndexSet

NAMES = ("t", "y", "x")


@st.composite
def grids(draw):
    """A grid of up to three dimensions, some without a position, perhaps with shards."""
    dims = draw(st.permutations(NAMES))[: draw(st.integers(0, len(NAMES)))]
    shape = tuple(draw(st.integers(0, 9)) for _ in dims)
    chunks = tuple(draw(st.integers(1, 5)) for _ in dims)
    shards = draw(st.none() | st.tuples(*(st.sampled_from([c, 2 * c, 3 * c]) for c in chunks)))
    return ChunkGrid(tuple(dims), shape, chunks, shards)


@st.composite
def regions(draw):
    """A grid, and a region of its array."""
    grid = draw(grids())
    ends = [sorted((draw(st.integers(0, n)), draw(st.integers(0, n)))) for n in grid.shape]
    return grid, tuple((start, stop) for start, stop in ends)


def chunks_of(cells, chunks) -> set[tuple[int, ...]]:
    """Chunks of some cells."""
    return {tuple(i // size for i, size in zip(cell, chunks, strict=True)) for cell in cells}


def cells_of(region) -> set[tuple[int, ...]]:
    return set(product(*(range(start, stop) for start, stop in region)))


@given(regions())
def test_the_chunks_of_a_region_are_those_of_its_positions(drawn):
    grid, region = drawn
    for one in (grid, grid.stored):
        expected = chunks_of(cells_of(region), one.chunks)
        found = [index for index, _, _ in one.iter_chunks(region)]
        assert found == sorted(expected)
        assert one.count_in(region) == len(expected)
        assert set(product(*one.touched(region))) == expected


@given(regions())
def test_the_parts_of_a_region_put_each_value_once_to_its_place(drawn):
    grid, region = drawn
    values = np.arange(prod(grid.shape)).reshape(grid.shape)
    wanted = values[tuple(slice(*span) for span in region)]
    for one in (grid, grid.stored):
        out, times = np.full(wanted.shape, -1), np.zeros(wanted.shape, dtype=int)
        for index, inside, place in one.iter_chunks(region):
            chunk = values[tuple(slice(*span) for span in one.extent(index))]
            out[place] = chunk[tuple(slice(*span) for span in inside)]
            times[place] += 1
            assert (values[tuple(slice(*span) for span in part_of_region(region, place))] == out[place]).all()
        assert (out == wanted).all()
        assert (times == 1).all()


@given(
    grids(), st.lists(st.fixed_dictionaries({}, optional=dict.fromkeys(NAMES, st.sets(st.integers(0, 8)))), max_size=3)
)
def test_the_chunks_of_a_selection_are_those_of_its_positions(grid, some):
    boxes = [{d: {i for i in held if i < grid.sizes.get(d, 9)} for d, held in box.items()} for box in some]
    boxes = [box for box in boxes if all(box.values())]
    cells = {cell for box in boxes for cell in product(*(sorted(box.get(d, range(n))) for d, n in grid.sizes.items()))}
    sets = [{d: IndexSet.from_positions(np.array(sorted(held))) for d, held in box.items()} for box in boxes]
    assert grid.count(sets) == len(chunks_of(cells, grid.chunks))
    assert set(grid.blocks(sets).places()) == chunks_of(cells, grid.chunks)


@given(grids())
def test_the_whole_array_is_all_chunks(grid):
    whole = tuple((0, n) for n in grid.shape)
    assert grid.num_chunks == grid.count_in(whole) == grid.count([{}]) == len(chunks_of(cells_of(whole), grid.chunks))
    assert [grid.along(d).num_chunks for d in grid.dims] == [axis.num_chunks for axis in grid.axes]
    assert set().union(*(cells_of(grid.extent(index)) for index, _, _ in grid.iter_chunks(whole))) == cells_of(whole)
    if grid.shards is not None:
        assert [grid.along(d).shard for d in grid.dims] == list(grid.stored.chunks)


def test_an_array_without_dimensions_has_one_chunk():
    grid = ChunkGrid((), (), ())
    ((index, inside, place),) = grid.iter_chunks(())
    assert (index, inside, grid.num_chunks, grid.count([]), grid.count([{}])) == ((), (), 1, 0, 1)
    assert isinstance(np.zeros(())[place], np.ndarray)


def test_a_dimension_without_positions_has_no_chunk():
    grid = ChunkGrid(("t", "x"), (0, 4), (3, 2))
    assert grid.num_chunks == grid.count([{}]) == grid.count_in(((0, 0), (0, 4))) == 0
    assert list(grid.iter_chunks(((0, 0), (0, 4)))) == []


@given(st.integers(1, 12), st.integers(1, 12), st.integers(1, 30))
def test_a_chunk_is_read_once_for_each_part_that_it_touches(chunk, cut, repeats):
    length = lcm(chunk, cut) * repeats
    grid = ChunkGrid(("t",), (length,), (chunk,))
    reads = sum(grid.count_in(((start, start + cut),)) for start in range(0, length, cut))
    assert grid.reads_per_chunk({"t": cut}) == pytest.approx(reads / grid.num_chunks)
    assert grid.reads_per_chunk({"x": cut}) == 1


@given(st.lists(grids(), max_size=3))
def test_what_grids_have_in_common_is_that_of_each_dimension(some):
    sizes = {"t": 40, "y": 0, "x": 7, "z": 3}
    common, finest, shards = common_lengths(sizes, some), finest_lengths(sizes, some), longest_shards(list(sizes), some)
    for dim, size in sizes.items():
        lengths = [one.along(dim).chunk for one in some if dim in one.dims]
        assert shards[dim] == max([0, *(one.along(dim).shard for one in some if dim in one.dims)])
        assert finest[dim] == min(lengths, default=max(size, 1))
        if not lengths:
            assert common[dim] == max(size, 1)
        elif lcm(*lengths) <= 4 * max(lengths):
            assert common[dim] == max(min(lcm(*lengths), size), 1)
        else:
            assert common[dim] == max(min(4 * max(lengths), size), 1)


@st.composite
def chunk_masks(draw):
    """A grid, and a mask of its chunks."""
    grid = draw(grids())
    flat = draw(st.lists(st.booleans(), min_size=grid.num_chunks, max_size=grid.num_chunks))
    return grid, np.array(flat, dtype=bool).reshape(grid.counts)


@given(chunk_masks())
def test_selected_chunks_are_the_chunks_of_the_mask(drawn):
    grid, mask = drawn
    selection = grid.select_chunks(mask)
    assert np.array_equal(grid.touched_by(selection.boxes), mask)
    wanted = mask
    for axis, (length, chunk) in enumerate(zip(grid.shape, grid.chunks, strict=True)):
        wanted = np.repeat(wanted, chunk, axis=axis).take(range(length), axis=axis)
    found = np.zeros(grid.shape, dtype=bool)
    for box in selection.boxes:
        along = [box[d].positions() if d in box else np.arange(n) for d, n in grid.sizes.items()]
        found[np.ix_(*along)] = True
    assert np.array_equal(found, wanted)


def test_scattered_chunks_take_few_boxes():
    grid = ChunkGrid(("t", "y", "x"), (4000, 12, 12), (4, 4, 4))
    mask = np.random.default_rng(0).random(grid.counts) < 0.1
    selection = grid.select_chunks(mask)
    assert len(selection.boxes) <= 9
    assert grid.count(selection.boxes) == mask.sum()
