"""Running a plan: in order, bounded, where it is told to, through failure, and leaving nothing behind."""

import os
import random
import shutil
import signal
import threading
import time
from collections import Counter
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from dataclasses import replace
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from dask.base import tokenize
from distributed import LocalCluster, get_task_stream, get_worker, wait
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.exceptions import ChunkReadError
from rainbear_dask.execution.graph import build_graph, submit
from rainbear_dask.execution.run import iter_frames
from rainbear_dask.execution.worker import make_frame, run_task
from rainbear_dask.query.io_source import plans_of
from rainbear_dask.storage.spec import StoreSpec
from tests.support.oracle import expected_frame
from tests.support.stores import write_field

c = pl.col
EVERYWHERE = pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
NUM_TASKS = 24


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("execute") / "field.zarr")
    write_field(path, chunks=(2, 12, 20))
    return path


@pytest.fixture
def damaged(url, tmp_path) -> str:
    """A copy of the store in which one chunk of the middle is noise."""
    path = tmp_path / "damaged.zarr"
    shutil.copytree(url, path)
    (path / "t2m" / "c" / "12" / "0" / "0").write_bytes(b"not a chunk")
    return str(path)


@pytest.fixture
def plan(url):
    """A plan of a task for each chunk."""
    return finely(rd.scan_zarr(url))


def finely(lf):
    return ScanPlan(replace(plans_of(lf)[0], task_bytes=1))


@pytest.fixture
def client_or_none(where, request):
    return request.getfixturevalue("client") if where == "cluster" else None


def nothing_left(client) -> bool:
    """Whether the scheduler has forgotten every task; what a client gives up reaches it within moments."""
    deadline = time.monotonic() + 10
    while (
        left := client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))
    ) and time.monotonic() < deadline:
        time.sleep(0.05)
    return left == 0


# ---------------------------------------------------------------------- the same frames in the same order


@pytest.mark.cluster
def test_a_cluster_gives_the_same_frames_in_the_same_order(url, client):
    queries = [
        lambda t: t,
        lambda t: t.filter(c.lat > 45, c.t2m > 285),
        lambda t: t.filter(c.t2m > 285).select("sst"),
        lambda t: t.filter(c.time.dt.hour() < 3).select("lon", "sst"),
        lambda t: t.head(100),
        lambda t: t.filter(c.t2m > 285).head(100),
        lambda t: t.filter(c.lat > 100),
        lambda t: t.select(pl.len()),
    ]
    on_cluster = [ask(rd.scan_zarr(url, client=client)).collect() for ask in queries]
    found_by_itself = [ask(rd.scan_zarr(url)).collect() for ask in queries]
    table = expected_frame(url).lazy()
    for actual, other, ask in zip(on_cluster, found_by_itself, queries, strict=True):
        assert_frame_equal(actual, ask(table).collect())
        assert_frame_equal(other, actual)


@EVERYWHERE
def test_frames_come_in_the_order_of_tasks(plan, client_or_none):
    frames = list(iter_frames(plan.tasks(), client_or_none))
    assert len(frames) == NUM_TASKS
    for frame, task in zip(frames, plan.tasks(), strict=True):
        assert_frame_equal(frame, make_frame(task))


@EVERYWHERE
@pytest.mark.usefixtures("client_or_none")
def test_child_groups_arrive_as_structs(tmp_path):
    path = str(tmp_path / "tree.zarr")
    for group in ("", "child"):
        xr.Dataset({"v": ("x", np.arange(6.0))}, {"x": np.arange(6)}).to_zarr(path, group=group, consolidated=False)
    frame = rd.scan_zarr(path).filter(c.v > 1).collect()
    assert frame["child"].struct.field("v").to_list() == frame["v"].to_list() == [2, 3, 4, 5]


@pytest.mark.cluster
def test_threads_of_one_client_scan_at_once(url, client):
    ask = [c.lat > 0, c.t2m > 285, c.sst < 270, c.lat < 0] * 2
    with ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(lambda p: rd.scan_zarr(url, client=client).filter(p).collect(), ask))
    table = expected_frame(url)
    for predicate, frame in zip(ask, frames, strict=True):
        assert_frame_equal(frame, table.filter(predicate))
    assert nothing_left(client)


