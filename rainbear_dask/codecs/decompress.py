"""Decompression into bounded memory: each codec with the checks that stop small input from becoming huge output."""

import bz2
import lzma
import threading
import zlib
from collections.abc import Callable, Mapping
from typing import Any

import numpy as np
import numpy.typing as npt
import zstandard
from numcodecs import blosc, lz4, zstd

from rainbear_dask.resources.limits import TooLargeError, check_size

Buffer = npt.NDArray[np.uint8]

MAX_LZMA_DICTIONARY = 2**26
"""Bytes of the largest accepted LZMA dictionary, that of preset 9."""

_LZMA_MEMORY = MAX_LZMA_DICTIONARY + 2**21

_ZSTD_MAGIC = b"\x28\xb5\x2f\xfd"
_ZSTD_BLOCK_BYTES = 2**17
_ZSTD_EMPTY_FRAME = np.frombuffer(_ZSTD_MAGIC + b"\x00\x00\x01\x00\x00", np.uint8)
"""An empty frame that does not state its size: with it, numcodecs does not trust the sizes in other headers."""


def check_blosc(header: bytes, length: int, limit: int) -> int:
    """Check the header of a blosc chunk. numcodecs trusts its length, even beyond the end of the chunk.

    Parameters
    ----------
    header : bytes
        The first 16 bytes.
    length : int
        Bytes of the chunk.
    limit : int
        Upper bound on the decoded bytes.

    Returns
    -------
    int
        Decoded bytes.

    Raises
    ------
    ValueError
        If the header contradicts itself or the length.
    TooLargeError
        If the chunk decodes to more than the limit.
    """
    decoded, block, stated = (int.from_bytes(header[i : i + 4], "little") for i in (4, 8, 12))
    if len(header) < 16 or stated != length:
        raise ValueError(f"the chunk has {length} bytes, but its header says {stated}")
    check_size(decoded, limit, "the decoded chunk")
    if not 0 < block <= decoded:
        raise ValueError(f"its blocks have {block} bytes, more than the {decoded} of the whole chunk, or none")
    return decoded


def zstd_header(raw: bytes) -> tuple[int | None, int]:
    """Read the header of a frame of zstd (RFC 8878, 3.1.1.1).

    Parameters
    ----------
    raw : bytes
        At least the first 18 bytes, if there are as many.

    Returns
    -------
    content : int or None
        Decoded bytes of the frame, if the header says so.
    length : int
        Bytes of the header; 0 if there is none.
    """
    if len(raw) < 6 or raw[:4] != _ZSTD_MAGIC:
        return None, 0
    flag, single, dictionary = raw[4] >> 6, raw[4] >> 5 & 1, raw[4] & 3
    start, length = 5 + (1 - single) + (0, 1, 2, 4)[dictionary], (single, 2, 4, 8)[flag]
    if not length:
        return None, start
    return int.from_bytes(raw[start : start + length], "little") + 256 * (length == 2), start + length


def _zstd_bound(raw: Buffer) -> tuple[int, bool]:
    """Return an upper bound on the decoded bytes of zstd frames, and whether all headers state their sizes."""
    view, at, total, exact = raw.data, 0, 0, True
    while at < len(view):
        magic = int.from_bytes(view[at : at + 4], "little")
        if magic & 0xFFFFFFF0 == 0x184D2A50:  # skippable
            at += 8 + int.from_bytes(view[at + 4 : at + 8], "little")
            continue
        header = bytes(view[at : at + 18])
        content, length = zstd_header(header)
        if not length:
            raise ValueError("the chunk is not zstd")
        at, bound, last = at + length, 0, False
        while not last:
            if at + 3 > len(view):
                raise ValueError("the chunk is truncated")
            block = int.from_bytes(view[at : at + 3], "little")
            last, kind, size = bool(block & 1), block >> 1 & 3, block >> 3
            bound += _ZSTD_BLOCK_BYTES if kind == 2 else size
            at += 3 + (1 if kind == 1 else size)
        at += 4 * (header[4] >> 2 & 1)
        exact = exact and content is not None
        total += bound if content is None else content
    return total, exact


class _Contexts(threading.local):
    """One zstd decompressor for each thread, because making one takes longer than decoding a small chunk."""

    def __init__(self) -> None:
        self.zstd = zstandard.ZstdDecompressor()


_contexts = _Contexts()

_CONTEXT_BYTES = 2**17
"""Decoded bytes above which copying them takes longer than making a decompressor."""


