"""Responses of every kind of store, read into bounded memory: objects may be too large, and responses endless."""

import asyncio
import re
from collections.abc import AsyncIterable
from contextlib import nullcontext, suppress
from typing import Any

from fsspec.core import split_protocol
from fsspec.implementations.reference import ReferenceFileSystem, ReferenceNotReachable
from zarr.abc.store import ByteRequest, RangeByteRequest, Store, SuffixByteRequest
from zarr.storage import FsspecStore, LocalStore, ObjectStore, ZipStore

from rainbear_dask.resources.limits import TooLargeError, check_size
from rainbear_dask.storage.archives import read_member
from rainbear_dask.storage.fsspec_internals import cat_file, raise_for_status, resolve_reference
from rainbear_dask.storage.local_files import read_part
from rainbear_dask.storage.zarr_internals import Buffer, default_buffer_prototype

_PIECE_BYTES = 2**20


class ShortResponseError(Exception):
    """A response holds fewer bytes than its request."""


async def get_at_most(store: Store, key: str, byte_range: ByteRequest | None, limit: int) -> Buffer | None:
    """Request an object, or a part of it.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store.
    key : str
        Key of the object.
    byte_range : RangeByteRequest or SuffixByteRequest or None
        The part.
    limit : int
        Upper bound on the bytes of the response.

    Returns
    -------
    Buffer or None
        The bytes; None if there is no object.

    Raises
    ------
    TooLargeError
        If there are more bytes. From local files, archives and services, no more than the limit are read.
    ShortResponseError
        If a web server sends fewer bytes than its header says, or than the request names.
    """
    found = await _get(store, key, byte_range, limit)
    if found is None:
        return None
    buffer = found if isinstance(found, Buffer) else default_buffer_prototype().buffer.from_bytes(found)
    check_size(len(buffer), limit)
    return buffer


async def _get(store: Store, key: str, byte_range: ByteRequest | None, limit: int) -> Any:
    if isinstance(store, LocalStore):
        return await asyncio.to_thread(read_part, store.root / key, limit, *_edges(byte_range))
    if isinstance(store, ZipStore):
        return await asyncio.to_thread(read_member, store, key, byte_range, limit)
    if isinstance(store, ObjectStore):
        return await _of_obstore(store, key, byte_range, limit)
    if isinstance(store, FsspecStore):
        return await _of_fsspec(store, key, byte_range, limit)
    return await store.get(key, default_buffer_prototype(), byte_range)


def _edges(byte_range: ByteRequest | None) -> tuple[int | None, int | None]:
    match byte_range:
        case RangeByteRequest(start, end):
            return start, end
        case SuffixByteRequest(length):
            return -length, None
    return None, None


def _length(byte_range: ByteRequest | None) -> int | None:
    start, end = _edges(byte_range)
    return None if start is None else -start if end is None else end - start


# obstore


async def _of_obstore(store: ObjectStore[Any], key: str, byte_range: ByteRequest | None, limit: int) -> Any:
    from obstore.exceptions import GenericError, NotSupportedError  # noqa: PLC0415  an extra

    on_web = hasattr(store, "knows_ranges")
    try:
        if byte_range is None or getattr(store, "knows_ranges", True):
            try:
                return await _ask(store.store, key, byte_range, limit)
            except NotSupportedError:
                if byte_range is None:
                    raise
                if not on_web:  # Azure does not support suffix requests
                    return await _ask(store.store, key, await _from_start(store.store, key, byte_range), limit)
                store.knows_ranges = False  # type: ignore[attr-defined]
            except GenericError as err:
                if not on_web or not _OTHER_RANGE.search(str(err)):
                    raise
        return await _cut_from_whole(store.store, key, byte_range, limit)
    except FileNotFoundError:
        return None
    except (IsADirectoryError, NotADirectoryError):
        return None


_OTHER_RANGE = re.compile(r"Requested \d+\.\.\d+, got|Content-Range header not present")


async def _ask(store: Any, key: str, byte_range: ByteRequest | None, limit: int) -> Any:
    import obstore  # noqa: PLC0415  an extra

    start, end = _edges(byte_range)
    options: Any = None if start is None else {"range": {"suffix": -start} if end is None else (start, end)}
    response = await obstore.get_async(store, key, options=options)
    first, last = response.range
    check_size(last - first, limit)
    found = await response.bytes_async()
    if len(found) != last - first:
        raise ShortResponseError(f"the response has {len(found)} bytes, but its header says {last - first}")
    return found


async def _from_start(store: Any, key: str, byte_range: ByteRequest) -> ByteRequest:
    import obstore  # noqa: PLC0415  an extra

    size = (await obstore.head_async(store, key))["size"]
    return RangeByteRequest(max(size - (_length(byte_range) or 0), 0), size)


async def _cut_from_whole(store: Any, key: str, byte_range: ByteRequest | None, limit: int) -> bytes:
    import obstore  # noqa: PLC0415  an extra

    response = await obstore.get_async(store, key)
    return await _taken(response.stream(_PIECE_BYTES), byte_range, limit)


