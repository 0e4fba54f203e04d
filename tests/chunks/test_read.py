"""Ways to name a store, and the values read from it, compared with zarr's own pipeline."""

import asyncio
import http.server
import json
import pickle
import random
import shutil
import threading
from contextlib import contextmanager
from pathlib import Path

import fsspec
import icechunk
import numcodecs
import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec
from zarr.storage import FsspecStore, LocalStore, MemoryStore, WrapperStore, ZipStore

from rainbear_dask.chunks import array as array_module
from rainbear_dask.chunks import fetch, pipeline
from rainbear_dask.chunks import local as files
from rainbear_dask.chunks.array import chunked_array
from rainbear_dask.chunks.read import read_regions
from rainbear_dask.exceptions import (
    ChunkReadError,
    RainbearError,
    StoreAccessError,
    StoreError,
    StoreFormatError,
    StoreNotFoundError,
)
from rainbear_dask.metadata import parse, zarr_arrays
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.storage import stores
from tests.support.errors import caught
from tests.support.stores import ALL_KINDS, TREE, CountingStore, write_tree

pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),  # about what the tests write
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
    pytest.mark.filterwarnings("ignore:Numcodecs codecs:UserWarning"),
]


def cells(dtype, shape):
    """Distinct values, NaN among the floats."""
    numbers = np.arange(np.prod(shape, dtype=int)).reshape(shape)
    if dtype is str:
        return np.vectorize(lambda i: f"né{i}" * (i % 3), otypes=[object])(numbers).astype(np.dtypes.StringDType())
    values = (numbers % 2 if np.dtype(dtype).kind == "b" else numbers - 5 * (np.dtype(dtype).kind in "if")).astype(
        dtype
    )
    if values.dtype.kind == "f" and values.size:
        values.flat[-1] = np.nan
    return values


def write(path, *, dtype="f4", shape=(7, 9), chunks=(3, 4), missing=False, **how):
    array = zarr.create_array(path, name="a", dtype=dtype, shape=shape, chunks=chunks, **how)
    rows = slice(0, 3) if missing and shape else Ellipsis
    if not (missing and not shape) and 0 not in shape:
        array[rows] = cells(dtype, shape)[rows]
    zarr.open_group(path, mode="a", zarr_format=array.metadata.zarr_format)


@contextmanager
def small_chunk_bytes(smaller_than):
    """Read chunks smaller than so many bytes in the loop of small chunks, and all others one by one."""
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(files, "SMALL_CHUNK_BYTES", smaller_than)
        files.forget_files()
        yield
    files.forget_files()


READERS = {"small chunks in a loop": files.SMALL_CHUNK_BYTES, "all chunks one by one": 0}


def assert_reads_as_zarr_does(path, name="a"):
    """The whole array and an inner region of it, in shape, dtype and every bit, whatever reads it."""
    meta = open_store(path)
    assert_reads(meta, path, name)
    with small_chunk_bytes(smaller_than=0):
        assert_reads(meta, path, name)
    return meta


def assert_reads(meta, path, name="a"):
    array = meta.arrays[name]
    ref = zarr.open_array(path, path=name, mode="r")
    whole = tuple((0, n) for n in array.shape)
    inner = tuple((min(1, n), max(n - 1, min(1, n))) for n in array.shape)
    for region, actual in zip((whole, inner), read_regions(meta.spec, [(array, whole), (array, inner)]), strict=True):
        expected = np.asarray(ref[tuple(slice(*span) for span in region)])
        assert actual.shape == expected.shape
        assert actual.dtype == array.dtype
        assert actual.dtype == (expected.dtype if expected.dtype.isnative else expected.dtype.newbyteorder("="))
        assert actual.flags.c_contiguous
        assert actual.dtype.isnative
        if actual.dtype.kind in "OT":
            assert actual.tolist() == expected.tolist()
        else:
            assert actual.tobytes() == expected.astype(actual.dtype).tobytes()


