"""On a cluster: states travel, not rows; the same bits as on threads; nothing is left over."""

import asyncio
import os
import pickle
import signal
import threading
from contextlib import closing
from dataclasses import replace
from unittest import mock

import dask
import polars as pl
import pytest
from distributed import Client, LocalCluster
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.aggregation import cohorts
from rainbear_dask.aggregation.partial import run_partial
from rainbear_dask.aggregation.rows import run_rows
from rainbear_dask.engine.rewriting import rewrite
from rainbear_dask.exceptions import QueryError
from rainbear_dask.execution import trees
from rainbear_dask.execution.fetching import Fetcher
from rainbear_dask.execution.graph import build_graph
from rainbear_dask.execution.worker import run_task
from tests.execution.test_run import nothing_left
from tests.support.aggregations import write_mixed

c = pl.col
AGGREGATES = [c("masked").mean(), c("numbers").std().alias("std"), c("short").max(), pl.len().alias("n")]


@pytest.fixture
def lf(url):
    with dask.config.set({"rainbear-dask.task-bytes": 1}), pytest.MonkeyPatch.context() as patch:
        patch.setattr(cohorts, "MAX_WHOLE_TASKS", 1000)
        yield rd.scan_zarr(url)


QUERIES = {
    "by lat": lambda t: t.group_by("lat").agg(AGGREGATES),
    "by zone": lambda t: t.group_by("zone", c("time").dt.hour()).agg(AGGREGATES),
    "filtered": lambda t: t.filter(c("plain") > 5).group_by("lat").agg(AGGREGATES),
    "overall": lambda t: t.select(AGGREGATES),
}


IN_ROWS = {
    "by a variable": lambda t: t.group_by(hot=c("plain") > 5).agg(AGGREGATES),
    "by many values": lambda t: t.group_by("plain").agg(c("numbers").mean(), c("masked").first()),
    "ends": lambda t: t.group_by("lat", maintain_order=True).agg(c("masked").first(), last=c("masked").last()),
    "medians": lambda t: t.group_by("time").agg(c("plain").median(), c("masked").quantile(0.9), list=c("byte")),
    "distinct": lambda t: t.select(c("filled", "kind").n_unique(), p=c("numbers").product()),
}


real_fetch = Fetcher.fetch


def bits(frame):
    return pickle.dumps([column.to_list() for column in frame.iter_columns()])


def tasks_of(query):
    (part,) = rewrite(query).parts
    return list(part.split.question.tasks())


@pytest.fixture(params=[64, 1], ids=["flat", "tree"])
def tree(request, monkeypatch):
    """Merge all results in the client, or all of a cohort on the workers, in a tree of several levels."""
    monkeypatch.setattr(trees, "MAX_UNMERGED", request.param)
    monkeypatch.setattr(trees, "ARITY", 3)
    if request.param == 1:
        monkeypatch.setattr(cohorts, "COHORT_BYTES", 300)


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("name", QUERIES)
def test_the_bits_of_threads(lf, client, name):
    query = QUERIES[name](lf)
    assert len(tasks_of(query)) > 2
    on_cluster = rd.collect(query)
    assert nothing_left(client)
    with closing(
        Client(processes=False, n_workers=1, threads_per_worker=1, dashboard_address=None, set_as_default=False)
    ) as other:
        assert bits(rd.collect(query, client=other)) == bits(on_cluster)
    with dask.config.set({"rainbear-dask.small-plan-bytes": 2**40}):
        assert bits(rd.collect(query)) == bits(on_cluster)
    assert_frame_equal(on_cluster, query.collect(), check_row_order=False, rel_tol=1e-5)


@pytest.mark.usefixtures("tree")
@pytest.mark.parametrize("name", IN_ROWS)
def test_row_space_has_the_bits_of_threads(lf, client, name, request):
    query = IN_ROWS[name](lf)
    assert [part.space for part in rewrite(query).parts] == ["rows"]
    on_cluster = rd.collect(query)
    assert nothing_left(client)
    request.getfixturevalue("split_on_threads")
    with dask.config.set({"rainbear-dask.small-plan-bytes": 2**40}):
        assert [part.space for part in rewrite(query).parts] == ["rows"]
        assert bits(rd.collect(query)) == bits(on_cluster)
    assert_frame_equal(on_cluster, query.collect(), check_row_order=False, rel_tol=1e-5)


def test_groups_of_rows_travel_unless_the_rows_are_smaller(lf, client):
    smaller = {name: set() for name in ("by a variable", "by many values")}
    for name, found in smaller.items():
        for task in rewrite(IN_ROWS[name](lf)).parts[0].split.question.tasks():
            part = run_rows(task)
            found.add("groups" if part.is_grouped else "rows")
            assert part.__sizeof__() <= run_task(task).__sizeof__() + 100
            sent = pickle.loads(pickle.dumps(part))
            assert_frame_equal(sent.groups(), task.grouping.of_rows(run_task(task).to_polars()))
    assert smaller == {"by a variable": {"rows", "groups"}, "by many values": {"rows"}}
    few, other = (next(rewrite(IN_ROWS[name](lf)).parts[0].split.question.tasks()) for name in ("ends", "distinct"))
    keys = [next(iter(build_graph([task], run_rows))) for task in (few, other, few)]
    assert keys[0] == keys[2] != keys[1]


