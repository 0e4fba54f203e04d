"""Row space: keys that are variables, and aggregates that only rows answer."""

import dask
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.aggregation import cohorts
from rainbear_dask.engine import row_questions
from rainbear_dask.engine.rewriting import rewrite

c = pl.col
SMALL = pl.LazyFrame({"kind": ["a", "b"], "word": ["x", "y"]})


@pytest.fixture
def lf(url):
    return rd.scan_zarr(url)


# split in row space: always on a cluster, and on threads from some bytes on
ROW_FORMS = {
    "key of a variable": lambda t: t.group_by(c("plain").round()).agg(pl.len(), c("numbers").std()),
    "Boolean key in order": lambda t: t.group_by((c("plain") > 5).alias("hot"), maintain_order=True).agg(
        c("plain").mean(), c("short").sum()
    ),
    "struct of a variable and a coordinate": lambda t: t.group_by(pl.struct("flag", "kind")).agg(c("plain").max()),
    "keys of both kinds": lambda t: t.group_by("lat", "filled").agg(c("masked").mean(), c("masked").var().alias("v")),
    "first and last in order": lambda t: t.group_by("lat", maintain_order=True).agg(
        c("masked").first(), last=c("masked").last(), none=c("masked").filter(c("masked") > 1e9).first()
    ),
    "first of a filtered column": lambda t: t.group_by("zone").agg(c("plain").filter(c("masked") > 0).first()),
    "first of no row": lambda t: t.filter(c("plain") > 1e9).select(c("plain").first(), n=c("plain").n_unique()),
    "n_unique": lambda t: t.select(c("short", "kind", "masked", "lon").n_unique()),
    "n_unique of filtered values": lambda t: t.group_by("lat").agg(c("filled").filter(c("plain") > 6).n_unique()),
    "product": lambda t: t.group_by("kind").agg(c("byte").product(), p=(c("plain") / 5).cast(pl.Float64).product()),
    "min of texts": lambda t: t.select(c("kind").min(), last=c("kind").max()),
    "order after a value filter": lambda t: (
        t.filter(c("plain") > 5).group_by("lon", maintain_order=True).agg(pl.len(), c("plain").sum())
    ),
    "unique of a variable in order": lambda t: t.select("flag", "kind").unique(maintain_order=True),
    "filter above": lambda t: t.group_by("flag").agg(c("plain").mean()).filter(c("flag")),
    "renamed and computed": lambda t: (
        t.rename({"plain": "p"})
        .with_columns(hot=c("p") > 5)
        .group_by("hot")
        .agg(c("p").mean(), (c("numbers") * c("lat").abs()).sum() / c("lat").abs().sum())
    ),
    "a column with the name of a key": lambda t: (
        t.with_columns(key0=c("plain") > 5, _key0=c("byte")).group_by("key0").agg(c("_key0").mean())
    ),
    "sort below": lambda t: t.sort("plain").group_by("flag").agg(c("plain").mean()),
    "join below": lambda t: t.join(SMALL, on="kind").group_by("word", "flag").agg(c("plain").mean()),
    "a scalar key": lambda t: t.group_by("level").agg(c("plain").sum()),
    "windows of some values": lambda t: t.group_by_dynamic("time", every="1d").agg(c("kind").n_unique()),
}


# tasks hold whole groups, so any aggregate is final
WHOLE_FORMS = {
    "median": lambda t: t.group_by("lat").agg(c("plain").median()),
    "quantile of filtered rows": lambda t: (
        t.filter(c("plain") > 5).group_by("lat", "lon").agg(c("masked").quantile(0.9))
    ),
    "values": lambda t: t.group_by("time").agg(c("plain")),
    "lists": lambda t: t.group_by("lat").agg(c("plain").implode(), sorted=c("byte").sort()),
    "another ddof": lambda t: t.group_by("lat").agg(c("plain").std(ddof=0)),
    "in order of time": lambda t: t.group_by(c("time").dt.date(), maintain_order=True).agg(c("plain").median()),
    "windows in order": lambda t: t.group_by_dynamic("time", every="1d").agg(c("plain").median()),
    "several columns": lambda t: t.group_by("lat").agg(pl.selectors.float().median().name.suffix("_median")),
    "a name with a slash": lambda t: t.group_by("lat").agg(c("plain").median().alias("plain/median")),
    "no row": lambda t: t.filter(c("plain") > 1e9).group_by("lat").agg(c("plain").median()),
    "no label": lambda t: t.filter(c("lat") > 1e9).group_by("lat").agg(c("plain").median()),
    "two dimensions in one key": lambda t: t.group_by("zone").agg(c("plain").median()),
    "two values with one row": lambda t: t.group_by("lat").agg(c("plain").sort_by("masked").first(), pl.lit(1)),
}


@pytest.mark.parametrize("name", WHOLE_FORMS)
@pytest.mark.usefixtures("split_on_threads")
def test_named_forms_of_whole_groups(lf, url, name, monkeypatch):
    monkeypatch.setattr(cohorts, "MAX_WHOLE_TASKS", 1000)
    ask = WHOLE_FORMS[name]
    with dask.config.set({"rainbear-dask.task-bytes": 400}):
        done = rewrite(ask(lf))
        assert [part.space for part in done.parts] == ["rows"], done.parts
        found = done.query.collect()
    expected = ask(rd.scan_zarr(url).collect().lazy()).collect()
    assert_frame_equal(found, expected, check_row_order="in order" in name, rel_tol=1e-5, abs_tol=1e-4)


