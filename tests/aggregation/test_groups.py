"""Reductions over groups equal a loop over the cells."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.aggregation.groups import BlockCodes, TaskGroups, renumbered


@st.composite
def grouped_boxes(draw):
    """A box, blocks of some of its axes, and a place in it."""
    box = draw(st.lists(st.integers(1, 5), min_size=0, max_size=4).map(tuple))
    axes = draw(st.permutations(range(len(box))))
    blocks, rest = [], list(axes)
    while rest and draw(st.booleans()):
        count = draw(st.integers(1, min(2, len(rest))))
        mine, rest = tuple(sorted(rest[:count])), rest[count:]
        shape = tuple(box[axis] for axis in mine)
        size = int(np.prod(shape))
        codes = draw(st.lists(st.integers(0, draw(st.integers(0, 6))), min_size=size, max_size=size))
        groups, codes = renumbered(np.array(codes), max(codes) + 1)
        blocks.append(BlockCodes(mine, codes.reshape(shape), np.arange(len(groups), dtype=np.int32)))
    place = []
    for length in box:
        start = draw(st.integers(0, length - 1))
        place.append(slice(start, draw(st.integers(start + 1, length))))
    return box, blocks, tuple(place)


def groups_of(blocks, place):
    """Each cell of a place, with its group."""
    for cell in np.ndindex(*(one.stop - one.start for one in place)):
        there = tuple(one.start + i for one, i in zip(place, cell, strict=True))
        yield cell, tuple(int(block.codes[tuple(there[axis] for axis in block.axes)]) for block in blocks)


@given(found=grouped_boxes(), data=st.data())
def test_a_reduction_is_that_of_a_loop(found, data):
    box, blocks, place = found
    groups = TaskGroups(box, blocks)
    reducer = groups.reducer(place)
    lengths = [one.stop - one.start for one in place]
    shape = [length if data.draw(st.booleans()) else 1 for length in lengths]
    values = np.random.default_rng(len(box)).integers(-9, 9, shape).astype("i2")
    full = np.broadcast_to(values, lengths)
    for operation, start in ((np.add, 0), (np.minimum, 99), (np.maximum, -99)):
        expected = np.full(groups.shape, start, np.int64)
        for cell, group in groups_of(blocks, place):
            expected[group] = operation(expected[group], full[cell])
        actual = np.full(groups.shape, start, np.int64)
        actual[reducer.at] = operation(actual[reducer.at], reducer.reduce(values, operation, np.int64))
        np.testing.assert_array_equal(actual, expected)


@given(found=grouped_boxes())
def test_cells_are_counted_and_values_of_groups_spread(found):
    box, blocks, place = found
    groups = TaskGroups(box, blocks)
    reducer = groups.reducer(place)
    expected = np.zeros(groups.shape, np.int64)
    for _, group in groups_of(blocks, place):
        expected[group] += 1
    counted = np.zeros(groups.shape, np.int64)
    counted[reducer.at] = reducer.counts
    np.testing.assert_array_equal(counted, expected)

    numbers = np.arange(int(np.prod(groups.shape))).reshape(groups.shape)
    spread = np.broadcast_to(reducer.spread(numbers[reducer.at]), reducer.box)
    for cell, group in groups_of(blocks, place):
        assert spread[cell] == numbers[group]

    factor, vectors = groups.counts
    whole = np.array(factor)
    for vector in vectors:
        whole = np.multiply.outer(whole, vector)
    np.testing.assert_array_equal(whole, groups.reducer(tuple(slice(0, n) for n in box)).counts)


@given(codes=st.lists(st.integers(0, 20), min_size=1))
def test_codes_are_renumbered_as_by_numpy(codes):
    groups, local = renumbered(np.array(codes), 21)
    expected, inverse = np.unique(codes, return_inverse=True)
    np.testing.assert_array_equal(groups, expected)
    np.testing.assert_array_equal(local, inverse)
