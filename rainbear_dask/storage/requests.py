"""Bytes from stores that are not folders: many requests in flight, few in all, none waited for without end."""

import asyncio
import random
import re
from collections.abc import Iterable, Iterator, Sequence
from typing import TypeAlias
from weakref import WeakKeyDictionary

from zarr.abc.store import ByteRequest, RangeByteRequest, Store
from zarr.core.buffer import Buffer
from zarr.storage import ObjectStore, StorePath

from rainbear_dask.resources import settings as configuration
from rainbear_dask.resources.limits import DOCUMENT_BYTES, TooLargeError
from rainbear_dask.storage.local_files import SpecialFileError
from rainbear_dask.storage.responses import get_at_most

REQUEST_SECONDS = 600
"""When a request is given up that whoever makes it has not given up: the last resort, beyond the time-outs of its library."""

MAX_GAP = 2**19
"""Bytes between two inner chunks that are read along, as they take less time than a request of their own."""

MAX_RANGE = 2**24
"""Bytes of inner chunks that are read as one; more come faster side by side."""

TRIES = 5
"""Requests for one object, where the library behind the store makes but one; each wait is up to twice as long as the last."""

FIRST_WAIT = 0.4
"""Seconds before the second of them, at most."""

SHORT_TRIES = 3
"""Requests for a part of an object that comes too short: the object may be as short."""

Span: TypeAlias = tuple[int, int]


class FetchError(Exception):
    """A request that failed, as its cause says, for the object ``key``; not one whose answer could not be decoded."""

    def __init__(self, key: str) -> None:
        super().__init__(key)
        self.key = key


async def get(
    store: Store, key: str, byte_range: ByteRequest | None = None, *, limit: int = DOCUMENT_BYTES
) -> Buffer | None:
    """Ask for an object, or a part of one; None where there is none.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where it is.
    key : str
        Which it is.
    byte_range : RangeByteRequest or SuffixByteRequest, optional
        Which part.
    limit : int
        Most bytes of a whole object.

    Raises
    ------
    FetchError
        If no answer can be had, after whatever retries the store makes; the cause says why.
    TooLargeError
        If the object has more bytes.
    SpecialFileError
        If a folder, pipe, socket or device is where the object should be.
    """
    async with _slots():
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
    """Ask again, where the library does not, after what may pass.

    obstore repeats requests, and not those whose answers were cut short after they had begun; neither is repeated for
    virtual chunks of Icechunk, and by fsspec over HTTP.
    """
    for attempt in range(TRIES - 1):
        try:
            return await get_at_most(store, key, byte_range, limit)
        except (TooLargeError, SpecialFileError):
            raise
        except Exception as err:
            passing = _CUT_SHORT if isinstance(store, ObjectStore) else _PASSING
            if not any(passing.search(f"{type(one).__name__} {one}") for one in (err, err.__cause__)):
                raise
            await asyncio.sleep(random.uniform(0, FIRST_WAIT * 2**attempt))  # noqa: S311  so that not all ask at once
    return await get_at_most(store, key, byte_range, limit)


_CUT = (
    r"response body error|error decoding response body|IncompleteBody|IncompleteMessage|UnexpectedEof|IncompleteRead|"
    r"ShortResponse"
)
_CUT_SHORT = re.compile(_CUT)
_PASSING = re.compile(
    r"\b(?:429|500|502|503|504)\b|SlowDown|TooManyRequests|InternalError|Unavailable|Disconnected|ConnectionReset|"
    f"ConnectionError|PayloadError|dispatch failure|{_CUT}"
)


def _slots() -> asyncio.Semaphore:
    """Places for the requests of this process that are in flight."""
    loop, most = asyncio.get_running_loop(), configuration.requests_in_flight()
    if _made.get(loop, (0, None))[0] != most:
        _made[loop] = most, asyncio.Semaphore(most)
    return _made[loop][1]


_made: WeakKeyDictionary[asyncio.AbstractEventLoop, tuple[int, asyncio.Semaphore]] = WeakKeyDictionary()


async def get_span(where: StorePath, start: int, stop: int) -> Buffer:
    """Ask for bytes of a shard that its index names, again if fewer come: an answer may be cut short."""
    buffer: Buffer | None = None
    for attempt in range(SHORT_TRIES):
        if attempt:
            await asyncio.sleep(random.uniform(0, FIRST_WAIT * 2**attempt))  # noqa: S311
        buffer = await get(where.store, where.path, RangeByteRequest(start, stop), limit=stop - start)
        if buffer is None or len(buffer) == stop - start:
            break
    if buffer is None or len(buffer) != stop - start:
        found = "is gone" if buffer is None else f"ends {stop - start - len(buffer)} bytes too early"
        why = OSError(f"bytes {start} to {stop} of the shard are in its index, but the object {found}")
        raise FetchError(where.path) from why
    return buffer


async def check_is_there(store: Store, chunk: str, documents: Sequence[str]) -> None:
    """Tell a chunk that was never written from one that was deleted with all of its store.

    Parameters
    ----------
    store : zarr.abc.store.Store
        Where there is no such chunk.
    chunk : str
        Its key.
    documents : sequence of str
        Keys of which one is there as long as its array is; without any nothing is asked.

    Raises
    ------
    FetchError
        If none is there.
    """
    for key in documents:
        if await get(store, key) is not None:
            return
    if documents:
        raise FetchError(chunk) from FileNotFoundError("the store was deleted since it was opened")


def span_bytes(spans: Iterable[Span]) -> int:
    return sum(stop - start for start, stop in spans)


def coalesced(spans: Iterable[Span], max_gap: int = MAX_GAP) -> Iterator[Span]:
    """Put together byte ranges, sorted, that lie so close that one request for both takes less time than two."""
    run: Span | None = None
    for start, stop in spans:
        if run is not None and start - run[1] <= max_gap and max(stop, run[1]) - run[0] <= MAX_RANGE:
            run = run[0], max(stop, run[1])
        else:
            if run is not None:
                yield run
            run = start, stop
    if run is not None:
        yield run
