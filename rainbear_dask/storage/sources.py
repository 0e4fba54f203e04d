"""Sources: the addresses and objects by which users name a store, their labels, and whether workers can read them."""

import os
import pickle
import re
from contextlib import suppress
from dataclasses import dataclass
from pathlib import Path
from typing import Any, NoReturn

from fsspec import FSMap
from fsspec.implementations.memory import MemoryFileSystem
from zarr import Array, Group
from zarr.abc.store import Store
from zarr.storage import FsspecStore, MemoryStore, ObjectStore

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import StoreError, StoreFormatError
from rainbear_dask.redaction import presentable, safe_cause, secrets_of
from rainbear_dask.storage.spec import StoreSpec


@dataclass(frozen=True)
class IcechunkAddress:
    """A state of an Icechunk repository in a folder.

    Parameters
    ----------
    path : str
        Absolute path of the folder.
    branch, tag, snapshot_id : str or None
        Name of the state; exactly one is given.
    """

    path: str
    branch: str | None = None
    tag: str | None = None
    snapshot_id: str | None = None

    def __str__(self) -> str:
        return f"{self.path}@{self.branch or self.tag or self.snapshot_id}"


def address_of(source: Any) -> str | Store | IcechunkAddress:
    """Return the part of a source that recipes keep: an absolute path, a URL, a store, or an Icechunk address."""
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
            f"An object of type {type(source).__name__} is not a Zarr store. Give a path, a URL, a store of zarr, "
            "obstore or fsspec, a group of zarr, an Icechunk session, or a STAC item or asset. scan_zarr() and plan() also take an array of "
            "zarr, and a Dataset that xarray opened."
        )
    address = os.fspath(source)
    if address.startswith(("file://", "local://")):
        address = address.partition("://")[2]
    if is_url(address):
        return address.rstrip("/") if not address.endswith("://") else address
    return str(Path(address).expanduser().absolute())  # a worker may run in another folder


def place_in_store(source: Group | Array[Any]) -> tuple[Store, str]:
    """Return the store and the path of a group or an array of zarr.

    Raises
    ------
    StoreFormatError
        If it is an array without a group.
    """
    if isinstance(source, Array) and not source.path:
        raise StoreFormatError(
            "This array is the root of its store, so no group holds its coordinates. Put the array into a group."
        )
    return source.store, source.path


def is_array(source: Any) -> bool:
    """Whether a source is an array of zarr."""
    return isinstance(source, Array)


def is_dataset(source: Any) -> bool:
    """Whether a source is a Dataset of xarray."""
    return type(source).__name__ == "Dataset" and _is_of("xarray", source)


def is_icechunk(source: Any) -> bool:
    """Whether an object comes from Icechunk."""
    return _is_of("icechunk", source)


def session_of_bytes(content: bytes) -> Any:
    """Return the Icechunk session in bytes of either form; icechunk 1.1.21 has a private class for its own.

    Its own form is tried first, because it cannot run code.
    """
    require("icechunk", extra="icechunk")
    from icechunk import Session  # noqa: PLC0415  an extra
    from icechunk._icechunk_python import PySession  # noqa: PLC0415

    with suppress(Exception):  # Icechunk has no class for it
        return Session(PySession.from_bytes(content))
    try:
        return pickle.loads(content)  # noqa: S301  the caller's own
    except Exception as err:  # noqa: BLE001  a pickle may raise anything
        raise StoreFormatError(
            "These bytes are not an Icechunk session. Give pickle.dumps(session), or the result of Icechunk's "
            "as_bytes()."
        ) from safe_cause(err, ())


def _is_of(package: str, source: Any) -> bool:
    """Whether an object's class comes from a package, which need not be installed."""
    return any(cls.__module__.partition(".")[0] == package for cls in type(source).__mro__)


def _committed(source: Any) -> Store:
    """Return the store of a read-only Icechunk session."""
    store = source if isinstance(source, Store) else getattr(source, "store", None)
    if not isinstance(store, Store):
        raise StoreFormatError(
            f"An Icechunk {type(source).__name__} is not one state of the data. Give repo.readonly_session('main')."
        )
    if not store.read_only:
        raise StoreError(
            "This Icechunk session is writable, so it is no fixed state that workers could share. Commit it, or "
            "read the last commit: repo.readonly_session(snapshot_id=session.snapshot_id)."
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
    """An obstore store in the memory of this process."""

    def __getstate__(self) -> NoReturn:
        raise StoreError(f"{label_of(self)} {_ONLY_HERE}")


_ONLY_HERE = (
    "lives in the memory of this process, and no other process can read it. Write it to a folder or a bucket, or scan "
    "it without a cluster."
)


def check_travels(spec: StoreSpec) -> None:
    """Refuse to send a store in the memory of this process to another process.

    Raises
    ------
    StoreError
        If the store is in memory: another process would find every chunk missing, and read fill values.
    """
    source = spec.source
    file_system = getattr(getattr(source, "fs", None), "sync_fs", None)
    if (
        isinstance(source, MemoryStore | _MemoryObjectStore)
        or isinstance(file_system, MemoryFileSystem)
        or (isinstance(source, str) and re.search("(^|::)memory:", source))
    ):
        raise StoreError(f"{spec.label} {_ONLY_HERE}")


def label_of(source: str | Store | IcechunkAddress) -> str:
    """Return the name of a source in messages."""
    if isinstance(source, ObjectStore):
        return presentable(str(source.store), secrets_of(source, {}))
    session = getattr(source, "session", None)
    if session is not None:
        return f"Icechunk snapshot {session.snapshot_id}"
    return presentable(str(source), secrets_of(source, {}) if isinstance(source, Store) else ())


def is_url(address: str) -> bool:
    """Whether an address is a URL, perhaps a chain of them (``::``)."""
    return "://" in address or "::" in address
