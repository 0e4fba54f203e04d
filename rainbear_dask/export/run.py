"""An export from plan to finished folder: checks, tasks, manifest, resumption."""

import json
import re
from collections.abc import Iterator, Mapping
from contextlib import closing
from dataclasses import dataclass, replace
from typing import TYPE_CHECKING, Any, get_args

import polars as pl
from dask.base import tokenize

from rainbear_dask.exceptions import QueryError, TargetExistsError, WriteError
from rainbear_dask.execution.clients import bring_credentials, check_reaches, client_for
from rainbear_dask.execution.executors import Work
from rainbear_dask.execution.run import run_tasks
from rainbear_dask.export.geoparquet import check_geo, crs_of
from rainbear_dask.export.manifest import Manifest, TaskRecord, read_manifest
from rainbear_dask.export.parquet import Compression, FileForm, ParquetWriter, task_name, write_task
from rainbear_dask.export.partitions import PartitionBy, check_found, check_number, partition_keys
from rainbear_dask.metadata.groups import grid_mappings
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.storage.credentials import unseal
from rainbear_dask.storage.targets import Target, is_unfinished

if TYPE_CHECKING:
    from distributed import Client

SUCCESS = "_SUCCESS"

_OURS = re.compile(r"(?:[^/]+=[^/]*/)*\d{16}-[0-9a-f]{16}\.parquet")
"""Paths of the files of an export below its folder."""


@dataclass(frozen=True)
class ExportReport:
    """The result of `write_parquet`.

    Parameters
    ----------
    folder : str
        Address of the folder.
    rows, files, bytes : int
        Rows, files and bytes of the whole export, including earlier calls that it continued.
    tasks : int
        Tasks of the plan.
    skipped : int
        Tasks that an earlier call had finished.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> report = rd.write_parquet("sst.zarr", "rows")
    >>> report.rows, report.files
    (12240, 1)
    """

    folder: str
    rows: int
    files: int
    bytes: int
    tasks: int
    skipped: int

    def __str__(self) -> str:
        resumed = f", {self.skipped:,} of them by an earlier call" if self.skipped else ""
        return (
            f"{self.folder}: {self.rows:,} rows in {self.files:,} files, {self.bytes:,} bytes; "
            f"{self.tasks:,} tasks{resumed}"
        )


def file_form(
    plan: ReadPlan,
    partition_by: PartitionBy,
    geo: tuple[str, str] | None,
    row_group_rows: int,
    compression: Compression,
) -> tuple[ReadPlan, FileForm]:
    """Check the options of an export, and return the plan with all columns that it needs and the form of its files.

    Raises
    ------
    QueryError
        If the plan or an option does not fit; nothing but coordinates and metadata is read.
    """
    if plan.limit is not None and not plan.conjuncts and plan.head is None:
        plan = replace(plan, head=plan.limit, limit=None)  # the first rows of the table: tasks then hold no others
    if plan.limit is not None:
        raise QueryError(
            f"The query is limited to {plan.limit:,} rows, and tasks that write on their own cannot share a limit. "
            "Write it in one process: lf.sink_parquet('rows.parquet')."
        )
    if type(row_group_rows) is not int or row_group_rows < 1:
        raise QueryError(f"The option `row_group_rows` is {row_group_rows!r}, and not a number of rows, 1 or more.")
    if compression not in get_args(Compression):
        raise QueryError(
            f"The compression {compression!r} is unknown. Choose one of {', '.join(get_args(Compression))}."
        )
    columns = tuple(plan.no_rows().columns)
    keys = partition_keys(partition_by, plan)
    check_number(keys, plan)
    if geo is not None:
        check_geo(geo, plan)
        geo = (geo[0], geo[1])  # a list hashes to no key of Dask
    needed = [root for expr in keys.values() for root in expr.meta.root_names()]
    wide = replace(plan, columns=plan.table.leaves(dict.fromkeys([*columns, *needed, *(geo or ())])))
    metadata, grid_mapping = _described(plan)
    form = FileForm(
        columns=columns,
        keys={name: expr.meta.serialize() for name, expr in keys.items()},
        geo=geo,
        crs=crs_of(grid_mapping) if geo else None,
        row_group_rows=row_group_rows,
        compression=compression,
        metadata=metadata,
    )
    return wide, form


def _described(plan: ReadPlan) -> tuple[str, Mapping[str, Any] | None]:
    """Return the attributes of group and columns as JSON, and the attributes of the first grid mapping."""
    spec = plan.table.spec
    source, options = unseal(spec)
    meta = open_store(source, group=spec.group or None, storage_options=options)
    attributes = {c.name: dict(c.array.attributes) for c in plan.columns if c.array is not None}
    mappings = grid_mappings(meta, [c.array for c in plan.columns if c.array is not None])
    content = {
        "source": spec.label,
        "version": spec.version,
        "attributes": meta.groups.get("", {}),
        "columns": attributes,
        "grid_mappings": mappings,
    }
    return json.dumps(content, default=str), next(iter(mappings.values()), None)


