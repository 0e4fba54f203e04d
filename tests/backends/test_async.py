"""Questions that are awaited: the event loop runs on, so many at a time, and cancelled when the caller is."""

import asyncio
import threading
from collections import Counter
from datetime import datetime
from weakref import WeakValueDictionary

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from distributed import Client, LocalCluster
from polars.testing import assert_frame_equal
from zarr.storage import LocalStore, WrapperStore

import rainbear_dask as rd
from rainbear_dask.backends import cached_store as backends
from rainbear_dask.chunks import cache
from rainbear_dask.exceptions import PlanTooLargeError, StoreError, StoreNotFoundError, UnknownColumnError
from rainbear_dask.execution import wire
from rainbear_dask.execution.run import iter_frames
from rainbear_dask.metadata import opening
from rainbear_dask.planning import build
from rainbear_dask.table import tidy
from tests.support.oracle import expected_frame
from tests.support.stores import CountingStore, write_field

c = pl.col
TASKS = 8


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("async") / "field.zarr")
    write_field(path)
    return path


@pytest.fixture(scope="module")
def tall(tmp_path_factory) -> str:
    """A variable of 8 chunks of 4 MiB, each of which is a task of its own."""
    path = str(tmp_path_factory.mktemp("async") / "tall.zarr")
    values = np.arange(TASKS * 2**19, dtype="f8").reshape(TASKS, -1)
    xr.Dataset({"v": (("x", "y"), values)}).to_zarr(
        path, encoding={"v": {"chunks": (1, 2**19)}}, zarr_format=3, consolidated=False
    )
    return path


class GatedStore(WrapperStore):
    """Holds back chunks of ``v`` until the gate opens; knows how many were asked for, and how many at the same time.

    Pickled, it is found again: in this process alone.
    """

    def __init__(self, store):
        super().__init__(store)
        self.gate, self.asked = threading.Event(), threading.Semaphore(0)
        self.counts = Counter()
        _STORES[id(self)] = self

    def __reduce__(self):
        return _found, (id(self),)

    async def get(self, key, prototype, byte_range=None):
        """Wait for the gate, then pass on."""
        if not key.startswith("v/c/"):
            return await super().get(key, prototype, byte_range)
        self.counts["asked"] += 1
        self.counts["now"] += 1
        self.counts["most"] = max(self.counts["most"], self.counts["now"])
        self.asked.release()
        while not self.gate.is_set():
            await asyncio.sleep(0.001)
        await asyncio.sleep(0.01)
        self.counts["now"] -= 1
        return await super().get(key, prototype, byte_range)

    async def wait_until_asked(self):
        """Let the event loop run until a chunk was asked for once more."""
        while not self.asked.acquire(blocking=False):
            await asyncio.sleep(0.001)


_STORES = WeakValueDictionary()


def _found(number):
    return _STORES[number]


@pytest.fixture
def gated(tall):
    store = GatedStore(LocalStore(tall, read_only=True))
    yield store
    store.gate.set()


def test_readme_of_the_asynchronous_backend(path):
    async def main():
        backend = rd.ZarrBackend.from_url(path)
        df1 = await backend.scan_zarr_async(pl.col("time") > datetime(2020, 2, 1))
        df2 = await backend.scan_zarr_async(pl.col("time") > datetime(2020, 2, 1, 12))
        stats = await backend.cache_stats()
        assert stats["coord_entries"] > 0
        await backend.clear_coord_cache()
        assert (await backend.cache_stats())["coord_entries"] == 0
        await backend.clear_all_caches()
        assert not (await backend.cache_stats())["has_metadata"]
        return df1, df2

    table = expected_frame(path)
    for actual, start in zip(asyncio.run(main()), (datetime(2020, 2, 1), datetime(2020, 2, 1, 12)), strict=True):
        assert_frame_equal(actual, table.filter(c.time > start))


@pytest.mark.parametrize(
    "predicate", [c.lat > 45, (c.t2m > 290) & (c.lon < 90), c.lat > 100, pl.lit(value=True)], ids=str
)
def test_a_filter_filters(path, predicate):
    actual = asyncio.run(rd.scan_zarr_async(path, predicate))
    assert_frame_equal(actual, expected_frame(path).filter(predicate))


