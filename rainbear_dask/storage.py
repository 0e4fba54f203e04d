"""Zarr stores: addresses, opening, and the values of regions."""

import asyncio
import os
import re
import threading
import uuid
import zipfile
from collections.abc import Awaitable, Callable, Iterator, Mapping, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from functools import lru_cache
from itertools import islice, product
from pathlib import Path
from typing import Any, NoReturn

import numpy as np
import numpy.typing as npt
from fsspec import FSMap
from fsspec.implementations.memory import MemoryFileSystem
from zarr import AsyncArray
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, MemoryStore, ObjectStore, StorePath, ZipStore

from rainbear_dask import fetch
from rainbear_dask.chunks import ChunkedArray, ObjectError, chunked_array
from rainbear_dask.connect import connect, forget_connection
from rainbear_dask.credentials import unseal
from rainbear_dask.documents import V3_DOCUMENT, Documents, documents_of, join_path, open_array, store_meta
from rainbear_dask.exceptions import (
    ChunkReadError,
    RainbearError,
    StoreAccessError,
    StoreError,
    StoreFormatError,
    StoreNotFoundError,
)
from rainbear_dask.files import FileArray, file_array, forget_files, read_files
from rainbear_dask.metadata import ArrayMeta, Region, StoreMeta, StoreSpec
from rainbear_dask.objects import fetched
from rainbear_dask.obstores import plain
from rainbear_dask.redaction import reason, secrets_of, shown, without_secrets

MAX_TRIED = 10_000  # chunks read again to find a damaged one
CHECK_CREDENTIALS = (
    "Check the credentials: in storage_options, in the store or session that is given, or in the environment."
)
REFUSAL = re.compile(
    "Credential|Unauth|PermissionDenied|Forbidden|Authenti|TokenRetrieval|RefreshError|ProfileNotFound"
)
ABSENCE = re.compile(r"\b(NoSuchBucket|404 Not Found)\b")
REFUSAL_CODES = re.compile(
    r"\b(ExpiredToken|TokenRefreshRequired|InvalidAccessKeyId|InvalidToken|SignatureDoesNotMatch|AccessDenied)\b"
)
ICECHUNK_REFUSAL = re.compile(  # in its text alone
    "Forbidden|Unauthori[sz]ed|PermissionDenied|Unauthenticated|AuthenticationFailed|authorize the virtual"
)


