"""Nodes of a plan that aggregate, as questions whose parts workers answer."""

from collections.abc import Callable
from dataclasses import dataclass
from typing import TYPE_CHECKING

import polars as pl

from rainbear_dask.aggregation.cohorts import group_sets
from rainbear_dask.aggregation.question import Question, Unsplit
from rainbear_dask.aggregation.rows import RowQuestion
from rainbear_dask.aggregation.terms import Term
from rainbear_dask.engine.aggregates import Aggregates
from rainbear_dask.engine.row_questions import Asked, is_coordinate_key, row_question
from rainbear_dask.engine.rows import Rows, blank, rows_of, single_outputs
from rainbear_dask.engine.serialized import LogicalPlan, column, fields_of, kind_of, substitute
from rainbear_dask.engine.windows import windows_of
from rainbear_dask.query.io_source import ZarrReader
from rainbear_dask.query.pushdown import elementwise
from rainbear_dask.query.trees import Tree, expr_of, tree_of

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Split:
    """A question, and the source of its scan."""

    question: Question | RowQuestion
    reader: ZarrReader


def split_of(plan: LogicalPlan, node: Tree, client: "Client | None" = None) -> Split:
    """Return the question that a node asks: in array space if that is possible, else in row space.

    Parameters
    ----------
    plan : LogicalPlan
        The plan of the node.
    node : Tree
        The node.
    client : distributed.Client, optional
        The client that the caller asked for. On threads, row space has to save work.

    Raises
    ------
    Unsplit
        If the node does not aggregate one scan, or if Polars has to do it.
    """
    asked = _ASK[kind_of(node)](plan, node)
    if not asked.keys and not asked.outputs:
        raise Unsplit("it aggregates nothing")
    if not asked.rows.reader.table.columns:
        raise Unsplit("the table has no column")
    try:
        return Split(_in_array_space(asked), asked.rows.reader)
    except Unsplit as reason:
        try:
            return Split(row_question(asked, client), asked.rows.reader)
        except Unsplit as other:
            raise reason if str(other) == str(reason) else Unsplit(f"{reason}; and {other}") from None


def _in_array_space(asked: Asked) -> Question:
    rows, keys = asked.rows, asked.keys
    for _, key in keys:
        if not is_coordinate_key(key, rows):
            raise Unsplit(f"the key {key.build()} is no function of coordinates")
    found = Aggregates(rows)
    outputs = [(name, found.output(tree)) for name, tree in asked.outputs]
    terms = [term for _, term in keys]
    for operand in found.operands:
        terms += [term for term in (operand.term, operand.keep) if term is not None]
    needed = list(dict.fromkeys(name for term in terms for name in term.columns))
    question = Question(
        rows.plan(needed or list(rows.reader.table.schema)[:1]),
        tuple(keys),
        tuple(found.operands),
        tuple(found.aggregates),
        tuple((name, expr.meta.serialize()) for name, expr in outputs),
        asked.schema,
        asked.ordered,
    )
    if question.ordered and not (question.keeps_row_order and rows.sorted_by is None):
        raise Unsplit("maintain_order needs the rows")
    group_sets(question)  # may refuse
    return question


def aggregates(node: Tree) -> bool:
    """Whether a node is of a kind that may aggregate."""
    return kind_of(node) in _ASK


def works_row_by_row(plan: LogicalPlan, node: Tree) -> bool:
    """Whether a node aggregates nothing, because each of its rows is made of one row of a scan."""
    try:
        return rows_of(plan, node) is not None
    except Unsplit:
        return False


def _key(tree: Tree, rows: Rows) -> Term:
    if elementwise(expr_of(tree), rows.schema) is None:
        raise Unsplit(f"the key {expr_of(tree)} needs other rows")
    key = expr_of(substitute(tree, rows.meanings))
    names = {*key.meta.root_names()}
    if not names:
        raise Unsplit(f"the key {expr_of(tree)} names no column")
    return Term.of(key)


