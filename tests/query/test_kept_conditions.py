"""What Polars keeps from a reader because it may fail prunes too, and never costs a row that another step looks at."""

import copy
import pickle
from datetime import date, datetime, time, timedelta

import numpy as np
import polars as pl
import pytest
import xarray as xr
from polars.exceptions import InvalidOperationError, PolarsError
from polars.testing import assert_frame_equal
from zarr.storage import LocalStore

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError
from rainbear_dask.query import pushdown
from rainbear_dask.query.io_source import plans_of
from tests.support.errors import caught
from tests.support.oracle import expected_frame
from tests.support.stores import CountingStore

c = pl.col
LATE = c.time.cast(pl.Date) > date(2020, 1, 8)
"""Keeps two of ten chunks; Polars keeps it to itself beside another condition."""
POSITIVE = c.v > 0
TOP = c.v.rank("ordinal") > 70
CROSSED = pl.Series([True, True, False, True] * 20)


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("kept") / "days.zarr")
    rng = np.random.default_rng(3)
    variables = {"v": (("time", "lat"), rng.normal(size=(10, 8))), "n": (("time", "lat"), rng.integers(-3, 9, (10, 8)))}
    coords = {"time": np.arange("2020-01-01", "2020-01-11", dtype="M8[D]").astype("M8[ns]"), "lat": np.arange(8)}
    encoding = {name: {"chunks": (1, 8)} for name in variables}
    xr.Dataset(variables, coords).to_zarr(path, encoding=encoding, consolidated=False)
    return path


@pytest.fixture
def counted(url) -> CountingStore:
    return CountingStore(LocalStore(url, read_only=True))


PRUNING = {
    "joined by &": lambda table: table.filter(LATE & POSITIVE),
    "the other way round": lambda table: table.filter(POSITIVE & LATE),
    "side by side": lambda table: table.filter(LATE, POSITIVE),
    "a list": lambda table: table.filter([LATE, POSITIVE]),
    "one after the other": lambda table: table.filter(POSITIVE).filter(LATE),
    "before one of other rows": lambda table: table.filter(LATE).filter(c.v > c.v.mean()).filter(POSITIVE),
    "before a limit": lambda table: table.filter(LATE & POSITIVE).head(3),
    "before row numbers": lambda table: table.filter(LATE, POSITIVE).with_row_index().filter(c.index < 5),
    "after a choice of columns": lambda table: table.select("v", "time", c.n).filter(LATE & POSITIVE),
    "before a choice of columns": lambda table: table.filter(LATE).select(["v", "lat"]).filter(POSITIVE),
    "twice": lambda table: table.filter(LATE).filter(LATE).filter(POSITIVE & (c.n.cast(pl.Int8) > 2)),
    "within or": lambda table: table.filter(LATE | (c.time.cast(pl.Date) > date(2020, 1, 9)), POSITIVE),
    "within not": lambda table: table.filter(~(c.time.cast(pl.Date) <= date(2020, 1, 8)) & POSITIVE),
    "grouped": lambda table: table.filter(LATE & POSITIVE).group_by("lat", maintain_order=True).agg(c.v.max()),
    "joined with itself": lambda table: (late := table.filter(LATE & POSITIVE)).join(
        late, on=["time", "lat"], maintain_order="left"
    ),
    "a mixed comparison": lambda table: table.filter((c.lat.is_between(-1.0, 7.5)) & LATE & POSITIVE),
}


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize("name", PRUNING)
def test_a_condition_that_polars_keeps_prunes(url, counted, name, engine):
    ask = PRUNING[name]
    actual = ask(rd.scan_zarr(counted)).collect(engine=engine)
    assert_frame_equal(actual, ask(expected_frame(url).lazy()).collect())
    assert len(counted.chunks("v")) == 2
    plans = plans_of(ask(rd.scan_zarr(url)))
    assert [plan.counts.num_chunks / plan.counts.num_chunks_kept for plan in plans] == [5]


