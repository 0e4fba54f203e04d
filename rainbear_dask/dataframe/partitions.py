"""Rows as pandas has them: types, categories, an index, and the frame of one partition."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rainbear_dask.convert.pandas import Form, joined
from rainbear_dask.exceptions import StoreError
from rainbear_dask.execution.wire import CompactFrame
from rainbear_dask.execution.worker import run_task
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.storage.sources import check_travels
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column


@dataclass(frozen=True, slots=True)
class Partition:
    """What one frame holds.

    Parameters
    ----------
    tasks : tuple of ScanTask
        Where its rows are read.
    sort : bool
        Whether rows have to be sorted to be in the order of the index.
    """

    tasks: tuple[ScanTask, ...]
    sort: bool = False

    @property
    def num_rows(self) -> int:
        """Rows before a filter."""
        return sum(task.num_rows for task in self.tasks)


def read_partitions(
    partitions: Sequence[Partition], columns: tuple[Column, ...], form: Form, limit: int | None, home: str | None
) -> Any:
    """Read the rows of some partitions as one frame.

    A top-level function of plain data, as `worker.run_task` is.

    Parameters
    ----------
    partitions : sequence of Partition
        What to read, in order.
    columns : tuple of Column
        What to read of them, among it the index.
    form : Form
        How columns become pandas'.
    limit : int or None
        Rows that are wanted at most, from the first.
    home : str or None
        What `home_of` says of the store.

    Returns
    -------
    pandas.DataFrame
        Rows in task order; where a partition is to be sorted, those of one label in task order.

    Raises
    ------
    StoreError
        If the store lives in the memory of another process.
    ChunkReadError
        If a chunk cannot be fetched or decoded.
    """
    if home not in (None, _HERE):
        check_travels(form.spec)
    pieces: list[Any] = []
    for partition in partitions:
        if limit is not None and limit <= 0:
            break
        rows = [form.frame(columns, parts) for parts in _parts(partition, columns, limit)]
        if partition.sort:
            rows = [joined(rows, form).sort_index(kind="stable")]
        pieces += rows
        limit = None if limit is None else limit - sum(map(len, rows))
    return joined(pieces, form) if pieces else form.empty(columns)


def home_of(spec: StoreSpec) -> str | None:
    """Name of this process, where a store lives in its memory; else None: any process can read it."""
    try:
        check_travels(spec)
    except StoreError:
        return _HERE
    return None


_HERE = uuid.uuid4().hex


def _parts(partition: Partition, columns: tuple[Column, ...], limit: int | None) -> Iterator[CompactFrame]:
    """Rows of each task, or only of those that the first rows need."""
    wanted = None if partition.sort else limit
    for whole in partition.tasks:
        task = replace(whole, scan=replace(whole.scan, columns=columns))
        if wanted is None:
            yield run_task(task)
            continue
        for beginning in _beginnings(task, wanted):
            rows = run_task(beginning)
            if rows.height >= wanted:
                break
        yield rows
        wanted -= rows.height
        if wanted <= 0:
            return


def _beginnings(task: ScanTask, count: int) -> Iterator[ScanTask]:
    """Parts of a task, each with the one before as its beginning; the last one has ``count`` rows, or is the whole."""
    while task.scan.filters and count < task.max_rows and (beginning := task.head(count)) is not task:
        yield beginning
        count *= _GROWTH
    yield task.head(count)


_GROWTH = 16
