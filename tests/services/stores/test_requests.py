"""What is asked of services, counted in the proxy's log."""

from collections import Counter

import dask
import icechunk
import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr

import rainbear_dask as rd
from rainbear_dask.chunks import remote
from tests.services.stores.servers import icechunk_storage

pytestmark = pytest.mark.stores
c = pl.col


@pytest.fixture(scope="module")
def folders(tmp_path_factory):
    """The same field in Zarr v2, v3, and v3 in shards; consolidated, with an index for a coordinate."""
    folder = tmp_path_factory.mktemp("field")
    values = np.random.default_rng(0).normal(size=(40, 60, 60)).astype("f4")
    data = xr.Dataset({"a": (("t", "y", "x"), values)}, {"x": np.arange(60) * 2.0})
    for name, zarr_format, encoding in [
        ("v2", 2, {"chunks": (10, 20, 20)}),
        ("v3", 3, {"chunks": (10, 20, 20)}),
        ("sharded", 3, {"chunks": (10, 5, 5), "shards": (20, 60, 60)}),
        ("maps", 3, {"chunks": (1, 60, 60)}),
    ]:
        data.to_zarr(folder / name, zarr_format=zarr_format, consolidated=True, encoding={"a": encoding})
    return folder


@pytest.fixture(params=["v2", "v3", "sharded"])
def kind(request):
    return request.param


def address(services, folders, kind, service="s3"):
    if service == "s3":
        return services.upload(folders / kind), services.options()
    return f"{services.web}/{services.publish(folders / kind)}", {}


@pytest.fixture
def of(services, started, folders):
    """A function that returns the address and the options of a store behind a service."""

    def find(kind, service):
        if service == "http":
            return address(services, folders, kind, service)
        return started(service).upload(folders / kind), started(service).options()

    return find


SERVICES = pytest.mark.parametrize("service", ["s3", "gcs", "azure", "http"])


@SERVICES
def test_opening_a_consolidated_store_takes_one_request(services, of, kind, service):
    """Two of Zarr v2: which of the versions it is has to be asked first."""
    url, options = of(kind, service)
    services.set()
    rd.scan_zarr(url, storage_options=options)
    found = [(request.method, request.path.rpartition("/")[2]) for request in services.log()]
    assert found == [("GET", "zarr.json")] + [("GET", ".zmetadata")] * (kind == "v2")


@pytest.fixture
def large_shards(monkeypatch):
    """No shard is so small that it is requested whole."""
    monkeypatch.setattr(remote, "_SMALL_SHARD_BYTES", 0)


def test_a_small_shard_is_one_request_without_its_index(services, folders):
    url, options = address(services, folders, "sharded")
    table = rd.scan_zarr(url, storage_options=options).filter(c.t < 20, c.y < 20).select("a")
    services.set()
    assert table.collect().height == 20 * 20 * 60
    assert [request.range for request in services.log() if "/a/c/" in request.path] == ["-"]


@SERVICES
def test_a_box_asks_for_each_chunk_it_needs_once(services, of, service, kind, large_shards):
    """Azure has no ranges that count from the end: a HEAD tells where the index of a shard begins."""
    url, options = of(kind, service)
    table = rd.scan_zarr(url, storage_options=options).filter(c.t < 20, c.y.is_between(20, 39), c.x < 30)
    services.set()
    actual = table.collect()
    assert actual.height == 20 * 20 * 15
    requests = services.log()
    heads = [request for request in requests if request.method != "GET"]
    assert [request.method for request in heads] == ["HEAD"] * (service == "azure" and kind == "sharded")
    requests = [request for request in requests if request.method == "GET"]
    times = Counter((request.path.partition(".zarr/")[2], request.range) for request in requests)
    assert set(times.values()) == {1}
    of_a = [path for path, _ in times if path.startswith("a/")]
    if kind == "v2":
        assert sorted(of_a) == ["a/0.1.0", "a/1.1.0"]
    elif kind == "v3":
        assert sorted(of_a) == ["a/c/0/1/0", "a/c/1/1/0"]
    else:  # the index, and 24 inner chunks of one shard, most of which are neighbours
        assert set(of_a) == {"a/c/0/0/0"}
        assert 2 <= len(of_a) <= 4
    assert all(request.is_of_chunk for request in requests)


def test_many_tasks_ask_for_an_index_once(services, folders, large_shards):
    url, options = address(services, folders, "sharded")
    table = rd.scan_zarr(url, storage_options=options)
    first = list(rd.plan(url, storage_options=options).tasks())
    assert first
    services.set()
    for y in range(0, 60, 5):
        table.filter(c.y == y).select("a").collect()
    ranges = Counter(request.range for request in services.log() if "/a/c/" in request.path)
    assert len([one for one in ranges if one.startswith("bytes=-")]) == 1
    assert ranges[next(one for one in ranges if one.startswith("bytes=-"))] == 2  # one of each shard


