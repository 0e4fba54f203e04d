"""Chunks in a folder: checks of their bytes, cached memory, and the number of threads."""

import os
import shutil
import struct
import subprocess
import sys
import threading
import time
from contextlib import ExitStack
from itertools import combinations, product

import google_crc32c
import numpy as np
import pytest
import zarr
from numcodecs import blosc, zstd
from zarr.codecs import BloscCodec, ZstdCodec

from rainbear_dask.chunks import local as files
from rainbear_dask.chunks.errors import locate_error
from rainbear_dask.chunks.local import SMALL_CHUNK_BYTES
from rainbear_dask.chunks.read import read_regions
from rainbear_dask.exceptions import ChunkReadError
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.resources import buffers as memory
from rainbear_dask.resources import threads as thread_counts
from tests.support.errors import caught

CHUNK = (1, 64, 1024)
SHAPE = (6, 64, 1024)
WHOLE = tuple((0, n) for n in SHAPE)
NUM_BYTES = 64 * 1024 * 4
VALUES = np.random.default_rng(0).integers(0, 50, SHAPE).astype("f4")


@pytest.fixture(autouse=True)
def _nothing_is_kept():
    files.forget_files()
    yield
    files.forget_files()


def written(path, **how):
    """A store of one array of large chunks."""
    assert NUM_BYTES > SMALL_CHUNK_BYTES
    zarr.create_array(path, name="a", dtype="f4", shape=SHAPE, **({"chunks": CHUNK} | how))[:] = VALUES
    zarr.open_group(path, mode="a")
    return open_store(path)


def read(meta, region=WHOLE):
    (values,) = read_regions(meta.spec, [(meta.arrays["a"], region)])
    return values


def refused(meta, *words):
    caught(ChunkReadError, lambda: read(meta), "'a'", *words)


@pytest.mark.parametrize(
    "region", [WHOLE, ((1, 3), (0, 64), (0, 1024)), ((1, 5), (3, 4), (7, 900)), ((2, 2), (0, 1), (0, 1))]
)
@pytest.mark.parametrize(
    "how",
    [{}, {"compressors": BloscCodec()}, {"compressors": None}, {"shards": (4, 64, 2048)}, {"chunks": (4, 60, 1000)}],
)
def test_regions(tmp_path, how, region):
    assert read(written(tmp_path, **how), region).tolist() == VALUES[tuple(slice(*span) for span in region)].tolist()


@pytest.mark.parametrize("count", [NUM_BYTES - 4, NUM_BYTES + 4, 1, 0])  # NumPy repeats a single byte
@pytest.mark.parametrize(
    ("codec", "encode"),
    [(ZstdCodec(), zstd.compress), (None, bytes), (BloscCodec(), lambda raw: blosc.compress(raw, b"lz4", 5, 1))],
)
def test_a_chunk_of_another_length_is_refused(tmp_path, codec, encode, count):
    meta = written(tmp_path, compressors=codec)
    (tmp_path / "a" / "c" / "3" / "0" / "0").write_bytes(encode(bytes(count)))
    refused(meta, "chunk (3, 0, 0)")


def test_a_frame_of_zstd_that_does_not_tell_its_length(tmp_path):
    meta = written(tmp_path)
    raw = VALUES[3].tobytes()
    empty = zstd.compress(b"")
    (tmp_path / "a" / "c" / "3" / "0" / "0").write_bytes(zstd.compress(raw) + empty)
    np.testing.assert_array_equal(read(meta), VALUES)


def test_a_chunk_that_blosc_would_read_beyond_its_end_is_refused(tmp_path):
    meta = written(tmp_path, compressors=BloscCodec())
    chunk = tmp_path / "a" / "c" / "3" / "0" / "0"
    chunk.write_bytes(chunk.read_bytes()[:-10])
    refused(meta, "chunk (3, 0, 0)", "says")


