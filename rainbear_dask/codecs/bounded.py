"""zarr's codecs with bounds on the memory that they decode into, and a list of codecs that are refused.

`chunks` decodes most arrays of plain numbers without zarr. The others are decoded here: text, filters, other codecs.
"""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, replace
from functools import lru_cache
from math import prod
from typing import Any

import numpy as np
from numcodecs.compat import ensure_contiguous_ndarray
from zarr.abc.codec import ArrayArrayCodec, BytesBytesCodec, Codec
from zarr.codecs import BloscCodec, GzipCodec, ShardingCodec, VLenBytesCodec, VLenUTF8Codec, ZstdCodec

from rainbear_dask.codecs import zarr_internals
from rainbear_dask.codecs.decompress import INFLATERS, Buffer, inflate_lzma
from rainbear_dask.resources.limits import CHUNK_SLACK_BYTES, TEXT_BYTES_PER_VALUE, check_size, shard_limit
from rainbear_dask.resources.settings import num_bytes

_REFUSED: Mapping[str, str] = {
    "pickle": "its chunks are pickles, which can run any code",
    **dict.fromkeys(
        ("json", "json2", "msgpack", "msgpack2", "vlen-array"),
        "its codec {!r} takes sizes and types from the chunks themselves, without a bound",
    ),
}

_MAX_FILTER_ITEM_BYTES = 16
"""Bytes of one value in a filter, or more if the array's own values have more."""

_INFLATED: Mapping[type, str] = {ZstdCodec: "zstd", BloscCodec: "blosc", GzipCodec: "gzip"}
_TEXT_CODECS = ("vlen-utf8", "vlen-bytes")


def check_codecs(metadata: Any) -> None:
    """Refuse an array for codecs that run code, or whose memory has no bound.

    Parameters
    ----------
    metadata : zarr's ArrayMetadata
        Metadata of the array.

    Raises
    ------
    ValueError
        If it has such a codec; the message names it.
    """
    own = metadata.dtype.to_native_dtype()
    largest = max(own.itemsize, _MAX_FILTER_ITEM_BYTES)
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
            if (wrapped := zarr_internals.wrapped_codec(codec)) is not None:
                yield wrapped


@dataclass(frozen=True, slots=True)
class _Declared:
    """Size of a chunk by its array's document.

    Parameters
    ----------
    count : int
        Number of values.
    dtype : dtype
        Type of the values.
    limit : int
        Upper bound on its bytes after each step of decoding.
    """

    count: int
    dtype: np.dtype[Any]
    limit: int


def bytes_limit(codecs: Iterable[Codec], spec: Any) -> int:
    """Return the upper bound on the bytes of a stored chunk.

    Parameters
    ----------
    codecs : iterable of Codec
        Codecs of the array, in the order of encoding.
    spec : zarr's ArraySpec
        Spec of the chunk, or of the shard.
    """
    count: int = prod(spec.shape)
    largest, entries = spec.dtype.to_native_dtype().itemsize, 0
    is_text = spec.dtype.to_native_dtype().kind in "OT"
    for codec in codecs:
        if isinstance(codec, ArrayArrayCodec):
            spec = codec.resolve_metadata(spec)
            largest = max(largest, spec.dtype.to_native_dtype().itemsize)
        elif isinstance(codec, zarr_internals.V2Codec):
            largest = max(largest, *map(_largest_value, codec.filters or ()), 0)
        elif isinstance(codec, ShardingCodec):
            entries = num_entries(codec, spec.shape)
    if is_text:
        return num_bytes("text-chunk-bytes") + TEXT_BYTES_PER_VALUE * count + shard_limit(0, entries)
    return shard_limit(count * largest, entries)


