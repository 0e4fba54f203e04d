"""Errors of chunks: a chunk or a shard that cannot be read, and the message that names it."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from rainbear_dask.chunks.array import ChunkedArray
from rainbear_dask.exceptions import ChunkReadError, StoreAccessError, StoreError
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.redaction import reason, safe_cause
from rainbear_dask.resources.limits import TooLargeError
from rainbear_dask.storage.errors import CHECK_CREDENTIALS, cause_of, is_refusal
from rainbear_dask.storage.requests import FetchError


class ReadError(Exception):
    """A part of an array that a reader could not read.

    Parameters
    ----------
    meta : ArrayMeta
        The array.
    path : str
        Path of the array in the store.
    cause : Exception
        The first error.
    locate : callable
        Return the name of the chunk at fault, for messages, and the error of that chunk. It may read chunks again.
    """

    def __init__(
        self, meta: ArrayMeta, path: str, cause: Exception, locate: Callable[[], tuple[str, Exception]]
    ) -> None:
        super().__init__(path)
        self.meta, self.path, self.cause, self.locate = meta, path, cause, locate


def chunk_name(meta: ArrayMeta, index: tuple[int, ...], key: str) -> str:
    """Return the name of a stored chunk or shard in messages."""
    return f"{'shard' if meta.shards else 'chunk'} {index} (key {key!r})"


@contextmanager
def locate_error(array: ChunkedArray, index: tuple[int, ...]) -> Iterator[None]:
    """Raise every error as a `ReadError` that names one chunk or shard."""
    try:
        yield
    except Exception as err:
        cause, name = err, chunk_name(array.meta, index, array.key(index))
        raise ReadError(array.meta, array.path, cause, lambda: (name, cause)) from err


def raise_chunk_error(label: str, err: ReadError, secrets: Sequence[str]) -> NoReturn:
    """Raise the error that users see if a chunk cannot be fetched or decoded.

    Parameters
    ----------
    label : str
        Name of the store.
    err : ReadError
        The error of the reader.
    secrets : sequence of str
        Texts that the message must not show.

    Raises
    ------
    StoreAccessError
        If the store refused access.
    ChunkReadError
        In all other cases.
    """
    name, first = err.locate()
    cause = cause_of(first)
    why = reason(cause, secrets)
    if isinstance(cause, TooLargeError) and err.meta.dtype.kind in "OT":
        why += "; the setting `rainbear-dask.text-chunk-bytes` can allow more for text"
    text = f"Cannot read {name} of array {err.meta.path!r} in {label}: {why}."
    if is_refusal(first):
        found: StoreError = StoreAccessError(f"{text} {CHECK_CREDENTIALS}")
    elif isinstance(first, FetchError):
        found = ChunkReadError(
            f"{text} Try again when the service answers, or set longer time-outs in `storage_options`."
        )
    else:
        found = ChunkReadError(
            f"{text} The chunk may be damaged or incomplete. Write it again, or exclude the array with `variables=`."
        )
    raise found from safe_cause(cause, secrets)