def decode_zstd(raw: Buffer, out: Buffer) -> None:
    """Decode zstd frames into all of a buffer."""
    if len(out) < _CONTEXT_BYTES:
        # several frames or damage raise here; numcodecs reads the former, and describes the latter
        stored = raw.data
        try:
            if zstandard.frame_content_size(stored) == len(out):
                out.data[:] = _contexts.zstd.decompress(stored, allow_extra_data=False)
                return
        except zstandard.ZstdError:
            pass
    content, _ = zstd_header(raw[:18].tobytes())
    if content != len(out):  # numcodecs does not return how much it wrote
        raw = np.concatenate([raw, _ZSTD_EMPTY_FRAME])
    zstd.decompress(raw, out)


def decode_blosc(raw: Buffer, out: Buffer) -> None:
    """Decode a blosc chunk into all of a buffer."""
    decoded = check_blosc(raw[:16].tobytes(), len(raw), len(out))
    if decoded != len(out):
        raise ValueError(f"the chunk holds {decoded} bytes of values instead of {len(out)}")
    blosc.decompress(raw, out)


def _blosc(raw: Buffer, limit: int) -> Any:
    check_blosc(raw[:16].tobytes(), len(raw), limit)
    return blosc.decompress(raw)


def _zstd(raw: Buffer, limit: int) -> Any:
    bound, exact = _zstd_bound(raw)
    check_size(bound, limit if exact else limit + 8 * _ZSTD_BLOCK_BYTES, "the decoded chunk")
    return zstd.decompress(raw)


def _lz4(raw: Buffer, limit: int) -> Any:
    check_size(int.from_bytes(raw[:4].tobytes(), "little"), limit, "the decoded chunk")
    return lz4.decompress(raw)


def _zlib(raw: Buffer, limit: int) -> Any:
    return _streams(raw, limit, zlib.decompressobj, several=False)


def _gzip(raw: Buffer, limit: int) -> Any:
    return _streams(raw, limit, lambda: zlib.decompressobj(31), several=True)


def _bz2(raw: Buffer, limit: int) -> Any:
    return _streams(raw, limit, bz2.BZ2Decompressor, several=True)


def inflate_lzma(raw: Buffer, limit: int, form: int = lzma.FORMAT_XZ, filters: Any = None) -> Any:
    """Inflate LZMA with a dictionary of at most 64 MiB.

    Parameters
    ----------
    raw : ndarray of uint8
        Compressed bytes.
    limit : int
        Upper bound on the decoded bytes.
    form : int
        A format of the module ``lzma``.
    filters : list of dict, optional
        Filters of the format without a header.
    """
    for one in filters or ():
        check_size(int(one.get("dict_size") or 0), MAX_LZMA_DICTIONARY, "its dictionary")
    if form == lzma.FORMAT_RAW:
        return _streams(raw, limit, lambda: lzma.LZMADecompressor(form, None, filters), several=False)
    several = form != lzma.FORMAT_ALONE
    return _streams(raw, limit, lambda: lzma.LZMADecompressor(form, _LZMA_MEMORY), several=several)


def _streams(raw: Buffer, limit: int, begin: Callable[[], Any], *, several: bool) -> Any:
    """Inflate consecutive streams, up to a limit."""
    view, at, held, step = raw.data, 0, 0, len(raw)
    parts = list[bytes]()
    pending: Any = b""
    while at < len(view) or not parts:
        decoder, part, step_bytes = begin(), b"", 1
        while not decoder.eof:
            if not pending and len(part) < step_bytes:  # the decoder has consumed its input
                pending = view[at : at + step]
                at, step = at + len(pending), min(2 * step, 2**20)
                if not pending:
                    raise EOFError("the chunk is truncated")
            step_bytes = min(limit - held + 1, _PIECE_BYTES)
            part = decoder.decompress(pending, step_bytes)
            pending, held = getattr(decoder, "unconsumed_tail", b""), held + len(part)  # bz2 and lzma keep their own
            if held > limit:
                parts.clear()  # the traceback of the error keeps this frame alive
                raise TooLargeError(f"the decoded chunk has more than the {limit} bytes that its document allows")
            parts.append(part)
        at -= len(decoder.unused_data)
        if not several:
            break
        while at < len(view) and view[at] == 0:  # padding
            at += 1
        step = 2**8  # small steps, because the rest of each step is copied
    return parts[0] if len(parts) == 1 else b"".join(parts)


_PIECE_BYTES = 2**23
"""Bytes that are inflated in one step: the upper bound of memory beyond the limit."""

INFLATERS: Mapping[str, Callable[[Buffer, int], Any]] = {
    "zstd": _zstd,
    "blosc": _blosc,
    "lz4": _lz4,
    "zlib": _zlib,
    "gzip": _gzip,
    "bz2": _bz2,
}
"""Functions by numcodecs' name of the codec: each inflates a buffer up to a limit, or raises."""
