"""Merge the partial states of a cohort, in their order, and finish them to rows of an answer."""

from collections.abc import Iterator
from contextlib import closing
from io import BytesIO

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.aggregation.algebra import finish
from rainbear_dask.aggregation.cohorts import Cohort
from rainbear_dask.aggregation.groups import Array, Numbers
from rainbear_dask.aggregation.merging import Partial, Product, add_products, index_of
from rainbear_dask.aggregation.question import Question
from rainbear_dask.aggregation.states import CELLS, GroupStates, by_operand, neutral
from rainbear_dask.table.tidy import pick, spread


class Answer:
    """The states of the groups of a cohort.

    Parameters
    ----------
    question : Question
        The question.
    groups : tuple of ndarray of int32
        Numbers of the groups in each block.
    """

    def __init__(self, question: Question, groups: tuple[Numbers, ...]) -> None:
        self._question, self._groups = question, groups
        self._states = GroupStates(tuple(map(len, groups)))
        self._products: dict[tuple[bytes, ...], Product] = {}

    def add(self, partial: Partial) -> None:
        """Merge states, which become part of the answer."""
        at = index_of(self._groups, partial.groups)
        add_products(self._products, partial.products)
        for operand, parts in by_operand(partial.states):
            self._states.add(operand, at, parts, adopt=True)

    @property
    def nbytes(self) -> int:
        """Bytes of the states."""
        return sum(int(array.nbytes) for array in self._states.arrays.values())

    def frame(self) -> pl.DataFrame:
        """Return the answer: one row for each group that has a row, or one row if there are no keys."""
        question = self._question
        full = np.zeros(self._states.shape, dtype=np.int64)
        for each in self._products.values():
            full[index_of(self._groups, each.groups)] += each.cells()
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
            for key in block.keys[self._groups[axis]].iter_columns():
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


def answers(question: Question, partials: Iterator[tuple[Cohort, Partial]]) -> Iterator[pl.DataFrame]:
    """Yield the answer of each cohort as soon as its last states are merged.

    Parameters
    ----------
    question : Question
        The question.
    partials : iterator of (Cohort, Partial)
        States of all tasks, cohort after cohort.

    Returns
    -------
    iterator of DataFrame
        At least one. Only the states of one cohort are held.
    """
    cohort, answer = None, None
    with closing(partials):  # type: ignore[type-var]  # a generator
        for owner, partial in partials:
            if answer is None or owner is not cohort:
                if answer is not None:
                    yield answer.frame()
                cohort, answer = owner, Answer(question, owner.groups)
            answer.add(partial)
            del partial
    if answer is None:  # no task
        answer = Answer(question, tuple(np.arange(block.keys.height, dtype=np.int32) for block in question.blocks))
    yield answer.frame()
