"""Rows have one order, whatever is asked, and limits hold where they stand: before or after a filter."""

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.execution import survivors, worker
from rainbear_dask.planning import predicate
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.query.io_source import plans_of
from rainbear_dask.table import order
from tests.support.oracle import ranked

c = pl.col
ENGINES = pytest.mark.parametrize("engine", ["in-memory", "streaming"])
SHAPE = (8, 6, 10)


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """A table in C order: time, two dimensions, two variables on different chunk grids, a coordinate of two dimensions."""
    path = str(tmp_path_factory.mktemp("order") / "a.zarr")
    values = np.arange(np.prod(SHAPE), dtype="f8").reshape(SHAPE)
    lat = np.random.default_rng(0).random(SHAPE[1:])
    grid = xr.Dataset(
        {"v": (("t", "y", "x"), values), "w": (("t", "y", "x"), values % 7)},
        {d: np.arange(n) for d, n in zip("tyx", SHAPE, strict=True)} | {"lat": (("y", "x"), lat)},
    )
    encoding = {"v": {"chunks": (2, 3, 5)}, "w": {"chunks": (8, 2, 2)}}
    grid.to_zarr(path, encoding=encoding, consolidated=False)
    return path


LONG = (64, 32, 32)


@pytest.fixture
def blocks(tmp_path, monkeypatch) -> str:
    """A table whose chunks are too long in time for C order: here, blocks of 256 KiB are."""
    monkeypatch.setattr(order, "BLOCK_BYTES", 2**18)
    path = str(tmp_path / "blocks.zarr")
    values = np.arange(np.prod(LONG), dtype="f4").reshape(LONG)
    grid = xr.Dataset({"v": (("t", "y", "x"), values)}, {d: np.arange(n) for d, n in zip("tyx", LONG, strict=True)})
    grid.to_zarr(path, encoding={"v": {"chunks": (64, 4, 4)}}, consolidated=False)
    return path


QUESTIONS = {
    "or": lambda t: t.filter((c.t == 3) | (c.x == 7)),
    "xor": lambda t: t.filter((c.t > 3) ^ (c.x == 7)),
    "not both": lambda t: t.filter(~((c.t > 3) & (c.x < 7))),
    "in": lambda t: t.filter(c.y.is_in([0, 2, 5]) & c.x.is_in([1, 8])),
    "2-D coordinate": lambda t: t.filter(c.lat > 0.5),
    "two dimensions together": lambda t: t.filter((c.t + c.x) % 5 == 0),
    "value": lambda t: t.filter(c.v % 11 < 3),
    "value or coordinate": lambda t: t.filter((c.w == 2) | (c.y == 4)),
    "nothing": lambda t: t,
}
PARTS = {
    "rows": lambda t: t,
    "head": lambda t: t.head(7),
    "slice": lambda t: t.slice(5, 20),
    "tail": lambda t: t.tail(9),
    "row numbers": lambda t: t.with_row_index(),
    "running sum": lambda t: t.with_columns(c.v.cum_sum().alias("sum")),
    "every third": lambda t: t.gather_every(3),
    "first and last of each": lambda t: t.group_by("y", maintain_order=True).agg(c.v.first(), c.w.last().alias("last")),
    "one column": lambda t: t.select("w"),
}


@ENGINES
@pytest.mark.parametrize("part", PARTS)
@pytest.mark.parametrize("question", QUESTIONS)
def test_what_a_filter_leaves_is_in_the_order_of_the_table(path, question, part, engine):
    def ask(table):
        return PARTS[part](QUESTIONS[question](table))

    whole = rd.scan_zarr(path).collect()
    with dask.config.set({"rainbear-dask.task-bytes": 500}):
        assert_frame_equal(
            ask(rd.scan_zarr(path)).collect(engine=engine), ask(whole.lazy()).collect(), check_exact=True
        )


@pytest.mark.parametrize("block_bytes", [2**10, order.BLOCK_BYTES])
@pytest.mark.parametrize("task_bytes", [1, 1000, 2**26])
def test_columns_of_different_chunk_grids_side_by_side_belong_together(path, monkeypatch, task_bytes, block_bytes):
    monkeypatch.setattr(order, "BLOCK_BYTES", block_bytes)
    with dask.config.set({"rainbear-dask.task-bytes": task_bytes}):
        lf = rd.scan_zarr(path)
        side = pl.concat([lf.select("v"), lf.select("w"), lf.select("t", "lat")], how="horizontal").collect()
    assert_frame_equal(side, lf.select("v", "w", "t", "lat").collect())