def test_keys_name_the_store_and_hold_the_question(lf):
    by_lat, by_lon = (lf.group_by(key).agg(c("plain").mean()) for key in ("lat", "lon"))
    (first, *_), (other, *_) = tasks_of(by_lat), tasks_of(by_lon)
    keys = [next(iter(build_graph([task], run_partial))) for task in (first, other, tasks_of(by_lat)[0])]
    assert keys[0][0] == "scan-zarr-mixed"
    assert keys[0] == keys[2] != keys[1]
    maximum = tasks_of(lf.group_by("lat").agg(c("plain").max()))[0]
    assert next(iter(build_graph([maximum], run_partial))) != keys[0]
    assert pickle.loads(pickle.dumps(first)).index == first.index


def test_states_travel_and_not_rows(lf):
    for task in tasks_of(QUERIES["by lat"](lf)):
        buffers = []
        partial = run_partial(task)
        small = pickle.dumps(partial, protocol=5, buffer_callback=buffers.append)
        num_groups = task.blocks[0].count
        sent = sum(buffer.raw().nbytes for buffer in buffers)
        assert sent <= (8 * 7 + 16) * num_groups
        assert sent <= task.frame_bytes + 16 * num_groups
        assert len(small) < 2000
        assert partial.__sizeof__() >= sum(array.nbytes for array in partial.states.values())


def test_the_bytes_of_states_beside_those_of_rows(tmp_path):
    write_mixed(tmp_path / "large.zarr", {"time": 48, "lat": 60, "lon": 90}, {"time": 24, "lat": 30, "lon": 45})
    query = rd.scan_zarr(tmp_path / "large.zarr").group_by("lat").agg(c("plain").mean(), c("numbers").max())
    states = sum(run_partial(task).__sizeof__() for task in tasks_of(query))
    (part,) = rewrite(query).parts
    rows = sum(task.max_rows for task in part.split.question.plan.tasks()) * (8 + 4 + 8)
    assert states < rows / 100


@pytest.mark.parametrize("name", ["by lat", "by a variable"])
def test_the_client_receives_few_results_of_many_tasks(lf, client, monkeypatch, name):
    monkeypatch.setattr(trees, "MAX_UNMERGED", 1)
    monkeypatch.setattr(trees, "ARITY", 3)
    query = rd.rewrite((QUERIES | IN_ROWS)[name](lf))
    received = []
    with mock.patch.object(Fetcher, "fetch", autospec=True) as fetch:
        fetch.side_effect = lambda self, future: received.append(future.key) or real_fetch(self, future)
        query.collect()
    (part,) = rewrite((QUERIES | IN_ROWS)[name](lf)).parts
    num_tasks = len(list(part.split.question.tasks()))
    assert 3 < num_tasks <= 9
    assert [key[0] for key in received] == ["merge-merge-scan-zarr-mixed"]
    assert nothing_left(client)


def test_a_killed_worker_changes_no_bit(lf):
    query = QUERIES["by zone"](lf)
    expected = bits(rd.collect(query))
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0") as cluster,
        cluster.get_client() as client,
    ):
        pid = min(client.run(os.getpid).values())
        rewritten = rd.rewrite(query, client=client)
        timer = threading.Timer(0.02, os.kill, (pid, signal.SIGKILL))
        timer.start()
        assert bits(rewritten.collect()) == expected
        timer.join()
        assert bits(rewritten.collect()) == expected


def test_an_asynchronous_client_is_refused_by_name(lf, cluster):
    async def ask():
        async with Client(cluster.scheduler_address, asynchronous=True, set_as_default=False) as client:
            query = QUERIES["by lat"](lf)
            with pytest.raises(QueryError, match="collect_async"):
                rd.collect(query, client=client)
            return await query.collect_async(engine=rd.Engine(client))

    assert asyncio.run(ask()).height == 5


def test_an_error_on_a_worker_is_polars_own(lf, client):
    with pytest.raises(pl.exceptions.InvalidOperationError, match="conversion"):
        rd.collect(lf.select(c("short").cast(pl.Int8).sum()))
    assert nothing_left(client)


def test_plans_of_a_rewritten_query_are_those_of_its_scan(lf):
    assert str(rd.explain(rd.rewrite(QUERIES["by lat"](lf)))).count("SCAN") == 1
    task = tasks_of(QUERIES["by lat"](lf))[0]
    assert replace(task, scan=task.scan).operands == task.operands
