"""Chunks in object stores, read without zarr's pipeline: values, damage, requests, and the thread that decodes."""

import asyncio
import shutil
import threading
import time

import dask
import numpy as np
import pytest
import zarr
from zarr import AsyncArray
from zarr.codecs import BloscCodec
from zarr.storage import LocalStore

from rainbear_dask.chunks import array as chunks
from rainbear_dask.chunks import errors, remote
from rainbear_dask.chunks.read import read_regions, stream_regions
from rainbear_dask.chunks.remote import RemoteReader
from rainbear_dask.exceptions import ChunkReadError
from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.metadata.opening import open_store
from tests.support.errors import caught
from tests.support.stores import CountingStore

CHUNK = (1, 16, 32)
SHAPE = (6, 64, 64)
WHOLE = tuple((0, n) for n in SHAPE)
NUM_CHUNKS = 6 * 4 * 2
VALUES = np.random.default_rng(0).integers(0, 50, SHAPE).astype("f4")


class Store(CountingStore):
    """Counts, and answers as it is told to."""

    def __init__(self, store):
        super().__init__(store)
        self.change = None  # of the first answer for each chunk
        self.when_asked = None

    async def get(self, key, prototype, byte_range=None):
        """Change an answer."""
        if self.when_asked is not None and "/c/" in key:
            await self.when_asked(key)
        answer = await super().get(key, prototype, byte_range)
        if self.change is not None and "/c/" in key and self.requests[key] == 1:
            return prototype.buffer.from_bytes(self.change(answer.to_bytes()))
        return answer


def written(path, **how):
    """A store of one array, and what is known of it."""
    zarr.create_array(path, name="a", dtype="f4", shape=SHAPE, **({"chunks": CHUNK} | how))[:] = VALUES
    zarr.open_group(path, mode="a")
    store = Store(LocalStore(path))
    meta = open_store(store)
    store.requests.clear()
    return store, meta


def read(meta, region=WHOLE):
    (values,) = read_regions(meta.spec, [(meta.arrays["a"], region)])
    return values


HOWS = {
    "zstd": {},
    "blosc": {"compressors": BloscCodec()},
    "plain": {"compressors": None},
    "beyond the edge": {"chunks": (4, 60, 50)},
    "shards": {"shards": (4, 64, 64)},
    "columns first": {"zarr_format": 2, "order": "F"},
}


@pytest.mark.parametrize(
    "region", [WHOLE, ((1, 3), (0, 64), (0, 64)), ((1, 5), (3, 4), (7, 60)), ((2, 2), (0, 1), (0, 1))]
)
@pytest.mark.parametrize("how", HOWS)
def test_regions(tmp_path, monkeypatch, how, region):
    _, meta = written(tmp_path, **HOWS[how])
    monkeypatch.setattr(AsyncArray, "getitem", None)  # zarr is not asked
    assert read(meta, region).tolist() == VALUES[tuple(slice(*span) for span in region)].tolist()


def test_each_chunk_that_a_region_touches_is_asked_for_once(tmp_path):
    store, meta = written(tmp_path)
    read(meta, ((1, 3), (15, 17), (0, 32)))
    assert store.requests == {f"a/c/{t}/{y}/0": 1 for t in (1, 2) for y in (0, 1)}


def test_of_a_shard_its_index_and_what_is_wanted_are_asked_for_once(tmp_path, monkeypatch):
    monkeypatch.setattr(remote, "_SMALL_SHARD_BYTES", 0)
    store, meta = written(tmp_path, shards=(6, 64, 64))
    read(meta, ((0, 1), (0, 16), (0, 64)))  # two chunks side by side
    assert store.requests == {"a/c/0/0/0": 2}
    read(meta, ((5, 6), (0, 16), (0, 32)))
    assert store.requests == {"a/c/0/0/0": 3}


@pytest.mark.parametrize("how", [{}, {"shards": (2, 64, 64)}], ids=["chunks", "shards"])
@pytest.mark.parametrize("region", [WHOLE, ((2, 3), (0, 16), (0, 64))], ids=["whole", "part"])
def test_what_came_damaged_may_come_whole(tmp_path, how, region):
    store, meta = written(tmp_path, **how)
    store.change = lambda raw: b"noise" + raw[5:-1] + bytes([raw[-1] ^ 1])  # a chunk, and the index of a shard
    np.testing.assert_array_equal(read(meta, region), VALUES[tuple(slice(*span) for span in region)])
    assert max(store.requests.values()) > 1


@pytest.mark.parametrize("how", [{}, {"shards": (2, 64, 64)}], ids=["chunks", "shards"])
def test_what_is_damaged_is_named(tmp_path, how):
    _, meta = written(tmp_path, **how)
    (tmp_path / "a" / "c" / "1" / "0" / "0").write_bytes(b"not a chunk")
    caught(ChunkReadError, lambda: read(meta), "'a'", "shard (1, 0, 0)" if how else "chunk (1, 0, 0)")


@pytest.mark.parametrize("gone", ["chunk", "store"])
def test_a_missing_chunk_is_not_a_deleted_store(tmp_path, gone):
    store, meta = written(tmp_path / "s", fill_value=-1)
    shutil.rmtree(tmp_path / "s" / "a" / "c" / "3" if gone == "chunk" else tmp_path / "s")
    if gone == "store":
        caught(ChunkReadError, lambda: read(meta), "'a'", "deleted")
    else:
        assert (read(meta)[3] == -1).all()
        assert store.requests["a/zarr.json"] == 1  # asked once, however many chunks are missing


