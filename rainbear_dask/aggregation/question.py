"""What an aggregation asks of the cells of a plan, as plain data, and the tasks that answer it."""

from collections.abc import Iterable, Iterator, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PanicException, PolarsError

from rainbear_dask.aggregation.algebra import Aggregate
from rainbear_dask.aggregation.groups import BlockCodes, renumbered
from rainbear_dask.aggregation.partial import Operand, PartialTask
from rainbear_dask.aggregation.terms import Term
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.table.columns import prefetch, whole_column
from rainbear_dask.table.model import Table
from rainbear_dask.table.tidy import spread

MAX_BLOCK_CELLS = 2**22
"""Cells of the dimensions of one block of keys, at most: Polars groups them in this process."""

_MAX_ROWS_AT_ONCE = 2**22
"""Rows of a question on coordinates alone that one task answers, at most."""


class Unsplit(Exception):  # noqa: N818  not an error: it says why a part of a query stays with Polars
    """Says why Polars itself computes a part of a query. Its message completes "because"."""


@dataclass(frozen=True, slots=True, eq=False)
class KeyBlock:
    """Keys that share dimensions, and the groups that they make of the cells of these dimensions.

    Parameters
    ----------
    dims : tuple of str
        Dimensions, in the order of the table.
    keys : DataFrame
        One row for each group, one column for each key.
    codes : ndarray of int32
        Number of the group of each cell; one axis for each dimension. Negative outside of the selection.
    first : ndarray of int64
        For each group, the lowest row number of its cells, as far as these dimensions decide it.
    """

    dims: tuple[str, ...]
    keys: pl.DataFrame
    codes: npt.NDArray[np.int32]
    first: npt.NDArray[np.int64]


@dataclass(frozen=True, eq=False)
class Question:
    """An aggregation over the rows of a plan.

    Parameters
    ----------
    plan : ReadPlan
        The rows, and the columns that the aggregation needs.
    keys : tuple of (str, Term)
        Keys of the groups, functions of coordinates; none for one group of all rows.
    operands : tuple of Operand
        What tasks reduce.
    aggregates : tuple of Aggregate
        Results of the operands; ``a0``, ``a1``, ... in ``outputs``.
    outputs : tuple of (str, bytes)
        Columns of the result behind the keys: expressions of the aggregates, serialized by Polars.
    schema : dict of str to DataType
        Columns of the result.
    ordered : bool
        Whether groups are in the order of their first rows.
    """

    plan: ReadPlan
    keys: tuple[tuple[str, Term], ...]
    operands: tuple[Operand, ...]
    aggregates: tuple[Aggregate, ...]
    outputs: tuple[tuple[str, bytes], ...]
    schema: dict[str, pl.DataType]
    ordered: bool = False

    @cached_property
    def blocks(self) -> tuple[KeyBlock, ...]:
        """The groups. Reads the coordinates that the keys name.

        Raises
        ------
        Unsplit
            If a block has too many cells, or Polars cannot evaluate a key on all labels.
        """
        return key_blocks(self.plan, self.keys)

    def tasks(self) -> Iterator[PartialTask]:
        """Yield the tasks in row order, lazily."""
        yield from self.partial_tasks(self.scan_tasks())

    def partial_tasks(self, tasks: Iterable[ScanTask]) -> Iterator[PartialTask]:
        """Yield the task that reduces the rows of each of some tasks."""
        known: dict[Any, BlockCodes] = {}
        dims = list(self.plan.table.sizes)
        for task in tasks:
            found = []
            for number, block in enumerate(self.blocks):
                axes = tuple(dims.index(dim) for dim in block.dims)
                along = [task.index[axis] for axis in axes]
                key = (number, *((one.starts.tobytes(), one.stops.tobytes()) for one in along))
                if key not in known:
                    codes = block.codes[np.ix_(*(one.positions() for one in along))]
                    # a position outside of the selection lies in the box of the task, but in none of its rows
                    groups, local = renumbered(np.maximum(codes, 0), max(block.keys.height, 1))
                    known[key] = BlockCodes(axes, local, groups)
                found.append(known[key])
            yield PartialTask(task.scan, task.index, task.max_rows, task.boxes, self.operands, tuple(found))

    def scan_tasks(self) -> Iterator[ScanTask]:
        """Yield the rows of each task, in row order; one task if no variable is read."""
        plan = self.plan
        boxes = plan.selection.boxes
        if not plan.arrays and len(boxes) == 1 and all(plan.table.sizes.values()):
            index = tuple(boxes[0].get(dim) or IndexSet.span(0, n) for dim, n in plan.table.sizes.items())
            # without a filter, cells are counted and not laid out
            if (num_rows := prod(map(len, index))) <= _MAX_ROWS_AT_ONCE or not plan.filters:
                return iter([ScanTask(plan.layout.scan, index, num_rows)])
        return plan.tasks()

    @property
    def group_bytes(self) -> int:
        """Bytes of the states of one group, at most."""
        return 8 * (1 + sum(len(operand.kinds) for operand in self.operands))

    @cached_property
    def keeps_row_order(self) -> bool:
        """Whether the first rows of groups follow from coordinates alone."""
        plan = self.plan
        in_c_order = all(plan.table.blocks[dim] >= length for dim, length in plan.table.sizes.items())
        return in_c_order and not plan.filters and len(plan.selection.boxes) <= 1


