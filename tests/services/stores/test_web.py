"""Web servers: without ranges, elsewhere, closed, encrypted."""

import base64

import fsspec
import numpy as np
import polars as pl
import pytest
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import ChunkReadError, QueryError, StoreAccessError, StoreError, StoreNotFoundError
from tests.services.stores.servers import ADMIN
from tests.support.errors import caught

pytestmark = pytest.mark.stores
LIBRARIES = pytest.mark.parametrize("options", [{}, {"library": "fsspec"}], ids=["obstore", "fsspec"])


@pytest.fixture(scope="module")
def field(running, tmp_path_factory):
    """An array in chunks and one in shards; its folder and its name on the server."""
    folder = tmp_path_factory.mktemp("field") / "f.zarr"
    group = zarr.open_group(folder, mode="w")
    values = np.random.default_rng(0).normal(size=(40, 60)).astype("f4")
    how = {"shape": (40, 60), "chunks": (10, 10), "dtype": "f4", "dimension_names": ("y", "x")}
    for name, shards in {"a": None, "s": (20, 60)}.items():
        group.create_array(name, shards=shards, compressors=None, **how)[:] = values
    zarr.consolidate_metadata(folder)
    return folder, running.publish(folder)


def box(source, **options):
    return rd.scan_zarr(source, **options).filter(pl.col("y").is_between(5, 14), pl.col("x") > 41).collect()


@LIBRARIES
@pytest.mark.parametrize("place", ["", "noranges/", "moved/"])
def test_servers_with_and_without_ranges_and_those_that_send_one_elsewhere(services, field, place, options):
    services.set()
    assert_frame_equal(box(f"{services.web}/{place}{field[1]}", storage_options=options), box(field[0]))


def test_a_server_without_ranges_is_what_fsspec_alone_reads_wrongly(services, field):
    """If this fails, fsspec looks at what it gets, and there is nothing left to check."""
    http = fsspec.filesystem("http")
    assert len(http.cat_file(f"{services.web}/noranges/{field[1]}/s/c/0/0", start=0, end=10)) > 10


@LIBRARIES
def test_a_server_that_wants_to_be_told_who_asks(services, field, options):
    url = f"{services.web}/private/{field[1]}"
    right = {"headers": {"Authorization": "Bearer right"}, **options}
    assert_frame_equal(box(url, storage_options=right), box(field[0]))
    wrong = {"headers": {"Authorization": "Bearer planted-secret"}, **options}
    for given in (options, wrong):
        error = caught(StoreAccessError, lambda given=given: box(url, storage_options=given), "refuses access")
        assert "planted" not in str(error)


@pytest.mark.cluster
def test_workers_are_told_as_well(services, field, client):
    options = {"headers": {"Authorization": "Bearer right"}}
    url = f"{services.web}/private/{field[1]}"
    assert_frame_equal(box(url, storage_options=options, client=client), box(field[0]))


def test_user_and_password_in_the_url_are_sent_and_not_shown(services, field):
    url = services.web.replace("://", "://someone:planted-secret@")
    table = rd.scan_zarr(f"{url}/{field[1]}")
    assert_frame_equal(table.collect(), rd.scan_zarr(field[0]).collect())
    assert base64.b64encode(b"someone:planted-secret").decode() not in rd.explain(table)
    assert "planted" not in rd.explain(table)
    error = caught(StoreAccessError, lambda: rd.scan_zarr(f"{url}/private/{field[1]}"), "refuses access")
    assert "planted" not in str(error)


@pytest.mark.parametrize("service", ["web", "s3"])
def test_a_certificate_of_ones_own_authority(services, field, service, monkeypatch):
    with open(services.ca) as file:  # noqa: PTH123
        authority = file.read()
    if service == "web":
        url, options = f"{services.web_tls}/{field[1]}", {}
    else:
        url, options = services.upload(field[0]), {**ADMIN, "endpoint_url": services.s3_tls}
    expected = box(field[0])
    short = {"retry_config": {"max_retries": 1}}
    caught(StoreError, lambda: box(url, storage_options={**options, **short}), "ertificate")
    told = {**options, "client_options": {"root_certificate": authority}}
    assert_frame_equal(box(url, storage_options=told), expected)
    if service == "s3":
        assert_frame_equal(box(url, storage_options={**options, "client_kwargs": {"verify": services.ca}}), expected)
        assert_frame_equal(box(url, storage_options={**options, "client_kwargs": {"verify": False}}), expected)
        monkeypatch.setenv("AWS_CA_BUNDLE", services.ca)
        assert_frame_equal(box(url, storage_options=options | {"region": "us-east-1"}), expected)


@LIBRARIES
def test_what_is_not_there(services, options):
    caught(StoreNotFoundError, lambda: rd.scan_zarr(f"{services.web}/none.zarr", storage_options=options), "none.zarr")


def test_a_server_that_goes_away(services, field):
    table = rd.scan_zarr(f"{services.web}/{field[1]}", storage_options={"retry_config": {"max_retries": 2}})
    services.set(fault="reset")
    caught(ChunkReadError, table.collect, "Cannot read", "service answers")


def test_options_that_only_one_library_knows(services, field):
    url = f"{services.web}/{field[1]}"
    of_fsspec = {"block_size": 2**20}
    assert_frame_equal(box(url, storage_options=of_fsspec), box(field[0]))
    caught(QueryError, lambda: box(url, storage_options={**of_fsspec, "library": "obstore"}), "block_size", "obstore")
    caught(QueryError, lambda: box(url, storage_options={**of_fsspec, "retry_config": {}}), "retry_config", "fsspec")
    caught(QueryError, lambda: box(url, storage_options={"library": "curl"}), "library", "obstore")
