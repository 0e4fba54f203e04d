"""Credentials: workers have them; no graph, message or log does; wrong ones raise an error that says so."""

import asyncio
import gc
import logging
import os
import pickle
import threading
import time
import traceback

import cloudpickle
import dask
import fsspec
import icechunk
import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from distributed import Client, LocalCluster
from polars.testing import assert_frame_equal
from zarr.storage import FsspecStore, LocalStore, MemoryStore

import rainbear_dask as rd
from rainbear_dask.exceptions import StoreAccessError
from rainbear_dask.execution import plugins as delivery
from rainbear_dask.redaction import holds_secrets
from rainbear_dask.resources import openings
from rainbear_dask.storage.credentials import Sealed, seal
from tests.support import guarded
from tests.support.errors import caught
from tests.support.guarded import KEY, PLANTED, SECRET
from tests.support.oracle import expected_frame
from tests.support.stores import CountingStore

c = pl.col
HEADERS = {"Authorization": f"Bearer {KEY}{SECRET}"}


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    """A folder with a store of 2 x 3 chunks, and a file of six numbers."""
    folder = tmp_path_factory.mktemp("bucket")
    values = np.random.default_rng(0).normal(0, 1, (4, 6))
    xr.Dataset({"v": (("y", "x"), values)}, {"y": np.arange(4), "x": np.arange(6)}).to_zarr(
        folder / "s.zarr", encoding={"v": {"chunks": (2, 2)}}, zarr_format=3, consolidated=False
    )
    zarr.consolidate_metadata(folder / "s.zarr")
    (folder / "raw.bin").write_bytes(np.arange(6, dtype="<i4").tobytes())
    return folder


@pytest.fixture(scope="module")
def served(folder):
    with guarded.serve(folder) as bucket:
        yield bucket


@pytest.fixture
def bucket(served):
    """The bucket, which refuses nobody who shows the key."""
    served.refusal = None
    served.requests.clear()
    yield served
    served.refusal = None


def s3_store(bucket, **credentials):
    return rd.store.S3Store(
        "bucket",
        endpoint=bucket.url,
        region="us-east-1",
        client_options={"allow_http": True},
        retry_config={"max_retries": 0},
        **credentials or {"access_key_id": KEY, "secret_access_key": SECRET},
    )


def virtual(bucket, folder, tmp_path):
    """A session of Icechunk whose one chunk lies in the bucket."""
    config = icechunk.RepositoryConfig.default()
    where = icechunk.s3_store(
        region="us-east-1", endpoint_url=bucket.url, allow_http=True, s3_compatible=True, force_path_style=True
    )
    config.set_virtual_chunk_container(icechunk.VirtualChunkContainer("s3://bucket/", where))
    key = icechunk.s3_credentials(access_key_id=KEY, secret_access_key=SECRET)
    repo = icechunk.Repository.create(
        icechunk.local_filesystem_storage(str(tmp_path / "repo")),
        config,
        authorize_virtual_chunk_access=icechunk.containers_credentials({"s3://bucket/": key}),
    )
    session = repo.writable_session("main")
    zarr.open_group(session.store, mode="w").create_array(
        "v", shape=(6,), chunks=(6,), dtype="i4", dimension_names=["x"], compressors=None
    )
    session.store.set_virtual_ref("v/c/0", "s3://bucket/raw.bin", offset=0, length=24)
    session.commit("virtual")
    return repo.readonly_session("main")


SOURCES = {
    "options of a URL": lambda b, *_: ((f"{b.url}/bucket/s.zarr",), {"storage_options": {"headers": HEADERS}}),
    "user in a URL": lambda b, *_: ((b.url.replace("//", f"//{KEY}:{SECRET}@") + "/bucket/s.zarr",), {}),
    "s3fs": lambda b, *_: (
        ("s3://bucket/s.zarr",),
        {"storage_options": {"key": KEY, "secret": SECRET, "client_kwargs": {"endpoint_url": b.url}}},
    ),
    "obstore": lambda b, *_: ((s3_store(b),), {"prefix": "s.zarr"}),
    "mapper": lambda b, *_: (
        (fsspec.get_mapper(f"{b.url}/bucket/s.zarr", headers=HEADERS, asynchronous=True),),
        {},
    ),
    "icechunk": lambda b, folder, tmp_path: ((virtual(b, folder, tmp_path),), {}),
}


@pytest.fixture(params=SOURCES)
def source(request, bucket, folder, tmp_path):
    """Positional and other arguments of `scan_zarr`."""
    return SOURCES[request.param](bucket, folder, tmp_path)


