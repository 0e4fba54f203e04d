"""Take an expression apart into aggregates of a scan's columns and the work that is left once these are finished.

An aggregate is recognised by being rebuilt: a node is ``f(x)`` if Polars serializes ``f(x)`` to the same node. So this
module knows no name of a node.
"""

from abc import ABC, abstractmethod
from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass, field
from typing import ClassVar

import polars as pl
from polars.exceptions import PolarsError

from rainbear_dask.aggregation.algebra import AGGREGATES, ARITHMETIC, STATES, Aggregate
from rainbear_dask.aggregation.partial import Operand
from rainbear_dask.aggregation.question import Unsplit
from rainbear_dask.aggregation.row_states import KEEP_VALUES, NEED_ORDER, ROW_AGGREGATES, RowStates, merges_in_rows
from rainbear_dask.aggregation.terms import Term, is_number_like
from rainbear_dask.engine.rows import Rows
from rainbear_dask.engine.serialized import column, column_name, maybe_expr_of, parts_of, substitute
from rainbear_dask.query.pushdown import elementwise
from rainbear_dask.query.trees import Tree, expr_of, tree_of

_DEPTH = 4
"""Levels of a node at which its operand may stand."""


@dataclass
class _Aggregates(ABC):
    """The aggregates of one question.

    Parameters
    ----------
    rows : Rows
        The rows that are aggregated.
    """

    rows: Rows
    known: ClassVar[Mapping[str, Callable[[pl.Expr], pl.Expr]]]
    _dtypes: list[pl.DataType] = field(default_factory=list)
    _numbers: dict[str, int] = field(default_factory=dict)

    def output(self, tree: Tree) -> pl.Expr:
        """Return the expression of finished aggregates that an output is; the aggregates are ``a0``, ``a1``, ...

        Raises
        ------
        Unsplit
            If the output needs more than aggregates whose states merge.
        """
        left = expr_of(self._without_aggregates(tree))
        schema = {f"a{number}": dtype for number, dtype in enumerate(self._dtypes)}
        if not left.meta.root_names():
            raise Unsplit(f"{expr_of(tree)} has no aggregate")
        if elementwise(left, schema) is None:
            raise Unsplit(f"{expr_of(tree)} compares groups")
        return left

    def _without_aggregates(self, tree: Tree) -> Tree:
        found = aggregate_of(tree, self.known)
        if found is not None:
            return column(f"a{self._number(tree, *found)}")
        if column_name(tree) is not None:
            raise Unsplit(
                f"column {column_name(tree)!r} is not aggregated, or by an aggregate whose parts do not merge"
            )
        if isinstance(tree, dict):
            return {name: self._without_aggregates(part) for name, part in tree.items()}
        return [self._without_aggregates(part) for part in tree] if isinstance(tree, list) else tree

    def _number(self, tree: Tree, name: str, operand: Tree | None) -> int:
        key = repr(tree)
        if key not in self._numbers:
            dtype = self._dtype(expr_of(tree))
            self._add(name, operand, dtype)
            self._dtypes.append(dtype)
            self._numbers[key] = len(self._dtypes) - 1
        return self._numbers[key]

    @abstractmethod
    def _add(self, name: str, operand: Tree | None, dtype: pl.DataType) -> None:
        """Add an aggregate; `Unsplit` if its states do not merge."""

    def _dtype(self, expr: pl.Expr) -> pl.DataType:
        return pl.LazyFrame(schema=self.rows.schema).select(expr.alias("x")).collect_schema()["x"]

    def _checked(self, tree: Tree) -> pl.Expr:
        """Return an operand; `Unsplit` if it needs other rows."""
        expr = expr_of(tree)
        if elementwise(expr, self.rows.schema) is None:
            raise Unsplit(f"{expr} needs other rows")
        if not expr_of(substitute(tree, self.rows.meanings)).meta.root_names():
            raise Unsplit(f"{expr} names no column")
        return expr


