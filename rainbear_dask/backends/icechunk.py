"""The backend of Icechunk repositories: one snapshot, named by branch, tag, snapshot or session."""

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import polars as pl

from rainbear_dask.backends.base import AsyncBackend
from rainbear_dask.backends.cached_store import BackendOptions
from rainbear_dask.exceptions import QueryError, StoreFormatError
from rainbear_dask.execution.run_async import call_in_thread
from rainbear_dask.options import checks_options
from rainbear_dask.storage.sources import IcechunkAddress, is_icechunk, session_of_bytes


class IcechunkBackend(AsyncBackend):
    """One snapshot of an Icechunk repository, with cached metadata and coordinates.

    ``from_filesystem`` and ``from_session`` create one. They pin the snapshot for all scans and all workers, even if a
    branch moves. ``clear_all_caches`` moves to the newest snapshot of the branch.

    Parameters
    ----------
    source : icechunk.Session or IcechunkAddress
        The session, or the address of a repository and a snapshot.
    prefix : str, optional
        Path of a group inside the repository.
    options : BackendOptions, optional
        Cache limits.

    Examples
    --------
    >>> import asyncio
    >>> import icechunk
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> repo = icechunk.Repository.create(icechunk.in_memory_storage())
    >>> snapshot = rd.write_icechunk(rd.scan_zarr("sst.zarr"), repo, message="sea surface temperature")
    >>> async def south():
    ...     backend = await rd.IcechunkBackend.from_session(repo.readonly_session(snapshot_id=snapshot))
    ...     return await backend.scan_zarr_async(pl.col("latitude") < -60)
    >>> asyncio.run(south()).height
    1440
    """

    @classmethod
    async def from_filesystem(
        cls,
        path: str | PathLike[str],
        branch: str | None = None,
        root: str | None = None,
        options: BackendOptions | None = None,
        *,
        tag: str | None = None,
        snapshot_id: str | None = None,
    ) -> Self:
        """Open a repository in a folder.

        Parameters
        ----------
        path : str or path
            The folder.
        branch : str, optional
            Name of a branch; by default ``"main"``, unless a tag or a snapshot is given.
        root : str, optional
            Path of a group inside; by default the root.
        options : BackendOptions, optional
            Cache limits.
        tag, snapshot_id : str, optional
            A tag or a snapshot, instead of a branch.

        Returns
        -------
        IcechunkBackend
            It reads the current snapshot of the branch.

        Raises
        ------
        StoreNotFoundError
            If the folder has no repository, or the repository has no such branch, tag or snapshot.
        QueryError
            If more than one of branch, tag and snapshot is given.
        """
        if sum(name is not None for name in (branch, tag, snapshot_id)) > 1:
            raise QueryError(
                "from_filesystem() reads one snapshot, and more than one is named. Pass one of `branch`, `tag` and "
                "`snapshot_id`."
            )
        branch = branch if tag or snapshot_id else branch or "main"
        where = str(Path(path).expanduser().absolute())
        backend = cls(IcechunkAddress(where, branch, tag, snapshot_id), root, options)
        await call_in_thread(backend.cached.opened.pin)
        return backend

    @classmethod
    async def from_session(cls, session: Any, root: str | None = None, options: BackendOptions | None = None) -> Self:
        """Read the snapshot of a session, with its storage and its credentials for virtual chunks.

        Parameters
        ----------
        session : icechunk.Session or bytes
            A read-only session (``repo.readonly_session``), or its bytes: Icechunk's own (``as_bytes()``) or a pickle.
            Loading a pickle can run any code, so never pass one from an untrusted origin.
        root : str, optional
            Path of a group inside; by default the root.
        options : BackendOptions, optional
            Cache limits.

        Returns
        -------
        IcechunkBackend
            It reads the session's snapshot.

        Raises
        ------
        StoreError
            If the session is writable.
        StoreFormatError
            If the argument is not a session.
        """
        if isinstance(session, bytes | bytearray | memoryview):
            session = session_of_bytes(bytes(session))
        if not is_icechunk(session):
            raise StoreFormatError(
                f"A {type(session).__name__} is not an Icechunk session. Pass repo.readonly_session('main')."
            )
        return cls(session, root, options)

    @checks_options
    def scan_zarr_streaming_sync(  # noqa: PLR0917  the signature of rainbear
        self,
        predicate: pl.Expr | None = None,
        with_columns: Sequence[str] | None = None,
        max_chunks_to_read: int | None = None,
        n_rows: int | None = None,
        batch_size: int | None = None,
        max_concurrency: int | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Evaluate an expression on the table and stream the result; this call blocks and returns no awaitable.

        Parameters
        ----------
        predicate, with_columns, max_chunks_to_read, n_rows, batch_size
            As in ``ZarrBackendSync.scan_zarr_streaming_sync``.
        max_concurrency : int, optional
            Upper bound of the tasks in flight.

        Returns
        -------
        iterator of DataFrame
            Non-empty frames. Read-ahead is bounded. Closing the iterator stops the tasks.

        Raises
        ------
        QueryError
            As in ``ZarrBackendSync.scan_zarr_sync``, when the method is called.
        """
        query = self.cached.plan(predicate, with_columns, max_chunks_to_read, n_rows)
        return self.cached.iter_frames(query, batch_size, max_concurrency)
