"""Values of regions of arrays, from every kind of store.

`read_regions` opens each array with the first `ChunkReader` that can read it. `local` reads folders, `remote` reads
object stores, and `pipeline` reads every array by zarr's codec pipeline. Retries and the translation of errors stand
here, once for all readers. `stream_regions` reads groups of regions one after the other, into reused buffers.
"""

from collections.abc import Callable, Iterator, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from zarr.abc.store import Store
from zarr.storage import LocalStore

from rainbear_dask.chunks.errors import ReadError, raise_chunk_error
from rainbear_dask.chunks.fetch import forget_indexes
from rainbear_dask.chunks.local import LocalReader, forget_files
from rainbear_dask.chunks.pipeline import PipelineReader, forget_arrays
from rainbear_dask.chunks.remote import RemoteReader
from rainbear_dask.indexing.chunk_grid import Region
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.storage.errors import is_refusal, translate_errors
from rainbear_dask.storage.requests import FetchError
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.storage.stores import forget_stores, is_local, renew_store, secrets_in, store_of

Values = list[npt.NDArray[Any]]
Opened = TypeVar("Opened")


class ChunkReader(Protocol[Opened]):
    """One way to read arrays of a store."""

    def open(self, meta: ArrayMeta) -> Opened | None:
        """Return an array as this reader needs it; None if this reader cannot read it. No request is made."""

    def begin(self, requests: Sequence[tuple[Opened, Region]]) -> AbstractContextManager[Callable[[], Values]]:
        """Begin to read regions, all at the same time; the end of the context cancels all open requests.

        The callable waits for the values: one array in C order for each request. It raises `ReadError` if a chunk
        cannot be fetched or decoded.
        """


def read_regions(spec: StoreSpec, requests: Sequence[tuple[ArrayMeta, Region]]) -> Values:
    """Read regions of arrays of one store, all at the same time.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    requests : sequence of (ArrayMeta, Region)
        An array of the store, and a half-open index range along each of its dimensions.

    Returns
    -------
    list of numpy.ndarray
        Stored values in the order of the requests, in C order. Each has the shape of its region and the dtype of its
        array.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names it.
    StoreAccessError
        If the store refuses access to a chunk.
    """
    if any(meta.letters for meta, _ in requests):
        values = read_regions(spec, [_letters_of(*request) for request in requests])
        return [_join_letters(found, meta) for found, (meta, _) in zip(values, requests, strict=True)]
    with translate_errors(spec.label, lambda: secrets_in(spec)):
        try:
            return _read_patiently(spec, requests)
        except ReadError as err:
            raise_chunk_error(spec.label, err, secrets_in(spec))


def can_stream(spec: StoreSpec, meta: ArrayMeta) -> bool:
    """Whether `stream_regions` can read an array. No request is made."""
    reader = _streaming_reader(spec, store_of(spec))
    return meta.letters is None and reader is not None and reader.open(meta) is not None


def stream_regions(spec: StoreSpec, groups: Sequence[Sequence[tuple[ArrayMeta, Region]]]) -> Iterator[Values]:
    """Read groups of regions one after the other; requests to a service are in flight for all groups together.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    groups : sequence of sequence of (ArrayMeta, Region)
        Requests as for `read_regions`, of arrays for which `can_stream` holds.

    Yields
    ------
    list of numpy.ndarray
        Stored values of one group, in the order of its requests. The next step overwrites them.

    Raises
    ------
    ChunkReadError, StoreAccessError
        As `read_regions` does.
    """
    with translate_errors(spec.label, lambda: secrets_in(spec)):
        try:
            yield from _stream_patiently(spec, groups)
        except ReadError as err:
            raise_chunk_error(spec.label, err, secrets_in(spec))


def _letters_of(meta: ArrayMeta, region: Region) -> tuple[ArrayMeta, Region]:
    """Return the request for all letters of a region of texts."""
    return (meta, region) if meta.letters is None else (meta.letters, (*region, (0, meta.letters.shape[-1])))


