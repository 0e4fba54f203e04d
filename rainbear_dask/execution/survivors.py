"""Values at few cells of a task, picked group by group: the rows that pass a filter, and other columns at such rows."""

from collections.abc import Mapping, Sequence
from threading import Lock
from typing import NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.execution.columns import MAX_CACHED_CHUNK_BYTES, read_columns
from rainbear_dask.execution.filters import evaluate, mask_of
from rainbear_dask.execution.gates import Gate, gate_of
from rainbear_dask.execution.groups import ChunkGroup, Values, consume_groups
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.planning.task import Filter
from rainbear_dask.resources.buffers import borrow_array
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column
from rainbear_dask.table.tidy import CellMask

CELLS_PER_ROW = 50
"""Cells for each row from which on single values are picked. If there are more rows, copying all cells is faster."""


def is_sparse(cells: CellMask) -> bool:
    """Whether so few cells of a box are wanted that their values are picked one by one."""
    return CELLS_PER_ROW * cells.count <= cells.size


def can_pick(spec: StoreSpec, columns: Sequence[Column], index: Mapping[str, IndexSet]) -> bool:
    """Whether columns can be read group by group: they are numbers over all dimensions of the table.

    A backend caches the chunks of small tasks instead.
    """
    arrays = [c.array for c in columns if c.dims == tuple(index) and c.array and c.array.dtype.kind in "biuf"]
    if not arrays or len(arrays) < len(columns):
        return False
    box = [dict(index)]
    return not spec.max_chunks or sum(a.chunk_bytes * a.grid.count(box) for a in arrays) > MAX_CACHED_CHUNK_BYTES


def passing(
    test: Filter, spec: StoreSpec, index: Mapping[str, IndexSet], cells: CellMask
) -> tuple[CellMask, dict[str, pl.Series]]:
    """Evaluate a filter on data variables, group by group.

    Parameters
    ----------
    test : Filter
        The filter; `can_pick` holds for its data variables.
    spec : StoreSpec
        The store.
    index : mapping of str to IndexSet
        Positions along each dimension of the table, in row order.
    cells : CellMask
        The wanted cells of their product.

    Returns
    -------
    cells : CellMask
        The wanted cells that pass.
    values : dict of str to Series
        Values of the filter's data variables at these cells, in C order of the box.

    Raises
    ------
    EvaluationError
        If the filter fails on a row.
    """
    data = [column for column in test.columns if column.role == "data"]
    gate, dense = gate_of(test), _DenseGroups(cells, data)
    picked = consume_groups(spec, data, index, cells, lambda: _Passing(test, gate, spec, data, dense))
    cells, stored = dense.with_rows(picked) if dense.has_any else joined(picked, data, cells.box)
    values = decoded(data, stored)
    if gate is None:
        return cells, values
    passed = evaluate(test, values, cells.count)
    values = {name: some.filter(passed) for name, some in values.items()}
    return cells.keep(mask_of(passed)), values


def values_at(
    spec: StoreSpec, columns: Sequence[Column], index: Mapping[str, IndexSet], cells: CellMask
) -> dict[str, pl.Series]:
    """Read columns at few cells, group by group; groups without a wanted cell are not read.

    Parameters
    ----------
    spec, index, cells
        As in `passing`.
    columns : sequence of Column
        Columns for which `can_pick` holds.

    Returns
    -------
    dict of str to Series
        For each column a value for each wanted cell, in C order of the box.
    """
    picked = consume_groups(spec, columns, index, cells, lambda: AtCells(columns, cells.box))
    return decoded(columns, joined(picked, columns, cells.box)[1])


class Picked(NamedTuple):
    """Row numbers in the box of the task, and the stored values there."""

    rows: npt.NDArray[np.int64]
    values: tuple[Values, ...]


class AtCells:
    """Consumer: stored values at the wanted cells."""

    def __init__(self, columns: Sequence[Column], box: Mapping[str, int]) -> None:
        self._names, self._shape = [column.name for column in columns], tuple(box.values())
        self._picked = list[Picked]()
        self._mask = np.empty(0, np.bool_)

    def use(self, group: ChunkGroup) -> None:
        self.pick(group, group.cells.rows)

    def pick(self, group: ChunkGroup, rows: npt.NDArray[np.int64]) -> None:
        """Keep copies of the values of some rows of a group."""
        along = np.unravel_index(rows, [at.stop - at.start for at in group.place])
        places = [at.start + some for at, some in zip(group.place, along, strict=True)]
        values = tuple(group.stored[name].reshape(-1)[rows] for name in self._names)
        self._picked.append(Picked(np.ravel_multi_index(places, self._shape), values))

    def by_gate(self, gate: Gate, group: ChunkGroup) -> npt.NDArray[np.bool_]:
        """Return the mask of the cells that may pass, flat; the next call overwrites it."""
        stored = group.stored[self._names[0]]
        if self._mask.size < stored.size:
            self._mask = borrow_array([stored.size], np.bool_)
        mask = self._mask[: stored.size]
        gate(stored, mask.reshape(stored.shape))
        if group.cells.wanted is not None:
            mask &= group.cells.wanted.reshape(-1)
        return mask

    def done(self) -> list[Picked]:
        return self._picked


