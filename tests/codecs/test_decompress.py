"""Well-formed but unusual chunks are read by every reader; bounds refuse hostile ones alone."""

import bz2
import gzip
import lzma
import struct
import zipfile
import zlib

import dask
import google_crc32c
import numcodecs
import numpy as np
import obstore
import pytest
import zarr
from numcodecs import blosc
from obstore.store import MemoryStore

import rainbear_dask as rd
from rainbear_dask.codecs import decompress as inflate
from rainbear_dask.exceptions import ChunkReadError
from rainbear_dask.resources.limits import TooLargeError
from tests.support.errors import caught
from tests.support.hostile import BYTES, OF_V3, v2, v3

SMALL, LARGE = 1024, 2**17


def values(count):
    return np.arange(count, dtype="<f8") // 7 + 1  # 0 is masked in v2


def without_size(raw):
    """A frame of zstd that does not say how much it holds, of blocks that are not compressed."""
    blocks = [raw[i : i + 2**17] for i in range(0, len(raw), 2**17)]
    ends = [i == len(blocks) - 1 for i in range(len(blocks))]
    return b"\x28\xb5\x2f\xfd\x00\x88" + b"".join(
        (len(block) << 3 | end).to_bytes(3, "little") + block for block, end in zip(blocks, ends, strict=True)
    )


SKIPPED = b"\x5a\x2a\x4d\x18" + struct.pack("<I", 9) + b"anything!"


def zstd(raw, **how):
    return bytes(numcodecs.Zstd(**how).encode(raw))


FORMS = {
    "zstd": {
        "with a checksum": lambda raw: zstd(raw, checksum=True),
        "without a size": without_size,
        "of two frames": lambda raw: zstd(raw[:4000]) + zstd(raw[4000:]),
        "of two frames, one without a size": lambda raw: zstd(raw[:4000]) + without_size(raw[4000:]),
        "after a frame to skip": lambda raw: SKIPPED + zstd(raw),
        "before a frame to skip": lambda raw: zstd(raw) + SKIPPED,
        "at the highest level": lambda raw: zstd(raw, level=22),
    },
    "gzip": {
        "with a name": lambda raw: gzip.compress(raw[:0]) + named_gzip(raw),
        "of many members": lambda raw: b"".join(gzip.compress(raw[i : i + 512]) for i in range(0, len(raw), 512)),
        "with zeros behind it": lambda raw: gzip.compress(raw) + bytes(50),
    },
    "blosc": {
        "that did not get shorter": lambda raw: blosc.compress(raw, b"lz4", 0),
        "of bytes": lambda raw: blosc.compress(raw, b"zstd", 5, 1, 0, 1),
        "of single values": lambda raw: blosc.compress(np.frombuffer(raw, "<f8"), b"lz4", 5),
    },
    "zlib": {"as it is": zlib.compress, "stored": lambda raw: zlib.compress(raw, 0)},
    "bz2": {"of two streams": lambda raw: bz2.compress(raw[:4000]) + bz2.compress(raw[4000:])},
    "lzma": {"of two streams": lambda raw: lzma.compress(raw[:4000]) + lzma.compress(raw[4000:]),
             "at the highest preset": lambda raw: lzma.compress(raw, preset=9 | lzma.PRESET_EXTREME)},
    "lz4": {"as it is": lambda raw: bytes(numcodecs.LZ4().encode(raw))},
}  # fmt: skip


def named_gzip(raw):
    packed = gzip.compress(raw)
    return packed[:3] + b"\x08" + packed[4:10] + b"a name\0" + packed[10:]


def in_objects(root):
    """The files of a folder, in an object store."""
    store = MemoryStore()
    for path in root.rglob("*"):
        if path.is_file():
            obstore.put(store, str(path.relative_to(root)), path.read_bytes())
    return store


def check(root, count):
    for source in (root, in_objects(root)):
        np.testing.assert_array_equal(rd.scan_zarr(source).collect()["v"], values(count))


@pytest.mark.parametrize("count", [SMALL, LARGE])
@pytest.mark.parametrize(("codec", "form"), [(codec, form) for codec, forms in FORMS.items() for form in forms])
def test_an_unusual_chunk_is_read(tmp_path, codec, form, count):
    chunk = FORMS[codec][form](values(count).tobytes())
    v2(tmp_path / "v2", chunk, {"id": codec}, count=count)
    check(tmp_path / "v2", count)
    deltas = np.diff(values(count), prepend=0)
    filtered = FORMS[codec][form](deltas.tobytes())
    v2(tmp_path / "filtered", filtered, {"id": codec}, [{"id": "delta", "dtype": "<f8"}], count=count)
    check(tmp_path / "filtered", count)
    how = OF_V3.get(codec, {"name": f"numcodecs.{codec}", "configuration": {}})
    v3(tmp_path / "v3", chunk, [BYTES, how], count=count)
    check(tmp_path / "v3", count)


