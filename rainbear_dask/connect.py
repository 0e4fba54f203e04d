"""Addresses and their options to stores; URLs of s3 and http by obstore, unless only fsspec can do what is asked."""

import json
import os
import threading
import zipfile
from collections import OrderedDict
from collections.abc import Mapping
from importlib.util import find_spec
from pathlib import Path
from typing import Any

import fsspec
from zarr.abc.store import Store
from zarr.core.sync import sync
from zarr.storage import FsspecStore, LocalStore, StorePath, ZipStore

from rainbear_dask.addresses import is_url
from rainbear_dask.exceptions import QueryError
from rainbear_dask.localfiles import is_regular
from rainbear_dask.obstores import OPENERS, NotForObstoreError, open_any

S3FS_CONFIG = {
    "connect_timeout": 10,
    "read_timeout": 20,
    "retries": {"mode": "standard", "total_max_attempts": 8},
    "max_pool_connections": 64,
}
"""What botocore is told where s3fs reads: seconds, and attempts, which s3fs repeats up to four times."""

_KEPT = 64


def connect(source: str | Store, options: Mapping[str, Any]) -> Store:
    """Connect to what is read from; in one process, the same URL with the same options gives the same connection again.

    Parameters
    ----------
    source : str or store
        A path, a zip file, or any URL that fsspec knows; a store is taken as it is. What begins with ``s3://``, ``http://``
        or ``https://`` is read by obstore, where it is installed and can do all that the options ask for.
    options : mapping
        For a URL, what s3fs, or another file system of fsspec, takes; ``client_options`` and ``retry_config`` of obstore;
        and ``library``, "obstore" or "fsspec", to say which of the two it has to be.

    Returns
    -------
    zarr.abc.store.Store
        To read from, ready to be asked.

    Raises
    ------
    FileNotFoundError
        If a path is not there.
    QueryError
        If the library that is asked for cannot do what the options say.
    StoreAccessError
        If there are no credentials.
    """
    if isinstance(source, Store):
        store = source
    elif is_url(source):
        store = _connection(source, options)
    elif is_regular(source) and zipfile.is_zipfile(source):
        store = ZipStore(source, mode="r")
    elif not Path(source).exists():
        raise FileNotFoundError(f"{source} does not exist")
    else:
        return LocalStore(source, read_only=True)
    return sync(StorePath.open(store, path="")).store  # some stores wait to be opened


def _connection(url: str, options: Mapping[str, Any]) -> Store:
    key = _key(url, options)
    with _lock:
        if key not in _connections:
            _connections[key] = _new(url, dict(options))
        _connections.move_to_end(key)
        while len(_connections) > _KEPT:
            _connections.popitem(last=False)
        return _connections[key]


def forget_connection(url: str, options: Mapping[str, Any]) -> None:
    """Let the next `connect` look for credentials anew."""
    with _lock:
        _connections.pop(_key(url, options), None)


_connections: OrderedDict[tuple[str, str], Store] = OrderedDict()
_lock = threading.Lock()


def _key(url: str, options: Mapping[str, Any]) -> tuple[str, str]:
    """What a connection depends on: also the environment, which may name another profile by now."""
    environment = {name: value for name, value in os.environ.items() if name.startswith("AWS_")}
    return url, json.dumps([options, environment], sort_keys=True, default=repr)


def _new(url: str, options: dict[str, Any]) -> Store:
    library = options.pop("library", None)
    if library not in (None, "obstore", "fsspec"):
        raise QueryError(f"library is {library!r} in storage_options. Give 'obstore', 'fsspec', or leave it out.")
    scheme = url.partition("://")[0]
    if library == "obstore" or (library is None and scheme in OPENERS and find_spec("obstore")):
        try:
            return OPENERS.get(scheme, open_any)(url, options)
        except NotForObstoreError as err:
            if library:
                raise QueryError(
                    f"obstore cannot do what the storage_options ask for: {err}. Change them, or leave out library='obstore'."
                ) from err
        except ImportError as err:
            raise QueryError(
                "library='obstore' needs the package obstore. Install it: pip install 'rainbear-dask[obstore]'."
            ) from err
    for name in ("client_options", "retry_config"):
        if options.get(name) is not None:
            raise QueryError(
                f"{name} in storage_options is for obstore, but fsspec reads this URL with these options. Leave it out."
            )
    translate = _FOR_FSSPEC.get(scheme, dict)
    return FsspecStore.from_url(url, storage_options=translate(options), read_only=True)


def _for_s3fs(options: dict[str, Any]) -> dict[str, Any]:
    config = S3FS_CONFIG | (options.get("config_kwargs") or {})
    client = dict(options.get("client_kwargs") or {})
    given = {name: value for name, value in options.items() if name not in ("region", "region_name")}
    if region := options.get("region") or options.get("region_name"):
        client.setdefault("region_name", region)
    return given | {"config_kwargs": config, "client_kwargs": client}


def _for_references(options: dict[str, Any]) -> dict[str, Any]:
    """Let the file system that a file of references refers to be as zarr needs it."""
    protocol = options.get("remote_protocol")
    if not protocol or not fsspec.get_filesystem_class(protocol).async_impl:
        return options
    return options | {"remote_options": {"asynchronous": True, **(options.get("remote_options") or {})}}


_FOR_FSSPEC = {"s3": _for_s3fs, "s3a": _for_s3fs, "reference": _for_references}