def test_plans_and_backends_prune_by_it(url, counted):
    backend = rd.ZarrBackendSync.from_url(url)
    for condition in (LATE & POSITIVE, POSITIVE & ~(c.time.cast(pl.Date) <= date(2020, 1, 8))):
        assert rd.plan(url, condition, ["v"]).num_chunks_kept == 2
        (grid,) = backend.selected_chunks_debug(condition)["grids"]
        assert [chunk["indices"] for chunk in grid["chunks"]] == [[8, 0], [9, 0]]
    rd.ZarrBackendSync.from_store(counted).scan_zarr_sync(LATE & POSITIVE)
    assert len(counted.chunks("v")) == 2


SEES_MORE_ROWS = {
    "after one of other rows": lambda table: table.filter(TOP).filter(LATE & POSITIVE),
    "beside one of other rows": lambda table: table.filter(TOP & LATE & POSITIVE),
    "after a mask": lambda table: table.filter(CROSSED).filter(LATE & POSITIVE),
    "beside a mask": lambda table: table.filter(CROSSED, LATE & POSITIVE),
    "after a constraint of other rows": lambda table: table.filter(n=c.n.max()).filter(LATE, POSITIVE),
    "after row numbers": lambda table: table.with_row_index().filter(LATE & POSITIVE),
    "after the last rows": lambda table: table.tail(20).filter(LATE & POSITIVE),
    "after a sum so far": lambda table: table.with_columns(c.v.cum_sum()).filter(LATE & POSITIVE),
    "after another column of its name": lambda table: table.with_columns(c.time.shift(20)).filter(LATE & POSITIVE),
    "after exchanged names": lambda table: table.rename({"v": "n", "n": "v"}).filter(LATE & POSITIVE),
    "after exchanged columns": lambda table: table.select("time", "lat", n="v", v="n").filter(LATE & POSITIVE),
    "after the first of each": lambda table: table.unique("lat", keep="first", maintain_order=True).filter(
        LATE & POSITIVE
    ),
    "on one side": lambda table: pl.concat([table.filter(LATE & POSITIVE), table.filter(POSITIVE), table]),
    "of a copy": lambda table: copy.copy(table).filter(LATE & POSITIVE),
    "by a name": lambda table: table.with_columns(passes=POSITIVE).filter("passes").filter(LATE),
    "all or none": lambda table: pl.concat([table.filter(True).filter(LATE), table.filter(False).filter(LATE)]),
    "removed": lambda table: table.remove(LATE).filter(POSITIVE),
}


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize("name", SEES_MORE_ROWS)
def test_no_row_is_lost_that_a_step_before_it_looks_at(url, name, engine):
    ask = SEES_MORE_ROWS[name]
    assert_frame_equal(ask(rd.scan_zarr(url)).collect(engine=engine), ask(expected_frame(url).lazy()).collect())


def test_a_filtered_table_pickles(url):
    late = pickle.loads(pickle.dumps(rd.scan_zarr(url).filter(LATE & POSITIVE)))
    expected = expected_frame(url).lazy().filter(LATE, POSITIVE, c.n > 1).collect()
    assert_frame_equal(late.filter(c.n > 1).collect(), expected)
    assert "4 of 20" in rd.explain(late)


def test_columns_that_are_not_there_are_an_error_of_the_query(url):
    for lost in (rd.scan_zarr(url).filter(c.nothing > 1), rd.scan_zarr(url).select("v").filter(LATE, POSITIVE)):
        with pytest.raises(pl.exceptions.ColumnNotFoundError):
            lost.collect()


# ---------------------------------------------------------------------- what fails on some rows