def _join_letters(values: npt.NDArray[Any], meta: ArrayMeta) -> npt.NDArray[Any]:
    if meta.letters is None:
        return values
    shape = values.shape[:-1]
    return values.view(meta.dtype).reshape(shape) if values.size else np.zeros(shape, meta.dtype)


def _read_patiently(spec: StoreSpec, requests: Sequence[tuple[ArrayMeta, Region]]) -> Values:
    """Read regions. If an error has a remedy, apply it and read again; each remedy is tried once."""
    tried = set[_Remedy]()
    while True:
        store = store_of(spec)
        try:
            return _read_once(_readers(spec, store), requests)
        except ReadError as err:
            remedy, path = _remedy(store, err), err.path
            if remedy is None or remedy in tried:
                raise
        tried.add(remedy)  # after the error and its frames are gone: they hold buffers
        remedy(spec, store, path)


def _stream_patiently(spec: StoreSpec, groups: Sequence[Sequence[tuple[ArrayMeta, Region]]]) -> Iterator[Values]:
    """Read groups. If an error has a remedy, apply it and go on with the group that failed."""
    tried, done = set[_Remedy](), 0
    while done < len(groups):
        store = store_of(spec)
        reader: Any = _streaming_reader(spec, store)
        try:
            opened = [[(reader.open(meta), region) for meta, region in group] for group in groups[done:]]
            with reader.stream(opened) as values:
                for found in values:
                    done += 1
                    yield found
        except ReadError as err:
            remedy, path = _remedy(store, err), err.path
            if remedy is None or remedy in tried:
                raise
            tried.add(remedy)
            remedy(spec, store, path)


def _read_once(readers: Sequence[ChunkReader[Any]], requests: Sequence[tuple[ArrayMeta, Region]]) -> Values:
    groups: list[dict[int, tuple[Any, Region]]] = [{} for _ in readers]  # by the number of the request
    for number, (meta, region) in enumerate(requests):
        for reader, group in zip(readers, groups, strict=True):
            if (array := reader.open(meta)) is not None:
                group[number] = array, region
                break
    found: dict[int, npt.NDArray[Any]] = {}
    with ExitStack() as stack:
        begun = [
            (group, stack.enter_context(reader.begin(list(group.values()))))
            for reader, group in zip(readers, groups, strict=True)
            if group
        ]
        for group, finish in begun:
            found.update(zip(group, finish(), strict=True))
    return [found[number] for number in range(len(requests))]


def _readers(spec: StoreSpec, store: Store) -> tuple[ChunkReader[Any], ...]:
    """Return the readers for a store, fastest first. The last one reads every array."""
    pipeline = PipelineReader(spec, store, checks_documents=not is_local(store))
    first = _streaming_reader(spec, store)
    return (pipeline,) if first is None else (first, pipeline)


def _streaming_reader(spec: StoreSpec, store: Store) -> LocalReader | RemoteReader | None:
    """Return the reader of plain numbers for a store; None if only zarr reads it."""
    if isinstance(store, LocalStore):
        return LocalReader(str(store.root), spec.group)
    return None if is_local(store) else RemoteReader(store, spec.group, spec.opening_id)


_Remedy = Callable[[StoreSpec, Store, str], None]


def _remedy(store: Store, err: ReadError) -> _Remedy | None:
    """Return a step after which a second attempt may succeed; None if there is none."""
    if isinstance(err.cause, FetchError):
        return _renew if is_refusal(err.cause) else None
    return None if is_local(store) else _refetch


def _refetch(spec: StoreSpec, _: Store, path: str) -> None:
    """Drop the cached shard indexes of an array, because one of them may have been damaged in transfer."""
    forget_indexes(spec.opening_id, path)


def _renew(spec: StoreSpec, refused: Store, _: str) -> None:
    renew_store(spec, refused, forget_arrays)


def disconnect() -> None:
    """Drop all connections, opened arrays and idle buffers; the next read connects again."""
    forget_arrays()
    forget_stores()
    forget_files()
