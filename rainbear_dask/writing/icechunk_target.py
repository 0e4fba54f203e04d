"""Icechunk targets: one commit, which everybody sees as a whole, or nothing."""

import json
from collections.abc import Iterator
from contextlib import contextmanager, suppress
from dataclasses import dataclass, replace
from typing import Any
from uuid import uuid4

from zarr.abc.store import Store

from rainbear_dask.convert.grid import Dims
from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import ConflictError, QueryError, StoreError, StoreNotFoundError, TargetExistsError
from rainbear_dask.execution.worker import make_frame
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.redaction import reason
from rainbear_dask.storage.zarr_internals import default_buffer_prototype, sync
from rainbear_dask.table.open import open_table
from rainbear_dask.writing.content import Rows
from rainbear_dask.writing.existing import Existing, append_job, region_job
from rainbear_dask.writing.layout import Mode, longer_document
from rainbear_dask.writing.new import new_job
from rainbear_dask.writing.plans import UnitWriter
from rainbear_dask.writing.rows import Job, Options

_REBASE_TRIES = 100
"""Commits of others, each to other chunks, that one commit lets pass."""


@dataclass(frozen=True)
class ForkedPlace:
    """The store of a forked session, which pickles to workers.

    Parameters
    ----------
    session : icechunk.ForkSession
        The fork. Each task has a copy of its own, and returns it.
    """

    session: Any

    def __call__(self) -> Store:
        """Return the writable store of the fork."""
        store: Store = self.session.store
        return store


def write_forked(task: ScanTask, writer: UnitWriter) -> Any:
    """Read the cells of a unit, write them, and return the session with the changes."""
    writer(task, make_frame(task))
    place: Any = writer.place
    return place.session


def write_repository(
    data: Rows, repo: Any, dims: Dims | None, *, branch: str, message: str, mode: Mode, options: Options
) -> str:
    """Write rows to a branch of a repository; `rainbear_dask.write_icechunk` documents the parameters."""
    icechunk = require("icechunk", extra="icechunk")
    if not isinstance(repo, icechunk.Repository):
        raise QueryError(
            f"A {type(repo).__name__} is not an Icechunk repository. Give icechunk.Repository.open(storage)."
        )
    if options.client is not None and "memory" in repr(repo.storage).lower():
        raise StoreError(
            "This repository lives in the memory of this process, and workers cannot write to it. Use a folder or a "
            "bucket, or write without a cluster."
        )
    with _translated(f"branch {branch!r}"):
        base = repo.lookup_branch(branch)
        session = repo.readonly_session(snapshot_id=base)
    is_empty = not sync(session.store.exists("zarr.json")) or sync(_is_bare(session.store))
    if mode == "r+" and is_empty:
        raise StoreNotFoundError(f"The branch {branch!r} has no arrays. Make them with mode='w-'.")
    if mode == "w-" and not is_empty:
        raise TargetExistsError(
            f"The branch {branch!r} has arrays. Pass mode='w' to replace them, 'r+' to write into cells, or `append_dim`."
        )
    if options.client is not None:
        options = replace(options, run=write_forked)
    if mode in ("w-", "w") or is_empty:
        job = new_job(data, dims, "", options)
    else:
        existing = Existing(open_table(open_store(session.store)), "")
        if options.append_dim is not None:
            job = append_job(data, dims, existing, options)
        else:
            job = region_job(data, dims, existing, options, may_add=mode == "a")
    clears = mode == "w" and not is_empty
    with _translated(f"branch {branch!r}"):
        if options.client is None:
            return _write_here(repo, branch, base, job, message, clears=clears)
        return _write_on_workers(repo, branch, base, job, message, clears=clears)


async def _is_bare(store: Store) -> bool:
    async for name in store.list_dir(""):
        if name != "zarr.json":
            return False
    return True


@contextmanager
def _translated(what: str) -> Iterator[None]:
    icechunk = require("icechunk", extra="icechunk")
    try:
        yield
    except (icechunk.ConflictError, icechunk.RebaseFailedError) as err:
        raise ConflictError(
            f"Somebody else has committed to {what} since, and the changes exclude each other: {reason(err)}. Nothing was "
            "committed. Repeat the call, which then sees the new state."
        ) from err
    except icechunk.IcechunkError as err:
        raise StoreError(f"Icechunk cannot write to {what}: {reason(err)}. Check its name, and the storage.") from err


def _write_here(repo: Any, branch: str, base: str, job: Job, message: str, *, clears: bool) -> str:
    import icechunk  # noqa: PLC0415  an extra

    session = repo.writable_session(branch)
    if session.snapshot_id != base:
        raise ConflictError(f"Somebody else has committed to branch {branch!r} meanwhile. Repeat the call.")
    _write_documents(session.store, job, clears=clears)
    job.write(lambda: session.store)
    if not session.has_uncommitted_changes:
        return base
    found: str = session.commit(message, rebase_with=icechunk.ConflictDetector(), rebase_tries=_REBASE_TRIES)
    return found


def _write_on_workers(repo: Any, branch: str, base: str, job: Job, message: str, *, clears: bool) -> str:
    """Write on a branch of the call's own, because only a session without changes can be forked."""
    import icechunk  # noqa: PLC0415  an extra

    own = f"rainbear-dask-{uuid4().hex}"
    has_documents = clears or bool(job.layout.documents) or job.grows is not None
    if has_documents:
        repo.create_branch(own, base)
    try:
        if has_documents:
            session = repo.writable_session(own)
            _write_documents(session.store, job, clears=clears)
            session.commit(f"Arrays of: {message}")
        session = repo.writable_session(own if has_documents else branch)
        place = ForkedPlace(session.fork())
        done: Any = job.write(place)
        session.merge(place.session, *(done or ()))
        if has_documents:
            snapshot: str = session.commit(message) if session.has_uncommitted_changes else session.snapshot_id
            _move(repo, branch, snapshot, base)
            return snapshot
        if not session.has_uncommitted_changes:
            return base
        found: str = session.commit(message, rebase_with=icechunk.ConflictDetector(), rebase_tries=_REBASE_TRIES)
        return found
    finally:
        if has_documents:
            with suppress(Exception):  # the branch does no harm
                repo.delete_branch(own)


def _move(repo: Any, branch: str, snapshot: str, base: str) -> None:
    """Move a branch to a snapshot, unless somebody else has moved it."""
    import icechunk  # noqa: PLC0415  an extra

    try:
        repo.reset_branch(branch, snapshot, from_snapshot_id=base)
    except icechunk.IcechunkError as err:
        if repo.lookup_branch(branch) == base:
            raise
        raise ConflictError(
            f"Somebody else has committed to branch {branch!r} meanwhile. Nothing was committed. Repeat the call."
        ) from err


def _write_documents(store: Store, job: Job, *, clears: bool) -> None:
    """Write the documents of the arrays; nobody else sees them before the commit."""

    def put(key: str, content: bytes) -> None:
        sync(store.set(key, default_buffer_prototype().buffer.from_bytes(content)))

    if clears:
        sync(store.clear())
    for key, content in reversed(list(job.layout.documents.items())):
        document = json.loads(content)
        document.pop("consolidated_metadata", None)  # a snapshot needs none
        put(key, json.dumps(document).encode())
    if job.grows is not None:
        dim, length = job.grows
        for slot in job.layout.slots.values():
            put(*sync(longer_document(store, slot.path, slot.dims.index(dim), length)))
