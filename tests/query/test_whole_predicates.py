"""No path drops a part of a predicate: each gives the rows that Polars gives on the whole table, or names what it cannot apply."""

import asyncio
from collections.abc import Sequence
from contextlib import suppress
from datetime import date
from functools import cache
from operator import and_, or_, xor

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import currently_in_test_context, event, given
from hypothesis import strategies as st
from polars.exceptions import PolarsError

import rainbear_dask as rd
from rainbear_dask import scan_zarr
from rainbear_dask.exceptions import PredicateError, QueryError, RainbearError
from tests.support.errors import caught
from tests.support.oracle import assert_same_rows, expected_frame

c = pl.col


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    """A grid of 4 chunks, whose texts are numbers and dates but for some."""
    path = str(tmp_path_factory.mktemp("predicates") / "grid.zarr")
    rng = np.random.default_rng(7)
    sizes = {"time": 8, "lat": 6}
    grid, shape = tuple(sizes), tuple(sizes.values())
    texts = np.array(["1", "22", "3", "x"], dtype=object)
    values = {
        "v": (grid, np.where(rng.random(shape) < 0.1, np.nan, rng.normal(0, 5, shape))),
        "n": (grid, rng.integers(-4, 5, shape).astype("i4")),
        "word": (grid, texts[rng.integers(0, 4, shape)]),
        "wet": (grid, rng.random(shape) < 0.5),
    }
    coords = {
        "time": np.datetime64("2020-01-01T06", "ns") + np.arange(8) * np.timedelta64(12, "h"),
        "lat": np.linspace(-50, 50, 6),
        "label": ("time", texts[[0, 1, 2, 3, 0, 2, 2, 1]]),
        "day": ("time", np.array([f"2020-01-{d:02}" for d in (1, 1, 2, 2, 3, 3, 4, 31)], dtype=object)),
    }
    encoding = {name: {"chunks": (2, 3)} for name in values} | {"v": {"chunks": (2, 3), "_FillValue": -999.0}}
    xr.Dataset(values, coords).to_zarr(path, encoding=encoding, consolidated=False)
    return path


@pytest.fixture(scope="module")
def whole(url) -> pl.DataFrame:
    return expected_frame(url)


@pytest.fixture(autouse=True)
def in_small_tasks():
    with dask.config.set({"rainbear-dask.task-bytes": 1}):
        yield


def ways(path: str, predicate: pl.Expr) -> dict:
    """Each way to the rows that pass a predicate, by name."""
    backend = rd.ZarrBackendSync.from_url(path)
    plan = cache(lambda: rd.plan(backend, predicate))

    def from_dask(frame) -> pl.DataFrame:
        return pl.from_pandas(frame.compute(scheduler="sync").reset_index(drop=True))

    return {
        "scan": lambda: scan_zarr(backend).filter(predicate).collect(),
        "scan, streaming": lambda: scan_zarr(backend).filter(predicate).collect(engine="streaming"),
        IN_SEVERAL: lambda: (
            scan_zarr(backend).filter(c.lat < 40).filter(predicate, pl.lit(value=True)).filter(c.n < 4).collect()
        ),
        "plan": lambda: plan().collect(),
        "plan, delayed": lambda: pl.concat([plan().no_rows(), *dask.compute(*plan().to_delayed(), scheduler="sync")]),
        "plan, mapped": lambda: pl.concat([plan().no_rows(), *plan().map_partitions(pl.DataFrame.clone)]),
        "plan, Arrow": lambda: pl.from_arrow(plan().to_arrow_reader().read_all()),
        "backend": lambda: backend.scan_zarr_sync(predicate),
        "backend, streaming": lambda: pl.concat(
            [backend.scan_zarr_sync(n_rows=0), *backend.scan_zarr_streaming_sync(predicate, batch_size=5)]
        ),
        "backend, awaited": lambda: asyncio.run(rd.scan_zarr_async(backend, predicate)),
        "plan, pandas": lambda: pl.from_pandas(plan().to_pandas()),
        "plan, Dask DataFrame": lambda: from_dask(plan().to_dask_dataframe()),
        "filters of Dask DataFrame": lambda: from_dask(rd.read_zarr(backend, predicate=predicate)),
        "lazy table, Dask DataFrame": lambda: from_dask(rd.to_dask_dataframe(scan_zarr(backend).filter(predicate))),
    }


IN_SEVERAL = "scan, in several filters"
WAYS = ["scan", "scan, streaming", IN_SEVERAL, "plan", "backend", "lazy table, Dask DataFrame"]