@dataclass
class Aggregates(_Aggregates):
    """The aggregates and operands of one question in array space."""

    known = AGGREGATES
    operands: list[Operand] = field(default_factory=list)
    aggregates: list[Aggregate] = field(default_factory=list)

    def _add(self, name: str, operand: Tree | None, dtype: pl.DataType) -> None:
        self.aggregates.append(self._aggregate(name, operand, dtype))

    def _aggregate(self, name: str, operand: Tree | None, dtype: pl.DataType) -> Aggregate:
        rows = self.rows
        if operand is None:
            return Aggregate("len", None, dtype)
        values, kept = _without_filter(operand)
        term, own = self._term(values)
        condition = None
        if kept is not None:
            keep, _ = self._term(kept)
            if name in {"len", "null_count"}:
                condition = self._operand(Operand(keep, None, ("sum",)))
        if name == "len":
            return Aggregate(name, None, dtype, condition)
        if name in ARITHMETIC and not (own.is_numeric() or (own == pl.Boolean and name in {"sum", "mean"})):
            raise Unsplit(f"{name} of {own} does not merge")
        if STATES[name] != ("missing",) and not is_number_like(own):
            raise Unsplit(f"{name} of {own} does not merge")
        factors = (
            self._factors(substitute(values, rows.meanings)) if own.is_float() and name in {"sum", "mean"} else None
        )
        operand_number = self._operand(Operand(term, None if kept is None else keep, STATES[name], factors))
        return Aggregate(name, operand_number, dtype, condition)

    def _operand(self, wanted: Operand) -> int:
        """Return the number of an operand; aggregates of the same values share their states."""
        for number, known in enumerate(self.operands):
            if (known.term, known.keep) == (wanted.term, wanted.keep):
                kinds = tuple(dict.fromkeys((*known.kinds, *wanted.kinds)))
                if "n" in kinds:
                    kinds = tuple(kind for kind in kinds if kind != "missing")
                sums = {*kinds} <= {"n", "missing", "sum", "fsum"}
                self.operands[number] = Operand(
                    known.term, known.keep, kinds, (known.factors or wanted.factors) if sums else None
                )
                return number
        self.operands.append(wanted)
        return len(self.operands) - 1

    def _term(self, tree: Tree) -> tuple[Term, pl.DataType]:
        """Return an operand as a term of the scan's columns, and its type."""
        expr = self._checked(tree)
        return Term.of(expr_of(substitute(tree, self.rows.meanings))), self._dtype(expr)

    def _factors(self, tree: Tree) -> tuple[Term, Term] | None:
        """Return the values and the weights of a product with an expression of coordinates alone."""
        coordinates = self.rows.coordinates
        for left, right in _pairs(tree):
            a, b = maybe_expr_of(left), maybe_expr_of(right)
            if a is None or b is None or tree_of(a * b) != tree:
                continue
            for values, weights in ((a, b), (b, a)):
                names, others = {*weights.meta.root_names()}, {*values.meta.root_names()}
                if names and names <= coordinates and others and not others <= coordinates:
                    return Term.of(values), Term.of(weights)
        return None


@dataclass
class RowAggregates(_Aggregates):
    """The aggregates and states of one question in row space."""

    known = ROW_AGGREGATES
    states: RowStates = field(default_factory=RowStates)
    kept: list[pl.DataType] = field(default_factory=list)
    _results: list[pl.Expr] = field(default_factory=list)

    def result(self, tree: Tree) -> pl.Expr:
        """Return the expression of states that an output is; raises as `output`."""
        output = tree_of(self.output(tree))
        results = {f"a{number}": tree_of(result) for number, result in enumerate(self._results)}
        return expr_of(substitute(output, results))

    def _add(self, name: str, operand: Tree | None, dtype: pl.DataType) -> None:
        if operand is None:
            self._results.append(self.states.length(dtype))
            return
        values, kept = _without_filter(operand)
        own = self._dtype(self._checked(values))
        if kept is not None:
            self._checked(kept)
        if not merges_in_rows(name, own):
            raise Unsplit(f"{name} of {own} does not merge")
        if name in NEED_ORDER and self.rows.sorted_by is not None:
            raise Unsplit(f"{name} depends on the order of a sort or a join")
        if name in KEEP_VALUES:
            self.kept.append(own)
        self._results.append(self.states.result(name, expr_of(operand), own, dtype))


def aggregate_of(
    tree: Tree, known: Mapping[str, Callable[[pl.Expr], pl.Expr]] = AGGREGATES
) -> tuple[str, Tree | None] | None:
    """Return the name and the operand of an aggregate; None if a node is none of the known ones."""
    if tree == tree_of(pl.len()):
        return "len", None
    if not isinstance(tree, dict) or column_name(tree) is not None:
        return None
    for part in _parts_below(tree, _DEPTH):
        operand = maybe_expr_of(part)
        if operand is None:
            continue
        for name, build in known.items():
            try:
                if tree_of(build(operand)) == tree:
                    return name, part
            except PolarsError:
                continue
    return None


def _without_filter(tree: Tree) -> tuple[Tree, Tree | None]:
    """Return the values and the condition of ``values.filter(condition)``."""
    for left, right in _pairs(tree):
        values, condition = maybe_expr_of(left), maybe_expr_of(right)
        if values is not None and condition is not None and tree_of(values.filter(condition)) == tree:
            return left, right
    return tree, None


def _pairs(tree: Tree) -> Iterator[tuple[Tree, Tree]]:
    """Yield the pairs of parts of a node with one field, which itself has few parts."""
    for fields in parts_of(tree) if isinstance(tree, dict) and len(tree) == 1 else []:
        parts = [part for part in parts_of(fields) if isinstance(part, dict)] if isinstance(fields, dict) else []
        yield from ((a, b) for a in parts for b in parts if a is not b)


def _parts_below(tree: Tree, depth: int) -> Iterator[Tree]:
    for part in parts_of(tree):
        if isinstance(part, dict):
            yield part
        if depth and isinstance(part, dict | list):
            yield from _parts_below(part, depth - 1)
