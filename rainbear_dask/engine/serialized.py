"""A LazyFrame and an expression as plain data: Polars' own serialized form, read, compared and edited.

Polars serializes a plan as a header, which names the version of the layout, and MessagePack. This module knows the
names of the fields that lead from a node to its inputs, and of the node that scans. It never guesses what a node means:
`input_below` compares a node with one that Polars builds from a public call. So a layout that this module does not know
is never misread. It makes a plan `Unsplit`.
"""

from collections.abc import Callable, Iterator, Mapping
from functools import cache
from typing import Any

import msgpack
import polars as pl
from polars.exceptions import PolarsError

from rainbear_dask.aggregation.question import Unsplit
from rainbear_dask.query.pushdown import deserialize_with_sources, serialize_without_sources
from rainbear_dask.query.trees import Tree, expr_of

_HEADER_BYTES = len(b"DSL_VERSION") + 4 + 64
"""A word, the number of the layout, and a digest of its schema."""

_MAX_BYTES = 2**22
"""Plans that are longer hold large frames, and are left alone: a MiB takes a tenth of a second to take apart."""

_REFERENCE = {"idx", "version"}
_INPUTS = ("input", "input_left", "input_right", "inputs")
_MAX_DEPTH = 200
"""Nodes from the root of a plan; deeper ones are left alone."""


