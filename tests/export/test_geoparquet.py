"""Points of GeoParquet files, their bounds and their CRS."""

import json
import struct

import numpy as np
import polars as pl
import pyarrow.parquet as pq
import pyproj
import pytest
import xarray as xr

import rainbear_dask as rd
from rainbear_dask.exceptions import MissingDependencyError, QueryError, UnknownColumnError
from rainbear_dask.export import geoparquet
from rainbear_dask.export.geoparquet import points

CONIC = {
    "grid_mapping_name": "lambert_conformal_conic",
    "standard_parallel": [25.0, 60.0],
    "longitude_of_central_meridian": 10.0,
    "latitude_of_projection_origin": 52.0,
}


def write_grid(path, mapping=None):
    """Write a small grid, perhaps with a grid mapping."""
    a = xr.Variable(
        ("y", "x"), np.arange(6.0).reshape(2, 3), {"units": "K"} | ({"grid_mapping": "crs"} if mapping else {})
    )
    ds = xr.Dataset({"a": a}, {"y": [50.0, 51.5], "x": [4, 5, 7]}, attrs={"title": "grid"})
    if mapping:
        ds["crs"] = ((), 0, mapping)
    ds.to_zarr(path, consolidated=False)
    return str(path)


def geo_of(folder):
    """Return the metadata ``geo`` of the only file of a folder."""
    (file,) = folder.glob("*.parquet")
    return json.loads(pq.read_metadata(file).metadata[b"geo"])


def test_points_are_well_known_binary():
    found = points(pl.Series([1, None, 3, 0]), pl.Series([0.5, 1.0, float("nan"), -0.0]))
    assert found.to_list() == [struct.pack("<BIdd", 1, 1, 1.0, 0.5), None, None, struct.pack("<BIdd", 1, 1, 0.0, -0.0)]
    assert points(pl.Series([], dtype=pl.Float32), pl.Series([], dtype=pl.Float32)).len() == 0


def test_files_have_points_bounds_and_the_default_crs(tmp_path):
    url = write_grid(tmp_path / "s.zarr")
    rd.write_parquet(rd.scan_zarr(url).filter(pl.col("x") > 4), tmp_path / "out", geo=("x", "y"))
    frame = pl.read_parquet(tmp_path / "out")
    assert frame.columns == ["y", "x", "a", "geometry"]
    for row in frame.iter_rows(named=True):
        assert struct.unpack("<BIdd", row["geometry"]) == (1, 1, row["x"], row["y"])
    geo = geo_of(tmp_path / "out")
    assert geo["primary_column"] == "geometry"
    assert geo["columns"]["geometry"] == {
        "encoding": "WKB",
        "geometry_types": ["Point"],
        "bbox": [5.0, 50.0, 7.0, 51.5],
    }


def test_the_crs_is_that_of_the_grid_mapping(tmp_path):
    url = write_grid(tmp_path / "s.zarr", CONIC)
    rd.write_parquet(rd.scan_zarr(url).select("a"), tmp_path / "out", geo=("x", "y"))
    crs = geo_of(tmp_path / "out")["columns"]["geometry"]["crs"]
    assert pyproj.CRS.from_json_dict(crs).equals(pyproj.CRS.from_cf(CONIC))
    assert pl.read_parquet(tmp_path / "out").columns == ["a", "geometry"]


@pytest.mark.parametrize(("mapping", "crs"), [(CONIC, None), ({"grid_mapping_name": "latitude_longitude"}, "absent")])
def test_without_pyproj_a_projected_crs_is_unknown(tmp_path, monkeypatch, mapping, crs):
    def refuse(module, *, extra):
        raise MissingDependencyError(f"{module} {extra}")

    monkeypatch.setattr(geoparquet, "require", refuse)
    url = write_grid(tmp_path / "s.zarr", mapping)
    rd.write_parquet(rd.scan_zarr(url), tmp_path / "out", geo=("x", "y"))
    assert geo_of(tmp_path / "out")["columns"]["geometry"].get("crs", "absent") == crs


@pytest.mark.parametrize(
    ("geo", "error", "text"),
    [
        (("x", "yy"), UnknownColumnError, "'yy'"),
        ("x", QueryError, "pair of columns"),
        (("x", "y", "a"), QueryError, "pair of columns"),
        (("x", "name"), QueryError, "points need numbers"),
        (("x", "y"), QueryError, "'geometry' already"),
    ],
)
def test_wrong_columns_are_refused_before_anything_is_written(tmp_path, geo, error, text):
    ds = xr.Dataset({"a": (("y", "x"), np.zeros((1, 2)))}, {"name": ("y", np.array(["n"], dtype=object))})
    if geo == ("x", "y"):
        ds["geometry"] = ds.a
    ds.to_zarr(tmp_path / "s.zarr", consolidated=False)
    with pytest.raises(error, match=text):
        rd.write_parquet(tmp_path / "s.zarr", tmp_path / "out", geo=geo)
    assert not (tmp_path / "out").exists()


def test_a_grid_mapping_that_pyproj_does_not_know_is_an_error(tmp_path):
    url = write_grid(tmp_path / "s.zarr", {"grid_mapping_name": "no_such_projection"})
    with pytest.raises(QueryError, match="grid mapping"):
        rd.write_parquet(url, tmp_path / "out", geo=("x", "y"))
