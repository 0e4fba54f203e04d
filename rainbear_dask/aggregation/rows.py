"""Row space: Polars reduces the rows of each task in the worker, and merges the parts in the order of the rows.

It serves keys that are data variables, and aggregates that array space lacks. A part is a frame: one row for each group
of the task, in the order of first appearance, with the keys and one column for each state.
"""

from collections.abc import Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import polars as pl
from dask.base import normalize_token, tokenize

from rainbear_dask.aggregation.cohorts import whole_tasks
from rainbear_dask.aggregation.terms import Term
from rainbear_dask.execution.graph import content_of
from rainbear_dask.execution.wire import CompactColumn, CompactFrame
from rainbear_dask.execution.worker import run_task
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.task import ScanTask

MIN_MERGED_ROWS = 2**16
"""Groups of parts that wait for a merge, at least: merging a few rows takes as long as merging thousands."""

Expressions = tuple[tuple[str, bytes], ...]
"""Names, and expressions that Polars serialized."""


@dataclass(frozen=True, slots=True)
class Grouping:
    """How rows become groups, as plain data.

    Parameters
    ----------
    columns : tuple of (str, bytes)
        Expressions of the scan's columns that keys and aggregates name.
    keys : tuple of str
        The keys among them; none for one group of all rows.
    aggregates : tuple of (str, bytes)
        Aggregates of the columns.
    merges : tuple of (str, bytes)
        How aggregates of parts become aggregates of the whole; none if the groups of a part are final.
    """

    columns: Expressions
    keys: tuple[str, ...]
    aggregates: Expressions
    merges: Expressions = ()

    def of_rows(self, rows: pl.DataFrame) -> pl.DataFrame:
        """Return the groups of the rows of a task, in the order of first appearance."""
        table = rows.lazy().select(_built(self.columns)) if self.columns else rows.lazy()
        return _grouped(table, self.keys, _built(self.aggregates))

    def merged(self, parts: Sequence[pl.DataFrame]) -> pl.DataFrame:
        """Merge the groups of parts, in their order."""
        return _grouped(pl.concat(parts).lazy(), self.keys, _built(self.merges))


def _built(expressions: Expressions) -> list[pl.Expr]:
    return [pl.Expr.deserialize(BytesIO(expr)).alias(name) for name, expr in expressions]


def _grouped(table: pl.LazyFrame, keys: tuple[str, ...], aggregates: list[pl.Expr]) -> pl.DataFrame:
    found = table.group_by(keys, maintain_order=True).agg(aggregates) if keys else table.select(aggregates)
    return found.collect(engine="in-memory")  # the engine of the caller's settings may be ours


@dataclass(frozen=True)
class RowTask(ScanTask):
    """Rows that one worker groups, as plain data.

    Parameters
    ----------
    grouping : Grouping
        What the tasks of the question share.
    """

    grouping: Grouping = field(default_factory=lambda: Grouping((), (), ()))


def _content(task: RowTask) -> tuple[Any, ...]:
    return "rows", content_of(task), tokenize(repr(task.grouping))


normalize_token.register(RowTask, _content)


@dataclass(frozen=True, slots=True, eq=False)
class Part:
    """The groups of a task, or its rows if these are smaller.

    Parameters
    ----------
    frame : CompactFrame
        The groups or the rows.
    grouping : Grouping
        How rows become groups.
    is_grouped : bool
        Whether the frame holds groups.
    """

    frame: CompactFrame
    grouping: Grouping
    is_grouped: bool = True

    @classmethod
    def of(cls, groups: pl.DataFrame, grouping: Grouping) -> "Part":
        """Return a part of some groups."""
        return cls(CompactFrame(groups.height, tuple(map(CompactColumn, groups.iter_columns()))), grouping)

    def groups(self) -> pl.DataFrame:
        """Return the groups."""
        frame = self.frame.to_polars()
        return frame if self.is_grouped else self.grouping.of_rows(frame)

    def settled(self) -> "Part":
        """Return the part with groups."""
        return self if self.is_grouped else Part.of(self.groups(), self.grouping)

    def __sizeof__(self) -> int:
        """Return the bytes held; Dask sums them up to know the memory use of a worker."""
        return object.__sizeof__(self) + self.frame.__sizeof__()


