"""S3, Google Cloud Storage and Azure alike: credentials, their renewal, secrets, refusals, and who pays."""

import inspect
import logging
import pickle
import traceback
import urllib.request

import numpy as np
import polars as pl
import pytest
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import StoreAccessError, StoreError, StoreNotFoundError, WriteError
from rainbear_dask.storage.connect import disconnect_all
from rainbear_dask.storage.services import AZURE, GCS, S3
from tests.services.stores.clouds import connection_string, sas_token
from tests.services.stores.servers import set_environment
from tests.support.errors import caught

pytestmark = pytest.mark.stores
WHERE = pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])


@pytest.fixture(scope="module")
def uploaded(tmp_path_factory):
    """A function that returns the rows of a store, and its URLs in both buckets of a cloud."""
    folder = tmp_path_factory.mktemp("field") / "f.zarr"
    array = zarr.open_group(folder, mode="w").create_array(
        "a", shape=(8, 6), chunks=(2, 6), dtype="f4", dimension_names=("y", "x")
    )
    array[:] = np.random.default_rng(0).normal(size=(8, 6))
    zarr.consolidate_metadata(folder)
    rows, found = rd.scan_zarr(folder).collect(), {}

    def copies(cloud):
        if cloud.scheme not in found:
            found[cloud.scheme] = cloud.upload(folder), cloud.upload(folder, "public")
        return rows, *found[cloud.scheme]

    return copies


@pytest.fixture
def copies(cloud, uploaded):
    """Rows, and URLs in the private and the public bucket of a cloud."""
    found = uploaded(cloud)
    cloud.services.set()
    return found


def environment_of(cloud, where, request, monkeypatch, variables):
    """Set variables here, or here and on workers; return the client of the workers."""
    for name, value in variables.items():
        monkeypatch.setenv(name, value)
    if where == "threads":
        return None
    client = request.getfixturevalue("client")
    client.run(set_environment, variables)
    client.run(disconnect_all)
    return client


@WHERE
def test_a_public_bucket(cloud, copies, where, request):
    rows, private, public = copies
    client = request.getfixturevalue("client") if where == "cluster" else None
    options = {**cloud.place, **cloud.anonymous}
    assert_frame_equal(rd.scan_zarr(public, storage_options=options, client=client).collect(), rows)
    assert {request.key for request in cloud.services.log()} == {"-"}
    caught(StoreAccessError, lambda: rd.scan_zarr(private, storage_options=options), "refuses access", "credentials")


def test_no_credentials_at_all(cloud, copies):
    """An error before any request, but on Google's service, where requests are anonymous then, as with gcsfs."""
    rows, private, public = copies
    if cloud.scheme == "gs":
        assert_frame_equal(rd.scan_zarr(public, storage_options=cloud.place).collect(), rows)
        caught(StoreAccessError, lambda: rd.scan_zarr(private, storage_options=cloud.place), "refuses access", "401")
    else:
        caught(StoreAccessError, lambda: rd.scan_zarr(private, storage_options=cloud.place), "no credentials", "anon")
        assert cloud.services.log() == []


def test_both_users_read(cloud, copies):
    rows, private, _ = copies
    for user in (cloud.admin, cloud.reader):
        assert_frame_equal(rd.scan_zarr(private, storage_options=cloud.place | user).collect(), rows)


@WHERE
def test_without_options_the_environment_is_enough(cloud, copies, where, request, monkeypatch):
    rows, private, _ = copies
    client = environment_of(cloud, where, request, monkeypatch, cloud.environment)
    assert_frame_equal(rd.scan_zarr(private, client=client).collect(), rows)
    assert_frame_equal(rd.ZarrBackendSync.from_url(private).scan_zarr_sync(), rows)


def test_credentials_of_options_do_not_mix_with_those_of_the_environment(cloud, copies, monkeypatch):
    rows, private, _ = copies
    refused = {
        "s3": {"AWS_ACCESS_KEY_ID": "another", "AWS_SECRET_ACCESS_KEY": "other", "AWS_SESSION_TOKEN": "third"},
        "gs": {"GOOGLE_BEARER_TOKEN": "another"},
        "az": {"AZURE_STORAGE_ACCOUNT_KEY": "b3RoZXI=", "AZURE_STORAGE_SAS_TOKEN": "sig=other"},
    }
    for name, value in refused[cloud.scheme].items():
        monkeypatch.setenv(name, value)
    for user in (cloud.admin, cloud.reader):
        assert_frame_equal(rd.scan_zarr(private, storage_options=cloud.place | user).collect(), rows)


