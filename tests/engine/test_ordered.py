"""The first rows of a sorted scan are those of Polars, and tasks return few others."""

import pickle

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, note, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.engine import ordered
from rainbear_dask.engine.rewriting import rewrite
from rainbear_dask.execution import best, groups
from rainbear_dask.execution.best import run_best
from rainbear_dask.execution.worker import make_frame
from tests.execution.test_run import nothing_left
from tests.support.aggregations import FILTERS

c = pl.col


@pytest.fixture
def lf(url):
    with dask.config.set({"rainbear-dask.task-bytes": 1}):
        yield rd.scan_zarr(url)


@pytest.fixture(scope="module")
def table(url):
    return rd.scan_zarr(url).collect()


FORMS = {
    "head": lambda t: t.sort("plain").head(5),
    "limit": lambda t: t.sort("plain").limit(5),
    "descending": lambda t: t.sort("plain", descending=True).head(5),
    "slice": lambda t: t.sort("numbers", descending=True).slice(3, 4),
    "top_k": lambda t: t.top_k(5, by="plain"),
    "bottom_k": lambda t: t.bottom_k(5, by="masked"),
    "top_k of several": lambda t: t.top_k(5, by=["byte", "plain"], reverse=[True, False]),
    "expression": lambda t: t.sort((c("plain") - 5).abs()).head(4),
    "equal rows in order": lambda t: t.sort("byte", maintain_order=True).head(40),
    "texts and Booleans": lambda t: t.sort(
        "kind", "flag", descending=[True, False], nulls_last=True, maintain_order=True
    ).head(30),
    "all rows": lambda t: t.sort("plain").head(1000),
    "columns above": lambda t: t.sort("plain").select("lat", x=c("plain") * 2).limit(4),
    "filter below": lambda t: (
        t.filter(c("masked") > 0).with_columns(y=c("masked") - c("zone")).sort("y", maintain_order=True).head(7)
    ),
    "filter above the rows": lambda t: t.top_k(30, by="plain").filter(c("lat") > 0).select("plain"),
    "a coordinate": lambda t: t.sort("time", descending=True, maintain_order=True).head(4),
    "a function of a coordinate": lambda t: t.sort(c("lat").abs(), maintain_order=True).head(50),
    "a coordinate with NaN": lambda t: t.sort("lon", descending=True, maintain_order=True).head(50),
    "a sorted table, sorted again": lambda t: t.sort("lat").sort("plain").head(3),
    "an aggregate above": lambda t: t.sort("plain").head(5).select(c("plain").sum()),
    "join below": lambda t: (
        t.join(pl.LazyFrame({"kind": ["a"], "word": ["x"]}), on="kind").top_k(3, by="plain").select("plain", "word")
    ),
}


@pytest.mark.parametrize("name", FORMS)
def test_named_forms(lf, table, name):
    ask = FORMS[name]
    done = rewrite(ask(lf))
    assert {part.space for part in done.parts} == {"rows"}, done.parts
    assert_frame_equal(done.query.collect(), ask(table.lazy()).collect(engine="in-memory"))


LEFT = {
    "tail": lambda t: t.sort("plain").tail(3),
    "a negative offset": lambda t: t.sort("plain").slice(-5, 2),
    "all but the first": lambda t: t.sort("plain").slice(3),
    "an order on an order": lambda t: t.sort("plain").sort("byte", maintain_order=True).head(5),
    "a key of other rows": lambda t: t.sort(c("plain").shift()).head(5),
}


@pytest.mark.parametrize("name", LEFT)
def test_forms_that_are_left_to_polars(lf, table, name):
    ask = LEFT[name]
    query = ask(lf)
    done = rewrite(query)
    assert done.query is query
    assert [part.space for part in done.parts] == [None]
    assert_frame_equal(query.collect(engine="in-memory"), ask(table.lazy()).collect(engine="in-memory"))


