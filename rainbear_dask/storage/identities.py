"""Identities of stored objects: two numbers by which a change of an object shows without reading it."""

import os
from collections.abc import Mapping, Sequence
from functools import cached_property
from hashlib import blake2b
from typing import Any, Literal, Protocol, TypeAlias

import numpy as np
import numpy.typing as npt
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, ObjectStore, ZipStore

from rainbear_dask.storage.errors import translate_errors
from rainbear_dask.storage.fsspec_internals import find_files
from rainbear_dask.storage.sources import is_icechunk
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.storage.stores import secrets_in, store_of
from rainbear_dask.storage.zarr_internals import sync

Stamps: TypeAlias = npt.NDArray[np.int64]
"""Identities, shape (n, 2)."""

Kind: TypeAlias = Literal["files", "objects", "archive", "snapshot"]

MISSING = (0, -1)
"""Identity of an object that does not exist."""

UNKNOWN = (0, -2)
"""Stands for an object whose identity its service does not tell; it equals no identity."""

_LISTED = frozenset({"s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl"})
"""Protocols of fsspec whose listings hold an ETag of each object."""


class Identities(Protocol):
    """The identities of the objects of one store below one prefix.

    Attributes
    ----------
    kind : {"files", "objects", "archive", "snapshot"}
        Modification time (ns) and size of files; digest of the ETag and size of objects, from one listing; time and size
        of the whole archive; digest of an Icechunk snapshot. Identities of different kinds are never equal.
    """

    kind: Kind

    def of(self, keys: Sequence[str]) -> Stamps:
        """Return the identities of some keys of the store, shape (n, 2)."""


def identities_below(spec: StoreSpec, prefix: str) -> Identities | None:
    """Return the identities of the objects of a store below a prefix; None if its objects have no identity.

    Parameters
    ----------
    spec : StoreSpec
        The store. Stores in memory, web servers and files of references have no identities.
    prefix : str
        Path in the store, without a slash at the end.

    Raises
    ------
    StoreError
        If the store cannot be reached.
    """
    with translate_errors(spec.label, lambda: secrets_in(spec)):
        store = store_of(spec)
        if isinstance(store, LocalStore):
            return _Files(str(store.root))
        if isinstance(store, ZipStore):
            state = store.path.stat()
            return _Same("archive", (state.st_mtime_ns, state.st_size))
        if is_icechunk(store):
            return _Same("snapshot", (_digest(str(getattr(store, "session").snapshot_id)), 0))  # noqa: B009  of Icechunk
        return _Listed(spec, prefix) if _can_list(store) else None


def _can_list(store: Store) -> bool:
    if isinstance(store, ObjectStore):
        return type(store.store).__name__ in {"S3Store", "GCSStore", "AzureStore"}
    protocol = store.fs.protocol if isinstance(store, FsspecStore) else ()
    return not _LISTED.isdisjoint({protocol} if isinstance(protocol, str) else protocol)


def _digest(text: str) -> int:
    return int.from_bytes(blake2b(text.encode(), digest_size=8).digest(), signed=True)


class _Files:
    kind: Kind = "files"

    def __init__(self, root: str) -> None:
        self._root = root

    def of(self, keys: Sequence[str]) -> Stamps:
        stamps = np.empty((len(keys), 2), dtype=np.int64)
        for number, key in enumerate(keys):
            try:
                state = os.stat(f"{self._root}/{key}")  # noqa: PTH116  100,000 of them
                stamps[number] = state.st_mtime_ns, state.st_size
            except (FileNotFoundError, NotADirectoryError):
                stamps[number] = MISSING
            except OSError:
                stamps[number] = UNKNOWN
        return stamps


class _Same:
    """One identity for all objects."""

    def __init__(self, kind: Kind, stamp: tuple[int, int]) -> None:
        self.kind, self._stamp = kind, stamp

    def of(self, keys: Sequence[str]) -> Stamps:
        return np.full((len(keys), 2), self._stamp, dtype=np.int64)


class _Listed:
    kind: Kind = "objects"

    def __init__(self, spec: StoreSpec, prefix: str) -> None:
        self._spec, self._prefix = spec, prefix

    def of(self, keys: Sequence[str]) -> Stamps:
        found = self._found
        return np.array([found.get(key, MISSING) for key in keys], dtype=np.int64).reshape(-1, 2)

    @cached_property
    def _found(self) -> Mapping[str, tuple[int, int]]:
        """The identities of all objects below the prefix, by key."""
        spec = self._spec
        with translate_errors(spec.label, lambda: secrets_in(spec)):
            store: Any = store_of(spec)
            listed = _by_obstore if isinstance(store, ObjectStore) else _by_fsspec
            return {key: _identity(tag, size) for key, tag, size in listed(store, f"{self._prefix}/")}


def _identity(tag: str | None, size: int) -> tuple[int, int]:
    return (_digest(tag.strip('"')), size) if tag else UNKNOWN


def _by_obstore(store: Any, prefix: str) -> list[tuple[str, str | None, int]]:
    import obstore  # noqa: PLC0415  an extra

    return [(one["path"], one["e_tag"], one["size"]) for some in obstore.list(store.store, prefix) for one in some]


def _by_fsspec(store: Any, prefix: str) -> list[tuple[str, str | None, int]]:
    root = f"{store.path.rstrip('/')}/"
    found = sync(find_files(store.fs, root + prefix))
    return [
        (path.removeprefix(root), one.get("ETag") or one.get("etag"), one.get("size") or 0)
        for path, one in found.items()
    ]
