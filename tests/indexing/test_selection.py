"""Index sets and selections against Python's own sets."""

from itertools import pairwise, product
from unittest import mock

import numpy as np
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Selection

SIZES = {"t": 9, "y": 7, "x": 8}
positions = st.sets(st.integers(0, 30))
lengths = st.integers(1, 9)


def index_set(members) -> IndexSet:
    mask = np.zeros(40, dtype=bool)
    mask[list(members)] = True
    return IndexSet.from_mask(mask)


def members(index: IndexSet) -> set[int]:
    return set(index.positions().tolist())


@given(positions, positions)
def test_set_operations_are_those_of_sets(a, b):
    assert members(index_set(a) & index_set(b)) == a & b
    assert members(index_set(a) | index_set(b)) == a | b
    assert len(index_set(a)) == len(a)
    assert bool(index_set(a)) == bool(a)


@given(positions, positions)
def test_equal_sets_compare_and_hash_equal_however_they_were_made(a, b):
    one, other = index_set(a) | index_set(b), index_set(a | b)
    assert one == other
    assert hash(one) == hash(other)
    assert (index_set(a) == index_set(b)) == (a == b)


@given(st.lists(st.tuples(st.integers(0, 20), st.integers(0, 20))))
def test_any_spans_make_their_union(spans):
    assert members(IndexSet.from_spans(spans)) == {i for a, b in spans for i in range(a, b)}


@given(positions, st.integers(0, 30), st.integers(0, 30))
def test_meeting_a_span_keeps_what_lies_in_it(a, start, stop):
    assert members(index_set(a) & IndexSet.span(start, stop)) == {i for i in a if start <= i < stop}


@given(positions, st.integers(0, 12))
def test_first_keeps_the_lowest(a, count):
    assert index_set(a).first(count).positions().tolist() == sorted(a)[:count]


@given(positions, st.lists(st.integers(0, 40), min_size=2).map(sorted))
def test_split_cuts_by_rank(a, cuts):
    pieces = [piece.positions().tolist() for piece in index_set(a).split(cuts)]
    assert pieces == [sorted(a)[start:stop] for start, stop in pairwise(cuts)]


@given(positions, st.lists(st.integers(0, 40)))
def test_count_below_counts(a, bounds):
    counted = index_set(a).count_below(np.array(bounds, dtype=np.int64)).tolist()
    assert counted == [sum(i < bound for i in a) for bound in bounds]


@given(positions)
def test_at_gives_the_position_of_each_rank(a):
    ranks = np.arange(len(a), dtype=np.int64)[::-1]
    assert index_set(a).at(ranks).tolist() == sorted(a, reverse=True)


@given(st.lists(positions, min_size=1))
def test_union_holds_what_any_of_the_sets_holds(several):
    assert members(IndexSet.union(index_set(one) for one in several)) == set().union(*several)


@given(positions, positions, lengths)
def test_within_chunks_keeps_what_lies_in_them(a, chunks, size):
    assert members(index_set(a).within_chunks(index_set(chunks), size)) == {i for i in a if i // size in chunks}


@given(positions, lengths)
def test_chunks_are_those_that_hold_a_position(a, size):
    assert members(index_set(a).chunks(size)) == {i // size for i in a}


@given(positions, lengths)
def test_runs_cover_the_set_and_touch_no_other_chunk(a, size):
    runs = index_set(a).runs(size)
    covered = [i for start, stop in runs for i in range(start, stop)]
    assert len(covered) == len(set(covered))
    assert a <= set(covered)
    assert {i // size for i in covered} == {i // size for i in a}


@pytest.mark.parametrize("spans", [([3], [3]), ([1, 2], [2, 4]), ([5, 1], [6, 2])])
def test_an_index_set_is_in_normal_form_or_does_not_exist(spans):
    with pytest.raises(ValueError, match="sorted, disjoint"):
        IndexSet(*(np.array(part, dtype=np.int64) for part in spans))


boxes = st.dictionaries(st.sampled_from(sorted(SIZES)), st.sets(st.integers(0, 6), min_size=1), min_size=0, max_size=3)
unions = st.lists(boxes, max_size=4)


def selection(union) -> Selection:
    whole = Selection.nothing()
    for box in union:
        part = Selection.everything(exact=True)
        for dim, wanted in box.items():
            part &= Selection.along(dim, index_set(wanted))
        whole |= part
    return whole


def cells(boxes) -> set[tuple[int, ...]]:
    return {
        cell for box in boxes for cell in product(*(sorted(box[d]) if d in box else range(n) for d, n in SIZES.items()))
    }


def selected(sel: Selection) -> set[tuple[int, ...]]:
    return cells([{d: members(index) for d, index in box.items()} for box in sel.boxes])


@given(unions, unions)
def test_selections_combine_as_sets_of_cells(a, b):
    assert selected(selection(a) & selection(b)) == cells(a) & cells(b)
    assert selected(selection(a) | selection(b)) == cells(a) | cells(b)
    assert (selection(a) & selection(b)).exact
    assert (selection(a) | selection(b)).exact


@pytest.mark.parametrize("most", [1, 2, 3])
@given(unions, unions)
def test_a_budget_widens_and_says_that_it_is_not_exact(most, a, b):
    with mock.patch.object(Selection, "MAX_BOXES", most):
        for combined, wanted in [
            (selection(a) & selection(b), cells(a) & cells(b)),
            (selection(a) | selection(b), cells(a) | cells(b)),
        ]:
            assert selected(combined) >= wanted
            assert not combined.exact or selected(combined) == wanted
            assert len(combined.boxes) <= most


def test_what_is_not_known_stays_not_exact():
    unknown, known = Selection.everything(), Selection.along("t", index_set({1}))
    assert not (unknown & known).exact
    assert not (unknown | known).exact
    assert (unknown & known).boxes == known.boxes
    assert selected(unknown | known) == cells([{}])


def test_boxes_that_differ_in_one_dimension_become_one():
    corner = Selection.along("y", index_set({0})) & Selection.along("x", index_set({1}))
    beside = Selection.along("y", index_set({3})) & Selection.along("x", index_set({1}))
    assert len((corner | beside).boxes) == 1
