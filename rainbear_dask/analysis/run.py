"""`analyze`: from the variables of a store to their files of statistics; only chunks that have changed are read."""

import time
import uuid
from collections import deque
from collections.abc import Iterator, Mapping, Sequence
from contextlib import closing, suppress
from dataclasses import dataclass, field, fields, replace
from datetime import UTC, datetime
from functools import cached_property
from typing import TYPE_CHECKING

import numpy as np
import polars as pl

from rainbear_dask.analysis.collect import CollectTask, collect_chunks
from rainbear_dask.exceptions import QueryError, RainbearError, WriteError
from rainbear_dask.execution.clients import client_for
from rainbear_dask.execution.executors import Work
from rainbear_dask.execution.run import run_tasks
from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.metadata.keys import join_path
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.predicate import Conjunct
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.redaction import escaped
from rainbear_dask.resources.settings import num_bytes
from rainbear_dask.statistics.form import IDENTITY, ChunkStatistics, Subject, no_statistics, write_statistics
from rainbear_dask.statistics.lookup import can_hold_files, find, forget_statistics, stamps_of
from rainbear_dask.statistics.places import Place, place_of
from rainbear_dask.storage.identities import UNKNOWN, Identities, Stamps, identities_below
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column, Table

if TYPE_CHECKING:
    from distributed import Client

TICK_NS = 20_000_000
"""Nanoseconds in which two changes of a file may get the same time: a few ticks of a kernel's clock."""


@dataclass(frozen=True, eq=False)
class Statistics:
    """The result of `analyze`.

    Parameters
    ----------
    label : str
        Address of the store.
    places : mapping of str to str
        Address of the file of each variable.
    frames : mapping of str to DataFrame
        For each variable one row for each chunk: its index along each dimension (named as the dimension), ``min``,
        ``max``, ``nulls``, ``nans`` and ``count``. ``min`` and ``max`` skip null and NaN.
    chunks : int
        Chunks of all variables.
    read : int
        Chunks that this call has read; it found the others described already.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> found = rd.analyze("sst.zarr", "sst", where="cache")
    >>> found.frames["sst"].height == found.chunks
    True
    """

    label: str
    places: Mapping[str, str]
    frames: Mapping[str, pl.DataFrame] = field(repr=False)
    chunks: int
    read: int

    def __str__(self) -> str:
        lines = [f"{self.label}: statistics of {self.chunks:,} chunks, {self.read:,} of them read now"]
        for name, frame in self.frames.items():
            low, high = frame["min"].min(), frame["max"].max()
            lines.append(f"  {name}: {frame.height:,} chunks, {low!s} to {high!s}, in {self.places[name]}")
        return "\n".join(map(escaped, lines))


def analyze_columns(
    spec: StoreSpec, columns: Sequence[Column], where: str, client: "Client | None" = None
) -> Statistics:
    """Collect and write the statistics of some variables; `rainbear_dask.analyze` documents it.

    Parameters
    ----------
    spec : StoreSpec
        The store, newly opened.
    columns : sequence of Column
        Its variables.
    where : str
        "store", "cache", or the address of a folder.
    client : distributed.Client, optional
        Client that runs the tasks.
    """
    jobs = [
        _Job(spec, column, _identities(spec, column, where), place_of(where, spec, _path(column))) for column in columns
    ]
    todo = [job for job in jobs if job.tasks]
    if todo:
        if any(job.has_just_changed for job in todo):
            time.sleep(TICK_NS / 1e9)  # a chunk that changes from now on gets a later time
        todo[0].save()  # an error now, rather than after all chunks are read
        largest = max((job.plan for job in todo), key=lambda plan: plan.counts.bytes_kept)
        _collect(todo, client_for(largest, client))
    forget_statistics()
    return Statistics(
        label=f"{spec.label}/{spec.group}".rstrip("/"),
        places={job.column.name: job.place.label for job in jobs},
        frames={job.column.name: _shown(job.found, job.grid) for job in jobs},
        chunks=sum(job.grid.num_chunks for job in jobs),
        read=sum(job.num_read for job in jobs),
    )


def _identities(spec: StoreSpec, column: Column, where: str) -> Identities:
    found = identities_below(spec, join_path(spec.group, _path(column)))
    if found is None:
        raise QueryError(
            f"Statistics of {spec.label} would never be trusted, because nothing tells whether a chunk has changed since. "
            "Analyze a folder, a zip file, a bucket (s3://, gs://, az://), or an Icechunk session."
        )
    if where == "store" and not can_hold_files(found):
        raise WriteError(f"{spec.label} keeps no other files. {_ELSEWHERE}")
    return found


_ELSEWHERE = 'Pass `where="cache"` to write the statistics to your cache folder, or name a folder.'


def _path(column: Column) -> str:
    assert column.array is not None  # noqa: S101  the caller chose columns with an array
    return column.array.path


