"""What services do wrong: the right answer after a few more requests, or one clear error within the time that the options give."""

import shutil
import time
import uuid
from datetime import timedelta

import icechunk
import numpy as np
import polars as pl
import pytest
import zarr
from polars.testing import assert_frame_equal
from zarr.codecs import Crc32cCodec

import rainbear_dask as rd
from rainbear_dask.chunks import remote
from rainbear_dask.exceptions import ChunkReadError, StoreAccessError, StoreError
from rainbear_dask.storage import obstore as obstores
from tests.services.stores.servers import READER, icechunk_storage, set_environment
from tests.support.errors import caught

pytestmark = pytest.mark.stores

SECONDS = 4
IMPATIENT = {
    "client_options": {"connect_timeout": "1s", "read_timeout": "1s", "timeout": "2s"},
    "retry_config": {"max_retries": 8, "retry_timeout": timedelta(seconds=SECONDS)},
}
IMPATIENT_S3FS = {
    "library": "fsspec",
    "config_kwargs": {
        "connect_timeout": 1,
        "read_timeout": 1,
        "retries": {"mode": "standard", "total_max_attempts": 8},
    },
}
CHUNKS = "/a/c/"


@pytest.fixture(scope="module")
def field(running, tmp_path_factory):
    """An array of chunks and one of shards, with checksums, uncompressed: in a folder, in a bucket, on the web server."""
    folder = tmp_path_factory.mktemp("field") / "f.zarr"
    group = zarr.open_group(folder, mode="w")
    values = np.random.default_rng(0).normal(size=(40, 60)).astype("f4")
    how = {"shape": (40, 60), "chunks": (10, 10), "dtype": "f4", "dimension_names": ("y", "x"), "fill_value": -1}
    for name, shards in {"a": None, "s": (20, 30)}.items():
        group.create_array(name, compressors=[Crc32cCodec()], shards=shards, **how)[:] = values
    zarr.consolidate_metadata(folder)
    return folder, running.upload(folder), running.publish(folder)


@pytest.fixture(params=["s3", "http"])
def address(request, field, services):
    """URL and options of the field, behind either service."""
    if request.param == "s3":
        return field[1], services.options(**IMPATIENT)
    return f"{services.web}/{field[2]}", IMPATIENT


PASSING = {
    "503": {"fault": 503, "times": 6},
    "429": {"fault": 429, "times": 6, "retry_after": 1},
    "500": {"fault": 500, "times": 6},
    "reset": {"fault": "reset", "times": 6},
    "cut short": {"fault": "cut", "times": 6},
    "trickle": {"fault": "trickle", "times": 2},
    "hung": {"fault": "hang", "times": 2},
    "a byte changed": {"fault": "corrupt", "times": 2},
}


@pytest.mark.parametrize("fault", PASSING)
@pytest.mark.parametrize("column", ["a", "s"])
def test_faults_that_pass(services, field, address, column, fault):
    url, options = address
    table = rd.scan_zarr(url, storage_options=options).select("y", column)
    services.set(match=f"/{column}/c/", **PASSING[fault])
    actual = table.collect()
    assert 0 < services.injected() <= PASSING[fault]["times"]
    assert_frame_equal(actual, rd.scan_zarr(field[0]).select("y", column).collect())


@pytest.mark.parametrize("fault", [fault for fault in PASSING if fault not in ("429", "trickle", "hung")])
def test_faults_that_pass_by_s3fs(services, field, fault):
    table = rd.scan_zarr(field[1], storage_options=services.options(**IMPATIENT_S3FS)).select("a")
    services.set(match=CHUNKS, **PASSING[fault] | {"times": 2})
    actual = table.collect()
    assert services.injected() == 2
    assert_frame_equal(actual, rd.scan_zarr(field[0]).select("a").collect())


@pytest.mark.cluster
def test_faults_that_pass_on_workers(services, field, client):
    table = rd.scan_zarr(field[1], storage_options=services.options(**IMPATIENT), client=client)
    services.set(match=CHUNKS, fault=503, p=0.25)
    assert_frame_equal(table.collect(), rd.scan_zarr(field[0]).collect())
    assert services.injected() > 0


LASTING = {
    "503": ({"fault": 503}, "503"),
    "429": ({"fault": 429}, "429"),
    "reset": ({"fault": "reset"}, "error sending request"),
    "cut short": ({"fault": "cut"}, "HTTP error"),
    "trickle": ({"fault": "trickle"}, ""),
    "hung": ({"fault": "hang"}, ""),
    "a byte changed": ({"fault": "corrupt"}, "checksum"),
}


@pytest.mark.parametrize("fault", LASTING)
def test_faults_that_last_end_in_one_error_that_names_the_chunk(services, address, fault):
    url, options = address
    table = rd.scan_zarr(url, storage_options=options).select("a")
    knobs, word = LASTING[fault]
    services.set(match=CHUNKS, **knobs)
    begun = time.monotonic()
    caught(ChunkReadError, table.collect, "'a'", "key 'a/c/", word)
    assert time.monotonic() - begun < 4 * SECONDS  # far from what it would be if waits added up, chunk after chunk


@pytest.mark.parametrize("fault", [503, "hang", "reset"])
def test_faults_when_opening_end_in_an_error(services, address, fault):
    url, options = address
    services.set(fault=fault)
    begun = time.monotonic()
    caught(StoreError, lambda: rd.scan_zarr(url, storage_options=options), url, "Check the address")
    assert time.monotonic() - begun < 4 * SECONDS


