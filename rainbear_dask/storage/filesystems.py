"""File systems of fsspec. A file system that holds an index of its files is made anew for each opening of a store.

fsspec itself returns the same object for the same options while a process lives, with the first state of its
references, archive members or copied files.
"""

from collections.abc import Mapping
from typing import Any

import fsspec
from fsspec.core import split_protocol, url_to_fs
from fsspec.spec import AbstractFileSystem

_WITHOUT_INDEX = frozenset(
    [
        *("file", "local", "memory"),
        *("http", "https", "s3", "s3a", "gs", "gcs", "az", "abfs", "abfss", "adl", "oci", "oss"),
        *("dbfs", "ftp", "hdfs", "sftp", "smb", "ssh", "webdav", "webhdfs"),
    ]
)
"""Protocols whose file systems cache listings at most. All others are assumed to hold an index."""

_BEAR_THREADS = _WITHOUT_INDEX | {"zip", "reference", "simplecache", "dir"}
"""Protocols whose file systems can read several files at the same time."""

_CACHES = frozenset({"filecache", "blockcache", "cached"})  # fsspec can check whether their copies are up to date
_COPIES = _CACHES | {"simplecache"}


def url_has_index(url: str) -> bool:
    """Whether a file system for a URL holds an index."""
    return any(_protocol(link) not in _WITHOUT_INDEX for link in url.split("::"))


def holds_index(file_system: AbstractFileSystem) -> bool:
    """Whether a file system holds an index."""
    return _WITHOUT_INDEX.isdisjoint(_protocols(file_system))


def can_be_copied(file_system: AbstractFileSystem) -> bool:
    """Whether a file system can be made anew from its own arguments, and reads its index again then.

    References in a mapping are the index itself, and the user may have changed them: they stay.
    """
    inner = _inner(file_system)
    return not isinstance(inner.storage_options.get("fo"), Mapping) and all(map(_is_plain, _settings(inner)))


def copied(file_system: AbstractFileSystem) -> AbstractFileSystem:
    """Return a new file system of the same kind, with an index of its own."""
    inner = _inner(file_system)
    again = _copied(inner)
    return again if type(again).async_impl else _wrapped(again)


def bears_threads(file_system: AbstractFileSystem) -> bool:
    """Whether a file system is thread-safe."""
    beneath = getattr(_inner(file_system), "fs", None)
    if isinstance(beneath, AbstractFileSystem) and not bears_threads(beneath):
        return False
    return not _BEAR_THREADS.isdisjoint(_protocols(file_system))


def copied_from(file_system: AbstractFileSystem) -> AbstractFileSystem | None:
    """Return the file system whose files another one copies; None if it copies none."""
    inner = _inner(file_system)
    beneath = getattr(inner, "fs", None)
    return beneath if not _COPIES.isdisjoint(_protocols(inner)) and isinstance(beneath, AbstractFileSystem) else None


def opened_file_system(url: str, options: Mapping[str, Any]) -> tuple[AbstractFileSystem, str]:
    """Return a file system of a URL for zarr's event loop, and the path in it. It is unshared if it holds an index."""
    first, *others = map(_protocol, url.split("::"))
    given = unshared(url, options) if url_has_index(url) else options
    if fsspec.get_filesystem_class(first).async_impl and (first == "reference" or not others):
        return url_to_fs(url, **{"asynchronous": True, **given})  # type: ignore[no-any-return]
    found, path = url_to_fs(url, **given)
    return _wrapped(found), path


def _wrapped(file_system: AbstractFileSystem) -> AbstractFileSystem:
    from fsspec.implementations.asyn_wrapper import AsyncFileSystemWrapper  # noqa: PLC0415  of fsspec 2024.12

    return AsyncFileSystemWrapper(file_system, asynchronous=True)


def forget_listings(file_system: AbstractFileSystem) -> None:
    """Drop cached listings of folders, also of file systems below."""
    inner = _inner(file_system)
    inner.invalidate_cache()
    listed: Any = getattr(inner, "dircache", None)
    if listed is not None:  # some file systems drop only named entries
        listed.clear()
    beneath = getattr(inner, "fs", None)
    if isinstance(beneath, AbstractFileSystem):
        forget_listings(beneath)


def unshared(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Return options with which fsspec makes all file systems of a URL anew, and keeps none.

    Parameters
    ----------
    url : str
        A URL that may chain several file systems: ``zip://inner::s3://bucket/a.zip``.
    options : mapping
        Options of the first file system. Each other one has its options as a mapping under its protocol.

    Returns
    -------
    dict
        A copy of the options.
    """
    first, *others = [_protocol(link) for link in url.split("::")]
    found = dict(options)
    for protocol in others:
        found[protocol] = _alone(protocol, found.get(protocol) or {})
    if first in others or isinstance(found.get(first), Mapping):
        found[first] = _alone(first, found.get(first) or {})  # else fsspec would get the setting twice
        return _with_fresh_references(found)
    return _with_fresh_references(_alone(first, found))


def _alone(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    checked = {}
    if protocol in _CACHES and options.get("cache_storage", "TMP") != "TMP":
        checked = {"check_files": True}  # the folder outlives the process, and has copies of earlier ones
    return {**checked, **options, "skip_instance_cache": True}


def _with_fresh_references(options: dict[str, Any]) -> dict[str, Any]:
    """Make file systems anew that read the references themselves."""
    where = options.get("fo")
    if not isinstance(where, str):
        return options
    name = "ref_storage_args" if options.get("ref_storage_args") else "target_options"
    return options | {name: unshared(where, options.get(name) or {})}


def _protocol(link: str) -> str:
    return split_protocol(link)[0] or (link if link in fsspec.available_protocols() else "file")


def _protocols(file_system: AbstractFileSystem) -> tuple[str, ...]:
    found = type(_inner(file_system)).protocol
    return found if isinstance(found, tuple) else (found,)


def _inner(file_system: AbstractFileSystem) -> AbstractFileSystem:
    """Return the file system inside of an asynchronous wrapper."""
    found = getattr(file_system, "sync_fs", file_system)
    return found if isinstance(found, AbstractFileSystem) else file_system


def _settings(file_system: AbstractFileSystem) -> list[Any]:
    return [*file_system.storage_args, *file_system.storage_options.values()]


def _is_plain(value: Any) -> bool:
    if isinstance(value, Mapping):
        return all(map(_is_plain, value.values()))
    if isinstance(value, list | tuple):
        return all(map(_is_plain, value))
    if isinstance(value, AbstractFileSystem):
        return not holds_index(value) or all(map(_is_plain, _settings(value)))
    return isinstance(value, str | bytes | int | float | None)


def _copied(file_system: AbstractFileSystem) -> AbstractFileSystem:
    options = {
        name: _copied(value) if isinstance(value, AbstractFileSystem) and holds_index(value) else value
        for name, value in file_system.storage_options.items()
    }
    (first, *rest) = file_system.storage_args or (None,)
    arguments = [_copied(first) if isinstance(first, AbstractFileSystem) and holds_index(first) else first, *rest]
    cls = type(file_system)
    protocol = _protocols(file_system)[0]
    beneath = options.get("target_protocol")
    if isinstance(beneath, str):
        options["target_options"] = _alone(beneath, options.get("target_options") or {})
    made: AbstractFileSystem = cls(
        *(arguments if file_system.storage_args else ()), **_alone(protocol, _with_fresh_references(options))
    )
    return made
