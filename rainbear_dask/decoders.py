"""Chunks of plain numbers: from the bytes that are stored to the bytes of their values, in memory that is there already."""

import gzip
import zlib
from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from numcodecs import blosc, lz4, zstd
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from rainbear_dask.shards import setting

Buffer = npt.NDArray[np.uint8]
Decoder = Callable[[Buffer, Buffer], None]
"""Decodes the first buffer into all of the second, or raises."""


@dataclass(frozen=True, slots=True)
class ChunkForm:
    """How chunks are stored.

    Parameters
    ----------
    dtype : dtype
        Type of the values, with their byte order.
    order : tuple of int
        Axes of the array, in the order in which a chunk has them.
    decode : callable
        From what is stored to the bytes of the values.
    """

    dtype: np.dtype[Any]
    order: tuple[int, ...]
    decode: Decoder

    def is_plain(self, dtype: np.dtype[Any]) -> bool:
        """Whether the bytes of the values are those of a C array of some type."""
        return self.dtype == dtype and self.order == tuple(range(len(self.order)))

    def values(self, decoded: Buffer, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """See the bytes of a chunk as values, with the axes of the array."""
        chunk = decoded.view(self.dtype).reshape([shape[axis] for axis in self.order])
        return chunk.transpose(np.argsort(self.order))


def chunk_form(metadata: Any) -> ChunkForm | None:
    """How an array's chunks, or the inner ones of its shards, are stored; None if in a way that only zarr knows.

    Parameters
    ----------
    metadata : zarr's ArrayMetadata
        Of an array.
    """
    if metadata.dtype.to_native_dtype().kind not in "biuf":
        return None
    return _v2_form(metadata) if metadata.zarr_format == 2 else _v3_form(metadata)


def _v2_form(metadata: Any) -> ChunkForm | None:
    decode = _V2_DECODERS.get(getattr(metadata.compressor, "codec_id", metadata.compressor))
    if decode is None or metadata.filters:
        return None
    order = tuple(range(len(metadata.shape)))
    return ChunkForm(metadata.dtype.to_native_dtype(), order[::-1] if metadata.order == "F" else order, decode)


def _v3_form(metadata: Any) -> ChunkForm | None:
    codecs, order = list(metadata.inner_codecs), tuple(range(len(metadata.shape)))
    if isinstance(codecs[0], TransposeCodec):
        order = tuple(codecs.pop(0).order)
    if not codecs or not isinstance(to_bytes := codecs.pop(0), BytesCodec):
        return None
    checked = bool(codecs) and isinstance(codecs[-1], Crc32cCodec)
    compressors = codecs[:-1] if checked else codecs
    decode = _V3_DECODERS.get(type(compressors[0])) if compressors else _as_it_is
    if decode is None or len(compressors) > 1:
        return None
    endian = {"big": ">", "little": "<"}.get(setting(to_bytes.endian), "=")
    dtype = metadata.dtype.to_native_dtype().newbyteorder(endian)
    return ChunkForm(dtype, order, _checked(decode) if checked else decode)


def _as_it_is(raw: Buffer, out: Buffer) -> None:
    _check_length(len(raw), out)
    out[:] = raw


def decode_zstd(raw: Buffer, out: Buffer) -> None:
    """Decode what zstd encoded."""
    if _content_size(raw[:18].tobytes()) == len(out):  # numcodecs does not say how much it wrote
        zstd.decompress(raw, out)
    else:
        _by(zstd.decompress)(raw, out)


def _content_size(header: bytes) -> int | None:
    """Decoded bytes of a frame of zstd, where it begins with them (RFC 8878, 3.1.1.1)."""
    if len(header) < 5 or header[:4] != b"\x28\xb5\x2f\xfd":
        return None
    flag, single, dictionary = header[4] >> 6, header[4] >> 5 & 1, header[4] & 3
    start, length = 5 + (1 - single) + (0, 1, 2, 4)[dictionary], (single, 2, 4, 8)[flag]
    return int.from_bytes(header[start : start + length], "little") + 256 * (length == 2) if length else None


def decode_blosc(raw: Buffer, out: Buffer) -> None:
    """Decode what blosc encoded."""
    stated = int.from_bytes(raw[12:16].tobytes(), "little")  # which numcodecs would read, however many there are
    if len(raw) < 16 or stated != len(raw):
        raise ValueError(f"it has {len(raw)} bytes, but says {stated}")
    _check_length(int.from_bytes(raw[4:8].tobytes(), "little"), out)
    blosc.decompress(raw, out)


def _by(decode: Callable[[Any], Any]) -> Decoder:
    """Decode by a function that gives memory of its own."""

    def decoder(raw: Buffer, out: Buffer) -> None:
        decoded = np.frombuffer(decode(raw), np.uint8)
        _check_length(len(decoded), out)
        out[:] = decoded

    return decoder


def _checked(decode: Decoder) -> Decoder:
    """Decode what a checksum follows."""

    def decoder(raw: Buffer, out: Buffer) -> None:
        if google_crc32c.value(raw[:-4].tobytes()) != int.from_bytes(raw[-4:].tobytes(), "little"):
            raise ValueError("it is not what its checksum says")
        decode(raw[:-4], out)

    return decoder


def _check_length(length: int, out: Buffer) -> None:
    if length != len(out):
        raise ValueError(f"it holds {length} bytes of values, and not {len(out)}")


_V2_DECODERS: dict[str | None, Decoder] = {
    None: _as_it_is,
    "zstd": decode_zstd,
    "blosc": decode_blosc,
    "zlib": _by(zlib.decompress),
    "gzip": _by(gzip.decompress),
    "lz4": _by(lz4.decompress),
}
_V3_DECODERS: dict[type, Decoder] = {ZstdCodec: decode_zstd, BloscCodec: decode_blosc, GzipCodec: _by(gzip.decompress)}