def num_entries(codec: Any, shape: tuple[int, ...]) -> int:
    """Count the index entries of a shard, and of all shards inside of it."""
    if not isinstance(codec, ShardingCodec):
        return 0
    count = prod(length // size for length, size in zip(shape, codec.chunk_shape, strict=True))
    return count * (1 + sum(num_entries(inner, codec.chunk_shape) for inner in codec.codecs))


def _largest_value(codec: Any) -> int:
    return max((dtype.itemsize for dtype in _dtypes_of(codec)), default=0)


def _dtypes_of(codec: Any) -> list[np.dtype[Any]]:
    """Return the types of the input and output of a filter of numcodecs."""
    names = ("astype", "encode_dtype", "dtype", "decode_dtype")
    return [np.dtype(found) for name in names if (found := getattr(codec, name, None)) is not None]


def bounded(codecs: Iterable[Codec], spec: Any) -> tuple[Codec, ...]:
    """Return zarr's codecs with bounds on the memory that they decode into.

    Parameters
    ----------
    codecs : iterable of Codec
        Codecs of an array, in the order of encoding.
    spec : zarr's ArraySpec
        Spec of its chunks, or of its shards.
    """
    codecs, found, entries = tuple(codecs), list[Codec](), 0
    for codec in codecs:
        if isinstance(codec, zarr_internals.V2Codec):
            filters: Any = tuple(_BoundedNumcodec(one, codec, spec) for one in codec.filters or ())
            compressor: Any = None if codec.compressor is None else _BoundedNumcodec(codec.compressor, codec, spec)
            found.append(zarr_internals.V2Codec(filters=filters, compressor=compressor))
        elif isinstance(codec, ShardingCodec):
            inner = bounded(codec.codecs, replace(spec, shape=codec.chunk_shape))
            entries = num_entries(codec, spec.shape)
            how: Any = {"index_codecs": codec.index_codecs, "index_location": codec.index_location}
            found.append(ShardingCodec(chunk_shape=codec.chunk_shape, codecs=inner, **how))
        else:
            if isinstance(codec, ArrayArrayCodec):
                spec = codec.resolve_metadata(spec)
            found.append(_bound_decoding(codec, entries))
    return tuple(found)


class _BoundedNumcodec:
    """A codec of numcodecs that decodes a chunk into no more memory than its array declares."""

    def __init__(self, codec: Any, whole: zarr_internals.V2Codec, spec: Any) -> None:
        self._codec, self._whole, self._spec, self.codec_id = codec, whole, spec, codec.codec_id

    def decode(self, buf: Any, out: Any = None) -> Any:
        """Decode a chunk."""
        spec = self._spec
        limit = bytes_limit([self._whole], spec)
        return _decode(self._codec, buf, _Declared(prod(spec.shape), spec.dtype.to_native_dtype(), limit))


def _decode(codec: Any, buffer: Any, declared: _Declared) -> Any:
    """Decode by a codec of numcodecs, into bounded memory."""
    name, limit = codec.codec_id, declared.limit
    if name in INFLATERS:
        return INFLATERS[name](_plain(buffer), limit)
    if name == "lzma":
        return inflate_lzma(_plain(buffer), limit, codec.format, codec.filters)
    if name in _TEXT_CODECS:
        check_count(_plain(buffer), declared.count)
    elif name == "packbits":
        check_size(8 * _plain(buffer).nbytes, limit + 16)
    elif name == "zfpy":
        check_size(zfp_bytes(_plain(buffer)[:16].tobytes()), limit)
    elif name == "pcodec":
        return codec.decode(bytes(_plain(buffer)), out=np.empty(declared.count, declared.dtype))
    elif declared.dtype.kind not in "OT" and (encoded := _encoded_size(codec)):
        check_size(_plain(buffer).nbytes, declared.count * encoded + CHUNK_SLACK_BYTES, "the filtered chunk")
    decoded = codec.decode(buffer)
    if name not in _TEXT_CODECS:
        check_size(decoded.nbytes if isinstance(decoded, np.ndarray) else memoryview(decoded).nbytes, limit)
    return decoded


def _encoded_size(codec: Any) -> int:
    """Return the bytes of one encoded value of a filter; 0 if it takes bytes."""
    return next((dtype.itemsize for dtype in _dtypes_of(codec)), 0)


def _plain(buffer: Any) -> Buffer:
    found: Buffer = ensure_contiguous_ndarray(buffer).reshape(-1, order="A").view(np.uint8)
    return found


def check_count(raw: Buffer, count: int) -> None:
    """Refuse a chunk whose number of texts is not that of its array."""
    stated = int.from_bytes(raw[:4].tobytes(), "little")
    if stated != count:
        raise ValueError(f"the chunk says that it holds {stated} texts instead of {count}")
    if 4 + 4 * count > len(raw):
        raise ValueError(f"the chunk has {len(raw)} bytes, too few for {count} texts")


def zfp_bytes(header: bytes) -> int:
    """Return the decoded bytes of a zfp array, from its header."""
    if header[:3] != b"zfp":
        raise ValueError("the chunk is not zfp")
    stated = int.from_bytes(header[4:12], "little")
    itemsize, ndim, sizes = (4, 8, 4, 8)[stated & 3], (stated >> 2 & 3) + 1, stated >> 4
    bits = 48 // ndim
    return itemsize * prod((sizes >> bits * i & (1 << bits) - 1) + 1 for i in range(ndim))


def _bound_decoding(codec: Codec, entries: int) -> Codec:
    """Return a codec of v3 that decodes as the given one does, into bounded memory."""
    own: Any = type(codec)
    kind = _bounded_class(own)
    return codec if kind is None else zarr_internals.with_class(codec, kind, entries=entries)


@lru_cache(maxsize=256)
def _bounded_class(kind: type[Any]) -> type[Any] | None:
    """Return a subclass of a codec's class with bounds; None if its output is as long as its input."""
    if issubclass(kind, BytesBytesCodec):
        return zarr_internals.subclass(kind, _decode_bytes)
    if issubclass(kind, VLenUTF8Codec | VLenBytesCodec):
        return zarr_internals.subclass(kind, _decode_texts)
    if not issubclass(kind, ArrayArrayCodec) and zarr_internals.is_wrapper(kind):
        return zarr_internals.subclass(kind, _decode_array)
    return None


def _decode_bytes(kind: type[Any], codec: Any, chunk: Any, spec: Any) -> Any:
    limit = bytes_limit((), spec) + shard_limit(0, codec.entries)
    declared = _Declared(prod(spec.shape), spec.dtype.to_native_dtype(), limit)
    name = next((name for one, name in _INFLATED.items() if issubclass(kind, one)), None)
    if name is not None:
        found = INFLATERS[name](_plain(chunk.as_numpy_array()), limit)
    elif (wrapped := zarr_internals.wrapped_codec(codec)) is not None:
        found = _decode(wrapped, chunk.as_numpy_array(), declared)
    else:
        result = zarr_internals.decode(kind, codec, chunk, spec)
        check_size(len(result), limit)
        return result
    return spec.prototype.buffer.from_array_like(np.frombuffer(found, np.uint8))


def _decode_texts(kind: type[Any], codec: Any, chunk: Any, spec: Any) -> Any:
    check_count(_plain(chunk.as_numpy_array()), prod(spec.shape))
    return zarr_internals.decode(kind, codec, chunk, spec)


def _decode_array(_: type[Any], codec: Any, chunk: Any, spec: Any) -> Any:
    declared = _Declared(prod(spec.shape), spec.dtype.to_native_dtype(), bytes_limit((), spec))
    found = _decode(zarr_internals.wrapped_codec(codec), chunk.as_numpy_array(), declared)
    return spec.prototype.nd_buffer.from_ndarray_like(found.reshape(spec.shape))