@pytest.mark.parametrize(
    "expr", [pl.col(["t2m", "lat"]).filter(c.lat > 45), c.t2m.mean(), c.sst.filter(c.lat > 45).max(), pl.len()], ids=str
)
def test_anything_else_is_selected(path, expr):
    assert_frame_equal(asyncio.run(rd.scan_zarr_async(path, expr)), expected_frame(path).select(expr))


def test_a_backend_shares_what_it_keeps(path):
    counted = CountingStore(LocalStore(path, read_only=True))
    backend = rd.ZarrBackend.from_store(counted)
    asyncio.run(rd.scan_zarr_async(backend, c.lat > 45))
    counted.requests.clear()
    asyncio.run(backend.scan_zarr_async(c.lat < 45))
    rd.scan_zarr(backend).filter(c.lat < 0).collect()
    assert set(counted.requests) == counted.chunks("t2m") | counted.chunks("sst")


def test_a_prefix(path):
    folder, _, name = path.rpartition("/")
    predicate = c.lat > 45
    actual = asyncio.run(rd.scan_zarr_async(rd.store.LocalStore(folder), predicate, prefix=name))
    assert_frame_equal(actual, expected_frame(path).filter(predicate))
    with pytest.raises(rd.exceptions.QueryError, match="prefix"):
        asyncio.run(rd.scan_zarr_async(rd.ZarrBackend.from_url(path), predicate, prefix="x"))


def test_errors_reach_who_awaits(path, tmp_path):
    for error, question in [
        (PlanTooLargeError, rd.scan_zarr_async(path, c.lat < 45, max_chunks_to_read=5)),
        (UnknownColumnError, rd.scan_zarr_async(path, c.lta > 45)),
        (StoreNotFoundError, rd.scan_zarr_async(tmp_path / "none", c.lat > 45)),
    ]:
        with pytest.raises(error):
            asyncio.run(question)


def test_the_event_loop_runs_on_while_chunks_are_read(gated):
    async def main():
        question = asyncio.create_task(rd.scan_zarr_async(gated, c.v >= 0))
        await gated.wait_until_asked()  # would never come if reading held the loop
        gated.gate.set()  # nor would this
        return await question

    assert asyncio.run(main()).height == TASKS * 2**19


WORK = [(opening, "_read_meta"), (cache, "read_regions"), (backends, "open_table"), (build, "compile_predicate"),
        (wire, "nest"), (tidy, "spread"), (pl, "concat")]  # fmt: skip


@pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
@pytest.mark.parametrize("source", [str, rd.ZarrBackend.from_url], ids=["path", "backend"])
def test_the_event_loop_does_no_work_itself(path, monkeypatch, where, source, request):
    """Opening, reading, planning, decoding and putting together: each runs, and none on the thread of the loop."""
    if where == "cluster":
        request.getfixturevalue("client")
    seen = {name: set() for _, name in WORK}

    def watch(module, name):
        call = getattr(module, name)

        def watched(*args, **kwargs):
            seen[name].add(threading.get_ident())
            return call(*args, **kwargs)

        monkeypatch.setattr(module, name, watched)

    for module, name in WORK:
        watch(module, name)

    async def main():
        await rd.scan_zarr_async(source(path), (c.lat > 45) & (c.t2m > 285))
        await rd.scan_zarr_async(source(path), c.t2m.filter(c.lat > 45).mean())
        return threading.get_ident()

    with dask.config.set({"rainbear-dask.task-bytes": 1}):  # several frames are put together
        loop = asyncio.run(main())
    assert all(seen.values())
    assert not [name for name, threads in seen.items() if loop in threads]


def test_the_event_loop_turns_as_often_as_it_likes_while_chunks_are_awaited(gated):
    """The largest gap in the turns of a loop is one: a coroutine that turns it 1,000 times needs no chunk for it."""

    async def main():
        question = asyncio.create_task(rd.scan_zarr_async(gated, c.v >= 0))
        await gated.wait_until_asked()
        for _ in range(1000):
            await asyncio.sleep(0)
        assert not question.done()
        gated.gate.set()
        return await question

    assert asyncio.run(main()).height == TASKS * 2**19


