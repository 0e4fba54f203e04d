"""The first rows of a sorted scan: each task returns its first ones."""

from collections.abc import Callable, Collection, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass, replace
from io import BytesIO
from math import prod
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from rainbear_dask.aggregation.question import MAX_BLOCK_CELLS, Unsplit, labels
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.engine.rows import Rows, SortedBy, blank, order_of, rows_of
from rainbear_dask.engine.serialized import LogicalPlan, fields_of, kind_of
from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.execution.best import BestTask, Order, run_best
from rainbear_dask.execution.clients import client_for
from rainbear_dask.execution.executors import Work
from rainbear_dask.execution.run import run_tasks
from rainbear_dask.execution.wire import CompactFrame
from rainbear_dask.planning.limits import Limits, check_limits
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.query.io_source import ZarrReader
from rainbear_dask.query.pushdown import recorder_of
from rainbear_dask.query.trees import Tree, expr_of, tree_of

if TYPE_CHECKING:
    from distributed import Client

MAX_ROWS = 2**20
"""First rows, at most: each task returns so many."""

_MERGED_ROWS = 2**16
"""Rows beyond four times the first ones that are held until the first ones of them are chosen."""


@dataclass(frozen=True, eq=False)
class Ordered:
    """The first rows of a scan in some order.

    Parameters
    ----------
    plan : ReadPlan
        The rows to choose from, with the columns that the result needs.
    order : Order
        The order, and the number of its first rows.
    offset : int
        How many of these to leave out.
    outputs : tuple of (str, bytes)
        Columns of the result: expressions of the scan's columns, serialized by Polars.
    schema : dict of str to DataType
        Columns of the result.
    """

    plan: ReadPlan
    order: Order
    offset: int
    outputs: tuple[tuple[str, bytes], ...]
    schema: dict[str, pl.DataType]

    def tasks(self) -> Iterator[BestTask]:
        """Yield the tasks in row order, lazily."""
        order, plan = self.order, self.plan
        keys = plan.table.leaves(_names(map(_expr, order.by)))
        for task in plan.tasks():
            yield BestTask(task.scan, task.index, task.max_rows, task.boxes, order=order, keys=keys)

    def of_columns(self, names: Collection[str]) -> "Ordered":
        """Return the same rows with some columns of the result alone."""
        outputs = tuple((name, expr) for name, expr in self.outputs if name in names)
        needed = _names(map(_expr, (*self.order.by, *(expr for _, expr in outputs))))
        return replace(self, outputs=outputs, plan=replace(self.plan, columns=self.plan.table.leaves(needed)))


@dataclass(frozen=True)
class FirstRows:
    """The first rows of an order, and the source of their scan."""

    ordered: Ordered
    reader: ZarrReader


def ordered_of(plan: LogicalPlan, node: Tree) -> FirstRows:
    """Return the first rows of a sorted scan that a node takes.

    Parameters
    ----------
    plan : LogicalPlan
        The plan of the node.
    node : Tree
        The node, a slice.

    Raises
    ------
    Unsplit
        If the node takes other rows.
    """
    fields = fields_of(node)
    offset, length = fields["offset"], fields["len"]
    if offset < 0 or length is None or offset + length > MAX_ROWS:
        raise Unsplit(f"it takes the last rows, or more than the first {MAX_ROWS:,}")
    (below,) = plan.inputs(node)
    try:
        rows = rows_of(plan, below)
        plan.input_below(node, blank(rows.schema).slice(offset, length))
    except Unsplit:
        rows = _of_top_k(plan, node, below)
    if rows.order is None:
        raise Unsplit("its rows are in no order of a sort")
    wanted, keys = rows.order, [expr_of(key) for key in rows.order.by]
    rows = _bounded(rows, wanted, offset + length)
    order = Order(tuple(key.meta.serialize() for key in keys), wanted.descending, wanted.nulls_last, offset + length)
    outputs = [(name, expr_of(tree)) for name, tree in rows.meanings.items()]
    ordered = Ordered(
        rows.plan(_names([*keys, *(expr for _, expr in outputs)])),
        order,
        offset,
        tuple((name, expr.meta.serialize()) for name, expr in outputs),
        rows.schema,
    )
    return FirstRows(ordered, rows.reader)


def takes_first_rows(plan: LogicalPlan, node: Tree) -> bool:
    """Whether a node takes some rows of a sorted table."""
    if kind_of(node) != "Slice":
        return False
    (below,) = plan.inputs(node)
    while kind_of(below) in {"Select", "HStack", "MapFunction"} and len(plan.inputs(below)) == 1:
        (below,) = plan.inputs(below)
    return kind_of(below) == "Sort"


def _of_top_k(plan: LogicalPlan, node: Tree, below: Tree) -> Rows:
    """Return the rows of ``bottom_k``, and so of ``top_k``, whose sort has options of its own."""
    if kind_of(below) != "Sort":
        raise Unsplit("its rows are in no order of a sort")
    (source,) = plan.inputs(below)
    rows, fields = rows_of(plan, source), fields_of(below)
    by, descending = [expr_of(each) for each in fields["by_column"]], fields["sort_options"]["descending"]
    plan.input_below(node, blank(rows.schema).bottom_k(fields_of(node)["len"], by=by, reverse=descending))
    return replace(rows, order=order_of(fields, rows))


