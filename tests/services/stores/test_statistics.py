"""Statistics of chunks on an S3 server: what they save, and what they cost in requests."""

from concurrent.futures import ThreadPoolExecutor

import polars as pl
import pytest
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError, WriteError
from tests.support.stores import write_field

pytestmark = pytest.mark.stores
c = pl.col
NAME = "t2m/.rainbear/statistics.parquet"


@pytest.fixture
def folder(tmp_path, monkeypatch):
    """A small field of two variables, 24 chunks each; one chunk of t2m has a value above 400."""
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    write_field(tmp_path / "field.zarr")
    zarr.open_array(str(tmp_path / "field.zarr" / "t2m"), mode="r+")[30, 5, 7] = 500
    zarr.consolidate_metadata(tmp_path / "field.zarr")  # else opening lists, too
    return tmp_path / "field.zarr"


def asked(services):
    """Return the requests as (method, key below the store), with a listing as "list"."""
    return [
        (
            request.method,
            "list" if "list-type" in request.path else request.path.partition(".zarr/")[2].partition("?")[0],
        )
        for request in services.log()
    ]


def of_chunks(requests):
    return [key for method, key in requests if method == "GET" and key.startswith(("t2m/c/", "sst/c/"))]


@pytest.mark.parametrize("library", ["obstore", "fsspec"])
def test_a_scan_reads_one_chunk(services, folder, library):
    url, options = services.upload(folder), services.options(library=library)
    services.set()
    assert rd.analyze(url, "t2m", storage_options=options).read == 24
    requests = asked(services)
    assert len(of_chunks(requests)) == 24
    assert requests.count(("GET", "list")) == 1
    query = rd.scan_zarr(url, storage_options=options).filter(c.t2m > 400).select("time", "t2m")
    services.set()
    found = query.collect()
    requests = asked(services)
    assert of_chunks(requests) == ["t2m/c/1/1/1"]
    assert requests.count(("GET", NAME)) == 1
    assert requests.count(("GET", "list")) == 1
    services.set()
    query.collect()
    assert {key for _, key in asked(services)} == {"t2m/c/1/1/1"}  # the opening knows its statistics
    plain = rd.scan_zarr(url, storage_options=options, statistics=False)
    assert_frame_equal(found, plain.filter(c.t2m > 400).select("time", "t2m").collect())


def test_without_statistics_a_filter_costs_one_request_once(services, folder):
    url, options = services.upload(folder), services.options()
    table = rd.scan_zarr(url, storage_options=options)
    services.set()
    table.filter(c.lat > 80).select("t2m").collect()
    assert NAME not in [key for _, key in asked(services)]
    services.set()
    for _ in range(3):
        table.filter(c.t2m > 400).select("t2m").collect()
    requests = asked(services)
    assert requests.count(("GET", NAME)) == 1
    assert ("GET", "list") not in requests


def test_statistics_that_drop_nothing_need_no_listing(services, folder):
    url, options = services.upload(folder), services.options()
    rd.analyze(url, storage_options=options)
    table = rd.scan_zarr(url, storage_options=options)
    services.set()
    table.filter(c.t2m > 0).select("t2m").collect()
    assert ("GET", "list") not in asked(services)


def test_a_changed_object_is_unknown(services, folder):
    url, options = services.upload(folder), services.options()
    rd.analyze(url, storage_options=options)
    store = zarr.storage.ObjectStore(services.bucket(prefix=url.partition("private/")[2]))
    zarr.open_array(store, path="t2m", mode="r+")[0, 0, 0] = 450
    assert rd.scan_zarr(url, storage_options=options).filter(c.t2m > 400).collect().height == 2
    assert rd.analyze(url, storage_options=options).read == 1


def test_two_calls_at_once_leave_whole_files(services, folder):
    url, options = services.upload(folder), services.options()
    with ThreadPoolExecutor(2) as pool:
        list(pool.map(lambda _: rd.analyze(url, storage_options=options), range(2)))
    assert rd.analyze(url, storage_options=options).read == 0


def test_without_the_right_to_write_the_error_names_the_cache_before_reading(services, folder):
    url = services.upload(folder)
    options = services.options() | {"key": "READERKEY", "secret": "readersecret"}
    services.set()
    with pytest.raises(WriteError, match='where="cache"') as caught:
        rd.analyze(url, storage_options=options)
    assert "readersecret" not in str(caught.value)
    assert of_chunks(asked(services)) == []
    assert rd.analyze(url, storage_options=options, where="cache").read == 48
    query = rd.scan_zarr(url, storage_options=options).filter(c.t2m > 400).select("t2m")
    assert rd.explain(query).chunks_kept == 1


def test_a_web_server_is_not_asked(services, folder):
    url = f"{services.web}/{services.publish(folder)}"
    with pytest.raises(QueryError, match="nothing tells whether a chunk has changed"):
        rd.analyze(url, where="cache")
    table = rd.scan_zarr(url)
    services.set()
    table.filter(c.t2m > 400).select("t2m").collect()
    assert NAME not in [key for _, key in asked(services)]


def test_workers_collect_from_a_bucket(services, folder, client):
    url, options = services.upload(folder), services.options()
    assert rd.analyze(url, storage_options=options, client=client).read == 48
    assert rd.analyze(url, storage_options=options).read == 0