@EVERYWHERE
def test_two_scans_of_one_plan_run_at_once(plan, client_or_none):
    whole, part, other = (iter_frames(plan.tasks(), client_or_none) for _ in range(3))
    heads = [[next(frames), next(frames)] for frames in (whole, part, other)]
    part.close()  # what it gives up, the others still get
    everything = pl.concat(make_frame(task) for task in plan.tasks())
    assert_frame_equal(pl.concat([*heads[0], *whole]), everything)
    assert_frame_equal(pl.concat([*heads[2], *other]), everything)


# ---------------------------------------------------------------------- bounds


@EVERYWHERE
def test_a_slow_caller_bounds_what_is_made(plan, client_or_none):
    frames, taken = frames_and_tasks_taken(plan, client_or_none)
    next(frames)
    time.sleep(0.2)
    assert len(taken) <= 2 * max(os.cpu_count(), 2)
    assert sum(frame.height for frame in frames) + 2 * 12 * 20 == 48 * 12 * 20


@EVERYWHERE
def test_large_frames_are_bounded_by_their_bytes(plan, client_or_none):
    """Each thread has its task, and no task waits for it."""
    width = 2 if client_or_none else len(os.sched_getaffinity(0))
    with dask.config.set({"rainbear-dask.in-flight-bytes": 1}):
        frames, taken = frames_and_tasks_taken(plan, client_or_none)
        for seen, _ in enumerate(frames):
            assert len(taken) <= seen + width


@pytest.mark.cluster
def test_a_cluster_that_grows_in_mid_scan_gets_more_tasks(plan):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, processes=False, dashboard_address=":0") as cluster,
        cluster.get_client() as client,
    ):
        frames, taken = frames_and_tasks_taken(plan, client)
        for _ in range(4):
            next(frames)
        assert len(taken) <= 4 + 1
        cluster.scale(4)
        client.wait_for_workers(4)
        time.sleep(1)  # for so long a number of threads is taken for what it was
        for _ in range(2):
            next(frames)
        assert len(taken) == 5 + 2 * 4
        assert sum(frame.height for frame in frames) == (NUM_TASKS - 6) * 2 * 12 * 20


def test_a_task_knows_the_bytes_of_its_frame(plan):
    for task in plan.tasks():
        assert task.frame_bytes == make_frame(task).estimated_size()


@EVERYWHERE
def test_a_limit_takes_one_task_first_and_then_twice_as_many(plan, client_or_none):
    taken = []
    frames = iter_frames(map_and_note(plan.tasks(), taken), client_or_none, limit=2 * 12 * 20 * 3 - 1)
    assert next(frames).height == 2 * 12 * 20
    assert len(taken) == 1
    assert next(frames).height == 2 * 12 * 20
    assert len(taken) == 3
    assert [frame.height for frame in frames] == [2 * 12 * 20 - 1]
    assert len(taken) <= 7


@EVERYWHERE
def test_no_rows_wanted_take_no_task(plan, client_or_none):
    taken = []
    assert list(iter_frames(map_and_note(plan.tasks(), taken), client_or_none, limit=0)) == []
    assert taken == []


def frames_and_tasks_taken(plan, client):
    taken = []
    return iter_frames(map_and_note(plan.tasks(), taken), client), taken


def map_and_note(tasks, taken):
    for task in tasks:
        taken.append(task)
        yield task


# ---------------------------------------------------------------------- on the workers


@pytest.mark.cluster
def test_tasks_run_on_the_workers_and_leave_nothing_there(url, client):
    rd.scan_zarr(url).filter(c.t2m > 285).collect()
    assert "scan-zarr-field" in client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
    assert nothing_left(client)


@pytest.mark.cluster
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_annotations_of_the_caller_reach_the_tasks(url, client, engine):
    for worker in client.nthreads():
        with get_task_stream(client) as stream, dask.annotate(workers=[worker]):
            rd.scan_zarr(url).filter(c.t2m > worker.count(":")).collect(engine=engine)
        assert {task["worker"] for task in stream.data if task["key"][0] == "scan-zarr-field"} == {worker}