@pytest.fixture(scope="module")
def labelled(tmp_path_factory) -> str:
    """Labels that are numbers where the variable is positive, and others."""
    path = str(tmp_path_factory.mktemp("labelled") / "texts.zarr")
    labels = np.array(["1", "2", "x", "4", "5", "z"], dtype=object)
    values = np.where(np.isin(labels, ["x", "z"])[:, None], -1.0, np.arange(48.0).reshape(6, 8))
    texts = np.array([[str(i) if i % 3 else "none" for i in range(8)]] * 6, dtype=object)
    variables = {"v": (("label", "lat"), values), "text": (("label", "lat"), texts)}
    xr.Dataset(variables, {"label": labels, "lat": np.arange(8)}).to_zarr(
        path, encoding={name: {"chunks": (2, 8)} for name in variables}, consolidated=False
    )
    return path


LABEL, TEXT = c.label.cast(pl.Int64) > 1, c.text.cast(pl.Int64) > 1
NUMBERS = {"label": c.v >= 0, "text": c.lat % 3 != 0}


@pytest.mark.parametrize(
    "predicate",
    [
        LABEL & NUMBERS["label"],
        NUMBERS["label"] & LABEL,
        TEXT & NUMBERS["text"],
        LABEL & TEXT & (c.v >= 0) & (c.lat % 3 != 0),
    ],
    ids=str,
)
def test_a_condition_fails_on_no_row_that_another_drops(labelled, predicate):
    expected = expected_frame(labelled).lazy().filter(predicate).collect()
    backend = rd.ZarrBackendSync.from_url(labelled)
    for actual in (
        rd.scan_zarr(labelled).filter(predicate).collect(),
        rd.scan_zarr(labelled).filter(predicate).collect(engine="streaming"),
        rd.plan(labelled, predicate).collect(),
        backend.scan_zarr_sync(predicate),
    ):
        assert_frame_equal(actual, expected)
    assert len(rd.to_dask_dataframe(rd.scan_zarr(labelled).filter(predicate)).compute(scheduler="sync")) == len(
        expected
    )


@pytest.mark.parametrize("predicate", [LABEL, LABEL | (c.v > 100), LABEL & (c.v < 3)], ids=str)
def test_a_condition_that_fails_on_a_row_that_is_left_is_an_error(labelled, predicate):
    whole = expected_frame(labelled)
    for ask in (
        lambda: whole.lazy().filter(predicate).collect(),
        lambda: rd.scan_zarr(labelled).filter(predicate).collect(),
        lambda: rd.plan(labelled, predicate).collect(),
        lambda: rd.ZarrBackendSync.from_url(labelled).scan_zarr_sync(predicate),
    ):
        with pytest.raises(InvalidOperationError, match="conversion"):
            ask()


def test_planning_goes_on_where_a_function_fails_on_a_label(labelled):
    def doubled(texts: pl.Series) -> pl.Series:
        if "x" in texts:
            raise KeyError("x")
        return texts.cast(pl.Int64) * 2 > 2

    predicate = c.label.map_batches(doubled, return_dtype=pl.Boolean, is_elementwise=True) & c.label.is_in(["2", "4"])
    plan = rd.plan(labelled, predicate, ["v"])
    assert plan.collect()["v"].to_list() == expected_frame(labelled).filter(c.label.is_in(["2", "4"]))["v"].to_list()
    assert "cannot be evaluated on coordinates" in plan.explain()
    assert all("\n" not in conjunct.obstacle for conjunct in plan.read_plan.conjuncts)


# ---------------------------------------------------------------------- Dask DataFrames


def test_conditions_of_the_same_text_are_all_applied(url):
    middle = [list(range(-3, 9)), [-3, -2, *range(3, 9)], [-3, *range(-1, 9)]]
    functions = [c.n.map_elements(values.__contains__, return_dtype=pl.Boolean) for values in middle]
    lists = [c.n.is_in(pl.Series([*values, *range(100, 120)]).implode()) for values in middle]
    for conditions in (functions, lists):
        predicate = conditions[0] & conditions[1] & conditions[2]
        frame = rd.plan(url, predicate).to_dask_dataframe()
        expected = expected_frame(url).filter(predicate)
        assert 0 < expected.height < 80
        assert frame.n.compute(scheduler="sync").tolist() == expected["n"].to_list()


