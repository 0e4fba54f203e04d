"""Whether what is made of one scan, in one expression of dask.dataframe, can all be made of fewer of its rows."""

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from dask.base import tokenize
from dask.dataframe.dask_expr._expr import Filter
from dask.dataframe.dask_expr._indexing import LocElement, LocSlice

_LABELS = (LocSlice, LocElement)

CUTS = (Filter, *_LABELS)
"""Nodes that leave fewer rows."""


def is_complete(dependents: Any, node: Any, top: Any) -> bool:
    """Whether it is known what is made of each node: not once a rule has changed one, until the next round."""
    known = {name for name, refs in dependents.items() if any(ref() is not None for ref in refs)}
    nodes = {found._name: found for refs in dependents.values() for ref in refs if (found := ref()) is not None}
    above = {found._name for ref in dependents[node._name] if (found := ref()) is not None}
    return top._name in above and len(nodes.keys() - known) == 1


def num_shared(table: Any, top: Any, dependents: Any) -> int:
    """By how many conditions of a filter, or a choice of labels, a scan may be cut down.

    What is made of the same rows may be put side by side, partition by partition. So all of it has to become fewer by
    the same conditions. Only a single value is beside anything, whatever rows it is of.

    Returns
    -------
    int
        Conditions that all filters, or choices of labels, of the scan have in common, from the first; 0 if anything is
        made of its rows in another way.
    """
    nodes = [found for refs in dependents.values() for ref in refs if (found := ref()) is not None]
    scans = {under._name: under for found in nodes for under in found.dependencies() if table.same_rows(under)}

    def cuts(node: Any) -> bool:
        if not isinstance(node, CUTS):
            return False
        if isinstance(node, _LABELS) and isinstance(node.frame, CUTS):  # it takes its turn when that one is taken
            return False
        return bool(scans.keys() & {node.frame._name, *(under._name for under in node.frame.dependencies())})

    tops = first_above(list(scans.values()), cuts, dependents) or {}
    # a filter that only another filter's predicate is made of goes with that one
    tops = {
        name: node
        for name, node in tops.items()
        if isinstance(node, _LABELS) or not first_above([node], cuts, dependents)
    }
    if top._name not in tops:
        return 0
    asked = [[tokenize(condition) for condition in table.conditions_of(node)] for node in tops.values()]
    return sum(1 for _ in takewhile(lambda alike: len(set(alike)) == 1, zip(*asked, strict=False)))


def first_above(nodes: list[Any], wanted: Callable[[Any], bool], dependents: Any) -> dict[str, Any] | None:
    """The first nodes of a kind that are met on all ways up, but for those of single values; None if a way has none."""
    todo, seen, found = list(nodes), {node._name for node in nodes}, {}
    while todo:
        above = [up for ref in dependents[todo.pop()._name] if (up := ref()) is not None]
        if not above:
            return None
        for up in above:
            if up._name not in seen and getattr(up, "ndim", None) != 0:
                seen.add(up._name)
                if wanted(up):
                    found[up._name] = up
                else:
                    todo.append(up)
    return found
