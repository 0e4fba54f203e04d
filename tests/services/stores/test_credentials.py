"""Keys, regions and endpoints: from options, the environment and profiles; asked for once; and shown nowhere."""

import os
import stat

import botocore.session
import numpy as np
import pytest
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError, StoreAccessError, StoreNotFoundError
from rainbear_dask.storage import s3 as s3_settings
from tests.services.stores.servers import ADMIN, READER, set_environment
from tests.support.errors import caught

pytestmark = pytest.mark.stores
LIBRARIES = pytest.mark.parametrize("library", ["obstore", "fsspec"])


@pytest.fixture(scope="module")
def field(running, tmp_path_factory):
    """A folder, and its copies in a closed bucket and in one that is open to all."""
    folder = tmp_path_factory.mktemp("field") / "f.zarr"
    array = zarr.open_group(folder, mode="w").create_array(
        "a", shape=(8, 6), chunks=(2, 6), dtype="f4", dimension_names=("y", "x")
    )
    array[:] = np.random.default_rng(0).normal(size=(8, 6))
    zarr.consolidate_metadata(folder)
    return rd.scan_zarr(folder).collect(), running.upload(folder), running.upload(folder, "public")


@pytest.fixture
def profiles(tmp_path, monkeypatch):
    """Where tests write profiles."""
    return tmp_path / "aws-config", tmp_path / "aws-credentials"


@LIBRARIES
def test_a_bucket_that_is_open_to_all(services, field, library):
    options = {"anon": True, "endpoint_url": services.s3, "library": library}
    assert_frame_equal(rd.scan_zarr(field[2], storage_options=options).collect(), field[0])
    assert {request.key for request in services.log()} == {"-"}
    caught(StoreAccessError, lambda: rd.scan_zarr(field[1], storage_options=options), "refuses access", "credentials")


SPELLINGS = {
    "short": lambda url: {**ADMIN, "endpoint_url": url},
    "in client_kwargs": lambda url: {**ADMIN, "client_kwargs": {"endpoint_url": url, "region_name": "us-east-1"}},
    "of boto": lambda url: {
        "client_kwargs": {
            "endpoint_url": url,
            "aws_access_key_id": ADMIN["key"],
            "aws_secret_access_key": ADMIN["secret"],
        }
    },
    "in path style": lambda url: {
        **ADMIN,
        "endpoint_url": url,
        "use_ssl": False,
        "config_kwargs": {"s3": {"addressing_style": "path"}},
    },
}


@LIBRARIES
@pytest.mark.parametrize("spelling", SPELLINGS)
def test_keys_from_options(services, field, library, spelling):
    options = SPELLINGS[spelling](services.s3) | {"library": library}
    assert_frame_equal(rd.scan_zarr(field[1], storage_options=options).collect(), field[0])


@LIBRARIES
def test_keys_from_the_environment(services, field, library, monkeypatch):
    for name, value in {
        "AWS_ACCESS_KEY_ID": READER["key"],
        "AWS_SECRET_ACCESS_KEY": READER["secret"],
        "AWS_ENDPOINT_URL": services.s3,
        "AWS_DEFAULT_REGION": "eu-north-1",
    }.items():
        monkeypatch.setenv(name, value)
    assert_frame_equal(rd.scan_zarr(field[1], storage_options={"library": library}).collect(), field[0])
    assert {(request.key, request.region) for request in services.log()} == {(READER["key"], "eu-north-1")}


def test_keys_from_options_do_not_mix_with_those_of_the_environment(services, field, monkeypatch):
    monkeypatch.setenv("AWS_ACCESS_KEY_ID", "another")
    monkeypatch.setenv("AWS_SECRET_ACCESS_KEY", "anothersecret")
    monkeypatch.setenv("AWS_SESSION_TOKEN", "a token that goes with it")
    monkeypatch.setenv("AWS_ENDPOINT_URL", "http://127.0.0.1:9")
    assert_frame_equal(rd.scan_zarr(field[1], storage_options=services.options()).collect(), field[0])


@pytest.mark.parametrize(
    ("library", "named"),
    # fsspec keeps its file systems by their options, and does not look at the environment again
    [("obstore", "option"), ("obstore", "environment"), ("fsspec", "option")],
)
def test_keys_from_a_profile(services, field, profiles, library, named, monkeypatch):
    config, credentials = profiles
    credentials.write_text(
        "[default]\naws_access_key_id = no\naws_secret_access_key = no\n"
        f"[reading]\naws_access_key_id = {READER['key']}\naws_secret_access_key = {READER['secret']}\n"
    )
    config.write_text(f"[profile reading]\nregion = eu-west-3\nendpoint_url = {services.s3}\n")
    options = {"library": library}
    if named == "option":
        options["profile"] = "reading"
    else:
        monkeypatch.setenv("AWS_PROFILE", "reading")
    assert_frame_equal(rd.scan_zarr(field[1], storage_options=options).collect(), field[0])
    assert {(request.key, request.region) for request in services.log()} == {(READER["key"], "eu-west-3")}