@pytest.mark.usefixtures("split_on_threads")
def test_tasks_hold_whole_groups_and_read_each_chunk_once(lf, monkeypatch):
    monkeypatch.setattr(cohorts, "MAX_WHOLE_TASKS", 1000)
    for key, num_tasks in [("lat", 3), ("lon", 2), ("time", 3), (c("time").dt.day() % 2, 1), ("zone", 1)]:
        with dask.config.set({"rainbear-dask.task-bytes": 1}):
            (part,) = rewrite(lf.group_by(key).agg(c("plain").median())).parts
        question = part.split.question
        tasks = list(question.tasks())
        assert len(tasks) == num_tasks
        (array,) = question.plan.arrays
        assert sum(task.num_chunks(array) for task in tasks) == array.num_chunks
        assert sum(task.num_rows for task in tasks) == 210


@pytest.mark.usefixtures("split_on_threads")
def test_whole_groups_are_left_to_polars_if_no_task_can_hold_them(lf):
    def reason(ask):
        with dask.config.set({"rainbear-dask.task-bytes": 1}):
            (part,) = rewrite(ask(lf)).parts
        assert part.split is None
        return part.reason

    assert "a task with whole groups would hold 84 rows" in reason(lambda t: t.group_by("lat").agg(c("plain").median()))
    assert "only groups by coordinates" in reason(lambda t: t.group_by("flag").agg(c("plain").median()))
    assert "the order of a sort" in reason(lambda t: t.sort("plain").group_by("lat").agg(c("plain").diff().sum()))
    assert "not aggregated" in reason(lambda t: t.select(c("plain").median()))


@pytest.mark.usefixtures("split_on_threads")
def test_whole_groups_in_another_order_than_the_rows_are_left_to_polars(lf, monkeypatch):
    monkeypatch.setattr(cohorts, "MAX_WHOLE_TASKS", 1000)
    with dask.config.set({"rainbear-dask.task-bytes": 1}):
        (part,) = rewrite(lf.group_by("lat", maintain_order=True).agg(c("plain").median())).parts
    assert "not in the order of the rows" in part.reason


@pytest.mark.parametrize("name", ROW_FORMS)
@pytest.mark.usefixtures("split_on_threads")
def test_named_forms_in_row_space(lf, url, name):
    ask = ROW_FORMS[name]
    with dask.config.set({"rainbear-dask.task-bytes": 1}):
        done = rewrite(ask(lf))
        assert [part.space for part in done.parts] == ["rows"], done.parts
        found = done.query.collect()
    expected = ask(rd.scan_zarr(url).collect().lazy()).collect()
    in_order = "in order" in name or "after" in name
    assert_frame_equal(found, expected, check_row_order=in_order, rel_tol=1e-5, abs_tol=1e-4)


LEFT_ALONE = {
    "first after a sort": lambda t: t.sort("plain").group_by("lat").agg(c("masked").first()),
    "order after a join": lambda t: t.join(SMALL, on="kind").group_by("flag", maintain_order=True).agg(pl.len()),
    "windows of sorted rows": lambda t: t.sort("time").group_by_dynamic("time", every="1d").agg(c("kind").n_unique()),
    "another ddof": lambda t: t.group_by("flag").agg(c("plain").std(ddof=0)),
    "values": lambda t: t.group_by("flag").agg(c("plain").sort()),
    "structs": lambda t: t.group_by("flag").agg(pl.struct("plain", "byte").n_unique()),
    "mean of times": lambda t: t.group_by("flag").agg(c("time").mean()),
}


@pytest.mark.parametrize("name", LEFT_ALONE)
@pytest.mark.usefixtures("split_on_threads")
def test_row_space_leaves_other_orders_and_unknown_aggregates_to_polars(lf, name):
    (part,) = rewrite(LEFT_ALONE[name](lf)).parts
    assert part.space is None
    assert part.reason


def test_threads_group_in_row_space_only_if_that_saves_memory(url, monkeypatch):
    """Threads hold all rows as fast as tasks reduce them. So only many rows, and few groups, are worth it."""
    few, many = (c("plain") > 5).alias("hot"), c("plain").round().alias("near")

    def space(key):
        (part,) = rewrite(rd.scan_zarr(url).group_by(key).agg(pl.len())).parts
        return part.space

    assert [space(few), space(many)] == [None, None]
    assert "so few rows" in rewrite(rd.scan_zarr(url).group_by(few).agg(pl.len())).parts[0].reason
    monkeypatch.setattr(row_questions, "MAX_BYTES_FOR_POLARS", 210 * 4 - 1)  # 210 rows of one variable
    assert [space(few), space(many)] == ["rows", None]
    assert [space(c("lat") + c("plain") * 0), space(c("byte")), space(c("kind"))] == [None, None, "array"]
    distinct = rewrite(rd.scan_zarr(url).group_by(few).agg(c("plain").n_unique())).parts[0]
    assert "nearly as large as the rows" in distinct.reason
    assert rewrite(rd.scan_zarr(url).group_by(few).agg(c("flag").n_unique())).parts[0].space == "rows"
    monkeypatch.setattr(row_questions, "MAX_BYTES_FOR_POLARS", 210 * 4)
    assert space(few) is None
