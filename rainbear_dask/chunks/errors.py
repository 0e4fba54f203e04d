"""A chunk that cannot be read: which one it is, and the error that users see."""

from collections.abc import Iterator, Sequence
from contextlib import contextmanager
from typing import NoReturn

from rainbear_dask.chunks.array import ChunkedArray
from rainbear_dask.exceptions import ChunkReadError, StoreAccessError, StoreError
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.redaction import reason, safe_cause
from rainbear_dask.storage.errors import CHECK_CREDENTIALS, cause_of, is_refusal
from rainbear_dask.storage.requests import FetchError


def place_of(meta: ArrayMeta, index: tuple[int, ...], key: str) -> str:
    """How messages name a stored object."""
    return f"{'shard' if meta.shards else 'chunk'} {index} (key {key!r})"


def raise_chunk_error(label: str, meta: ArrayMeta, place: str, err: Exception, secrets: Sequence[str]) -> NoReturn:
    """Raise what is known of a chunk that could not be fetched or decoded.

    Parameters
    ----------
    label : str
        Names the store.
    meta : ArrayMeta
        The array.
    place : str
        Which of its chunks, as `place_of` says it.
    err : Exception
        What was raised.
    secrets : sequence of str
        What is not to be shown.

    Raises
    ------
    StoreAccessError
        If the store refused.
    ChunkReadError
        Else.
    """
    why = reason(cause_of(err), secrets)
    text = f"{place} of array {meta.path!r} in {label} cannot be read: {why}."
    if is_refusal(err):
        found: StoreError = StoreAccessError(f"{text} {CHECK_CREDENTIALS}")
    elif isinstance(err, FetchError):
        found = ChunkReadError(f"{text} Try again when the service answers, or give it more time with storage_options.")
    else:
        found = ChunkReadError(
            f"{text} It may be damaged or only half written: write it again, or leave the array out with variables=."
        )
    raise found from safe_cause(cause_of(err), secrets)


class ObjectError(Exception):
    """A chunk, or a shard, that cannot be read.

    Parameters
    ----------
    array : ChunkedArray
        What it belongs to.
    index : tuple of int
        Its place in the grid.
    cause : Exception
        What went wrong.
    """

    def __init__(self, array: ChunkedArray, index: tuple[int, ...], cause: Exception) -> None:
        super().__init__(index)
        self.array, self.index, self.cause = array, index, cause


@contextmanager
def locate_error(array: ChunkedArray, index: tuple[int, ...]) -> Iterator[None]:
    """Say of whatever goes wrong which chunk, or shard, it went wrong with."""
    try:
        yield
    except Exception as err:
        raise ObjectError(array, index, err) from err
