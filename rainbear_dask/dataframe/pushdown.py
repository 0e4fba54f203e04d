"""Which filters and label selections Dask may push into a scan.

Dask aligns all frames that derive from one scan partition by partition, and a scan of fewer rows has other partitions.
So Dask may push a condition into a scan only if the condition filters every frame that derives from the scan. Single
values are an exception: they are aligned with nothing and may derive from all rows.
"""

from collections.abc import Callable
from itertools import takewhile
from typing import Any

from dask.base import tokenize

from rainbear_dask.dataframe.dask_nodes import Filter, LocElement, LocSlice, live_nodes, live_parents

_LABEL_SELECTIONS = (LocSlice, LocElement)

ROW_SELECTIONS = (Filter, *_LABEL_SELECTIONS)
"""Nodes that keep some rows of a frame."""


def pushed_down(node: Any, top: Any, dependents: Any) -> Any:
    """Push a row selection into the scan below it.

    Parameters
    ----------
    node : Expr
        A scan, its projection or its index. ``node.scan`` is the scan, or None.
    top : Expr
        A node above it.
    dependents : mapping
        Parents of each node, as the optimizer of Dask passes them.

    Returns
    -------
    Expr or None
        The replacement of ``top``; None if there is none, or not yet.
    """
    if not may_push_down(node, top, dependents) or not _knows_all_parents(dependents, node, top):
        return None
    scan = node.scan
    count = _num_common_conditions(scan, top, dependents)
    found = scan.filtered(top.predicate, count) if isinstance(top, Filter) else scan.located(top)
    if found is None or node is scan:
        return found
    if isinstance(found, Filter):
        return Filter(type(node)(found.frame, *node.operands[1:]), found.predicate)
    return type(node)(found, *node.operands[1:])


def may_push_down(node: Any, top: Any, dependents: Any) -> bool:
    """Whether `pushed_down` may return a node, now or after other rules of the optimizer."""
    scan = node.scan
    if scan is None or not isinstance(top, ROW_SELECTIONS) or top.frame is not node:
        return False
    if not scan.accepts_conditions:
        return False
    num_conditions = len(scan.conditions_of(top))
    if not _knows_all_parents(dependents, node, top):
        return num_conditions > 0
    count = _num_common_conditions(scan, top, dependents)
    return count > 0 and (isinstance(top, Filter) or count == num_conditions)


def _knows_all_parents(dependents: Any, node: Any, top: Any) -> bool:
    """Whether ``dependents`` is up to date: once a rule has replaced a node, it is not until the next round."""
    known = {name for name, refs in dependents.items() if any(ref() is not None for ref in refs)}
    nodes = {found._name for found in live_nodes(dependents)}
    above = {found._name for found in live_parents(dependents, node)}
    return top._name in above and len(nodes - known) == 1


def _num_common_conditions(scan: Any, top: Any, dependents: Any) -> int:
    """Return how many conditions, from the first, all row selections of a scan share.

    The result is 0 if a frame derives from the scan without a row selection.
    """
    scans = {
        child._name: child
        for found in live_nodes(dependents)
        for child in found.dependencies()
        if scan.has_same_rows(child)
    }

    def selects_rows(node: Any) -> bool:
        if not isinstance(node, ROW_SELECTIONS):
            return False
        if isinstance(node, _LABEL_SELECTIONS) and isinstance(node.frame, ROW_SELECTIONS):
            return False  # its turn comes once the selection below it is pushed down
        return bool(scans.keys() & {node.frame._name, *(child._name for child in node.frame.dependencies())})

    tops = nearest_parents(list(scans.values()), selects_rows, dependents) or {}
    # a filter that only serves the predicate of another filter moves with that one
    tops = {
        name: node
        for name, node in tops.items()
        if isinstance(node, _LABEL_SELECTIONS) or not nearest_parents([node], selects_rows, dependents)
    }
    if top._name not in tops:
        return 0
    tokens = [[tokenize(condition) for condition in scan.conditions_of(node)] for node in tops.values()]
    return sum(1 for _ in takewhile(lambda alike: len(set(alike)) == 1, zip(*tokens, strict=False)))


def nearest_parents(nodes: list[Any], is_wanted: Callable[[Any], bool], dependents: Any) -> dict[str, Any] | None:
    """Return the first wanted node on each way up, ignoring single values; None if a way up has no wanted node."""
    todo, seen, found = list(nodes), {node._name for node in nodes}, {}
    while todo:
        above = list(live_parents(dependents, todo.pop()))
        if not above:
            return None
        for parent in above:
            if parent._name not in seen and getattr(parent, "ndim", None) != 0:
                seen.add(parent._name)
                if is_wanted(parent):
                    found[parent._name] = parent
                else:
                    todo.append(parent)
    return found
