"""Questions with many groups: answered piece by piece, in memory that the groups of one piece bound."""

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.aggregation import answer, cohorts
from rainbear_dask.engine.rewriting import rewrite

c = pl.col
SIZES = {"time": 96, "lat": 12, "lon": 16}
LAYOUTS = {
    "a step": {"time": 1, "lat": 12, "lon": 16},
    "all steps": {"time": 96, "lat": 3, "lon": 4},
    "a day": {"time": 24, "lat": 6, "lon": 8},
}
BY_HOUR = ["lat", "lon", c("time").dt.hour().alias("hour")]


@pytest.fixture(params=LAYOUTS)
def layout(request, tmp_path):
    """Hourly values on a grid, in chunks of one layout."""
    rng = np.random.default_rng(5)
    data = xr.Dataset(
        {"x": (tuple(SIZES), rng.standard_normal(tuple(SIZES.values())).astype("f4"))},
        {
            "time": np.datetime64("2024-01-01", "ns") + np.arange(SIZES["time"]) * np.timedelta64(1, "h"),
            "lat": np.linspace(80, -80, SIZES["lat"]),
            "lon": np.arange(float(SIZES["lon"])),
        },
    )
    data.to_zarr(tmp_path / "a.zarr", zarr_format=2, encoding={"x": {"chunks": tuple(LAYOUTS[request.param].values())}})
    return request.param, tmp_path / "a.zarr"


def watched(monkeypatch):
    """Record the bytes of the states that answers hold after each task, and how many answers are finished."""
    held, finished = [], []
    add, frame = answer.Answer.add, answer.Answer.frame

    def watched_add(self, partial):
        add(self, partial)
        held.append(self.nbytes + partial.nbytes)

    def watched_frame(self):
        finished.append(self.nbytes)
        return frame(self)

    monkeypatch.setattr(answer.Answer, "add", watched_add)
    monkeypatch.setattr(answer.Answer, "frame", watched_frame)
    return held, finished


def test_memory_holds_a_task_and_a_cohort(layout, monkeypatch):
    """A climatology by cell and hour, as 0.25 degrees and 24 hours have 25 million groups."""
    name, url = layout
    monkeypatch.setattr(cohorts, "COHORT_BYTES", 8192)
    query = rd.scan_zarr(url).group_by(BY_HOUR).agg(c("x").mean(), c("x").max().alias("high"))
    expected = query.collect()
    (part,) = rewrite(query).parts
    assert part.space == "array"
    all_bytes = part.split.question.group_bytes * expected.height
    found = list(cohorts.cohorts(part.split.question))
    held, finished = watched(monkeypatch)
    with dask.config.set({"rainbear-dask.task-bytes": 2000}):
        actual = rd.collect(query)
    assert_frame_equal(actual, expected, check_row_order=False, rel_tol=1e-5)
    assert len(finished) == len(found)
    if name == "a day":  # all hours of a chunk's cells are in one chunk
        assert len(found) == 4
        assert max(held) <= all_bytes / 4 * 2
    else:
        assert len(found) >= 12
        assert max(finished) <= 8192
        assert max(held) <= 2 * 8192


def test_cohorts_hold_each_row_once_and_share_no_group(layout):
    _, url = layout
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohorts, "COHORT_BYTES", 3000)
        for filtered in (False, True):
            table = rd.scan_zarr(url)
            if filtered:
                table = table.filter((c("lat") > 0) | (c("lon") < 3), c("time").dt.hour() < 7)
            question = rewrite(table.group_by(BY_HOUR).agg(c("x").mean())).parts[0].split.question
            shape = tuple(block.keys.height for block in question.blocks)
            groups, num_rows = set(), 0
            for cohort in cohorts.cohorts(question):
                tasks = list(cohort.tasks)
                assert len(tasks) == cohort.num_tasks
                num_rows += sum(task.num_rows for task in tasks)
                mine = set(np.ravel_multi_index(np.ix_(*cohort.groups), shape).ravel().tolist())
                assert not mine & groups
                groups |= mine
                for task in tasks:
                    assert all(
                        set(block.groups) <= set(own) for block, own in zip(task.blocks, cohort.groups, strict=True)
                    )
            assert num_rows == question.plan.counts.rows_selected


def test_an_answer_of_many_groups_streams_and_stops(layout, monkeypatch):
    _, url = layout
    monkeypatch.setattr(cohorts, "COHORT_BYTES", 3000)
    _, finished = watched(monkeypatch)
    query = rd.rewrite(rd.scan_zarr(url).group_by(BY_HOUR).agg(c("x").mean()))
    assert query.head(5).collect().height == 5
    assert len(finished) == 1
    assert rd.rewrite(rd.scan_zarr(url).filter(c("lat") > 99).group_by(BY_HOUR).agg(c("x").sum())).collect().is_empty()
    with pytest.raises(rd.exceptions.PlanTooLargeError, match="max_rows exceeded"):
        rd.collect(rd.scan_zarr(url, max_rows=400).group_by(BY_HOUR).agg(c("x").mean()))
    assert len(finished) < 12


def test_groups_in_the_order_of_rows_are_one_cohort(layout, monkeypatch):
    _, url = layout
    query = rd.scan_zarr(url).group_by(BY_HOUR, maintain_order=True).agg(c("x").max())
    expected = query.collect()
    monkeypatch.setattr(cohorts, "COHORT_BYTES", 3000)
    (part,) = rewrite(query).parts
    assert len(list(cohorts.cohorts(part.split.question))) == 1
    assert_frame_equal(rd.collect(query), expected)
    monkeypatch.setattr(cohorts, "MAX_GROUPS", 12 * 16 * 24 - 1)
    assert "4,608 groups share chunks" in rewrite(query).parts[0].reason


def test_more_groups_than_the_limit_are_answered_if_no_cohort_has_them(layout, monkeypatch):
    name, url = layout
    query = rd.scan_zarr(url).group_by(BY_HOUR).agg(c("x").max())
    monkeypatch.setattr(cohorts, "COHORT_BYTES", 3000)
    monkeypatch.setattr(cohorts, "MAX_GROUPS", 400)
    (part,) = rewrite(query).parts
    assert (part.space is None) == (name == "a day")
    assert_frame_equal(rd.collect(query), query.collect(), check_row_order=False)