def _collect(jobs: Sequence["_Job"], client: "Client | None") -> None:
    submitted: deque[_Job] = deque()

    def tasks() -> Iterator[CollectTask]:
        for job in jobs:
            for task in job.tasks:
                submitted.append(job)
                yield task

    work: Work[pl.DataFrame] = Work(collect_chunks)
    try:
        with closing(run_tasks(tasks(), client, work)) as frames:  # type: ignore[type-var]  # a generator
            for frame in frames:
                submitted.popleft().add(frame)
    except BaseException:
        for job in jobs:
            with suppress(RainbearError):  # the next call continues with the chunks that were read
                job.save_rest()
        raise


@dataclass(eq=False)
class _Job:
    """The statistics of one variable."""

    spec: StoreSpec
    column: Column
    identities: Identities
    place: Place
    num_read: int = 0
    _frames: list[pl.DataFrame] = field(default_factory=list)
    _num_done: int = 0

    def __post_init__(self) -> None:
        array = self.column.array
        assert array is not None  # noqa: S101  the caller chose such columns
        self.grid: ChunkGrid = array.grid
        self._subject = Subject.of(self.column, self.identities.kind)
        self._stamps: Stamps = stamps_of(self.spec, array, self.identities, np.arange(self.grid.num_chunks))
        earlier = find(self.place, self.column, self.identities) or no_statistics(self.grid, self.column.dtype)
        same = (earlier.stamps == self._stamps).all(axis=1) & (self._stamps[:, 1] != UNKNOWN[1])
        count = pl.when(pl.Series(same)).then(pl.col("count"))
        self.found = replace(earlier, rows=earlier.rows.with_columns(count.alias("count")))

    @property
    def has_just_changed(self) -> bool:
        """Whether a file of the array is so new that another change could leave its time as it is."""
        return self.identities.kind == "files" and time.time_ns() - int(self._stamps[:, 0].max()) < TICK_NS

    @cached_property
    def plan(self) -> ReadPlan:
        """The plan that reads the chunks without statistics."""
        sizes = dict(zip(self.grid.dims, self.grid.shape, strict=True))
        table = Table(self.spec, sizes, {self.column.name: self.column}, {}, statistics=False)
        missing = self.grid.select_chunks(~self.found.known.reshape(self.grid.counts))
        conjunct = Conjunct(pl.lit(value=True), replace(missing, exact=True), "")
        return ReadPlan(table, (self.column,), (conjunct,), task_bytes=num_bytes("task-bytes"))

    @cached_property
    def tasks(self) -> list[CollectTask]:
        """The tasks of the plan; none if all chunks have statistics."""
        call = uuid.uuid4().hex
        return [
            CollectTask(**{each.name: getattr(task, each.name) for each in fields(ScanTask)}, call=call)
            for task in self.plan.tasks()
        ]

    def add(self, frame: pl.DataFrame) -> None:
        """Add the statistics of a task, and write the file after the last one."""
        self._frames.append(frame)
        self._num_done += 1
        if self._num_done == len(self.tasks):
            self.save_rest()

    def save_rest(self) -> None:
        """Write the file, if a task has finished since it was last written."""
        if self._frames:
            new = pl.concat(self._frames)
            self._frames.clear()
            self.num_read += new.height
            self.found = _merged(self.found, new, self._stamps)
            self.save()

    def save(self) -> None:
        """Write the file.

        Raises
        ------
        WriteError
            If it cannot be written.
        """
        try:
            self.place.folder.write(
                self.place.name,
                lambda file: write_statistics(self.found, self._subject, _path(self.column), self.grid, file),
            )
        except RainbearError as err:
            text = str(err).partition(". ")[0]
            raise WriteError(f"{text}. {_ELSEWHERE}") from err


def _merged(found: ChunkStatistics, new: pl.DataFrame, stamps: Stamps) -> ChunkStatistics:
    """Return statistics with new rows for some chunks."""
    chunks = new["chunk"].to_numpy()
    identity = [pl.Series(name, stamps[chunks, at]) for at, name in enumerate(IDENTITY)]
    both = pl.concat([found.rows, new.drop("chunk").hstack(identity)])
    row_of = np.arange(found.rows.height)
    row_of[chunks] = found.rows.height + np.arange(new.height)
    return ChunkStatistics(both.select(pl.all().gather(pl.Series(row_of))), datetime.now(UTC))


def _shown(found: ChunkStatistics, grid: ChunkGrid) -> pl.DataFrame:
    """Return the rows with the index of each chunk, without identities."""
    index = np.indices(grid.counts).reshape(len(grid.dims), -1)
    known = pl.Series(found.known)
    rows = found.rows.drop(IDENTITY)
    rows = rows.with_columns(pl.when(known).then(pl.all()).name.keep())
    return pl.DataFrame([pl.Series(dim, along) for dim, along in zip(grid.dims, index, strict=True)]).hstack(rows)