DTYPES = ["bool", "i1", "i2", "i4", "i8", "u1", "u2", "u4", "u8", "f2", "f4", "f8", "c8", "M8[ns]", "m8[s]", "S5", "U5", str]  # fmt: skip


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("dtype", [*DTYPES, ">i2", ">f4", ">f8", ">M8[s]", ">U5"], ids=str)
def test_values_of_every_dtype_equal_zarrs(tmp_path, dtype, missing, zarr_format):
    write(tmp_path, dtype=dtype, missing=missing, zarr_format=zarr_format)
    assert_reads_as_zarr_does(tmp_path)


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize(
    ("dtype", "fill"),
    [("f4", np.nan), ("f4", -0.0), ("f8", -np.inf), ("f4", 9.969209968386869e36), ("i8", -(2**63)), ("u8", 2**64 - 1),
     ("i1", -128), ("bool", True), ("U5", "né"), ("M8[ns]", np.datetime64("NaT", "ns"))],
)  # fmt: skip
def test_a_missing_chunk_is_the_fill_value(tmp_path, zarr_format, dtype, fill):
    write(tmp_path, dtype=dtype, missing=True, zarr_format=zarr_format, fill_value=fill)
    array = assert_reads_as_zarr_does(tmp_path).arrays["a"]
    np.testing.assert_array_equal(np.array(array.fill_value, dtype), np.array(fill, dtype))


def test_a_v2_array_without_fill_value_has_none(tmp_path):
    write(tmp_path, missing=True, zarr_format=2, fill_value=None)
    assert assert_reads_as_zarr_does(tmp_path).arrays["a"].fill_value is None


@pytest.mark.parametrize("order", ["C", "F"])
@pytest.mark.parametrize("separator", [".", "/"])
@pytest.mark.parametrize("dtype", ["f4", ">i2", "U5"])
def test_v2_layouts(tmp_path, order, separator, dtype):
    write(tmp_path, dtype=dtype, order=order, zarr_format=2, chunk_key_encoding={"name": "v2", "separator": separator})
    assert_reads_as_zarr_does(tmp_path)


