"""Requests to stores: a bounded number in flight, retries of transient errors, and a time-out for each."""

import asyncio
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.storage import ObjectStore, StorePath

from rainbear_dask.logs import logger
from rainbear_dask.redaction import reason
from rainbear_dask.resources import settings
from rainbear_dask.resources.limits import MAX_DOCUMENT_BYTES, TooLargeError
from rainbear_dask.storage.local_files import SpecialFileError
from rainbear_dask.storage.responses import get_at_most
from rainbear_dask.storage.zarr_internals import Buffer

_LOG = logger("storage")

REQUEST_SECONDS = 600
"""Time-out of a request with all its retries: the last resort behind the time-outs of the library that makes it."""

MAX_GAP_BYTES = 2**19
"""Bytes between two inner chunks that one request reads along, because a second request takes longer."""

MAX_RANGE_BYTES = 2**24
"""Bytes of inner chunks in one request; more of them arrive faster in several."""

MAX_ATTEMPTS = 5
"""Requests for one object, if the library behind the store does not retry."""

FIRST_WAIT_SECONDS = 0.4
"""Upper bound on the wait before the second attempt; it doubles with each attempt."""

MAX_SHORT_ATTEMPTS = 3
"""Requests for a part of an object whose response is too short; the object itself may be too short."""

Span: TypeAlias = tuple[int, int]


class FetchError(Exception):
    """A request for the object ``key`` that failed, with its error as the cause. Decoding errors are other errors."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


async def get(
    store: Store, key: str, byte_range: ByteRequest | None = None, *, limit: int = MAX_DOCUMENT_BYTES
) -> Buffer | None:
    """Request an object, or a part of it.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store.
    key : str
        Key of the object.
    byte_range : RangeByteRequest or SuffixByteRequest, optional
        The part.
    limit : int
        Upper bound on the bytes of the response.

    Returns
    -------
    Buffer or None
        The bytes; None if there is no object.

    Raises
    ------
    FetchError
        If the request fails after all retries; the cause is its last error.
    TooLargeError
        If the object has more bytes than the limit.
    SpecialFileError
        If the object is a folder, pipe, socket or device.
    """
    async with _slots():
        _LOG.debug("request %s of %s, %s", key, type(store).__name__, byte_range or "whole")
        try:
            async with asyncio.timeout(REQUEST_SECONDS):
                return await _get_patiently(store, key, byte_range, limit)
        except (TooLargeError, SpecialFileError):
            raise
        except TimeoutError as err:
            raise FetchError(key) from (
                err if str(err) else TimeoutError(f"no answer within {REQUEST_SECONDS} seconds")
            )
        except Exception as err:
            raise FetchError(key) from err


async def _get_patiently(store: Store, key: str, byte_range: ByteRequest | None, limit: int) -> Buffer | None:
    """Retry after transient errors that the library does not retry.

    obstore retries requests, but not after a response was truncated. Icechunk does not retry virtual chunks, and fsspec
    does not retry HTTP.
    """
    for attempt in range(1, MAX_ATTEMPTS):
        try:
            return await get_at_most(store, key, byte_range, limit)
        except (TooLargeError, SpecialFileError):
            raise
        except Exception as err:
            transient = _TRUNCATED if isinstance(store, ObjectStore) else _TRANSIENT
            if not any(transient.search(f"{type(one).__name__} {one}") for one in (err, err.__cause__)):
                raise
            _LOG.info("attempt %s of %s for %s failed, and is repeated: %s", attempt, MAX_ATTEMPTS, key, reason(err))
        await _wait(attempt)
    return await get_at_most(store, key, byte_range, limit)


async def _wait(attempt: int) -> None:
    """Wait after a failed attempt, for a random time, so that concurrent requests do not retry together."""
    await asyncio.sleep(random.uniform(0, FIRST_WAIT_SECONDS * 2 ** (attempt - 1)))  # noqa: S311


_TRUNCATED_NAMES = (
    r"response body error|error decoding response body|IncompleteBody|IncompleteMessage|UnexpectedEof|IncompleteRead|"
    r"ShortResponse"
)
_TRUNCATED = re.compile(_TRUNCATED_NAMES)
_TRANSIENT = re.compile(
    r"\b(?:429|500|502|503|504)\b|SlowDown|TooManyRequests|InternalError|Unavailable|Disconnected|ConnectionReset|"
    f"ConnectionError|PayloadError|dispatch failure|{_TRUNCATED_NAMES}"
)


def _slots() -> asyncio.Semaphore:
    """Return the semaphore that bounds the requests of this process in flight."""
    loop, count = asyncio.get_running_loop(), settings.requests_in_flight()
    if _semaphores.get(loop, (0, None))[0] != count:
        _semaphores[loop] = count, asyncio.Semaphore(count)
    return _semaphores[loop][1]


_semaphores: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, asyncio.Semaphore]] = WeakKeyDictionary()


async def get_part(where: StorePath, byte_range: ByteRequest, length: int) -> Buffer | None:
    """Request a part of ``length`` bytes, and retry if the response is shorter.

    Returns
    -------
    Buffer or None
        The bytes of the last response, which may still be too short; None if there is no object.
    """
    buffer = await get(where.store, where.path, byte_range, limit=length)
    for attempt in range(1, MAX_SHORT_ATTEMPTS):
        if buffer is None or len(buffer) == length:
            break
        await _wait(attempt + 1)
        buffer = await get(where.store, where.path, byte_range, limit=length)
    return buffer


async def get_span(where: StorePath, start: int, stop: int) -> Buffer:
    """Request the bytes of a shard that its index names.

    Raises
    ------
    FetchError
        If the shard is gone, or too short for its index.
    """
    buffer = await get_part(where, RangeByteRequest(start, stop), stop - start)
    if buffer is None or len(buffer) != stop - start:
        found = "is gone" if buffer is None else f"ends {stop - start - len(buffer)} bytes too early"
        why = OSError(f"bytes {start} to {stop} of the shard are in its index, but the object {found}")
        raise FetchError(where.path) from why
    return buffer


async def check_array_exists(store: Store, chunk: str, documents: Sequence[str]) -> None:
    """Tell a missing chunk from a deleted store.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store.
    chunk : str
        Key of the missing chunk.
    documents : sequence of str
        Keys at which the array may have its document. Without any, no request is made.

    Raises
    ------
    FetchError
        If none of the documents exists.
    """
    for key in documents:
        if await get(store, key) is not None:
            return
    if documents:
        raise FetchError(chunk) from store_deleted()


def store_deleted() -> FileNotFoundError:
    """Return the error of a missing chunk whose array has no document any more."""
    return FileNotFoundError("the store was deleted after it was opened")


def span_bytes(spans: Iterable[Span]) -> int:
    """Return the sum of the lengths of byte ranges."""
    return sum(stop - start for start, stop in spans)


def coalesced(spans: Iterable[Span], max_gap: int = MAX_GAP_BYTES) -> Iterator[Span]:
    """Join sorted byte ranges that are so close that one request for both is faster than two."""
    run: Span | None = None
    for start, stop in spans:
        if run is not None and start - run[1] <= max_gap and max(stop, run[1]) - run[0] <= MAX_RANGE_BYTES:
            run = run[0], max(stop, run[1])
        else:
            if run is not None:
                yield run
            run = start, stop
    if run is not None:
        yield run
