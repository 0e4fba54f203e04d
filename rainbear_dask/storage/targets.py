"""Folders for output, local or on an object store: files appear in them as a whole."""

import io
import os
import secrets
from collections.abc import Callable, Mapping
from contextlib import suppress
from dataclasses import dataclass, replace
from pathlib import Path
from typing import IO, Any

from zarr.abc.store import Store
from zarr.storage import LocalStore

from rainbear_dask.exceptions import QueryError, RainbearError, StoreError, WriteError
from rainbear_dask.redaction import reason, safe_cause
from rainbear_dask.resources.openings import new_opening
from rainbear_dask.storage.credentials import seal
from rainbear_dask.storage.errors import cause_of, translate_errors
from rainbear_dask.storage.local_files import read_part
from rainbear_dask.storage.requests import FetchError, get
from rainbear_dask.storage.sources import address_of, is_url, label_of
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.storage.stores import secrets_in, store_of
from rainbear_dask.storage.zarr_internals import default_buffer_prototype, sync

_READ_ONLY_SCHEMES = ("http", "https", "reference", "zip", "tar", "github")
_UNFINISHED = ".part"


@dataclass(frozen=True)
class Target:
    """A folder to write to, as plain data that pickles and shows no secret.

    Parameters
    ----------
    parent : StoreSpec
        The folder or prefix that holds the folder.
    name : str
        Name of the folder in its parent.
    """

    parent: StoreSpec
    name: str

    @property
    def label(self) -> str:
        """Address for messages."""
        return f"{self.parent.label.rstrip('/')}/{self.name}"

    @property
    def path(self) -> Path | None:
        """The local path; None on an object store."""
        source = self.parent.source
        if isinstance(source, LocalStore):
            return Path(source.root, self.name)
        return Path(source, self.name) if isinstance(source, str) and not is_url(source) else None

    def sealed(self) -> "Target":
        """Return the target for a graph, without secrets."""
        return replace(self, parent=seal(self.parent))

    def beside(self, suffix: str) -> "Target":
        """Return a target of the same parent whose name has a suffix."""
        return replace(self, name=self.name + suffix)

    def write(self, name: str, fill: Callable[[IO[bytes]], None]) -> int:
        """Write a file; nobody sees it before it is whole.

        Parameters
        ----------
        name : str
            Path below the target; "" is the target itself, as a file. An earlier file is replaced.
        fill : callable
            Writes the content into a binary file.

        Returns
        -------
        int
            Bytes of the file.

        Raises
        ------
        WriteError
            If the file cannot be written; no part of it is left.
        """
        try:
            return self._write_local(self.path / name, fill) if self.path else self._put(name, fill)
        except StoreError:
            raise
        except Exception as err:  # noqa: BLE001  Polars, disks and services have no common error
            raise self._failure(name, err) from safe_cause(err, self._secrets())

    def _failure(self, name: str, err: Exception) -> RainbearError:
        place = f"{self.label}/{name}".rstrip("/")
        return WriteError(
            f"Cannot write {place}: {reason(cause_of(err), self._secrets())}. Make room, or check the rights to write, "
            "and repeat the call."
        )

    def _write_local(self, path: Path, fill: Callable[[IO[bytes]], None]) -> int:
        path.parent.mkdir(parents=True, exist_ok=True)
        part = path.with_name(f".{path.name[:80]}.{secrets.token_hex(6)}{_UNFINISHED}")
        try:
            with part.open("xb") as file:
                fill(file)
                file.flush()
                os.fsync(file.fileno())
                size = file.tell()
            part.replace(path)
        finally:
            part.unlink(missing_ok=True)
        return size

    def _put(self, name: str, fill: Callable[[IO[bytes]], None]) -> int:
        file = io.BytesIO()
        fill(file)
        content = default_buffer_prototype().buffer.from_bytes(file.getvalue())
        sync(self._store().set(self._key(name), content))
        return len(content)

    def read(self, name: str) -> bytes | None:
        """Return the content of a file; None if there is no such file."""
        if self.path:
            path = self.path / name
            return path.read_bytes() if path.is_file() else None
        with translate_errors(self.label, self._secrets):
            found = sync(self._store().get(self._key(name), default_buffer_prototype()))
        return None if found is None else found.to_bytes()

    def read_at_most(self, name: str, limit: int) -> bytes | None:
        """Return the content of an untrusted file; None if there is no such file.

        Raises
        ------
        TooLargeError
            If the file has more bytes than the limit.
        OSError
            If the file cannot be read, or is no regular file.
        StoreError
            If the store cannot be read.
        """
        if self.path:
            return read_part(self.path / name, limit)
        with translate_errors(self.label, self._secrets):
            try:
                found = sync(get(self._store(), self._key(name), limit=limit))
            except FetchError as err:
                raise cause_of(err) from err
        return None if found is None else found.to_bytes()

    def exists(self, name: str) -> bool:
        """Whether there is a file of this name."""
        if self.path:
            return (self.path / name).is_file()
        with translate_errors(self.label, self._secrets):
            return bool(sync(self._store().exists(self._key(name))))

    def files(self) -> Mapping[str, int | None]:
        """Return the paths of all files below the target, with their bytes if the target is local."""
        if self.path:
            found = dict[str, int | None]()
            for path in (Path(folder, name) for folder, _, names in os.walk(self.path) for name in names):
                with suppress(FileNotFoundError):  # a task of an earlier call may just rename or remove its file
                    found[path.relative_to(self.path).as_posix()] = path.lstat().st_size
            return found
        with translate_errors(self.label, self._secrets):
            keys = sync(_listed(self._store(), f"{self.name}/"))
        return {key.removeprefix(f"{self.name}/"): None for key in keys}

    def is_empty(self) -> bool:
        """Whether there is nothing at the address, or a folder without content."""
        if self.path:
            return not self.path.exists() or (self.path.is_dir() and not any(self.path.iterdir()))
        with translate_errors(self.label, self._secrets):
            return not sync(_has_any(self._store(), f"{self.name}/"))

    def delete(self, name: str) -> None:
        """Delete a file, if it is there."""
        if self.path:
            (self.path / name).unlink(missing_ok=True)
            return
        with translate_errors(self.label, self._secrets):
            sync(self._store().delete(self._key(name)))

    def zarr_store(self) -> Store:
        """Return a writable store of zarr for the parent; the target is a path in it."""
        if self.path:
            self.path.parent.mkdir(parents=True, exist_ok=True)
        with translate_errors(self.label, self._secrets):
            return self._store()

    def _store(self) -> Store:
        return store_of(self.parent).with_read_only(read_only=False)

    def _key(self, name: str) -> str:
        return f"{self.name}/{name}".rstrip("/")

    def _secrets(self) -> list[str]:
        return secrets_in(self.parent)


