"""From a Polars predicate to the index positions that it may match.

The compiler reads the tree of and, or, xor and not through the public API of Polars. Any other node is a leaf. Polars
evaluates a leaf on the values of the coordinates that it names. Comparisons, casts, calendar parts, float32, NaN and null
therefore mean exactly what they mean in the filter.
"""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import and_, or_
from typing import Literal

import polars as pl
from polars.exceptions import PanicException

from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.indexing.selection import Selection
from rainbear_dask.planning.literals import check_types
from rainbear_dask.resources.limits import FILTERED_VALUES, WHOLE_VALUES
from rainbear_dask.table.tidy import spread

MAX_CELLS = 2**23
"""Combinations of coordinate labels of several dimensions on which planning evaluates a leaf, at most."""


@dataclass(frozen=True, slots=True, eq=False)  # == on an expression builds another one
class Conjunct:
    """One conjunct of a filter; a row must pass all of them.

    Parameters
    ----------
    expr : Expr
        A Boolean, elementwise expression.
    selection : Selection
        The rows that may pass it.
    obstacle : str
        Why the selection may hold other rows too; empty if it is exact.
    """

    expr: pl.Expr
    selection: Selection
    obstacle: str


def compile_predicate(
    predicate: pl.Expr,
    coordinates: Mapping[str, tuple[str, ...]],
    sizes: Mapping[str, int],
    read: Callable[[str], pl.Series],
) -> list[Conjunct]:
    """Split a predicate into conjuncts, and select for each every row that passes it, and perhaps others.

    Parameters
    ----------
    predicate : Expr
        A Boolean, elementwise expression. It may fail on some values.
    coordinates : mapping of str to tuple of str
        Columns that planning may read, each with its dimensions.
    sizes : mapping of str to int
        Length of each dimension, in row order.
    read : callable
        Returns all values of such a column, flat in C order of its dimensions. Called only for columns that the
        predicate names.

    Returns
    -------
    list of Conjunct
        A conjunct is exact if it names coordinates alone and their dimensions have at most `MAX_CELLS` combinations. An
        expression that the compiler does not understand selects everything: it costs time, never rows.

    Raises
    ------
    PlanTooLargeError
        If the predicate names a dimension with too many positions to filter.
    """
    parts = conjuncts_of(predicate)
    joined = _Compiler(coordinates, sizes, read).joined(parts, and_)
    conjuncts = []
    for expr in joined:
        compiler = _Compiler(coordinates, sizes, read)
        try:
            selection = compiler.select(expr, outcome=True)
        except RecursionError:  # connectives nest hundreds deep
            selection = compiler.evaluate(expr, outcome=True)
        obstacle = "; ".join(dict.fromkeys(compiler.obstacles)) or "it matches more regions than a selection can hold"
        conjuncts.append(Conjunct(expr, selection, "" if selection.exact else obstacle))
    return conjuncts