def seen(what: str) -> None:
    """Count it, where predicates are drawn."""
    if currently_in_test_context():
        event(what)


def check(path: str, whole: pl.DataFrame, predicate: pl.Expr, *, may_refuse: bool, by: Sequence[str] = ()) -> None:
    """Compare ways with Polars on the whole table. Where Polars fails, a way may fail so too, or skip what fails."""
    for name, ask in ways(path, predicate).items():
        if by and name not in by:
            continue
        try:
            query = whole.lazy().filter(predicate)
            if name == IN_SEVERAL:
                query = whole.lazy().filter(c.lat < 40).filter(predicate).filter(c.n < 4)
            expected = query.collect()
        except PolarsError:
            seen("Polars refuses")
            with suppress(PolarsError, RainbearError):
                ask()
            continue
        try:
            actual = ask()
        except (PredicateError, QueryError):
            assert may_refuse, name
            seen("refused by name")
            continue
        seen(f"rows: {'none' if expected.is_empty() else 'all' if expected.height == whole.height else 'some'}")
        if "pandas" in name or "Dask" in name:  # which have other types
            assert actual["n"].to_list() == expected["n"].to_list(), name
        else:
            assert_same_rows(actual, expected)


FALLIBLE = {
    "cast of a coordinate": c.time.cast(pl.Date) > date(2020, 1, 2),
    "cast of a variable": c.v.cast(pl.Int32) > 2,
    "cast in between": c.n.is_between(-2.0, 2.5),
    "cast outside": ~c.n.is_between(-2.0, 2.5),
    "date of a text": c.day.str.to_date("%Y-%m-%d") < date(2020, 1, 4),
    "number of a text": c.label.str.replace("x", "7").cast(pl.Int64) > 2,
    "replaced": c.label.replace_strict({"1": 1, "22": 2, "3": 3, "x": 4}) > 1,
    "item of a list": c.day.str.split("-").list.get(2).str.starts_with("0"),
    "time zone": c.time.dt.replace_time_zone("Europe/Paris").dt.hour() < 12,
    "within or": (c.time.cast(pl.Date) > date(2020, 1, 3)) | (c.v > 3),
    "within not": ~((c.time.cast(pl.Date) > date(2020, 1, 3)) | (c.v > 3)),
    "within horizontal": pl.all_horizontal(c.time.cast(pl.Date) > date(2020, 1, 2), c.v > 0),
    "under a name": ((c.time.cast(pl.Date) > date(2020, 1, 2)) & (c.v > 0)).alias("both"),
}
PLAIN = {"variable": c.v > 0, "coordinate": c.lat > -20, "Boolean": c.wet, "text": c.word != "x"}
PYTHON = {
    "elements": c.n.map_elements({-3, 0, 3}.__contains__, return_dtype=pl.Boolean),
    "batches": c.lat.map_batches(lambda values: values > 0, return_dtype=pl.Boolean, is_elementwise=True),
    "batches that fail on some": c.label.map_batches(
        lambda texts: texts.cast(pl.Int64) > 1, return_dtype=pl.Boolean, is_elementwise=True
    ),
}
OTHER_ROWS = {
    "mean": c.v > c.v.mean(),
    "shift": c.n.shift() > 0,
    "rank": c.v.rank() < 20,
    "over": c.v == c.v.max().over("time"),
    "sum so far": c.n.cum_sum() > 0,
    "python function": c.v.map_batches(lambda values: values > values.mean(), return_dtype=pl.Boolean),
}
CONSTANT = {
    "false": pl.lit(value=False),
    "true": pl.lit(value=True),
    "null": pl.lit(None, dtype=pl.Boolean),
    "among none": c.n.is_in([]),
    "never": (c.v > 0) & pl.lit(value=False),
    "always": (c.v > 0) | pl.lit(value=True),
    "never, by not": ~((c.lat > 0) | pl.lit(value=True)),
    "among no labels": (c.lat > 1) & c.lat.is_in([]),
    "compared": pl.lit(3) > 2,
}


@pytest.mark.parametrize("plain", PLAIN)
@pytest.mark.parametrize("fallible", FALLIBLE)
def test_a_condition_that_may_fail_is_applied_beside_another(url, whole, fallible, plain):
    check(url, whole, FALLIBLE[fallible] & PLAIN[plain] & (c.n != 3), may_refuse=False, by=WAYS)


