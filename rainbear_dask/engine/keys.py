"""Keys of a finished table, as the cells of a scan at which they have a partner.

Polars itself looks the keys up among the labels of coordinates, by the join that the query asks for. So types, nulls,
NaN and signed zeros of keys mean the same here and there.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from typing import Any

import numpy as np
import polars as pl
from polars.exceptions import PanicException, PolarsError

from rainbear_dask.aggregation.question import MAX_BLOCK_CELLS, Unsplit, labels
from rainbear_dask.engine.rows import Rows
from rainbear_dask.engine.serialized import substitute
from rainbear_dask.planning.keys import KeyCells
from rainbear_dask.query.pushdown import elementwise
from rainbear_dask.query.trees import Tree, expr_of
from rainbear_dask.table.model import Table

_MAX_PAIRS = 2**22
"""Cells of combinations of keys, at most. Of more, each part of the keys prunes by itself."""

_CELL, _CODE, _ROW = "__cell", "__code", "__row"


@dataclass(frozen=True, eq=False)  # == on an expression builds another one
class Key:
    """A key of a join on the side of a scan.

    Parameters
    ----------
    expr : Expr
        The key as an expression of coordinates.
    dims : tuple of str
        Dimensions of these, in row order.
    name : str
        Column of the other table that holds its partners.
    """

    expr: pl.Expr
    dims: tuple[str, ...]
    name: str


def keys_of(rows: Rows, trees: Sequence[Tree], names: Sequence[str]) -> list[Key]:
    """Return the keys of a join that are functions of coordinates.

    Parameters
    ----------
    rows : Rows
        The side of the scan.
    trees : sequence of Tree
        Its keys.
    names : sequence of str
        For each, the column of the other table with its partners.
    """
    columns = rows.reader.table.columns
    found = []
    for tree, name in zip(trees, names, strict=True):
        if elementwise(expr_of(tree), rows.schema) is None:
            continue
        expr = expr_of(substitute(tree, rows.meanings))
        roots = expr.meta.root_names()
        dims = {dim for root in roots for dim in columns[root].dims} if {*roots} <= rows.coordinates else set()
        if dims:
            found.append(Key(expr, tuple(dim for dim in rows.reader.table.sizes if dim in dims), name))
    return found


def cells_of_keys(table: Table, keys: Sequence[Key], partners: pl.DataFrame, *, nulls_equal: bool) -> list[KeyCells]:
    """Return the cells at which all keys have a partner in one row of another table.

    Parameters
    ----------
    table : Table
        The scanned table.
    keys : sequence of Key
        Keys of the scan.
    partners : DataFrame
        The other table.
    nulls_equal : bool
        Whether null is a partner of null.

    Returns
    -------
    list of KeyCells
        Cells of several blocks of dimensions, whose product holds all partners.

    Raises
    ------
    Unsplit
        If Polars cannot look the keys up, or they have too many labels.
    """
    rows = partners.lazy().select(key.name for key in keys).unique().with_row_index(_ROW).collect(engine="in-memory")
    blocks = [_matched(table, block, rows, nulls_equal=nulls_equal) for block in _blocks(keys)]
    for block in blocks:
        rows = rows.join(block.codes, on=_ROW).rename({_CODE: f"code{block.dims}"})
    combinations = rows.select(f"code{block.dims}" for block in blocks).unique()
    for block in blocks:
        combinations = combinations.join(block.counts, left_on=f"code{block.dims}", right_on=_CODE)
        combinations = combinations.rename({"len": f"len{block.dims}"})
    lengths = [combinations[f"len{block.dims}"].cast(pl.Float64) for block in blocks]
    if float(reduce(lambda a, b: a * b, lengths).sum()) > _MAX_PAIRS:
        return [_key_cells(table, block.dims, block.cells[_CELL], block.label) for block in blocks]
    for block in blocks:
        combinations = combinations.join(block.cells, left_on=f"code{block.dims}", right_on=_CODE)
        combinations = combinations.rename({_CELL: f"cell{block.dims}"})
    dims = tuple(dim for block in blocks for dim in block.dims)
    sizes = [[table.sizes[dim] for dim in block.dims] for block in blocks]
    at = [np.unravel_index(combinations[f"cell{b.dims}"].to_numpy(), n) for b, n in zip(blocks, sizes, strict=True)]
    order = sorted(dims, key=list(table.sizes).index)
    along = dict(zip(dims, (axis for axes in at for axis in axes), strict=True))
    cells = np.ravel_multi_index([along[dim] for dim in order], [table.sizes[dim] for dim in order])
    return [_key_cells(table, tuple(order), pl.Series(cells), ", ".join(block.label for block in blocks))]


@dataclass(frozen=True, eq=False)
class _Block:
    """Keys that share dimensions.

    Parameters
    ----------
    dims : tuple of str
        The dimensions.
    codes : DataFrame
        For each row of the other table, the number of its combination of these keys.
    cells : DataFrame
        Pairs of a cell of the dimensions and the number of a combination that it has.
    label : str
        The keys, for reports.
    """

    dims: tuple[str, ...]
    codes: pl.DataFrame
    cells: pl.DataFrame
    label: str

    @property
    def counts(self) -> pl.DataFrame:
        """Number of cells of each combination."""
        return self.cells.group_by(_CODE).len()


def _blocks(keys: Sequence[Key]) -> list[list[Key]]:
    """Group keys that share dimensions."""
    blocks: list[list[Key]] = []
    for key in keys:
        touching = [block for block in blocks if any({*one.dims} & {*key.dims} for one in block)]
        blocks = [block for block in blocks if block not in touching]
        blocks.append([one for block in touching for one in block] + [key])
    return blocks


def _matched(table: Table, keys: Sequence[Key], rows: pl.DataFrame, *, nulls_equal: bool) -> _Block:
    """Look combinations of some keys up among the labels of their dimensions."""
    names = [key.name for key in keys]
    distinct = rows.group_by(names, maintain_order=True).agg(_ROW).with_row_index(_CODE)
    values = labels_of(table, keys)
    found = _joined(
        values.with_row_index(_CELL), distinct, left_on=values.columns, right_on=names, nulls_equal=nulls_equal
    )
    dims = {dim for key in keys for dim in key.dims}
    return _Block(
        tuple(dim for dim in table.sizes if dim in dims),
        distinct.select(_CODE, _ROW).explode(_ROW),
        found.select(pl.col(_CELL).cast(pl.Int64), _CODE),
        ", ".join(str(key.expr) for key in keys),
    )


def labels_of(table: Table, keys: Sequence[Key]) -> pl.DataFrame:
    """Return keys of a scan at each cell of their dimensions, as columns ``l0``, ``l1``, ...

    Raises
    ------
    Unsplit
        If there are too many cells, or a key fails on one.
    """
    wanted = {dim for key in keys for dim in key.dims}
    dims = tuple(dim for dim in table.sizes if dim in wanted)
    if prod(table.sizes[dim] for dim in dims) > MAX_BLOCK_CELLS:
        raise Unsplit(f"keys over {', '.join(dims)} have more than {MAX_BLOCK_CELLS:,} values")
    values = labels(table, dims, {name for key in keys for name in key.expr.meta.root_names()})
    try:
        return values.select(key.expr.alias(f"l{number}") for number, key in enumerate(keys))
    except (PolarsError, PanicException) as error:
        raise Unsplit(f"a key fails on a label: {error}") from error


def _joined(left: pl.DataFrame, right: pl.DataFrame, **options: Any) -> pl.DataFrame:
    try:
        return left.lazy().join(right.lazy(), how="inner", **options).collect(engine="in-memory")
    except PolarsError as error:
        raise Unsplit(f"Polars does not join the keys: {error}") from error


def _key_cells(table: Table, dims: tuple[str, ...], cells: pl.Series, label: str) -> KeyCells:
    places = np.unravel_index(cells.unique().sort().to_numpy(), [table.sizes[dim] for dim in dims])
    return KeyCells(dims, np.stack(places, axis=1).astype(np.int64).reshape(-1, len(dims)), label)


def nearest_labels(
    table: Table, on: Key, by: Sequence[Key], partners: pl.DataFrame, options: Mapping[str, Any]
) -> pl.DataFrame:
    """Return the keys of another table with the labels that ``join_asof`` may give them, instead of their own.

    Parameters
    ----------
    table : Table
        The scanned table; each of its labels has rows of every group.
    on : Key
        The ordered key.
    by : sequence of Key
        The other keys.
    partners : DataFrame
        The other table.
    options : mapping
        ``strategy``, ``tolerance`` and ``allow_exact_matches`` of the join.

    Raises
    ------
    Unsplit
        If Polars does not join the keys so.
    """
    known = labels_of(table, [on]).unique().drop_nulls().sort("l0")
    if known["l0"].dtype.is_float() and known["l0"].is_nan().any():
        raise Unsplit("a label is NaN")
    # between two labels that are equally near, the order of rows decides
    strategies = ["backward", "forward"] if options["strategy"] == "nearest" else [options["strategy"]]
    names = [on.name, *(key.name for key in by)]
    keys = partners.select(names).unique().drop_nulls(on.name).sort(on.name)
    found = []
    for strategy in strategies:
        try:
            near = keys.join_asof(
                known.with_columns(label="l0"), left_on=on.name, right_on="l0", **{**options, "strategy": strategy}
            )
        except PolarsError as error:
            raise Unsplit(f"Polars does not join the keys: {error}") from error
        found.append(near.drop_nulls("label").select(pl.col("label").alias(on.name), *names[1:]))
    return pl.concat(found)