class _Passing(AtCells):
    """Consumer: stored values at the wanted cells that may pass a filter.

    If many cells of a group pass, all of its values are copied to their place, because picking them would take longer.
    """

    def __init__(
        self, test: Filter, gate: Gate | None, spec: StoreSpec, columns: Sequence[Column], dense: "_DenseGroups"
    ) -> None:
        super().__init__(columns, dense.box)
        self._test, self._gate, self._spec, self._columns, self._dense = test, gate, spec, columns, dense

    def use(self, group: ChunkGroup) -> None:
        mask = self._by_polars(group) if self._gate is None else self.by_gate(self._gate, group)
        rows = true_positions(mask)
        if CELLS_PER_ROW * len(rows) > group.cells.size:
            self._dense.put(group, mask)
        elif len(rows):
            self.pick(group, rows)

    def _by_polars(self, group: ChunkGroup) -> npt.NDArray[np.bool_]:
        """Return the mask of the cells that pass, flat."""
        others = [column for column in self._test.columns if column.role != "data"]
        values = read_columns(self._spec, others, group.index, group.cells) if others else {}
        dims = {c.name: c.dims for c in self._test.columns}
        every = values | decoded(self._columns, [group.stored[name] for name in self._names])
        laid_out = {name: group.cells.lay_out(some, dims[name]) for name, some in every.items()}
        passed = evaluate(self._test, laid_out, group.cells.count)
        return group.cells.where(mask_of(passed)).reshape(-1)


class _DenseGroups:
    """Groups with many cells that pass: their masks and all of their values, as arrays over the box of the task."""

    def __init__(self, cells: CellMask, columns: Sequence[Column]) -> None:
        self.box, self._columns = cells.box, columns
        self._lock, self._mask = Lock(), np.empty(0, np.bool_)
        self._values: dict[str, Values] = {}

    @property
    def has_any(self) -> bool:
        """Whether there is such a group."""
        return bool(self._values)

    def put(self, group: ChunkGroup, mask: npt.NDArray[np.bool_]) -> None:
        """Copy a group; called on several threads."""
        with self._lock:
            if not self._values:
                shape = tuple(self.box.values())
                self._mask = np.zeros(shape, np.bool_)
                self._values = {c.name: borrow_array(shape, c.array.dtype) for c in self._columns if c.array}
        self._mask[group.place] = mask.reshape([at.stop - at.start for at in group.place])
        for name, whole in self._values.items():
            whole[group.place] = group.stored[name]

    def with_rows(self, picked: Sequence[Sequence[Picked]]) -> tuple[CellMask, list[Values]]:
        """Return all cells that may pass, and their values; ``picked`` holds the rows of the other groups."""
        for strip in picked:
            for rows, values in strip:
                self._mask.reshape(-1)[rows] = True
                for whole, some in zip(self._values.values(), values, strict=True):
                    whole.reshape(-1)[rows] = some
        return CellMask(self.box, self._mask), [whole[self._mask] for whole in self._values.values()]


def true_positions(mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.int64]:
    """Return ``np.flatnonzero(mask)``; if few values are true, eight at a time are compared with zero."""
    if not mask.any():
        return np.empty(0, np.int64)
    whole = len(mask) // _WORD * _WORD
    words = np.flatnonzero(mask[:whole].view(np.uint64))
    if 2 * len(words) * _WORD > len(mask):
        return np.flatnonzero(mask)
    found = (words[:, None] * _WORD + np.arange(_WORD)).reshape(-1)
    found = found[mask[found]]
    return np.concatenate([found, whole + np.flatnonzero(mask[whole:])]) if whole < len(mask) else found


_WORD = 8


def decoded(columns: Sequence[Column], stored: Sequence[Values]) -> dict[str, pl.Series]:
    """Return stored values of some columns as the values of rows."""
    return {
        c.name: c.decoding.decode(values).alias(c.name)
        for c, values in zip(columns, stored, strict=True)
        if c.decoding is not None
    }


def joined(
    picked: Sequence[Sequence[Picked]], columns: Sequence[Column], box: Mapping[str, int]
) -> tuple[CellMask, list[Values]]:
    """Return the picked cells in C order of the box, and their values."""
    every = [one for strip in picked for one in strip]
    if not every:
        none = [np.empty(0, c.array.dtype) for c in columns if c.array is not None]
        return CellMask.of_rows(box, np.empty(0, np.int64)), none
    rows = np.concatenate([one.rows for one in every])
    order = np.argsort(rows, kind="stable")
    values = [np.concatenate(some)[order] for some in zip(*(one.values for one in every), strict=True)]
    return CellMask.of_rows(box, rows[order]), values