@pytest.fixture
def expected(source, folder):
    if "session" in type(source[0][0]).__name__.lower():
        return pl.DataFrame({"x": range(6), "v": np.arange(6, dtype="i4")})
    return expected_frame(str(folder / "s.zarr"))


def planted_in(*shown) -> list:
    """Those of some texts and bytes in which a secret is."""
    texts = [each if isinstance(each, bytes) else str(each).encode() for each in shown]
    return [text for text in texts if any(secret.encode() in text for secret in PLANTED)]


def told(error: BaseException) -> str:
    return "".join(traceback.format_exception(error)) + repr(error)


# ---------------------------------------------------------------------- what is shown


def test_no_text_shows_a_secret(source, expected, bucket):
    args, options = source
    lazy = rd.scan_zarr(*args, **options)
    plan = rd.plan(*args, c.v > 0, **options)
    assert_frame_equal(lazy.collect(), expected)
    bucket.refusal = "SignatureDoesNotMatch"
    refused = caught(StoreAccessError, lazy.collect, "redentials")
    shown = [
        repr(lazy),
        lazy.explain(),
        str(rd.explain(lazy)),
        str(plan.explain()),
        plan._repr_html_(),
        repr(plan),
        repr(plan.table),
    ]
    assert not planted_in(*shown, told(refused))


def test_no_text_of_a_backend_shows_a_secret(bucket, folder):
    backend = rd.ZarrBackendSync.from_store(s3_store(bucket), "s.zarr")
    backend.scan_zarr_sync(c.x > 2)
    travelled = pickle.loads(pickle.dumps(backend))
    bucket.refusal = "ExpiredToken"
    refused = [
        caught(StoreAccessError, backend.scan_zarr_sync, "403", "redentials"),
        caught(
            StoreAccessError, rd.ZarrBackendSync.from_store(s3_store(bucket), "s.zarr").scan_zarr_sync, "redentials"
        ),
    ]
    assert not planted_in(
        repr(backend),
        backend.cache_stats(),
        backend.cached.opened.meta(),
        backend.selected_chunks_debug(c.x > 1),
        *map(told, refused),
    )
    bucket.refusal = None  # what a user pickles has what it needs
    assert_frame_equal(travelled.scan_zarr_sync(c.x > 2), expected_frame(str(folder / "s.zarr")).filter(c.x > 2))


@pytest.mark.parametrize("code", ["SignatureDoesNotMatch", "ExpiredToken", "InvalidAccessKeyId", "AccessDenied"])
def test_a_wrong_or_expired_credential(source, bucket, code):
    args, options = source
    plan = rd.plan(*args, **options)
    bucket.refusal = code
    refused = caught(StoreAccessError, plan.collect, "redentials")
    assert isinstance(refused, PermissionError)
    assert not planted_in(told(refused))


def test_a_session_that_may_not_read_virtual_chunks(bucket, folder, tmp_path):
    virtual(bucket, folder, tmp_path)
    repo = icechunk.Repository.open(icechunk.local_filesystem_storage(str(tmp_path / "repo")))
    caught(StoreAccessError, rd.scan_zarr(repo.readonly_session("main")).collect, "authorize", "session")


# ---------------------------------------------------------------------- what is sent


def test_what_may_be_seen_and_what_not(bucket, tmp_path):
    class MyStore(LocalStore):
        pass

    seen = [
        (str(tmp_path), {}),
        ("s3://bucket/x", {"anon": True, "client_kwargs": {"endpoint_url": "http://127.0.0.1:9", "region_name": "x"}}),
        (LocalStore(tmp_path), {}),
        (MemoryStore(), {}),
        (FsspecStore.from_url("http://127.0.0.1:9/x"), {}),
        (zarr.storage.ObjectStore(rd.store.S3Store("b", region="eu-west-1", skip_signature=True)), {}),
    ]
    unseen = [
        ("s3://key:secret@bucket/x", {}),
        ("https://host/x?sig=abc", {}),
        ("s3://bucket/x", {"key": "a"}),
        ("gs://bucket/x", {"token": object()}),
        ("s3://bucket/x", {"client_kwargs": {"endpoint_url": f"http://me:{SECRET}@127.0.0.1:9"}}),
        (FsspecStore.from_url("http://127.0.0.1:9/x", storage_options={"headers": HEADERS}), {}),
        (zarr.storage.ObjectStore(s3_store(bucket)), {}),
        (zarr.storage.ObjectStore(rd.store.HTTPStore.from_url(f"http://me:{SECRET}@127.0.0.1:9")), {}),
        (MyStore(tmp_path), {}),
        (CountingStore(LocalStore(tmp_path)), {}),
    ]
    assert [holds_secrets(*each) for each in seen] == [False] * len(seen)
    assert [holds_secrets(*each) for each in unseen] == [True] * len(unseen)