@pytest.mark.parametrize("max_concurrency", [1, 3, None])
def test_so_many_tasks_at_a_time(gated, max_concurrency):
    width = max_concurrency or 8

    async def main():
        question = asyncio.create_task(rd.scan_zarr_async(gated, c.v >= 0, max_concurrency))
        for _ in range(width):
            await gated.wait_until_asked()
        gated.gate.set()
        return await question

    actual = asyncio.run(main())
    assert gated.counts["most"] == width
    assert actual["v"].to_list() == list(range(TASKS * 2**19))


def test_a_stream_that_waits_keeps_to_the_bound_too(gated):
    gated.gate.set()
    frames = iter_frames(rd.plan(gated).tasks(), max_concurrency=1)
    assert sum(frame.height for frame in frames) == TASKS * 2**19
    assert gated.counts["most"] == 1


def test_cancelling_starts_no_further_task(gated):
    async def main():
        question = asyncio.create_task(rd.scan_zarr_async(gated, c.v >= 0, 2))
        await gated.wait_until_asked()
        await gated.wait_until_asked()
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        gated.gate.set()

    asyncio.run(main())
    for thread in threading.enumerate():
        if thread.name.startswith("scan-zarr-task"):
            thread.join()
    assert gated.counts["asked"] == 2


def test_a_task_that_fails_ends_the_others(tall, tmp_path):
    class Failing(GatedStore):
        async def get(self, key, prototype, byte_range=None):
            if key.startswith("v/c/1/"):
                raise OSError("connection reset")
            return await super().get(key, prototype, byte_range)

    store = Failing(LocalStore(tall, read_only=True))
    with pytest.raises(StoreError, match="connection reset"):
        asyncio.run(rd.scan_zarr_async(store, c.v >= 0, 2))
    store.gate.set()
    assert store.counts["asked"] <= 2


def test_many_questions_at_the_same_time(path):
    async def main():
        backend = rd.ZarrBackend.from_url(path)
        return await asyncio.gather(*(backend.scan_zarr_async(c.lon == lon) for lon in range(0, 360, 18)))

    answers = asyncio.run(main())
    table = expected_frame(path)
    for number, actual in enumerate(answers):
        assert_frame_equal(actual, table.filter(c.lon == 18 * number))


def test_many_questions_wait_for_a_store_at_the_same_time(gated):
    async def main():
        backend = rd.ZarrBackend.from_store(gated)
        await backend.scan_zarr_async(c.x < 0)  # opened
        jobs = [asyncio.create_task(backend.scan_zarr_async((c.x == n % TASKS) & (c.y < 5 + n))) for n in range(40)]
        while gated.counts["now"] < TASKS:  # a chunk that is on its way is not asked for again
            await asyncio.sleep(0.001)
        gated.gate.set()
        return await asyncio.gather(*jobs)

    assert [answer.height for answer in asyncio.run(main())] == [5 + n for n in range(40)]
    assert gated.counts["asked"] == TASKS


# ---------------------------------------------------------------------- on a cluster


@pytest.mark.cluster
@pytest.mark.parametrize("expr", [(c.lat > 45) & (c.t2m > 285), c.t2m.filter(c.lat > 45).mean()], ids=str)
def test_with_a_synchronous_client(path, client, expr):
    async def main():
        backend = rd.ZarrBackend.from_url(path)
        answer = await backend.scan_zarr_async(expr)
        await backend.scan_zarr_async(c.lat > 45)
        return answer, (await backend.cache_stats())["workers"]

    actual, workers = asyncio.run(main())
    assert_frame_equal(actual, rd.ZarrBackendSync.from_url(path).scan_zarr_sync(expr))
    assert set(workers) == set(client.nthreads())
    names = client.run_on_scheduler(lambda dask_scheduler: list(dask_scheduler.task_prefixes))
    assert any(name.startswith("scan-zarr-") for name in names)


@pytest.mark.cluster
@pytest.mark.parametrize("max_concurrency", [1, None])
def test_with_an_asynchronous_client(path, cluster, max_concurrency):
    predicate = (c.lat > 45) & (c.t2m > 285)

    async def main():
        async with Client(cluster.scheduler_address, asynchronous=True):
            backend = rd.ZarrBackend.from_url(path)
            answer = await backend.scan_zarr_async(predicate, max_concurrency)
            lazy = await asyncio.to_thread(rd.scan_zarr(backend).filter(predicate).collect)
            stats = await backend.cache_stats()
            await backend.clear_all_caches()
            return answer, lazy, stats["workers"]

    with dask.config.set({"rainbear-dask.small-plan-bytes": 0}):
        actual, lazy, workers = asyncio.run(main())
    expected = expected_frame(path).filter(predicate)
    assert_frame_equal(actual, expected)
    assert_frame_equal(lazy, expected)
    assert sum(worker["coord_entries"] for worker in workers.values()) > 0


