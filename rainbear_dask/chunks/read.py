"""Values of regions of arrays, from every kind of store.

`read_regions` opens each array with the first `ChunkReader` that can read it. `local` reads folders, `remote` reads
object stores, and `pipeline` reads every array by zarr's codec pipeline. Retries and the translation of errors stand
here, once for all readers.
"""

import threading
from collections.abc import Callable, Sequence
from contextlib import AbstractContextManager, ExitStack
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt
from zarr.abc.store import Store
from zarr.storage import LocalStore, MemoryStore, ZipStore

from rainbear_dask.chunks.errors import ReadError, raise_chunk_error
from rainbear_dask.chunks.fetch import forget_indexes
from rainbear_dask.chunks.local import LocalReader, forget_files
from rainbear_dask.chunks.pipeline import PipelineReader, forget_arrays
from rainbear_dask.chunks.remote import RemoteReader
from rainbear_dask.exceptions import StoreNotFoundError
from rainbear_dask.indexing.chunk_grid import Region
from rainbear_dask.metadata.keys import V3_DOCUMENT, join_path
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.redaction import secrets_of
from rainbear_dask.resources.cache import ByteLRU
from rainbear_dask.resources.openings import when_gone
from rainbear_dask.storage.connect import connect, disconnect_all, forget_connection
from rainbear_dask.storage.credentials import unseal
from rainbear_dask.storage.errors import is_refusal, translate_errors
from rainbear_dask.storage.requests import FetchError
from rainbear_dask.storage.sources import is_icechunk, is_url
from rainbear_dask.storage.spec import CacheKey, StoreSpec
from rainbear_dask.storage.zarr_internals import sync

Values = list[npt.NDArray[Any]]
Opened = TypeVar("Opened")

MAX_CACHED_STORES = 64
"""Connected stores that a process keeps."""


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
    with translate_errors(spec.label, lambda: _secrets(spec)):
        try:
            return _read_patiently(spec, requests)
        except ReadError as err:
            raise_chunk_error(spec.label, err, _secrets(spec))


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
        store = _store(spec)
        try:
            return _read_once(_readers(spec, store), requests)
        except ReadError as err:
            remedy, path = _remedy(store, err), err.path
            if remedy is None or remedy in tried:
                raise
        tried.add(remedy)  # after the error and its frames are gone: they hold buffers
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
    pipeline = PipelineReader(spec, store, checks_documents=not _is_local(store))
    if isinstance(store, LocalStore):
        return LocalReader(str(store.root), spec.group), pipeline
    return (pipeline,) if _is_local(store) else (RemoteReader(store, spec.group, spec.opening_id), pipeline)


_Remedy = Callable[[StoreSpec, Store, str], None]


def _remedy(store: Store, err: ReadError) -> _Remedy | None:
    """Return a step after which a second attempt may succeed; None if there is none."""
    if isinstance(err.cause, FetchError):
        return _renew if is_refusal(err.cause) else None
    return None if _is_local(store) else _refetch


def _refetch(spec: StoreSpec, _: Store, path: str) -> None:
    """Drop the cached shard indexes of an array, because one of them may have been damaged in transfer."""
    forget_indexes(spec.opening_id, path)


def _renew(spec: StoreSpec, refused: Store, _: str) -> None:
    """Connect with the current credentials, unless another thread has done so."""
    source, options = unseal(spec)
    with _renewing:
        if isinstance(source, str) and _store(spec) is refused:
            forget_connection(source, options)
            _stores.clear()
            forget_arrays()
            _store(spec)


_renewing = threading.Lock()


def is_remote(spec: StoreSpec) -> bool:
    """Whether reads are latency-bound, so that running more of them than there are CPUs pays off."""
    source, _ = unseal(spec)
    return is_url(source) if isinstance(source, str) else not _is_local(source)


def connected_store(spec: StoreSpec) -> Store:
    """Return the store that holds a group, for other libraries that read Zarr."""
    with translate_errors(spec.label, lambda: _secrets(spec)):
        return _store(spec)


_stores: ByteLRU[CacheKey, Store] = ByteLRU(lambda: MAX_CACHED_STORES, lambda *_: 1, lambda key: key[0], overhead=0)
when_gone(_stores.forget_soon)


def _store(spec: StoreSpec) -> Store:
    (store,) = _stores.get_all([spec.cache_key()], lambda _: [_connected(spec)])
    return store


def _connected(spec: StoreSpec) -> Store:
    """Connect, perhaps in another process than the one that read the metadata."""
    source, options = unseal(spec)
    store = connect(source, options, spec.opening_id)
    # A repository in memory is empty in another process, and each of its chunks would count as missing. The snapshot
    # answers; its storage is not asked.
    if is_icechunk(store) and not sync(store.exists(join_path(spec.group, V3_DOCUMENT))):
        raise StoreNotFoundError(
            f"The process that reads {spec.label} finds nothing there. Give an address that all workers reach."
        )
    return store


def _secrets(spec: StoreSpec) -> list[str]:
    """Return the texts that no message about a store may show."""
    return secrets_of(*unseal(spec))


def disconnect() -> None:
    """Drop all connections; the next read connects again."""
    forget_arrays()
    _stores.clear()
    disconnect_all()
    forget_files()


def _is_local(store: Store) -> bool:
    """Whether reading from a store makes no request to a service."""
    return isinstance(store, LocalStore | ZipStore | MemoryStore)
