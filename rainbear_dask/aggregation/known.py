"""Questions that statistics of chunks answer, so that no chunk is read."""

from dataclasses import dataclass
from math import prod
from typing import Any

import numpy as np
import polars as pl

from rainbear_dask.aggregation.merging import Partial, Product
from rainbear_dask.aggregation.partial import Operand
from rainbear_dask.aggregation.question import Question
from rainbear_dask.aggregation.states import neutral
from rainbear_dask.aggregation.terms import Term
from rainbear_dask.planning.pruning import StatisticsUse
from rainbear_dask.statistics.lookup import known_statistics
from rainbear_dask.table.model import Column

_KINDS = {"min", "max", "missing"}
"""Kinds of states that statistics hold."""


@dataclass(frozen=True, slots=True, eq=False)
class KnownAnswer:
    """The states of a question without keys.

    Parameters
    ----------
    partial : Partial
        The states of all cells.
    uses : tuple of StatisticsUse
        The statistics that hold them.
    """

    partial: Partial
    uses: tuple[StatisticsUse, ...]


def known_answer(question: Question) -> KnownAnswer | None:
    """Return the answer to a question from statistics.

    Parameters
    ----------
    question : Question
        The question.

    Returns
    -------
    KnownAnswer or None
        None if the question has keys or filters, needs other states than least and greatest values and numbers of
        values of variables, or if a chunk has changed since its statistics were collected, or has none.
    """
    plan, table = question.plan, question.plan.table
    if question.keys or plan.conjuncts or plan.head is not None or table.statistics is False:
        return None
    if not question.operands or not all(table.sizes.values()):
        return None
    states, uses = dict[tuple[int, str], Any](), list[StatisticsUse]()
    for number, operand in enumerate(question.operands):
        column = table.columns.get(operand.term.columns[0])
        if column is None or not _is_plain(operand, column):
            return None
        known = known_statistics(table, column)
        if known is None or not known.unchanged(np.arange(known.array.num_chunks)).all():
            return None
        rows, repeats = known.found.rows, table.num_rows // prod(known.array.shape)
        for kind in operand.kinds:
            if kind == "missing":
                states[number, kind] = np.array(rows["nulls"].sum() * repeats, dtype=np.int64)
            else:
                states[number, kind] = _end(rows[kind], kind)
        uses.append(StatisticsUse(column.name, known.found.made, known.label))
    return KnownAnswer(Partial((), states, (Product((), table.num_rows, ()),)), tuple(uses))


def _is_plain(operand: Operand, column: Column) -> bool:
    """Whether an operand is a variable itself, all of its cells, and states that statistics hold."""
    is_number = column.dtype.is_numeric() or column.dtype.is_temporal()
    return (
        column.role == "data"
        and (is_number or {*operand.kinds} <= {"missing"})
        and {*operand.kinds} <= _KINDS
        and operand.keep is None
        and operand.factors is None
        and operand.term == Term.of(pl.col(column.name))
    )


def _end(values: pl.Series, kind: str) -> Any:
    """Return the least or the greatest value of all chunks as a state."""
    physical = values.to_physical()
    found = physical.min() if kind == "min" else physical.max()
    dtype = physical.to_numpy().dtype if not physical.has_nulls() else physical.drop_nulls().to_numpy().dtype
    return np.array(neutral(kind, dtype) if found is None else found, dtype=dtype)
