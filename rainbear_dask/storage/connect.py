"""Connections: stores from addresses and their options, by obstore if it supports the options, else by fsspec."""

import asyncio
import json
import os
import zipfile
from collections.abc import Mapping
from contextlib import suppress
from difflib import get_close_matches
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
from zarr.abc.store import Store
from zarr.storage import FsspecStore, LocalStore, StorePath, ZipStore

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import MissingDependencyError, QueryError, StoreNotFoundError
from rainbear_dask.resources.cache import ByteLRU
from rainbear_dask.resources.openings import when_gone
from rainbear_dask.storage.filesystems import (
    bears_threads,
    can_be_copied,
    copied,
    copied_from,
    forget_listings,
    holds_index,
    opened_file_system,
    url_has_index,
)
from rainbear_dask.storage.local_files import is_regular
from rainbear_dask.storage.obstore import OPENERS, open_any
from rainbear_dask.storage.obstore_settings import NotForObstoreError
from rainbear_dask.storage.services import ENVIRONMENT, OBSTORE_ONLY, scheme_of, service_of
from rainbear_dask.storage.sources import is_url
from rainbear_dask.storage.zarr_internals import sync

S3FS_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 20,
    "retries": {"mode": "standard", "total_max_attempts": 8},
    "max_pool_connections": 64,
}
"""Time-outs in seconds and attempts of botocore under s3fs, which itself repeats each request up to four times."""

MAX_CACHED_CONNECTIONS = 64
"""Connections of each kind that a process keeps."""


def connect(source: str | Store, options: Mapping[str, Any], opening_id: str = "", *, is_new: bool = False) -> Store:
    """Connect to a store.

    Within a process, the same URL with the same options gives the same connection. A connection that holds an index
    (of an archive, of reference files, of copied files) belongs to one opening of the store instead.

    Parameters
    ----------
    source : str or store
        A path, a zip file, or any URL that fsspec knows. obstore reads the URLs of the services that
        `rainbear_dask.storage.services` knows, if it is installed and supports the options. Of a store, an index that
        may be out of date is read anew.
    options : mapping
        Options of a URL, for s3fs or another file system of fsspec, and ``client_options`` and
        ``retry_config`` of obstore. ``library`` requires one of the two, "obstore" or "fsspec".
    opening_id : str
        Name of the opening; connections of an empty name are not shared.
    is_new : bool
        Whether the opening begins with this call. Then cached listings of folders are dropped.

    Returns
    -------
    zarr.abc.store.Store
        The store, opened for reading.

    Raises
    ------
    StoreNotFoundError
        If a path does not exist.
    QueryError
        If the required library does not support the options.
    StoreAccessError
        If there are no credentials.
    """
    if has_index(source):
        make = partial(_indexed, source, options)
        found = _indexed_stores.get_all([opening_id], lambda _: [make()])[0] if opening_id else make()
    elif isinstance(source, Store):
        found = source
    elif is_url(source):
        found = _connection(source, options)
    elif not Path(source).exists():
        raise StoreNotFoundError(f"No Zarr store at {source}: the path does not exist. {_similar(Path(source))}")
    else:
        return LocalStore(source, read_only=True)
    if is_new and isinstance(found, FsspecStore):
        forget_listings(found.fs)
    return sync(StorePath.open(found, path="")).store  # some stores have to be opened first


def _similar(path: Path) -> str:
    """Return a sentence that names similar files beside a path that does not exist, or its nearest folder."""
    folder = path.parent
    while not folder.exists():
        folder = folder.parent
    if folder != path.parent:
        return f"Check the path: {folder} has no {path.relative_to(folder).parts[0]!r}."
    with suppress(OSError):
        if near := get_close_matches(path.name, [entry.name for entry in folder.iterdir()], n=1):
            return f"Did you mean {near[0]!r}? Check the path."
    return "Check the path."


def has_index(source: str | Store) -> bool:
    """Whether connections to a source hold an index of it, so that each opening needs its own."""
    if isinstance(source, ZipStore):
        return source.read_only
    if isinstance(source, FsspecStore):
        return holds_index(source.fs) and can_be_copied(source.fs)
    if isinstance(source, Store):
        return False
    return url_has_index(source) if is_url(source) else is_regular(source) and zipfile.is_zipfile(source)


def _indexed(source: str | Store, options: Mapping[str, Any]) -> Store:
    if isinstance(source, str):
        return _new(source, dict(options)) if is_url(source) else ZipStore(source, mode="r")
    if isinstance(source, ZipStore):
        return ZipStore(source.path, mode="r")
    if isinstance(source, FsspecStore):
        fs: Any = copied(source.fs)
        return _FileSystemStore(fs, read_only=True, path=source.path, allowed_exceptions=source.allowed_exceptions)
    return source


