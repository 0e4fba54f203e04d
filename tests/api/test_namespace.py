"""``lf.zarr``: each method is the public function of its name."""

import polars as pl
import pytest
import xarray as xr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import PlanTooLargeError, QueryError
from tests.support.stores import write_field

c = pl.col


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = str(tmp_path_factory.mktemp("namespace") / "field.zarr")
    write_field(path)
    return path


def test_methods_are_the_functions(url):
    lf = rd.scan_zarr(url).filter(c.lat > 0).select("time", "lat", "lon", "sst")
    assert str(lf.zarr.explain()) == str(rd.explain(lf))
    assert_frame_equal(lf.zarr.plan().collect(), lf.collect())
    assert lf.zarr.plan().num_chunks_kept == rd.plan(url, c.lat > 0, ["sst"]).num_chunks_kept
    aggregate = lf.group_by("lat").agg(c.sst.mean())
    assert aggregate.zarr.explain().split == ("array",)
    assert_frame_equal(aggregate.zarr.collect(), rd.collect(aggregate), check_row_order=False)
    north = lf.filter(c.lat > 45)
    found = north.zarr.to_xarray(["time", "lat", "lon"])
    xr.testing.assert_identical(found, rd.to_xarray(north, ["time", "lat", "lon"]))
    assert found.sizes == {"time": 48, "lat": 3, "lon": 20}


def test_a_plan_is_of_a_filtered_scan_and_keeps_its_limits(url):
    lf = rd.scan_zarr(url, max_chunks_to_read=5)
    with pytest.raises(PlanTooLargeError, match="limit is 5"):
        lf.zarr.plan()
    assert lf.filter(c.lat > 80, c.time < pl.datetime(2020, 2, 1)).select("sst").zarr.plan().limits.chunks == 5
    with pytest.raises(QueryError, match="does more than filter"):
        lf.group_by("lat").agg(c.sst.mean()).zarr.plan()
