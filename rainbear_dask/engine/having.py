"""Conditions of groups, of ``having`` in Polars and in SQL, as a filter of the finished groups."""

import polars as pl

from rainbear_dask.aggregation.question import Unsplit
from rainbear_dask.engine.rows import blank, rows_of
from rainbear_dask.engine.serialized import LogicalPlan, fields_of, kind_of, selectors
from rainbear_dask.query.trees import Tree, expr_of


def expand_having(plan: LogicalPlan) -> None:
    """Replace groups with conditions by groups whose conditions are columns, and a filter; the plan changes."""
    for node in list(plan.nodes(plan.root)):
        if kind_of(node) == "GroupBy" and fields_of(node).get("predicates"):
            try:
                expanded = _expanded(plan, node)
            except Unsplit:
                continue
            plan.graft(node, expanded)


def _expanded(plan: LogicalPlan, node: Tree) -> pl.LazyFrame:
    fields, (below,) = fields_of(node), plan.inputs(node)
    rows = rows_of(plan, below)
    if selectors(fields["predicates"]) or any(name.startswith("__having") for name in rows.schema):
        raise Unsplit("a condition selects columns in several ways")
    keys, aggregates, conditions = ([expr_of(each) for each in fields[name]] for name in ("keys", "aggs", "predicates"))
    ordered = fields["maintain_order"]
    made = blank(rows.schema).group_by(keys, maintain_order=ordered).having(conditions).agg(aggregates)
    plan.input_below(node, made)
    named = [condition.alias(f"__having{number}") for number, condition in enumerate(conditions)]
    groups = plan.frame_of(below).group_by(keys, maintain_order=ordered).agg([*aggregates, *named])
    passing = groups.filter(pl.col(condition.meta.output_name()) for condition in named)
    return passing.select(made.collect_schema().names())
