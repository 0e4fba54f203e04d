"""Merge the partial states of tasks, in their order, and finish them to the rows of an answer."""

from collections.abc import Sequence
from io import BytesIO
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.aggregation.algebra import finish
from rainbear_dask.aggregation.groups import Array, TaskGroups
from rainbear_dask.aggregation.partial import Partial, PartialTask
from rainbear_dask.aggregation.question import Question
from rainbear_dask.aggregation.states import CELLS, GroupStates, by_operand, neutral
from rainbear_dask.table.tidy import pick, spread

Numbers = tuple[npt.NDArray[np.int32], ...]


class Answer:
    """The states of all groups of a question.

    Parameters
    ----------
    question : Question
        The question.
    """

    def __init__(self, question: Question) -> None:
        self._question = question
        self._states = GroupStates(tuple(block.keys.height for block in question.blocks))
        self._full: dict[Any, _Repeated] = {}

    def add(self, task: PartialTask, groups: Numbers, partial: Partial) -> None:
        """Merge the states of a task; ``groups`` holds the numbers of its groups in each block."""
        at = _index(groups)
        if partial.counts_all:
            factor, vectors = TaskGroups([len(one) for one in task.index], task.blocks).counts
            key = (factor, *(each.tobytes() for each in groups), *(each.tobytes() for each in vectors))
            self._full.setdefault(key, _Repeated(at, factor, vectors)).times += 1
        for operand, parts in by_operand(partial.states):
            self._states.add(operand, at, parts, adopt=True)

    def frame(self) -> pl.DataFrame:
        """Return the answer: one row for each group that has a row, or one row if there are no keys."""
        question = self._question
        full = np.zeros(self._states.shape, dtype=np.int64)
        for each in self._full.values():
            full[each.at] += each.cells()
        num_rows = (full + self._states.arrays.get((CELLS, "n"), 0)).reshape(-1)
        kept = np.flatnonzero(num_rows) if question.keys and not num_rows.all() else None
        if question.ordered:
            kept = self._in_row_order(kept)

        def picked(array: Array) -> Array:
            flat = np.ascontiguousarray(array).reshape(-1)
            return flat if kept is None else flat[kept]

        num_rows, all_n = picked(num_rows), [picked(self._n(number, full)) for number in range(len(question.operands))]
        columns = []
        for number, aggregate in enumerate(question.aggregates):
            count, states = num_rows, dict[str, Array]()
            if aggregate.condition is not None:
                count = picked(self._state(aggregate.condition, "sum")).astype(np.int64)
            n = count
            if aggregate.operand is not None:
                n = all_n[aggregate.operand]
                kinds = question.operands[aggregate.operand].kinds
                states = {kind: picked(self._state(aggregate.operand, kind)) for kind in kinds if kind not in _COUNTS}
            columns.append(finish(aggregate, states, n, count).alias(f"a{number}"))
        return self._finished(self._keys(kept), columns)

    def _finished(self, keys: list[pl.Series], columns: list[pl.Series]) -> pl.DataFrame:
        question = self._question
        named = pl.DataFrame([*(key.alias(f"k{number}") for number, key in enumerate(keys)), *columns])
        outputs = [pl.Expr.deserialize(BytesIO(expr)).alias(name) for name, expr in question.outputs]
        kept = [pl.col(f"k{number}").alias(name) for number, (name, _) in enumerate(question.keys)]
        return named.select(*kept, *outputs).cast(question.schema)  # type: ignore[arg-type]

    def _n(self, operand: int, full: Array) -> Array:
        arrays = self._states.arrays
        if "n" in self._question.operands[operand].kinds:
            return arrays.get((operand, "n"), np.zeros_like(full))
        return np.asarray(full + arrays.get((operand, "n"), 0) - arrays.get((operand, "missing"), 0))

    def _state(self, operand: int, kind: str) -> Array:
        found = self._states.arrays.get((operand, kind))
        if found is not None:
            return found
        # no cell was ever reduced
        initial = neutral(kind, np.dtype(np.int64)) if kind in {"min", "max"} else 0
        return np.full(self._states.shape, initial, np.int64)

    def _keys(self, kept: npt.NDArray[np.intp] | None) -> list[pl.Series]:
        """Return the keys of the kept groups, in the order of the question."""
        box = {str(axis): length for axis, length in enumerate(self._states.shape)}
        found: dict[str, pl.Series] = {}
        for axis, block in enumerate(self._question.blocks):
            for key in block.keys.iter_columns():
                dims = (str(axis),)
                found[key.name] = spread(key, dims, box) if kept is None else pick(key, dims, box, kept)
        return [found[name] for name, _ in self._question.keys]

    def _in_row_order(self, kept: npt.NDArray[np.intp] | None) -> npt.NDArray[np.intp]:
        first = np.zeros((), dtype=np.int64)
        for block in self._question.blocks:
            first = np.add.outer(first, block.first)
        order = np.argsort(first.reshape(-1), kind="stable")
        return order if kept is None else order[np.isin(order, kept)]


_COUNTS = {"n", "missing"}


class _Repeated:
    """Counts of cells, all wanted, of the groups of a task, and how many tasks have the same."""

    def __init__(self, at: Any, factor: int, vectors: Sequence[npt.NDArray[np.int64]]) -> None:
        self.at, self.times = at, 0
        self._factor, self._vectors = factor, vectors

    def cells(self) -> Array:
        """Return the number of cells of each group, over all of the tasks."""
        cells = np.array(self._factor * self.times, dtype=np.int64)
        for vector in self._vectors:
            cells = np.multiply.outer(cells, vector)
        return cells


def _index(groups: Numbers) -> Any:
    """Return the index of some groups: slices if the numbers are consecutive, because these copy nothing."""
    consecutive = all(each[-1] - each[0] + 1 == len(each) for each in groups)
    return tuple(slice(int(each[0]), int(each[-1]) + 1) for each in groups) if consecutive else np.ix_(*groups)
