"""Encodings of chunks of plain numbers, and decoders of their bytes into a given buffer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from zarr.codecs import BloscCodec, BytesCodec, Crc32cCodec, GzipCodec, TransposeCodec, ZstdCodec

from rainbear_dask.chunks.sharding import setting
from rainbear_dask.codecs.decompress import INFLATERS, Buffer, decode_blosc, decode_zstd

Decoder = Callable[[Buffer, Buffer], None]
"""Decodes its first buffer into all of its second, or raises."""


@dataclass(frozen=True, slots=True)
class ChunkForm:
    """Encoding of chunks.

    Parameters
    ----------
    dtype : dtype
        Type of the values, with their byte order.
    order : tuple of int
        Axes of the array in the order of a chunk's axes.
    decode : callable
        Decode stored bytes into the bytes of the values.
    """

    dtype: np.dtype[Any]
    order: tuple[int, ...]
    decode: Decoder

    def is_plain(self, dtype: np.dtype[Any]) -> bool:
        """Whether decoded bytes are a C array of the given type."""
        return self.dtype == dtype and self.order == tuple(range(len(self.order)))

    def values(self, decoded: Buffer, shape: tuple[int, ...]) -> npt.NDArray[Any]:
        """View the decoded bytes of a chunk as values, with the axes of the array."""
        if self.order == tuple(range(len(shape))):
            return decoded.view(self.dtype).reshape(shape)
        chunk = decoded.view(self.dtype).reshape([shape[axis] for axis in self.order])
        return chunk.transpose(np.argsort(self.order))


def chunk_form(metadata: Any) -> ChunkForm | None:
    """Return the encoding of an array's chunks, or of its inner chunks; None if only zarr can decode them.

    Parameters
    ----------
    metadata : zarr's ArrayMetadata
        Metadata of the array.
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
    decode = _V3_DECODERS.get(type(compressors[0])) if compressors else _copy
    if decode is None or len(compressors) > 1:
        return None
    endian = {"big": ">", "little": "<"}.get(setting(to_bytes.endian), "=")
    dtype = metadata.dtype.to_native_dtype().newbyteorder(endian)
    return ChunkForm(dtype, order, _checked(decode) if checked else decode)


def _copy(raw: Buffer, out: Buffer) -> None:
    _check_length(len(raw), out)
    out[:] = raw


def _by(inflate: Callable[[Buffer, int], Any]) -> Decoder:
    """Return a decoder from a function that allocates its result, up to a given number of bytes."""

    def decoder(raw: Buffer, out: Buffer) -> None:
        decoded = np.frombuffer(inflate(raw, len(out)), np.uint8)
        _check_length(len(decoded), out)
        out[:] = decoded

    return decoder


def _checked(decode: Decoder) -> Decoder:
    """Return a decoder that first compares the checksum at the end of the stored bytes."""

    def decoder(raw: Buffer, out: Buffer) -> None:
        if google_crc32c.value(raw[:-4].tobytes()) != int.from_bytes(raw[-4:].tobytes(), "little"):
            raise ValueError("the chunk does not match its checksum")
        decode(raw[:-4], out)

    return decoder


def _check_length(length: int, out: Buffer) -> None:
    if length != len(out):
        raise ValueError(f"the chunk holds {length} bytes of values instead of {len(out)}")


_V2_DECODERS: dict[str | None, Decoder] = {
    None: _copy,
    "zstd": decode_zstd,
    "blosc": decode_blosc,
    **{name: _by(INFLATERS[name]) for name in ("zlib", "gzip", "lz4")},
}
_V3_DECODERS: dict[type, Decoder] = {
    ZstdCodec: decode_zstd,
    BloscCodec: decode_blosc,
    GzipCodec: _by(INFLATERS["gzip"]),
}