def test_a_profile_that_is_not_there(services, field):
    options = {"profile": "nobody", "endpoint_url": services.s3}
    caught(StoreAccessError, lambda: rd.scan_zarr(field[1], storage_options=options), "nobody")


@pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
def test_keys_are_asked_for_once_in_a_process(services, field, profiles, tmp_path, where, request):
    """By a program that a profile names, which counts how often it was called."""
    program, calls = tmp_path / "keys.sh", tmp_path / "calls"
    program.write_text(
        f"#!/bin/sh\necho $PPID >> {calls}\n"
        f'echo \'{{"Version": 1, "AccessKeyId": "{READER["key"]}", "SecretAccessKey": "{READER["secret"]}"}}\'\n'
    )
    program.chmod(program.stat().st_mode | stat.S_IXUSR)
    profiles[0].write_text(f"[default]\ncredential_process = {program}\n")
    client = request.getfixturevalue("client") if where == "cluster" else None
    if client is not None:
        settings = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
        client.run(set_environment, settings)
    table = rd.scan_zarr(field[1], storage_options={"endpoint_url": services.s3}, client=client)
    for _ in range(3):
        assert_frame_equal(table.collect(), field[0])
    asked = calls.read_text().split()
    assert len(asked) == len(set(asked))
    assert len(asked) <= (1 if client is None else 3)


@LIBRARIES
def test_who_reads_pays_if_told_to(services, field, library):
    rd.scan_zarr(field[1], storage_options=services.options(library=library)).collect()
    assert {request.payer for request in services.log()} == {"-"}
    services.set()
    rd.scan_zarr(field[1], storage_options=services.options(library=library, requester_pays=True)).collect()
    assert {request.payer for request in services.log() if request.method == "GET"} == {"requester"}


@LIBRARIES
@pytest.mark.parametrize(
    "spelling",
    [
        pytest.param({"region": "ap-south-1"}, id="short"),
        pytest.param({"client_kwargs": {"region_name": "ap-south-1"}}, id="in client_kwargs"),
    ],
)
def test_a_region(services, field, library, spelling):
    rd.scan_zarr(field[1], storage_options=services.options(library=library, **spelling)).collect()
    assert {request.region for request in services.log()} == {"ap-south-1"}


def test_on_aws_the_region_of_a_bucket_is_asked_for(services, monkeypatch):
    """Of a server that answers as AWS does: it names the region also where it refuses."""
    monkeypatch.setattr(s3_settings, "_BUCKET_URL", services.web + "/region/{}")
    session = botocore.session.Session()
    assert s3_settings._found_region(session, "bucket", None) == "eu-central-1"
    assert s3_settings._found_region(session, "bucket", services.s3) is None
    monkeypatch.setattr(s3_settings, "_BUCKET_URL", "http://127.0.0.1:9/{}")
    monkeypatch.setenv("AWS_DEFAULT_REGION", "eu-west-1")
    assert s3_settings._found_region(session, "bucket", None) == "eu-west-1"


@LIBRARIES
def test_what_is_refused(services, field, library):
    wrong = services.options(library=library) | {"secret": "planted-secret"}
    error = caught(StoreAccessError, lambda: rd.scan_zarr(field[1], storage_options=wrong), "refuses access")
    assert "planted" not in str(error)
    unknown = services.options(library=library) | {"key": "PLANTEDKEY"}
    error = caught(StoreAccessError, lambda: rd.scan_zarr(field[1], storage_options=unknown), "refuses access")
    assert "PLANTED" not in str(error)


@LIBRARIES
def test_what_is_not_there(services, library):
    for url in ("s3://private/none.zarr", "s3://no-such-bucket/none.zarr"):
        options = services.options(library=library)
        caught(StoreNotFoundError, lambda url=url, options=options: rd.scan_zarr(url, storage_options=options), url)


def test_options_that_obstore_has_no_word_for_go_to_s3fs(services, field):
    options = services.options(version_aware=True)
    assert_frame_equal(rd.scan_zarr(field[1], storage_options=options).collect(), field[0])
    chunks = [request for request in services.log() if request.is_of_chunk]
    assert chunks
    assert all(request.range.startswith("bytes=0-") for request in chunks)  # obstore asks for whole objects
    caught(
        QueryError, lambda: rd.scan_zarr(field[1], storage_options=options | {"library": "obstore"}), "version_aware"
    )
