"""Boxes of scattered cells: none is lost, exact ones hold no other, and wider ones read no other chunk if possible."""

import numpy as np
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.indexing.cells import selection_of_cells
from rainbear_dask.indexing.selection import Selection

DIMS = ("t", "y", "x")


@st.composite
def cases(draw):
    num_dims = draw(st.integers(1, 3))
    cell = st.tuples(*[st.integers(0, 11)] * num_dims)
    cells = sorted(draw(st.sets(cell, min_size=1, max_size=60)))
    lengths = dict(zip(DIMS, draw(st.tuples(*[st.integers(3, 7)] * 3)), strict=True))
    return DIMS[:num_dims], np.array(cells, dtype=np.int64).reshape(-1, num_dims), lengths


def held(dims, selection, length=12):
    mask = np.zeros([length] * len(dims), dtype=bool)
    for box in selection.boxes:
        mask[np.ix_(*(box[dim].positions() for dim in dims))] = True
    return mask


def chunks_of(mask, dims, lengths):
    return {tuple(at // lengths[dim] for at, dim in zip(cell, dims, strict=True)) for cell in np.argwhere(mask)}


@given(case=cases(), most=st.sampled_from([1, 4, 9, 1024]))
def test_no_cell_is_lost_and_boxes_are_few(case, most):
    dims, cells, lengths = case
    wanted = np.zeros([12] * len(dims), dtype=bool)
    wanted[tuple(cells.T)] = True
    original = Selection.MAX_BOXES
    Selection.MAX_BOXES = most
    try:
        found = selection_of_cells(dims, cells, lengths, dict.fromkeys(dims, 12))
    finally:
        Selection.MAX_BOXES = original
    mask = held(dims, found)
    assert mask[wanted].all()
    assert len(found.boxes) <= most
    if found.exact:
        assert (mask == wanted).all()
    elif len(chunks_of(wanted, dims, lengths)) <= most:
        assert chunks_of(mask, dims, lengths) == chunks_of(wanted, dims, lengths)
    if most == 1024:
        assert found.exact


def test_a_product_is_one_box():
    cells = np.argwhere(np.ones((3, 4, 5), dtype=bool)).astype(np.int64)
    found = selection_of_cells(DIMS, cells, dict.fromkeys(DIMS, 2), dict(zip(DIMS, (3, 4, 5), strict=True)))
    assert found.exact
    assert len(found.boxes) == 1


def test_more_chunks_than_boxes_end_in_a_wider_selection():
    rng = np.random.default_rng(0)
    cells = np.unique(rng.integers(0, 4000, (5000, 2)), axis=0)
    found = selection_of_cells(("y", "x"), cells, {"y": 1, "x": 1}, {"y": 4000, "x": 4000})
    assert not found.exact
    assert 1 <= len(found.boxes) <= Selection.MAX_BOXES