def test_without_a_secret_a_graph_holds_the_address(folder):
    spec = rd.plan(str(folder / "s.zarr")).table.spec
    assert seal(spec) is spec


def test_stores_with_the_same_credentials_have_one_token_that_tells_nothing(bucket, folder):
    def token(name, secret=SECRET):
        options = {"headers": HEADERS | {"X-Other": secret}}
        spec = rd.plan(f"{bucket.url}/bucket/{name}", storage_options=options).table.spec
        sealed = seal(spec).source
        assert isinstance(sealed, Sealed)
        return sealed.token

    (folder / "other.zarr").symlink_to(folder / "s.zarr")
    assert token("s.zarr") == token("other.zarr") != token("s.zarr", "another")


def test_the_same_question_has_the_same_keys_with_other_credentials(bucket):
    def keys(secret):
        options = {"headers": HEADERS | {"X-Other": secret}}
        return [frame.key for frame in rd.plan(f"{bucket.url}/bucket/s.zarr", storage_options=options).to_delayed()]

    assert keys("one") == keys("two")


def test_graphs_run_in_the_process_that_made_them(source, expected):
    args, options = source
    frames = rd.plan(*args, **options).to_delayed()
    assert not planted_in(cloudpickle.dumps(dict(frames[0].dask)), *(frame.key for frame in frames))
    assert_frame_equal(pl.concat(dask.compute(*frames, scheduler="threads")), expected)


def of_scheduler(dask_scheduler) -> list[bytes]:
    """What a scheduler knows of its tasks."""
    tasks = dask_scheduler.tasks.values()
    known = [(ts.key, ts.run_spec, ts.annotations, ts.group_key, ts.exception_text, ts.traceback_text) for ts in tasks]
    return [cloudpickle.dumps(each) for each in known] + [
        repr(known).encode(),
        repr(dask_scheduler.identity()).encode(),
    ]


@pytest.mark.cluster
def test_workers_read_and_nothing_that_passes_the_scheduler_has_a_secret(source, expected, client, bucket, caplog):
    caplog.set_level(logging.INFO)
    for name in ("rainbear_dask", "distributed", "zarr"):
        caplog.set_level(logging.DEBUG, name)
    args, options = source
    assert_frame_equal(rd.scan_zarr(*args, **options).collect(), expected)
    assert_frame_equal(
        rd.scan_zarr(*args, **options, client=client).filter(c.v > 0).collect(), expected.filter(c.v > 0)
    )
    plan = rd.plan(*args, **options)
    assert_frame_equal(pl.concat(plan.map_partitions(lambda frame: frame, client)), expected)
    kept = plan.persist(client)
    assert_frame_equal(pl.concat(client.gather(plan.to_futures(client))), expected)
    shown = client.run_on_scheduler(of_scheduler)
    assert any(b"scan-zarr" in text for text in shown)
    graph = cloudpickle.dumps([dict(frame.dask) for frame in (*kept, *plan.to_delayed())])
    bucket.refusal = "ExpiredToken"
    refused = caught(StoreAccessError, lambda: plan.collect(client), "redentials")
    logs = [client.get_worker_logs(), client.get_scheduler_logs(), caplog.text]
    shown += client.run_on_scheduler(of_scheduler)
    assert not planted_in(*shown, graph, *logs, told(refused))


@pytest.mark.cluster
def test_with_an_asynchronous_client(bucket, cluster, folder):
    async def main():
        async with Client(cluster.scheduler_address, asynchronous=True) as client:
            backend = rd.ZarrBackend.from_store(s3_store(bucket), "s.zarr")
            first, second = await asyncio.gather(*(backend.scan_zarr_async(p) for p in (c.v > 0, c.x < 2)))
            plugins = await client.run_on_scheduler(names_of_plugins)
            return first, second, [name for name in plugins if client.id in name]

    with dask.config.set({"rainbear-dask.small-plan-bytes": 0}):
        first, second, plugins = asyncio.run(main())
    table = expected_frame(str(folder / "s.zarr"))
    assert_frame_equal(first, table.filter(c.v > 0))
    assert_frame_equal(second, table.filter(c.x < 2))
    assert len(plugins) == 1


