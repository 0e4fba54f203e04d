"""Joins of a scan with a small table: the scan reads the chunks of its keys, and Polars joins.

Fewer rows of the scan change no row of the result, because the join drops all rows without a partner. So nothing else of
the join needs to be understood.
"""

from collections.abc import Iterator, Mapping
from dataclasses import dataclass
from typing import Any

import polars as pl
from polars.exceptions import PanicException, PolarsError

from rainbear_dask.aggregation.question import Unsplit
from rainbear_dask.engine.keys import Key, cells_of_keys, keys_of, nearest_labels
from rainbear_dask.engine.rows import Rows, blank, rows_of
from rainbear_dask.engine.serialized import LogicalPlan, column, fields_of, kind_of
from rainbear_dask.planning.keys import KeyCells
from rainbear_dask.query.scanned_frame import scan
from rainbear_dask.query.trees import Tree, expr_of
from rainbear_dask.storage.stores import is_remote

MAX_PARTNERS = 1_000_000
"""Rows of the small table, at most."""

ROWS_FOR_A_KEY = 256
"""Rows of a local store that are read and joined in the time in which one key is looked up."""

_PRUNED = {
    "Inner": ("left", "right"),
    "Semi": ("left", "right"),
    "Anti": ("right",),
    "Left": ("right",),
    "Right": ("left",),
}
"""Sides of a join whose rows count only if they have a partner."""

_COALESCE = {"JoinSpecific": None, "CoalesceColumns": True, "KeepColumns": False}
_ORDERS = {"None": "none", "Left": "left", "Right": "right", "LeftRight": "left_right", "RightLeft": "right_left"}
_SCANS = ("PYTHON", "SCAN ZARR", "ANSWER")
"""How Polars shows sources in Python: reading them may take long, or return other rows next time."""


@dataclass(frozen=True)
class Pruned:
    """A join whose keys prune a scan.

    Parameters
    ----------
    keys : tuple of KeyCells
        The keys; empty if they prune nothing.
    num_partners : int
        Rows of the small table.
    reason : str
        Why they prune nothing.
    """

    keys: tuple[KeyCells, ...]
    num_partners: int = 0
    reason: str = ""

    def __str__(self) -> str:
        if not self.keys:
            return f"Join: its keys prune nothing, because {self.reason}"
        names = ", ".join(keys.label for keys in self.keys)
        return f"Join: the scan reads the chunks of {self.num_partners:,} rows of keys alone, by {names}"


def prune(plan: LogicalPlan) -> list[Pruned]:
    """Let the scans of a plan know the keys of joins with small tables; the plan changes.

    Parameters
    ----------
    plan : LogicalPlan
        The plan. Small tables are evaluated, once, and stand in it as tables in memory afterwards.

    Returns
    -------
    list of Pruned
        The joins of scans, from the first to the last.
    """
    found = []
    joins = [node for node in plan.nodes(plan.root) if kind_of(node) == "Join"]
    for node in {id(node): node for node in reversed(joins)}.values():
        try:
            found += list(_pruned(plan, node))
        except Exception as error:  # noqa: BLE001  an unknown layout, or a store that does not answer
            found.append(Pruned((), 0, f"{type(error).__name__}: {error}"))
    return found


def _pruned(plan: LogicalPlan, node: Tree) -> Iterator[Pruned]:
    how = fields_of(node)["options"]["args"]["how"]
    is_asof = isinstance(how, dict) and set(how) == {"AsOf"}
    inputs = dict(zip(("left", "right"), plan.inputs(node), strict=True))
    for side in ("right",) if is_asof else _PRUNED.get(how, ()) if isinstance(how, str) else ():
        other = "left" if side == "right" else "right"
        try:
            rows = rows_of(plan, inputs[side])
        except Unsplit:
            continue
        try:
            partners = _table_of(plan, inputs[other])
            _check_pays(rows, partners)
            join = _Join(plan, node, side, rows, partners)
            cells = join.nearest(how["AsOf"]) if is_asof else join.equal(how)
        except Unsplit as reason:
            yield Pruned((), 0, str(reason))
            return  # the other side is no scan, or has the same reason
        reader = rows.reader
        for each in cells:
            reader = reader.among(each)
        plan.reconnect(node, f"input_{side}", scan(reader))
        if kind_of(inputs[other]) != "DataFrameScan":
            plan.graft(inputs[other], partners.lazy())
        yield Pruned(tuple(cells), partners.height)


def _check_pays(rows: Rows, partners: pl.DataFrame) -> None:
    table = rows.reader.table
    if partners.height * ROWS_FOR_A_KEY > table.num_rows and not is_remote(table.spec):
        raise Unsplit(
            f"{partners.height:,} rows of keys are many for {table.num_rows:,} rows, which Polars joins faster"
        )


def _table_of(plan: LogicalPlan, node: Tree) -> pl.DataFrame:
    """Return a table that holds no scan and is small.

    Raises
    ------
    Unsplit
        If it is something else.
    """
    query = plan.frame_of(node)
    try:
        if any(word in query.explain(optimized=False) for word in _SCANS):
            raise Unsplit("the other table comes from a scan, too")
        table = query.head(MAX_PARTNERS + 1).collect(engine="in-memory")
    except (PolarsError, PanicException, OSError) as error:
        raise Unsplit(f"the other table cannot be evaluated: {error}") from error
    if table.height > MAX_PARTNERS:
        raise Unsplit(f"the other table has more than {MAX_PARTNERS:,} rows")
    return table


