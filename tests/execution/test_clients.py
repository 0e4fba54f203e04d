"""Which Dask client a scan works with, in each of the forms that there are."""

import asyncio
import io
import re
import sys

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from dask.sizeof import sizeof
from distributed import Client, LocalCluster, get_task_stream, wait, worker_client
from distributed.protocol import deserialize, serialize
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError
from tests.support.oracle import expected_frame
from tests.support.stores import write_field

pytestmark = pytest.mark.cluster
c = pl.col


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("clients") / "field.zarr")
    write_field(path, chunks=(2, 12, 20))
    return path


@pytest.fixture(scope="module")
def expected(url):
    return expected_frame(url).filter(c.t2m > 285)


def ask(url, **options):
    return rd.scan_zarr(url, **options).filter(c.t2m > 285)


def num_tasks(client, run) -> int:
    """Tasks of scans that a cluster does meanwhile."""
    with get_task_stream(client) as stream:
        run()
    return sum(task["key"][0].startswith("scan-zarr") for task in stream.data if isinstance(task["key"], tuple))


# ---------------------------------------------------------------------- small plans


def test_a_small_plan_stays_here(url, client):
    backend = rd.ZarrBackendSync.from_url(url)
    with dask.config.set({"rainbear-dask.small-plan-bytes": 48 * 12 * 20 * 4 * 2}):
        for run in (
            ask(url).collect,
            lambda: rd.plan(url).collect(),
            lambda: backend.scan_zarr_sync(c.lat > 0),
            lambda: list(backend.scan_zarr_streaming_sync(c.lat > 0)),
            lambda: asyncio.run(rd.scan_zarr_async(url, c.lat > 0)),
        ):
            assert num_tasks(client, run) == 0


def test_a_plan_that_reads_more_does_not(url, client):
    with dask.config.set({"rainbear-dask.small-plan-bytes": 48 * 12 * 20 * 4 * 2 - 1}):
        assert num_tasks(client, ask(url).collect) == 1
        assert num_tasks(client, ask(url).select("t2m").collect) == 0  # one variable of two
        assert num_tasks(client, lambda: asyncio.run(rd.scan_zarr_async(url, c.t2m > 0))) == 1


def test_a_small_plan_goes_where_the_caller_says(url, client):
    with dask.config.set({"rainbear-dask.small-plan-bytes": "1GiB"}):
        assert num_tasks(client, ask(url, client=client).collect) == 1
        assert num_tasks(client, lambda: rd.plan(url).collect(client)) == 1
        with dask.annotate(priority=1):
            assert num_tasks(client, ask(url).collect) == 1


# ---------------------------------------------------------------------- forms of client=


def test_within_a_task_by_its_worker(url, client, expected):
    def count(path):
        with worker_client() as here:
            return rd.scan_zarr(path, client=here).filter(c.t2m > 285).select(pl.len()).collect().item()

    def rows(path):  # without a client, on threads of the worker
        return rd.scan_zarr(path).filter(c.t2m > 285).collect().height

    counts = []
    assert num_tasks(client, lambda: counts.append(client.submit(count, url).result())) == 1
    assert num_tasks(client, lambda: counts.append(client.submit(rows, url).result())) == 0
    assert counts == [expected.height] * 2


def test_an_asynchronous_client_is_awaited(cluster, url, expected):
    async def main():
        async with Client(cluster.scheduler_address, asynchronous=True) as client:
            found = await ask(url).collect_async()
            given = await ask(url, client=client).collect_async()
            with pytest.raises(QueryError, match="collect_async"):
                ask(url, client=client).collect()
            with pytest.raises(QueryError, match="asynchronous"):
                rd.plan(url).collect(client)
            return found, given, ask(url).collect()

    with dask.config.set({"rainbear-dask.small-plan-bytes": 0}):
        for frame in asyncio.run(main()):
            assert_frame_equal(frame, expected)


@pytest.mark.filterwarnings("ignore:Sending large graph")
def test_a_cluster_in_this_process_copies_nothing(url, expected):
    with (
        LocalCluster(n_workers=1, threads_per_worker=2, processes=False, dashboard_address=":0") as cluster,
        cluster.get_client() as client,
    ):
        assert_frame_equal(ask(url, client=client).collect(), expected)
        (future,) = rd.plan(url).to_futures(client)
        first, second = future.result(), client.gather(future)
        assert first["t2m"].to_numpy().ctypes.data == second["t2m"].to_numpy().ctypes.data


# ---------------------------------------------------------------------- frames on workers


