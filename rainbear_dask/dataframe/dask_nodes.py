"""The expression nodes of dask.dataframe that this package builds on, and their private parts.

dask.dataframe documents no interface for new expressions. So all ties to its private modules are here, and in the
methods that `expr` and `fusion` override. They follow the source of dask 2026.8.0. The tests in
``tests/dataframe/test_dask_nodes.py`` check each tie, and fail first if a release changes one. They also pass with dask
2025.4.1, the oldest supported release.
"""

from collections.abc import Callable, Iterator, Mapping
from typing import Any

import pandas as pd
from dask.dataframe.dask_expr import new_collection  # type: ignore[attr-defined]
from dask.dataframe.dask_expr._accessor import FunctionMap, PropertyMap
from dask.dataframe.dask_expr._expr import (
    Abs,
    And,
    AsType,
    Between,
    Binop,
    Blockwise,
    Clip,
    Expr,
    Fillna,
    Filter,
    Head,
    Index,
    Isin,
    IsNa,
    Lengths,
    Literal,
    Map,
    Mask,
    NotNull,
    PartitionsFiltered,
    Projection,
    RenameSeries,
    Round,
    UFuncElemwise,
    Unaryop,
    Where,
    _DelayedExpr,
    determine_column_projection,
)
from dask.dataframe.dask_expr._indexing import LocElement, LocSlice
from dask.dataframe.dask_expr._reductions import Len, Max, Min
from dask.dataframe.dask_expr._repartition import Repartition, RepartitionToFewer
from dask.dataframe.dask_expr.io.io import BlockwiseIO, FusedIO
from dask.task_spec import DataNode, Task

__all__ = [
    "Blockwise",
    "BlockwiseIO",
    "Expr",
    "Filter",
    "FunctionMap",
    "FusedIO",
    "Head",
    "Index",
    "Len",
    "Lengths",
    "Literal",
    "LocElement",
    "LocSlice",
    "Max",
    "Min",
    "PartitionsFiltered",
    "Projection",
    "PropertyMap",
    "Repartition",
    "Task",
    "determine_column_projection",
    "new_collection",
]

_ROW_BY_ROW = (
    *(Binop, Unaryop, Abs, Round, Clip, Isin, Between, IsNa, NotNull, Fillna, Where, Mask, AsType, Map, RenameSeries),
    *(PropertyMap, FunctionMap, UFuncElemwise),
)

_ACROSS_ROWS = {("str", "cat"), ("str", "get_dummies")}
"""Accessor methods whose result for a row depends on other rows."""


def is_row_by_row(node: Expr) -> bool:
    """Whether a node gives each row a value that depends on that row alone."""
    if isinstance(node, FunctionMap):
        return (node.accessor, node.attr) not in _ACROSS_ROWS
    return isinstance(node, _ROW_BY_ROW)


def call_of(node: Any) -> tuple[Callable[..., Any], list[Any], Mapping[str, Any]]:
    """Return the pandas function of a row-by-row node, with its arguments and keywords."""
    if isinstance(node, UFuncElemwise):
        return node.func, node.args, node.kwargs or {}
    return node.operation, node._args, node._kwargs or {}


def is_boolean_series(node: Any) -> bool:
    """Whether an operand is a Series of Booleans."""
    return isinstance(node, Expr) and node.ndim == 1 and pd.api.types.is_bool_dtype(node._meta.dtype)


def and_operands(node: Any) -> list[Any]:
    """Return the operands of an "and" of Boolean Series; none for other nodes."""
    return list(node.operands) if isinstance(node, And) and all(map(is_boolean_series, node.operands)) else []


def is_delayed(node: Any) -> bool:
    """Whether a node wraps a Delayed."""
    return isinstance(node, _DelayedExpr)


def delayed_value(node: Any) -> Any:
    """Return the value of a Delayed that needs no computing; raise LookupError for others."""
    graph = dict(node.obj.dask)
    value = graph.get(node.obj.key)
    if len(graph) == 1 and isinstance(value, DataNode):
        return value.value
    raise LookupError(node.obj.key)


def is_broadcast(dependency: Any, parent: Any) -> bool:
    """Whether a blockwise node uses one partition of a dependency for all its own."""
    return bool(parent._broadcast_dep(dependency))


def partition_boundaries(num_new: int, num_old: int) -> list[int]:
    """Return where `Repartition` to fewer partitions puts the boundaries, as numbers of old partitions."""
    return list(RepartitionToFewer._compute_partition_boundaries(num_new, num_old))


def live_parents(dependents: Mapping[str, Any], node: Any) -> Iterator[Any]:
    """Yield the nodes above a node that the optimizer still holds."""
    return (parent for ref in dependents[node._name] if (parent := ref()) is not None)


def live_nodes(dependents: Mapping[str, Any]) -> Iterator[Any]:
    """Yield the nodes that have a dependency and that the optimizer still holds, some more than once."""
    return (parent for refs in dependents.values() for ref in refs if (parent := ref()) is not None)
