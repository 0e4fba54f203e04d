"""`run_partial`: the partial states of one task, made where its chunks are decoded."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import and_
from typing import Any

import numpy as np
import polars as pl
from dask.base import normalize_token, tokenize

from rainbear_dask.aggregation.groups import BlockCodes, TaskGroups
from rainbear_dask.aggregation.merging import Partial, Product
from rainbear_dask.aggregation.reduction import count_cells, reduce_values, reduce_weighted
from rainbear_dask.aggregation.states import CELLS, GroupStates, by_operand, widened
from rainbear_dask.aggregation.terms import GroupColumns, Mask, TaskColumns, Term, Values
from rainbear_dask.execution.columns import read_columns
from rainbear_dask.execution.graph import content_of
from rainbear_dask.execution.groups import ChunkGroup, consume_groups
from rainbear_dask.execution.worker import cells_of, on_a_thread
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.table.tidy import CellMask


@dataclass(frozen=True, slots=True)
class Operand:
    """Values that some aggregates of a question reduce.

    Parameters
    ----------
    term : Term
        The values.
    keep : Term or None
        Condition of the cells that count, beside the filters of the scan.
    kinds : tuple of str
        Kinds of states that the aggregates need.
    factors : tuple of Term, optional
        For a sum of products: the values, and weights of coordinates alone.
    """

    term: Term
    keep: Term | None
    kinds: tuple[str, ...]
    factors: tuple[Term, Term] | None = None


@dataclass(frozen=True)
class PartialTask(ScanTask):
    """The cells that one worker reduces to partial states, as plain data.

    Parameters
    ----------
    operands : tuple of Operand
        What all tasks of the question reduce.
    blocks : tuple of BlockCodes
        The groups of the task's positions.
    """

    operands: tuple[Operand, ...] = ()
    blocks: tuple[BlockCodes, ...] = ()

    @property
    def frame_bytes(self) -> int:
        """Upper bound of the bytes of the states."""
        num_states = 1 + sum(len(operand.kinds) for operand in self.operands)
        return 8 * num_states * prod(block.count for block in self.blocks)


def _content(task: PartialTask) -> tuple[Any, ...]:
    codes = [(block.axes, block.groups.tobytes(), block.codes.tobytes()) for block in task.blocks]
    return "partial", content_of(task), tokenize(repr(task.operands)), tokenize(codes)


normalize_token.register(PartialTask, _content)


def run_partial(task: PartialTask) -> Partial:
    """Reduce the chunks of one task to partial states.

    A top-level function of plain data: it pickles by name, and a retry on another worker returns the same bits.

    Parameters
    ----------
    task : PartialTask
        The task to run.

    Returns
    -------
    Partial
        Its states.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded; the message names array and chunk.
    """
    with on_a_thread():
        return _run(task)


def _run(task: PartialTask) -> Partial:
    scan, index = task.scan, dict(zip(task.scan.dims, task.index, strict=True))
    box = {dim: len(positions) for dim, positions in index.items()}
    named = {c.name: c for columns in (scan.columns, *(f.columns for f in scan.filters)) for c in columns}
    stored = [column for column in named.values() if column.role == "data"]
    coordinates = [column for column in named.values() if column.role != "data"]
    columns = TaskColumns(list(named.values()), read_columns(scan.spec, coordinates, index, CellMask(box)), box)
    filters = [Term(f.predicate, tuple(c.name for c in f.columns)) for f in scan.filters]
    here = [term for term in filters if {*term.columns} <= {*columns.coordinates}]
    cells = _wanted(columns, here, CellMask(box, cells_of(task)))
    left = tuple(term for term in filters if term not in here)
    counts_all = cells.wanted is None and not left
    groups = TaskGroups(tuple(box.values()), task.blocks)
    whole = tuple(slice(0, length) for length in box.values())

    def make() -> _Reduction:
        return _Reduction(task.operands, left, columns, groups, counts_all=counts_all)

    if not cells.count:
        strips = []
    elif stored:
        strips = consume_groups(scan.spec, stored, index, cells, make)
    else:
        alone = make()
        alone.use(ChunkGroup(index, whole, cells, {}))
        strips = [alone.done()]
    states = GroupStates(groups.shape)
    for strip in strips:
        for operand, at, parts in strip:
            states.add(operand, at, parts, adopt=True)
    numbers = tuple(block.groups for block in task.blocks)
    return Partial(numbers, states.arrays, (Product(numbers, *groups.counts),) if counts_all else ())


def _wanted(columns: TaskColumns, filters: list[Term], cells: CellMask) -> CellMask:
    """Apply filters on coordinates alone."""
    for term in filters:
        if not cells.count:
            return cells
        own = cells.along({dim for name in term.columns for dim in columns.columns[name].dims})
        laid_out = [
            own.lay_out(columns.coordinates[name], columns.columns[name].dims).alias(name) for name in term.columns
        ]
        passed = pl.DataFrame(laid_out).select(term.build()).to_series().fill_null(value=False)
        kept = own.where(passed.to_numpy())
        wanted = np.broadcast_to(kept if cells.wanted is None else kept & cells.wanted, tuple(cells.box.values()))
        cells = CellMask(cells.box, wanted)
    return cells


_MAX_STRIP_GROUPS = 2**14
"""Groups of a task, at most, for which each strip has states of its own. Of more groups, a strip touches few."""

_Part = tuple[int, Any, Mapping[str, Any]]
"""Operand, index among the groups of the task, and arrays over these groups by kind."""


class _Reduction:
    """Reduces the groups of one strip."""

    def __init__(
        self,
        operands: tuple[Operand, ...],
        filters: tuple[Term, ...],
        columns: TaskColumns,
        groups: TaskGroups,
        *,
        counts_all: bool,
    ) -> None:
        self._operands, self._filters = operands, filters
        self._columns, self._groups = columns, groups
        self._counts_all = counts_all
        self._states = GroupStates(groups.shape)
        self._parts: list[_Part] = []

    def use(self, group: ChunkGroup) -> None:
        """Reduce one group."""
        values = GroupColumns(self._columns, group)
        mask = group.cells.wanted
        for term in self._filters:
            mask = _also(mask, values, term)
            if not mask.any():
                return
        reducer = self._groups.reducer(group.place)
        if not self._counts_all:
            count = reducer.counts if mask is None else count_cells(reducer, mask)
            self._keep(CELLS, reducer.at, {"n": count})
        for number, operand in enumerate(self._operands):
            kept = mask if operand.keep is None else _also(mask, values, operand.keep)
            parts = self._reduce(values, reducer, operand, kept)
            self._keep(number, reducer.at, parts)

    def _keep(self, operand: int, at: Any, parts: dict[str, Any]) -> None:
        if prod(self._groups.shape) <= _MAX_STRIP_GROUPS:
            self._states.add(operand, at, parts)
        else:  # copied, because a value that is alone in its group lies in the buffer of its chunk
            self._parts.append((operand, at, {kind: widened(kind, part) for kind, part in parts.items()}))

    def _reduce(self, values: GroupColumns, reducer: Any, operand: Operand, mask: Mask | None) -> dict[str, Any]:
        kinds = operand.kinds if self._counts_all else tuple(_COUNTED.get(kind, kind) for kind in operand.kinds)
        if operand.factors is not None:
            data, weights = operand.factors
            weighed = self._columns.coordinate_values(weights)
            if weighed is not None and _are_finite(weighed):
                factor = values.values(weights, mask).values
                assert factor is not None  # noqa: S101  a part of the weights
                return reduce_weighted(reducer, values.values(data, mask), factor, mask, kinds)
        return reduce_values(reducer, values.values(operand.term, mask), mask, kinds)

    def done(self) -> list[_Part]:
        """Return the states of the strip, in the order in which they merge."""
        return [*self._parts, *((operand, ..., parts) for operand, parts in by_operand(self._states.arrays))]


def _are_finite(weights: Values) -> bool:
    return weights.valid is None and weights.values is not None and bool(np.isfinite(weights.values).all())


_COUNTED = {"missing": "n"}
"""Where cells are missing from the start, values are counted."""


def _also(mask: Mask | None, values: GroupColumns, term: Term) -> Mask:
    """Return the cells of a mask at which a condition is true."""
    found = values.values(term, mask).settled()
    parts = [part for part in (mask, found.values, found.valid) if part is not None]
    return reduce(and_, parts)