@dataclass(frozen=True)
class _Join:
    """A join of a scan with a table in memory."""

    plan: LogicalPlan
    node: Tree
    side: str
    rows: Rows
    partners: pl.DataFrame

    def _made(self, **options: Any) -> pl.LazyFrame:
        """Return the same join of tables without rows."""
        schemas = [self.rows.schema, self.partners.schema]
        left, right = map(blank, schemas if self.side == "left" else reversed(schemas))
        return left.join(right, suffix=self._arguments["suffix"] or "_right", **options)

    @property
    def _arguments(self) -> Mapping[str, Any]:
        found: Mapping[str, Any] = fields_of(self.node)["options"]["args"]
        return found

    def equal(self, how: str) -> list[KeyCells]:
        """Return the cells of a join on equal keys."""
        on = fields_of(self.node)["condition"]["Equi"]
        trees = {"left": on["left_on"], "right": on["right_on"]}
        arguments = self._arguments
        options = {
            "left_on": [expr_of(tree) for tree in on["left_on"]],
            "right_on": [expr_of(tree) for tree in on["right_on"]],
            "how": how.lower(),
            "nulls_equal": arguments["nulls_equal"],
            "coalesce": _COALESCE[arguments["coalesce"]],
            "maintain_order": _ORDERS[arguments["maintain_order"]],
        }
        self.plan.check_join(self.node, self._made(**options))
        other = trees["right" if self.side == "left" else "left"]
        names = [f"k{number}" for number in range(len(other))]
        partners = self._selected([expr_of(tree).alias(name) for tree, name in zip(other, names, strict=True)])
        keys = self._keys(trees[self.side], names)
        cells = cells_of_keys(self.rows.reader.table, keys, partners, nulls_equal=arguments["nulls_equal"])
        if how == "Inner" and options["maintain_order"] == "none" and self._is_longer:
            # Polars follows the order of the longer side, which pruning may make the shorter one
            order = "left_right" if self.side == "left" else "right_left"
            self.plan.change_options(self.node, self._made(**{**options, "maintain_order": order}))
        return cells

    @property
    def _is_longer(self) -> bool:
        """Whether the scan has more rows than the table, as far as coordinates tell."""
        try:
            num_rows = self.rows.plan([next(iter(self.rows.reader.table.columns))]).counts.max_rows
        except Unsplit:
            num_rows = self.rows.reader.table.num_rows
        return num_rows > self.partners.height or (num_rows == self.partners.height and self.side == "right")

    def nearest(self, how: Mapping[str, Any]) -> list[KeyCells]:
        """Return the cells of ``join_asof``."""
        on, rows = fields_of(self.node)["condition"]["Equi"], self.rows
        (left,), (right,) = on["left_on"], on["right_on"]
        by_left, by_right = how["left_by"] or [], how["right_by"] or []
        options = {
            "strategy": how["strategy"].lower(),
            "tolerance": how["tolerance_str"] or next(iter((how["tolerance"] or {"": None}).values())),
            "allow_exact_matches": how["allow_eq"],
        }
        made = blank(dict(self.partners.schema)).join_asof(
            blank(rows.schema),
            left_on=expr_of(left),
            right_on=expr_of(right),
            by_left=by_left or None,
            by_right=by_right or None,
            suffix=self._arguments["suffix"] or "_right",
            coalesce=_COALESCE[self._arguments["coalesce"]] is not False,
            check_sortedness=how["check_sortedness"],
            **options,
        )
        self.plan.check_join(self.node, made)
        names = [f"k{number}" for number in range(1 + len(by_left))]
        exprs = [expr_of(left).alias("k0"), *(pl.col(n).alias(k) for n, k in zip(by_left, names[1:], strict=True))]
        keys = self._keys([right, *map(column, by_right)], names)
        if len(keys) != len(names):
            raise Unsplit("a key of join_asof is no function of coordinates")
        first, *by = keys
        table, within = rows.reader.table, {*first.dims}
        filtered = {name for tree in rows.filters for name in expr_of(tree).meta.root_names()}
        if (
            rows.reader.keys
            or not filtered <= rows.coordinates
            or any(within & {*table.columns[name].dims} for name in filtered)
            or any(within & {*key.dims} for key in by)
        ):
            raise Unsplit("other rows than the nearest label's may be the nearest ones")
        near = nearest_labels(table, first, by, self._selected(exprs), options)
        return cells_of_keys(table, keys, near, nulls_equal=True)

    def _keys(self, trees: list[Tree], names: list[str]) -> list[Key]:
        keys = keys_of(self.rows, trees, names)
        if not keys:
            raise Unsplit("no key is a function of coordinates")
        if not self.rows.reader.table.num_rows:
            raise Unsplit("the scan has no rows")
        return keys

    def _selected(self, exprs: list[pl.Expr]) -> pl.DataFrame:
        try:
            return self.partners.lazy().select(exprs).collect(engine="in-memory")
        except PolarsError as error:
            raise Unsplit(f"Polars does not evaluate the keys: {error}") from error