@pytest.mark.cluster
def test_tasks_that_are_asked_for_at_once_begin_in_their_order(plan, client):
    tasks = list(plan.tasks())
    futures = submit(client, tasks, run_task)
    assert [future.key for future in futures] == list(build_graph(tasks, run_task))
    wait(futures)
    priorities = client.run_on_scheduler(
        lambda dask_scheduler, keys: [dask_scheduler.tasks[key].priority for key in keys],
        keys=[future.key for future in futures],
    )
    assert priorities == sorted(set(priorities))


def test_what_the_tasks_of_a_scan_have_in_common_is_walked_through_once(plan, monkeypatch):
    seen = []
    monkeypatch.setattr(StoreSpec, "__dask_tokenize__", lambda spec: seen.append(spec) or spec.label)
    graph = build_graph(plan.tasks(), run_task)
    assert tokenize(*graph.values()) == tokenize(*graph.values())
    assert len(graph) == NUM_TASKS
    assert len(seen) == 1


@pytest.mark.cluster
def test_annotations_reach_frames_that_stay_on_the_workers(plan, client):
    with dask.annotate(priority=7, retries=3):
        futures = plan.to_futures(client)
    keys = [future.key for future in futures]
    wait(futures)
    found = client.run_on_scheduler(
        lambda dask_scheduler: [
            (task.annotations["priority"], task.annotations["retries"])
            for task in (dask_scheduler.tasks[key] for key in keys)
        ]
    )
    assert found == [(7, 3)] * NUM_TASKS


@EVERYWHERE
def test_a_function_is_called_where_a_frame_is_made(plan, client_or_none):
    means = list(plan.map_partitions(mean_and_process, client_or_none))
    assert [mean for mean, _ in means] == [make_frame(task)["t2m"].mean() for task in plan.tasks()]
    here = {os.getpid()}
    assert {process for _, process in means} == (
        set(client_or_none.run(os.getpid).values()) if client_or_none else here
    )
    assert client_or_none is None or nothing_left(client_or_none)


def mean_and_process(frame: pl.DataFrame) -> tuple[float, int]:
    return frame["t2m"].mean(), os.getpid()


@pytest.mark.cluster
def test_a_function_is_called_on_the_active_cluster(plan, client):
    addresses = set(plan.map_partitions(lambda frame: (frame.height, get_worker().address)))
    assert addresses == {(2 * 12 * 20, address) for address in client.nthreads()}


@pytest.mark.cluster
def test_functions_that_differ_in_what_they_close_over_do_not_share_results(plan, client):
    totals = [list(plan.map_partitions(lambda frame, n=n: n * frame.height, client)) for n in (1, 2)]
    assert totals == [[2 * 12 * 20] * NUM_TASKS, [2 * 2 * 12 * 20] * NUM_TASKS]


@EVERYWHERE
@pytest.mark.usefixtures("client_or_none")
def test_delayed_frames_are_for_work_of_ones_own(plan):
    frames = plan.to_delayed()
    total = dask.delayed(sum)([frame.height for frame in frames])
    assert total.compute() == 48 * 12 * 20
    for frame, task in zip(dask.compute(*frames), plan.tasks(), strict=True):
        assert_frame_equal(frame, make_frame(task))
    assert_frame_equal(frames[5].compute(), make_frame(list(plan.tasks())[5]))


@EVERYWHERE
def test_persisted_frames_are_made_once(url, tmp_path, client_or_none):
    path = shutil.copytree(url, tmp_path / "copy.zarr")
    plan = finely(rd.scan_zarr(str(path)))
    frames = plan.persist(client_or_none)
    if client_or_none:
        client_or_none.gather(client_or_none.compute([dask.delayed(len)(frame) for frame in frames]))
    shutil.rmtree(path)
    assert sum(frame.height for frame in dask.compute(*frames)) == 48 * 12 * 20


@pytest.mark.cluster
def test_futures_are_of_frames_in_task_order_and_let_go(plan, client):
    futures = plan.to_futures(client)
    for frame, task in zip(client.gather(futures), plan.tasks(), strict=True):
        assert_frame_equal(frame, make_frame(task))
    heights = client.map(len, futures)
    assert sum(client.gather(heights)) == 48 * 12 * 20
    del futures, heights
    assert nothing_left(client)


