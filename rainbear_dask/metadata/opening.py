"""Opening a store: the metadata of its groups in one state, read once and kept."""

import threading
import zipfile
from collections.abc import Mapping
from dataclasses import replace
from pathlib import Path
from typing import Any

from zarr import Array, Group
from zarr.abc.store import Store
from zarr.storage import LocalStore

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import StoreNotFoundError
from rainbear_dask.logs import logger
from rainbear_dask.metadata.documents import Documents
from rainbear_dask.metadata.groups import unlabelled
from rainbear_dask.metadata.keys import join_path
from rainbear_dask.metadata.model import StoreMeta
from rainbear_dask.metadata.parse import coordinates_above, store_meta
from rainbear_dask.redaction import reason, secrets_of
from rainbear_dask.resources.openings import new_opening
from rainbear_dask.resources.settings import check_settings
from rainbear_dask.storage.connect import connect, has_index
from rainbear_dask.storage.errors import is_refusal, translate_errors
from rainbear_dask.storage.local_files import is_regular
from rainbear_dask.storage.sources import IcechunkAddress, address_of, label_of, place_in_store
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.storage.stac import is_stac, source_of_stac
from rainbear_dask.storage.url_options import check_options
from rainbear_dask.storage.zarr_internals import sync

_LOG = logger("storage")


def open_store(
    source: Any,
    *,
    group: str | None = None,
    prefix: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
) -> StoreMeta:
    """Read the metadata of a Zarr group, and of all groups and arrays below it.

    Consolidated metadata is trusted, and requested once. Without it the store is listed, one level of groups at a
    time. No chunk is read.

    Parameters
    ----------
    source : str, path or store
        A local folder or zip file, a URL that fsspec knows, an obstore store, a ``zarr.abc.store.Store``, an fsspec
        mapper, an Icechunk session or store, or a STAC item or asset. An `OpenedStore` returns the metadata that it keeps.
    group : str, optional
        Path of a group inside the store.
    prefix : str, optional
        Path of the store below the source.
    storage_options : mapping, optional
        Options of fsspec for a URL.

    Returns
    -------
    StoreMeta
        Arrays in the order of the consolidated document. Without one they are level by level, each sorted by path.
        An array that cannot be understood is in ``skipped``, with the reason.

    Raises
    ------
    StoreNotFoundError
        If there is no Zarr group.
    StoreAccessError
        If the store refuses access.
    StoreFormatError
        If there is an array instead, or metadata of another kind.
    """
    if isinstance(source, OpenedStore):
        return source.meta(join_path(prefix or "", group or ""))
    return OpenedStore(source, prefix=prefix, storage_options=storage_options).meta(group or "")


