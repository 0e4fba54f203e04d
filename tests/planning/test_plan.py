"""Plans: tasks cover the selection once, no chunk is touched in vain, and counts are known beforehand."""

from dataclasses import replace
from itertools import pairwise, product
from math import prod
from unittest import mock

import numpy as np
import polars as pl
import pytest
from hypothesis import given
from hypothesis import strategies as st

from rainbear_dask.diagnostics.explain import as_text
from rainbear_dask.diagnostics.report import Report
from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.indexing import blocks as blocks_module
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Selection
from rainbear_dask.metadata.model import ArrayMeta, StoreMeta
from rainbear_dask.planning.limits import Limits, check_limits
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.predicate import Conjunct
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.build import build_table
from rainbear_dask.table.model import Table
from tests.support.boxes import SIZES, boxes, index_sets, wanted


def array(path, dims, chunks, *, shards=None, sizes=SIZES) -> ArrayMeta:
    shape = tuple(sizes[d] for d in dims)
    return ArrayMeta(path, dims, shape, chunks, shards, np.dtype("f4"), None, {}, "")


def table(*arrays: ArrayMeta) -> Table:
    meta = StoreMeta(StoreSpec("a.zarr", None, "1"), {a.path: a for a in arrays}, {"": {}}, {})
    return build_table(meta, read=lambda _: np.zeros(0), sample=lambda _: np.zeros(0))


def plan_of(tab: Table, *selections: Selection, **options):
    """Return a plan for a filter whose conjuncts have these selections; an inexact one names the first variable."""
    variable = next(name for name, column in tab.columns.items() if column.role == "data")
    conjuncts = [
        Conjunct(pl.col("t" if s.exact else variable) > 0, s, "" if s.exact else "needs it") for s in selections
    ]
    return ReadPlan(tab, tab.leaves(None), tuple(conjuncts), **options)


def test_a_whole_table_is_cut_along_the_first_dimension_so_that_rows_are_in_c_order():
    sizes = {"t": 100, "y": 10, "x": 10}
    tab = table(array("v", ("t", "y", "x"), (1, 5, 5), sizes=sizes))
    plan = plan_of(tab, task_bytes=5000)
    hulls = [tuple(p.hull for p in task.index) for task in plan.tasks()]
    assert {h[1:] for h in hulls} == {((0, 10), (0, 10))}
    assert [(a, b) for (a, b), *_ in hulls] == list(pairwise([a for (a, _), *_ in hulls] + [100]))
    assert 1 < len(hulls) < 100
    assert plan.counts.num_tasks == len(hulls)


@pytest.mark.parametrize("shards", [None, (9, 7, 8)])
def test_counts_are_those_of_the_inner_chunks(shards):
    plan = plan_of(
        table(array("v", ("t", "y", "x"), (3, 7, 2), shards=shards)), Selection.along("x", IndexSet.span(3, 5))
    )
    assert plan.counts.num_chunks_kept == 3 * 2
    assert plan.counts.num_chunks == 3 * 4
    assert plan.counts.bytes_kept == 6 * 3 * 7 * 2 * 4
    assert plan.counts.max_rows == 9 * 7 * 2


def test_sparse_positions_share_a_task():
    sizes = {"t": 10_000}
    tab = table(array("v", ("t",), (1,), sizes=sizes))
    every_100th = IndexSet.from_mask(np.arange(10_000) % 100 == 0)
    assert plan_of(tab, Selection.along("t", every_100th)).counts.num_tasks == 1


@pytest.mark.parametrize("limit", [0, 1, 5, 8, 9, 55, 56, 57, 111, 112, 113, 500, 504, 600])
def test_a_limit_cuts_tasks_to_the_rows_wanted(limit):
    tab = table(array("v", ("t", "y", "x"), (1, 7, 8)))
    tasks = list(plan_of(tab, limit=limit, task_bytes=500).tasks())
    rows = [cell for task in tasks for cell in product(*(p.positions().tolist() for p in task.index))]
    assert rows[:limit] == list(product(*(range(n) for n in SIZES.values())))[:limit]
    assert len(rows) < limit + 8


@pytest.mark.parametrize("chunks", [(1, 7, 8), (2, 7, 3), (9, 2, 8), (1, 2, 3), (9, 7, 2)])
@pytest.mark.parametrize("exact", [True, False])
def test_with_a_limit_the_first_task_is_short_and_all_rows_are_there_in_the_same_order(chunks, exact):
    tab = table(array("v", ("t", "y", "x"), chunks))
    some = Selection(({"t": IndexSet.span(1, 8), "x": IndexSet.span(1, 7)},), exact=exact)
    plan = plan_of(tab, some, task_bytes=1500)
    limited = replace(plan, limit=10_000)
    rows = [[cell for task in p.tasks() for cell in rows_of(task)] for p in (plan, limited)]
    assert rows[1] == rows[0] == sorted(rows[0])
    assert next(limited.tasks()).num_rows <= next(plan.tasks()).num_rows


def test_a_limit_does_not_cut_what_is_still_to_be_filtered():
    tab = table(array("v", ("t", "y", "x"), (1, 7, 8)))
    plan = plan_of(tab, Selection.everything(), limit=1)
    assert sum(task.num_rows for task in plan.tasks()) == prod(SIZES.values())