@pytest.mark.cluster
@pytest.mark.parametrize("direct", [True, False, None])
@pytest.mark.parametrize("asynchronous", [True, False])
def test_answers_come_from_the_workers_unless_they_may_not(path, cluster, monkeypatch, direct, asynchronous):
    through_scheduler = []
    gather = cluster.scheduler.handlers["gather"]

    async def watched(*args, **kwargs):
        through_scheduler.append(kwargs)
        return await gather(*args, **kwargs)

    monkeypatch.setitem(cluster.scheduler.handlers, "gather", watched)

    async def ask():
        return await rd.scan_zarr_async(path, c.lat > 45)

    async def ask_by_a_client_of_the_loop():
        async with Client(cluster.scheduler_address, asynchronous=True, direct_to_workers=direct):
            return await ask()

    with dask.config.set({"rainbear-dask.small-plan-bytes": 0}):
        if asynchronous:
            actual = asyncio.run(ask_by_a_client_of_the_loop())
        else:
            with Client(cluster.scheduler_address, direct_to_workers=direct):
                actual = asyncio.run(ask())
    assert_frame_equal(actual, expected_frame(path).filter(c.lat > 45))
    assert bool(through_scheduler) == (direct is False)


@pytest.mark.cluster
@pytest.mark.parametrize("asynchronous", [True, False])
def test_a_cluster_that_grows_in_mid_scan_gets_more_tasks(tall, asynchronous):
    class Growing(GatedStore):
        """The first chunk has a gate of its own."""

        async def get(self, key, prototype, byte_range=None):
            while key.startswith("v/c/0/") and not first.is_set():
                await asyncio.sleep(0.001)
            return await (self._store if key.startswith("v/c/0/") else super()).get(key, prototype, byte_range)

    async def ask(cluster, client):
        question = asyncio.create_task(rd.scan_zarr_async(store, c.v >= 0))
        while len(cluster.scheduler.tasks) < 2:
            await asyncio.sleep(0.001)
        await asyncio.sleep(1)  # for so long a number of threads is taken for what it was
        at_first = len(cluster.scheduler.tasks)
        cluster.scale(4)
        await (client.wait_for_workers(4) if asynchronous else asyncio.to_thread(client.wait_for_workers, 4))
        first.set()
        for _ in range(4):
            await asyncio.wait_for(store.wait_until_asked(), 20)
        store.gate.set()
        return at_first, await question

    async def ask_on_this_loop():
        async with LocalCluster(**one, asynchronous=True) as cluster, Client(cluster, asynchronous=True) as client:
            return await ask(cluster, client)

    first, store = threading.Event(), Growing(LocalStore(tall, read_only=True))
    one = {"n_workers": 1, "threads_per_worker": 1, "processes": False, "dashboard_address": ":0"}
    with dask.config.set({"rainbear-dask.small-plan-bytes": 0}):
        if asynchronous:
            at_first, answer = asyncio.run(ask_on_this_loop())
        else:
            with LocalCluster(**one) as cluster, Client(cluster) as client:
                at_first, answer = asyncio.run(ask(cluster, client))
    assert at_first == 2
    assert store.counts["most"] == 4
    assert answer["v"].to_list() == list(range(TASKS * 2**19))


@pytest.mark.cluster
def test_cancelling_leaves_nothing_on_a_cluster(tall, client):
    async def main():
        question = asyncio.create_task(rd.scan_zarr_async(tall, c.v >= 0, 2))
        while not client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks)):
            await asyncio.sleep(0.001)
        question.cancel()
        with pytest.raises(asyncio.CancelledError):
            await question
        for _ in range(500):
            if not (left := client.run_on_scheduler(lambda dask_scheduler: len(dask_scheduler.tasks))):
                break
            await asyncio.sleep(0.02)
        return left

    assert asyncio.run(main()) == 0