def inflated(codec, chunk, limit):
    raw = np.frombuffer(chunk, np.uint8)
    return bytes(inflate.inflate_lzma(raw, limit) if codec == "lzma" else inflate.INFLATERS[codec](raw, limit))


@pytest.mark.parametrize(
    ("codec", "form"),
    [(codec, form) for codec, forms in FORMS.items() for form in forms if "without a size" not in form],
)
def test_a_limit_is_met_to_the_byte(codec, form):
    raw = values(SMALL).tobytes()
    chunk = FORMS[codec][form](raw)
    assert inflated(codec, chunk, len(raw)) == raw
    with pytest.raises(TooLargeError):
        inflated(codec, chunk, len(raw) - 1)


@pytest.mark.parametrize("codec", FORMS)
def test_a_chunk_that_is_cut_short_is_an_error_at_any_length(codec, tmp_path):
    raw = values(SMALL).tobytes()
    chunk = next(iter(FORMS[codec].values()))(raw)
    path = v2(tmp_path, chunk, {"id": codec})
    lf = rd.scan_zarr(tmp_path)
    for length in range(0, len(chunk) - 1, max(len(chunk) // 40, 1)):
        path.write_bytes(chunk[:length])
        caught(ChunkReadError, lf.collect, "chunk (0,)", "'v'")


TEXTS = np.array(["né" * 40_000, "b", "a"] * 300, dtype=object)  # 36 MB, of a compressed chunk of a few KB


def test_text_beyond_the_limit_needs_a_setting(tmp_path):
    root = zarr.open_group(tmp_path, mode="w", zarr_format=2)
    array = root.create_array(
        "v",
        shape=TEXTS.shape,
        chunks=TEXTS.shape,
        dtype=str,
        filters=[numcodecs.VLenUTF8()],
        compressors=numcodecs.Zstd(),
    )
    array[:] = TEXTS
    for source in (tmp_path, in_objects(tmp_path)):
        lf = rd.scan_zarr(source)
        caught(ChunkReadError, lf.collect, "chunk (0,)", "text-chunk-bytes")
        with dask.config.set({"rainbear-dask.text-chunk-bytes": "64MiB"}):
            assert lf.collect()["v"].to_list() == TEXTS.tolist()


@pytest.mark.parametrize("pack", [zipfile.ZIP_STORED, zipfile.ZIP_DEFLATED, zipfile.ZIP_BZIP2, zipfile.ZIP_LZMA])
@pytest.mark.parametrize("sharded", [False, True])
def test_an_archive_of_any_compression_is_read(tmp_path, pack, sharded):
    root = zarr.open_group(tmp_path / "folder", mode="w")
    shards = {"shards": (SMALL,)} if sharded else {}
    root.create_array("v", data=values(SMALL), chunks=(SMALL // 4,), **shards)
    with zipfile.ZipFile(tmp_path / "s.zip", "w", pack) as packed:
        for path in sorted((tmp_path / "folder").rglob("*")):
            if path.is_file():
                packed.write(path, path.relative_to(tmp_path / "folder"))
    lf = rd.scan_zarr(tmp_path / "s.zip")
    np.testing.assert_array_equal(lf.collect()["v"], values(SMALL))
    np.testing.assert_array_equal(lf.slice(300, 5).collect()["v"], values(SMALL)[300:305])


def test_a_document_of_too_many_values_is_an_error(tmp_path):
    v3(tmp_path, None, [BYTES])
    (tmp_path / "zarr.json").write_text("[" + "0," * 2**24 + "0]")
    caught(rd.exceptions.StoreFormatError, lambda: rd.scan_zarr(tmp_path), "zarr.json", "values")


def test_a_shard_with_unused_bytes_is_read(tmp_path):
    root = zarr.open_group(tmp_path, mode="w")
    root.create_array("v", data=values(SMALL), chunks=(SMALL // 4,), shards=(SMALL,))
    path = tmp_path / "v/c/0"
    raw = path.read_bytes()
    body, spans = raw[: -4 * 16 - 4], np.frombuffer(raw[-4 * 16 - 4 : -4], "<u8").reshape(4, 2).copy()
    spans[:, 0] += 10**6
    index = spans.tobytes()
    path.write_bytes(bytes(10**6) + body + index + struct.pack("<I", google_crc32c.value(index)))
    check(tmp_path, SMALL)