@pytest.mark.parametrize(
    ("change", "word"),
    [
        (lambda raw: raw[:-5] + bytes([raw[-5] ^ 1]) + raw[-4:], "checksum"),
        (lambda raw: raw[-40:], "within its index"),
        (lambda raw: raw[:100] + raw[-68:], "in the index of a shard"),
    ],
    ids=["index", "short", "cut"],
)
def test_a_damaged_shard_is_refused(tmp_path, change, word):
    meta = written(tmp_path, shards=(4, 64, 1024))
    shard = tmp_path / "a" / "c" / "0" / "0" / "0"
    assert struct.unpack("<Q", shard.read_bytes()[-68:-60]) == (
        0,
    )  # the index is at the end: four chunks, and a checksum
    shard.write_bytes(change(shard.read_bytes()))
    refused(meta, "shard (0, 0, 0)", word)


LATER = """
import sys
import rainbear_dask as rd
try:
    rd.scan_zarr(sys.argv[1]).collect()
except rd.exceptions.ChunkReadError:
    sys.exit(0)
sys.exit("nothing was refused")
"""


@pytest.mark.parametrize("codec", [ZstdCodec(), BloscCodec()], ids=["zstd", "blosc"])
def test_a_chunk_that_begins_as_its_neighbours_is_checked_to_its_end(tmp_path, codec):
    """Some libraries end the process if they are handed a frame that claims 2**50 bytes."""
    array = zarr.create_array(tmp_path, name="a", dtype="f8", shape=(4096,), chunks=(1024,), compressors=codec)
    array[:] = np.arange(4096.0)
    zarr.open_group(tmp_path, mode="a")
    frame = b"\x28\xb5\x2f\xfd\xe0" + struct.pack("<Q", 2**50) + b"\x01\0\0"
    chunk = tmp_path / "a" / "c" / "2"
    chunk.write_bytes(chunk.read_bytes() + frame)
    command = [sys.executable, "-W", "ignore", "-c", LATER, str(tmp_path)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)  # noqa: S603  our own words
    assert done.returncode == 0, done.stderr[-500:]


@pytest.mark.parametrize("gone", ["chunk", "store"])
def test_a_missing_chunk_is_not_a_deleted_store(tmp_path, gone):
    meta = written(tmp_path / "s", fill_value=-1)
    read(meta)  # which connects
    shutil.rmtree(tmp_path / "s" / "a" / "c" / "3" if gone == "chunk" else tmp_path / "s")
    if gone == "store":
        refused(meta, "deleted")
    else:
        assert (read(meta)[3] == -1).all()


def test_memory_that_chunks_were_read_in_is_used_again(tmp_path, monkeypatch):
    monkeypatch.setattr(thread_counts, "num_threads", lambda: 1)  # a second thread has buffers of its own
    meta = written(tmp_path, chunks=(2, 40, 1000), compressors=None)
    read(meta)
    before = set(memory._idle)
    np.testing.assert_array_equal(read(meta), VALUES)
    assert before
    assert set(memory._idle) == before


@pytest.mark.parametrize("chunks", [(1, 6), (2, 6), (3, 4), (4, 12), (1, 3)])
def test_any_region_of_small_chunks_has_its_own_values(tmp_path, chunks):
    """Also a region as wide as a chunk that lies across two of them."""
    values = np.arange(7 * 12, dtype="f4").reshape(7, 12)
    zarr.create_array(tmp_path, name="a", dtype="f4", shape=values.shape, chunks=chunks)[:] = values
    zarr.open_group(tmp_path, mode="a")
    meta = open_store(str(tmp_path))
    for (top, bottom), (left, right) in product(combinations(range(8), 2), combinations(range(13), 2)):
        (found,) = read_regions(meta.spec, [(meta.arrays["a"], ((top, bottom), (left, right)))])
        np.testing.assert_array_equal(found, values[top:bottom, left:right])


@pytest.fixture
def helpers(monkeypatch):
    """Names of the helping threads that started; each part takes long enough for all of them to start."""
    started, plain_help, plain_read = list[str](), thread_counts._Shared._help, files._FilePart.read

    def helping(self):
        started.append(threading.current_thread().name)
        plain_help(self)

    def reading(self, scratch, shards):
        time.sleep(0.05)
        plain_read(self, scratch, shards)

    monkeypatch.setattr(thread_counts._Shared, "_help", helping)
    monkeypatch.setattr(files._FilePart, "read", reading)
    return started