# fsspec


async def _of_fsspec(store: FsspecStore, key: str, byte_range: ByteRequest | None, limit: int) -> Any:
    path = f"{store.path.rstrip('/')}/{key}" if store.path else key
    async with getattr(store, "turns", None) or nullcontext():
        found = await _unless_missing(store, path, byte_range, limit)
    original = getattr(store, "original", None)
    if found is None and original is not None:
        with suppress(*store.allowed_exceptions):
            edges = (0, limit + 1) if byte_range is None else _edges(byte_range)
            found = await asyncio.to_thread(original.cat_file, path, *edges)
            if byte_range is None and len(found) > limit:
                raise _too_large(limit)
    return found


async def _unless_missing(store: FsspecStore, path: str, byte_range: ByteRequest | None, limit: int) -> Any:
    try:
        if isinstance(store.fs, ReferenceFileSystem):
            return await _of_references(store.fs, path, byte_range, limit)
        return await _of_files(store.fs, path, byte_range, limit)
    except store.allowed_exceptions:
        return None
    except OSError as err:
        if "not satisfiable" in str(err):  # S3, for an empty object
            return b""
        raise


async def _of_files(files: Any, path: str, byte_range: ByteRequest | None, limit: int) -> Any:
    if any(cls.__name__ == "HTTPFileSystem" for cls in type(files).__mro__):
        return await _of_web(files, path, byte_range, limit)
    start, end = (0, limit + 1) if byte_range is None else _edges(byte_range)
    found, length = await cat_file(files, path, start, end), _length(byte_range)
    if byte_range is None and len(found) > limit:
        raise _too_large(limit)
    # a service that ignores ranges sends the whole object
    return found if length is None or len(found) <= length else found[-length:] if end is None else found[start:end]


async def _of_references(files: ReferenceFileSystem, path: str, byte_range: ByteRequest | None, limit: int) -> Any:
    """Read the target of a reference: bytes in the reference itself, a file, or a part of one."""
    target, first, last = resolve_reference(files, path)
    start, end = _edges(byte_range)
    if isinstance(target, bytes):
        return target[start:end]
    if first is not None and last is not None:  # fsspec may read beyond the part that the reference names
        begin = max(last + start, first) if start is not None and start < 0 else first + (start or 0)
        last = last if end is None else min(first + end, last)
        check_size(last - begin, limit)
        byte_range = RangeByteRequest(begin, last)
    try:
        return await _of_files(files.fss[split_protocol(target)[0]], target, byte_range, limit)
    except TooLargeError:
        raise
    except Exception as err:  # a missing target is no missing chunk
        raise ReferenceNotReachable(path, target) from err


async def _of_web(files: Any, url: str, byte_range: ByteRequest | None, limit: int) -> bytes:
    """Request a file of a web server as fsspec does, but read at most the limit, and check the response's header."""
    options = dict(files.kwargs)
    start, end = _edges(byte_range)
    if start is not None:
        wanted = f"bytes={start}" if end is None else f"bytes={start}-{end - 1}"
        options["headers"] = {**options.get("headers", {}), "Range": wanted}
    session = await files.set_session()
    async with session.get(files.encode_url(url), **options) as response:
        raise_for_status(files, response, url)
        said = _CONTENT_RANGE.match(response.headers.get("Content-Range", ""))
        if response.status != 206 or said is None:
            return await _taken(response.content.iter_chunked(_PIECE_BYTES), byte_range, limit)
        first, last = int(said[1]), int(said[2]) + 1
        found = await _taken(response.content.iter_chunked(_PIECE_BYTES), None, max(limit, last - first))
        if len(found) != last - first:
            raise ShortResponseError(f"the response has {len(found)} bytes, but its header says {last - first}")
        if start is not None and start < 0:
            return found[start:]
        part = found[(start or 0) - first :] if (start or 0) >= first else b""
        return part if end is None else part[: end - (start or 0)]


_CONTENT_RANGE = re.compile(r"bytes (\d+)-(\d+)/")


async def _taken(pieces: AsyncIterable[Any], byte_range: ByteRequest | None, limit: int) -> bytes:
    """Take an object, or a part of it, from the pieces of the whole object."""
    start, end = _edges(byte_range)
    found, at = bytearray(), 0
    async for piece in pieces:
        begin, at = at, at + len(piece)
        if start is not None and start < 0:
            found += piece
            del found[:start]
            continue
        found += memoryview(piece)[max((start or 0) - begin, 0) : None if end is None else max(end - begin, 0)]
        if len(found) > limit:
            raise _too_large(limit)
        if end is not None and at >= end:
            break
    return bytes(found)


def _too_large(limit: int) -> TooLargeError:
    """Return the error of an object that was read up to the limit."""
    return TooLargeError(f"the object has more than the {limit} bytes that the array's document allows")
