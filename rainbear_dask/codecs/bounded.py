"""zarr's codecs, made to decode into bounded memory, and those that cannot be and are refused.

`chunks` decodes most arrays of plain numbers itself. What only zarr knows how to read is decoded here: text, filters, other codecs.
"""

import asyncio
import copy
from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numcodecs.compat import ensure_contiguous_ndarray
from zarr.abc.codec import ArrayArrayCodec, BytesBytesCodec, Codec
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, VLenBytesCodec, VLenUTF8Codec, ZstdCodec
from zarr.codecs._v2 import V2Codec

from rainbear_dask.codecs.decompress import INFLATERS, Buffer, inflate_lzma
from rainbear_dask.resources.limits import CHUNK_SLACK_BYTES, TEXT_BYTES_PER_VALUE, check_size, shard_limit
from rainbear_dask.resources.settings import num_bytes

_REFUSED: Mapping[str, str] = {
    "pickle": "its chunks are pickles, which run whatever code they hold",
    **dict.fromkeys(
        ("json", "json2", "msgpack", "msgpack2", "vlen-array"),
        "its codec {!r} takes sizes and types from the chunks themselves, which nothing bounds",
    ),
}

_LARGEST_VALUE = 16
"""Bytes of a number in a filter; an array of text of fixed length may have longer values of its own."""

_ZARRS_OWN: Mapping[type, str] = {ZstdCodec: "zstd", BloscCodec: "blosc", GzipCodec: "gzip"}
_OF_TEXT = ("vlen-utf8", "vlen-bytes")


def check_codecs(metadata: Any) -> None:
    """Refuse an array for codecs that run code, or that no bound can be put on.

    Parameters
    ----------
    metadata : zarr's ArrayMetadata
        Of the array.

    Raises
    ------
    ValueError
        If it has such a codec, which is named.
    """
    own = metadata.dtype.to_native_dtype()
    largest = max(own.itemsize, _LARGEST_VALUE)
    for codec in _numcodecs_of(metadata):
        name = getattr(codec, "codec_id", "")
        if name in _REFUSED:
            raise ValueError(_REFUSED[name].format(name))
        for dtype in _dtypes_of(codec):
            if dtype.itemsize > largest or (dtype.kind == "O" and own.kind not in "OT"):
                raise ValueError(f"its codec {name!r} makes values of type {dtype}, which {own} cannot hold")


def _numcodecs_of(metadata: Any) -> Iterable[Any]:
    if metadata.zarr_format == 2:
        yield from (*(metadata.filters or ()), metadata.compressor)
    else:
        todo = list(metadata.codecs)
        while todo:
            codec = todo.pop()
            todo += getattr(codec, "codecs", ())
            if hasattr(codec, "codec_config"):
                yield codec._codec


@dataclass(frozen=True, slots=True)
class _Declared:
    """What an array's document declares of a chunk.

    Parameters
    ----------
    count : int
        Its values.
    dtype : dtype
        Their type.
    limit : int
        Most bytes that it may have at any step of its decoding.
    """

    count: int
    dtype: np.dtype[Any]
    limit: int


def bytes_limit(codecs: Iterable[Codec], spec: Any) -> int:
    """Return the largest number of bytes that a chunk may have as it is stored.

    Parameters
    ----------
    codecs : iterable of Codec
        What encodes it, in the order of encoding.
    spec : zarr's ArraySpec
        Of the chunk, or the shard.
    """
    count: int = prod(spec.shape)
    largest, entries = spec.dtype.to_native_dtype().itemsize, 0
    is_text = spec.dtype.to_native_dtype().kind in "OT"
    for codec in codecs:
        if isinstance(codec, ArrayArrayCodec):
            spec = codec.resolve_metadata(spec)
            largest = max(largest, spec.dtype.to_native_dtype().itemsize)
        elif isinstance(codec, V2Codec):
            largest = max(largest, *map(_largest_value, codec.filters or ()), 0)
        elif isinstance(codec, ShardingCodec):
            entries = num_entries(codec, spec.shape)
    if is_text:
        return num_bytes("text-chunk-bytes") + TEXT_BYTES_PER_VALUE * count + shard_limit(0, entries)
    return shard_limit(count * largest, entries)


