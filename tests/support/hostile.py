"""Damaged or malicious stores, each written by a function: chunks that are bombs or have wrong headers."""

import bz2
import json
import lzma
import os
import struct
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

COUNT = 1024
"""Values of the only chunk, 8 KiB, which zarrs reads."""
LARGE = 2**17
"""Values of a chunk of 1 MiB, which the package decodes without zarrs."""
BOMB = 192 * 2**20
"""Size of an inflated bomb in bytes: three times the allowance."""

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
CRC = {"name": "crc32c"}
EMPTY = 2**64 - 1

STORES: dict[str, tuple[int, Callable[[Path], object]]] = {}
"""By name: the bytes that the document declares, and the function that writes the store."""


def v3(root: Path, chunk: bytes | None, codecs: list, count: int = COUNT, **more: object) -> Path:
    """Write a store of one array ``v`` of one chunk. Return the path of the chunk."""
    (root / "v/c").mkdir(parents=True)
    (root / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    document = {
        "zarr_format": 3, "node_type": "array", "shape": [count], "data_type": "float64", "fill_value": 0, "attributes": {},
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [count]}}, "dimension_names": ["x"],
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}}, "codecs": codecs, **more,
    }  # fmt: skip
    (root / "v/zarr.json").write_text(json.dumps(document))
    if chunk is not None:
        (root / "v/c/0").write_bytes(chunk)
    return root / "v/c/0"


def v2(root: Path, chunk: bytes | None, compressor: object = None, filters: object = None, count: int = COUNT, **more):
    """Write the same store in v2."""
    (root / "v").mkdir(parents=True)
    (root / ".zgroup").write_text('{"zarr_format": 2}')
    (root / "v/.zattrs").write_text('{"_ARRAY_DIMENSIONS": ["x"]}')
    document = {
        "zarr_format": 2, "shape": [count], "chunks": [count], "dtype": "<f8", "order": "C", "fill_value": 0,
        "compressor": compressor, "filters": filters, **more,
    }  # fmt: skip
    (root / "v/.zarray").write_text(json.dumps(document))
    if chunk is not None:
        (root / "v/0").write_bytes(chunk)
    return root / "v/0"


def named(name: str, declared: int, write: Callable[[Path], object]) -> None:
    assert name not in STORES
    STORES[name] = declared, write


def sparse(path: Path, end: bytes = b"") -> Path:
    with path.open("r+b") as file:
        file.truncate(100 * 10**9)
        file.seek(0, os.SEEK_END)
        file.write(end)
    return path


# ---------------------------------------------------------------------- bombs