def test_chunks_are_decoded_on_the_thread_that_asks(tmp_path, monkeypatch):
    _, meta = written(tmp_path)
    plain, threads = chunks.ChunkedArray.decode, set()

    def decode(array, *args):
        threads.add(threading.current_thread())
        plain(array, *args)

    monkeypatch.setattr(chunks.ChunkedArray, "decode", decode)
    np.testing.assert_array_equal(read(meta), VALUES)
    assert threads == {threading.current_thread()}


@pytest.mark.parametrize("how", ["closed", "failed"])
def test_what_is_given_up_is_not_asked_for(tmp_path, how):
    store, meta = written(tmp_path)
    asked, go_on, keys, ended = threading.Event(), threading.Event(), [], []

    async def wait(key):
        keys.append(key)
        asked.set()
        try:
            if how == "failed" and len(keys) == 4:
                raise ValueError("of the store")
            while not go_on.is_set():
                await asyncio.sleep(0.01)
        finally:
            ended.append(key)

    store.when_asked = wait
    array = chunks.chunked_array("", meta.arrays["a"])
    reader = RemoteReader(store, "", "")
    with dask.config.set({"rainbear-dask.requests-in-flight": 4}), reader.begin([(array, WHOLE)]) as finish:
        assert asked.wait(60)
        if how == "failed":
            with pytest.raises(errors.ReadError) as err:
                finish()
            assert "of the store" in str(err.value.cause.__cause__)
    deadline = time.monotonic() + 60
    while len(ended) < len(keys) and time.monotonic() < deadline:
        time.sleep(0.01)
    time.sleep(0.1)
    go_on.set()
    time.sleep(0.1)
    assert sum(store.requests.values()) == 0
    assert len(keys) <= 5 < NUM_CHUNKS


def test_a_small_shard_is_requested_whole(tmp_path):
    store, meta = written(tmp_path, shards=(6, 64, 64))
    np.testing.assert_array_equal(read(meta, ((0, 1), (0, 16), (0, 64))), VALUES[:1, :16])
    assert store.requests == {"a/c/0/0/0": 1}


def test_regions_and_groups_of_one_shard_share_its_requests(tmp_path, monkeypatch):
    """One for the index, and one for neighbouring chunks, however many regions or groups need them."""
    monkeypatch.setattr(remote, "_SMALL_SHARD_BYTES", 0)
    store, meta = written(tmp_path, shards=(6, 64, 64))
    wanted = [(meta.arrays["a"], ((t, t + 1), (0, 16), (0, 64))) for t in range(4)]
    expected = [VALUES[t : t + 1, :16] for t in range(4)]
    for actual, whole in zip(read_regions(meta.spec, wanted), expected, strict=True):
        np.testing.assert_array_equal(actual, whole)
    assert store.requests == {"a/c/0/0/0": 2}
    found = [values[0].copy() for values in stream_regions(meta.spec, [[one] for one in wanted])]
    np.testing.assert_array_equal(found, expected)
    assert store.requests == {"a/c/0/0/0": 3}  # the index is cached


@pytest.mark.parametrize("damaged", [False, True])
def test_a_stream_yields_each_group_once_even_if_one_is_fetched_again(tmp_path, damaged):
    store, meta = written(tmp_path)
    array = meta.arrays["a"]
    if damaged:
        store.change = lambda content: content[: len(content) // 2] if store.requests["a/c/3/1/0"] else content
    groups = [[(array, ((t, t + 1), (0, 64), (0, 64)))] for t in range(6)]
    found = [values[0].copy() for values in stream_regions(meta.spec, groups)]
    np.testing.assert_array_equal(np.concatenate(found), VALUES)
    assert len(found) == 6


def test_a_stream_requests_the_chunks_of_all_groups_together(tmp_path):
    store, meta = written(tmp_path)
    there, begun = asyncio.Event(), list[str]()

    async def wait_for_all(key):
        begun.append(key)
        if len(begun) == NUM_CHUNKS:
            there.set()
        await asyncio.wait_for(there.wait(), 60)

    store.when_asked = wait_for_all
    groups = [[(meta.arrays["a"], ((t, t + 1), (0, 64), (0, 64)))] for t in range(6)]
    found = [values[0].copy() for values in stream_regions(meta.spec, groups)]
    np.testing.assert_array_equal(np.concatenate(found), VALUES)


def test_a_stream_divides_each_region_once(tmp_path, monkeypatch):
    _, meta = written(tmp_path)
    divided = []

    def divide(grid, region, actual=ChunkGrid.iter_chunks):
        divided.append(region)
        return actual(grid, region)

    monkeypatch.setattr(remote.ChunkedArray, "decode", lambda *_: None)
    monkeypatch.setattr(ChunkGrid, "iter_chunks", divide)
    regions = [((t, t + 1), (0, 64), (0, 64)) for t in range(6)]
    assert len(list(stream_regions(meta.spec, [[(meta.arrays["a"], region)] for region in regions]))) == 6
    assert divided == regions


def test_a_stream_of_a_deleted_store_is_an_error(tmp_path):
    _, meta = written(tmp_path)
    shutil.rmtree(tmp_path)
    groups = [[(meta.arrays["a"], ((t, t + 1), (0, 64), (0, 64)))] for t in range(6)]
    caught(ChunkReadError, lambda: list(stream_regions(meta.spec, groups)), "deleted")
