"""Nodes of a plan that aggregate, as questions whose parts workers answer."""

from collections.abc import Callable
from dataclasses import dataclass

import polars as pl

from rainbear_dask.aggregation.question import Question, Unsplit
from rainbear_dask.aggregation.terms import Term
from rainbear_dask.engine.aggregates import Aggregates
from rainbear_dask.engine.rows import Rows, Schema, blank, rows_of, single_outputs
from rainbear_dask.engine.serialized import LogicalPlan, Tree, column, expr_of, fields_of, kind_of, substitute, tree_of
from rainbear_dask.engine.windows import windows_of
from rainbear_dask.query.io_source import ZarrReader
from rainbear_dask.query.pushdown import elementwise


@dataclass(frozen=True)
class _Asked:
    """An aggregation as a public call of Polars would make it.

    Parameters
    ----------
    rows : Rows
        The rows that are aggregated.
    keys : list of (str, Term)
        Keys of the result.
    outputs : list of (str, Tree)
        Its other columns.
    schema : dict of str to DataType
        Columns of the result.
    ordered : bool
        Whether groups are in the order of their first rows.
    """

    rows: Rows
    keys: list[tuple[str, Term]]
    outputs: list[tuple[str, Tree]]
    schema: Schema
    ordered: bool = False


@dataclass(frozen=True)
class Split:
    """A question, and the source of its scan."""

    question: Question
    reader: ZarrReader


def split_of(plan: LogicalPlan, node: Tree) -> Split:
    """Return the question that a node asks.

    Parameters
    ----------
    plan : LogicalPlan
        The plan of the node.
    node : Tree
        The node.

    Raises
    ------
    Unsplit
        If the node does not aggregate one scan, or if Polars has to do it.
    """
    asked = _ASK[kind_of(node)](plan, node)
    rows = asked.rows
    keys = asked.keys
    found = Aggregates(rows)
    outputs = [(name, found.output(tree)) for name, tree in asked.outputs]
    if not keys and not outputs:
        raise Unsplit("it aggregates nothing")
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
    if not question.plan.table.columns:
        raise Unsplit("the table has no column")
    question.blocks  # noqa: B018  evaluated now, because it may refuse
    return Split(question, rows.reader)


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
    if not names <= rows.coordinates:
        raise Unsplit(f"the key {expr_of(tree)} is no function of coordinates")
    if not any(rows.reader.table.columns[name].dims for name in names):
        raise Unsplit(f"the key {expr_of(tree)} is a scalar")
    return Term.of(key)


def _group_by(plan: LogicalPlan, node: Tree) -> _Asked:
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
    return _Asked(rows, terms, outputs, dict(made.collect_schema()), bool(ordered))


def _by_window(plan: LogicalPlan, node: Tree, rows: Rows) -> _Asked:
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
    return _Asked(rows, [(windows.name, windows.key)], outputs, dict(made.collect_schema()))


def _select(plan: LogicalPlan, node: Tree) -> _Asked:
    whole_table = _whole_table(plan, node)
    if whole_table is not None:
        return whole_table
    rows = rows_of(plan, *plan.inputs(node))
    exprs = fields_of(node)["expr"]
    made = blank(rows.schema).select([expr_of(each) for each in exprs])
    plan.input_below(node, made)
    return _Asked(rows, [], single_outputs(exprs, rows.schema, pl.LazyFrame.select), dict(made.collect_schema()))


_WHOLE_TABLE: dict[str, tuple[Callable[[pl.LazyFrame], pl.LazyFrame], Callable[[pl.Expr], pl.Expr]]] = {
    name: (getattr(pl.LazyFrame, name), getattr(pl.Expr, name))
    for name in ("sum", "mean", "min", "max", "std", "var", "count", "null_count")
}
"""Calls that aggregate every column: of a table, and of one column."""


def _whole_table(plan: LogicalPlan, node: Tree) -> _Asked | None:
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
        return _Asked(rows, [], outputs, dict(made.collect_schema()))
    return None


def _unique(plan: LogicalPlan, node: Tree) -> _Asked:
    rows = rows_of(plan, *plan.inputs(node))
    for keep in ("any", "first"):
        for ordered in (False, True):
            made = blank(rows.schema).unique(keep=keep, maintain_order=ordered)
            try:
                plan.input_below(node, made)
            except Unsplit:
                continue
            keys = [(name, _key(column(name), rows)) for name in rows.schema]
            return _Asked(rows, keys, [], rows.schema, ordered)
    raise Unsplit("unique() of some columns, or of rows that are alone, needs the rows")


_ASK: dict[str, Callable[[LogicalPlan, Tree], _Asked]] = {
    "GroupBy": _group_by,
    "Select": _select,
    "Distinct": _unique,
}
