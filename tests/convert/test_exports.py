"""Plans for Arrow, pandas and xarray."""

import numpy as np
import pandas as pd
import polars as pl
import pyarrow as pa
import pyarrow.parquet as pq
import pytest
import xarray as xr
from pandas.testing import assert_frame_equal
from polars.testing import assert_frame_equal as assert_polars_equal
from zarr.storage import LocalStore, MemoryStore

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError
from tests.support.stores import CountingStore, write_field

c = pl.col
BOX = (c.lat > 30) & c.time.dt.hour().is_in([3, 5]) & (c.lon != 18)


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("exports") / "field.zarr")
    write_field(path)
    return path


def test_arrow_has_the_rows_of_polars(url):
    plan = rd.plan(url, (c.lat > 30) & (c.t2m > 280))
    table = plan.to_arrow()
    assert isinstance(table, pa.Table)
    assert_polars_equal(pl.from_arrow(table), plan.collect())
    assert_polars_equal(pl.DataFrame(plan), plan.collect())


def test_arrow_has_the_units_and_names_of_the_store(tmp_path):
    rd.open_sample(tmp_path / "sst.zarr")
    plan = rd.plan(tmp_path / "sst.zarr", c.latitude > 80)
    for schema in (plan.to_arrow().schema, plan.to_arrow_reader().schema, pa.table(plan).schema):
        found = schema.field("sst").metadata
        assert found[b"units"] == b"degC"
        assert found[b"long_name"] == b"sea surface temperature"
        assert schema.field("time").metadata is None  # it is decoded
    pq.write_table(plan.to_arrow(), tmp_path / "sst.parquet")
    assert pq.read_schema(tmp_path / "sst.parquet").field("sst").metadata[b"units"] == b"degC"


def test_a_reader_reads_when_it_is_asked_and_stops_when_it_is_let_go(url):
    store = CountingStore(LocalStore(url, read_only=True))
    reader = rd.plan(store).to_arrow_reader()
    assert not store.chunks("t2m")
    assert reader.schema == rd.plan(url).to_arrow().schema
    assert sum(batch.num_rows for batch in reader) == 48 * 12 * 20


@pytest.mark.parametrize("limit", [None, 0, 7, 10**6])
def test_pandas_has_the_rows_of_polars(url, limit):
    plan = rd.plan(url, (c.lat > 30) & (c.t2m > 280), ["time", "t2m", "lat"], n_rows=limit)
    assert_frame_equal(plan.to_pandas(), plan.collect().to_pandas())
    arrow = plan.to_pandas(dtype_backend="pyarrow")
    assert_frame_equal(arrow, plan.collect().to_pandas(use_pyarrow_extension_array=True))


@pytest.mark.cluster
def test_pandas_comes_from_a_cluster(url, client):
    plan = rd.plan(url, c.lat > 30)
    assert_frame_equal(plan.to_pandas(client, categories=["lat"]), plan.to_pandas(categories=["lat"]))


@pytest.mark.parametrize("chunks", [None, {}])
def test_a_box_is_a_lazy_dataset(url, chunks):
    store = CountingStore(LocalStore(url, read_only=True))
    plan = rd.plan(store, BOX, ["time", "lat", "lon", "t2m"])
    found = plan.to_xarray(chunks)
    assert not store.chunks("t2m")
    assert set(found.data_vars) == {"t2m"}
    table = found.to_dataframe().reset_index()
    assert_frame_equal(table, plan.to_pandas()[list(table.columns)])
    assert len(store.chunks("t2m")) == 8  # of 24
    expected = xr.open_zarr(url, consolidated=False)[["t2m"]]
    expected = expected.sel(lat=expected.lat > 30, time=expected.time.dt.hour.isin([3, 5]), lon=expected.lon != 18)
    xr.testing.assert_identical(found.load(), expected.load())


def test_a_dimension_without_coordinate_keeps_its_positions():
    store = MemoryStore()
    xr.Dataset({"a": (("y", "x"), np.arange(12.0).reshape(3, 4))}).to_zarr(store, consolidated=False)
    plan = rd.plan(store, (c.x > 1) & (c.y != 1))
    table = plan.to_xarray().to_dataframe().reset_index()
    assert_frame_equal(table, plan.to_pandas())


def test_nothing_is_a_dataset_without_cells(url):
    found = rd.plan(url, c.lat > 100).to_xarray()
    assert found.sizes == {"time": 0, "lat": 0, "lon": 0}


@pytest.mark.parametrize(
    ("predicate", "limit"), [(c.t2m > 280, None), ((c.lat > 60) | (c.lon > 300), None), (c.lat > 0, 5)]
)
def test_what_is_no_box_is_no_dataset(url, predicate, limit):
    with pytest.raises(QueryError, match=r"box|limited"):
        rd.plan(url, predicate, n_rows=limit).to_xarray()


def test_a_limited_plan_is_no_dask_dataframe(url):
    with pytest.raises(QueryError, match="head"):
        rd.plan(url, n_rows=3).to_dask_dataframe()


def test_a_plan_goes_on_as_a_dask_dataframe(url):
    plan = rd.plan(url, c.lat > 30, ["lat", "t2m"])
    frame = plan.to_dask_dataframe()
    expected = plan.to_pandas()
    actual = frame[frame.t2m > 280].compute(scheduler="sync")
    assert_frame_equal(actual.reset_index(drop=True), expected[expected.t2m > 280].reset_index(drop=True))
    assert isinstance(expected, pd.DataFrame)
