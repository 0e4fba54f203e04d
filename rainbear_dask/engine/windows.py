"""Windows over a coordinate that do not overlap, as a function from labels to the window of each."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from polars.exceptions import PolarsError

from rainbear_dask.aggregation.question import Unsplit, labels
from rainbear_dask.aggregation.terms import Term
from rainbear_dask.engine.rows import Rows
from rainbear_dask.query.trees import Tree, expr_of

_PARTS = (("months", "mo"), ("weeks", "w"), ("days", "d"), ("nsecs", "ns"))


@dataclass(frozen=True)
class Windows:
    """Windows along one column.

    Parameters
    ----------
    name : str
        The column.
    key : Term
        The label of each row's window.
    grouped : callable
        ``group_by_dynamic`` on another table with that column.
    """

    name: str
    key: Term
    grouped: Callable[[pl.LazyFrame], Any]


def windows_of(options: Mapping[str, Tree], rows: Rows) -> Windows:
    """Return the windows that options of ``group_by_dynamic`` describe.

    Polars makes the windows of the coordinate's labels, so they are its own. The label of a window must not depend on
    the rows that a filter leaves.

    Raises
    ------
    Unsplit
        If the windows overlap or leave gaps, or depend on more than the labels of one ascending coordinate.
    """
    name = options["index_column"]
    if options["include_boundaries"] or options["label"] == "DataPoint":
        raise Unsplit("the result holds more of its windows than their labels")
    every, period, offset = (_duration(options[part]) for part in ("every", "period", "offset"))

    def grouped(lazy: pl.LazyFrame) -> Any:
        return lazy.group_by_dynamic(
            name,
            every=every,
            period=period,
            offset=offset,
            closed=options["closed_window"].lower(),
            label=options["label"].lower(),
        )

    values = _labels(name, rows)
    try:
        found = grouped(values.lazy()).agg(pl.col(name).alias(_VALUE)).collect(engine="in-memory").explode(_VALUE)
    except PolarsError as error:
        raise Unsplit(f"Polars makes no windows of the labels: {error}") from error
    if not found[_VALUE].equals(values[name]):
        raise Unsplit("its windows overlap or leave gaps")
    label = found[name]
    key = expr_of(rows.meanings[name]).replace_strict(found[_VALUE], label, return_dtype=label.dtype)
    return Windows(name, Term.of(key), grouped)


_VALUE = "__value"


def _labels(name: str, rows: Rows) -> pl.DataFrame:
    """Return the distinct values of a column of coordinates, as rows hold them one after the other."""
    expr = expr_of(rows.meanings[name])
    names, columns, table = {*expr.meta.root_names()}, rows.reader.table.columns, rows.reader.table
    if not names <= rows.coordinates or len({columns[each].dims for each in names}) != 1:
        raise Unsplit(f"its windows are over {name!r}, which is no function of one coordinate")
    (dims,) = {columns[each].dims for each in names}
    if len(dims) != 1:
        raise Unsplit(f"its windows are over {name!r}, which has not one dimension")
    values = labels(table, dims, names).select(expr.alias(name))
    if values[name].null_count() or not values[name].is_sorted():
        raise Unsplit(f"the labels of {name!r} do not ascend")
    if rows.sorted_by != name and not _ascends(dims[0], rows):
        raise Unsplit(f"the rows do not ascend by {name!r}")
    return values.unique(maintain_order=True)


def _ascends(dim: str, rows: Rows) -> bool:
    """Whether rows in table order ascend along a dimension."""
    table = rows.reader.table
    uncut = all(table.blocks[other] >= length for other, length in table.sizes.items() if other != dim)
    return rows.sorted_by is None and next(iter(table.sizes)) == dim and uncut


def _duration(parts: Mapping[str, Tree]) -> str:
    """Return a duration in Polars' words."""
    sign = "-" if parts["negative"] else ""
    if parts["parsed_int"]:
        return f"{sign}{parts['nsecs']}i"
    return sign + ("".join(f"{parts[name]}{unit}" for name, unit in _PARTS if parts[name]) or "0ns")