def num_entries(codec: Any, shape: tuple[int, ...]) -> int:
    """Count the entries of the index of a shard, and of all shards inside of it."""
    if not isinstance(codec, ShardingCodec):
        return 0
    count = prod(length // size for length, size in zip(shape, codec.chunk_shape, strict=True))
    return count * (1 + sum(num_entries(inner, codec.chunk_shape) for inner in codec.codecs))


def _largest_value(codec: Any) -> int:
    return max((dtype.itemsize for dtype in _dtypes_of(codec)), default=0)


def _dtypes_of(codec: Any) -> list[np.dtype[Any]]:
    """Types that a filter of numcodecs takes or makes."""
    names = ("astype", "encode_dtype", "dtype", "decode_dtype")
    return [np.dtype(found) for name in names if (found := getattr(codec, name, None)) is not None]


def bounded(codecs: Iterable[Codec], spec: Any) -> tuple[Codec, ...]:
    """Give zarr's codecs that decode into bounded memory.

    Parameters
    ----------
    codecs : iterable of Codec
        What encodes an array, in the order of encoding.
    spec : zarr's ArraySpec
        Of its chunks, or shards.
    """
    codecs, found, entries = tuple(codecs), list[Codec](), 0
    for codec in codecs:
        if isinstance(codec, V2Codec):
            filters: Any = tuple(_Bounded(one, codec, spec) for one in codec.filters or ())
            compressor: Any = None if codec.compressor is None else _Bounded(codec.compressor, codec, spec)
            found.append(V2Codec(filters=filters, compressor=compressor))
        elif isinstance(codec, ShardingCodec):
            inner = bounded(codec.codecs, replace(spec, shape=codec.chunk_shape))
            entries = num_entries(codec, spec.shape)
            how: Any = {"index_codecs": codec.index_codecs, "index_location": codec.index_location}
            found.append(ShardingCodec(chunk_shape=codec.chunk_shape, codecs=inner, **how))
        else:
            if isinstance(codec, ArrayArrayCodec):
                spec = codec.resolve_metadata(spec)
            found.append(_made_bounded(codec, entries))
    return tuple(found)


class _Bounded:
    """A codec of numcodecs that decodes a chunk into no more memory than its array declares."""

    def __init__(self, codec: Any, whole: V2Codec, spec: Any) -> None:
        self._codec, self._whole, self._spec, self.codec_id = codec, whole, spec, codec.codec_id

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk."""
        spec = self._spec
        limit = bytes_limit([self._whole], spec)
        return _decode(self._codec, buf, _Declared(prod(spec.shape), spec.dtype.to_native_dtype(), limit))


def _decode(codec: Any, buffer: Any, declared: _Declared) -> Any:
    """Decode by a codec of numcodecs."""
    name, limit = codec.codec_id, declared.limit
    if name in INFLATERS:
        return INFLATERS[name](_plain(buffer), limit)
    if name == "lzma":
        return inflate_lzma(_plain(buffer), limit, codec.format, codec.filters)
    if name in _OF_TEXT:
        check_count(_plain(buffer), declared.count)
    elif name == "packbits":
        check_size(8 * _plain(buffer).nbytes, limit + 16)
    elif name == "zfpy":
        check_size(zfp_bytes(_plain(buffer)[:16].tobytes()), limit)
    elif name == "pcodec":
        return codec.decode(bytes(_plain(buffer)), out=np.empty(declared.count, declared.dtype))
    elif declared.dtype.kind not in "OT" and (encoded := _encoded_size(codec)):
        check_size(_plain(buffer).nbytes, declared.count * encoded + CHUNK_SLACK_BYTES, "what it filters")
    decoded = codec.decode(buffer)
    if name not in _OF_TEXT:
        check_size(decoded.nbytes if isinstance(decoded, np.ndarray) else memoryview(decoded).nbytes, limit)
    return decoded


def _encoded_size(codec: Any) -> int:
    """Bytes of a value that a filter takes; 0 if it takes bytes."""
    return next((dtype.itemsize for dtype in _dtypes_of(codec)), 0)


def _plain(buffer: Any) -> Buffer:
    found: Buffer = ensure_contiguous_ndarray(buffer).reshape(-1, order="A").view(np.uint8)
    return found


def check_count(raw: Buffer, count: int) -> None:
    """Refuse texts of variable length of which there are not as many as the array declares."""
    stated = int.from_bytes(raw[:4].tobytes(), "little")
    if stated != count:
        raise ValueError(f"it says that it holds {stated} texts, and not {count}")
    if 4 + 4 * count > len(raw):
        raise ValueError(f"it has {len(raw)} bytes, too few for {count} texts")


def zfp_bytes(header: bytes) -> int:
    """Bytes that an array of zfp decodes to, as its header says."""
    if header[:3] != b"zfp":
        raise ValueError("it is not zfp")
    stated = int.from_bytes(header[4:12], "little")
    itemsize, ndim, sizes = (4, 8, 4, 8)[stated & 3], (stated >> 2 & 3) + 1, stated >> 4
    bits = 48 // ndim
    return itemsize * prod((sizes >> bits * i & (1 << bits) - 1) + 1 for i in range(ndim))


def _made_bounded(codec: Codec, entries: int) -> Codec:
    """Give a codec of v3 that decodes as it does, into bounded memory."""
    kind: Any = type(codec)
    made = _bounded_class(kind)
    if made is None:
        return codec
    found = copy.copy(codec)
    object.__setattr__(found, "__class__", made)
    object.__setattr__(found, "_entries", entries)
    return found


@lru_cache(maxsize=256)
def _bounded_class(kind: type[Any]) -> type[Any] | None:
    """Subclass of a codec's class with bounds; None where what it makes has the size of what it is given."""
    if issubclass(kind, BytesBytesCodec):
        decode = _decode_bytes
    elif issubclass(kind, VLenUTF8Codec | VLenBytesCodec):
        decode = _decode_texts
    elif not issubclass(kind, ArrayArrayCodec) and hasattr(kind, "codec_name"):
        decode = _decode_array
    else:
        return None

    def decode_sync(self: Any, chunk: Any, spec: Any) -> Any:
        return decode(kind, self, chunk, spec)

    async def decode_single(self: Any, chunk: Any, spec: Any) -> Any:
        return await asyncio.to_thread(decode, kind, self, chunk, spec)

    return type(f"Bounded{kind.__name__}", (kind,), {"_decode_sync": decode_sync, "_decode_single": decode_single})


def _decode_bytes(kind: type[Any], codec: Any, chunk: Any, spec: Any) -> Any:
    limit = bytes_limit((), spec) + shard_limit(0, codec._entries)
    declared = _Declared(prod(spec.shape), spec.dtype.to_native_dtype(), limit)
    name = next((name for one, name in _ZARRS_OWN.items() if issubclass(kind, one)), None)
    if name is not None:
        found = INFLATERS[name](_plain(chunk.as_numpy_array()), limit)
    elif hasattr(codec, "codec_config"):
        found = _decode(codec._codec, chunk.as_numpy_array(), declared)
    else:
        result = _run(kind, codec, chunk, spec)
        check_size(len(result), limit)
        return result
    return spec.prototype.buffer.from_array_like(np.frombuffer(found, np.uint8))


def _decode_texts(kind: type[Any], codec: Any, chunk: Any, spec: Any) -> Any:
    check_count(_plain(chunk.as_numpy_array()), prod(spec.shape))
    return _run(kind, codec, chunk, spec)


def _decode_array(kind: type[Any], codec: Any, chunk: Any, spec: Any) -> Any:
    declared = _Declared(prod(spec.shape), spec.dtype.to_native_dtype(), bytes_limit((), spec))
    found = _decode(codec._codec, chunk.as_numpy_array(), declared)
    return spec.prototype.nd_buffer.from_ndarray_like(found.reshape(spec.shape))


def _run(kind: type[Any], codec: Any, chunk: Any, spec: Any) -> Any:
    """Decode as the codec itself does, on this thread."""
    if hasattr(kind, "_decode_sync"):
        return kind._decode_sync(codec, chunk, spec)
    return asyncio.run(kind._decode_single(codec, chunk, spec))
