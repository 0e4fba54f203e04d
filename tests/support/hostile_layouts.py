"""Damaged or malicious stores, each written by a function: shards, files and archives."""

import lzma
import os
import socket
import struct
import zipfile
from pathlib import Path

from tests.support.hostile import (
    BOMB,
    BYTES,
    COUNT,
    CRC,
    EMPTY,
    OF_V3,
    STORES,
    TEXT_V3,
    bomb,
    deflated,
    named,
    sparse,
    v2,
    v3,
    with_crc,
    zstd_frame,
)

__all__ = ["STORES"]


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


# ---------------------------------------------------------------------- files


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
            os.chdir(path.parent)  # a socket's path has at most a hundred characters
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
    """Write an archive whose own compression makes a chunk a bomb. Remove all other files."""
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
