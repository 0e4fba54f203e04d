"""Zarr targets, local or on an object store: nothing is visible until it is whole."""

import secrets
import shutil
import time
from contextlib import suppress
from dataclasses import replace
from functools import partial
from pathlib import Path
from typing import Any

import zarr

from rainbear_dask.convert.grid import Dims
from rainbear_dask.exceptions import QueryError, StoreNotFoundError, TargetExistsError, WriteError
from rainbear_dask.execution.clients import bring_credentials, check_reaches
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.metadata.zarr_arrays import silence
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.redaction import reason
from rainbear_dask.storage.credentials import unseal
from rainbear_dask.storage.targets import Target
from rainbear_dask.storage.zarr_internals import default_buffer_prototype, sync
from rainbear_dask.table.model import Table
from rainbear_dask.table.open import open_table
from rainbear_dask.writing.content import Rows
from rainbear_dask.writing.existing import Existing, append_job, region_job
from rainbear_dask.writing.layout import Mode, longer_document
from rainbear_dask.writing.new import new_job
from rainbear_dask.writing.rows import Job, Options

_REMOVE_TRIES, _REMOVE_SECONDS = 10, 0.05
"""After a failure, requests in flight may still make files: how often a folder is removed, and the pause in seconds."""


def write_target(data: Rows, target: Target, dims: Dims | None, *, mode: Mode, options: Options) -> None:
    """Write rows to a Zarr target; `rainbear_dask.write_zarr` documents the parameters."""
    client = options.client
    if client is not None:
        check_reaches(client, target.parent)
        bring_credentials(client, target.parent)
    is_empty = target.is_empty()
    if mode == "r+" and is_empty:
        raise StoreNotFoundError(f"There is no Zarr store at {target.label}. Make it with mode='w-'.")
    if mode == "w-" and not is_empty:
        raise TargetExistsError(
            f"{target.label} exists. Pass mode='w' to replace it, 'r+' to write into its cells, or `append_dim`."
        )
    if isinstance(data, ReadPlan) and not is_empty:
        _check_apart(data, target)
    if mode in ("w-", "w") or is_empty:
        part = target if target.path is None else replace(target, name=f".{target.name}.{secrets.token_hex(6)}.part")
        job = new_job(data, dims, part.name, options)
        if not is_empty and target.path is not None and not _is_zarr(target.path):
            raise TargetExistsError(
                f"{target.label} is not a Zarr store, so mode='w' does not replace it. Remove it yourself."
            )
        _make(job, target, part, is_empty=is_empty, travels=client is not None)
        return
    existing = Existing(_table(target), target.name)
    if options.append_dim is not None:
        job = append_job(data, dims, existing, options)
    else:
        job = region_job(data, dims, existing, options, may_add=mode == "a")
    _change(job, target, travels=client is not None)


def _check_apart(plan: ReadPlan, target: Target) -> None:
    source, _ = unseal(plan.table.spec)
    own = str(target.path) if target.path is not None else target.label
    if isinstance(source, str) and (
        Path(source) == Path(own) or Path(own) in Path(source).parents or Path(source) in Path(own).parents
    ):
        raise QueryError(
            f"The query reads {plan.table.spec.label}, and {target.label} would change while it is read. Write to another "
            "target, or collect the query first."
        )


def _is_zarr(path: Path) -> bool:
    return path.is_dir() and any((path / name).is_file() for name in ("zarr.json", ".zgroup", ".zmetadata", ".zattrs"))


def _table(target: Target) -> Table:
    source, options = unseal(target.parent)
    table = open_table(open_store(source, prefix=target.name, storage_options=options))
    return replace(table, spec=replace(table.spec, label=target.label))


def _make(job: Job, target: Target, part: Target, *, is_empty: bool, travels: bool) -> None:
    """Make a new group: locally under another name until it is whole, else with its own document last."""
    if part.path is not None:
        part.path.mkdir(parents=True)
    elif not is_empty:
        _remove(target)
    try:
        job.write((part.sealed() if travels else part).zarr_store)
        for key, content in job.layout.documents.items():
            part.write(key, partial(_put, content))
        if part.path is not None and target.path is not None:
            _replace(part.path, target.path)
    except BaseException:
        with suppress(Exception):
            _remove(part)
        raise


def _put(content: bytes, file: Any) -> None:
    file.write(content)


def _replace(part: Path, path: Path) -> None:
    old = path.with_name(f"{part.name}.old")
    if path.exists():
        path.rename(old)
    try:
        part.rename(path)
    except OSError:
        if old.exists():
            old.rename(path)
        raise
    shutil.rmtree(old, ignore_errors=True)


def _remove(target: Target) -> None:
    """Remove a group, its own document first, so that nobody reads a part of it."""
    if target.path is not None:
        for _ in range(_REMOVE_TRIES):
            shutil.rmtree(target.path, ignore_errors=True)
            time.sleep(_REMOVE_SECONDS)
            if not target.path.exists():
                return
        return
    for name in ("zarr.json", ".zmetadata", ".zgroup"):
        target.delete(name)
    for name in target.files():
        target.delete(name)


def _change(job: Job, target: Target, *, travels: bool) -> None:
    """Write into an existing group, then its documents: first for its arrays, then the consolidated one."""
    job.write((target.sealed() if travels else target).zarr_store)
    store = target.zarr_store()
    for key, content in job.layout.documents.items():
        target.write(key, partial(_put, content))
    if job.grows is not None:
        dim, length = job.grows
        for slot in job.layout.slots.values():
            key, content = sync(longer_document(store, slot.path, slot.dims.index(dim), length))
            target.write(key.removeprefix(f"{target.name}/"), partial(_put, content))
    if job.layout.consolidate and _is_consolidated(store, target.name):
        try:
            with silence():
                zarr.consolidate_metadata(store, path=target.name)
        except Exception as err:
            raise WriteError(
                f"Cannot renew the consolidated metadata of {target.label}: {reason(err)}. Repeat the call."
            ) from err


def _is_consolidated(store: Any, group: str) -> bool:
    async def found() -> bool:
        if await store.exists(f"{group}/.zmetadata"):
            return True
        root = await store.get(f"{group}/zarr.json", default_buffer_prototype())
        return root is not None and b'"consolidated_metadata"' in root.to_bytes()

    return bool(sync(found()))