def deflated(wbits: int) -> bytes:
    """Deflate zeros in independent pieces, so that a piece may repeat."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, wbits), bytes(2**20)
    first = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    second = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + second * (BOMB // 2**20) + packer.flush()


def zstd_frame(content: int | None, blocks: int, *, size: int = 2**17) -> bytes:
    """Make a frame of blocks that repeat a byte, with or without its size in the header."""
    header = b"\x28\xb5\x2f\xfd" + (b"\x00\x88" if content is None else b"\xe0" + struct.pack("<Q", content))
    return header + b"".join(
        (size << 3 | 1 << 1 | (i == blocks - 1)).to_bytes(3, "little") + b"\0" for i in range(blocks)
    )


@cache
def bombs() -> dict[str, dict[str, bytes]]:
    """Return, by numcodecs' name of a codec, chunks that inflate to far more than the array declares."""
    from numcodecs import blosc, lz4  # noqa: PLC0415  the child does not need it

    piece, times = bytes(2**22), BOMB // 2**22
    blosc.use_threads = False
    return {
        "zlib": {"one": deflated(15)},
        "gzip": {"one": deflated(31), "members": (z := zlib.compressobj(9, wbits=31)).compress(piece) + z.flush()},
        "bz2": {"one": bz2.compress(bytes(BOMB // 2)), "streams": bz2.compress(piece) * times},
        "lzma": {"one": lzma.compress(bytes(BOMB), preset=0), "streams": lzma.compress(piece, preset=0) * times},
        "zstd": {
            "one": zstd_frame(BOMB, BOMB // 2**17),
            "unsaid": zstd_frame(None, BOMB // 2**17),
            "lie": zstd_frame(8 * COUNT, BOMB // 2**17),
            "second": zstd_frame(8 * COUNT, 1, size=8 * COUNT) + zstd_frame(BOMB, BOMB // 2**17),
            "second unsaid": zstd_frame(8 * COUNT, 1, size=8 * COUNT) + zstd_frame(None, BOMB // 2**17),
            "skipped": b"\x50\x2a\x4d\x18\x04\0\0\0skip" + zstd_frame(None, BOMB // 2**17),
            "many": zstd_frame(2**20, 8) * (BOMB // 2**20),
            "second header": zstd_frame(8 * COUNT, 1, size=8 * COUNT) + zstd_frame(2**50, 1),
            **{f"header of 2**{n}": zstd_frame(2**n, 1) for n in (36, 50, 62, 63)},
        },
        "blosc": {
            "one": blosc.compress(bytes(BOMB), b"zstd", 9),
            "header": b"\x02\x01\x01\x08" + struct.pack("<III", 2**31 - 1, 2**17, 64) + bytes(48),
            "blocks": b"\x02\x01\x01\x08" + struct.pack("<III", 8 * COUNT, 2**31 - 1, 64) + bytes(48),
            "no blocks": b"\x02\x01\x01\x08" + struct.pack("<III", 8 * COUNT, 0, 64) + bytes(48),
            "another version": b"\x07\x01\x01\x08" + struct.pack("<III", 8 * COUNT, 8 * COUNT, 64) + bytes(48),
            "no type": b"\x02\x01\x01\x00" + struct.pack("<III", 8 * COUNT, 8 * COUNT, 64) + bytes(48),
            "length": b"\x02\x01\x01\x08" + struct.pack("<III", 8 * COUNT, 8 * COUNT, 2**31 - 1) + bytes(48),
        },
        "lz4": {"one": lz4.compress(bytes(BOMB)), "header": struct.pack("<i", 2**31 - 1) + bytes(16),
                "negative": struct.pack("<i", -5) + bytes(16)},
    }  # fmt: skip


OF_V3 = {
    "zstd": {"name": "zstd", "configuration": {"level": 0, "checksum": False}},
    "gzip": {"name": "gzip", "configuration": {"level": 1}},
    "blosc": {"name": "blosc", "configuration": {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 8,
                                                 "blocksize": 0}},
}  # fmt: skip


def bomb(codec: str, kind: str) -> bytes:
    found = bombs()[codec][kind]
    return found * (BOMB // 2**22) if (codec, kind) == ("gzip", "members") else found


KINDS = {
    "zlib": ["one"],
    "gzip": ["one", "members"],
    "bz2": ["one", "streams"],
    "lzma": ["one", "streams"],
    "zstd": [
        *("one", "unsaid", "lie", "second", "second unsaid", "skipped", "many", "second header"),
        *(f"header of 2**{n}" for n in (36, 50, 62, 63)),
    ],
    "blosc": ["one", "header", "blocks", "no blocks", "another version", "no type", "length"],
    "lz4": ["one", "header", "negative"],
}

for _codec, _kinds in KINDS.items():
    for _kind in _kinds:
        named(f"v2 {_codec}: {_kind}", 8 * COUNT, lambda root, c=_codec, k=_kind: v2(root, bomb(c, k), {"id": c}))
        if _codec in OF_V3:
            named(
                f"v3 {_codec}: {_kind}",
                8 * COUNT,
                lambda root, c=_codec, k=_kind: v3(root, bomb(c, k), [BYTES, OF_V3[c]]),
            )
        else:
            how = {"name": f"numcodecs.{_codec}", "configuration": {}}
            named(
                f"v3 {_codec}: {_kind}",
                8 * COUNT,
                lambda root, c=_codec, k=_kind, h=how: v3(root, bomb(c, k), [BYTES, h]),
            )
    named(f"v2 {_codec}: large", 8 * LARGE, lambda root, c=_codec: v2(root, bomb(c, "one"), {"id": c}, count=LARGE))
    # with a filter, zarr reads the array
    named(
        f"v2 {_codec}: filtered",
        8 * COUNT,
        lambda root, c=_codec: v2(root, bomb(c, "one"), {"id": c}, [{"id": "delta", "dtype": "<f8"}]),
    )
    named(
        f"v2 {_codec}: text",
        16 * COUNT,
        lambda root, c=_codec: v2(root, bomb(c, "one"), {"id": c}, [{"id": "vlen-utf8"}], dtype="|O", fill_value=""),
    )

named(
    "v3 twice: gzip in zstd",
    8 * COUNT,
    lambda root: v3(root, bomb("zstd", "one"), [BYTES, OF_V3["gzip"], OF_V3["zstd"]]),
)
named(
    "v3 crc32c: a bomb behind it",
    8 * COUNT,
    lambda root: v3(root, with_crc(bomb("zstd", "one")), [BYTES, OF_V3["zstd"], CRC]),
)
named("v3 none: longer than declared", 8 * COUNT, lambda root: v3(root, bytes(2**20), [BYTES]))
named("v3 none: no byte", 8 * COUNT, lambda root: v3(root, b"", [BYTES]))
named("v3 zstd: noise", 8 * COUNT, lambda root: v3(root, np.random.default_rng(0).bytes(999), [BYTES, OF_V3["zstd"]]))
named("v2 lzma: a dictionary of 4 GiB", 8 * COUNT, lambda root: v2(root, alone(2**32 - 1), {"id": "lzma", "format": 2}))
named(
    "v2 lzma: a dictionary that the document names", 8 * COUNT,
    lambda root: v2(root, bytes(100), {"id": "lzma", "format": 3, "filters": [{"id": 33, "dict_size": 2**30}]}),
)  # fmt: skip
for _id in ("packbits", "fletcher32", "adler32", "crc32", "shuffle", "delta", "fixedscaleoffset", "quantize", "astype"):
    _how = {
        "delta": {"dtype": "<f8"}, "fixedscaleoffset": {"dtype": "<f8", "astype": "|u1", "offset": 0, "scale": 1},
        "quantize": {"dtype": "<f8", "digits": 1}, "astype": {"encode_dtype": "|u1", "decode_dtype": "<f8"},
        "shuffle": {"elementsize": 8},
    }.get(_id, {})  # fmt: skip
    named(
        f"v2 {_id}: behind a bomb", 8 * COUNT,
        lambda root, h={"id": _id} | _how: v2(root, bomb("zstd", "one"), {"id": "zstd"}, [h]),
    )  # fmt: skip
    named(f"v2 {_id}: three bytes", 8 * COUNT, lambda root, h={"id": _id} | _how: v2(root, b"abc", None, [h]))
named(
    "v2 astype: values of a megabyte", 8 * COUNT,
    lambda root: v2(root, bytes(COUNT), None, [{"id": "astype", "encode_dtype": "|u1", "decode_dtype": "<U250000"}]),
)  # fmt: skip
for _size in (0, -1, 3, 2**31 - 1, 2**40):
    _how = {"id": "shuffle", "elementsize": _size}
    named(
        f"v2 shuffle: values of {_size} bytes",
        8 * COUNT,
        lambda root, h=_how: v2(root, bytes(999), {"id": "zlib"}, [h]),
    )
for _how in (
    {"id": "delta", "dtype": "|O"}, {"id": "astype", "encode_dtype": "|O", "decode_dtype": "<f8"},
    {"id": "astype", "encode_dtype": "<f8", "decode_dtype": "|O"}, {"id": "quantize", "dtype": "|O", "digits": 1},
    {"id": "fixedscaleoffset", "dtype": "|O", "offset": 0, "scale": 1}, {"id": "vlen-array", "dtype": "|O"},
    {"id": "categorize", "dtype": "<U250000", "labels": ["a"]}, {"id": "base64"}, {"id": "mystery"},
):  # fmt: skip
    named(f"v2 {_how}", 8 * COUNT, lambda root, h=_how: v2(root, bytes(8 * COUNT), None, [h]))
for _id in ("pickle", "json2", "msgpack2"):
    _raw = {"pickle": b"cos\nabort\n(tR.", "json2": json.dumps(["a", "|O", [10**11]]).encode(),
            "msgpack2": b"\x93\xa1a\xa2|O\x91\xcf" + struct.pack(">Q", 10**11)}[_id]  # fmt: skip
    named(
        f"v2 {_id}: as a filter",
        8 * COUNT,
        lambda root, i=_id, r=_raw: v2(root, r, None, [{"id": i}], dtype="|O", fill_value=""),
    )
    named(f"v2 {_id}: as a compressor", 8 * COUNT, lambda root, i=_id, r=_raw: v2(root, r, {"id": i}))


def with_crc(raw: bytes) -> bytes:
    import google_crc32c  # noqa: PLC0415

    return raw + struct.pack("<I", google_crc32c.value(raw))


def alone(dictionary: int) -> bytes:
    """Compress in LZMA's old format, which declares the size of its dictionary."""
    return b"\x5d" + struct.pack("<IQ", dictionary, 8 * COUNT) + bytes(100)


# ---------------------------------------------------------------------- text

TEXT_V3 = {"data_type": "string", "fill_value": ""}


def texts(count: int, *lengths: int) -> bytes:
    return struct.pack("<I", count) + b"".join(struct.pack("<I", n) + b"a" * min(n, 10) for n in lengths)


for _name, _raw in {
    "a false count": texts(2**32 - 1, 1, 1),
    "one too many": texts(COUNT + 1, *[1] * (COUNT + 1)),
    "none": texts(0),
    "too few bytes": texts(COUNT, 1),
    "a length beyond the end": texts(COUNT, *[1] * (COUNT - 1), 2**32 - 1),
    "no count": b"\x01",
    "not UTF-8": struct.pack("<I", COUNT) + (struct.pack("<I", 2) + b"\xff\xfe") * COUNT,
}.items():
    for _id in ("vlen-utf8", "vlen-bytes"):
        named(
            f"v2 {_id}: {_name}",
            16 * COUNT,
            lambda root, i=_id, r=_raw: v2(root, r, None, [{"id": i}], dtype="|O", fill_value=""),
        )
    named(f"v3 text: {_name}", 16 * COUNT, lambda root, r=_raw: v3(root, r, [{"name": "vlen-utf8"}], **TEXT_V3))
named(
    "v3 text: a bomb",
    16 * COUNT,
    lambda root: v3(root, bomb("zstd", "one"), [{"name": "vlen-utf8"}, OF_V3["zstd"]], **TEXT_V3),
)
named("v3 text: a sparse file", 16 * COUNT, lambda root: sparse(v3(root, b"", [{"name": "vlen-utf8"}], **TEXT_V3)))
named(
    "v3 fixed text: a bomb", 4 * 8 * COUNT,
    lambda root: v3(root, bomb("gzip", "one"), [BYTES, OF_V3["gzip"]], fill_value="",
                    data_type={"name": "fixed_length_utf32", "configuration": {"length_bytes": 32}}),
)  # fmt: skip