ALL_KINDS = pl.DataFrame(
    {
        "number": pl.Series([1.5, None, float("nan")], dtype=pl.Float32),
        "flag": [True, None, False],
        "time": pl.Series([0, None, 1], dtype=pl.Datetime("ns", "UTC")),
        "text": ["a", None, ""],
        "kind": pl.Series(["x", "y", None], dtype=pl.Categorical),
        "list": [[1], None, []],
        "struct": [{"a": 1, "b": "x"}, {"a": None, "b": None}, None],
    }
)
FRAMES = [ALL_KINDS, ALL_KINDS.clear(), pl.DataFrame(height=3), pl.DataFrame({"a/b": [1, None], "a": ["x", None]})]


@pytest.mark.parametrize("frame", FRAMES, ids=lambda frame: str(frame.shape))
def test_frames_travel_exactly_and_have_a_size(frame):
    assert_frame_equal(deserialize(*serialize(frame)), frame)
    assert sizeof(frame) == frame.estimated_size()


def test_a_worker_that_never_read_takes_frames_and_their_size_is_known(url):
    """Of two workers one reads; the other does not even have the package yet, as one that joined later."""

    def height(frame):
        return frame.height

    def has_read():
        return "rainbear_dask" in sys.modules

    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        cluster.get_client() as client,
    ):
        reader, other = client.scheduler_info()["workers"]
        with dask.annotate(workers=[reader]):
            (future,) = rd.plan(url).to_futures(client)
        wait(future)
        assert client.run(has_read) == {reader: True, other: False}
        assert client.submit(height, future, workers=[other]).result(timeout=30) == 48 * 12 * 20
        assert client.nbytes(summary=False)[future.key] == future.result().estimated_size()


@pytest.mark.slow
@pytest.mark.filterwarnings("default")
def test_frames_that_stay_are_spilled_and_come_back(tmp_path):
    """Forty frames of 8 MB in a worker that may have 256 MiB, of which the process itself takes most."""
    path = str(tmp_path / "large.zarr")
    values = np.random.default_rng(0).normal(size=(40, 250_000))
    xr.Dataset({"v": (("t", "x"), values)}).to_zarr(path, encoding={"v": {"chunks": (1, 250_000)}}, consolidated=False)
    with (
        dask.config.set({"distributed.worker.memory.target": 0.3, "temporary-directory": str(tmp_path)}),
        LocalCluster(n_workers=1, threads_per_worker=1, memory_limit="600MiB", dashboard_address=":0") as cluster,
        cluster.get_client() as client,
    ):
        with dask.config.set({"rainbear-dask.task-bytes": 1}):
            futures = rd.plan(path).to_futures(client)
        sums = client.gather(client.map(lambda frame: frame["v"].sum(), futures))
        spilled = client.run(lambda dask_worker: len(dask_worker.data.slow))
        assert np.allclose(sums, values.sum(axis=1))
        assert sum(spilled.values()) > 0


# ---------------------------------------------------------------------- progress


@pytest.mark.parametrize("where", ["threads", "cluster"])
def test_a_bar_counts_tasks_and_rows(url, where, request, expected):
    client = request.getfixturevalue("client") if where == "cluster" else None
    file = io.StringIO()
    with rd.progress(file), dask.config.set({"rainbear-dask.task-bytes": 1}):
        ask(url, client=client).collect()
    assert "24/24" in file.getvalue()
    assert "field.zarr" in file.getvalue()
    assert re.search(rf"{expected.height:,} rows, [\d.]+ k?B", file.getvalue())


def test_bars_are_for_all_ways_to_ask_and_gone_afterwards(url):
    file = io.StringIO()
    backend = rd.ZarrBackendSync.from_url(url)
    runs = [
        lambda: rd.plan(url).collect(),
        lambda: list(rd.plan(url).map_partitions(len)),
        lambda: backend.scan_zarr_sync(c.lat > 0),
        lambda: list(backend.scan_zarr_streaming_sync(c.lat > 0)),
        lambda: asyncio.run(rd.scan_zarr_async(url, c.lat > 0)),
        lambda: ask(url).collect(engine="streaming"),
    ]
    for run in runs:
        before = file.tell()
        with rd.progress(file):
            run()
        assert "1/1" in file.getvalue()[before:]
    before = file.tell()
    ask(url).collect()
    assert file.tell() == before


def test_frames_come_as_they_are_made(url, client):
    with dask.config.set({"rainbear-dask.task-bytes": 1}):
        plan = rd.plan(url)
        frames = plan.frames(client, ordered=False)
        assert_frame_equal(pl.concat(frames).sort("time", "lat", "lon"), expected_frame(url).sort("time", "lat", "lon"))
        assert sorted(plan.map_partitions(len, client, ordered=False)) == [24 * 4 * 5] * 24
