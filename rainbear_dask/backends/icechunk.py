"""The backend of repositories of Icechunk: one snapshot of the data, by branch, tag, snapshot or session."""

from collections.abc import Iterator, Sequence
from os import PathLike
from pathlib import Path
from typing import Any, Self

import polars as pl

from rainbear_dask.backends.base import BackendOptions
from rainbear_dask.backends.zarr import AwaitedBackend
from rainbear_dask.exceptions import QueryError, StoreFormatError
from rainbear_dask.execution.run_async import call_in_thread
from rainbear_dask.storage.sources import IcechunkAddress, is_icechunk, session_of_bytes


class IcechunkBackend(AwaitedBackend):
    """One snapshot of an Icechunk repository, with its metadata and coordinates kept between scans.

    Made by ``from_filesystem`` or ``from_session``. The snapshot is settled then, for all scans and all workers,
    wherever a branch moves; ``clear_all_caches`` goes to the snapshot at which the branch is then.

    Parameters
    ----------
    source : icechunk.Session or IcechunkAddress
        What to read.
    prefix : str, optional
        Where the store begins below the source.
    options : BackendOptions, optional
        What is kept.
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
            Name of a branch; ``"main"`` if no state is named.
        root : str, optional
            Path of a group inside; by default the root.
        options : BackendOptions, optional
            What is kept.
        tag, snapshot_id : str, optional
            Instead of a branch, a tag or a snapshot.

        Returns
        -------
        IcechunkBackend
            It reads the snapshot at which the branch is now.

        Raises
        ------
        StoreNotFoundError
            If there is no repository, or no such state in it.
        QueryError
            If more than one state is named.
        """
        if sum(name is not None for name in (branch, tag, snapshot_id)) > 1:
            raise QueryError(
                "a branch, a tag and a snapshot name three states. Give one of branch=, tag=, snapshot_id=."
            )
        branch = branch if tag or snapshot_id else branch or "main"
        where = str(Path(path).expanduser().absolute())
        backend = cls(IcechunkAddress(where, branch, tag, snapshot_id), root, options)
        await call_in_thread(backend.pin)
        return backend

    @classmethod
    async def from_session(cls, session: Any, root: str | None = None, options: BackendOptions | None = None) -> Self:
        """Read what a session reads, with its storage and its credentials for virtual chunks.

        Parameters
        ----------
        session : icechunk.Session or bytes
            One that can only be read, as ``repo.readonly_session`` gives it; or its bytes, in either form: Icechunk's own
            (``as_bytes()``), or a pickle. A pickle can run any code when it is loaded, so give none from others.
        root : str, optional
            Path of a group inside; by default the root.
        options : BackendOptions, optional
            What is kept.

        Returns
        -------
        IcechunkBackend
            It reads the session's snapshot.

        Raises
        ------
        StoreError
            If the session can be written to.
        StoreFormatError
            If it is not a session.
        """
        if isinstance(session, bytes | bytearray | memoryview):
            session = session_of_bytes(bytes(session))
        if not is_icechunk(session):
            raise StoreFormatError(
                f"a {type(session).__name__} is not an Icechunk session. Give repo.readonly_session('main')."
            )
        return cls(session, root, options)

    def scan_zarr_streaming_sync(  # noqa: PLR0917  as users of rainbear call it
        self,
        predicate: pl.Expr | None = None,
        with_columns: Sequence[str] | None = None,
        max_chunks_to_read: int | None = None,
        n_rows: int | None = None,
        batch_size: int | None = None,
        max_concurrency: int | None = None,
    ) -> Iterator[pl.DataFrame]:
        """Ask a question of the table and take the answer piece by piece; this call waits, and is not awaited.

        Parameters
        ----------
        predicate, with_columns, max_chunks_to_read, n_rows, batch_size
            As in ``ZarrBackendSync.scan_zarr_streaming_sync``.
        max_concurrency : int, optional
            Tasks that run at the same time, at most.

        Returns
        -------
        iterator of DataFrame
            Frames that have rows; few are in memory at a time. Closing it stops the reading.

        Raises
        ------
        QueryError
            As ``ZarrBackendSync.scan_zarr_sync``, when it is called.
        """
        question = self._ask(predicate, with_columns, max_chunks_to_read, n_rows)
        return self._frames(question, batch_size, max_concurrency)