def test_refused_credentials(cloud, copies):
    options = cloud.place | cloud.wrong
    error = caught(StoreAccessError, lambda: rd.scan_zarr(copies[1], storage_options=options), "refuses access")
    text = "".join(traceback.format_exception(error))
    assert not any(secret in text for secret in ["planted", *cloud.wrong.values()])


def test_stores_and_buckets_that_are_not_there(cloud, services):
    for bucket in ["private"] if cloud.scheme == "gs" else ["private", "no-such-bucket"]:
        url = f"{cloud.scheme}://{bucket}/none.zarr"
        caught(StoreNotFoundError, lambda url=url: rd.scan_zarr(url, storage_options=cloud.options()), url)


@WHERE
def test_options_without_an_equivalent_go_to_fsspec(cloud, copies, where, request):
    rows, private, _ = copies
    client = request.getfixturevalue("client") if where == "cluster" else None
    options = cloud.fsspec | {"version_aware": cloud.scheme != "az"} | ({"timeout": 10} if cloud.scheme == "az" else {})
    assert_frame_equal(rd.scan_zarr(private, storage_options=options, client=client).collect(), rows)


def test_each_option_of_a_file_system_has_a_kind():
    adlfs, gcsfs, s3fs = map(pytest.importorskip, ("adlfs", "gcsfs", "s3fs"))
    for service, found in [
        (AZURE, adlfs.AzureBlobFileSystem),
        (GCS, gcsfs.core.GCSFileSystem),
        (S3, s3fs.S3FileSystem),
    ]:
        names = {
            each.name for each in inspect.signature(found.__init__).parameters.values() if each.kind != each.VAR_KEYWORD
        }
        assert names - {"self"} <= service.options


# Renewal

RENEWED = {
    "s3": lambda: (
        {"AWS_ACCESS_KEY_ID": "ADMINKEY", "AWS_SECRET_ACCESS_KEY": "adminsecret"},
        {"AWS_ACCESS_KEY_ID": "READERKEY", "AWS_SECRET_ACCESS_KEY": "readersecret"},
        {"key": "ADMINKEY", "match": "/c/"},
    ),
    "gs": lambda: (
        {"GOOGLE_BEARER_TOKEN": "ADMINTOKEN"},
        {"GOOGLE_BEARER_TOKEN": "READERTOKEN"},
        {"key": "ADMINTOKEN", "match": "/c/"},
    ),
    "az": lambda: (
        {"AZURE_STORAGE_SAS_TOKEN": sas_token("r")},
        {"AZURE_STORAGE_SAS_TOKEN": sas_token("rl")},
        {"match": "/c/.*sp=r&"},
    ),
}


@WHERE
def test_credentials_that_are_renewed_during_a_scan(cloud, copies, where, request, monkeypatch):
    rows, private, _ = copies
    first, second, expired = RENEWED[cloud.scheme]()
    client = environment_of(cloud, where, request, monkeypatch, first)
    place = (
        {"account_name": "testaccount", "endpoint": cloud.place["endpoint"]} if cloud.scheme == "az" else cloud.place
    )
    table = rd.scan_zarr(private, storage_options=place, client=client)
    assert_frame_equal(table.collect(), rows)
    cloud.services.set(fault="expired", **expired)
    error = caught(StoreAccessError, table.collect, "credentials", "key 'a/c/")
    assert not any(value in str(error) for value in first.values())
    for name, value in second.items():
        monkeypatch.setenv(name, value)
    if client is not None:
        client.run(set_environment, second)
    assert_frame_equal(table.collect(), rows)


@WHERE
def test_a_machine_in_googles_cloud_is_asked_once_in_a_process(
    started, uploaded, services, where, request, monkeypatch
):
    cloud = started("gcs")
    rows, private, _ = uploaded(cloud)
    variables = {"GCE_METADATA_HOST": services.gcs[7:], "NO_GCE_CHECK": "false"}
    client = environment_of(cloud, where, request, monkeypatch, variables)
    services.set()
    table = rd.scan_zarr(private, storage_options=cloud.place, client=client)
    for _ in range(3):
        assert_frame_equal(table.collect(), rows)
    tokens = [each for each in services.log() if "computeMetadata" in each.path and "token" in each.path]
    assert 1 <= len(tokens) <= (1 if client is None else 3)
    services.set(fault="expired", key="ADMINTOKEN", match="/private/", token="READERTOKEN")  # noqa: S106
    assert_frame_equal(table.collect(), rows)
    if client is not None:
        client.run(set_environment, {"NO_GCE_CHECK": "true"})


