"""The states of aggregates in row space: Polars makes them of rows, merges them, and finishes them."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field

import polars as pl

from rainbear_dask.aggregation.algebra import AGGREGATES, ARITHMETIC

ROW_AGGREGATES: Mapping[str, Callable[[pl.Expr], pl.Expr]] = {
    **AGGREGATES,
    "first": pl.Expr.first,
    "last": pl.Expr.last,
    "n_unique": pl.Expr.n_unique,
    "product": pl.Expr.product,
}
"""By name, each aggregate that merges, as a function of its operand."""

NEED_ORDER = frozenset({"first", "last"})
"""Aggregates whose result depends on the order of rows."""

KEEP_VALUES = frozenset({"n_unique"})
"""Aggregates whose state holds the distinct values of a group."""

_Merge = Callable[[pl.Expr], pl.Expr]


@dataclass
class RowStates:
    """The states of one question; state ``i`` is a column of the name ``s<i>``.

    Parameters
    ----------
    partial : list of Expr
        Each state as an aggregate of rows.
    merge : list of Expr
        Each state as an aggregate of the states of parts, which are in the order of the rows.
    """

    partial: list[pl.Expr] = field(default_factory=list)
    merge: list[pl.Expr] = field(default_factory=list)

    def result(self, name: str, values: pl.Expr, own: pl.DataType, dtype: pl.DataType) -> pl.Expr:
        """Add the states of an aggregate, and return its result as an expression of them.

        Parameters
        ----------
        name : str
            One of `ROW_AGGREGATES`.
        values : Expr
            The operand, perhaps filtered.
        own, dtype : DataType
            Types that Polars names for the operand and for the result.

        Returns
        -------
        Expr
            The result of each group.
        """
        if name in {"mean", "std", "var"}:
            return self._moments(name, values).cast(dtype)
        if name in NEED_ORDER:
            return self._end(name, values)
        if name == "n_unique":
            distinct = self._add(values.unique().implode(), _united)
            return distinct.list.len().cast(dtype)
        if name in {"len", "count", "null_count"}:
            return self._count(name, values).cast(dtype)
        wide = values.cast(pl.Float64) if own.is_float() and name in {"sum", "product"} else values
        build = ROW_AGGREGATES[name]
        return self._add(build(wide), build).cast(dtype)

    def length(self, dtype: pl.DataType) -> pl.Expr:
        """Add the number of rows, and return it as an expression of the states."""
        return self._add(pl.len().cast(pl.Int64), pl.Expr.sum).cast(dtype)

    def _count(self, name: str, values: pl.Expr) -> pl.Expr:
        return self._add(ROW_AGGREGATES[name](values).cast(pl.Int64), pl.Expr.sum)

    def _moments(self, name: str, values: pl.Expr) -> pl.Expr:
        wide = values.cast(pl.Float64)
        n, total = self._count("count", values), self._add(wide.sum(), pl.Expr.sum)
        if name == "mean":
            return pl.when(n > 0).then(total / n)
        # By the formula of Chan, Golub and LeVeque: a part adds the distance of its mean from the common mean.
        apart = total / n - total.sum() / n.sum()
        squares = self._add(
            (wide.var(ddof=0) * wide.count()).fill_null(0.0),
            lambda squares: squares.sum() + (n * apart * apart).filter(n > 0).sum(),
        )
        variance = pl.when(n > 1).then(squares / (n - 1))
        return variance.sqrt() if name == "std" else variance

    def _end(self, name: str, values: pl.Expr) -> pl.Expr:
        found = self._count("len", values)
        build = ROW_AGGREGATES[name]
        return self._add(build(values), lambda ends: build(ends.filter(found > 0)))

    def _add(self, partial: pl.Expr, merge: _Merge) -> pl.Expr:
        """Return the column of a state; equal states share one."""
        for number, known in enumerate(self.partial):
            column = pl.col(f"s{number}")
            if known.meta.eq(partial) and self.merge[number].meta.eq(merge(column)):
                return column
        column = pl.col(f"s{len(self.partial)}")
        self.partial.append(partial)
        self.merge.append(merge(column))
        return column


def _united(sets: pl.Expr) -> pl.Expr:
    return sets.explode(empty_as_null=False).unique().implode()


def merges_in_rows(name: str, own: pl.DataType) -> bool:
    """Whether the states of an aggregate of some type merge as Polars aggregates the rows."""
    if name in {"len", "count", "null_count", *NEED_ORDER}:
        return True
    if own.is_nested() or own in _UNORDERED:
        return False
    if name in ARITHMETIC | {"product"}:
        return own.is_numeric() or (own == pl.Boolean and name in {"sum", "mean"})
    return True


_UNORDERED = (pl.Categorical, pl.Enum, pl.Object, pl.Null)
