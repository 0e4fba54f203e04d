"""Cohorts: sets of positions that share no group and no chunk."""

from itertools import pairwise

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.aggregation.cohorts import _connected, joined
from rainbear_dask.indexing.index_set import IndexSet


def connected_by_search(codes, unit):
    """Grow each set from its first position until no neighbour is left."""
    left, found = {i for i, code in enumerate(codes) if code >= 0}, []
    while left:
        reached = {min(left)}
        while True:
            more = {i for i in left if any(codes[i] == codes[j] or i // unit == j // unit for j in reached)}
            if more <= reached:
                break
            reached |= more
        found.append(sorted(reached))
        left -= reached
    return found


@given(st.lists(st.integers(-1, 9), max_size=40), st.integers(1, 7))
def test_connected_positions_share_a_group_or_a_chunk(codes, unit):
    found = _connected(np.array(codes, dtype=np.int32), unit)
    assert [one.positions().tolist() for one in found] == connected_by_search(codes, unit)


def test_a_long_chain_of_groups_is_connected():
    (one,) = _connected((np.arange(100_000, dtype=np.int32) + 1) // 2, 2)
    assert len(one) == 100_000
    hours = _connected(np.tile(np.arange(24, dtype=np.int32), 31), 1)
    assert [len(one) for one in hours] == [31] * 24
    assert len(_connected(np.tile(np.arange(24, dtype=np.int32), 31), 24)) == 1


@given(st.lists(st.lists(st.integers(1, 5), min_size=1, max_size=6), min_size=1, max_size=3), st.integers(1, 60))
def test_joined_sets_hold_the_same_positions_within_the_limit(lengths, limit):
    sets, weights = {}, {}
    for number, some in enumerate(lengths):
        ends = np.cumsum([0, *some])
        sets[number] = [IndexSet.span(int(a), int(b)) for a, b in pairwise(ends)]
        weights[number] = some
    found = joined(sets, weights, limit)
    assert list(found) == list(sets)
    for dim, some in found.items():
        assert IndexSet.union(some) == IndexSet.union(sets[dim])
        assert sum(map(len, some)) == sum(lengths[dim])
    largest = np.prod([max(map(len, some)) for some in found.values()])
    assert largest <= max(limit, np.prod([max(some) for some in lengths]))