@SERVICES
def test_a_whole_shard_is_one_request(services, of, service):
    url, options = of("sharded", service)
    table = rd.scan_zarr(url, storage_options=options).select("a")
    services.set()
    assert table.collect().height == 40 * 60 * 60
    assert [request.range for request in services.log() if "/a/c/" in request.path] == ["-", "-"]


def test_far_parts_of_a_shard_are_not_read_for_near_ones(services, tmp_path):
    """Inner chunks of 1 MB: neighbours come together, those between are not read."""
    group = zarr.open_group(tmp_path / "f.zarr", mode="w")
    how = {"dtype": "f8", "compressors": None, "dimension_names": ("x",)}
    group.create_array("a", shape=(2**20,), chunks=(2**17,), shards=(2**20,), **how)[:] = np.arange(2**20)
    url = services.upload(tmp_path / "f.zarr")
    table = rd.scan_zarr(url, storage_options=services.options(), variables=["a"])
    services.set()
    wanted = c.x.is_between(0, 10) | c.x.is_between(2**17, 2**17 + 5) | c.x.is_between(6 * 2**17, 6 * 2**17 + 1)
    assert table.filter(wanted).select("a").sum().collect().item() == sum(range(11)) + sum(
        range(2**17, 2**17 + 6)
    ) + 12 * 2**17 + 1  # fmt: skip
    ranges = sorted(request.range for request in services.log() if request.range.startswith("bytes="))
    index, *parts = sorted(ranges, key=len)
    assert index == "bytes=-132"
    assert sorted(parts) == ["bytes=0-2097151", "bytes=6291456-7340031"]


@SERVICES
@pytest.mark.parametrize("missing", [0, 3])
def test_a_missing_chunk_costs_one_more_request(services, of, service, missing):
    url, options = of("v3", service)
    table = rd.scan_zarr(url, storage_options=options).select("a")
    services.set(fault="gone", times=missing, match="/a/c/")
    table.collect()
    asked = services.log()
    assert sum(request.is_of_chunk for request in asked) == 4 * 3 * 3
    assert (sum(not request.is_of_chunk for request in asked) > 0) == (missing > 0)
    assert len(asked) <= 4 * 3 * 3 + missing


def test_requests_are_in_flight_together_up_to_a_setting(services, folders):
    """Zarr would have ten at a time."""
    url, options = address(services, folders, "v3")
    table = rd.scan_zarr(url, storage_options=options).select("a")
    services.set(latency_ms=300)
    table.collect()
    assert 10 < int(services.ask("busiest")) <= 36
    services.set(latency_ms=50)
    with dask.config.set({"rainbear-dask.requests-in-flight": 3}):
        table.collect()
    assert int(services.ask("busiest")) == 3


def test_tasks_of_one_chunk_wait_together(services, folders):
    """On more threads than this machine may have processors."""
    url, options = address(services, folders, "maps")
    with dask.config.set({"rainbear-dask.task-bytes": 1}):
        plan = rd.plan(url, storage_options=options, columns=["a"])
        assert plan.num_tasks == 40
        services.set(latency_ms=200)
        plan.collect()
    assert 10 < int(services.ask("busiest")) <= 16


@SERVICES
@pytest.mark.cluster
def test_workers_ask_for_chunks_and_for_nothing_else(services, of, service, kind, client):
    url, options = of(kind, service)
    table = rd.scan_zarr(url, storage_options=options, client=client)
    services.set()
    table.select("x", "a").collect()
    requests = services.log()
    assert all(request.is_of_chunk for request in requests)
    of_a = Counter((request.path, request.range) for request in requests if "/a/" in request.path)
    assert set(of_a.values()) == {1} or kind == "sharded"  # each worker needs the index


def test_icechunk_asks_for_each_chunk_once(services, folders):
    repository = icechunk.Repository.create(icechunk_storage(services.direct, "counted"))
    session = repository.writable_session("main")
    array = zarr.open_group(session.store, mode="w").create_array("a", shape=(8, 1000), chunks=(1, 1000), dtype="f8")
    array[:] = np.random.default_rng(0).normal(size=(8, 1000))
    session.commit("all")
    table = rd.scan_zarr(icechunk.Repository.open(icechunk_storage(services.s3, "counted")).readonly_session("main"))
    services.set()
    table.filter(c.dim_0.is_in([1, 2, 5])).collect()
    chunks = Counter(request.path for request in services.log() if "/chunks/" in request.path)
    assert len(chunks) == 3
    assert set(chunks.values()) == {1}
