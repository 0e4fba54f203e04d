"""A canary for releases of dask: the private parts of dask.dataframe that this package builds on have not changed."""

import inspect
import operator
import weakref
from itertools import pairwise

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import pytest

from rainbear_dask.dataframe import dask_nodes as nodes
from rainbear_dask.dataframe.expr import Columns, Labels, ReadZarr
from rainbear_dask.dataframe.fusion import FusedZarr

OVERRIDDEN = {
    ReadZarr: {
        "_name": None,
        "columns": None,
        "_meta": None,
        "_divisions": ["self"],
        "_filtered_task": ["self", "name", "index"],
        "_tree_repr_lines": ["self", "indent", "recursive"],
        "_simplify_up": ["self", "parent", "dependents"],
        "_filter_passthrough_available": ["self", "parent", "dependents"],
        "_lower": ["self"],
        "_tune_up": ["self", "parent"],
    },
    Columns: {
        "_simplify_up": ["self", "parent", "dependents"],
        "_filter_passthrough_available": ["self", "parent", "dependents"],
    },
    Labels: {
        "_simplify_up": ["self", "parent", "dependents"],
        "_filter_passthrough_available": ["self", "parent", "dependents"],
    },
    FusedZarr: {
        "_name": None,
        "_fusion_buckets": None,
        "_divisions": ["self"],
        "_task": ["self", "name", "index"],
        "_tree_repr_lines": ["self", "indent", "recursive"],
    },
}
"""Names that dask calls on its nodes and that ours define, with the arguments that dask passes."""


@pytest.fixture
def frame():
    table = pd.DataFrame({"a": [1, 2, 3, 4], "b": [1.5, np.nan, 3.5, 0.5], "t": ["x", "y", "z", "x"]})
    return dd.from_pandas(table, npartitions=2)


@pytest.mark.parametrize("node", OVERRIDDEN, ids=lambda node: node.__name__)
def test_dask_has_what_our_nodes_override(node):
    for name, arguments in OVERRIDDEN[node].items():
        theirs = inspect.getattr_static(super(node, node), name, None) or getattr(super(node, node), name, None)
        assert theirs is not None, name
        if arguments is not None:
            assert list(inspect.signature(theirs).parameters) == arguments, name
    assert {name for name in vars(node) if name in dir(node.__mro__[1]) and name[:2] != "__"} <= {
        *OVERRIDDEN[node],
        *("_parameters", "_defaults", "_absorb_projections", "_filter_passthrough"),
    }


@pytest.mark.parametrize(
    ("node", "parameters"),
    [
        (nodes.Filter, ["frame", "predicate"]),
        (nodes.Projection, ["frame", "columns"]),
        (nodes.Index, ["frame"]),
        (nodes.Head, ["frame", "n", "npartitions"]),
        (nodes.Literal, ["value"]),
        (nodes.Lengths, ["frame"]),
        (nodes.Len, ["frame"]),
        (nodes.LocSlice, ["frame", "iindexer", "cindexer"]),
        (nodes.LocElement, ["frame", "iindexer", "cindexer"]),
        (nodes.FusedIO, ["_expr"]),
        (nodes.PropertyMap, ["frame", "accessor", "attr"]),
        (nodes.FunctionMap, ["frame", "accessor", "attr", "args", "kwargs"]),
    ],
)
def test_nodes_have_the_operands_that_are_read(node, parameters):
    assert node._parameters == parameters


def test_a_minimum_is_a_kind_of_maximum():
    assert issubclass(nodes.Min, nodes.Max)


@pytest.mark.parametrize(
    ("make", "expected"),
    [
        (lambda d: d.a + 1, (operator.add, 1)),
        (lambda d: d.a > 2, (operator.gt, 2)),
        (lambda d: ~(d.a > 2), (operator.inv,)),
        (lambda d: np.abs(d.b), (np.abs,)),
        (lambda d: d.t.str.upper(), (nodes.FunctionMap.operation, "str", "upper")),
        (lambda d: d.t.str.len(), (nodes.FunctionMap.operation, "str", "len")),
    ],
)
def test_a_row_by_row_node_tells_its_call(frame, make, expected):
    node = make(frame).expr
    func, args, _ = nodes.call_of(node)
    assert nodes.is_row_by_row(node)
    assert (func, *args[1 : len(expected)]) == expected


def test_nodes_that_look_at_other_rows_are_not_row_by_row(frame):
    for other in (frame.a.cumsum(), frame.a.shift(), frame.t.str.cat(frame.t), frame.b.ffill()):
        assert not nodes.is_row_by_row(other.expr)


def test_a_conjunction_tells_its_operands(frame):
    low, high = frame.a > 1, frame.a < 4
    assert [found._name for found in nodes.and_operands((low & high).expr)] == [low.expr._name, high.expr._name]
    assert nodes.and_operands((low | high).expr) == []
    assert nodes.is_boolean_series(low.expr)
    assert not nodes.is_boolean_series(frame.a.expr)


def test_a_delayed_value_is_known_and_a_delayed_call_is_not(frame):
    (known,) = [n for n in frame.a.isin([1, 2]).expr.walk() if nodes.is_delayed(n)]
    assert list(nodes.delayed_value(known)) == [1, 2]
    unknown = type(known)(dask.delayed(len)([1, 2]))
    with pytest.raises(LookupError):
        nodes.delayed_value(unknown)


@pytest.mark.parametrize(("num_new", "num_old"), [(2, 4), (3, 10), (7, 7), (1, 5)])
def test_boundaries_are_those_of_a_repartitioned_frame(num_new, num_old):
    frame = dd.from_pandas(pd.DataFrame({"a": range(num_old)}), npartitions=num_old)
    found = nodes.partition_boundaries(num_new, num_old)
    assert [stop - start for start, stop in pairwise(found)] == [
        len(part) for part in dask.compute(*frame.repartition(npartitions=num_new).to_delayed())
    ]


def test_parents_are_told_as_the_optimizer_passes_them(frame):
    parent, other = (frame.a + 1).expr, (frame.a + 2).expr
    dependents = {frame.a.expr._name: [weakref.ref(parent), weakref.ref(other)], parent._name: [], other._name: []}
    del other
    assert [found._name for found in nodes.live_parents(dependents, frame.a.expr)][:1] == [parent._name]
    assert parent._name in {found._name for found in nodes.live_nodes(dependents)}


def test_one_value_is_broadcast_and_a_series_is_not(frame):
    parent = (frame.a + frame.b.mean()).expr
    series, mean = parent.dependencies()
    assert nodes.is_broadcast(mean, parent)
    assert not nodes.is_broadcast(series, parent)
