"""A part of a plan that works row by row on one scan, written as expressions of the scan's own columns."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from functools import reduce
from operator import and_

import polars as pl

from rainbear_dask.aggregation.question import Unsplit
from rainbear_dask.engine.joins import joined
from rainbear_dask.engine.serialized import (
    LogicalPlan,
    column,
    column_name,
    fields_of,
    kind_of,
    parts_of,
    replace_part,
    selectors,
    substitute,
)
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.query.expression import plan_filter
from rainbear_dask.query.io_source import ZarrReader
from rainbear_dask.query.pushdown import elementwise, fallible_parts
from rainbear_dask.query.scanned_frame import scan
from rainbear_dask.query.trees import Tree, expr_of

Schema = dict[str, pl.DataType]


@dataclass(frozen=True)
class SortedBy:
    """An order of rows, as `polars.LazyFrame.sort` describes it.

    Parameters
    ----------
    by : tuple of Tree
        Keys, as expressions of the scan's columns.
    descending, nulls_last : tuple of bool
        One for each key.
    is_stable : bool
        Whether equal rows are in the table's order.
    """

    by: tuple[Tree, ...]
    descending: tuple[bool, ...]
    nulls_last: tuple[bool, ...]
    is_stable: bool


@dataclass(frozen=True)
class Rows:
    """Rows of one scan, after steps that work row by row.

    Parameters
    ----------
    reader : ZarrReader
        The scan.
    schema : dict of str to DataType
        Columns after the steps.
    meanings : dict of str to Tree
        Each column as an expression of the scan's columns.
    filters : tuple of Tree
        Conditions of the rows, as expressions of the scan's columns.
    sorted_by : str or None
        Column by which the rows ascend after a sort, "" for another order of rows; None for the table's order.
    order : SortedBy or None
        The order after a sort, if equal rows are in the table's order or in any; None if unknown.
    """

    reader: ZarrReader
    schema: Schema
    meanings: dict[str, Tree]
    filters: tuple[Tree, ...] = ()
    sorted_by: str | None = None
    order: SortedBy | None = None

    @property
    def coordinates(self) -> set[str]:
        """Columns of the scan that are coordinates."""
        return {name for name, found in self.reader.table.columns.items() if found.role != "data"}

    def plan(self, columns: list[str]) -> ReadPlan:
        """Plan the rows, with some columns of the scan.

        Raises
        ------
        Unsplit
            If Polars applies a part of the filters itself, because it may fail.
        """
        table = self.reader.table
        if not self.filters:
            return plan_filter(table, None, columns)
        predicate = reduce(and_, (part for each in self.filters for part in _conditions(expr_of(each))))
        if fallible_parts(predicate, table.schema) != []:
            raise Unsplit("a filter may fail, so Polars applies it last")
        plan = plan_filter(table, predicate, columns)
        if not all(found.columns for found in plan.filters):
            raise Unsplit("a filter names no column")
        return plan


def _conditions(predicate: pl.Expr) -> list[pl.Expr]:
    """Return the arguments of a filter of several, which Polars keeps as one expression."""
    parts = predicate.meta.pop()[::-1]
    if len(parts) < 2 or not pl.all_horizontal(parts).meta.eq(predicate):
        return [predicate]
    return [found for part in parts for found in _conditions(part)]


def rows_of(plan: LogicalPlan, node: Tree) -> Rows:
    """Return the rows of a node.

    Raises
    ------
    Unsplit
        If the node, or one below it, does not work row by row on one scan.
    """
    if kind_of(node) == "PythonScan":
        return _scanned(plan, node)
    if kind_of(node) == "Join":
        rows = rows_of(plan, plan.inputs(node)[0])
        schema, meanings, filters = joined(plan, node, rows.schema, rows.meanings)
        return Rows(rows.reader, schema, meanings, (*rows.filters, *filters), "")
    (below,) = plan.inputs(node) if len(plan.inputs(node)) == 1 else (None,)
    if below is None or kind_of(node) not in _STEPS:
        raise Unsplit(f"a {kind_of(node)} stands between the scan and the aggregate")
    return _STEPS[kind_of(node)](plan, node, rows_of(plan, below))


def blank(schema: Schema) -> pl.LazyFrame:
    """Return a lazy table without rows."""
    return pl.LazyFrame(schema=schema)


def _scanned(plan: LogicalPlan, node: Tree) -> Rows:
    frame, sources = plan.scan_of(node)
    if len(sources) != 1 or not isinstance(sources[0], ZarrReader):
        raise Unsplit("it scans something else than a Zarr store")
    plan.check_scan(node, scan(sources[0]))
    schema = dict(frame.collect_schema())
    if any(isinstance(dtype, pl.Struct) for dtype in schema.values()):
        raise Unsplit("the table has columns of child groups")
    return Rows(sources[0], schema, {name: column(name) for name in schema})


def _filtered(plan: LogicalPlan, node: Tree, rows: Rows) -> Rows:
    predicate = fields_of(node)["predicate"]
    plan.input_below(node, blank(rows.schema).filter(expr_of(predicate)))
    if selectors(predicate) or elementwise(expr_of(predicate), rows.schema) is None:
        raise Unsplit(f"the filter {expr_of(predicate)} needs other rows")
    return replace(rows, filters=(*rows.filters, substitute(predicate, rows.meanings)))


def _with_columns(plan: LogicalPlan, node: Tree, rows: Rows) -> Rows:
    exprs = fields_of(node)["exprs"]
    made = blank(rows.schema).with_columns([expr_of(each) for each in exprs])
    plan.input_below(node, made)
    meanings = {**rows.meanings, **_meanings(exprs, rows)}
    return replace(rows, schema=dict(made.collect_schema()), meanings=meanings, sorted_by=_still(rows, meanings))


def _selected(plan: LogicalPlan, node: Tree, rows: Rows) -> Rows:
    exprs = fields_of(node)["expr"]
    lazy = blank(rows.schema)
    made = lazy.select([expr_of(each) for each in exprs])
    kept = made.collect_schema()
    try:
        plan.input_below(node, made)
    except Unsplit:  # drop() is another form of select
        dropped = [name for name in rows.schema if name not in kept]
        plan.input_below(node, lazy.drop(_as_written(exprs, dropped)))
    meanings = _meanings(exprs, rows)
    return replace(rows, schema=dict(kept), meanings=meanings, sorted_by=_still(rows, meanings))


def _still(rows: Rows, meanings: dict[str, Tree]) -> str | None:
    """Return the column by which rows ascend, if it still means the same."""
    name = rows.sorted_by
    return name if not name or meanings.get(name) == rows.meanings[name] else ""


def _as_written(tree: Tree, names: list[str]) -> list[str]:
    """Return names in the order in which they stand in a tree, if they do."""
    if isinstance(tree, list) and sorted(map(str, tree)) == sorted(names):
        return tree
    return next((found for part in parts_of(tree) if (found := _as_written(part, names)) != names), names)


def _renamed(plan: LogicalPlan, node: Tree, rows: Rows) -> Rows:
    function = fields_of(node)["function"]
    names = function.get("Rename") if isinstance(function, dict) else None
    if names is None:
        raise Unsplit("a step between the scan and the aggregate does not work row by row")
    mapping = dict(zip(names["existing"], names["new"], strict=True))
    made = blank(rows.schema).rename(mapping)
    plan.input_below(node, made)
    meanings = {mapping.get(name, name): meaning for name, meaning in rows.meanings.items()}
    return replace(rows, schema=dict(made.collect_schema()), meanings=meanings, sorted_by=_still(rows, meanings))


def _sorted(plan: LogicalPlan, node: Tree, rows: Rows) -> Rows:
    """Return the same rows in another order, which no aggregate here depends on."""
    fields = fields_of(node)
    by, options = fields["by_column"], fields["sort_options"]
    keys = [expr_of(each) for each in by]
    if len(options["nulls_last"]) != len(by):
        raise Unsplit("a sort has options of its own")
    made = blank(rows.schema).sort(
        keys,
        descending=options["descending"],
        nulls_last=options["nulls_last"],
        maintain_order=options["maintain_order"],
        multithreaded=options["multithreaded"],
    )
    plan.input_below(node, made)
    name = column_name(by[0]) or ""
    order = None if options["maintain_order"] and rows.sorted_by is not None else order_of(fields, rows)
    return replace(rows, sorted_by=name if not options["descending"][0] else "", order=order)


def order_of(sort: Tree, rows: Rows) -> SortedBy:
    """Return the order that the fields of a sort describe; ``rows`` are its input.

    Raises
    ------
    Unsplit
        If a key needs other rows.
    """
    by, options = sort["by_column"], sort["sort_options"]
    if any(selectors(each) or elementwise(expr_of(each), rows.schema) is None for each in by):
        raise Unsplit("a sort key needs other rows")
    descending, nulls_last = (tuple(options[name] * len(by))[: len(by)] for name in ("descending", "nulls_last"))
    keys = tuple(substitute(each, rows.meanings) for each in by)
    return SortedBy(keys, descending, nulls_last, options["maintain_order"])


_STEPS: dict[str, Callable[[LogicalPlan, Tree, Rows], Rows]] = {
    "Filter": _filtered,
    "HStack": _with_columns,
    "Select": _selected,
    "MapFunction": _renamed,
    "Sort": _sorted,
}


def _meanings(exprs: list[Tree], rows: Rows) -> dict[str, Tree]:
    found = {}
    for name, tree in single_outputs(exprs, rows.schema, pl.LazyFrame.select):
        if elementwise(expr_of(tree), rows.schema) is None:
            raise Unsplit(f"{expr_of(tree)} needs other rows")
        meaning = substitute(tree, rows.meanings)
        if not expr_of(meaning).meta.root_names():
            raise Unsplit(f"{expr_of(tree)} names no column")
        found[name] = meaning
    return found


def single_outputs(
    exprs: list[Tree], schema: Schema, context: Callable[[pl.LazyFrame, pl.Expr], pl.LazyFrame]
) -> list[tuple[str, Tree]]:
    """Return the outputs of some expressions, each with its name and with an expression for it alone.

    Parameters
    ----------
    exprs : list of Tree
        Expressions, which may stand for several columns.
    schema : dict of str to DataType
        The columns.
    context : callable
        From a lazy table and an expression to the table of its outputs.
    """
    found = []
    for tree in exprs:
        outputs = context(blank(schema), expr_of(tree)).collect_schema()
        several = selectors(tree)
        if not several:
            if len(outputs) != 1:
                raise Unsplit(f"{expr_of(tree)} has several outputs")
            found.append((outputs.names()[0], tree))
            continue
        if any(each != several[0] for each in several):
            raise Unsplit(f"{expr_of(tree)} selects columns in several ways")
        names = context(blank(schema), expr_of(several[0])).collect_schema().names()
        for name, output in zip(names, outputs, strict=True):
            alone = replace_part(tree, several[0], column(name))
            if dict(context(blank(schema), expr_of(alone)).collect_schema()) != {output: outputs[output]}:
                raise Unsplit(f"{expr_of(tree)} names its outputs in an unknown way")
            found.append((output, alone))
    return found
