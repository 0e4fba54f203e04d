"""Stores that damage or malice may leave: each is written by a function, and scanned in a child process that tells its peak."""

import bz2
import json
import lzma
import os
import socket
import struct
import sys
import zipfile
import zlib
from collections.abc import Callable
from functools import cache
from pathlib import Path

import numpy as np

COUNT = 1024
"""Values of the only chunk, 8 KiB: zarrs reads these."""
LARGE = 2**17
"""Values of a chunk of 1 MiB, which is decoded without zarrs."""
BOMB = 192 * 2**20
"""Bytes that bombs inflate to, three times what is allowed for."""

BYTES = {"name": "bytes", "configuration": {"endian": "little"}}
CRC = {"name": "crc32c"}
EMPTY = 2**64 - 1

STORES: dict[str, tuple[int, Callable[[Path], object]]] = {}
"""By name: the bytes that the document declares, and what writes the store."""


def v3(root: Path, chunk: bytes | None, codecs: list, count: int = COUNT, **more: object) -> Path:
    """A store of one array ``v`` of one chunk; gives where the chunk is."""
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
    """The same in v2."""
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


# ---------------------------------------------------------------------- bombs


def deflated(wbits: int) -> bytes:
    """Zeros, deflated piece by piece: a piece may be repeated, as each forgets the last."""
    packer, zeros = zlib.compressobj(9, zlib.DEFLATED, wbits), bytes(2**20)
    first = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    second = packer.compress(zeros) + packer.flush(zlib.Z_FULL_FLUSH)
    return first + second * (BOMB // 2**20) + packer.flush()


def zstd_frame(content: int | None, blocks: int, *, size: int = 2**17) -> bytes:
    """A frame of blocks that repeat a byte, which says how much it holds, or not."""
    header = b"\x28\xb5\x2f\xfd" + (b"\x00\x88" if content is None else b"\xe0" + struct.pack("<Q", content))
    return header + b"".join(
        (size << 3 | 1 << 1 | (i == blocks - 1)).to_bytes(3, "little") + b"\0" for i in range(blocks)
    )


@cache
def bombs() -> dict[str, dict[str, bytes]]:
    """By numcodecs' name of a codec: chunks that inflate to far more than is declared."""
    from numcodecs import blosc, lz4  # noqa: PLC0415  the child needs none

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
    # a filter leaves the array to zarr
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
    """LZMA of the old format, which says how large a dictionary it needs."""
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


# ---------------------------------------------------------------------- shards

INNER = COUNT // 4


def sharding(inner: list, chunk: int = INNER, location: str = "end", index: list | None = None) -> dict:
    return {
        "name": "sharding_indexed",
        "configuration": {
            "chunk_shape": [chunk], "codecs": inner, "index_codecs": index or [BYTES, CRC], "index_location": location,
        },
    }  # fmt: skip


def shard(*entries: tuple[int, int], body: bytes = b"", start: bool = False) -> bytes:
    index = with_crc(struct.pack(f"<{2 * len(entries)}Q", *(n for entry in entries for n in entry)))
    return index + body if start else body + index


GOOD = bytes(8 * INNER)
for _name, _entry in {
    "beyond the end": (10**6, 100),
    "an enormous length": (0, 2**62),
    "a length of minus one": (0, EMPTY),
    "a start of minus two": (EMPTY - 1, 100),
    "a sum that wraps round": (2**64 - 8, 16),
    "a start beyond all files": (2**63 + 5, 8 * INNER),
    "no length": (0, 0),
    "the index itself": (8 * INNER, 32),
}.items():
    _shard = shard((0, 8 * INNER), _entry, _entry, (EMPTY, EMPTY), body=GOOD)
    for _inner, _codecs in (("plain", [BYTES]), ("zstd", [BYTES, OF_V3["zstd"]])):
        named(f"shard of {_inner}: {_name}", 8 * COUNT, lambda root, s=_shard, c=_codecs: v3(root, s, [sharding(c)]))
    named(
        f"shard of text: {_name}", 16 * COUNT,
        lambda root, s=_shard: v3(root, s, [sharding([{"name": "vlen-utf8"}])], **TEXT_V3),
    )  # fmt: skip
    named(f"shard in a shard: {_name}", 8 * COUNT, lambda root, e=_entry: nested(root, e))


def nested(root: Path, entry: tuple[int, int]) -> Path:
    inside = shard(entry, entry, body=GOOD)
    return v3(root, shard(*[(0, len(inside))] * 4, body=inside), [sharding([sharding([BYTES], INNER // 2)])])


def sharded_bombs(root: Path, codec: str, codecs: list, **more: object) -> Path:
    raw = bomb(codec, "one")
    return v3(root, shard(*[(0, len(raw))] * 4, body=raw), [sharding(codecs)], **more)


for _codec in ("zstd", "gzip", "blosc"):
    named(f"shard of {_codec}: bombs", 8 * COUNT, lambda root, c=_codec: sharded_bombs(root, c, [BYTES, OF_V3[c]]))
named("shard of zstd: headers", 8 * COUNT, lambda root: v3(
    root, shard(*[(0, 18)] * 4, body=zstd_frame(2**50, 1)), [sharding([BYTES, OF_V3["zstd"]])]))  # fmt: skip
named(
    "shard of text: bombs",
    16 * COUNT,
    lambda root: sharded_bombs(root, "zstd", [{"name": "vlen-utf8"}, OF_V3["zstd"]], **TEXT_V3),
)
named("shard of chunks far apart", 8 * 1024, lambda root: v3(
    root, shard(*((i * 2**17, 8) for i in range(1024)), body=bytes(2**27)), [sharding([BYTES], 1)]))  # fmt: skip
named("shard of chunks that overlap", 8 * 1024, lambda root: v3(
    root, shard(*((i * 2**10, 2**10) for i in range(1024)), body=bytes(2**20)), [sharding([BYTES], 1)]))  # fmt: skip
named("shard of nothing", 8 * COUNT, lambda root: v3(root, b"", [sharding([BYTES])]))
named("shard shorter than its index", 8 * COUNT, lambda root: v3(root, b"12345", [sharding([BYTES])]))
named(
    "shard that gzip packed", 8 * COUNT, lambda root: v3(root, bomb("gzip", "one"), [sharding([BYTES]), OF_V3["gzip"]])
)
named("shard with an index that gzip packed", 8 * COUNT, lambda root: v3(
    root, bomb("gzip", "one"), [sharding([BYTES], index=[BYTES, OF_V3["gzip"]])]))  # fmt: skip
named("shard with its index first", 8 * COUNT, lambda root: v3(
    root, shard(*[(2**40, 2**40)] * 4, start=True), [sharding([BYTES], location="start")]))  # fmt: skip
named("shard of 100 GB", 8 * COUNT, lambda root: sparse(v3(
    root, b"", [sharding([BYTES, OF_V3["zstd"]])]), shard((0, 320 * 2**20), (0, 2**36), (2**35, 2**36), (0, 10**11))))  # fmt: skip
named("shard of an index of 16 GB", 8 * 10**9, lambda root: v3(root, bytes(100), [sharding([BYTES], 1)], count=10**9))
del STORES["shard of an index of 16 GB"]  # its document declares as much


# ---------------------------------------------------------------------- files


def sparse(path: Path, end: bytes = b"") -> Path:
    with path.open("r+b") as file:
        file.truncate(100 * 10**9)
        file.seek(0, os.SEEK_END)
        file.write(end)
    return path


def replaced(path: Path, kind: str) -> None:
    path.unlink()
    if kind == "pipe":
        os.mkfifo(path)
    elif kind == "folder":
        path.mkdir()
    elif kind == "loop":
        path.symlink_to(path.name)
    elif kind == "device":
        path.symlink_to("/dev/zero")
    elif kind == "socket":
        with socket.socket(socket.AF_UNIX) as listener:
            here = Path.cwd()
            os.chdir(path.parent)  # a socket's path has a hundred letters at most
            listener.bind(path.name)
            os.chdir(here)


for _kind in ("pipe", "folder", "loop", "device", "socket"):
    for _what, _codecs in (("plain", [BYTES]), ("zstd", [BYTES, OF_V3["zstd"]]), ("shard", [sharding([BYTES])])):
        named(
            f"a {_kind} for a chunk: {_what}", 8 * COUNT, lambda root, k=_kind, c=_codecs: replaced(v3(root, b"", c), k)
        )
    named(f"a {_kind} for a chunk: text", 16 * COUNT, lambda root, k=_kind: replaced(
        v3(root, b"", [{"name": "vlen-utf8"}], **TEXT_V3), k))  # fmt: skip
    named(f"a {_kind} for a group's document", 8 * COUNT, lambda root, k=_kind: (
        v3(root, b"", [BYTES]), replaced(root / "zarr.json", k)))  # fmt: skip
    named(f"a {_kind} for an array's document", 8 * COUNT, lambda root, k=_kind: (
        v3(root, b"", [BYTES]), replaced(root / "v/zarr.json", k)))  # fmt: skip
named("a chunk of 100 GB", 8 * COUNT, lambda root: sparse(v3(root, b"", [BYTES])))
named("a chunk of 100 GB: zstd", 8 * COUNT, lambda root: sparse(v3(root, b"", [BYTES, OF_V3["zstd"]])))
named("a chunk of 100 GB: zlib", 8 * COUNT, lambda root: sparse(v2(root, b"", {"id": "zlib"})))
named("a document of 100 GB", 0, lambda root: (v3(root, b"", [BYTES]), sparse(root / "zarr.json")))
named("an array's document of 100 GB", 0, lambda root: (v3(root, b"", [BYTES]), sparse(root / "v/zarr.json")))
named(
    "consolidated metadata of 100 GB",
    0,
    lambda root: ((root / ".zmetadata").write_bytes(b"{"), sparse(root / ".zmetadata")),
)
named(
    "a document nested deeply", 0, lambda root: (v3(root, b"", [BYTES]), (root / "zarr.json").write_text("[" * 10**5))
)
named("a document of digits", 0, lambda root: (v3(root, b"", [BYTES]), (root / "zarr.json").write_text("9" * 10**6)))


# ---------------------------------------------------------------------- archives


def archive(root: Path, pack: int, *, size: int | None = None) -> None:
    """Put a store whose chunk is a bomb of the archive itself into an archive; the folder then holds nothing else."""
    folder = root / "folder"
    chunk = v3(folder, None, [BYTES])
    with zipfile.ZipFile(root / "s.zip", "w") as packed:
        for file in sorted(folder.rglob("zarr.json")):
            packed.write(file, str(file.relative_to(folder)))
        with packed.open(zipfile.ZipInfo(str(chunk.relative_to(folder))), "w") as member:
            pass
        member = packed.infolist()[-1]
        member.compress_type = pack
        raw = {zipfile.ZIP_DEFLATED: lambda: deflated(-15), zipfile.ZIP_BZIP2: lambda: bomb("bz2", "streams"),
               zipfile.ZIP_LZMA: zip_lzma, zipfile.ZIP_STORED: lambda: bytes(2**20)}[pack]()  # fmt: skip
        member.compress_size, member.file_size = len(raw), BOMB if size is None else size
        packed.fp.seek(member.header_offset)
        packed.fp.write(member.FileHeader(False) + raw)
        packed.start_dir = packed.fp.tell()


def zip_lzma() -> bytes:
    raw = lzma.compress(bytes(BOMB), lzma.FORMAT_ALONE, preset=0)
    return b"\x09\x04\x05\x00" + raw[:5] + raw[13:]


for _name, _pack in (
    ("deflate", zipfile.ZIP_DEFLATED),
    ("bzip2", zipfile.ZIP_BZIP2),
    ("lzma", zipfile.ZIP_LZMA),
    ("nothing", zipfile.ZIP_STORED),
):
    named(f"zip {_name}: a bomb", 8 * COUNT, lambda root, p=_pack: archive(root, p))
    named(
        f"zip {_name}: a bomb that lies about its length",
        8 * COUNT,
        lambda root, p=_pack: archive(root, p, size=8 * COUNT),
    )


# ---------------------------------------------------------------------- the child


def scan(source: object) -> str:
    """Scan a store as a whole: what comes of it."""
    import rainbear_dask as rd  # noqa: PLC0415  the parent needs none

    try:
        frame = rd.scan_zarr(source).collect()
    except rd.exceptions.RainbearError as error:
        return f"{type(error).__name__}: {error}"
    except BaseException as error:  # noqa: BLE001  that none comes is what is tested
        return f"NOT OURS {type(error).__name__}: {error}"
    return f"rows: {frame.shape}"


def opened(kind: str, root: Path) -> object:
    """A store as a source of some kind: what can be is loaded before it is measured."""
    packed = root / "s.zip"
    if packed.exists():
        return str(packed)
    if kind == "folder":
        return str(root)
    from zarr.core.buffer import default_buffer_prototype  # noqa: PLC0415
    from zarr.storage import MemoryStore  # noqa: PLC0415

    files = {str(path.relative_to(root)): path.read_bytes() for path in root.rglob("*") if path.is_file()}
    if kind == "memory":
        make = default_buffer_prototype().buffer.from_bytes
        return MemoryStore({key: make(content) for key, content in files.items()})
    if kind == "obstore":
        import obstore  # noqa: PLC0415
        from obstore.store import MemoryStore as ObjectsInMemory  # noqa: PLC0415

        store = ObjectsInMemory()
        for key, content in files.items():
            obstore.put(store, key, content)
        return store
    import fsspec  # noqa: PLC0415

    memory_files = fsspec.filesystem("memory")
    for key, content in files.items():
        memory_files.pipe_file(f"/{root.name}/{key}", content)
    return f"memory://{root.name}"


def main(kind: str, *roots: str) -> None:
    """Scan stores one after the other; tell of each what came of it, and by how many bytes the peak was above the start."""
    import warnings  # noqa: PLC0415

    warnings.simplefilter("ignore")
    for root in (str(Path(roots[0]).parent / "good"), *roots):  # the first only loads what all need
        source = opened(kind, Path(root))
        Path("/proc/self/clear_refs").write_text("5")
        before = memory("VmRSS")
        found = scan(source)
        sys.stdout.write(json.dumps([root, found, memory("VmHWM") - before]) + "\n")
        sys.stdout.flush()


def memory(what: str) -> int:
    """Bytes of this process, as Linux tells them."""
    line = next(line for line in Path("/proc/self/status").read_text().splitlines() if line.startswith(what))
    return int(line.split()[1]) * 1024


if __name__ == "__main__":
    main(*sys.argv[1:])