@pytest.mark.cluster
@pytest.mark.parametrize("direct", [True, False])
def test_answers_come_by_either_way(url, cluster, direct):
    """From the workers themselves, or by way of the scheduler where they cannot be reached."""
    with cluster.get_client() as client:
        client.direct_to_workers = direct
        frame = rd.scan_zarr(url, client=client).filter(c.t2m > 285).collect()
        assert_frame_equal(frame, expected_frame(url).filter(c.t2m > 285))


# ---------------------------------------------------------------------- failure, and giving up


@pytest.mark.cluster
def test_a_damaged_chunk_ends_a_scan_on_a_cluster_with_one_clear_error(damaged, client):
    with pytest.raises(ChunkReadError, match="t2m"):
        rd.scan_zarr(damaged).collect()
    assert nothing_left(client)


@EVERYWHERE
def test_what_comes_before_a_failing_task_is_given_and_what_comes_after_is_given_up(damaged, client_or_none):
    taken = []
    frames = iter_frames(map_and_note(finely(rd.scan_zarr(damaged)).tasks(), taken), client_or_none)
    for _ in range(NUM_TASKS // 2):
        assert next(frames).height == 2 * 12 * 20
    with pytest.raises(ChunkReadError, match=r"\(12, 0, 0\).*t2m"):
        next(frames)
    assert len(taken) < NUM_TASKS
    assert client_or_none is None or nothing_left(client_or_none)


@pytest.mark.cluster
@pytest.mark.parametrize("read", [0, 1, 5])
def test_a_half_read_stream_leaves_no_task(plan, client, read):
    frames = iter_frames(plan.tasks(), client)
    for _ in range(read):
        next(frames)
    frames.close()
    assert nothing_left(client)


@pytest.mark.cluster
def test_a_stream_closed_while_tasks_still_run_ends_their_fetching(plan, client):
    slow = plan.map_partitions(slowly_after_the_first, client)
    next(slow)
    slow.close()
    assert nothing_left(client)


def slowly_after_the_first(frame: pl.DataFrame) -> int:
    time.sleep(0.0 if frame["lat"][0] == 82.5 and frame["lon"][0] == 0 else 2.0)
    return frame.height


@pytest.mark.cluster
@pytest.mark.slow
@pytest.mark.parametrize("seed", range(3))
@pytest.mark.filterwarnings("default")  # a killed worker leaves its sockets to the garbage collector
def test_a_worker_that_is_killed_changes_no_answer(plan, seed):
    chance = random.Random(seed)
    expected = pl.concat(make_frame(task) for task in plan.tasks())
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as cluster,
        cluster.get_client() as client,
    ):
        processes = list(client.run(os.getpid).values())
        fatal, frames = chance.randrange(NUM_TASKS), []
        for number, frame in enumerate(iter_frames(plan.tasks(), client)):
            frames.append(frame)
            if number == fatal:
                os.kill(chance.choice(processes), signal.SIGKILL)
        assert_frame_equal(pl.concat(frames), expected)


# ---------------------------------------------------------------------- what many tasks need


@pytest.mark.cluster
def test_each_process_asks_for_a_coordinate_once(url, client):
    """However many tasks need it: counted by the web server that they all read from."""
    with counting_server(url) as (address, requests):
        with dask.config.set({"rainbear-dask.task-bytes": 1}):
            plan = rd.plan(address, (c.lat > -100) & (c.t2m > c.lat))
        assert plan.num_tasks == NUM_TASKS
        rows = plan.collect(client).height
        again = plan.collect(client).height
    assert rows == again == expected_frame(url).filter(c.t2m > c.lat).height
    for name in ("time", "lat", "lon"):
        assert 1 <= requests[f"/{name}/c/0"] <= 1 + len(client.nthreads())
    assert requests["/t2m/c/0/0/0"] == 2


@contextmanager
def counting_server(folder):
    """A web server of a folder, and how often each path of it was asked for."""
    requests = Counter()

    class Handler(SimpleHTTPRequestHandler):
        def do_GET(self):
            requests[self.path] += 1
            super().do_GET()

        def log_message(self, *args):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(Handler, directory=folder)) as server:
        thread = threading.Thread(target=server.serve_forever)
        thread.start()
        try:
            yield f"http://127.0.0.1:{server.server_port}", requests
        finally:
            server.shutdown()
            thread.join()
