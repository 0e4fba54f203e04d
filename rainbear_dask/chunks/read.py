"""Values of regions of arrays, from whatever store."""

import asyncio
import threading
from collections.abc import Awaitable, Callable, Iterator, Sequence
from itertools import islice
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from zarr import AsyncArray
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import LocalStore, MemoryStore, ZipStore

from rainbear_dask.chunks import fetch as fetch_module
from rainbear_dask.chunks.array import ChunkedArray, chunked_array
from rainbear_dask.chunks.errors import ObjectError, place_of, raise_chunk_error
from rainbear_dask.chunks.local import FileArray, file_array, forget_files, read_files
from rainbear_dask.chunks.pipeline import fetching
from rainbear_dask.chunks.remote import fetch_regions
from rainbear_dask.exceptions import StoreNotFoundError
from rainbear_dask.indexing.chunk_grid import Region, part_of_region
from rainbear_dask.metadata.keys import V3_DOCUMENT, documents_of, join_path
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.metadata.zarr_arrays import document_bytes, open_array
from rainbear_dask.redaction import secrets_of
from rainbear_dask.resources.cache import ByteLRU, when_gone
from rainbear_dask.resources.limits import TooLargeError
from rainbear_dask.storage import requests as fetch
from rainbear_dask.storage.connect import connect, disconnect_all, forget_connection
from rainbear_dask.storage.credentials import unseal
from rainbear_dask.storage.errors import is_refusal, translate_errors
from rainbear_dask.storage.sources import is_icechunk, is_url
from rainbear_dask.storage.spec import StoreSpec

ARRAY_BYTES = 2**24
"""Arrays that a process keeps open for zarr to read, at most."""

MAX_TRIED = 10_000  # chunks read again to find a damaged one


def read_regions(spec: StoreSpec, requests: Sequence[tuple[ArrayMeta, Region]]) -> list[npt.NDArray[Any]]:
    """Read regions of arrays of one store, all at the same time.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    requests : sequence of (ArrayMeta, Region)
        What to read: an array of that store, and a half-open index range along each of its dimensions.

    Returns
    -------
    list of numpy.ndarray
        Stored values, in the order of the requests: each of its region's shape and its array's dtype, in C order.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names it.
    StoreAccessError
        If the store refuses a chunk.
    """
    if any(meta.letters for meta, _ in requests):
        values = read_regions(spec, [_in_letters(*request) for request in requests])
        return [_as_texts(found, meta) for found, (meta, _) in zip(values, requests, strict=True)]
    with translate_errors(spec.label, lambda: _hidden(spec)):
        store = _store(spec)
        readers = [_reader(store, spec.group, meta) for meta, _ in requests]
        asked = list(zip(readers, requests, strict=True))
        files = [(reader, part) for reader, (_, part) in asked if isinstance(reader, FileArray)]
        objects = [(reader, part) for reader, (_, part) in asked if isinstance(reader, ChunkedArray)]
        others = [request for reader, request in asked if reader is None]
        try:
            found: dict[type, Iterator[npt.NDArray[Any]]] = {FileArray: iter(read_files(files) if files else ())}
            if objects or others:
                found |= _fetched(spec, store, objects, others)
        except ObjectError as err:
            meta = err.array.meta
            place = place_of(meta, err.index, err.array.key(err.index))
            raise_chunk_error(spec.label, meta, place, err.cause, _hidden(spec))
        return [next(found[type(reader)]) for reader in readers]


def _in_letters(meta: ArrayMeta, region: Region) -> tuple[ArrayMeta, Region]:
    """What to read for a part of an array of texts: all letters of each."""
    return (meta, region) if meta.letters is None else (meta.letters, (*region, (0, meta.letters.shape[-1])))


def _as_texts(values: npt.NDArray[Any], meta: ArrayMeta) -> npt.NDArray[Any]:
    if meta.letters is None:
        return values
    shape = values.shape[:-1]
    return values.view(meta.dtype).reshape(shape) if values.size else np.zeros(shape, meta.dtype)


def _reader(store: Store, group: str, meta: ArrayMeta) -> FileArray | ChunkedArray | None:
    """Who reads an array: `files`, `objects`, or else zarr."""
    if isinstance(store, LocalStore):
        return file_array(store, group, meta)
    return None if _is_local(store) else chunked_array(group, meta)


def _fetched(
    spec: StoreSpec,
    store: Store,
    objects: Sequence[tuple[ChunkedArray, Region]],
    others: Sequence[tuple[ArrayMeta, Region]],
) -> dict[type, Iterator[npt.NDArray[Any]]]:
    """Fetch regions of arrays, all at the same time; again, where what came was refused or damaged."""

    async def read_others(arrays: Sequence[AsyncArray[Any]], *, renewed: bool) -> list[npt.NDArray[Any]]:
        asked = zip(arrays, others, strict=True)
        return await asyncio.gather(*(_read(array, spec, m, part, renewed=renewed) for array, (m, part) in asked))

    def fetch_all(*, renewed: bool) -> dict[type, Iterator[npt.NDArray[Any]]]:
        arrays = [_array(spec, meta) for meta, _ in others]  # not on the event loop, which a connection may wait for
        with fetch_regions(_store(spec), spec.opening_id, objects) as decoded:
            by_zarr = sync(read_others(arrays, renewed=renewed)) if others else []
            return {ChunkedArray: iter(decoded()), type(None): iter(by_zarr)}

    try:
        return fetch_all(renewed=False)
    except fetch.FetchError:  # refused
        _renew(spec, store)
    except ObjectError as err:
        if not isinstance(err.cause, fetch.FetchError):
            fetch_module.forget(spec.opening_id, err.array.path)  # what came damaged may come whole
        elif is_refusal(err.cause):
            _renew(spec, store)
        else:
            raise
    return fetch_all(renewed=True)