def test_signatures_that_have_expired_or_lack_a_right(started, uploaded, services):
    cloud = started("azure")
    _, private, _ = uploaded(cloud)
    options = cloud.place | {"sas_token": sas_token("rl", hours=-1)}
    error = caught(StoreAccessError, lambda: rd.scan_zarr(private, storage_options=options), "refuses access")
    assert "sig=" not in str(error)
    options = cloud.place | {"sas_token": sas_token("rl")}
    with pytest.raises((StoreError, WriteError), match="Permission"):
        rd.write_parquet(rd.scan_zarr(private, storage_options=options), "az://private/no/out", storage_options=options)


def test_both_keys_of_an_account_and_its_connection_string(started, uploaded, services, monkeypatch):
    from tests.services.stores.clouds import SECOND_KEY  # noqa: PLC0415

    cloud = started("azure")
    rows, private, _ = uploaded(cloud)
    text = connection_string(services.azure)
    for options in (cloud.place | {"account_key": SECOND_KEY}, {"connection_string": text}):
        assert_frame_equal(rd.scan_zarr(private, storage_options=options).collect(), rows)
    monkeypatch.setenv("AZURE_STORAGE_CONNECTION_STRING", text)
    for url in (private, private.replace("az://private/", "abfss://private@testaccount.dfs.core.windows.net/")):
        options = cloud.place if url != private else {}
        assert_frame_equal(rd.scan_zarr(url, storage_options=options).collect(), rows)


def test_the_reader_pays_if_told_to(started, uploaded, services):
    cloud = started("gcs")
    _, private, _ = uploaded(cloud)
    services.set()
    rd.scan_zarr(private, storage_options=cloud.options()).collect()
    assert {request.payer for request in services.log()} == {"-"}
    services.set()
    rd.scan_zarr(private, storage_options=cloud.options(requester_pays=True, project="mine")).collect()
    assert {request.payer for request in services.log()} == {"mine"}


# Secrets


def assert_hidden(cloud, *texts):
    for text in texts:
        assert not any(secret in text for secret in cloud.secrets)


def test_secrets_are_in_no_repr_message_or_log(cloud, copies, caplog):
    caplog.set_level(logging.DEBUG)
    _, url, _ = copies
    options = cloud.options()
    table, plan = rd.scan_zarr(url, storage_options=options), rd.plan(url, storage_options=options)
    backend = rd.ZarrBackendSync.from_url(url)
    shown = [repr(table), str(rd.explain(table)), repr(plan), str(plan.explain()), plan._repr_html_(), repr(backend)]
    assert_hidden(cloud, *shown, *map(repr, plan.tasks()))
    table.filter(pl.col("y") > 2).collect()
    cloud.services.set(fault="expired", match="/c/")
    with pytest.raises(StoreAccessError) as info:
        table.collect()
    logged = [record.getMessage() for record in caplog.records if not record.name.startswith("botocore")]
    assert_hidden(cloud, "".join(traceback.format_exception(info.value)), *logged)


@pytest.mark.cluster
def test_secrets_are_in_no_graph_key_log_or_page_of_a_cluster(cloud, copies, client):
    rows, url, _ = copies
    options = cloud.options(retry_config={"max_retries": 0})
    table = rd.scan_zarr(url, storage_options=options, client=client)
    delayed = rd.plan(url, storage_options=options).to_delayed(client)
    graphs = [pickle.dumps(dict(one.dask)) for one in delayed]
    assert not any(secret.encode() in graph for graph in graphs for secret in cloud.secrets)
    assert_frame_equal(pl.concat(client.gather(client.compute(delayed))), rows)
    assert_frame_equal(table.collect(), rows)
    cloud.services.set(fault=503, match="/c/")
    with pytest.raises(OSError, match="503") as info:
        table.collect()
    logs = [str(client.get_scheduler_logs()), str(client.get_worker_logs()), str(client.get_events())]
    page = client.dashboard_link.removesuffix("status")
    texts = []
    for name in ("info/main/workers.html", "info/main/logs.html", "metrics", "json/counts.json", "sitemap.json"):
        with urllib.request.urlopen(page + name, timeout=10) as answer:  # noqa: S310  our own
            texts.append(answer.read().decode())
    assert any(texts)
    keys = [str(each.key) for each in delayed]
    assert_hidden(cloud, *keys, *logs, *texts, str(info.value), "".join(traceback.format_exception(info.value)))