@pytest.mark.parametrize(("per_thread", "threads"), [(NUM_BYTES, 6), (3 * NUM_BYTES, 2), (2**30, 1)])
def test_threads_go_by_the_bytes(tmp_path, monkeypatch, helpers, per_thread, threads):
    monkeypatch.setattr(files, "MIN_SHARED_BYTES", per_thread)
    monkeypatch.setattr(thread_counts, "num_threads", lambda: 8)
    np.testing.assert_array_equal(read(written(tmp_path)), VALUES)
    assert len(helpers) == threads - 1  # beside the calling thread


@pytest.mark.parametrize("region", [WHOLE, ((1, 5), (20, 41), (500, 600))])
@pytest.mark.parametrize("per_thread", [1, 2 * NUM_BYTES, 2**30])
def test_a_large_shard_is_read_in_parts(tmp_path, monkeypatch, per_thread, region):
    monkeypatch.setattr(files, "THREAD_BYTES", per_thread)
    meta = written(tmp_path, chunks=(2, 32, 512), shards=(4, 64, 1024))
    np.testing.assert_array_equal(read(meta, region), VALUES[tuple(slice(*span) for span in region)])
    unit = files.thread_unit(meta.arrays["a"], ((0, 4), (0, 64), (0, 1024)))  # a shard
    assert unit == {1: (2, 32, 512), 2 * NUM_BYTES: (2, 64, 1024), 2**30: (4, 64, 1024)}[per_thread]


SMALL = {"dtype": "f4", "shape": (7, 11, 5), "chunks": (1, 2, 5), "fill_value": -1.0}


def small(path, **how):
    array = zarr.create_array(path, name="a", **(SMALL | how))
    array[:] = np.arange(7 * 11 * 5, dtype="f4").reshape(7, 11, 5)
    zarr.open_group(path, mode="a")
    return open_store(path), np.asarray(array[:])


@pytest.mark.parametrize("region", [((0, 7), (0, 11), (0, 5)), ((1, 6), (3, 10), (2, 5)), ((6, 7), (10, 11), (0, 1))])
@pytest.mark.parametrize("per_thread", [1, 200, 2**30])
@pytest.mark.parametrize(
    "how",
    [
        {},
        {"compressors": BloscCodec()},
        {"compressors": None},
        {"dtype": ">f4"},
        {"order": "F", "zarr_format": 2},
        {"shards": (7, 12, 5)},
        {"shards": (3, 6, 5)},
        {"shards": (5, 12, 10), "chunks": (1, 4, 2)},
    ],
    ids=["zstd", "blosc", "plain", "big-endian", "Fortran", "one shard", "shards", "partial shards"],
)
def test_small_chunks_however_they_are_shared_out(tmp_path, monkeypatch, how, region, per_thread):
    monkeypatch.setattr(files, "THREAD_BYTES", per_thread)
    meta, expected = small(tmp_path, **how)
    np.testing.assert_array_equal(read(meta, region), expected[tuple(slice(*span) for span in region)])


def test_chunks_of_a_shard_need_not_stand_in_order(tmp_path):
    """Nor each at bytes of its own, nor all of them there."""
    meta, expected = small(tmp_path, shards=(7, 12, 5))
    shard = tmp_path / "a" / "c" / "0" / "0" / "0"
    raw = shard.read_bytes()
    index = np.frombuffer(raw[-4 - 16 * 42 : -4], "<u8").reshape(42, 2).copy()
    body, places = raw[: -4 - 16 * 42], np.random.default_rng(1).permutation(42)
    moved = b"between" + b"gap".join(body[start : start + n] for start, n in index[places].tolist())
    at = 7
    for place in places:
        index[place, 0], at = at, at + int(index[place, 1]) + 3
    index[5], index[9] = index[4], 2**64 - 1
    table = index.tobytes()
    shard.write_bytes(moved + table + google_crc32c.value(table).to_bytes(4, "little"))
    expected[0, 10:11], expected[1, 6:8] = expected[0, 8:9], -1
    np.testing.assert_array_equal(read(meta, ((0, 7), (0, 11), (0, 5))), expected)


