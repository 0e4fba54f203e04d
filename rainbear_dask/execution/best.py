"""The first rows of a task in some order: a worker reads the keys of the order, and the other columns at few rows.

If the order has one key, a variable, its chunks are compared where they are decoded: once some rows are known, the last
of them is a bound, and a gate lets pass no worse row.
"""

from dataclasses import dataclass, field
from io import BytesIO
from threading import Lock
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from dask.base import normalize_token, tokenize

from rainbear_dask.execution.gates import Gate, gate_of, with_fills
from rainbear_dask.execution.graph import content_of
from rainbear_dask.execution.groups import ChunkGroup, consume_groups
from rainbear_dask.execution.survivors import AtCells, can_pick, decoded, is_sparse, joined, true_positions
from rainbear_dask.execution.wire import CompactFrame
from rainbear_dask.execution.worker import cells_of, filtered, on_a_thread, run_task
from rainbear_dask.planning.task import Filter, ScanTask
from rainbear_dask.table.model import Column
from rainbear_dask.table.order import in_order
from rainbear_dask.table.tidy import CellMask

_MANY = 16
"""Times as many rows as are wanted, from which on most are dropped before they are sorted."""

_SAMPLE = 2**13
"""Cells of a group that are put in order for a first bound, unless more rows are wanted."""


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
        keys = frame.select(_expr(expr).alias(name) for expr, name in zip(self.by, names, strict=True))
        keys = keys.with_row_index("row")
        if len(keys) > _MANY * self.count > 0:  # a stable sort of all rows takes longer than a look at one key
            worst = (
                keys["k0"].to_frame().lazy().sort("k0", descending=self.descending[0], nulls_last=self.nulls_last[0])
            )
            keys = keys.filter(
                self.no_worse(pl.col("k0"), worst.slice(self.count - 1, 1).collect(engine="in-memory")["k0"])
            )
        ordered = keys.lazy().sort(names, descending=self.descending, nulls_last=self.nulls_last, maintain_order=True)
        return ordered.head(self.count).collect(engine="in-memory")["row"]

    def no_worse(self, key: pl.Expr, worst: pl.Series) -> pl.Expr:
        """Return the condition that the first key of a row is not behind one value."""
        null_is_first = key.is_null() if not self.nulls_last[0] else pl.lit(value=False)
        if worst.null_count():  # and all values that are not null come first, if it is last
            return pl.lit(value=True) if self.nulls_last[0] else null_is_first
        value = pl.lit(worst[0], dtype=worst.dtype)
        return null_is_first | (key >= value if self.descending[0] else key <= value)


@dataclass(frozen=True)
class BestTask(ScanTask):
    """The rows that one worker puts in an order, to return the first ones.

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
        if _has_gate(task):
            left.take(*_candidates(task))
        if left.cells.count > task.order.count:
            left.choose(task.keys, task.order.first)
        return left.rows()


def _has_gate(task: BestTask) -> bool:
    """Whether a bound on the only key, a variable, may spare rows before any is laid out."""
    order, index = task.order, dict(zip(task.scan.dims, task.index, strict=True))
    return (
        len(order.by) == len(task.keys) == 1
        and pl.col(task.keys[0].name).meta.eq(_expr(order.by[0]))
        and not task.scan.filters
        and in_order(task.index, task.scan.blocks)
        and can_pick(task.scan.spec, task.keys, index)
    )


def _candidates(task: BestTask) -> tuple[CellMask, dict[str, pl.Series]]:
    """Return cells that hold the first rows, and the values of the key there."""
    index = dict(zip(task.scan.dims, task.index, strict=True))
    cells, bound = CellMask({dim: len(some) for dim, some in index.items()}, cells_of(task)), _Bound(task)
    picked = consume_groups(task.scan.spec, task.keys, index, cells, lambda: _Candidates(task, cells, bound))
    found, stored = joined(picked, task.keys, cells.box)
    if not is_sparse(found):
        found = CellMask(found.box, found.wanted)
    return found, decoded(task.keys, stored)


class _Bound:
    """The last of some rows that come first, as a gate; strips share it."""

    def __init__(self, task: BestTask) -> None:
        (self._column,), self._order = task.keys, task.order
        self._worst: pl.Series | None = None
        self._lock = Lock()
        self.gate: Gate | None = None

    def tighten(self, worst: pl.Series) -> None:
        """Learn that enough rows are no worse than one value."""
        if worst.null_count():
            return  # null comes first
        descending, column = self._order.descending[0], pl.col(self._column.name)
        with self._lock:
            known = worst if self._worst is None else self._worst.append(worst)
            self._worst = known.sort(descending=descending).head(1)
            value = pl.lit(self._worst[0], dtype=worst.dtype)
            passes = column >= value if descending else column <= value
            gate = self._gate(passes if self._order.nulls_last[0] else passes | column.is_null())
            if gate is None and not self._order.nulls_last[0]:
                gate = self._gate(passes)
                gate = None if gate is None else with_fills(gate, self._column)
            self.gate = gate

    def _gate(self, passes: pl.Expr) -> Gate | None:
        return gate_of(Filter(passes.meta.serialize(), (self._column,)))


class _Candidates(AtCells):
    """Consumer: stored values at cells that may hold the first rows."""

    def __init__(self, task: BestTask, cells: CellMask, bound: _Bound) -> None:
        super().__init__(task.keys, cells.box)
        self._task, self._bound = task, bound

    def use(self, group: ChunkGroup) -> None:
        step = group.cells.count // max(_SAMPLE, _MANY * self._task.order.count)
        if self._bound.gate is None and step > 1:
            self._first(group, group.cells.rows[::step])
        gate = self._bound.gate
        rows = group.cells.rows if gate is None else true_positions(self.by_gate(gate, group))
        if len(rows) > self._task.order.count:
            rows = self._first(group, rows)
        if len(rows):
            self.pick(group, rows)

    def _first(self, group: ChunkGroup, rows: npt.NDArray[np.int64]) -> npt.NDArray[np.int64]:
        """Return the first ones of some rows; the last of them tightens the bound."""
        stored = group.stored[self._task.keys[0].name].reshape(-1)[rows]
        values = pl.DataFrame(decoded(self._task.keys, [stored]))
        first = self._task.order.first(values)
        if self._task.order.count:
            self._bound.tighten(values.to_series()[first[-1:]])
        found: npt.NDArray[np.int64] = rows[np.sort(first.to_numpy())]
        return found


def _expr(data: bytes) -> pl.Expr:
    return pl.Expr.deserialize(BytesIO(data))