def _group_by(plan: LogicalPlan, node: Tree) -> Asked:
    fields = fields_of(node)
    rows = rows_of(plan, *plan.inputs(node))
    if fields["options"]["dynamic"] is not None:
        return _by_window(plan, node, rows)
    keys = [expr_of(each) for each in fields["keys"]]
    ordered = fields["maintain_order"]
    made = blank(rows.schema).group_by(keys, maintain_order=ordered).agg([expr_of(each) for each in fields["aggs"]])
    plan.input_below(node, made)

    def in_groups(lazy: pl.LazyFrame, expr: pl.Expr) -> pl.LazyFrame:
        return lazy.group_by(keys).agg(expr).drop(list(names))

    named = single_outputs(fields["keys"], rows.schema, pl.LazyFrame.select)
    names = dict(named)
    if len(names) != len(named):
        raise Unsplit("two keys have one name")
    outputs = single_outputs(fields["aggs"], rows.schema, in_groups)
    terms = [(name, _key(tree, rows)) for name, tree in named]
    return Asked(rows, terms, outputs, dict(made.collect_schema()), bool(ordered))


def _by_window(plan: LogicalPlan, node: Tree, rows: Rows) -> Asked:
    fields = fields_of(node)
    if fields["keys"]:
        raise Unsplit("its windows are made group by group")
    windows = windows_of(fields["options"]["dynamic"], rows)
    made = windows.grouped(blank(rows.schema)).agg([expr_of(each) for each in fields["aggs"]])
    plan.input_below(node, made)

    def in_windows(lazy: pl.LazyFrame, expr: pl.Expr) -> pl.LazyFrame:
        found: pl.LazyFrame = windows.grouped(lazy).agg(expr).drop(windows.name)
        return found

    outputs = single_outputs(fields["aggs"], rows.schema, in_windows)
    # labels ascend, and groups are in the order of labels
    return Asked(rows, [(windows.name, windows.key)], outputs, dict(made.collect_schema()), by_window=True)


def _select(plan: LogicalPlan, node: Tree) -> Asked:
    whole_table = _whole_table(plan, node)
    if whole_table is not None:
        return whole_table
    rows = rows_of(plan, *plan.inputs(node))
    exprs = fields_of(node)["expr"]
    made = blank(rows.schema).select([expr_of(each) for each in exprs])
    plan.input_below(node, made)
    return Asked(rows, [], single_outputs(exprs, rows.schema, pl.LazyFrame.select), dict(made.collect_schema()))


_WHOLE_TABLE: dict[str, tuple[Callable[[pl.LazyFrame], pl.LazyFrame], Callable[[pl.Expr], pl.Expr]]] = {
    name: (getattr(pl.LazyFrame, name), getattr(pl.Expr, name))
    for name in ("sum", "mean", "min", "max", "std", "var", "count", "null_count")
}
"""Calls that aggregate every column: of a table, and of one column."""


def _whole_table(plan: LogicalPlan, node: Tree) -> Asked | None:
    """Return ``lf.mean()`` and its like, each a chain of three nodes; None if the node ends no such chain."""
    below = node
    for _ in range(3):
        inputs = plan.inputs(below)
        if len(inputs) != 1:
            return None
        above, below = below, inputs[0]
    if kind_of(above) != "HStack":
        return None
    try:
        rows = rows_of(plan, below)
    except Unsplit:
        return None
    for of_table, of_column in _WHOLE_TABLE.values():
        made = of_table(blank(rows.schema))
        try:
            plan.input_below(node, made)
        except Unsplit:
            continue
        outputs = [(name, tree_of(of_column(pl.col(name)))) for name in rows.schema]
        return Asked(rows, [], outputs, dict(made.collect_schema()))
    return None


def _unique(plan: LogicalPlan, node: Tree) -> Asked:
    rows = rows_of(plan, *plan.inputs(node))
    for keep in ("any", "first"):
        for ordered in (False, True):
            made = blank(rows.schema).unique(keep=keep, maintain_order=ordered)
            try:
                plan.input_below(node, made)
            except Unsplit:
                continue
            keys = [(name, _key(column(name), rows)) for name in rows.schema]
            return Asked(rows, keys, [], rows.schema, ordered)
    raise Unsplit("unique() of some columns, or of rows that are alone, needs the rows")


_ASK: dict[str, Callable[[LogicalPlan, Tree], Asked]] = {
    "GroupBy": _group_by,
    "Select": _select,
    "Distinct": _unique,
}