def _connection(url: str, options: Mapping[str, Any]) -> Store:
    (found,) = _connections.get_all([_key(url, options)], lambda _: [_new(url, dict(options))])
    return found


def forget_connection(url: str, options: Mapping[str, Any]) -> None:
    """Let the next `connect` read the credentials again."""
    _connections.forget(_key(url, options))
    _indexed_stores.clear()


def disconnect_all() -> None:
    """Drop all connections."""
    _connections.clear()
    _indexed_stores.clear()


_connections: ByteLRU[tuple[str, str], Store] = ByteLRU(
    lambda: MAX_CACHED_CONNECTIONS, lambda *_: 1, lambda key: key, overhead=0
)
_indexed_stores: ByteLRU[str, Store] = ByteLRU(
    lambda: MAX_CACHED_CONNECTIONS, lambda *_: 1, lambda opening_id: opening_id, overhead=0
)
when_gone(_indexed_stores.forget_soon)


def _key(url: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """Return the key of a connection: with the environment, which may select another profile by now."""
    environment = {name: value for name, value in os.environ.items() if name.startswith(ENVIRONMENT)}
    return url, json.dumps([options, environment], sort_keys=True, default=repr)


def _new(url: str, options: dict[str, Any]) -> Store:
    library = options.pop("library", None)
    if library not in (None, "obstore", "fsspec"):
        raise QueryError(
            "The option `library` in storage_options is neither 'obstore' nor 'fsspec'. Give one of them, or omit it."
        )
    scheme, service, why_fsspec = scheme_of(url), service_of(url), ""
    if library == "obstore" or (library is None and scheme in OPENERS and find_spec("obstore")):
        require("obstore", extra="obstore")
        try:
            return OPENERS.get(scheme, open_any)(url, options)
        except NotForObstoreError as err:
            if library:
                raise QueryError(
                    f"obstore does not support these storage_options: {err}. Change them, or omit `library='obstore'`."
                ) from err
            why_fsspec = str(err)
    for name in OBSTORE_ONLY if service is None else sorted(service.obstore_only):
        if options.get(name) is not None:
            raise QueryError(
                f"The option `{name}` in storage_options is for obstore, but fsspec reads this URL. Omit the option."
            )
    translate = _FOR_FSSPEC.get(scheme, dict)
    try:
        fs, path = opened_file_system(url, translate(options))
    except (ImportError, ValueError) as err:
        if service is None or not why_fsspec or (isinstance(err, ValueError) and "Protocol not known" not in str(err)):
            raise
        raise MissingDependencyError(
            f"Cannot open {url}: {why_fsspec}, so fsspec has to read it, and needs {service.package}. Install it: "
            f"pip install {service.package}. Or change the options."
        ) from err
    return _FileSystemStore(fs, read_only=True, path=path)


def _for_s3fs(options: dict[str, Any]) -> dict[str, Any]:
    config = S3FS_CONFIG | (options.get("config_kwargs") or {})
    client = dict(options.get("client_kwargs") or {})
    given = {name: value for name, value in options.items() if name not in ("region", "region_name")}
    if region := options.get("region") or options.get("region_name"):
        client.setdefault("region_name", region)
    return given | {"config_kwargs": config, "client_kwargs": client}


def _for_gcsfs(options: dict[str, Any]) -> dict[str, Any]:
    given = {name: value for name, value in options.items() if name != "anon"}
    return given | ({"token": "anon"} if options.get("anon") else {})


def _for_references(options: dict[str, Any]) -> dict[str, Any]:
    """Return options with which the file system behind the references is asynchronous, as zarr needs it."""
    protocol = options.get("remote_protocol")
    if not protocol or not fsspec.get_filesystem_class(protocol).async_impl:
        return options
    return options | {"remote_options": {"asynchronous": True, **(options.get("remote_options") or {})}}


_FOR_FSSPEC = {
    "s3": _for_s3fs,
    "s3a": _for_s3fs,
    "gs": _for_gcsfs,
    "gcs": _for_gcsfs,
    "reference": _for_references,
}


class _FileSystemStore(FsspecStore):
    """A store on a file system of fsspec, with two attributes for `responses`.

    Parameters
    ----------
    fs, arguments, options
        Arguments of zarr's own store.

    Attributes
    ----------
    turns : asyncio.Lock or None
        Lock of a file system that is not thread-safe, because it reads all files by one handle, or keeps a list of its
        copies. With several threads it mixes up the bytes of files.
    original : AbstractFileSystem or None
        The file system below one that copies files, which reports each failure as a missing file.
    """

    def __init__(self, fs: Any, *arguments: Any, **options: Any) -> None:
        super().__init__(fs, *arguments, **options)
        self.turns = None if bears_threads(fs) else asyncio.Lock()
        self.original = copied_from(fs)