V2_CODECS = {
    "blosc": {"compressors": numcodecs.Blosc("lz4")},
    "blosc-bit": {"compressors": numcodecs.Blosc("zstd", shuffle=2)},
    "zlib": {"compressors": numcodecs.Zlib()},
    "gzip": {"compressors": numcodecs.GZip()},
    "bz2": {"compressors": numcodecs.BZ2()},
    "lz4": {"compressors": numcodecs.LZ4()},
    "lzma": {"compressors": numcodecs.LZMA()},
    "zstd-checksum": {"compressors": numcodecs.Zstd(checksum=True)},
    "none": {"compressors": None},
    "delta": {"filters": [numcodecs.Delta("i4")]},
    "scale": {"filters": [numcodecs.FixedScaleOffset(offset=0, scale=10, dtype="i4", astype="i8")]},
    "shuffle": {"filters": [numcodecs.Shuffle(4)]},
    "fletcher": {"filters": [numcodecs.Fletcher32()]},
    "delta-shuffle": {"filters": [numcodecs.Delta("i4"), numcodecs.Shuffle(4)], "compressors": numcodecs.Zlib()},
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("codec", V2_CODECS)
def test_v2_codecs(tmp_path, codec, missing):
    write(tmp_path, dtype="i4", missing=missing, zarr_format=2, **V2_CODECS[codec])
    assert_reads_as_zarr_does(tmp_path)


V3_CODECS = {
    "gzip": {"compressors": [GzipCodec()]},
    "zstd": {"compressors": [ZstdCodec(checksum=True)]},
    "crc": {"compressors": [ZstdCodec(), Crc32cCodec()]},
    "blosc": {"compressors": [BloscCodec(cname="lz4", shuffle="shuffle")]},
    "none": {"compressors": None},
    "transpose": {"filters": [TransposeCodec(order=(1, 0))]},
    "big": {"serializer": BytesCodec(endian="big")},
    "shards": {"shards": (6, 8)},
    "shards-crc": {"shards": (6, 8), "compressors": [Crc32cCodec()]},
    "shards-transpose": {"shards": (6, 8), "filters": [TransposeCodec(order=(1, 0))]},
    "shards-big": {"shards": (6, 8), "serializer": BytesCodec(endian="big")},
    "v2-keys": {"chunk_key_encoding": {"name": "v2", "separator": "."}},
    "dots": {"chunk_key_encoding": {"name": "default", "separator": "."}},
}


@pytest.mark.parametrize("missing", [False, True])
@pytest.mark.parametrize("codec", V3_CODECS)
def test_v3_codecs(tmp_path, codec, missing):
    write(tmp_path, missing=missing, zarr_format=3, **V3_CODECS[codec])
    array = assert_reads_as_zarr_does(tmp_path).arrays["a"]
    assert array.chunks == (3, 4)
    assert array.shards == V3_CODECS[codec].get("shards")


@pytest.mark.parametrize("zarr_format", [2, 3])
@pytest.mark.parametrize("shape", [(), (0,), (0, 3), (3, 0), (1,)])
def test_scalars_and_dimensions_of_no_length(tmp_path, shape, zarr_format):
    write(tmp_path, shape=shape, chunks=tuple(max(n, 1) for n in shape), zarr_format=zarr_format, fill_value=4)
    assert assert_reads_as_zarr_does(tmp_path).arrays["a"].shape == shape


def test_a_chunk_longer_than_its_array(tmp_path):
    write(tmp_path, chunks=(20, 30))
    assert_reads_as_zarr_does(tmp_path)


@pytest.mark.parametrize(
    ("how", "plain"),
    [({}, True), ({"shards": (6, 8)}, True), ({"zarr_format": 2}, True), ({"compressors": None}, True),
     ({"compressors": [Crc32cCodec()]}, True), ({"dtype": "U5"}, False), ({"zarr_format": 2, "order": "F"}, True)],
)  # fmt: skip
def test_plain_numbers_in_a_folder_are_read_without_zarr(tmp_path, how, plain):
    write(tmp_path, **how)
    meta = open_store(tmp_path)
    assert (chunked_array("", meta.arrays["a"]) is not None) == plain


def test_a_folder_that_is_opened_again_is_not_understood_again(tmp_path, monkeypatch):
    write(tmp_path)
    expected = open_store(tmp_path)
    assert_reads(expected, tmp_path)
    for module, name in ((zarr_arrays, "AsyncArray"), (parse, "check_document"), (array_module, "chunk_form")):
        monkeypatch.setattr(module, name, None)
    actual = open_store(tmp_path)
    assert actual.arrays == expected.arrays
    assert actual.spec.opening_id != expected.spec.opening_id
    assert_reads(actual, tmp_path)


@pytest.mark.parametrize("how", [{}, {"shards": (6, 8)}])
def test_a_folder_that_was_written_again_under_the_same_documents_is_read_as_it_is(tmp_path, how):
    write(tmp_path / "one", **how)
    write(tmp_path / "two", **how)
    other = zarr.open_array(tmp_path / "two", path="a", mode="r+")
    other[...] = other[...][::-1]
    assert_reads_as_zarr_does(tmp_path / "one")
    shutil.rmtree(tmp_path / "one")
    (tmp_path / "two").rename(tmp_path / "one")
    assert_reads_as_zarr_does(tmp_path / "one")


def test_a_folder_is_read_on_the_thread_that_asks(tmp_path, monkeypatch):
    write(tmp_path)
    meta = open_store(tmp_path)
    for module in (stores, fetch, pipeline):
        monkeypatch.setattr(module, "sync", None)  # the way to zarr's event loop
    assert_reads(meta, tmp_path)


def test_the_users_own_zarr_settings_stay_as_they_are(tmp_path):
    write(tmp_path)
    before = json.dumps(zarr.config.config, default=str)
    assert_reads_as_zarr_does(tmp_path)
    assert json.dumps(zarr.config.config, default=str) == before


# Ways to name a store


@ALL_KINDS
def test_every_kind_of_source_reads_the_same(tmp_path, zarr_format, consolidated, monkeypatch):
    write_tree(tmp_path / "s.zarr", zarr_format=zarr_format, consolidated=consolidated)
    shutil.make_archive(str(tmp_path / "s"), "zip", tmp_path / "s.zarr")
    memory = fsspec.filesystem("memory")
    memory.put(str(tmp_path / "s.zarr"), "/test_every_kind", recursive=True)
    monkeypatch.chdir(tmp_path)
    sources = [
        "s.zarr",
        Path("s.zarr"),
        f"file://{tmp_path}/s.zarr",
        "memory://test_every_kind",
        str(tmp_path / "s.zip"),
        LocalStore(tmp_path / "s.zarr"),
        ZipStore(tmp_path / "s.zip", mode="r"),
        fsspec.get_mapper("memory://test_every_kind"),
        FsspecStore.from_url("memory://test_every_kind"),
    ]
    expected = xr.open_zarr(tmp_path / "s.zarr", consolidated=False, chunks=None)["t"].values.tolist()
    for source in sources:
        meta = open_store(source)
        spec = pickle.loads(pickle.dumps(meta.spec))
        monkeypatch.chdir("/")  # a worker runs in another folder
        (values,) = read_regions(spec, [(meta.arrays["t"], ((0, 2), (0, 3)))])
        monkeypatch.chdir(tmp_path)
        assert values.tolist() == expected, source
        assert list(meta.groups) == ["", "model", "model/run"], source
    memory.rm("/test_every_kind", recursive=True)


def test_an_icechunk_store_has_another_version_after_a_commit_of_chunks_alone():
    repository = icechunk.Repository.create(icechunk.in_memory_storage())
    session = repository.writable_session("main")
    array = zarr.open_group(session.store, mode="w").create_array("a", shape=(2,), dtype="i4")
    array[:] = [1, 2]
    session.commit("one")
    first = open_store(repository.readonly_session("main").store)
    session = repository.writable_session("main")
    zarr.open_array(session.store, path="a")[:] = [3, 4]
    session.commit("two")
    second = open_store(repository.readonly_session("main").store)
    assert [read_regions(m.spec, [(m.arrays["a"], ((0, 2),))])[0].tolist() for m in (first, second)] == [[1, 2], [3, 4]]
    assert first.spec.version != second.spec.version


# How much is asked for


def test_reading_asks_for_the_chunks_of_the_region_and_for_no_metadata():
    memory = MemoryStore()
    zarr.open_group(memory, mode="w").create_array("a", shape=(6, 6), chunks=(2, 3), dtype="i4")[...] = 1
    store = CountingStore(memory)
    meta = open_store(store)
    store.requests.clear()
    read_regions(meta.spec, [(meta.arrays["a"], ((2, 4), (0, 4))), (meta.arrays["a"], ((3, 3), (0, 6)))])
    assert store.requests == {"a/c/1/0": 1, "a/c/1/1": 1}


def test_requests_for_many_arrays_are_in_flight_together():
    class Meeting(WrapperStore):
        """Answers for a chunk only when all four arrays have asked."""

        waiting = 0

        async def get(self, key, prototype, byte_range=None):
            if "/c/" in key:
                self.waiting += 1
                while self.waiting < 4:
                    await asyncio.sleep(0.001)
            return await super().get(key, prototype, byte_range)

    memory = MemoryStore()
    group = zarr.open_group(memory, mode="w")
    for name in "abcd":
        group.create_array(name, shape=(2,), dtype="i4")[:] = [1, 2]
    meta = open_store(Meeting(memory))
    assert len(read_regions(meta.spec, [(array, ((0, 2),)) for array in meta.arrays.values()])) == 4


# Versions


def test_the_version_tells_states_apart_and_the_opening_tells_openings(tmp_path):
    TREE.to_zarr(tmp_path, consolidated=True)
    first, second = open_store(tmp_path).spec, open_store(tmp_path).spec
    assert first.version == second.version
    assert first.opening_id != second.opening_id
    TREE.assign_attrs(title="other").to_zarr(tmp_path, mode="w", consolidated=True)
    assert open_store(tmp_path).spec.version != first.version


# Errors


def test_a_source_that_is_none():
    caught(StoreFormatError, lambda: open_store(5), "int", "path")


def test_unknown_and_missing_protocols():
    caught(StoreNotFoundError, lambda: open_store("gopher://x/y"), "gopher", "protocol")


@pytest.mark.parametrize(
    ("how", "damage", "name"),
    [
        ({}, b"\x00garbage", "chunk (1, 2) (key 'a/c/1/2')"),
        ({"compressors": [BloscCodec()]}, 20, "chunk (1, 2) (key 'a/c/1/2')"),
        ({"compressors": None}, 13, "chunk (1, 2) (key 'a/c/1/2')"),
        ({"shards": (6, 12)}, b"\x01" * 400, "shard (0, 0) (key 'a/c/0/0')"),
        ({"zarr_format": 2, "dtype": ">f4"}, b"\x00garbage", "chunk (1, 2) (key 'a/1.2')"),
    ],
)
@pytest.mark.parametrize("reader", READERS)
def test_a_damaged_chunk_is_named(tmp_path, how, damage, name, reader):
    write(tmp_path, **how)
    key = name.rpartition("'a/")[2].rstrip("')")
    chunk = tmp_path / "a" / key
    chunk.write_bytes(damage if isinstance(damage, bytes) else chunk.read_bytes()[:damage])
    meta = open_store(tmp_path)
    with small_chunk_bytes(smaller_than=READERS[reader]):
        error = caught(
            ChunkReadError,
            lambda: read_regions(meta.spec, [(meta.arrays["a"], ((0, 7), (0, 9)))]),
            name,
            "'a'",
            str(tmp_path),
        )
    assert error.__cause__ is not None


@pytest.mark.parametrize("codec", [*[(2, name) for name in V2_CODECS], *[(3, name) for name in V3_CODECS]], ids=str)
def test_what_zarr_finds_damaged_is_an_error_or_read_right(tmp_path, codec):
    zarr_format, name = codec
    write(tmp_path, dtype="i4", zarr_format=zarr_format, **{2: V2_CODECS, 3: V3_CODECS}[zarr_format][name])
    meta = open_store(tmp_path)
    array, ref = meta.arrays["a"], zarr.open_array(tmp_path, path="a", mode="r")
    chunk = next(
        file for file in sorted((tmp_path / "a").rglob("*")) if file.is_file() and file.name[-1] in "0123456789"
    )
    whole, part = ((0, 7), (0, 9)), ((1, 2), (1, 3))
    true = {region: ref[tuple(slice(*span) for span in region)] for region in (whole, part)}
    good, chance = chunk.read_bytes(), random.Random(name)
    for _ in range(40):
        bad = bytearray(good)
        bad[chance.randrange(len(good))] ^= 1 << chance.randrange(8)
        cut = chance.random() < 0.5
        chunk.write_bytes(good[: chance.randrange(1, len(good))] if cut else bytes(bad))
        for region, values in true.items():
            try:  # numcodecs would read past the end of what is cut short for blosc
                expected = values if cut and "blosc" in name else ref[tuple(slice(*span) for span in region)]
            except Exception:  # noqa: BLE001
                expected = values
            for reader in READERS.values():
                with small_chunk_bytes(smaller_than=reader):
                    try:
                        (actual,) = read_regions(meta.spec, [(array, region)])
                    except ChunkReadError:
                        continue
                    assert actual.tolist() in (expected.tolist(), values.tolist())


class Refusing(WrapperStore):
    """Raises for some keys what a file system may raise."""

    def __init__(self, store, part, error):
        super().__init__(store)
        self.part, self.error = part, error

    async def get(self, key, prototype, byte_range=None):
        if self.part in key:
            raise self.error
        return await super().get(key, prototype, byte_range)


class NoCredentialsError(Exception):
    """The name that botocore gives it."""


@pytest.mark.parametrize("error", [PermissionError("denied"), NoCredentialsError("Unable to locate credentials")])
def test_a_store_that_refuses(error):
    memory = MemoryStore()
    zarr.open_group(memory, mode="w").create_array("a", shape=(2,), dtype="i4")[:] = 1
    assert caught(
        PermissionError, lambda: open_store(Refusing(memory, "zarr.json", error)), "refuses", "storage_options"
    ).__cause__ is error  # fmt: skip
    meta = open_store(Refusing(memory, "c/0", error))
    caught(
        StoreAccessError, lambda: read_regions(meta.spec, [(meta.arrays["a"], ((0, 2),))]), "a/c/0", "storage_options"
    )


def test_a_chunk_that_does_not_arrive():
    memory = MemoryStore()
    zarr.open_group(memory, mode="w").create_array("a", shape=(2,), dtype="i4")[:] = 1
    meta = open_store(Refusing(memory, "c/0", OSError("connection reset")))
    caught(
        ChunkReadError, lambda: read_regions(meta.spec, [(meta.arrays["a"], ((0, 2),))]), "'a/c/0'", "connection reset"
    )  # fmt: skip


@pytest.fixture
def server(tmp_path):
    """A web server of a folder, that answers as its list of statuses says."""
    answers = {}

    class Handler(http.server.SimpleHTTPRequestHandler):
        def __init__(self, *args):
            super().__init__(*args, directory=tmp_path)

        def log_message(self, *args):
            pass

        def do_GET(self):
            status = next((status for part, status in answers.items() if part in self.path), 200)
            super().do_GET() if status == 200 else self.send_error(status)

        def do_HEAD(self):
            self.do_GET()

    with http.server.ThreadingHTTPServer(("127.0.0.1", 0), Handler) as web:
        thread = threading.Thread(target=web.serve_forever)
        thread.start()
        yield f"http://127.0.0.1:{web.server_port}", answers
        web.shutdown()
        thread.join()


@ALL_KINDS
def test_http(tmp_path, server, zarr_format, consolidated):
    url, answers = server
    write_tree(tmp_path / "s.zarr", zarr_format=zarr_format, consolidated=consolidated)
    meta = open_store(f"{url}/s.zarr/")
    (values,) = read_regions(meta.spec, [(meta.arrays["t"], ((0, 2), (0, 3)))])
    assert values.tolist() == TREE["t"].values.tolist()
    caught(StoreNotFoundError, lambda: open_store(f"{url}/none.zarr"), "No Zarr store")
    answers["s.zarr/t/"] = 500
    caught(ChunkReadError, lambda: read_regions(meta.spec, [(meta.arrays["t"], ((0, 2), (0, 3)))]), "500", "'t'")
    answers["s.zarr"] = 403
    caught(StoreAccessError, lambda: open_store(f"{url}/s.zarr"), "403")


def test_nobody_answers():
    caught(StoreError, lambda: open_store("http://127.0.0.1:9/x.zarr"), "127.0.0.1:9", "answers")


SECRETS = ("AKIAPLANTED", "hunter2secret", "sigPLANTED")


def test_no_label_repr_or_message_shows_a_secret(tmp_path):
    memory = fsspec.filesystem("memory")
    write(tmp_path)
    memory.put(str(tmp_path), "/secretive", recursive=True)
    meta = open_store(
        "memory://secretive", storage_options={"key": SECRETS[0], "client_kwargs": {"auth": [SECRETS[1]]}}
    )
    assert not any(secret in text for secret in SECRETS for text in (repr(meta), str(meta.spec), meta.spec.label))
    memory.rm("/secretive", recursive=True)

    told = OSError(f"GET https://{SECRETS[0]}:{SECRETS[1]}@host/x?sig={SECRETS[2]} failed")
    store = Refusing(MemoryStore(), "zarr.json", told)
    error = caught(StoreError, lambda: open_store(store), "https://host/x")
    assert not any(secret in str(error) for secret in SECRETS)
    assert error.__cause__ is None  # a traceback would show it

    for url in (
        f"http://{SECRETS[0]}:{SECRETS[1]}@127.0.0.1:9/x.zarr?sig={SECRETS[2]}",
        f"gopher://{SECRETS[0]}:{SECRETS[1]}/with+slash@bucket/x?sig={SECRETS[2]}",
    ):
        error = caught(RainbearError, lambda url=url: open_store(url), "x")
        assert not any(secret in str(error) for secret in SECRETS)