@pytest.mark.parametrize("fallible", ["cast of a coordinate", "cast in between", "within not"])
def test_a_condition_that_may_fail_is_applied_by_every_way(url, whole, fallible):
    check(url, whole, PLAIN["variable"] & FALLIBLE[fallible], may_refuse=False)


@pytest.mark.parametrize("other", OTHER_ROWS)
def test_a_condition_that_needs_other_rows_is_applied_or_named(url, whole, other):
    for beside in (c.lat > -20, FALLIBLE["cast of a coordinate"], FALLIBLE["date of a text"] & (c.v > -5)):
        predicate = OTHER_ROWS[other] & beside
        check(url, whole, predicate, may_refuse=True, by=WAYS)
        caught(PredicateError, lambda asked=predicate: rd.plan(url, asked), str(OTHER_ROWS[other]), "scan_zarr")
        assert_same_rows(
            rd.ZarrBackendSync.from_url(url).scan_zarr_sync(predicate), whole.lazy().filter(predicate).collect()
        )


def test_every_way_applies_a_condition_that_needs_other_rows_or_refuses_it(url, whole):
    check(url, whole, (c.v > c.v.mean()) & (c.lat > -20), may_refuse=True)


@pytest.mark.parametrize("constant", CONSTANT)
@pytest.mark.parametrize("beside", ["alone", "variable", "cast of a coordinate", "elements", "mean"])
def test_what_is_always_or_never_true_is_a_filter_everywhere(url, whole, constant, beside):
    predicate = CONSTANT[constant]
    others = PLAIN | FALLIBLE | PYTHON | OTHER_ROWS
    for asked in [predicate] if beside == "alone" else [predicate & others[beside], others[beside] | predicate]:
        check(url, whole, asked, may_refuse=beside == "mean", by=WAYS)
        assert str(rd.explain(scan_zarr(url).filter(asked)))


@pytest.mark.parametrize("constant", ["false", "null", "always"])
def test_every_way_takes_a_constant_for_a_filter(url, whole, constant):
    check(url, whole, CONSTANT[constant], may_refuse=False)


@pytest.mark.parametrize("other", [*OTHER_ROWS, "elements", "batches"])
def test_a_constant_decides_whatever_is_beside_it(url, whole, other):
    other = (OTHER_ROWS | PYTHON)[other]
    for predicate, count in (
        (other & pl.lit(value=False), 0),
        (c.v.is_null() & other & ~((c.n > 16) | pl.lit(value=True)), 0),
        (other | pl.lit(value=True), whole.height),
        (~(other & pl.lit(value=False)), whole.height),
    ):
        assert rd.plan(url, predicate).collect().height == count
        assert rd.ZarrBackendSync.from_url(url).scan_zarr_sync(predicate).height == count


@pytest.mark.parametrize("name", ["false", "null", "among none", "never", "never, by not", "among no labels", "None"])
def test_no_chunk_is_planned_for_what_is_never_true(url, name):
    predicate = CONSTANT.get(name, pl.lit(None))
    backend = rd.ZarrBackendSync.from_url(url)
    for asked in (predicate, predicate & (c.v > 0), predicate & FALLIBLE["cast of a coordinate"]):
        assert backend.selected_chunks_debug(asked)["grids"] == []
        assert rd.plan(url, asked).num_chunks_kept == 0
        assert backend.scan_zarr_sync(asked).is_empty()


leaves = st.sampled_from([*FALLIBLE.values(), *PLAIN.values(), *PYTHON.values(), *CONSTANT.values()])
JOINS = [and_, and_, and_, or_, xor, pl.all_horizontal, pl.any_horizontal]


def joined(leaf):
    return st.recursive(
        leaf,
        lambda inner: st.one_of(
            st.builds(lambda join, a, b: join(a, b), st.sampled_from(JOINS), inner, inner),
            st.builds(lambda a: ~a, inner),
            st.builds(lambda a: a.alias("other"), inner),
        ),
        max_leaves=5,
    )


some_ways = st.lists(st.sampled_from(WAYS), min_size=2, max_size=2, unique=True)


@given(predicate=joined(leaves), by=some_ways)
def test_a_predicate_of_each_row_is_answered(url, whole, predicate, by):
    check(url, whole, predicate, may_refuse=False, by=by)


@given(
    predicate=joined(leaves),
    other=st.sampled_from(list(OTHER_ROWS.values())),
    join=st.sampled_from(JOINS),
    by=some_ways,
)
def test_a_predicate_of_other_rows_is_answered_or_refused(url, whole, predicate, other, join, by):
    check(url, whole, join(predicate, other) & (c.lat > -40), may_refuse=True, by=by)