def open_store(
    source: Any,
    *,
    group: str | None = None,
    prefix: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> StoreMeta:
    """Read the metadata of a Zarr group and of all below it.

    Consolidated metadata is trusted, and asked for once. Without it the store is listed, one level of groups at a
    time. No chunk is read.

    Parameters
    ----------
    source : str, path or store
        A local folder or zip file, a URL that fsspec knows, an obstore store, a ``zarr.abc.store.Store``, an fsspec
        mapper, or an Icechunk session or store. An `OpenedStore` gives what it keeps.
    group : str, optional
        Path of a group inside the store.
    prefix : str, optional
        Where the store begins below the source.
    storage_options : mapping, optional
        What fsspec is to be told, with a URL.

    Returns
    -------
    StoreMeta
        Arrays in the order of the consolidated document; where there is none level by level, each sorted by path.
        An array that cannot be understood is in ``left_out``, with the reason.

    Raises
    ------
    StoreNotFoundError
        If no Zarr group is there.
    StoreAccessError
        If the store refuses.
    StoreFormatError
        If an array is there, or metadata that is not Zarr's.
    """
    if isinstance(source, OpenedStore):
        return source.meta(join_path(prefix or "", group or ""))
    return OpenedStore(source, prefix=prefix, storage_options=storage_options).meta(group or "")


class OpenedStore:
    """A store whose metadata is read once and kept, with the caches that belong to it, until it is forgotten.

    It pickles with what it keeps; the copy shares no connection.

    Parameters
    ----------
    source : str, path or store
        As in `open_store`.
    prefix : str, optional
        Where the store begins below the source.
    storage_options : mapping, optional
        What fsspec is to be told, with a URL.
    max_cached, max_chunks : int, optional
        As in `StoreSpec`.

    Raises
    ------
    StoreFormatError
        If the source is nothing that can be read from.
    """

    def __init__(
        self,
        source: Any,
        *,
        prefix: str | None = None,
        storage_options: Mapping[str, Any] | None = None,
        max_cached: int | None = None,
        max_chunks: int | None = None,
    ) -> None:
        self._address, self._root = _address(source), join_path(*(prefix or "").split("/"))
        if self._root and isinstance(self._address, str) and not zipfile.is_zipfile(self._address):
            self._address, self._root = f"{self._address.rstrip('/')}/{self._root}", ""
        self._options = dict(storage_options or {})
        self._max_cached, self._max_chunks = max_cached, max_chunks
        self._source: str | Store | None = None
        self._metas: dict[str, StoreMeta] = {}
        self._lock = threading.Lock()

    def __getstate__(self) -> dict[str, Any]:
        return {name: value for name, value in vars(self).items() if name != "_lock"}

    def __setstate__(self, state: Mapping[str, Any]) -> None:
        vars(self).update(state, _lock=threading.Lock())

    def __repr__(self) -> str:
        return f"{type(self).__name__}({_label(self._address)})"

    def pin(self) -> None:
        """Settle which state of the store is read: of a branch of Icechunk, the snapshot that it is at now."""
        with self._lock:
            self._pinned()

    def meta(self, group: str = "") -> StoreMeta:
        """Metadata of a group, as `open_store` gives it: read when it is asked for first, then kept."""
        path = join_path(*group.split("/"))
        with self._lock:
            if path not in self._metas:
                meta = _read_meta(self._pinned(), _label(self._address), join_path(self._root, path), self._options)
                spec = replace(meta.spec, max_cached=self._max_cached, max_chunks=self._max_chunks)
                self._metas[path] = replace(meta, spec=spec)
            return self._metas[path]

    def forget(self) -> None:
        """Forget metadata, and which state was read: the store is then opened anew."""
        with self._lock:
            self._source = None
            self._metas.clear()

    @property
    def openings(self) -> list[str]:
        """Names of the openings (``StoreSpec.opened``) whose metadata is kept."""
        return [meta.spec.opened for meta in list(self._metas.values())]

    def _pinned(self) -> str | Store:
        if self._source is None:
            self._source = self._address.store() if isinstance(self._address, IcechunkAddress) else self._address
        return self._source


@dataclass(frozen=True)
class IcechunkAddress:
    """A state of an Icechunk repository in a folder.

    Parameters
    ----------
    path : str
        The folder, absolute.
    branch, tag, snapshot_id : str or None
        Which state; exactly one is given.
    """

    path: str
    branch: str | None = None
    tag: str | None = None
    snapshot_id: str | None = None

    def __str__(self) -> str:
        return f"{self.path}@{self.branch or self.tag or self.snapshot_id}"

    def store(self) -> Store:
        """Open it to read; whatever happens to the branch then, it stays at the snapshot where it is now."""
        with _translated(str(self), ()):
            import icechunk  # noqa: PLC0415  an extra

            if not Path(self.path).is_dir():  # Icechunk would make it
                raise StoreNotFoundError(f"no Icechunk repository at {self.path}: it is not a folder. Check the path.")
            try:
                repository = icechunk.Repository.open(icechunk.local_filesystem_storage(self.path))
                session = repository.readonly_session(self.branch, tag=self.tag, snapshot_id=self.snapshot_id)
            except icechunk.IcechunkError as err:
                raise StoreNotFoundError(
                    f"no such state of an Icechunk repository: {self}: {reason(err)}. Check its name."
                ) from err
            store: Store = session.store
            return store


def _read_meta(source: str | Store, label: str, path: str, options: dict[str, Any]) -> StoreMeta:
    with _translated(label, secrets_of(source, options)):
        store = _connect(source, options)
        documents = Documents(store, label)
        nodes = sync(documents.below(path))
        spec = StoreSpec(
            label=label,
            source=source,
            version=_version(store, documents),
            group=path,
            options=options,
            opened=uuid.uuid4().hex,
        )
        return store_meta(spec, nodes)


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
    with _translated(spec.label, _hidden(spec)):
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
            _raise_chunk_error(spec, meta, _place(meta, err.index, err.array.key(err.index)), err.cause)
        return [next(found[type(reader)]) for reader in readers]


def _reader(store: Store, group: str, meta: ArrayMeta) -> FileArray | ChunkedArray | None:
    """Who reads an array: `files`, `objects`, or else zarr."""
    if isinstance(store, LocalStore):
        return file_array(store, group, meta)
    return None if _is_here(store) else chunked_array(group, meta)


def _fetched(
    spec: StoreSpec,
    store: Store,
    objects: Sequence[tuple[ChunkedArray, Region]],
    others: Sequence[tuple[ArrayMeta, Region]],
) -> dict[type, Iterator[npt.NDArray[Any]]]:
    """Fetch regions of arrays, all at the same time; again, where what came was refused or damaged."""

    async def read_others(*, renewed: bool) -> list[npt.NDArray[Any]]:
        return await asyncio.gather(*(_read(_array(spec, m), spec, m, part, renewed=renewed) for m, part in others))

    def fetch_all(*, renewed: bool) -> dict[type, Iterator[npt.NDArray[Any]]]:
        with fetched(_store(spec), spec.opened, objects) as decoded:
            by_zarr = sync(read_others(renewed=renewed)) if others else []
            return {ChunkedArray: iter(decoded()), type(None): iter(by_zarr)}

    try:
        return fetch_all(renewed=False)
    except fetch.FetchError:  # refused
        _renew(spec, store)
    except ObjectError as err:
        if not isinstance(err.cause, fetch.FetchError):
            fetch.forget(spec.opened, err.array.path)  # what came damaged may come whole
        elif _is_refusal(err.cause):
            _renew(spec, store)
        else:
            raise
    return fetch_all(renewed=True)


def is_far(spec: StoreSpec) -> bool:
    """Whether who reads waits for a service, so that more reads than processors are worth being under way."""
    source, _ = unseal(spec)
    return _is_url(source) if isinstance(source, str) else not _is_here(source)


# Addresses


def _address(source: Any) -> str | Store | IcechunkAddress:
    """What to keep of a source: an absolute path, a URL, a store, or how to open one."""
    if isinstance(source, IcechunkAddress):
        return source
    if is_icechunk(source):
        return _committed(source)
    if isinstance(source, Store):
        return source
    if _is_of("obstore", source):
        return _of_obstore(source)
    if isinstance(source, FSMap):
        return FsspecStore.from_mapper(source, read_only=True)
    if not isinstance(source, str | os.PathLike):
        raise StoreFormatError(
            f"a {type(source).__name__} is not a Zarr store. Give a path, a URL, a store of zarr, obstore or fsspec, or "
            "an Icechunk session."
        )
    address = os.fspath(source)
    if address.startswith(("file://", "local://")):
        address = address.partition("://")[2]
    if _is_url(address):
        return address.rstrip("/") if not address.endswith("://") else address
    return str(Path(address).expanduser().absolute())  # a worker may run in another folder


def is_icechunk(source: Any) -> bool:
    """Whether something is of Icechunk."""
    return _is_of("icechunk", source)


def _is_of(package: str, source: Any) -> bool:
    """Whether an object is of a package, which need not be installed for that to be known."""
    return any(cls.__module__.partition(".")[0] == package for cls in type(source).__mro__)


def _committed(source: Any) -> Store:
    """Store of an Icechunk session that can only be read."""
    store = source if isinstance(source, Store) else getattr(source, "store", None)
    if not isinstance(store, Store):
        raise StoreFormatError(
            f"an Icechunk {type(source).__name__} is not one state of the data. Give repo.readonly_session('main')."
        )
    if not store.read_only:
        raise StoreError(
            "this Icechunk session can be written to, so it is no fixed state that workers could share. Commit it, or "
            "read what is committed: repo.readonly_session(snapshot_id=session.snapshot_id)."
        )
    return store


def _of_obstore(source: Any) -> str | Store:
    import obstore.store  # noqa: PLC0415  an extra

    if isinstance(source, obstore.store.LocalStore):
        return str(source.prefix or "/")  # zarr reads it faster as a folder
    if isinstance(source, obstore.store.MemoryStore):
        return _MemoryObjectStore(source, read_only=True)
    return ObjectStore(source, read_only=True)


class _MemoryObjectStore(ObjectStore[Any]):
    """An obstore store that only this process has."""

    def __getstate__(self) -> NoReturn:
        raise StoreError(f"{_label(self)} {_ONLY_HERE}")


_ONLY_HERE = (
    "lives in the memory of this process, where no other process can read it. Write it to a folder or a bucket, or scan "
    "it without a cluster."
)


def check_travels(spec: StoreSpec) -> None:
    """Refuse to send a store that lives in the memory of this process to another.

    Raises
    ------
    StoreError
        If it does; the other process would find nothing there, and nothing is what a missing chunk is.
    """
    source = spec.source
    file_system = getattr(getattr(source, "fs", None), "sync_fs", None)
    if (
        isinstance(source, MemoryStore | _MemoryObjectStore)
        or isinstance(file_system, MemoryFileSystem)
        or (isinstance(source, str) and re.search("(^|::)memory:", source))
    ):
        raise StoreError(f"{spec.label} {_ONLY_HERE}")


def _label(source: str | Store | IcechunkAddress) -> str:
    """How messages name a source."""
    if isinstance(source, ObjectStore):
        return without_secrets(str(source.store))
    session = getattr(source, "session", None)
    return f"Icechunk snapshot {session.snapshot_id}" if session is not None else without_secrets(str(source))


def _is_url(address: str) -> bool:
    return "://" in address or "::" in address


def _connect(source: str | Store, options: Mapping[str, Any]) -> Store:
    if isinstance(source, Store):
        store = source
    elif _is_url(source):
        store = connect(source, options)
    elif zipfile.is_zipfile(source):
        store = ZipStore(source, mode="r")
    elif not Path(source).exists():
        raise FileNotFoundError(f"{source} does not exist")
    else:
        return LocalStore(source, read_only=True)
    return sync(StorePath.open(store, path="")).store  # some stores wait to be opened


def _version(store: Store, documents: Documents) -> str:
    """Tell one state of a store from another as far as that is cheap."""
    digest = documents.digest.copy()
    if isinstance(store, LocalStore):
        digest.update(str((store.root / documents.first_key).stat().st_mtime_ns).encode())
    session = getattr(store, "session", None)  # of Icechunk, where a snapshot is a state
    digest.update(str(getattr(session, "snapshot_id", "")).encode())
    return digest.hexdigest()


# Values


def connected_store(spec: StoreSpec) -> Store:
    """The store that a group is in, for other libraries that read Zarr."""
    with _translated(spec.label, _hidden(spec)):
        return _store(spec)


@lru_cache(maxsize=64)
def _store(spec: StoreSpec) -> Store:
    """Connect, perhaps in another process than that which read the metadata."""
    store = _connect(*unseal(spec))
    # a repository in memory is empty elsewhere, and each chunk would be missing; asks the snapshot, not the storage
    if is_icechunk(store) and not sync(store.exists(join_path(spec.group, V3_DOCUMENT))):
        raise StoreNotFoundError(
            f"{spec.label} is not there for the process that is to read it. Give an address that all workers reach."
        )
    return store


@lru_cache(maxsize=64)
def _hidden(spec: StoreSpec) -> list[str]:
    """What no message about a store may show."""
    return secrets_of(*unseal(spec))


def disconnect() -> None:
    """Let go of all connections; who reads connects again."""
    for kept in (_array, _store, _hidden):
        kept.cache_clear()
    forget_files()


@lru_cache(maxsize=4096)
def _array(spec: StoreSpec, meta: ArrayMeta) -> AsyncArray[Any]:
    """Open an array from its document; no request is made."""
    store = _store(spec)
    array = open_array(store, join_path(spec.group, meta.path), meta.document)
    return array if _is_here(store) else fetch.fetching(array, spec.opened, documents_of(meta, spec.group))


def _is_here(store: Store) -> bool:
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
        except fetch.FetchError:
            raise
        except Exception:
            if _is_here(array.store_path.store):
                raise
            fetch.forget(spec.opened, array.path)  # what came damaged may come whole
            values = await array.getitem(part)
    except Exception as err:
        if isinstance(err, fetch.FetchError) and _is_refusal(err) and not renewed:
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
            _store.cache_clear()
            _array.cache_clear()
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
    stored = meta.shards or meta.chunks
    place = "one of the chunks"
    indices = product(*(range(a // size, -(-b // size)) for (a, b), size in zip(region, stored, strict=True)))
    for index in islice(indices, MAX_TRIED):
        key = join_path(spec.group, meta.path, metadata.encode_chunk_key(index))
        if not isinstance(err, fetch.FetchError):
            spans = zip(region, index, stored, strict=True)
            try:
                await read(tuple((max(a, i * size), min(b, (i + 1) * size)) for (a, b), i, size in spans))
            except Exception as one:  # noqa: BLE001  as above
                err = one
            else:
                continue
        elif key != err.key:
            continue
        place = _place(meta, index, key)
        break
    _raise_chunk_error(spec, meta, place, err)


def _place(meta: ArrayMeta, index: tuple[int, ...], key: str) -> str:
    """How messages name a stored object."""
    return f"{'shard' if meta.shards else 'chunk'} {index} (key {key!r})"


def _raise_chunk_error(spec: StoreSpec, meta: ArrayMeta, place: str, err: Exception) -> NoReturn:
    why = reason(_cause(err), _hidden(spec))
    text = f"{place} of array {meta.path!r} in {spec.label} cannot be read: {why}."
    if _is_refusal(err):
        found: StoreError = StoreAccessError(f"{text} {CHECK_CREDENTIALS}")
    elif isinstance(err, fetch.FetchError):
        found = ChunkReadError(f"{text} Try again when the service answers, or give it more time with storage_options.")
    else:
        found = ChunkReadError(
            f"{text} It may be damaged or only half written: write it again, or leave the array out with variables=."
        )
    raise found from shown(_cause(err), _hidden(spec))


def _cause(err: Exception) -> Exception:
    """What went wrong, where a request failed, in few words."""
    return plain(err.__cause__ if isinstance(err, fetch.FetchError) and isinstance(err.__cause__, Exception) else err)


# Errors


@contextmanager
def _translated(label: str, secrets: Sequence[str]) -> Iterator[None]:
    """Turn whatever a store or its file system raises into an error of ours, without secrets."""
    try:
        yield
    except RainbearError:
        raise
    except Exception as error:  # noqa: BLE001  codecs and file systems have no common base
        err = _cause(error)
        what, why = f"the Zarr store at {label}", reason(err, secrets)
        if _is_refusal(err):
            ours: StoreError = StoreAccessError(f"{what} refuses access: {why}. {CHECK_CREDENTIALS}")
        elif isinstance(err, FileNotFoundError) or ABSENCE.search(str(err)):
            ours = StoreNotFoundError(f"no Zarr store at {label}: {why}. Check the path.")
        elif isinstance(err, ImportError):
            ours = StoreNotFoundError(f"{what} needs a package that is not installed: {why}.")
        elif "Protocol not known" in str(err):
            ours = StoreNotFoundError(
                f"{what} has a protocol that fsspec does not know: {why}. Mend the address, or install its package."
            )
        else:
            ours = StoreError(f"{what} cannot be read: {why}. Check the address, and that the service answers.")
        raise ours from shown(err, secrets)


def _is_refusal(err: BaseException | None) -> bool:
    """Tell an error about credentials, by the names that botocore, google-auth, azure and obstore give theirs."""
    while err is not None:
        if isinstance(err, PermissionError) or getattr(err, "status", None) in (401, 403):
            return True
        text = str(err)
        if REFUSAL.search(type(err).__name__) or REFUSAL_CODES.search(text):
            return True
        if is_icechunk(err) and ICECHUNK_REFUSAL.search(text):
            return True
        err = err.__cause__
    return False
