"""A plan gives what the same question gives through Polars, by each of its ways out."""

from functools import partial
from types import SimpleNamespace

import dask
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.exceptions import PredicateError, QueryError
from tests.support.oracle import expected_frame
from tests.support.stores import write_field

c = pl.col


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("plans") / "field.zarr")
    write_field(path)
    return path


QUESTIONS = [
    (None, None),
    (c.lat > 45, None),
    (c.lat > 45, ["t2m"]),
    (c.t2m > 290, ["sst", "lon"]),
    ((c.time.dt.hour() < 3) | (c.sst < 260), ["t2m", "time"]),
    (pl.lit(value=False), ["lon"]),
]


@pytest.mark.parametrize(("predicate", "columns"), QUESTIONS, ids=str)
@pytest.mark.parametrize("n_rows", [None, 7])
def test_a_plan_has_the_rows_and_columns_that_were_asked_for(url, predicate, columns, n_rows):
    plan = rd.plan(url, predicate, columns, n_rows=n_rows)
    expected = expected_frame(url)
    expected = expected if predicate is None else expected.filter(predicate)
    expected = expected if columns is None else expected.select(columns)
    expected = expected if n_rows is None else expected.head(n_rows)
    assert_frame_equal(plan.collect(), expected)
    assert_frame_equal(pl.concat([expected.clear(), *plan.frames()]), expected)


def test_frames_of_a_plan_are_for_work_of_ones_own(url):
    plan = rd.plan(url, c.t2m > 290, ["t2m"])
    expected = expected_frame(url).filter(c.t2m > 290).select("t2m")
    assert_frame_equal(pl.concat(dask.compute(*plan.to_delayed())), expected)
    assert_frame_equal(pl.concat(dask.compute(*plan.persist())), expected)
    assert sum(plan.map_partitions(len)) == len(expected)


@pytest.mark.parametrize(
    "predicate", [c.t2m > c.t2m.max() - 5, (c.lat > 0) & (c.t2m > c.t2m.mean()), c.t2m.shift() > 280]
)
def test_a_filter_that_needs_other_rows_is_refused(url, predicate):
    with pytest.raises(PredicateError, match="scan_zarr"):
        rd.plan(url, predicate)


@pytest.mark.parametrize("ask", [ScanPlan.to_futures, ScanPlan.to_delayed, partial(ScanPlan.map_partitions, func=len)])
def test_an_asynchronous_client_is_refused(url, ask):
    client = SimpleNamespace(status="running", asynchronous=True)
    with pytest.raises(QueryError, match="asynchronous, and its event loop would wait for itself"):
        ask(rd.plan(url), client=client)


def test_futures_need_a_cluster(url):
    with pytest.raises(ValueError, match="client=") as caught:
        rd.plan(url).to_futures()
    assert isinstance(caught.value, rd.exceptions.ClusterError)
