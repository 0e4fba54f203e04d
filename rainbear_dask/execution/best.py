"""The first rows of a task in some order: a worker reads the keys of the order, and the other columns at few rows."""

from dataclasses import dataclass, field
from io import BytesIO
from typing import Any

import polars as pl
from dask.base import normalize_token, tokenize

from rainbear_dask.execution.graph import content_of
from rainbear_dask.execution.wire import CompactFrame
from rainbear_dask.execution.worker import filtered, on_a_thread, run_task
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.table.model import Column


@dataclass(frozen=True, slots=True)
class Order:
    """The first rows of an order.

    Parameters
    ----------
    by : tuple of bytes
        Keys: expressions of a table's columns, serialized by Polars.
    descending, nulls_last : tuple of bool
        As in `polars.LazyFrame.sort`, one for each key.
    count : int
        Number of rows.
    """

    by: tuple[bytes, ...]
    descending: tuple[bool, ...]
    nulls_last: tuple[bool, ...]
    count: int

    def first(self, frame: pl.DataFrame) -> pl.Series:
        """Return the numbers of the first rows of a frame; rows that are equal stay in their order."""
        names = [f"k{number}" for number in range(len(self.by))]
        keys = [pl.Expr.deserialize(BytesIO(expr)).alias(name) for expr, name in zip(self.by, names, strict=True)]
        found = (
            frame.lazy()
            .select(keys)
            .with_row_index("row")
            .sort(names, descending=self.descending, nulls_last=self.nulls_last, maintain_order=True)
            .head(self.count)
        )
        return found.collect(engine="in-memory")["row"]


@dataclass(frozen=True)
class BestTask(ScanTask):
    """The rows of which one worker returns the first ones of an order.

    Parameters
    ----------
    order : Order
        The order.
    keys : tuple of Column
        Columns that its keys name.
    """

    order: Order = field(kw_only=True)
    keys: tuple[Column, ...] = field(kw_only=True)

    @property
    def frame_bytes(self) -> int:
        """Estimated upper bound of the bytes of the result."""
        return min(self.max_rows, self.order.count) * sum(column.width for column in self.scan.columns)


def _content(task: BestTask) -> tuple[Any, ...]:
    return "best", content_of(task), tokenize(repr(task.order))


normalize_token.register(BestTask, _content)


def run_best(task: BestTask) -> CompactFrame:
    """Return the first rows of a task in an order, themselves in the order of the table.

    A top-level function of plain data: it pickles by name, and a retry on another worker returns the same rows.

    Parameters
    ----------
    task : BestTask
        The task to run.

    Returns
    -------
    CompactFrame
        The rows, with the columns of the task.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names array and chunk.
    """
    if task.max_rows <= task.order.count:
        return run_task(task)
    with on_a_thread():
        left = filtered(task)
        if left.cells.count > task.order.count:
            left.choose(task.keys, task.order.first)
        return left.rows()