def key_blocks(plan: ReadPlan, keys: Sequence[tuple[str, Term]]) -> tuple[KeyBlock, ...]:
    """Return the groups that keys of coordinates make, in blocks of keys that share dimensions; raises as `Question.blocks`."""
    table = plan.table
    parts: list[tuple[set[str], list[tuple[str, Term]]]] = []
    for key in keys:
        dims = {dim for name in key[1].columns for dim in table.columns[name].dims}
        touching = [part for part in parts if part[0] & dims]
        parts = [part for part in parts if not part[0] & dims]
        parts.append((dims.union(*(d for d, _ in touching)), [k for _, ks in touching for k in ks] + [key]))
    order = list(table.sizes)  # states then have the axes of the chunks
    parts.sort(key=lambda part: min(map(order.index, part[0])))
    return tuple(_block(plan, dims, some) for dims, some in parts)


def _block(plan: ReadPlan, dims: set[str], keys: Sequence[tuple[str, Term]]) -> KeyBlock:
    table = plan.table
    box = {dim: length for dim, length in table.sizes.items() if dim in dims}
    if prod(box.values()) > MAX_BLOCK_CELLS:
        raise Unsplit(f"keys over {', '.join(box)} have more than {MAX_BLOCK_CELLS:,} values")
    selected = _selected(plan, box)
    values = labels(table, tuple(box), {name for _, term in keys for name in term.columns})
    values = values.filter(pl.Series(selected)) if not selected.all() else values
    try:
        evaluated = values.select(term.build().alias(name) for name, term in keys)
    except (PolarsError, PanicException) as error:
        raise Unsplit(f"a key fails on a label: {error}") from error
    names = [name for name, _ in keys]
    cells = evaluated.with_columns(pl.Series(_CELL, np.flatnonzero(selected)))
    grouped = cells.group_by(names, maintain_order=True).agg(_CELL)
    codes = np.full(len(selected), -1, dtype=np.int32)
    numbers = np.arange(grouped.height, dtype=np.int32)
    codes[grouped[_CELL].explode().to_numpy()] = np.repeat(numbers, grouped[_CELL].list.len().to_numpy())
    first = grouped[_CELL].list.first().to_numpy() if grouped.height else np.zeros(0, np.int64)
    return KeyBlock(
        tuple(box), grouped.select(names), codes.reshape(tuple(box.values())), _row_numbers(table, box, first)
    )


def _selected(plan: ReadPlan, box: dict[str, int]) -> npt.NDArray[np.bool_]:
    """Return the cells of some dimensions that a row of the selection may have, flat."""
    boxes = plan.selection.boxes
    selected = np.zeros(tuple(box.values()), dtype=np.bool_)
    if all(plan.table.sizes.values()):
        for one in {tuple(found.get(dim) for dim in box): found for found in boxes}.values():
            selected[np.ix_(*(_positions(one.get(dim), length) for dim, length in box.items()))] = True
    return selected.reshape(-1)


_CELL = "__cell"


def labels(table: Table, dims: tuple[str, ...], names: set[str]) -> pl.DataFrame:
    """Return coordinates of a table at each cell of some dimensions, in C order."""
    box = {dim: table.sizes[dim] for dim in dims}
    columns = [table.columns[name] for name in sorted(names)]
    lengths = [prod(table.sizes[dim] for dim in column.dims) for column in columns]
    prefetch(table.spec, columns)
    found = [whole_column(table.spec, column, length) for column, length in zip(columns, lengths, strict=True)]
    return pl.DataFrame(
        [spread(values, column.dims, box).alias(column.name) for column, values in zip(columns, found, strict=True)]
    )


def _positions(index: IndexSet | None, length: int) -> npt.NDArray[np.int64]:
    return np.arange(length) if index is None else index.positions()


def _row_numbers(table: Table, box: dict[str, int], cells: npt.NDArray[Any]) -> npt.NDArray[np.int64]:
    """Return what cells of some dimensions add to the number of a row in C order of the table."""
    places = np.unravel_index(cells.astype(np.int64), tuple(box.values())) if len(cells) else [cells] * len(box)
    lengths = list(table.sizes.values())
    strides = {dim: prod(lengths[axis + 1 :]) for axis, dim in enumerate(table.sizes)}
    numbers = np.zeros(len(cells), dtype=np.int64)
    for dim, place in zip(box, places, strict=True):
        numbers += strides[dim] * place.astype(np.int64)
    return numbers
