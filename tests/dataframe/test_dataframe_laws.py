"""A Dask DataFrame over any store answers as pandas does on the whole table, for any filter, columns and operation."""

import operator
import warnings
from collections import Counter
from collections.abc import Callable
from contextlib import suppress
from dataclasses import dataclass
from datetime import timedelta

import dask
import dask.dataframe as dd
import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pytest
from dask.dataframe.utils import assert_divisions
from hypothesis import event, given, settings
from hypothesis import strategies as st

import rainbear_dask as rd
from tests.scan.test_differential import budgets, warned_of, written
from tests.support.oracle import expected_frame
from tests.support.questions import COMPARE
from tests.support.strategies import DIMS, START, TEXTS

pytestmark = [
    pytest.mark.filterwarnings("ignore::xarray.SerializationWarning"),
    pytest.mark.filterwarnings("ignore:array .* is left out:UserWarning"),
    pytest.mark.filterwarnings("ignore:The table of .* has .* rows:UserWarning"),
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
    elif isinstance(dtype, pd.StringDtype | pd.ArrowDtype) and pd.api.types.is_string_dtype(dtype):
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

            def is_high(frame):  # asks for all rows; of float64, and no value is the bound, as sums are rounded
                values = frame[name].astype("f8")
                return values > values.mean() + 1e-3

            return is_high
        found = leaf(draw, name, whole[name])
        return (lambda frame: ~found(frame)) if draw(st.integers(0, 4)) == 4 else found
    a, b = draw(filters(whole, depth - 1)), draw(filters(whole, depth - 1))
    join = JOINS[draw(st.sampled_from(sorted(JOINS)))]
    if draw(st.integers(0, 4)) == 4:
        return lambda frame: ~join(a(frame), b(frame))
    return lambda frame: join(a(frame), b(frame))


@st.composite
def choices_of_labels(draw, labels: pd.Index):
    """Labels between two ends, of which either may be absent, or a day."""
    first, last = sorted(draw(st.lists(st.integers(0, len(labels) - 1), min_size=2, max_size=2)))
    ends = list(labels[[first, last]])
    if isinstance(labels, pd.DatetimeIndex):
        ends = [end if draw(st.booleans()) else str(end.date()) for end in ends]
    absent = draw(st.sampled_from([None, None, 0, 1]))  # not both: dask refuses [:], of any frame
    return slice(*(None if place == absent else end for place, end in enumerate(ends)))


@st.composite
def steps(draw, whole: pd.DataFrame, labels: pd.Index | None):
    """What is done before the answer: filters, columns and labels in any order, as functions of a frame."""
    found, names = [], list(whole.columns)
    kinds = ["filter", "filter", "columns", "one filtered", "assign", "columns, then all"]
    for _ in range(draw(st.integers(0, 3))):
        kind = draw(st.sampled_from(kinds if labels is None else [*kinds, "loc", "loc", "loc of one"]))
        event(kind)
        if kind == "loc":
            wanted = draw(choices_of_labels(labels))
            found.append(lambda frame, wanted=wanted: frame.loc[wanted])
            continue
        if kind == "loc of one":
            label = labels[draw(st.integers(0, len(labels) - 1))]
            found.append(lambda frame, at=label: frame.loc[at] if is_dask(frame) else frame.loc[[at]])
            continue
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


# ---------------------------------------------------------------------- answers


@dataclass(frozen=True)
class Answer:
    """What is asked of a table in the end, be it pandas' or Dask's, and how the two are compared."""

    of: Callable
    compare: Callable


def is_dask(table) -> bool:
    return hasattr(table, "dask")


def value(answer):
    return answer.compute(scheduler="sync") if is_dask(answer) else answer


def numbers(table, names):
    return [name for name in names if table[name].dtype.kind in "fiu" and table[name].dtype != np.uint64]


def same(actual, expected):
    """The same rows with the same labels, of the same types, in any order."""
    assert types(actual) == types(expected)
    assert rows(actual) == rows(expected)


def same_but_for_labels(actual, expected):
    """Of partitions that number their rows each on its own."""
    same(actual.reset_index(drop=True), expected.reset_index(drop=True))


def close(actual, expected):
    """The same number, in whatever order it was added up."""
    actual, expected = (pd.array(np.atleast_1d(answer), "Float64").to_numpy("f8") for answer in (actual, expected))
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def close_in_order(actual, expected):
    """Tables of such numbers."""
    actual, expected = (table.to_numpy("f8", na_value=np.nan) for table in (actual, expected))
    np.testing.assert_allclose(actual, expected, rtol=1e-9, atol=1e-9)


def close_in_groups(actual, expected):
    """The same groups in any order, and close numbers in each."""
    actual, expected = actual.sort_index(), expected.sort_index()
    assert list(map(repr, actual.index)) == list(map(repr, expected.index))
    close_in_order(actual, expected)


def close_in_time(actual, expected):
    """Close numbers at the same times; dask also names times without rows, from the first division to the last."""
    close_in_order(actual.loc[expected.index], expected)
    assert not actual.drop(expected.index)["count"].any()


def equal(actual, expected):
    assert pd.isna(actual) if pd.isna(expected) else actual == expected


def rows_of(n, end):
    """Rows of one end of a table: as many as there are, or as the last partition has, and in the order of the index."""

    def compare(actual, expected):
        assert len(actual) == n if n <= len(expected) and end == "head" else len(actual) <= n
        numbered = expected.index.name is None
        found, known = (rows(table.reset_index(drop=True) if numbered else table) for table in (actual, expected))
        assert not Counter(found) - Counter(known)
        if expected.index.name is not None and expected.index.is_monotonic_increasing:
            count = len(actual)
            labels = expected.index[:count] if end == "head" else expected.index[len(expected) - count :]
            assert list(actual.index) == list(labels)

    def ask(table):
        if not is_dask(table):
            return table
        return table.head(n, npartitions=-1, compute=False) if end == "head" else table.tail(n, compute=False)

    return Answer(ask, compare)


def aggregated(keys, name):
    """Groups and what is known of a number in each; sums of short floats are pandas' own, too coarse to compare."""

    def ask(table):
        groups = table.astype({name: "f8"}).groupby(keys if keys[1:] else keys[0], observed=True)[name]
        return groups.agg(["count", "sum", "mean", "min", "max"])

    return Answer(ask, close_in_groups)


def is_short(labels):
    """Whether times span less than 200 days; pandas holds no difference of 300 years."""
    return labels[-1].year - labels[0].year <= 1 and labels[-1] - labels[0] < pd.Timedelta(days=200)


def resampled(name, hours):
    """The same for steps of time."""
    return Answer(
        lambda table: table[name].astype("f8").resample(f"{hours}h").agg(["count", "sum", "mean", "min", "max"]),
        close_in_time,
    )


def joined(other, how):
    """Rows beside those of a small table, by label."""
    return lambda table: table.join(dd.from_pandas(other, npartitions=2) if is_dask(table) else other, how=how)


def lowest_or_highest(end):
    def ask(table):
        if not is_dask(table) and not len(table):
            raise ValueError("no label")
        return getattr(table.index, end)()

    return ask


def distinct(table, name):
    if not is_dask(table) and table[name].dtype == pd.ArrowDtype(pa.uint64()):
        raise ValueError("beside a null, pandas compares them as float64")
    return table[[name]].drop_duplicates()


PLAIN = {
    "rows": Answer(lambda table, names: table, same),
    "len": Answer(lambda table, names: len(table), equal),
    "shape": Answer(lambda table, names: table[names[0]].size, equal),
    "count": Answer(lambda table, names: table[names[-1]].count(), equal),
    "max": Answer(lambda table, names: table[names[0]].max() if numbers(table, names[:1]) else 0, close),
    "sum of a sum": Answer(
        lambda table, names: (
            (table[names[0]].astype("f8") + table[names[-1]].astype("f8")).sum()
            if numbers(table, [names[0], names[-1]])[1:]
            else 0
        ),
        close,
    ),
    "nunique": Answer(lambda table, names: table[names[0]].nunique(), equal),
    "groups": Answer(lambda table, names: table.groupby(names[0], observed=True)[names[-1]].count(), same),
    "value_counts": Answer(lambda table, names: table[names[-1]].value_counts(), same),
    "drop_duplicates": Answer(lambda table, names: distinct(table, names[0]), same_but_for_labels),
    "reset": Answer(lambda table, names: table.reset_index(drop=True)[names], same_but_for_labels),
}
"""Answers that need nothing but the names of the columns."""


@st.composite
def answers(draw, whole: pd.DataFrame, names: list[str], labels: pd.Index | None):
    """The name of an answer, and the answer."""
    amounts = numbers(whole, [name for name in names if name in whole.columns])
    name = draw(st.sampled_from(amounts)) if amounts else None
    found = {
        kind: Answer(lambda table, ask=plain.of: ask(table, names), plain.compare) for kind, plain in PLAIN.items()
    }
    if whole.index.name is None:
        found["rows"] = Answer(found["rows"].of, same_but_for_labels)
    n = draw(st.integers(0, 9))
    found |= {"head": rows_of(n, "head"), "tail": rows_of(n, "tail")}
    if name is not None:
        found["sum"] = Answer(lambda table: table[name].astype("f8").sum(), close)
        if keys := [key for key in names if key != name]:
            some = draw(st.lists(st.sampled_from(keys), unique=True, min_size=1, max_size=2))
            found |= {"aggregated": aggregated(some, name), "aggregated again": aggregated(some, name)}
    if whole.index.name is not None:
        found["index"] = Answer(lambda table: table.index, same)
        found["end of the index"] = Answer(lowest_or_highest(draw(st.sampled_from(["min", "max"]))), equal)
    if labels is not None and labels.dtype != object:  # dask takes no pandas table whose labels are bytes
        few = labels.unique()[draw(st.integers(0, 1)) :: 2]
        other = pd.DataFrame({"flag": np.arange(len(few)) / 2}, few)
        beside = joined(other, draw(st.sampled_from(["inner", "left", "outer", "right"])))
        found["joined"] = Answer(beside, same)
        found["len of joined"] = Answer(lambda table: len(beside(table)), equal)
    if isinstance(labels, pd.DatetimeIndex) and name is not None and is_short(labels):
        step = draw(st.sampled_from([1, 6, 24]))  # whole days are made of it: others dask begins anew in each partition
        found |= {"resampled": resampled(name, step), "resampled again": resampled(name, step)}
    kind = draw(st.sampled_from(sorted(found)))
    event(kind)
    return kind, found[kind]


# ---------------------------------------------------------------------- the law

PARTS = 8  # an example is several runs of dask: all of them in one test would take longer than a test may
QUESTIONS = 3  # of one store, as writing it takes longer than an answer


@pytest.mark.parametrize("part", range(PARTS))
@settings(max_examples=-(-settings.default.max_examples // (PARTS * QUESTIONS)))
@given(data=st.data())
def test_a_dask_dataframe_answers_as_pandas(part, data):
    with written(data) as (tree, _, store):
        expected = flat(expected_frame(store))
        if not expected.columns:
            return
        lines = [name for name in expected.columns if name in DIMS] + [
            path for path, a in tree.arrays.items() if "aux" in path and len(a.dims) == 1 and path in expected.columns
        ]
        index = data.draw(st.sampled_from([None, *lines, *lines]), label="index")
        backend = data.draw(st.sampled_from(["numpy", "numpy", "pyarrow"]), label="types")
        with warned_of(tree), budgets(data):
            frame = rd.read_zarr(store, index=index, dtype_backend=backend)
            whole = in_pandas(expected, frame._meta)
            if not len(frame.columns):
                return
            labels = None
            if frame.known_divisions and len(whole):
                event("known divisions")
                whole = whole.sort_index(kind="stable")
                labels = whole.index
            for _ in range(QUESTIONS):
                check(data, frame, whole, labels)


def alike(frame, whole):
    """A Dask DataFrame of a pandas table, with the partitions of another one whose divisions are known."""
    return dd.from_pandas(whole, npartitions=1).repartition(divisions=frame.divisions, force=True)


def dask_fails(ask, frame, whole, labels, error):
    """Whether Dask fails alike where the same is asked of a pandas table: whole, a row a partition, or with ours."""
    counts = {1, max(len(whole), 1)}
    if labels is not None and labels.dtype != object:
        tables = [dd.from_pandas(whole, npartitions=count) for count in counts] + [alike(frame, whole)]
    else:
        sizes = [len(whole) // count for count in counts]
        tables = [
            dd.from_map(lambda start, n=size: whole.iloc[start : start + n], [i * size for i in range(count)])
            for count, size in zip(counts, sizes, strict=True)
        ]
    for table in tables:
        with suppress(error):
            value(ask(table))
            continue
        return True
    return False


def check(data, frame, whole, labels):
    found, names = data.draw(steps(whole, labels), label="steps")
    kind, answer = data.draw(answers(whole, names, labels), label="answer")

    def ask(table):
        for step in found:
            table = step(table)
        return answer.of(table)

    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        try:
            expected = ask(whole)
        except Exception as error:  # noqa: BLE001  whatever pandas does not do
            event(f"pandas refuses: {type(error).__name__}")
            with suppress(Exception):
                value(ask(frame))
            return
        try:
            actual = ask(frame)
            if kind == "rows" and actual.known_divisions:
                with dask.config.set(scheduler="sync"):
                    assert_divisions(actual)
            actual = value(actual)
        except Exception as error:
            if not dask_fails(ask, frame, whole, labels, type(error)):
                raise
            event(f"dask fails: {error}"[:30])
            return
        try:
            answer.compare(actual, expected)
        except AssertionError:
            if not kind.startswith("resampled"):
                raise
            # Dask's own resample errs where a partition begins with steps that have no row
            answer.compare(actual, value(ask(alike(frame, whole))))
            event("dask resamples otherwise")
