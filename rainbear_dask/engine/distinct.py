"""Distinct rows of a sorted table, as in ``SELECT DISTINCT .. ORDER BY``: the distinct rows are few, and sorted then."""

import polars as pl

from rainbear_dask.aggregation.question import Unsplit
from rainbear_dask.engine.rows import blank, rows_of
from rainbear_dask.engine.serialized import LogicalPlan, kind_of
from rainbear_dask.query.trees import Tree


def sort_distinct(plan: LogicalPlan) -> None:
    """Put sorts above the steps that drop equal rows, if the sorts are by columns of these rows; the plan changes."""
    for node in list(plan.nodes(plan.root)):
        if kind_of(node) == "Distinct":
            try:
                changed = _changed(plan, node)
            except Unsplit:
                continue
            plan.graft(node, changed)


def _changed(plan: LogicalPlan, node: Tree) -> pl.LazyFrame:
    (below,) = plan.inputs(node)
    rows = rows_of(plan, below)
    if rows.order is None:
        raise Unsplit("its rows are in no order of a sort")
    names = [next((name for name, tree in rows.meanings.items() if tree == key), None) for key in rows.order.by]
    by = [name for name in names if name is not None]
    if len(by) < len(names) or (rows.order.is_stable and {*by} != {*rows.schema}):
        raise Unsplit("the order of distinct rows depends on others")
    for keep in ("any", "first"):
        try:
            plan.input_below(node, blank(rows.schema).unique(keep=keep, maintain_order=True))
        except Unsplit:
            continue
        distinct = plan.frame_of(below).unique()
        return distinct.sort(by, descending=list(rows.order.descending), nulls_last=list(rows.order.nulls_last))
    raise Unsplit("it drops rows in another way")