def is_remote(spec: StoreSpec) -> bool:
    """Whether who reads waits for a service, so that more reads than processors are worth being under way."""
    source, _ = unseal(spec)
    return is_url(source) if isinstance(source, str) else not _is_local(source)


def connected_store(spec: StoreSpec) -> Store:
    """The store that a group is in, for other libraries that read Zarr."""
    with translate_errors(spec.label, lambda: _hidden(spec)):
        return _store(spec)


_Opened = tuple[str, str, str, str]


def _opened(spec: StoreSpec) -> _Opened:
    """What tells openings apart in caches; not the recipe, because what is kept must not keep an opening alive."""
    return (spec.key(), spec.label, spec.version, spec.group)


_stores: ByteLRU[_Opened, Store] = ByteLRU(lambda: 64, lambda *_: 1, lambda key: key[0], overhead=0)
_arrays: ByteLRU[tuple[_Opened, str, str], AsyncArray[Any]] = ByteLRU(
    lambda: ARRAY_BYTES, lambda key, _: document_bytes(key[2]), lambda key: key[0][0]
)
when_gone(_stores.forget_soon)
when_gone(_arrays.forget_soon)


def _store(spec: StoreSpec) -> Store:
    (store,) = _stores.get_all([_opened(spec)], lambda _: [_connected(spec)])
    return store


def _connected(spec: StoreSpec) -> Store:
    """Connect, perhaps in another process than that which read the metadata."""
    source, options = unseal(spec)
    store = connect(source, options, spec.opening_id)
    # a repository in memory is empty elsewhere, and each chunk would be missing; asks the snapshot, not the storage
    if is_icechunk(store) and not sync(store.exists(join_path(spec.group, V3_DOCUMENT))):
        raise StoreNotFoundError(
            f"{spec.label} is not there for the process that is to read it. Give an address that all workers reach."
        )
    return store


def _hidden(spec: StoreSpec) -> list[str]:
    """What no message about a store may show."""
    return secrets_of(*unseal(spec))


def disconnect() -> None:
    """Let go of all connections; who reads connects again."""
    for kept in (_arrays, _stores):
        kept.clear()
    disconnect_all()
    forget_files()


def _array(spec: StoreSpec, meta: ArrayMeta) -> AsyncArray[Any]:
    """Open an array from its document; no request is made."""
    (array,) = _arrays.get_all([(_opened(spec), meta.path, meta.document)], lambda _: [_new_array(spec, meta)])
    return array


def _new_array(spec: StoreSpec, meta: ArrayMeta) -> AsyncArray[Any]:
    store = _store(spec)
    array = open_array(store, join_path(spec.group, meta.path), meta.document)
    return fetching(array, spec.opening_id, () if _is_local(store) else documents_of(meta, spec.group))


def _is_local(store: Store) -> bool:
    """Whether reading makes no request of a service."""
    return isinstance(store, LocalStore | ZipStore | MemoryStore)


async def _read(
    array: AsyncArray[Any], spec: StoreSpec, meta: ArrayMeta, region: Region, *, renewed: bool
) -> npt.NDArray[Any]:
    shape = tuple(stop - start for start, stop in region)
    if 0 in shape:
        return np.empty(shape, meta.dtype)
    part = tuple(slice(*span) for span in region)
    try:
        try:
            values = await array.getitem(part)
        except (fetch.FetchError, TooLargeError):
            raise
        except Exception:
            if _is_local(array.store_path.store):
                raise
            fetch_module.forget(spec.opening_id, array.path)  # what came damaged may come whole
            values = await array.getitem(part)
    except Exception as err:
        if isinstance(err, fetch.FetchError) and is_refusal(err) and not renewed:
            raise

        async def again(part: Region) -> None:
            await array.getitem(tuple(slice(*span) for span in part))

        await _find_chunk_error(again, array.metadata, spec, (meta, region), err)
    return np.asarray(values, dtype=meta.dtype, order="C")


def _renew(spec: StoreSpec, refused: Store) -> None:
    """Connect with credentials as they are now, unless another thread has done it since."""
    source, options = unseal(spec)
    with _renewing:
        if isinstance(source, str) and _store(spec) is refused:
            forget_connection(source, options)
            _stores.clear()
            _arrays.clear()
            _store(spec)


_renewing = threading.Lock()


async def _find_chunk_error(
    read: Callable[[Region], Awaitable[None]],
    metadata: Any,
    spec: StoreSpec,
    request: tuple[ArrayMeta, Region],
    err: Exception,
) -> NoReturn:
    """Find the chunk at fault: it is told, or found by reading the chunks of a region one by one."""
    meta, region = request
    stored, place = meta.grid.stored, "one of the chunks"
    for index, _, at in islice(stored.iter_chunks(region), MAX_TRIED):
        key = join_path(spec.group, meta.path, metadata.encode_chunk_key(index))
        if stored.count_in(region) == 1:
            pass
        elif not isinstance(err, fetch.FetchError):
            try:
                await read(part_of_region(region, at))
            except Exception as one:  # noqa: BLE001  as above
                err = one
            else:
                continue
        elif key != err.key:
            continue
        place = place_of(meta, index, key)
        break
    if isinstance(err, TooLargeError) and meta.dtype.kind in "OT":
        err = TooLargeError(f"{err}; the setting rainbear-dask.text-chunk-bytes may allow text for more")
    raise_chunk_error(spec.label, meta, place, err, _hidden(spec))