def test_exact_boxes_need_no_filter_however_they_overlap():
    tab = table(array("v", ("t", "y", "x"), (3, 7, 8)))
    early, low = Selection.along("t", IndexSet.span(0, 4)), Selection.along("x", IndexSet.span(0, 2))
    for selection, num_rows in [(early & low, 4 * 7 * 2), (early | low, 4 * 7 * 8 + 5 * 7 * 2)]:
        tasks = list(plan_of(tab, selection).tasks())
        assert not any(task.scan.filters for task in tasks)
        assert sum(task.num_rows for task in tasks) == num_rows


def test_the_filter_sees_the_first_rows_of_the_table():
    tab = table(array("v", ("t", "y", "x"), (3, 7, 8)))
    low = Selection.along("x", IndexSet.span(0, 2))
    for most, effort in [(1024, 2**17), (1, 2**17), (1024, 0)]:
        with mock.patch.object(Selection, "MAX_BOXES", most), mock.patch.object(blocks_module, "MAX_EFFORT", effort):
            plan = plan_of(tab, low, head=3 * 56 + 2 * 8 + 1)
            tasks = list(plan.tasks())
        cells = [cell for task in tasks for cell in rows_of(task)]
        first = list(product(*map(range, SIZES.values())))[: 3 * 56 + 2 * 8 + 1]
        if all(task.scan.filters for task in tasks):
            assert cells == first
        else:
            assert cells == [cell for cell in first if cell[2] < 2]
        assert plan.counts.num_chunks_kept == 2


def rows_of(task) -> list[tuple[int, ...]]:
    """Cells of a task in the order of the table, which is in C order."""
    boxes = task.boxes or [task.index]
    return sorted({cell for box in boxes for cell in product(*(p.positions().tolist() for p in box))})


@pytest.mark.parametrize("effort", [0, 10, 2**17])
@pytest.mark.parametrize("most", [1, 2, 1024])
@given(st.lists(st.tuples(boxes, st.booleans()), max_size=3), st.integers(1, 3000))
def test_a_filter_is_left_out_only_where_every_row_passes_it(most, effort, parts, task_bytes):
    tab = table(array("v", tuple(SIZES), (2, 3, 3)))
    selections = [
        Selection(tuple(index_sets(box) for box in some if all(m.any() for m in box.values())), exact)
        for some, exact in parts
    ]
    masks = [
        np.any(
            [wanted(b) for b in some if all(m.any() for m in b.values())] or [np.zeros(tuple(SIZES.values()), bool)],
            axis=0,
        )
        for some, _ in parts
    ]
    conjuncts = [Conjunct(pl.col("v") > i, selection, "") for i, selection in enumerate(selections)]
    with mock.patch.object(Selection, "MAX_BOXES", most), mock.patch.object(blocks_module, "MAX_EFFORT", effort):
        tasks = list(ReadPlan(tab, tab.leaves(None), tuple(conjuncts), task_bytes=task_bytes).tasks())
    seen = np.zeros(tuple(SIZES.values()), dtype=int)
    for task in tasks:
        cells = tuple(np.array(rows_of(task)).T)
        seen[cells] += 1
        left = {test.predicate for test in task.scan.filters}
        for conjunct, mask in zip(conjuncts, masks, strict=True):
            assert conjunct.expr.meta.serialize() in left or mask[cells].all()
    assert seen.max(initial=0) <= 1
    assert (seen[np.all(masks, axis=0) if masks else ...] == 1).all()


def test_different_chunk_grids_are_cut_at_a_common_multiple():
    plan = plan_of(table(array("a", ("t", "y"), (2, 7)), array("b", ("t", "y"), (3, 7))))
    starts = [task.index[0].hull for task in replace(plan, task_bytes=1).tasks()]
    assert starts == [(0, 6), (6, 9)]


def test_over_the_limit_of_chunks_nothing_is_run():
    plan = plan_of(table(array("v", ("t", "y", "x"), (3, 7, 2)), array("w", ("t", "y", "x"), (3, 7, 2))))
    check_limits(plan, Limits(chunks=12))
    with pytest.raises(PlanTooLargeError, match="max_chunks_to_read exceeded: 12 chunks needed, limit is 11") as caught:
        check_limits(plan, Limits(chunks=11))
    assert isinstance(caught.value, ValueError)
    assert isinstance(caught.value, pl.exceptions.ComputeError)


def test_the_report_says_that_counts_are_upper_bounds():
    tab = table(array("v", ("t", "y", "x"), (1, 1, 1)))
    corners = [{d: IndexSet.span(i, i + 2) for d in SIZES} for i in range(5)]
    plan = plan_of(tab, Selection(tuple(corners), exact=True))
    assert plan.selection.exact
    assert "upper bounds" not in as_text(Report(plan), "threads")
    with mock.patch.object(blocks_module, "MAX_EFFORT", 20):
        rough = replace(plan)
        assert rough.counts.num_chunks_kept > plan.counts.num_chunks_kept
        assert "counts are upper bounds" in as_text(Report(rough), "threads")
    assert all(task.scan.filters for task in rough.tasks())


def test_the_report_names_chunks_rows_tasks_and_columns():
    plan = plan_of(table(array("v", ("t", "y", "x"), (3, 7, 2))), Selection.along("t", IndexSet.span(0, 2)))
    report = as_text(Report(plan), "threads")
    assert "4 of 12" in report
    assert "112 at most, of 504" in report
    assert "t, y, x, v" in report
