"""File systems of fsspec, each made for one opening of a store if it holds an index of what it reads.

fsspec gives the same object for the same options as long as a process lives, with the references, the members of an archive
or the copies of files that it had at first.
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
"""Protocols whose file systems remember nothing but the names in folders. All others are taken to hold an index."""

_BEAR_THREADS = _WITHOUT_INDEX | {"zip", "reference", "simplecache", "dir"}
"""Protocols whose file systems may be asked for several files at the same time."""

_CACHES = frozenset({"filecache", "blockcache", "cached"})  # of which fsspec can say whether a copy is still right
_COPIES = _CACHES | {"simplecache"}


def url_has_index(url: str) -> bool:
    """Whether what reads a URL holds an index."""
    return any(_protocol(link) not in _WITHOUT_INDEX for link in url.split("::"))


def holds_index(file_system: AbstractFileSystem) -> bool:
    """Whether a file system holds an index."""
    return _WITHOUT_INDEX.isdisjoint(_protocols(file_system))


def can_be_copied(file_system: AbstractFileSystem) -> bool:
    """Whether a file system says all that it was made of, and finds its index there again.

    References that were given as a mapping are the index, which the user may have changed since: they stay.
    """
    inner = _inner(file_system)
    return not isinstance(inner.storage_options.get("fo"), Mapping) and all(map(_is_plain, _settings(inner)))


def copied(file_system: AbstractFileSystem) -> AbstractFileSystem:
    """The same file system, made anew."""
    inner = _inner(file_system)
    again = _copied(inner)
    return again if type(again).async_impl else _wrapped(again)


def bears_threads(file_system: AbstractFileSystem) -> bool:
    """Whether a file system gives the right bytes when several threads ask for files."""
    beneath = getattr(_inner(file_system), "fs", None)
    if isinstance(beneath, AbstractFileSystem) and not bears_threads(beneath):
        return False
    return not _BEAR_THREADS.isdisjoint(_protocols(file_system))


def copied_from(file_system: AbstractFileSystem) -> AbstractFileSystem | None:
    """The file system of which one keeps copies; None for one that keeps none."""
    inner = _inner(file_system)
    beneath = getattr(inner, "fs", None)
    return beneath if not _COPIES.isdisjoint(_protocols(inner)) and isinstance(beneath, AbstractFileSystem) else None


def opened_file_system(url: str, options: Mapping[str, Any]) -> tuple[AbstractFileSystem, str]:
    """Make the file system of a URL, for zarr's event loop to ask, and the path in it: one of its own if it holds an index."""
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
    """Have the names in folders listed anew, also in file systems beneath."""
    inner = _inner(file_system)
    inner.invalidate_cache()
    listed: Any = getattr(inner, "dircache", None)
    if listed is not None:  # some file systems only drop what is named
        listed.clear()
    beneath = getattr(inner, "fs", None)
    if isinstance(beneath, AbstractFileSystem):
        forget_listings(beneath)


def unshared(url: str, options: Mapping[str, Any]) -> dict[str, Any]:
    """Options with which fsspec makes all file systems of a URL anew; those of none are its own then to keep.

    Parameters
    ----------
    url : str
        It may name several file systems, one inside the other: ``zip://inner::s3://bucket/a.zip``.
    options : mapping
        Those of the first, and for each other one a mapping by its protocol.

    Returns
    -------
    dict
        A copy.
    """
    first, *others = [_protocol(link) for link in url.split("::")]
    found = dict(options)
    for protocol in others:
        found[protocol] = _alone(protocol, found.get(protocol) or {})
    if first in others or isinstance(found.get(first), Mapping):
        found[first] = _alone(first, found.get(first) or {})  # else fsspec would be told it twice
        return _with_fresh_references(found)
    return _with_fresh_references(_alone(first, found))


def _alone(protocol: str, options: Mapping[str, Any]) -> dict[str, Any]:
    checked = {}
    if protocol in _CACHES and options.get("cache_storage", "TMP") != "TMP":
        checked = {"check_files": True}  # a folder that outlives the process holds what other times have read
    return {**checked, **options, "skip_instance_cache": True}


def _with_fresh_references(options: dict[str, Any]) -> dict[str, Any]:
    """References may themselves be read through other file systems."""
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
    """What is read from; not what makes it look asynchronous."""
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