class LogicalPlan:
    """A query as data.

    Parameters
    ----------
    query : LazyFrame
        The query; it stays as it is.

    Raises
    ------
    Unsplit
        If the query does not serialize, or in a layout that this module does not know.
    """

    def __init__(self, query: pl.LazyFrame) -> None:
        try:
            data, self._sources = serialize_without_sources(query)
        except Exception as error:  # Python functions and sources of users raise anything
            raise Unsplit(f"the query does not serialize: {error}") from error
        if len(data) > _MAX_BYTES:
            raise Unsplit("the query holds frames of more than 4 MiB")
        self._header, body = data[:_HEADER_BYTES], data[_HEADER_BYTES:]
        if self._header != _own_header():
            raise Unsplit("the layout of the serialized plan is unknown")
        try:
            self._document = msgpack.unpackb(body, strict_map_key=False)
            self._slots: list[Tree] = self._document["dsl_plans"]
            self.root = self._node(self._document["root"])
        except (ValueError, KeyError, TypeError, IndexError) as error:
            raise Unsplit("the layout of the serialized plan is unknown") from error
        if msgpack.packb(self._document) != body:
            raise Unsplit("the serialized plan is not plain MessagePack")

    def _node(self, reference: Tree) -> Tree:
        """Return a node of the form ``{kind: fields}``, which stands in a slot or, in a union, in place."""
        node = self._slots[reference["idx"]]["value"] if set(reference) == _REFERENCE else reference
        if not (isinstance(node, dict) and len(node) == 1 and isinstance(fields_of(node), dict)):
            raise Unsplit("a node of the plan has an unknown form")
        return node

    def inputs(self, node: Tree) -> list[Tree]:
        """Return the nodes whose rows a node takes."""
        fields = fields_of(node)
        found = [each for name in _INPUTS if name in fields for each in _as_list(fields[name])]
        return [self._node(each) for each in found]

    def nodes(self, node: Tree, depth: int = 0) -> Iterator[Tree]:
        """Yield a node and all below it."""
        yield node
        if depth < _MAX_DEPTH:
            for each in self.inputs(node):
                yield from self.nodes(each, depth + 1)

    def input_below(self, node: Tree, rebuilt: pl.LazyFrame) -> Tree:
        """Return the input of a chain of nodes, if a public call on a blank frame builds the same chain.

        Parameters
        ----------
        node : dict
            The last node of the chain.
        rebuilt : LazyFrame
            The call on a frame without rows. Every field of every node must be equal.

        Raises
        ------
        Unsplit
            If any field differs.
        """
        other = LogicalPlan(rebuilt)
        mine, theirs = node, other.root
        while kind_of(theirs) != "DataFrameScan":
            if kind_of(mine) != kind_of(theirs) or _without_inputs(mine) != _without_inputs(theirs):
                raise Unsplit(f"Polars builds another node than this {kind_of(mine)}")
            (mine,), (theirs,) = self.inputs(mine), other.inputs(theirs)
        return mine

    def scan_of(self, node: Tree) -> tuple[pl.LazyFrame, list[Any]]:
        """Return a node without inputs as a LazyFrame, and the sources that it scans."""
        slots = [self._slots[0], {"value": node, "version": 1}]
        frames = self._document["dataframes"][:1]  # the others may be large, and a source needs none
        return self._frame(
            {**self._document, "dataframes": frames, "dsl_plans": slots, "root": {"idx": 1, "version": 1}}
        )

    def frame_of(self, node: Tree) -> pl.LazyFrame:
        """Return a part of the query as a LazyFrame."""
        slots = [*self._slots, {"value": node, "version": 1}]
        return self._frame({**self._document, "dsl_plans": slots, "root": {"idx": len(slots) - 1, "version": 1}})[0]

    def table_of(self, reference: Tree) -> pl.LazyFrame:
        """Return a node as a LazyFrame, from a reference to it."""
        return self.frame_of(self._node(reference))

    def check_join(self, node: Tree, rebuilt: pl.LazyFrame) -> None:
        """Raise `Unsplit` if a join has other fields than one that Polars builds, apart from its inputs."""
        other = LogicalPlan(rebuilt).root
        if kind_of(other) != kind_of(node) or _with_suffix(other) != _with_suffix(node):
            raise Unsplit("Polars builds another node than this join")

    def check_scan(self, node: Tree, rebuilt: pl.LazyFrame) -> None:
        """Raise `Unsplit` if a scan has other fields than one that Polars builds, apart from the source."""
        if _without_source(node) != _without_source(LogicalPlan(rebuilt).root):
            raise Unsplit("Polars builds another node than this scan")

    @property
    def query(self) -> pl.LazyFrame:
        """The query as it is now."""
        return self._frame(self._document)[0]

    def graft(self, node: Tree, query: pl.LazyFrame) -> None:
        """Put a query in the place of a node."""
        grafted = self.adopt(query)
        node.clear()
        node.update(grafted)

    def change_options(self, node: Tree, rebuilt: pl.LazyFrame) -> None:
        """Give a join the options of another one that Polars builds."""
        fields_of(node)["options"] = fields_of(LogicalPlan(rebuilt).root)["options"]

    def reconnect(self, node: Tree, name: str, scan: pl.LazyFrame) -> None:
        """Put another scan below an input of a node. Other nodes above the present scan keep it.

        Parameters
        ----------
        node : Tree
            The node.
        name : str
            Name of the input. From there, first inputs lead to a scan.
        scan : LazyFrame
            The other scan.
        """
        fields_of(node)[name] = self._copied_onto(fields_of(node)[name], self.adopt(scan))

    def _copied_onto(self, reference: Tree, leaf: Tree) -> Tree:
        """Return a reference to copies of a node and of its first inputs, down to another leaf."""
        node = self._node(reference)
        name = next((each for each in _INPUTS if each in fields_of(node)), None)
        if name is None:
            copy = leaf
        else:
            below = self._copied_onto(fields_of(node)[name], leaf)
            copy = {kind_of(node): {**fields_of(node), name: below}}
        self._slots.append({"value": copy, "version": 1})
        return {"idx": len(self._slots) - 1, "version": 1}

    def adopt(self, query: pl.LazyFrame) -> Tree:
        """Return the last node of another query, whose nodes become nodes of this plan."""
        data, self._sources = serialize_without_sources(query, self._sources)
        document = msgpack.unpackb(data[_HEADER_BYTES:], strict_map_key=False)
        slots, frames = len(self._slots), self._document["dataframes"]
        for slot in document["dsl_plans"]:
            _renumber(slot["value"], slots, len(frames))
            self._slots.append(slot)
        frames += document["dataframes"]
        return self._slots[slots + document["root"]["idx"]]["value"]

    def _frame(self, document: Tree) -> tuple[pl.LazyFrame, list[Any]]:
        return deserialize_with_sources(self._header + msgpack.packb(document), self._sources)