def test_too_many_rows_are_left_to_polars(lf, monkeypatch):
    monkeypatch.setattr(ordered, "MAX_ROWS", 4)
    assert "more than the first 4" in rewrite(lf.sort("plain").head(5)).parts[0].reason


def test_explain(lf):
    report = rd.explain(lf.sort("plain").head(5))
    assert "tasks return the first 5 rows of the order" in report
    assert report.split == ("rows",)


def test_rows_that_are_held_are_merged(lf, table, monkeypatch):
    monkeypatch.setattr(ordered, "_MERGED_ROWS", 0)
    query = lf.sort("byte", maintain_order=True).head(3)
    assert_frame_equal(rd.collect(query), table.sort("byte", maintain_order=True).head(3))


def test_tasks_return_few_rows(lf):
    (part,) = rewrite(lf.top_k(2, by="plain")).parts
    assert len(list(part.split.ordered.tasks())) > 2
    for task in part.split.ordered.tasks():
        assert run_best(task).to_polars().height == min(2, make_frame(task).height)
        assert task.frame_bytes <= 2 * sum(column.width for column in task.scan.columns)


def test_few_labels_read_few_chunks(lf):
    assert rd.explain(rd.rewrite(lf.sort("time").head(5).select("time", "plain"))).chunks_kept == 6
    assert rd.explain(rd.rewrite(lf.sort("lat", descending=True).head(43).select("plain"))).chunks_kept == 6
    assert rd.explain(rd.rewrite(lf.sort("plain").head(43).select("plain"))).chunks_kept == 18


def test_null_labels_come_first(tmp_path):
    data = xr.Dataset(
        {"x": ("i", np.arange(6.0))}, {"i": ("i", [3.0, np.nan, 1, 5, np.nan, 0], {"_FillValue": np.nan})}
    )
    data.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    lf = rd.scan_zarr(tmp_path / "a.zarr")
    for last in (False, True):
        for descending in (False, True):
            query = lf.sort("i", descending=descending, nulls_last=last, maintain_order=True).head(3)
            assert rewrite(query).parts[0].split
            expected = lf.collect().sort("i", descending=descending, nulls_last=last, maintain_order=True).head(3)
            assert_frame_equal(rd.collect(query), expected)


def test_limits(url):
    top = rd.scan_zarr(url, max_rows=5).top_k
    assert rd.collect(top(5, by="plain")).height == 5
    with pytest.raises(rd.exceptions.PlanTooLargeError, match="max_rows exceeded: the first 6 rows"):
        rd.collect(top(6, by="plain"))
    with pytest.raises(rd.exceptions.PlanTooLargeError, match="max_chunks_to_read"):
        rd.collect(rd.scan_zarr(url, max_chunks_to_read=1).top_k(6, by="plain"))


def test_the_same_rows_on_a_cluster(lf, table, client):
    query = lf.sort("byte", "kind", maintain_order=True).head(9)
    again = pickle.loads(pickle.dumps(rd.rewrite(query)))
    expected = table.sort("byte", "kind", maintain_order=True).head(9)
    assert_frame_equal(rd.collect(query), expected)
    assert_frame_equal(again.collect(), expected)
    assert nothing_left(client)


def test_an_error_of_a_key_is_polars_own(lf):
    with pytest.raises(pl.exceptions.InvalidOperationError, match="conversion"):
        rd.collect(lf.sort(c("short").cast(pl.Int8)).head(3))


KEYS = [
    c("masked"),
    c("plain"),
    c("numbers"),
    c("packed"),
    c("byte"),
    c("filled"),
    c("flag"),
    c("surface"),
    c("turned"),
    c("lat"),
    c("lon"),
    c("time").dt.hour(),
    c("kind"),
    c("zone"),
    c("masked") - c("zone"),
    -c("plain"),
]


