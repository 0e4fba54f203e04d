"""LazyFrame to LazyFrame: the largest parts that can be split become sources that answer them."""

from dataclasses import dataclass
from math import prod
from typing import TYPE_CHECKING

import polars as pl
from polars.exceptions import PolarsError
from polars.io.plugins import register_io_source

from rainbear_dask.aggregation.cohorts import group_sets
from rainbear_dask.aggregation.known import known_answer
from rainbear_dask.aggregation.question import Unsplit
from rainbear_dask.aggregation.rows import RowQuestion
from rainbear_dask.engine.distinct import sort_distinct
from rainbear_dask.engine.having import expand_having
from rainbear_dask.engine.ordered import FirstRows, OrderedReader, ordered_of, takes_first_rows
from rainbear_dask.engine.over import expand_over
from rainbear_dask.engine.pruning import Pruned, prune
from rainbear_dask.engine.questions import Split, aggregates, split_of, works_row_by_row
from rainbear_dask.engine.serialized import LogicalPlan, kind_of
from rainbear_dask.engine.source import AnswerReader
from rainbear_dask.engine.sql import expand_sql
from rainbear_dask.exceptions import RainbearError
from rainbear_dask.query.trees import Tree
from rainbear_dask.resources.limits import readable_bytes

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Part:
    """A part of a query that aggregates a scan, or takes the first rows of a sorted one.

    Parameters
    ----------
    name : str
        The step, in Polars' words.
    split : Split, FirstRows or None
        What workers answer; None if Polars does it.
    reason : str
        Why Polars does it; "" if workers do.
    """

    name: str
    split: Split | FirstRows | None
    reason: str = ""

    @property
    def space(self) -> str | None:
        """The space in which workers answer: "array" or "rows"; None if Polars does it."""
        if self.split is None:
            return None
        return "rows" if isinstance(self.split, FirstRows) or isinstance(self.split.question, RowQuestion) else "array"

    def __str__(self) -> str:
        if self.split is None:
            return f"{self.name}: not split, because {self.reason}"
        if isinstance(self.split, FirstRows):
            count = self.split.ordered.order.count
            return f"{self.name}: split in row space: tasks return the first {count:,} rows of the order"
        question = self.split.question
        keys = ", ".join(name for name, _ in question.keys) or "nothing"
        outputs = ", ".join(name for name, _ in question.outputs) or "no aggregate"
        if isinstance(question, RowQuestion):
            whole = "" if question.sets is None else ", in tasks of whole groups"
            return f"{self.name}: split in row space: {outputs} by {keys}{whole}"
        groups = prod(block.keys.height for block in question.blocks)
        pieces, counts = group_sets(question), question.plan.counts
        states, rows = (readable_bytes(n) for n in (groups * question.group_bytes, counts.max_rows * counts.row_bytes))
        cohorts = f" in {prod(map(len, pieces.values())):,} pieces" if pieces else ""
        known = known_answer(question)
        how = f"; statistics of {min(use.made for use in known.uses):%Y-%m-%d} answer it" if known else ""
        return (
            f"{self.name}: split in array space: {outputs} by {keys}, at most {groups:,} groups{cohorts}: "
            f"{states} of states for {rows} of rows{how}"
        )


@dataclass(frozen=True)
class Rewritten:
    """A query after rewriting.

    Parameters
    ----------
    query : LazyFrame
        The query, with sources of answers; the very query if nothing is split.
    parts : tuple of Part
        Its aggregations of Zarr scans.
    joins : tuple of Pruned
        Its joins of Zarr scans with small tables.
    """

    query: pl.LazyFrame
    parts: tuple[Part, ...]
    joins: tuple[Pruned, ...] = ()


def rewrite(query: pl.LazyFrame, client: "Client | None" = None) -> Rewritten:
    """Put sources in the place of the parts of a query that can be split.

    Parameters
    ----------
    query : LazyFrame
        The query; it stays as it is.
    client : distributed.Client, optional
        Client that runs the tasks; by default the one of each scan.

    Returns
    -------
    Rewritten
        A query with the same result. Planning reads the coordinates that filters and keys name.
    """
    if not _scans_zarr(query):
        return Rewritten(query, ())
    try:
        plan = LogicalPlan(query)
    except Unsplit as reason:
        return Rewritten(query, (Part("the query", None, str(reason)),))
    try:
        expand_sql(plan)
        expand_having(plan)
        sort_distinct(plan)
        expand_over(plan, client)
    except Exception as error:  # noqa: BLE001  an unknown layout raises anything; Polars then runs the query as it is
        return Rewritten(query, (Part("the query", None, f"{type(error).__name__}: {error}"),))
    found = list(_parts(plan, plan.root, client))
    parts = tuple(part for part, _ in found)
    try:
        grafts = [(node, _source(part.split, client)) for part, node in found if part.split is not None]
        for node, source in grafts:
            plan.graft(node, source)
        joins = tuple(prune(plan))
        return Rewritten(plan.query if grafts or any(join.keys for join in joins) else query, parts, joins)
    except Exception as error:  # noqa: BLE001  an unknown layout raises anything; Polars then runs the query as it is
        return Rewritten(query, tuple(Part(part.name, None, f"grafting failed: {error}") for part in parts))


def _scans_zarr(query: pl.LazyFrame) -> bool:
    try:
        return "SCAN ZARR" in query.explain(optimized=False)
    except PolarsError:
        return False  # Polars says why when it runs the query


def _parts(plan: LogicalPlan, node: Tree, client: "Client | None", depth: int = 0) -> list[tuple[Part, Tree]]:
    """Return the parts at a node and below it, each with its node."""
    mine: list[tuple[Part, Tree]] = []
    if depth > _MAX_DEPTH:
        return mine
    if aggregates(node) or takes_first_rows(plan, node):
        try:
            split = split_of(plan, node, client) if aggregates(node) else ordered_of(plan, node)
            return [(Part(kind_of(node), split), node)]
        except Unsplit as reason:
            if works_row_by_row(plan, node):
                return mine
            mine = [(Part(kind_of(node), None, str(reason)), node)]
        except (RainbearError, Exception) as error:  # noqa: BLE001  an unknown layout, or a store that does not answer
            mine = [(Part(kind_of(node), None, f"{type(error).__name__}: {error}"), node)]
    try:
        below = plan.inputs(node)
    except Unsplit:
        return mine
    inner = [found for each in below for found in _parts(plan, each, client, depth + 1)]
    return inner if any(part.split for part, _ in inner) else mine + inner


_MAX_DEPTH = 200


def _source(split: Split | FirstRows, client: "Client | None") -> pl.LazyFrame:
    reader = split.reader
    runs_on = client or reader.client
    source: AnswerReader | OrderedReader
    if isinstance(split, Split):
        source, schema = AnswerReader(split.question, runs_on, reader.limits), split.question.schema
    else:
        source, schema = OrderedReader(split.ordered, runs_on, reader.limits), split.ordered.schema
    return register_io_source(
        source,
        schema=schema,
        is_pure=True,
        explain_name="ANSWER",
        explain_detail=reader.table.spec.label,
    )