def export(plan: ReadPlan, target: Target, form: FileForm, *, resume: bool, client: "Client | None") -> ExportReport:
    """Run an export; `rainbear_dask.write_parquet` documents it.

    Parameters
    ----------
    plan : ReadPlan
        The plan, with all columns that ``form`` needs.
    target : Target
        The folder.
    form : FileForm
        The form of the files.
    resume : bool
        Whether to continue an export that was begun.
    client : distributed.Client, optional
        Client that runs the tasks.
    """
    runner = client_for(plan, client)
    if runner is not None:
        check_reaches(runner, target.parent)
        bring_credentials(runner, target.parent)
    header = _header(plan, form)
    manifest = Manifest(target, header, _finished(target, header, resume=resume))
    skipped = len(manifest.records)
    folders = {path.rpartition("/")[0] for record in manifest.records.values() for path in record.files}
    keys = {name: pl.Expr.deserialize(content) for name, content in form.keys.items()}
    sealed = target if runner is None else target.sealed()
    work: Work[TaskRecord] = Work(write_task, args=(ParquetWriter(sealed, form, plan.table.sizes),))
    names: list[str] = []

    def unfinished() -> Iterator[ScanTask]:
        for task in plan.tasks():
            names.append(task_name(task, plan.table.sizes))
            if names[-1] not in manifest.records:
                yield task

    try:
        with closing(run_tasks(unfinished(), runner, work, ordered=False)) as records:  # type: ignore[type-var]  # a generator
            for record in records:
                _check_visible(target, record)
                manifest.add(record)
                folders |= {path.rpartition("/")[0] for path in record.files}
                check_found(keys, len(folders))
    finally:
        manifest.save()
    _finish(plan, target, form, manifest, names)
    done = [manifest.records[name] for name in names]
    return ExportReport(
        folder=target.label,
        rows=sum(record.rows for record in done),
        files=sum(len(record.files) for record in done),
        bytes=sum(sum(record.files.values()) for record in done),
        tasks=len(names),
        skipped=min(skipped, len(names)),
    )


def _header(plan: ReadPlan, form: FileForm) -> dict[str, Any]:
    boxes = [sorted((dim, p.starts.tobytes(), p.stops.tobytes()) for dim, p in b.items()) for b in plan.selection.boxes]
    scan, blocks = plan.layout.scan, list(plan.table.blocks.values())
    token = tokenize(scan, boxes, blocks, plan.task_bytes, replace(form, metadata=""), ensure_deterministic=True)
    spec = plan.table.spec
    return {"plan": token, "source": f"{spec.label}/{spec.group}".rstrip("/"), "version": spec.version}


def _finished(target: Target, header: Mapping[str, Any], *, resume: bool) -> dict[str, TaskRecord]:
    """Return the finished tasks of the same export in a folder, whose leftovers are removed.

    Raises
    ------
    TargetExistsError
        If the folder holds anything else.
    """
    if target.path is not None and target.path.exists() and not target.path.is_dir():
        raise TargetExistsError(f"{target.label} is a file. Name a folder that is empty or does not exist.")
    files, found = target.files(), read_manifest(target)
    foreign = [name for name in files if not (name == SUCCESS or _OURS.fullmatch(name) or is_unfinished(name))]
    if foreign or (files and found is None):
        shown = min(foreign or files)
        raise TargetExistsError(
            f"{target.label} holds something else, for example {shown}. Name a folder that is empty or does not exist."
        )
    if found is None:
        if target.path is not None:
            target.path.mkdir(parents=True, exist_ok=True)
        return {}
    earlier, records = found
    if not resume:
        raise TargetExistsError(
            f"An export to {target.label} was begun already. Pass `resume=True` to continue it, or name another folder."
        )
    if earlier != header:
        differs = (
            f"of another source, {earlier.get('source')}"
            if earlier.get("source") != header["source"]
            else "of another state of the source"
            if earlier.get("version") != header["version"]
            else "with another plan: other rows, columns, options or task size"
        )
        raise TargetExistsError(
            f"{target.label} holds an export {differs}. Name another folder, or remove {target.label} and its manifest."
        )
    for name in files:
        if is_unfinished(name):
            target.delete(name)
    return {name: record for name, record in records.items() if _is_there(record, files)}


def _is_there(record: TaskRecord, files: Mapping[str, int | None]) -> bool:
    return all(path in files and files[path] in (None, size) for path, size in record.files.items())


def _check_visible(target: Target, record: TaskRecord) -> None:
    """Raise an error if a worker wrote to a disk of its own."""
    if target.path is not None and not all((target.path / path).is_file() for path in record.files):
        raise WriteError(
            f"A worker wrote {next(iter(record.files))} to {target.label}, and this process does not find it there. "
            "Name a folder that all workers share, or an object store."
        )


def _finish(plan: ReadPlan, target: Target, form: FileForm, manifest: Manifest, names: list[str]) -> None:
    """Remove leftovers of workers that died, compare the folder with the manifest, and mark the export as complete."""
    expected = {path for name in names for path in manifest.records[name].files}
    if not expected:  # readers need one file to find the columns in
        empty = f"{0:016d}-{manifest.header['plan'][:16]}.parquet"
        target.write(empty, lambda file: form.write(plan.no_rows(), 1, file))
        expected = {empty}
    files = target.files()
    for name in files.keys() - expected - {SUCCESS}:
        target.delete(name)
    if missing := expected - files.keys():
        raise WriteError(
            f"{len(missing):,} files of {target.label} are gone, for example {min(missing)}. Repeat the call to write "
            "them again."
        )
    target.write(SUCCESS, lambda _: None)
