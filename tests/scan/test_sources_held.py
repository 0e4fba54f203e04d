"""Sources that people hold: groups and arrays of zarr, and Datasets of xarray that are still what their store holds."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal
from zarr.storage import MemoryStore

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError, StoreFormatError
from tests.support.errors import caught

c = pl.col


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("held") / "a.zarr")
    time = np.arange("2000-01-01", "2000-01-07", dtype="M8[D]").astype("M8[ns]")
    axes = {"time": time, "y": np.arange(4.0), "x": np.arange(5.0)}
    data = xr.Dataset(
        {
            "v": (list(axes), np.arange(120.0).reshape(6, 4, 5)),
            "packed": (list(axes), np.arange(120.0).reshape(6, 4, 5) / 10),
            "time_bnds": (("time", "nv"), np.zeros((6, 2))),
        },
        axes | {"place": (("y", "x"), np.arange(20).reshape(4, 5))},
    )
    data.time.attrs["bounds"] = "time_bnds"
    encoding = {
        "v": {"chunks": (2, 4, 5)},
        "packed": {"dtype": "i2", "scale_factor": 0.1, "add_offset": 1.0, "_FillValue": -1},
    }
    data.to_zarr(path, encoding=encoding, zarr_format=2)
    data.drop_vars(["time_bnds", "packed"]).to_zarr(path, group="inner", zarr_format=2, mode="a")
    return path


def test_a_group_of_zarr_is_a_source(url):
    group = zarr.open_group(url, mode="r")
    assert_frame_equal(rd.scan_zarr(group).collect(), rd.scan_zarr(url).collect())
    inner = rd.scan_zarr(url, group="inner").collect()
    assert_frame_equal(rd.scan_zarr(group["inner"]).collect(), inner)
    assert_frame_equal(rd.scan_zarr(group, group="inner").collect(), inner)
    assert_frame_equal(rd.scan_zarr(group, prefix="inner").collect(), inner)
    assert_frame_equal(rd.ZarrBackendSync.from_store(group["inner"]).scan_zarr_sync(), inner)
    assert rd.tables(group["inner"]).keys() == rd.tables(url, group="inner").keys()


def test_a_group_in_memory_is_a_source():
    group = zarr.create_group(MemoryStore())
    group.create_array("v", data=np.arange(4.0), dimension_names=["x"])
    assert rd.scan_zarr(group).collect()["v"].to_list() == [0, 1, 2, 3]


def test_an_array_of_zarr_is_its_group_with_one_variable(url):
    group = zarr.open_group(url, mode="r")
    assert_frame_equal(rd.scan_zarr(group["v"]).collect(), rd.scan_zarr(url, variables=["v"]).collect())
    expected = rd.scan_zarr(url, group="inner", variables=["v"]).filter(c.y > 1).collect()
    assert_frame_equal(rd.plan(group["inner/v"], c.y > 1).collect(), expected)


def test_an_array_without_a_group_is_an_error():
    array = zarr.create_array(MemoryStore(), shape=(3,), dtype="f4")
    caught(StoreFormatError, lambda: rd.scan_zarr(array), "Put the array into a group")


@pytest.mark.parametrize("chunks", [None, {}, {"time": 4}], ids=["lazy", "dask", "other chunks"])
@pytest.mark.parametrize("group", [None, "inner"])
@pytest.mark.filterwarnings("ignore:The specified chunks separate")  # of xarray
def test_a_dataset_that_is_unchanged_is_its_store(url, chunks, group):
    data = xr.open_zarr(url, chunks=chunks, group=group, consolidated=False)
    own = ["v"] if group else ["v", "packed"]  # neither the bounds, which no table has, nor groups below
    assert_frame_equal(rd.scan_zarr(data).collect(), rd.scan_zarr(url, group=group, variables=own).collect())
    expected = rd.plan(url, c.y > 1, group=group, variables=own).collect()
    assert_frame_equal(rd.plan(data, c.y > 1).collect(), expected)
    assert_frame_equal(rd.scan_zarr(data[["v"]]).collect(), rd.scan_zarr(url, group=group, variables=["v"]).collect())


def test_a_variable_beside_its_coordinates_is_unchanged_by_attributes(url):
    data = xr.open_zarr(url, consolidated=False)
    data.v.attrs["comment"] = "mine"
    data.attrs.clear()
    assert rd.scan_zarr(data).collect().height == 120


CHANGES = {
    "a part": lambda data: data.isel(time=slice(0, 3)),
    "one label": lambda data: data.isel(time=0),
    "reversed": lambda data: data.isel(time=slice(None, None, -1)),
    "picked": lambda data: data.isel(x=[0, 1, 2, 3, 4]),
    "selected": lambda data: data.sel(y=slice(1, 3)),
    "arithmetic": lambda data: data.assign(v=data.v + 1),
    "arithmetic that changes nothing": lambda data: data.assign(v=data.v + 0),
    "renamed": lambda data: data.rename(v="w"),
    "swapped names": lambda data: data.rename(v="packed", packed="v") if "packed" in data else data.rename(v="w"),
    "renamed dimension": lambda data: data.rename(x="lon"),
    "transposed": lambda data: data.transpose("x", "y", "time", ...),
    "loaded": lambda data: data.load(),
    "other labels": lambda data: data.assign_coords(y=data.y + 1),
    "a further coordinate": lambda data: data.assign_coords(z=("x", np.arange(5))),
    "a coordinate less": lambda data: data.drop_vars("place"),
    "a further variable": lambda data: data.assign(w=data.v * 2),
    "a further variable in memory": lambda data: data.assign(w=("x", np.zeros(5))),
    "masked": lambda data: data.where(data.y > 1),
    "reduced": lambda data: data.mean("time"),
    "no variable": lambda data: data[[]],
}


@pytest.mark.parametrize("chunks", [None, {}], ids=["lazy", "dask"])
@pytest.mark.parametrize("change", CHANGES)
def test_a_dataset_that_is_changed_is_refused(url, chunks, change):
    data = CHANGES[change](xr.open_zarr(url, chunks=chunks, consolidated=False))
    caught(
        StoreFormatError,
        lambda: rd.scan_zarr(data),
        "This Dataset cannot be scanned, because",
        "Scan its store by path",
    )


def test_values_that_were_changed_in_place_are_refused(url):
    data = xr.open_zarr(url, chunks=None, consolidated=False)
    data.v[0, 0, 0] = 99
    caught(StoreFormatError, lambda: rd.scan_zarr(data), "'v' is no longer exactly an array")


@pytest.mark.parametrize("options", [{"mask_and_scale": False}, {"decode_times": False}, {"decode_cf": False}])
def test_a_dataset_that_is_not_decoded_is_refused(url, options):
    data = xr.open_zarr(url, consolidated=False, **options)
    caught(StoreFormatError, lambda: rd.scan_zarr(data), "This Dataset cannot be scanned")


def test_a_dataset_of_memory_is_refused():
    data = xr.Dataset({"v": ("x", np.arange(4.0))})
    caught(StoreFormatError, lambda: rd.scan_zarr(data), "variable 'v' is no longer exactly an array of a Zarr store")


@pytest.mark.parametrize("options", [{"variables": ["v"]}, {"group": "inner"}, {"prefix": "a"}])
def test_a_dataset_or_an_array_takes_no_place(url, options):
    for source in (xr.open_zarr(url, consolidated=False), zarr.open_group(url, mode="r")["v"]):
        caught(QueryError, lambda source=source: rd.scan_zarr(source, **options), "names its store")


@pytest.mark.parametrize("source", [3, None, ["a.zarr"], xr.DataArray([1])])
def test_other_objects_are_refused_by_type(source):
    caught(StoreFormatError, lambda: rd.scan_zarr(source), type(source).__name__, "is not a Zarr store")


@pytest.mark.parametrize("chunks", [None, {}], ids=["lazy", "dask"])
def test_a_reversed_dimension_without_labels_is_refused(tmp_path, chunks):
    xr.Dataset({"v": ("x", np.arange(4.0))}).to_zarr(tmp_path, zarr_format=2)
    data = xr.open_zarr(tmp_path, chunks=chunks)
    assert rd.scan_zarr(data).collect()["v"].to_list() == [0, 1, 2, 3]
    caught(
        StoreFormatError, lambda: rd.scan_zarr(data.isel(x=slice(None, None, -1))), "'v' is no longer exactly an array"
    )
