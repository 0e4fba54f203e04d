"""Queries in SQL as the plans that Polars makes of them.

A plan holds SQL as one node of text. Polars itself makes a plan of the text for ``CREATE TABLE .. AS``, in a context of
the same tables, and the new table is that plan.
"""

import polars as pl
from polars.exceptions import PanicException, PolarsError

from rainbear_dask.engine.serialized import LogicalPlan, fields_of, kind_of
from rainbear_dask.query.trees import Tree

_FIELDS = {"query", "relations", "catalog_tables"}
_TABLE = "rainbear_dask_query"
_MAX_ROUNDS = 100
"""Times that SQL is looked for below SQL."""


def expand_sql(plan: LogicalPlan) -> None:
    """Replace SQL by the plan that Polars makes of it; the plan changes. Anything but a query stays."""
    left: set[int] = set()
    for _ in range(_MAX_ROUNDS):
        node = next((each for each in plan.nodes(plan.root) if kind_of(each) == "SQL" and id(each) not in left), None)
        if node is None:
            return
        expanded = _expanded(plan, node)
        if expanded is None:
            left.add(id(node))
        else:
            plan.graft(node, expanded)


def _expanded(plan: LogicalPlan, node: Tree) -> pl.LazyFrame | None:
    fields = fields_of(node)
    if set(fields) != _FIELDS or fields["catalog_tables"]:
        return None
    tables = {name: plan.table_of(reference) for name, reference in fields["relations"]}
    if _TABLE in tables:
        return None
    context = pl.SQLContext(frames=tables)
    try:
        context.execute(f"CREATE TABLE {_TABLE} AS {fields['query']}")
        made = LogicalPlan(context.execute("SELECT * FROM rainbear_dask_query"))
        ((_, reference),) = fields_of(made.root)["relations"]
        found = made.table_of(reference)
        return found if found.collect_schema() == plan.frame_of(node).collect_schema() else None
    except (PolarsError, PanicException, KeyError, ValueError):
        return None