def _renumber(tree: Tree, slots: int, frames: int) -> None:
    """Shift the references of a node, and of nodes inside it."""
    for name, part in tree.items() if isinstance(tree, dict) else enumerate(tree) if isinstance(tree, list) else ():
        if isinstance(part, dict) and set(part) == _REFERENCE:
            part["idx"] += frames if name == "df" else slots
        else:
            _renumber(part, slots, frames)


@cache
def _own_header() -> bytes:
    return pl.LazyFrame().serialize()[:_HEADER_BYTES]


def kind_of(node: Tree) -> str:
    """Return the kind of a node, in Polars' words."""
    (kind,) = node
    return str(kind)


def fields_of(node: Tree) -> Tree:
    """Return the fields of a node."""
    (fields,) = node.values()
    return fields


def _as_list(value: Tree) -> list[Tree]:
    return value if isinstance(value, list) else [value]


def _without_inputs(node: Tree) -> bytes:
    fields = fields_of(node)
    return bytes(msgpack.packb({name: value for name, value in fields.items() if name not in _INPUTS}))


def _with_suffix(join: Tree) -> bytes:
    """Return a join without its inputs, with the usual suffix if it has none, as in SQL."""
    fields = fields_of(join)
    options = fields["options"]
    arguments = {**options["args"], "suffix": options["args"]["suffix"] or "_right"}
    return _without_inputs({kind_of(join): {**fields, "options": {**options, "args": arguments}}})


def _without_source(node: Tree) -> Tree:
    fields = fields_of(node)
    options = {name: value for name, value in fields["options"].items() if name != "scan_fn"}
    return {**fields, "options": options}


# ---------------------------------------------------------------------- expressions


def maybe_expr_of(tree: Tree) -> pl.Expr | None:
    """Return the expression of a tree; None if the tree is another part of a plan."""
    try:
        return expr_of(tree)
    except (PolarsError, ValueError, TypeError):
        return None


def column_name(tree: Tree) -> str | None:
    """Return the name if an expression is a plain column."""
    return tree["Column"] if isinstance(tree, dict) and set(tree) == {"Column"} else None


def column(name: str) -> Tree:
    """Return the tree of a plain column."""
    return {"Column": name}


def substitute(tree: Tree, meanings: Mapping[str, Tree]) -> Tree:
    """Return an expression with other expressions in the place of its columns."""
    name = column_name(tree)
    if name is not None:
        if name not in meanings:
            raise Unsplit(f"column {name!r} is not one of the scan")
        return meanings[name]
    return _mapped(tree, lambda part: substitute(part, meanings))


def replace_part(tree: Tree, old: Tree, new: Tree) -> Tree:
    """Return an expression with another part in the place of one that equals ``old``."""
    return new if tree == old else _mapped(tree, lambda part: replace_part(part, old, new))


def selectors(tree: Tree) -> list[Tree]:
    """Return the parts of an expression that stand for several columns."""
    if isinstance(tree, dict) and set(tree) == {"Selector"}:
        return [tree]
    return [found for part in parts_of(tree) for found in selectors(part)]


def parts_of(tree: Tree) -> list[Tree]:
    """Return the values of a dict or a list; nothing for anything else."""
    return list(tree.values()) if isinstance(tree, dict) else tree if isinstance(tree, list) else []


def _mapped(tree: Tree, change: Callable[[Tree], Tree]) -> Tree:
    if isinstance(tree, dict):
        return {name: change(part) for name, part in tree.items()}
    return [change(part) for part in tree] if isinstance(tree, list) else tree
