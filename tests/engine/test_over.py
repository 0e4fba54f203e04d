"""Aggregates over groups beside each row: in two passes, with the rows and the order of Polars."""

import dask
import polars as pl
import pytest
from hypothesis import given, note, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.engine import over, row_questions
from rainbear_dask.engine.rewriting import rewrite
from tests.support.aggregations import BOOLEANS, FILTERS, KEYS, NUMERIC, OPERANDS

c = pl.col


@pytest.fixture(autouse=True, scope="module")
def no_table_is_small():
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr(over, "is_small", lambda *_: False)
        yield


@pytest.fixture
def lf(url):
    return rd.scan_zarr(url)


@pytest.fixture(scope="module")
def table(url):
    return rd.scan_zarr(url).collect()


FORMS = {
    "mean": lambda t: t.with_columns(m=c("plain").mean().over("lat")),
    "anomaly": lambda t: t.with_columns(c("plain") - c("plain").mean().over(c("time").dt.hour(), "lon")),
    "null keys": lambda t: t.with_columns(m=c("plain").max().over("zone")),
    "several": lambda t: t.select(
        "lat", a=c("masked") / c("masked").max().over("zone"), n=pl.len().over("lat"), s=c("short").sum().over("zone")
    ),
    "filter": lambda t: t.filter(c("lat") >= 0).filter(c("plain") > c("plain").mean().over("lat")),
    "steps below": lambda t: (
        t.rename({"plain": "p"}).with_columns(x=c("p") * 2).select("lat", "x", m=c("x").mean().over("lat"))
    ),
    "an aggregate above": lambda t: t.select((c("plain") - c("plain").mean().over("lat")).abs().max()),
    "rows above": lambda t: t.with_columns(m=c("plain") - c("plain").mean().over("lat")).slice(50, 20),
    "anomaly by a join": lambda t: t.join(
        t.group_by("lat").agg(m=c("plain").mean()), on="lat", maintain_order="left"
    ).select(c("plain") - c("m")),
}


@pytest.mark.filterwarnings("error")
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
@pytest.mark.parametrize("name", FORMS)
def test_named_forms(lf, table, name, engine):
    ask = FORMS[name]
    done = rewrite(ask(lf))
    assert {part.space for part in done.parts} == {"array"}, done.parts
    expected = ask(table.lazy()).collect(engine="in-memory")
    assert_frame_equal(done.query.collect(engine=engine), expected, rel_tol=1e-5, abs_tol=1e-4)


LEFT = {
    "median": lambda t: t.with_columns(m=c("plain").median().over("lat")),
    "shift": lambda t: t.with_columns(m=c("plain").shift().over("lat")),
    "order": lambda t: t.with_columns(m=c("plain").sum().over("lat", order_by="plain")),
    "joined lists": lambda t: t.with_columns(m=c("plain").sum().over("lat", mapping_strategy="join")),
    "key of a variable": lambda t: t.with_columns(m=c("plain").sum().over("byte")),
    "over an over": lambda t: t.with_columns(m=(c("plain") - c("plain").mean().over("lat")).max().over("lon")),
    "a selector": lambda t: t.filter(pl.all().is_not_null(), c("plain") > c("plain").mean().over("lat")),
    "a name of the engine": lambda t: t.rename({"byte": "__over0"}).with_columns(m=c("plain").sum().over("lat")),
}


@pytest.mark.parametrize("name", LEFT)
def test_forms_that_are_left_to_polars(lf, table, name):
    query = LEFT[name](lf)
    assert rewrite(query).query is query
    assert_frame_equal(rd.collect(query), LEFT[name](table.lazy()).collect(), rel_tol=1e-5, abs_tol=1e-4)


def test_on_threads_small_tables_are_left_to_polars(lf, monkeypatch):
    monkeypatch.setattr(over, "is_small", row_questions.is_small)
    query = FORMS["anomaly"](lf)
    assert rewrite(query).query is query


def test_explain_names_the_groups(lf):
    assert "GroupBy: split in array space" in rd.explain(FORMS["mean"](lf))


def test_the_same_rows_on_a_cluster(lf, table, client):
    with dask.config.set({"rainbear-dask.task-bytes": 1}):
        actual = rd.collect(FORMS["anomaly"](lf))
    assert_frame_equal(actual, FORMS["anomaly"](table.lazy()).collect(), rel_tol=1e-5, abs_tol=1e-4)


@settings(max_examples=settings.default.max_examples // 2)
@given(data=st.data())
def test_random_windows_equal_those_of_polars(url, table, data):
    keys = data.draw(st.lists(st.sampled_from(KEYS), min_size=1, max_size=2, unique_by=str), label="keys")
    operand = data.draw(st.sampled_from([*OPERANDS, *BOOLEANS]), label="operand")
    names = ["len", "null_count", "max"] if any(operand is one for one in BOOLEANS) else list(NUMERIC)
    window = NUMERIC[data.draw(st.sampled_from(names), label="aggregate")](operand).over(keys)
    keep = data.draw(st.none() | st.sampled_from(FILTERS), label="filter")

    def ask(t):
        t = t if keep is None else t.filter(keep)
        return t.select("time", "lat", "lon", x=window)

    done = rewrite(ask(rd.scan_zarr(url)))
    note([str(part) for part in done.parts])
    assert_frame_equal(done.query.collect(), ask(table.lazy()).collect(), rel_tol=2e-5, abs_tol=1e-3)
