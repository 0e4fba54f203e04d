"""A Dask DataFrame over any store answers as pandas does on the whole table, for any filter, columns and operation."""

import operator
import warnings
from contextlib import suppress
from datetime import timedelta

import dask
import numpy as np
import pandas as pd
import polars as pl
import pytest
from dask.dataframe.utils import assert_divisions
from hypothesis import event, given, settings
from hypothesis import strategies as st

import rainbear_dask as rd
from tests.oracle import expected_frame
from tests.questions import COMPARE
from tests.strategies import DIMS, START, TEXTS
from tests.test_differential import FOLDER, MEMORY, budgets, warned_of, written

pytestmark = [
    pytest.mark.filterwarnings("ignore::xarray.SerializationWarning"),
    pytest.mark.filterwarnings("ignore:array .* is left out:UserWarning"),
    pytest.mark.filterwarnings("ignore:the table of .* has .* rows:UserWarning"),
    pytest.mark.filterwarnings("ignore:Insufficient elements for `head`:UserWarning"),
]
MOMENT = pd.Timestamp(START)


# ---------------------------------------------------------------------- tables


def flat(frame: pl.DataFrame) -> pl.DataFrame:
    """Fields of structs as columns ``struct/field``."""
    while any(isinstance(dtype, pl.Struct) for dtype in frame.dtypes):
        columns = []
        for column in frame:
            if isinstance(column.dtype, pl.Struct):
                columns += [field.alias(f"{column.name}/{field.name}") for field in column.struct.unnest()]
            else:
                columns.append(column)
        frame = pl.DataFrame(columns)
    return frame


def in_pandas(frame: pl.DataFrame, meta: pd.DataFrame) -> pd.DataFrame:
    """The table as Polars itself converts it, in the types that are promised."""
    dtypes, index = meta.dtypes, meta.index.name
    arrow = any(isinstance(dtype, pd.ArrowDtype) for dtype in dtypes)
    whole = frame.to_pandas(use_pyarrow_extension_array=arrow)
    if index is not None and arrow:
        whole[index] = frame[index].to_pandas()
    if index is not None:
        whole = whole.set_index(index)
        whole.index = whole.index.astype(meta.index.dtype)
    return whole.astype(dict(dtypes))


def rows(table) -> list[str]:
    """Rows with their labels, in no order; exact to the last bit."""
    if isinstance(table, pd.Index):
        table = table.to_frame(name="value", index=False)
    if isinstance(table, pd.Series):
        table = table.to_frame(name="value")
    if table.index.name is not None or not isinstance(table.index, pd.RangeIndex):
        table = table.set_axis([f"c{i}" for i in range(table.shape[1])], axis=1).reset_index()
    return sorted(map(repr, table.itertuples(index=False, name=None)))


def types(table) -> list:
    if isinstance(table, pd.DataFrame):
        return [*table.dtypes]
    return [table.dtype] if isinstance(table, pd.Series | pd.Index) else []


# ---------------------------------------------------------------------- filters


