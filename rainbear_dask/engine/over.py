"""Aggregates over groups, beside each row: ``x.mean().over(keys)`` as a join with the groups.

Polars builds both plans, so nothing of its semantics is written here: each row finds its group by the same keys.
"""

from collections.abc import Callable
from typing import TYPE_CHECKING

import polars as pl

from rainbear_dask.aggregation.question import Unsplit
from rainbear_dask.engine.aggregates import aggregate_of
from rainbear_dask.engine.questions import split_of
from rainbear_dask.engine.row_questions import is_small
from rainbear_dask.engine.rows import blank, rows_of
from rainbear_dask.engine.serialized import LogicalPlan, column, fields_of, kind_of, parts_of, replace_part, selectors
from rainbear_dask.query.trees import Tree, expr_of, tree_of

if TYPE_CHECKING:
    from distributed import Client

_STEPS: dict[str, tuple[str, Callable[[pl.LazyFrame, list[pl.Expr]], pl.LazyFrame]]] = {
    "HStack": ("exprs", pl.LazyFrame.with_columns),
    "Select": ("expr", pl.LazyFrame.select),
    "Filter": ("predicate", pl.LazyFrame.filter),
}
"""Steps that may hold such an aggregate: the field of their expressions, and the public call."""


def expand_over(plan: LogicalPlan, client: "Client | None") -> None:
    """Replace aggregates over groups by joins with these groups, if the groups can be split; the plan changes.

    A table is then read twice: for the groups, and for its rows, which stream. On threads, Polars is faster with tables
    that it holds in memory, so these stay as they are.

    Parameters
    ----------
    plan : LogicalPlan
        The plan.
    client : distributed.Client, optional
        The client that the caller asked for.
    """
    for node in list(plan.nodes(plan.root)):
        if kind_of(node) in _STEPS and _windows(_exprs(node)):
            try:
                expanded = _expanded(plan, node, client)
            except Unsplit:
                continue
            plan.graft(node, expanded)


def _exprs(node: Tree) -> list[Tree]:
    found = fields_of(node)[_STEPS[kind_of(node)][0]]
    return found if isinstance(found, list) else [found]


def _windows(tree: Tree) -> list[Tree]:
    """Return the outermost windows in some expressions."""
    if isinstance(tree, dict) and set(tree) == {"Over"}:
        return [tree]
    return [found for part in parts_of(tree) for found in _windows(part)]


def _expanded(plan: LogicalPlan, node: Tree, client: "Client | None") -> pl.LazyFrame:
    exprs, (below,) = _exprs(node), plan.inputs(node)
    rows, call = rows_of(plan, below), _STEPS[kind_of(node)][1]
    if is_small(rows, client):
        raise Unsplit("Polars is faster")
    made = call(blank(rows.schema), [expr_of(each) for each in exprs])
    plan.input_below(node, made)
    if any(name.startswith(("__over", "__key")) for name in rows.schema):
        raise Unsplit("a column has a name of the engine")
    if selectors(exprs):
        raise Unsplit("a selector would select columns of the groups")
    table = plan.frame_of(below)
    groups: dict[str, tuple[list[pl.Expr], list[pl.Expr]]] = {}
    for number, window in enumerate({repr(each): each for each in _windows(exprs)}.values()):
        function, keys = fields_of(window)["function"], fields_of(window)["partition_by"]
        if aggregate_of(function) is None or tree_of(expr_of(function).over([expr_of(key) for key in keys])) != window:
            raise Unsplit("a window is no aggregate over groups")
        name = f"__over{number}"
        exprs = replace_part(exprs, window, column(name))
        groups.setdefault(repr(keys), ([expr_of(key) for key in keys], []))[1].append(expr_of(function).alias(name))
    wide = table
    for number, (keys, aggregates) in enumerate(groups.values()):
        names = [f"__key{number}_{place}" for place in range(len(keys))]
        grouped = table.group_by(key.alias(name) for key, name in zip(keys, names, strict=True)).agg(aggregates)
        part = LogicalPlan(grouped)
        split_of(part, part.root)  # else the table would be read twice in vain
        wide = wide.join(
            grouped, left_on=keys, right_on=names, how="left", nulls_equal=True, coalesce=False, maintain_order="left"
        )
    found = call(wide, [expr_of(each) for each in exprs])
    if kind_of(node) != "Select":
        found = found.select(made.collect_schema().names())
    if found.collect_schema() != made.collect_schema():
        raise Unsplit("the groups have other types than the windows")
    return found