def names_of_plugins(dask_scheduler) -> list[str]:
    return list(dask_scheduler.worker_plugins)


def secrets_known() -> int:
    from rainbear_dask.storage import credentials  # noqa: PLC0415  on a worker

    return len(credentials._secrets)


@pytest.mark.cluster
def test_secrets_travel_once_and_are_forgotten_when_their_client_goes(bucket, cluster, monkeypatch):
    brought = []
    bring = delivery._bring

    async def watched(client, secret):
        brought.append(secret.token)
        await bring(client, secret)

    monkeypatch.setattr(delivery, "_bring", watched)
    with Client(cluster, set_as_default=False) as other:
        before = other.run(secrets_known)
        with Client(cluster, set_as_default=False) as client:
            for _ in range(2):
                source = f"{bucket.url}/bucket/s.zarr"
                plan = rd.plan(source, storage_options={"headers": HEADERS | {"X-Other": "travels once"}})
                threads = [threading.Thread(target=plan.collect, args=(client,)) for _ in range(3)]
                for thread in threads:
                    thread.start()
                for thread in threads:
                    thread.join()
            assert len(brought) == 1
            assert [name for name in other.run_on_scheduler(names_of_plugins) if client.id in name]
            assert other.run(secrets_known) == {worker: count + 1 for worker, count in before.items()}
        deadline = time.monotonic() + 10
        while other.run(secrets_known) != before and time.monotonic() < deadline:
            time.sleep(0.05)
        assert other.run(secrets_known) == before
        assert not [name for name in other.run_on_scheduler(names_of_plugins) if client.id in name]
        # work that is asked for by a client that did not bring them
        caught(StoreAccessError, lambda: other.gather(other.compute(plan.to_delayed())), "to_delayed(client)")
        again = rd.plan(f"{bucket.url}/bucket/s.zarr", c.v > -9, storage_options=plan.table.spec.options)
        assert sum(frame.height for frame in other.gather(other.compute(again.to_delayed(other)))) == 24


@pytest.mark.cluster
def test_of_many_credentials_the_oldest_are_forgotten_by_workers(bucket, cluster, monkeypatch):
    monkeypatch.setattr(delivery, "_MAX_SECRETS", 3)
    monkeypatch.setattr(openings, "MAX_ARRIVED", 1)  # what the scheduler, which is in this process, was sent last
    with Client(cluster, set_as_default=False) as client:
        for number in range(8):
            options = {"headers": HEADERS | {"X-Other": f"number {number}"}}
            plan = rd.plan(f"{bucket.url}/bucket/s.zarr", storage_options=options)
            assert plan.collect(client).height == 24
            gc.collect()
        mine = [name for name in client.run_on_scheduler(names_of_plugins) if client.id in name]
        assert len(mine) <= 5
        assert plan.collect(client).height == 24


@pytest.mark.cluster
@pytest.mark.slow
def test_workers_that_come_later_have_them_too(bucket):
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as cluster,
        cluster.get_client() as client,
    ):
        plan = rd.plan(s3_store(bucket), prefix="s.zarr")
        assert plan.collect(client).height == 24
        (first,) = client.nthreads()
        cluster.scale(2)
        client.wait_for_workers(2, timeout=60)
        (late,) = set(client.nthreads()) - {first}
        with dask.annotate(workers=[late]):
            assert sum(frame.height for frame in client.gather(plan.to_futures(client))) == 24


def give_credentials():
    """A provider of credentials, in a module that workers find; it tells who asked."""
    with open(os.environ["ASKED_FOR_CREDENTIALS"], "a") as asked:  # noqa: PTH123
        asked.write(f"{os.getpid()}\n")
    return {"access_key_id": KEY, "secret_access_key": SECRET, "expires_at": None}


@pytest.mark.cluster
def test_a_process_asks_for_credentials_once(bucket, client, tmp_path, monkeypatch):
    asked = tmp_path / "asked"
    monkeypatch.setenv("ASKED_FOR_CREDENTIALS", str(asked))
    client.run(lambda: os.environ.update(ASKED_FOR_CREDENTIALS=str(asked)))
    store = s3_store(bucket, credential_provider=give_credentials)
    for _ in range(3):
        assert rd.scan_zarr(store, prefix="s.zarr", client=client).filter(c.v > -9).collect().height == 24
    processes = asked.read_text().split()
    assert len(processes) == len(set(processes)) == 3  # two workers, and the client for the metadata