def test_a_table_of_long_chunks_is_in_the_order_that_is_said_of_it(blocks):
    lf = rd.scan_zarr(blocks)
    (plan,) = plans_of(lf)
    lengths = tuple(plan.table.blocks.values())
    assert lengths == (64, 16, 32)
    assert "C order of t, y, x in blocks of 64 x 16 x 32" in str(rd.explain(lf))
    values = np.arange(np.prod(LONG), dtype="f4")
    assert np.array_equal(lf.select("v").collect()["v"].to_numpy(), values[ranked(LONG, lengths)])


@pytest.mark.parametrize(
    "question",
    [
        c.y.is_in([3, 30]),
        c.y.is_between(12, 20) & (c.x == 5),
        (c.t == 4) | ((c.y > 10) & (c.x == 1)),
        c.t.is_in([1, 50]),
        (c.v % 997 == 1),
    ],
    ids=str,
)
def test_what_lies_in_several_blocks_is_put_in_order(blocks, question):
    lf = rd.scan_zarr(blocks)
    expected = lf.collect().filter(question)
    assert_frame_equal(lf.filter(question).collect(), expected, check_exact=True)
    assert_frame_equal(lf.filter(question).select("x", "v").head(99).collect(), expected.select("x", "v").head(99))


LIMITS = {
    "head, filter of a coordinate": lambda t: t.head(130).filter(c.x == 7),
    "head, filter of a value": lambda t: t.head(130).filter(c.v % 3 == 0),
    "limit": lambda t: t.limit(1).filter(c.x == 0),
    "first": lambda t: t.first().filter(c.x == 1),
    "head of nothing": lambda t: t.head(0).filter(c.x == 7),
    "head of more than all": lambda t: t.head(10_000).filter(c.x == 7),
    "slice from 0": lambda t: t.slice(0, 125).filter(c.t == 2),
    "slice with an offset": lambda t: t.slice(3, 125).filter(c.t == 2),
    "filter, head, filter": lambda t: t.filter(c.t > 0).head(30).filter(c.x == 7),
    "tail, filter": lambda t: t.tail(30).filter(c.x == 7),
    "head, filter, head": lambda t: t.head(130).filter(c.w > 1).head(5),
    "head, filters, columns": lambda t: t.head(75).filter(c.w > 1).filter((c.y == 1) | (c.x == 3)).select("v"),
    "sorted": lambda t: t.head(30).filter(c.x > 2).sort("v", descending=True),
    "a new column": lambda t: t.head(30).with_columns(z=c.v * 2).filter(c.z > 20),
    "joined": lambda t: t.head(70).join(pl.LazyFrame({"x": [1, 7]}), on="x", maintain_order="left").filter(c.v > 5),
    "concat": lambda t: pl.concat([t.head(20), t.head(40)]).filter(c.x == 7),
    "SQL": lambda t: t.sql("SELECT * FROM (SELECT * FROM self LIMIT 77) WHERE x = 7"),
    "number of rows": lambda t: t.head(130).filter(c.x == 7).select(pl.len()),
    "2-D coordinate": lambda t: t.head(333).filter(c.lat > 0.7),
    "a function": lambda t: t.head(50).filter(c.v.map_elements({1.0, 8.0, 15.0}.__contains__, return_dtype=pl.Boolean)),
}


@ENGINES
@pytest.mark.parametrize("name", LIMITS)
def test_a_limit_before_a_filter_holds_before_it(path, name, engine):
    ask, whole = LIMITS[name], rd.scan_zarr(path).collect()
    expected = ask(whole.lazy()).collect()
    with dask.config.set({"rainbear-dask.task-bytes": 500}):
        for table in (rd.scan_zarr(path), rd.scan_zarr(rd.ZarrBackendSync.from_url(path))):
            assert_frame_equal(ask(table).collect(engine=engine), expected, check_exact=True)


def test_a_limit_before_a_filter_holds_across_blocks(blocks):
    lf = rd.scan_zarr(blocks)
    for n in (0, 1, 200, 64 * 16 * 32 - 1, 64 * 16 * 32 + 130):
        ask = (c.x == 5) & (c.t < 4)
        assert_frame_equal(lf.head(n).filter(ask).collect(), lf.collect().head(n).filter(ask), check_exact=True)


def test_a_limit_before_a_filter_spares_the_chunks_behind_it(path):
    explained = rd.explain(rd.scan_zarr(path).head(30).filter(c.v > 3).select("v"))
    assert "chunks   2 of 16" in str(explained)  # the first 30 rows are at t == 0, y < 3
    limited = rd.scan_zarr(path, max_chunks_to_read=2)
    assert limited.head(30).filter(c.v > 3).select("v").collect().height == 26
    with pytest.raises(rd.exceptions.PlanTooLargeError, match="3 chunks needed"):
        limited.head(31).filter(c.v > 3).select("v").collect()
    assert rd.scan_zarr(path, max_rows=333).head(333).filter(c.v > 3).collect().height == 329
    with pytest.raises(rd.exceptions.PlanTooLargeError, match="334 rows needed"):
        rd.scan_zarr(path, max_rows=333).head(334).filter(c.v > 3).collect()