def is_unfinished(name: str) -> bool:
    """Whether a path is the temporary name of a file that is being written, or whose writer died."""
    last = name.rpartition("/")[2]
    return last.startswith(".") and last.endswith(_UNFINISHED)


async def _has_any(store: Store, prefix: str) -> bool:
    async for _ in store.list_prefix(prefix):
        return True
    return False


async def _listed(store: Store, prefix: str) -> list[str]:
    return [key async for key in store.list_prefix(prefix)]


def target_of(address: Any, storage_options: Mapping[str, Any] | None = None) -> Target:
    """Return the target of an address.

    Parameters
    ----------
    address : str or path
        A local folder, or a URL of an object store.
    storage_options : mapping, optional
        Options of a URL, as for reading.

    Raises
    ------
    QueryError
        If the address is not a folder that can be written to.
    """
    if not isinstance(address, str | os.PathLike):
        raise QueryError(f"A {type(address).__name__} is not a folder. Give a path, or a URL of an object store.")
    place = str(address_of(address))
    scheme = place.partition("://")[0]
    parent, slash, name = place.rstrip("/").rpartition("/")
    if is_url(place) and ("::" in place or scheme in _READ_ONLY_SCHEMES):
        raise QueryError(f"Nothing can be written to {scheme}:// addresses. Give a local folder or an object store.")
    if not slash or not name or parent.endswith(":/"):
        raise QueryError(f"The address {place} is not a folder of its own. Add the name of a folder to it.")
    opened = new_opening()  # the recipe below keeps it alive
    source = parent or "/"
    return Target(
        StoreSpec(label_of(source), source, "", options=dict(storage_options or {}), opening_id=opened.name), name
    )