DAMAGE = {
    "shorter": lambda chunk, raw: chunk.write_bytes(raw[:-3]),
    "going on": lambda chunk, raw: chunk.write_bytes(raw + raw[:9]),
    "empty": lambda chunk, _: chunk.write_bytes(b""),
    "long": lambda chunk, raw: chunk.write_bytes(raw + bytes(2**20)),
    "of more values": lambda chunk, _: chunk.write_bytes(zstd.compress(bytes(80))),
    "of fewer values": lambda chunk, _: chunk.write_bytes(zstd.compress(bytes(36))),
    "a folder": lambda chunk, _: chunk.mkdir(),
    "a pipe": lambda chunk, _: os.mkfifo(chunk),
    "a device": lambda chunk, _: chunk.symlink_to("/dev/zero"),
}


@pytest.mark.parametrize("damage", DAMAGE)
def test_a_small_chunk_that_is_not_one_is_named(tmp_path, damage):
    meta, _ = small(tmp_path)
    chunk = tmp_path / "a" / "c" / "2" / "3" / "0"
    raw = chunk.read_bytes()
    chunk.unlink()
    DAMAGE[damage](chunk, raw)
    caught(ChunkReadError, lambda: read(meta, ((0, 7), (0, 11), (0, 5))), "'a'", "chunk (2, 3, 0)")


def test_a_small_chunk_of_two_frames_is_read(tmp_path):
    meta, expected = small(tmp_path)
    chunk = tmp_path / "a" / "c" / "2" / "3" / "0"
    raw = expected[2, 6:8].tobytes()
    chunk.write_bytes(zstd.compress(raw[:8]) + zstd.compress(raw[8:]))
    np.testing.assert_array_equal(read(meta, ((0, 7), (0, 11), (0, 5))), expected)


@pytest.mark.parametrize("gone", ["chunk", "store"])
def test_a_missing_small_chunk_is_not_a_deleted_store(tmp_path, gone):
    meta, expected = small(tmp_path / "s")
    region = ((0, 7), (0, 11), (0, 5))
    read(meta, region)  # which connects
    shutil.rmtree(tmp_path / "s" / "a" / "c" / "2" / "3" if gone == "chunk" else tmp_path / "s")
    expected[2, 6:8] = -1
    if gone == "store":
        caught(ChunkReadError, lambda: read(meta, region), "'a'", "deleted")
    else:
        np.testing.assert_array_equal(read(meta, region), expected)


def test_tasks_that_run_leave_no_processor_for_threads_inside_of_one(tmp_path, monkeypatch, helpers):
    monkeypatch.setattr(files, "THREAD_BYTES", NUM_BYTES)
    monkeypatch.setattr(thread_counts, "num_threads", lambda: 3)
    meta = written(tmp_path)
    for others, expected in [(0, 2), (1, 1), (2, 0), (5, 0)]:
        helpers.clear()
        with ExitStack() as stack:
            for _ in range(1 + others):  # this one, and others
                stack.enter_context(thread_counts.busy())
            np.testing.assert_array_equal(read(meta), VALUES)
        assert len(helpers) == expected
    read(meta)
    assert len(helpers) == 2


def test_an_error_on_another_thread_is_raised(tmp_path, monkeypatch):
    meta, failed, plain = written(tmp_path), threading.Event(), files._FilePart.read

    def failing(self, scratch, shards):
        if threading.current_thread() is threading.main_thread():
            assert failed.wait(60)
            plain(self, scratch, shards)
        else:
            failed.set()
            with locate_error(self.array, self.index):
                raise OSError("of another thread")

    monkeypatch.setattr(files, "THREAD_BYTES", NUM_BYTES)
    monkeypatch.setattr(files._FilePart, "read", failing)
    refused(meta, "of another thread")