def test_a_lazy_table_of_kept_conditions_becomes_a_dask_dataframe(url):
    whole = expected_frame(url).lazy()
    for name in (
        "joined by &",
        "one after the other",
        "after a choice of columns",
        "before a choice of columns",
        "twice",
    ):
        query = PRUNING[name](rd.scan_zarr(url))
        expected = PRUNING[name](whole).collect()
        for lf in (query, pickle.loads(pickle.dumps(query))):  # a copy does not know how it began
            frame = rd.to_dask_dataframe(lf)
            assert list(frame.columns) == expected.columns
            assert frame.v.compute(scheduler="sync").tolist() == expected["v"].to_list()


def test_a_lazy_table_with_another_filter_is_refused_by_name(url):
    table = rd.scan_zarr(url)
    for lf, named in (
        (table.filter(LATE & POSITIVE & (c.v > c.v.mean())), "mean"),
        (table.head(50).filter(LATE & POSITIVE), "strict_cast"),
        (table.with_columns(c.v + 1).filter(LATE & POSITIVE), "strict_cast"),
    ):
        caught(QueryError, lambda lf=lf: rd.to_dask_dataframe(lf), named, "Dask DataFrame")


COLUMNS = {
    "i1": pl.Int8(),
    "u8": pl.UInt64(),
    "f4": pl.Float32(),
    "f8": pl.Float64(),
    "flag": pl.Boolean(),
    "day": pl.Date(),
    "ms": pl.Datetime("ms"),
    "ns": pl.Datetime("ns"),
    "lasts": pl.Duration("us"),
    "text": pl.String(),
    "bytes": pl.Binary(),
    "kind": pl.Categorical(),
    "level": pl.Enum(["a", "b"]),
}
LITERALS = [1, -300, 2**40, 0.1, 1e300, True, pl.lit(None), date(2020, 1, 8), datetime(2020, 1, 8, 1), time(1), timedelta(3),
            "2020-01-08", "a", "zz", b"a", np.float32(0.1), np.datetime64("2020-01-08T01", "ns")]  # fmt: skip


@pytest.mark.parametrize("name", COLUMNS)
def test_polars_keeps_no_comparison_of_a_column_with_a_literal(name):
    """So it need not be asked which conditions it keeps."""
    schema, other, count = {name: COLUMNS[name], "other": pl.Int64()}, c.other.is_null(), 0
    for value in LITERALS:
        for condition in (c(name) == value, c(name) != value, c(name) > value, c(name) <= value, c(name) < value,
                          c(name) >= value, c(name).is_between(value, value)):  # fmt: skip
            if not pushdown.compares_a_column(condition, schema):
                continue
            count += 1
            try:
                request = pushdown.request_of(lambda table, one=condition: table.filter(one).filter(other), schema)
            except PolarsError:  # types that are not compared: the user's query says so
                continue
            pushed = request and request.predicate is not None and request.predicate.meta.root_names()
            is_null = request and request.predicate is None  # the condition, whatever the rows are
            assert request is None or is_null or pushed == ["other"] or name in pushed, (condition, value)
            if is_null:
                assert pl.DataFrame(schema=schema).clear(1).select(condition).to_series().is_null().all()
            if pushed == ["other"]:
                assert name not in pushdown.elementwise(condition, schema).meta.root_names()
    assert count > 6 * (len(LITERALS) - 2)  # some become casts


def test_polars_casts_strictly_for_some_intervals():
    assert pushdown.fallible_parts(c.n.is_between(0.5, 2.5), {"n": pl.Int64(), "v": pl.Float64()})
    assert not pushdown.fallible_parts(c.v.is_between(0.5, 2.5), {"n": pl.Int64(), "v": pl.Float64()})