def test_what_is_documented_of_waiting(services):
    """The defaults that the page on storage options names."""
    actual = {**obstores.CLIENT_OPTIONS, **obstores.RETRY_CONFIG}
    waits = {"connect_timeout": "10s", "read_timeout": "20s", "timeout": "120s"}
    assert actual == waits | {"max_retries": 10, "retry_timeout": timedelta(minutes=2)}


def test_retries_wait_longer_each_time_and_not_all_alike(services, field):
    """Eight chunks of which each fails a few times: if waits were alike, requests would come in waves."""
    table = rd.scan_zarr(field[1], storage_options=services.options(**IMPATIENT)).select("a")
    services.set(match=CHUNKS, fault=503, times=72)
    begun = time.monotonic()
    table.collect()
    assert services.injected() == 72
    assert time.monotonic() - begun > 0.3  # three failures of each of 24 chunks: 0.1 to 0.2 s after the first alone


# Keys


def test_keys_that_expire_in_mid_scan_are_an_error_that_says_so(services, field):
    table = rd.scan_zarr(field[1], storage_options=services.options(**IMPATIENT)).select("a")
    services.set(fault="expired", match=CHUNKS, key="ADMINKEY")
    caught(StoreAccessError, table.collect, "key 'a/c/", "ExpiredToken", "credentials")
    assert services.injected() <= 2 * 24  # once, and once more as the keys might be new


def test_keys_that_were_renewed_in_mid_scan_are_taken(services, field, tmp_path, monkeypatch):
    """A profile whose keys another program renews, as logins of some hours do."""
    profile = tmp_path / "aws-credentials"
    write_profile(profile, "ADMINKEY", "adminsecret")
    table = rd.scan_zarr(field[1], storage_options={"endpoint_url": services.s3, **IMPATIENT}).select("a")
    services.set(fault="expired", match="/c/", key="ADMINKEY")
    write_profile(profile, READER["key"], READER["secret"])
    assert_frame_equal(table.collect(), rd.scan_zarr(field[0]).select("a").collect())
    assert {request.key for request in services.log() if request.fault == "-"} == {READER["key"]}


@pytest.mark.cluster
def test_keys_that_were_renewed_in_mid_scan_are_taken_by_workers(services, field, tmp_path, client):
    profile = tmp_path / "aws-credentials"
    write_profile(profile, "ADMINKEY", "adminsecret")
    client.run(set_environment, {"AWS_SHARED_CREDENTIALS_FILE": str(profile), "AWS_EC2_METADATA_DISABLED": "true"})
    options = {"endpoint_url": services.s3, **IMPATIENT}
    table = rd.scan_zarr(field[1], storage_options=options, client=client).select("a")
    expected = rd.scan_zarr(field[0]).select("a").collect()
    assert_frame_equal(table.collect(), expected)
    services.set(fault="expired", match="/c/", key="ADMINKEY")
    write_profile(profile, READER["key"], READER["secret"])
    assert_frame_equal(table.collect(), expected)


def write_profile(path, key, secret):
    path.write_text(f"[default]\naws_access_key_id = {key}\naws_secret_access_key = {secret}\n")


# What disappears


def test_a_chunk_that_is_not_there_is_the_fill_value_as_zarr_has_it(services, field):
    table = rd.scan_zarr(field[1], storage_options=services.options(), mask=False).select("a")
    services.set(fault="gone", times=1, match=CHUNKS)
    assert table.filter(pl.col("a") == -1).collect().height == 100


def test_a_store_that_is_deleted_in_mid_scan_is_an_error(services, field, tmp_path):
    shutil.copytree(field[0], tmp_path / "f.zarr")
    url = services.upload(tmp_path / "f.zarr")
    for column in "as":
        services.set()
        table = rd.scan_zarr(url, storage_options=services.options()).select(column)
        services.set(fault="gone")
        caught(ChunkReadError, table.collect, "was deleted", f"'{column}'")


def test_a_shard_that_disappears_after_its_index_was_read_is_an_error(services, field, monkeypatch):
    monkeypatch.setattr(remote, "_SMALL_SHARD_BYTES", 0)  # else it would be requested whole
    table = rd.scan_zarr(field[1], storage_options=services.options()).filter(pl.col("y") < 10)
    table.filter(pl.col("x") < 10).select("s").collect()  # the index of the first shard is kept now
    services.set(fault="gone", match="/s/c/0/0$")
    other = table.filter(pl.col("x").is_between(10, 19)).select("s")
    caught(ChunkReadError, other.collect, "(0, 0)", "in its index", "gone")


def test_an_object_of_icechunk_that_disappears_is_an_error(services):
    name = uuid.uuid4().hex
    repository = icechunk.Repository.create(icechunk_storage(services.direct, name))
    session = repository.writable_session("main")
    array = zarr.open_group(session.store, mode="w").create_array("a", shape=(4, 1000), chunks=(1, 1000), dtype="f8")
    array[:] = np.random.default_rng(0).normal(size=(4, 1000))
    session.commit("all")
    repository = icechunk.Repository.open(icechunk_storage(services.s3, name))
    table = rd.scan_zarr(repository.readonly_session("main"))
    services.set(fault="gone", match="/chunks/")
    caught(ChunkReadError, table.collect, "'a'", "key 'a/c/")
    services.set(fault=503, times=2, match="/chunks/")
    assert table.select("a").sum().collect().item() == pytest.approx(array[:].sum())