def merge_parts(parts: Sequence[Part]) -> Part:
    """Merge parts in their order; a top-level function, which workers call."""
    grouping = parts[0].grouping
    return Part.of(grouping.merged([part.groups() for part in parts]), grouping)


def run_rows(task: RowTask) -> Part:
    """Group the rows of one task.

    A top-level function of plain data: it pickles by name, and a retry on another worker returns the same groups.

    Parameters
    ----------
    task : RowTask
        The task to run.

    Returns
    -------
    Part
        The smaller of its groups and its rows. So no part has more bytes than the rows.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names array and chunk.
    """
    rows = run_task(task)
    part = Part.of(task.grouping.of_rows(rows.to_polars()), task.grouping)
    return part if part.__sizeof__() <= rows.__sizeof__() else Part(rows, task.grouping, is_grouped=False)


@dataclass(frozen=True, eq=False)
class RowQuestion:
    """An aggregation in row space.

    Parameters
    ----------
    plan : ReadPlan
        The rows, and the columns that the aggregation needs.
    keys : tuple of (str, Term)
        Keys of the result.
    grouping : Grouping
        How the rows of a task become states; its keys are in the order of ``keys``.
    outputs : tuple of (str, bytes)
        Columns of the result behind the keys: expressions of the states.
    schema : dict of str to DataType
        Columns of the result.
    sets : dict of str to list of IndexSet, optional
        Positions along each dimension such that each product of them holds all rows of its groups. Tasks are these
        products, so their groups are final.
    """

    plan: ReadPlan
    keys: tuple[tuple[str, Term], ...]
    grouping: Grouping
    outputs: Expressions
    schema: dict[str, pl.DataType]
    sets: dict[str, list[IndexSet]] | None = None

    def tasks(self) -> Iterator[RowTask]:
        """Yield the tasks lazily: in row order, or with whole groups."""
        for task in self.plan.tasks() if self.sets is None else whole_tasks(self.plan, self.sets):
            yield RowTask(task.scan, task.index, task.max_rows, task.boxes, self.grouping)

    @property
    def num_tasks(self) -> int:
        """Number of tasks whose groups merge; 1 if the groups of each task are final."""
        return 1 if self.sets is not None else self.plan.counts.num_tasks

    def answers(self, parts: Iterator[Part]) -> Iterator[pl.DataFrame]:
        """Yield the answer: the parts of all tasks, merged in their order, or each part if tasks hold whole groups."""
        with closing(parts):  # type: ignore[type-var]  # a generator
            groups = (part.groups() for part in parts)
            if self.sets is None:
                yield self._finished(self._merged(groups))
                return
            yield pl.DataFrame(schema=self.schema)
            yield from map(self._finished, groups)

    def _merged(self, groups: Iterable[pl.DataFrame]) -> pl.DataFrame:
        no_row = pl.DataFrame(schema={column.name: column.dtype for column in self.plan.columns})
        merged, waiting = self.grouping.of_rows(no_row), list[pl.DataFrame]()
        for some in groups:
            waiting.append(some)
            if sum(each.height for each in waiting) >= max(merged.height, MIN_MERGED_ROWS):
                merged, waiting = self.grouping.merged([merged, *waiting]), []
        return self.grouping.merged([merged, *waiting])

    def _finished(self, states: pl.DataFrame) -> pl.DataFrame:
        keys = [pl.col(key).alias(name) for key, (name, _) in zip(self.grouping.keys, self.keys, strict=True)]
        return states.select(*keys, *_built(self.outputs)).cast(self.schema)  # type: ignore[arg-type]