@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_random_orders_equal_those_of_polars(url, table, data):
    by = data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=3, unique_by=str), label="keys")
    flags = st.lists(st.booleans(), min_size=len(by), max_size=len(by))
    options = {"descending": data.draw(flags, label="descending"), "nulls_last": data.draw(flags, label="nulls last")}
    keep = data.draw(st.none() | st.sampled_from(FILTERS), label="filter")
    count, offset = data.draw(st.integers(0, 230), label="rows"), data.draw(st.sampled_from([0, 0, 3]), label="offset")

    def ask(t):
        t = t if keep is None else t.filter(keep)
        return t.sort(by, maintain_order=True, **options).slice(offset, count)

    with dask.config.set({"rainbear-dask.task-bytes": data.draw(st.sampled_from([1, 200, 2**26]), label="bytes")}):
        done = rewrite(ask(rd.scan_zarr(url)))
        note([str(part) for part in done.parts])
        assert all(part.split for part in done.parts), done.parts
        assert_frame_equal(done.query.collect(), ask(table.lazy()).collect(engine="in-memory"))


def test_rows_are_counted(lf):
    assert rd.collect(lf.top_k(3, by="plain").select(pl.len())).item() == 3
    assert rd.collect(lf.top_k(3, by="plain").select(pl.lit(1))).height == 1


@pytest.fixture(scope="module")
def wide(tmp_path_factory):
    """A table of several chunk groups."""
    url = tmp_path_factory.mktemp("wide") / "x.zarr"
    rng = np.random.default_rng(0)
    x = rng.standard_normal((20, 30, 40)).astype("f4")
    rare = x.copy()
    rare.reshape(-1)[[20_000, 21_000, 23_000]] = np.nan  # in the last groups
    x[rng.random(x.shape) < 0.1] = np.nan
    data = xr.Dataset(
        {
            "rare": (("t", "y", "x"), rare, {}, {"_FillValue": np.float32(np.nan)}),
            "masked": (("t", "y", "x"), x, {}, {"_FillValue": np.float32(np.nan)}),
            "numbers": (("t", "y", "x"), x.astype("f8")),
            "packed": (("t", "y", "x"), np.nan_to_num(x).round(1), {}, {"dtype": "i2", "scale_factor": -0.1}),
            "byte": (("t", "y", "x"), rng.integers(0, 9, x.shape).astype("u1")),
            "rising": (("t", "y", "x"), np.arange(24000).reshape(x.shape)),
        }
    )
    data["numbers"].encoding["_FillValue"] = None
    chunks = {name: {"chunks": (4, 10, 20)} for name in data.data_vars}
    data.to_zarr(url, zarr_format=2, encoding=chunks)
    return rd.scan_zarr(url)


@pytest.mark.parametrize("descending", [False, True])
@pytest.mark.parametrize("nulls_last", [False, True])
@pytest.mark.parametrize("by", ["masked", "rare", "numbers", "packed", "byte", "rising"])
def test_bounds_of_all_types(wide, monkeypatch, by, descending, nulls_last):
    monkeypatch.setattr(groups, "GROUP_BYTES", 2000)
    monkeypatch.setattr(groups, "STRIP_BYTES", 10000)
    for count, task_bytes in ((1, 2**26), (7, 1), (3000, 2**26)):
        options = {"descending": descending, "nulls_last": nulls_last, "maintain_order": True}
        with dask.config.set({"rainbear-dask.task-bytes": task_bytes}):
            actual = rd.collect(wide.sort(by, **options).head(count))
        assert_frame_equal(actual, wide.collect().sort(by, **options).head(count))


def test_few_rows_are_put_in_order(wide, monkeypatch):
    monkeypatch.setattr(groups, "GROUP_BYTES", 2000)
    seen = []
    first = best.Order.first
    monkeypatch.setattr(best.Order, "first", lambda self, frame: (seen.append(frame.height), first(self, frame))[1])
    rd.collect(wide.top_k(5, by="masked"))
    assert sum(seen) < 24000 / 4