class OpenedStore:
    """A store whose metadata is read once and kept until `forget`, with the caches of its openings.

    It pickles with its metadata; the copy shares no connection.

    Parameters
    ----------
    source : str, path or store
        As in `open_store`.
    prefix : str, optional
        Path of the store below the source.
    storage_options : mapping, optional
        Options of fsspec for a URL.
    max_cached, max_chunks : int, optional
        As in `StoreSpec`.

    Raises
    ------
    StoreFormatError
        If the source cannot be a store.
    QueryError
        If the source does not have the storage options.
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
        if is_stac(source):
            found = source_of_stac(source)
            source, prefix = found.address, join_path(found.group, prefix or "")
            storage_options = {**found.options, **(storage_options or {})} or None
        if isinstance(source, Group | Array):
            source, path = place_in_store(source)
            prefix = join_path(path, prefix or "")
        self._address, self._root = address_of(source), join_path(*(prefix or "").split("/"))
        is_archive = isinstance(self._address, str) and is_regular(self._address) and zipfile.is_zipfile(self._address)
        if self._root and isinstance(self._address, str) and not is_archive:
            self._address, self._root = f"{self._address.rstrip('/')}/{self._root}", ""
        check_options(self._address, storage_options)
        check_settings()
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
        return f"{type(self).__name__}({self.label})"

    @property
    def label(self) -> str:
        """How messages name the source."""
        return label_of(self._address)

    @property
    def root(self) -> str:
        """Path of the root group inside the source."""
        return self._root

    def pin(self) -> None:
        """Fix the state of the store: of a branch of Icechunk, its current snapshot."""
        with self._lock:
            self._pinned()

    def meta(self, group: str = "") -> StoreMeta:
        """Return the metadata of a group as `open_store` does; it is read by the first call, and kept."""
        path = join_path(*group.split("/"))
        with self._lock:
            if path not in self._metas:
                meta = _read_meta(self._pinned(), self.label, self._root, path, self._options)
                spec = replace(meta.spec, max_cached=self._max_cached, max_chunks=self._max_chunks)
                self._metas[path] = replace(meta, spec=spec)
            return self._metas[path]

    def forget(self) -> None:
        """Drop the metadata and the state, so that the next call opens the store anew."""
        with self._lock:
            self._source = None
            self._metas.clear()

    @property
    def openings(self) -> list[str]:
        """Names of the openings (``StoreSpec.opening_id``) whose metadata is kept."""
        return [meta.spec.opening_id for meta in list(self._metas.values())]

    def _pinned(self) -> str | Store:
        if self._source is None:
            self._source = _snapshot(self._address) if isinstance(self._address, IcechunkAddress) else self._address
        return self._source


def _snapshot(address: IcechunkAddress) -> Store:
    """Open a state of a repository for reading. It stays at its current snapshot, even if the branch moves."""
    with translate_errors(str(address), ()):
        require("icechunk", extra="icechunk")
        import icechunk  # noqa: PLC0415  an extra

        if not Path(address.path).is_dir():  # Icechunk would create it
            raise StoreNotFoundError(f"No Icechunk repository at {address.path}: it is not a folder. Check the path.")
        try:
            repository = icechunk.Repository.open(icechunk.local_filesystem_storage(address.path))
            session = repository.readonly_session(address.branch, tag=address.tag, snapshot_id=address.snapshot_id)
        except icechunk.IcechunkError as err:
            raise StoreNotFoundError(
                f"No such state of an Icechunk repository: {address}: {reason(err)}. Check its name."
            ) from err
        store: Store = session.store
        return store


def _read_meta(source: str | Store, label: str, root: str, group: str, options: dict[str, Any]) -> StoreMeta:
    path = join_path(root, group)
    alive = new_opening()  # the recipe below keeps it alive later
    opening_id = alive.name
    with translate_errors(label, lambda: secrets_of(source, options)):
        store = connect(source, options, opening_id, is_new=True)
        documents = Documents(store, label)
        nodes = sync(documents.below(path))
        spec = StoreSpec(
            label=label,
            source=source,
            version=_version(store, documents, opening_id if has_index(source) else ""),
            group=path,
            options=options,
            opening_id=opening_id,
        )
        meta = store_meta(spec, nodes)
        if group and (dims := unlabelled(meta)):
            formats = {array.zarr_format for array in meta.arrays.values()}
            # S3 refuses access to missing objects, if the caller may not list
            found = sync(documents.above(path, group.count("/") + 1, dims, formats, is_refusal))
            meta = replace(meta, above=coordinates_above(spec, found))
        _LOG.info("opened %s by %s: %s arrays", f"{label}/{path}".rstrip("/"), type(store).__name__, len(meta.arrays))
        return meta


def _version(store: Store, documents: Documents, opening_id: str) -> str:
    """Return a digest of a store's state from cheap signs; without such signs, each opening counts as a state."""
    digest = documents.digest.copy()
    digest.update(opening_id.encode())
    if isinstance(store, LocalStore):
        digest.update(str((store.root / documents.first_key).stat().st_mtime_ns).encode())
    session = getattr(store, "session", None)  # Icechunk's, whose snapshot is the state
    digest.update(str(getattr(session, "snapshot_id", "")).encode())
    return digest.hexdigest()
