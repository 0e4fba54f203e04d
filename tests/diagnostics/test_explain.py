"""`explain` reports the plan of every scan of a query, and evaluates no part of the query."""

import shutil

import numpy as np
import polars as pl
import pytest
import xarray as xr
from polars.exceptions import ColumnNotFoundError

import rainbear_dask as rd
from rainbear_dask.diagnostics.explanation import NO_SCAN
from rainbear_dask.exceptions import StoreError
from rainbear_dask.query.io_source import plans_of

c = pl.col


def write(path) -> str:
    """A variable of 4 chunks along x."""
    coords = {"y": np.arange(3), "x": np.arange(8.0)}
    variable = (("y", "x"), np.arange(24.0).reshape(3, 8))
    xr.Dataset({"v": variable}, coords).to_zarr(path, encoding={"v": {"chunks": (3, 2)}}, consolidated=False)
    return str(path)


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    return write(tmp_path_factory.mktemp("explain") / "a.zarr")


@pytest.fixture(scope="module")
def table(url) -> pl.LazyFrame:
    return rd.scan_zarr(url)


@pytest.fixture(scope="module")
def other(tmp_path_factory) -> pl.LazyFrame:
    return rd.scan_zarr(write(tmp_path_factory.mktemp("explain") / "b.zarr"))


def values_only(values: pl.Series) -> pl.Series:
    """What a plugin may do that knows neither no rows nor nulls."""
    return values.cast(pl.Float64) - values.to_numpy().max()


def rows_only(frame: pl.DataFrame) -> pl.DataFrame:
    return frame if frame["v"].item(0) is not None else frame.clear()


CALLS = []


def noted(values):
    """Of the module, as the copy of a query has copies of all other functions."""
    CALLS.append(len(values))
    return values


def of_values(column: pl.Expr, *, each: bool = False) -> pl.Expr:
    return column.map_batches(values_only, return_dtype=pl.Float64, is_elementwise=each)


WITH_ONE = {
    "a function of a column": lambda table, _: table.filter(c.x < 4).select(of_values(c.v)),
    "a function in a filter": lambda table, _: table.filter(c.x < 4).filter(of_values(c.v) < 0),
    "an elementwise function in a filter": lambda table, _: table.filter(of_values(c.v, each=True) < 3, c.x < 4),
    "a function of rows": lambda table, _: table.filter(c.x < 4).map_batches(rows_only),
    "a function of groups": lambda table, _: (
        table.filter(c.x < 4).group_by("y").map_groups(rows_only, schema=table.collect_schema())
    ),
    "a row that is not there": lambda table, _: table.filter(c.x < 4).select(c.v.get(2)),
    "a strict cast of one value": lambda table, _: table.filter(c.x < 4).select(c.v.first().implode().list.get(1)),
}
WITH_TWO = {
    "joined": lambda table, other: (
        table.filter(c.x < 4).select("x", of_values(c.v)).join(other.filter(c.x < 4).map_batches(rows_only), on="x")
    ),
    "one above the other": lambda table, other: pl.concat(
        [each.filter(c.x < 4).select(of_values(c.v)) for each in (table, other)]
    ),
    "side by side": lambda table, other: pl.concat(
        [table.filter(c.x < 4).select(of_values(c.v)), other.filter(c.x < 4).select(w="v")], how="horizontal"
    ),
    "by the nearest label": lambda table, other: (
        table.filter(c.x < 4)
        .set_sorted("x")
        .join_asof(other.filter(c.x < 4).map_batches(rows_only).set_sorted("x"), on="x")
    ),
    "with a limit": lambda table, other: pl.concat(
        [table.filter(c.x < 4).map_batches(rows_only), other.filter(c.x < 4).map_batches(rows_only)]
    ).head(30),
}


@pytest.mark.parametrize("name", [*WITH_ONE, *WITH_TWO])
def test_functions_are_not_called(table, other, name):
    query = (WITH_ONE | WITH_TWO)[name](table, other)
    shown = [plan.counts.num_chunks_kept for plan in plans_of(query)]
    assert shown == [2] * (1 if name in WITH_ONE else 2)
    assert str(rd.explain(query)).count("SCAN ") == len(shown)


def test_nothing_is_called_that_is_not_needed_to_plan(table, other):
    CALLS.clear()
    query = table.filter(c.x < 4).with_columns(c.v.map_batches(noted, return_dtype=pl.Float64)).map_batches(noted)
    assert len(plans_of(query.join(other.map_batches(noted), on="x"))) == 2
    assert CALLS == []


def test_a_function_of_a_coordinate_plans_as_it_reads(table):
    query = table.filter(of_values(c.x, each=True) < -5)
    assert [plan.counts.num_chunks_kept for plan in plans_of(query)] == [1]
    assert query.collect().height == 6


def test_another_source_is_not_asked(table):
    def fail(_: pl.DataFrame) -> pl.DataFrame:
        raise AssertionError

    small = pl.LazyFrame({"x": [1.0]}).map_batches(fail, schema={"x": pl.Float64})
    assert str(rd.explain(small)) == NO_SCAN
    assert str(rd.explain(table.filter(c.x < 4).join(small, on="x"))).count("SCAN ") == 1


def test_a_query_that_cannot_be_is_an_error(table, other):
    for query in (table.filter(c.nothing > 1), table.join(other.select(c.nothing), on="x")):
        with pytest.raises(ColumnNotFoundError):
            rd.explain(query)


def test_a_coordinate_that_cannot_be_read_is_an_error(table, tmp_path):
    broken = rd.scan_zarr(write(tmp_path / "broken.zarr"))
    shutil.rmtree(tmp_path / "broken.zarr")
    for query in (broken.filter(c.y > 1), table.filter(c.x < 4).join(broken.filter(c.y > 1), on="x")):
        with pytest.raises(StoreError):
            rd.explain(query)


def test_a_scan_that_no_row_is_wanted_of_is_not_told(table):
    assert str(rd.explain(table.filter(False))) == NO_SCAN
    assert "chunks   0 of 4" in rd.explain(table.filter(c.x > 100))