@pytest.mark.cluster
@pytest.mark.parametrize("name", ["head, filter of a value", "filter, head, filter", "2-D coordinate"])
def test_a_limit_before_a_filter_holds_on_a_cluster(path, client, name):
    expected = LIMITS[name](rd.scan_zarr(path).collect().lazy()).collect()
    assert_frame_equal(LIMITS[name](rd.scan_zarr(path, client=client)).collect(), expected, check_exact=True)


def test_a_limit_before_a_filter_holds_in_a_sink(path, tmp_path):
    rd.scan_zarr(path).head(130).filter(c.v % 3 == 0).sink_parquet(tmp_path / "rows.parquet")
    expected = rd.scan_zarr(path).collect().head(130).filter(c.v % 3 == 0)
    assert_frame_equal(pl.read_parquet(tmp_path / "rows.parquet"), expected)


@pytest.mark.parametrize(
    "test", [(c.t == 3) | (c.x == 7), c.lat > 0.5, c.v % 11 < 3, (c.t + c.x) % 5 == 0, c.x.is_in([2, 3, 9])], ids=str
)
@pytest.mark.parametrize("n", [0, 1, 17, 10_000])
def test_a_plans_limit_holds_after_its_filter(path, test, n):
    expected = rd.scan_zarr(path).collect().filter(test).head(n)
    backend = rd.ZarrBackendSync.from_url(path)
    with dask.config.set({"rainbear-dask.task-bytes": 500}):
        assert_frame_equal(rd.plan(path, test, n_rows=n).collect(), expected)
        assert_frame_equal(backend.scan_zarr_sync(test, n_rows=n), expected)


def test_a_plan_of_overlapping_boxes_is_limited_to_any_number_of_rows(path):
    test = (c.t == 3) | (c.x == 7) | (c.y == 2)
    expected = rd.scan_zarr(path, variables=["v"]).collect().filter(test)
    with dask.config.set({"rainbear-dask.task-bytes": 500}):
        for n in range(0, expected.height + 9, 9):
            assert_frame_equal(rd.plan(path, test, variables=["v"], n_rows=n).collect(), expected.head(n))


def test_tasks_that_lie_in_different_boxes_have_different_keys(path):
    plan = rd.plan(path, (c.t == 3) | (c.x == 7))
    other = rd.plan(path, ((c.t == 3) & (c.y >= 0)) | ((c.x == 7) & (c.t != 7)) | ((c.t == 7) & (c.x == 7) & (c.y < 5)))
    (task,), (another,) = list(plan.tasks()), list(other.tasks())
    assert task.index == another.index
    assert {frame.key for frame in plan.to_delayed()}.isdisjoint(frame.key for frame in other.to_delayed())


@pytest.mark.parametrize("where", ["a task in one box", "a task in several boxes"])
def test_a_filter_is_evaluated_once_for_each_cell_of_its_own_dimensions(path, where, monkeypatch):
    """The planner keeps such a filter if its dimensions have many cells; here, any number is too many."""
    monkeypatch.setattr(predicate, "MAX_CELLS", 1)
    evaluated, passed = list[tuple[list[str], int]](), worker.evaluate

    def noted(test, known, count):
        evaluated.append(([column.name for column in test.columns], count))
        return passed(test, known, count)

    monkeypatch.setattr(worker, "evaluate", noted)
    monkeypatch.setattr(survivors, "evaluate", noted)
    test = (c.lat + 1) * 2 > 3
    test &= c.v > 3 if where == "a task in one box" else (c.v > 3) & ((c.t == 3) | (c.x < 7))  # the latter settled
    plan = rd.plan(path, test)
    frame = pl.concat([plan.no_rows(), *map(worker.make_frame, plan.tasks())])
    counts = {name: count for (name,), count in evaluated if name in ("lat", "v")}
    assert_frame_equal(frame, rd.scan_zarr(path).collect().filter(test))
    assert 0 < counts["lat"] <= SHAPE[1] * SHAPE[2] < counts["v"]


def test_a_task_of_several_boxes_reads_only_chunks_that_hold_a_row(path):
    (plan,) = plans_of(rd.scan_zarr(path).filter((c.t < 2) & (c.x < 5) | (c.t >= 6) & (c.x >= 5)).select("v"))
    assert sum(task.num_chunks(plan.arrays[0]) for task in plan.tasks()) == plan.counts.num_chunks_kept == 4
    (task,) = plan.tasks()
    assert isinstance(task, ScanTask)
    assert len(task.boxes) == 2
    assert task.num_rows == 2 * (2 * 6 * 5)