def leaf(draw, name: str, values: pd.Series):
    """A Boolean of one column, as a function of a frame."""
    dtype, known = values.dtype, values.dropna().tolist()
    value = draw(st.sampled_from(known)) if known else None
    choices = [lambda s: s.isna(), lambda s: s.notnull(), lambda s: s.isin(known[::2])]
    compare = COMPARE[draw(st.sampled_from(sorted(COMPARE)))]
    if pd.api.types.is_bool_dtype(dtype):
        choices += [lambda s: s, lambda s: ~s]
    elif pd.api.types.is_datetime64_any_dtype(dtype):
        at = MOMENT + timedelta(hours=draw(st.integers(-50, 50)))
        hour = draw(st.integers(0, 23))
        choices += [lambda s: compare(s.dt.hour, hour), lambda s: compare(s.dt.month, 1 + hour // 2)]
        choices += [lambda s: compare(s, at), lambda s: compare(s, str(at)), lambda s: s.dt.floor("D") == s]
        choices += [lambda s: compare(s + pd.Timedelta(hours=hour), at)]
    elif pd.api.types.is_timedelta64_dtype(dtype):
        duration = pd.Timedelta(hours=draw(st.integers(-50, 50)))
        choices += [lambda s: compare(s, duration), lambda s: compare(s.dt.total_seconds(), 3600)]
    elif pd.api.types.is_numeric_dtype(dtype):
        number = draw(st.one_of(st.integers(-9, 20), st.integers(-90, 90).map(lambda k: k / 10)))
        low = draw(st.integers(-9, 9))
        choices += [
            lambda s: compare(s, number),
            lambda s: compare(number, s),
            lambda s: s.between(low, low + 5, inclusive="left"),
            lambda s: compare((s.astype("f8") + 180) % 7 - 3, number),
            lambda s: compare(s.abs() if dtype.kind != "u" else s, number),
            lambda s: compare(np.abs(s.astype("f8")), number),
            lambda s: compare(s.astype("f8").fillna(2.5), number),
            lambda s: compare(s.astype("f8").where(s > low, 1), number),
            lambda s: compare(s.astype("f8").clip(-2, 3).round(), low),
            lambda s: compare(-s.astype("f8"), number),
        ]
        if dtype.kind == "f":
            choices += [lambda s: compare(s.map(lambda x: x * 2, meta=(name, "f8")), number)]
    elif pd.api.types.is_string_dtype(dtype):
        text = draw(st.sampled_from(TEXTS))
        choices += [lambda s: s.str.startswith(text), lambda s: compare(s.str.len(), 2), lambda s: compare(s, text)]
    else:
        choices = choices[:2]  # bytes
    if value is not None and not pd.api.types.is_bool_dtype(dtype) and dtype.kind != "O":
        choices += [lambda s: compare(s, value), lambda s: compare(s, value)]
    found = draw(st.sampled_from(choices))
    return lambda frame: found(frame[name])


JOINS = {"&": operator.and_, "|": operator.or_, "^": operator.xor}


@st.composite
def filters(draw, whole: pd.DataFrame, depth: int = 2):
    """A filter on any columns, coordinates more often than others, as a function of a frame."""
    if depth == 0 or draw(st.integers(0, 2)) == 2:
        names = list(whole.columns)
        known = [name for name in names if name in DIMS or name.startswith("aux")] or names
        name = draw(st.sampled_from(names if draw(st.integers(0, 2)) == 2 else known))
        if whole[name].dtype.kind == "f" and draw(st.integers(0, 7)) == 7:
            return lambda frame: frame[name] > frame[name].mean()  # asks for all rows
        found = leaf(draw, name, whole[name])
        return (lambda frame: ~found(frame)) if draw(st.integers(0, 4)) == 4 else found
    a, b = draw(filters(whole, depth - 1)), draw(filters(whole, depth - 1))
    join = JOINS[draw(st.sampled_from(sorted(JOINS)))]
    if draw(st.integers(0, 4)) == 4:
        return lambda frame: ~join(a(frame), b(frame))
    return lambda frame: join(a(frame), b(frame))


@st.composite
def steps(draw, whole: pd.DataFrame):
    """What is done before the answer: filters and columns in any order, as functions of a frame."""
    found, names = [], list(whole.columns)
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(["filter", "filter", "columns", "one filtered", "assign", "columns, then all"]))
        event(kind)
        view = whole[names]
        test = draw(filters(view))
        if kind == "filter":
            found.append(lambda frame, test=test: frame[test(frame)])
        elif kind == "columns":
            names = draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
            found.append(lambda frame, names=names: frame[names])
        elif kind == "columns, then all":
            wanted = draw(st.lists(st.sampled_from(names), unique=True, min_size=1))
            found.append(lambda frame, names=wanted, test=test: frame[names][test(frame)])
            names = wanted
        elif kind == "assign":
            name = draw(st.sampled_from(names))
            found.append(lambda frame, name=name: frame.assign(new=frame[name]))
            names = [*names, "new"] if "new" not in names else names
            whole = whole.assign(new=whole[name])
        else:
            name = draw(st.sampled_from(names))
            found.append(lambda frame, name=name, test=test: frame[name][test(frame)].to_frame())
            names = [name]
    return found, names


# ---------------------------------------------------------------------- the law


def value(answer):
    return answer.compute(scheduler="sync") if hasattr(answer, "dask") else answer


def numbers(table, names):
    return [name for name in names if table[name].dtype.kind in "fiu" and table[name].dtype != np.uint64]


ANSWERS = {
    "rows": lambda table, names: table,
    "rows again": lambda table, names: table,
    "len": lambda table, names: len(table),
    "shape": lambda table, names: table[names[0]].size,
    "count": lambda table, names: table[names[-1]].count(),
    "max": lambda table, names: table[names[0]].max() if numbers(table, names[:1]) else 0,
    "sum": lambda table, names: [table[name].astype("f8").sum() for name in numbers(table, names)],
    "sum of a sum": lambda table, names: (
        (table[names[0]].astype("f8") + table[names[-1]].astype("f8")).sum()
        if numbers(table, [names[0], names[-1]])[1:]
        else 0
    ),
    "nunique": lambda table, names: table[names[0]].nunique(),
    "groups": lambda table, names: table.groupby(names[0], observed=True)[names[-1]].count(),
    "value_counts": lambda table, names: table[names[-1]].value_counts(),
    "drop_duplicates": lambda table, names: table[names[:1]].drop_duplicates(),
    "reset": lambda table, names: table.reset_index(drop=True)[names],
    "index": lambda table, names: table.index if table.index.name else len(table.index),
}

NUMBERED = {"rows", "rows again"}
"""Answers whose labels are those of the frame's index."""


PARTS = 8  # an example is several runs of dask: all of them in one test would take longer than a test may


@pytest.mark.parametrize("part", range(PARTS))
@settings(max_examples=-(-settings.default.max_examples // PARTS))
@given(data=st.data())
def test_a_dask_dataframe_answers_as_pandas(part, data):
    with written(data, places=(MEMORY, FOLDER)) as (tree, _, store):
        expected = flat(expected_frame(store))
        if not expected.columns:
            return
        lines = [name for name in expected.columns if name in DIMS] + [
            path for path, a in tree.arrays.items() if "aux" in path and len(a.dims) == 1 and path in expected.columns
        ]
        index = data.draw(st.sampled_from([None, None, *lines]), label="index")
        backend = data.draw(st.sampled_from(["numpy", "numpy", "pyarrow"]), label="types")
        with warned_of(tree), budgets(data):
            frame = rd.read_zarr(store, index=index, dtype_backend=backend)
            whole = in_pandas(expected, frame._meta)
            if not len(frame.columns):
                return
            check(data, frame, whole)


def check(data, frame, whole):
    found, names = data.draw(steps(whole), label="steps")
    answer = data.draw(st.sampled_from(sorted(ANSWERS)), label="answer")

    def ask(table):
        for step in found:
            table = step(table)
        return ANSWERS[answer](table, names)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = ask(whole)
        except Exception as error:  # noqa: BLE001  whatever pandas does not do
            event(f"pandas refuses: {type(error).__name__}")
            with suppress(Exception):
                dask.compute(ask(frame), scheduler="sync")
            return
        actual = ask(frame)
        if getattr(actual, "known_divisions", False) and answer.startswith("rows"):
            event("known divisions")
            with dask.config.set(scheduler="sync"):
                assert_divisions(actual)
        actual = [value(a) for a in actual] if isinstance(actual, list) else value(actual)
    event(answer)
    if answer in ("reset", "drop_duplicates") or (
        frame.index.name is None and answer in NUMBERED
    ):  # each partition numbers its own
        actual, expected = actual.reset_index(drop=True), expected.reset_index(drop=True)
    if isinstance(expected, pd.DataFrame | pd.Series | pd.Index):
        assert types(actual) == types(expected)
        assert rows(actual) == rows(expected)
    else:
        actual, expected = (pd.array(np.atleast_1d(answer), "Float64") for answer in (actual, expected))
        np.testing.assert_allclose(actual.to_numpy("f8"), expected.to_numpy("f8"), rtol=1e-9, atol=1e-9)
