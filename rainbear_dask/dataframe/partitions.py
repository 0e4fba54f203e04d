"""Partitions of a Dask DataFrame: tasks grouped by index labels, and the function that reads them."""

import uuid
from collections.abc import Iterator, Sequence
from dataclasses import dataclass, replace
from typing import Any

from rainbear_dask.convert.pandas import PandasSchema, concat_frames
from rainbear_dask.exceptions import StoreError
from rainbear_dask.execution.wire import CompactFrame
from rainbear_dask.execution.worker import run_task
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.storage.sources import check_travels
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column

Divisions = tuple[Any, ...]


@dataclass(frozen=True, slots=True)
class Partition:
    """The tasks of one partition.

    Parameters
    ----------
    tasks : tuple of ScanTask
        Tasks that read the rows, in order.
    sort : bool
        Whether the rows need sorting by the index.
    """

    tasks: tuple[ScanTask, ...]
    sort: bool = False

    @property
    def num_rows(self) -> int:
        """Rows before the residual filter."""
        return sum(task.num_rows for task in self.tasks)


def partition_tasks(
    tasks: Sequence[ScanTask], labels: Any, ends: tuple[Any, Any] | None
) -> tuple[tuple[Partition, ...], Divisions]:
    """Group the tasks of a plan to partitions.

    Parameters
    ----------
    tasks : sequence of ScanTask
        Tasks in row order, which may be split along the dimension of the index.
    labels : pandas.Index or None
        Sorted labels of the index; None if divisions are unknown.
    ends : (object, object) or None
        First and last division. By default the lowest and the highest label.

    Returns
    -------
    tuple of Partition
        One for each task, at least one. With labels, tasks that share a label are in one partition.
    tuple
        Divisions: the first label of each partition, and the last label of all. Without labels, Nones.
    """
    if labels is None:
        partitions = tuple(Partition((task,)) for task in tasks) or (Partition(()),)
        return partitions, (None,) * (len(partitions) + 1)
    first, last = ends or (labels.min(), labels.max())
    groups = _label_groups(tasks, labels)
    descends = labels.is_monotonic_decreasing and not labels.is_monotonic_increasing
    if descends:
        groups.reverse()
    starts = [labels[(stop - 1) if descends else start] for start, stop, _ in groups[1:]]
    partitions = tuple(Partition(tuple(held), sort=descends or len(held) > 1) for *_, held in groups)
    return partitions if groups else (Partition(()),), (first, *starts, last)


def _label_groups(tasks: Sequence[ScanTask], labels: Any) -> list[tuple[int, int, list[ScanTask]]]:
    """Group tasks that share positions or labels of the index: start, stop, and the tasks in their order."""
    groups: list[tuple[int, int, list[int]]] = []
    for number in sorted(range(len(tasks)), key=lambda i: tasks[i].index[0].hull):
        start, stop = tasks[number].index[0].hull
        if groups and (start < groups[-1][1] or labels[start] == labels[groups[-1][1] - 1]):
            begin, end, held = groups.pop()
            groups.append((begin, max(end, stop), [*held, number]))
        else:
            groups.append((start, stop, [number]))
    return [(start, stop, [tasks[i] for i in sorted(held)]) for start, stop, held in groups]


def read_partitions(
    partitions: Sequence[Partition],
    columns: tuple[Column, ...],
    schema: PandasSchema,
    limit: int | None,
    home: str | None,
) -> Any:
    """Read the rows of some partitions as one frame.

    A top-level function of plain data, like `worker.run_task`.

    Parameters
    ----------
    partitions : sequence of Partition
        Partitions in order.
    columns : tuple of Column
        Columns to read, including the index.
    schema : PandasSchema
        Dtypes of the columns.
    limit : int or None
        Upper bound of the rows, from the first.
    home : str or None
        Result of `home_of` for the store.

    Returns
    -------
    pandas.DataFrame
        Rows in task order. If a partition needs sorting, rows of one label are in task order.

    Raises
    ------
    StoreError
        If the store lives in the memory of another process.
    ChunkReadError
        If a chunk cannot be fetched or decoded.
    """
    if home not in (None, _PROCESS_NAME):
        check_travels(schema.spec)
    pieces: list[Any] = []
    for partition in partitions:
        if limit is not None and limit <= 0:
            break
        rows = [schema.frame(columns, part) for part in _read_tasks(partition, columns, limit)]
        if partition.sort:
            rows = [concat_frames(rows, schema).sort_index(kind="stable")]
        pieces += rows
        limit = None if limit is None else limit - sum(map(len, rows))
    return concat_frames(pieces, schema) if pieces else schema.empty(columns)


def home_of(spec: StoreSpec) -> str | None:
    """Return the name of this process if the store lives in its memory; None if every process can read the store."""
    try:
        check_travels(spec)
    except StoreError:
        return _PROCESS_NAME
    return None


_PROCESS_NAME = uuid.uuid4().hex


def _read_tasks(partition: Partition, columns: tuple[Column, ...], limit: int | None) -> Iterator[CompactFrame]:
    """Yield the rows of each task, or of as many beginnings of tasks as the limit needs."""
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
    """Yield growing beginnings of a task. The last one has ``count`` rows, or is the whole task."""
    while task.scan.filters and count < task.max_rows and (beginning := task.head(count)) is not task:
        yield beginning
        count *= HEAD_GROWTH_FACTOR
    yield task.head(count)


HEAD_GROWTH_FACTOR = 16
"""Factor by which the beginning of a task grows per attempt, while too few of its rows pass the filter."""