def _bounded(rows: Rows, order: SortedBy, count: int) -> Rows:
    """Filter by the first key, if labels of one coordinate alone tell a bound that enough rows do not exceed."""
    table, key = rows.reader.table, expr_of(order.by[0])
    names = {*key.meta.root_names()}
    over = {table.columns[name].dims for name in names} if names <= rows.coordinates else {()}
    if rows.filters or len(over) != 1 or len(dims := over.pop()) != 1 or table.sizes[dims[0]] > MAX_BLOCK_CELLS:
        return rows
    try:
        labelled = labels(table, dims, names).select(key.alias("key"))["key"]
    except (PolarsError, PanicException):
        return rows
    values, descending = labelled.drop_nulls(), order.descending[0]
    num_rows_each = prod(length for dim, length in table.sizes.items() if dim != dims[0])
    num_labels = -(-count // max(num_rows_each, 1))
    nulls_come_first = len(values) < len(labelled) and not order.nulls_last[0]
    if nulls_come_first or not 0 < num_labels < len(values):
        return rows
    if values.dtype.is_nested() or (values.dtype.is_float() and values.is_nan().any()):
        return rows
    bound = pl.lit(values.sort(descending=descending)[num_labels - 1], dtype=values.dtype)
    return replace(rows, filters=(tree_of(key >= bound if descending else key <= bound),))


class OrderedReader:
    """A source for ``polars.io.plugins.register_io_source`` of the first rows of an order.

    It pickles without its client. In another process it uses the client that is active there.

    Parameters
    ----------
    ordered : Ordered
        The rows.
    client : distributed.Client, optional
        The client that the caller asked for.
    limits : Limits, optional
        Bounds of the scan.
    """

    def __init__(self, ordered: Ordered, client: "Client | None" = None, limits: Limits | None = None) -> None:
        self.ordered, self.client, self.limits = ordered, client, limits or Limits()

    def __reduce__(self) -> tuple[Callable[..., Any], tuple[Any, ...]]:
        return recorder_of(self) or (OrderedReader, (self.ordered, None, self.limits))

    def plan(self, columns: Sequence[str] | None, predicate: pl.Expr | None, _n_rows: int | None) -> ReadPlan:
        """Return the plan of the rows to choose from."""
        return self._of(columns, predicate).plan

    def _of(self, columns: Sequence[str] | None, predicate: pl.Expr | None) -> Ordered:
        also = [] if predicate is None else predicate.meta.root_names()
        return self.ordered if columns is None else self.ordered.of_columns({*columns, *also})

    def __call__(
        self,
        with_columns: Sequence[str] | None,
        predicate: pl.Expr | None,
        n_rows: int | None,
        batch_size: int | None,  # the rows are few
    ) -> Iterator[pl.DataFrame]:
        ordered = self._of(with_columns, predicate)
        order, plan = ordered.order, ordered.plan
        check_limits(plan, Limits(self.limits.chunks, None, self.limits.bytes))
        if self.limits.rows is not None and order.count > self.limits.rows < plan.counts.max_rows:
            raise PlanTooLargeError(
                f"max_rows exceeded: the first {order.count} rows of {plan.table.spec.label} are wanted, limit is "
                f"{self.limits.rows}. Take fewer rows, or raise the limit."
            )
        # Not with the first frame: Polars takes that on a thread without the caller's Dask annotations.
        work: Work[pl.DataFrame] = Work(run_best, CompactFrame.to_polars)
        frames = shown(run_tasks(ordered.tasks(), client_for(plan, self.client), work), plan)
        return _merged(ordered, frames, with_columns, predicate, n_rows)


def _merged(
    ordered: Ordered,
    frames: Iterator[pl.DataFrame],
    columns: Sequence[str] | None,
    predicate: pl.Expr | None,
    n_rows: int | None,
) -> Iterator[pl.DataFrame]:
    """Yield the first rows of the frames of tasks, which come in the order of the table."""
    order = ordered.order
    held, height = [ordered.plan.no_rows()], 0
    with closing(frames):  # type: ignore[type-var]  # a generator
        for frame in frames:
            held.append(frame)
            height += frame.height
            if height > 4 * order.count + _MERGED_ROWS:
                every = pl.concat(held)
                held, height = [every[order.first(every)]], order.count  # equal rows stay in the table's order
    every = pl.concat(held)
    found = every[order.first(every)].slice(ordered.offset)
    found = found.select(_expr(expr).alias(name) for name, expr in ordered.outputs)
    if n_rows is not None:
        found = found.head(n_rows)  # a limit counts rows before the filter
    if predicate is not None:
        found = found.filter(predicate)
    yield found if columns is None else found.select(columns)


def _names(exprs: Iterable[pl.Expr]) -> list[str]:
    """Return the columns that some expressions name."""
    return list(dict.fromkeys(name for expr in exprs for name in expr.meta.root_names()))


def _expr(data: bytes) -> pl.Expr:
    return pl.Expr.deserialize(BytesIO(data))