class _Compiler:
    def __init__(
        self,
        coordinates: Mapping[str, tuple[str, ...]],
        sizes: Mapping[str, int],
        read: Callable[[str], pl.Series],
    ) -> None:
        self._coordinates, self._sizes, self._read = coordinates, sizes, read
        self.obstacles: list[str] = []

    def select(self, expr: pl.Expr, *, outcome: bool) -> Selection:
        """Return the rows at which ``expr`` may be ``outcome``; a null is neither true nor false."""
        dims = self._dims(expr)
        if dims is not None and len(dims) <= 1:
            return self.evaluate(expr, outcome=outcome)
        kind, parts = connective(expr)
        if kind == "leaf":
            return self.evaluate(expr, outcome=outcome)
        if kind == "not":
            return self.select(parts[0], outcome=not outcome)
        if kind == "xor":
            odd, even = Selection.nothing(), Selection.everything(exact=True)  # parity of the true parts so far
            for part in parts:
                true, false = self.select(part, outcome=True), self.select(part, outcome=False)
                odd, even = (odd & false) | (even & true), (even & false) | (odd & true)
            return odd if outcome else even
        parts = self.joined(parts, and_ if kind == "and" else or_)
        if len(parts) == 1:
            return self.evaluate(expr, outcome=outcome)
        selections = [self.select(part, outcome=outcome) for part in parts]
        # De Morgan: an "and" is false if any part is false
        return reduce(and_ if (kind == "and") == outcome else or_, selections)

    def joined(self, parts: Sequence[pl.Expr], connective: Callable[[pl.Expr, pl.Expr], pl.Expr]) -> list[pl.Expr]:
        """Join parts that share several dimensions into one expression, because its selection has fewer boxes."""
        groups: dict[object, list[pl.Expr]] = {}
        for number, part in enumerate(parts):
            dims = self._dims(part)
            together = dims is not None and len(dims) > 1 and self._cells(dims) <= MAX_CELLS
            groups.setdefault(dims if together else number, []).append(part)
        return [reduce(connective, group) for group in groups.values()]

    def _dims(self, expr: pl.Expr) -> tuple[str, ...] | None:
        """Return the dimensions, in row order, of the coordinates of an expression; None if it names other columns."""
        names = expr.meta.root_names()
        if any(name not in self._coordinates for name in names):
            return None
        wanted = {dim for name in names for dim in self._coordinates[name]}
        return tuple(dim for dim in self._sizes if dim in wanted)

    def _cells(self, dims: tuple[str, ...]) -> int:
        return prod(self._sizes[dim] for dim in dims)

    def evaluate(self, expr: pl.Expr, *, outcome: bool) -> Selection:
        """Return the rows at which a leaf may be ``outcome``: let Polars evaluate it on its coordinates."""
        names, dims = list(dict.fromkeys(expr.meta.root_names())), self._dims(expr)
        if dims is None:
            return self._unknown(f"it needs {', '.join(name for name in names if name not in self._coordinates)}")
        box, cells = {dim: self._sizes[dim] for dim in dims}, self._cells(dims)
        if (longest := max(box.values(), default=0)) > FILTERED_VALUES:
            raise PlanTooLargeError(
                f"The filter names {', '.join(names)}, whose longest dimension has {longest:,} positions. A filter can "
                f"select among at most {FILTERED_VALUES:,}. Filter along another dimension."
            )
        if len(dims) == 1 and cells > WHOLE_VALUES:
            return self._unknown(f"{dims[0]} has {cells:,} values, and planning evaluates at most {WHOLE_VALUES:,}")
        if len(dims) > 1 and cells > MAX_CELLS:
            return self._unknown(
                f"{' x '.join(dims)} has {cells:,} combinations, and planning evaluates at most {MAX_CELLS:,}"
            )
        columns = [spread(self._read(name), self._coordinates[name], box) for name in names]
        values = columns[0].to_frame() if len(columns) == 1 else pl.DataFrame(columns or None, height=cells)
        try:
            result = values.select(expr).to_series()
        except (Exception, PanicException) as error:  # noqa: BLE001  a cast or a user's function fails on a label
            check_types(expr, values)
            # the worker raises the same error, unless another conjunct drops the rows
            why = str(error).partition("\n")[0] or type(error).__name__
            return self._unknown(f"it cannot be evaluated on coordinates: {why}")
        if len(result) == 1:  # no column, or one value for every row
            result = result.new_from_index(0, cells)
        if result.dtype != pl.Boolean or len(result) != cells:
            return self._unknown("it does not return one Boolean for each row")
        if not outcome:
            result = ~result
        if result.has_nulls():
            result = result.fill_null(value=False)
        return Selection.where(dims, result.to_numpy().reshape(tuple(box.values())))

    def _unknown(self, obstacle: str) -> Selection:
        self.obstacles.append(obstacle)
        return Selection.everything()


Connective = Literal["and", "or", "xor", "not", "leaf"]

_BINARY: dict[Connective, Callable[[pl.Expr, pl.Expr], pl.Expr]] = {
    "and": and_,
    "or": or_,
    "xor": lambda a, b: a ^ b,
}


def conjuncts_of(predicate: pl.Expr) -> list[pl.Expr]:
    """Return the operands of nested "and", from left to right."""
    return _operands(predicate, "and")


def connective(expr: pl.Expr) -> tuple[Connective, list[pl.Expr]]:
    """Return the connective at the top of an expression, and its operands from left to right."""
    expr = _unnamed(expr)
    parts = expr.meta.pop()[::-1]  # Polars pops the last operand first
    if len(parts) == 1 and (~parts[0]).meta.eq(expr):
        return "not", parts
    if len(parts) == 2:
        for kind, connect in _BINARY.items():
            if connect(*parts).meta.eq(expr):
                return kind, _operands(expr, kind)
    if parts and pl.all_horizontal(*parts).meta.eq(expr):
        return "and", parts
    if parts and pl.any_horizontal(*parts).meta.eq(expr):
        return "or", parts
    return "leaf", []


def _operands(expr: pl.Expr, kind: Connective) -> list[pl.Expr]:
    """Return the operands of nested uses of one connective, from left to right."""
    found: list[pl.Expr] = []
    todo = [expr]
    while todo:
        node = _unnamed(todo.pop())
        parts = node.meta.pop()
        if len(parts) == 2 and _BINARY[kind](parts[1], parts[0]).meta.eq(node):
            todo += parts  # the left operand is last, so it is popped first
        else:
            found.append(node)
    return found


def _unnamed(expr: pl.Expr) -> pl.Expr:
    """Return the expression without aliases at its top, which would hide a connective."""
    match expr.meta.pop():
        case [named] if named.alias(expr.meta.output_name(raise_if_undetermined=False) or "").meta.eq(expr):
            return _unnamed(named)
    return expr
