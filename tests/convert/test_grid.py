"""Rows as xarray Datasets: each value in its cell."""

from datetime import datetime, timedelta

import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, settings

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError, RowsError, UnknownColumnError
from tests.support.stores import write_field

c = pl.col


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("grid") / "field.zarr")
    write_field(path)
    return path


COLUMNS = {
    "f4": (pl.Float32, st.none() | st.sampled_from([0.5, -1.0, float("nan")])),
    "i2": (pl.Int16, st.none() | st.integers(-9, 9)),
    "u8": (pl.UInt64, st.integers(0, 9)),
    "b": (pl.Boolean, st.none() | st.booleans()),
    "s": (pl.String, st.none() | st.sampled_from(["", "a", "é"])),
    "t": (pl.Datetime("us"), st.none() | st.datetimes(datetime(1970, 1, 1))),
    "d": (
        pl.Duration("ms"),
        st.none()
        | st.timedeltas(timedelta(0), timedelta(days=9)).map(
            lambda d: d - timedelta(microseconds=d.microseconds % 1000)
        ),
    ),
}


@st.composite
def tables(draw):
    """Draw rows on some cells of a grid of shuffled labels, with columns of any type."""
    sizes = {dim: draw(st.integers(1, 4)) for dim in "xyz"[: draw(st.integers(1, 3))]}
    labels = {dim: draw(st.permutations(range(size))) for dim, size in sizes.items()}
    cells = [tuple(cell) for cell in np.ndindex(*sizes.values())]
    kept = draw(st.lists(st.sampled_from(cells), unique=True, min_size=1))
    frame = {
        dim: pl.Series([labels[dim][cell[axis]] for cell in kept], dtype=pl.Int64) for axis, dim in enumerate(sizes)
    }
    for name in draw(st.lists(st.sampled_from(sorted(COLUMNS)), unique=True)):
        dtype, values = COLUMNS[name]
        drawn = draw(st.lists(values, min_size=len(kept), max_size=len(kept)))
        frame[name] = pl.Series(drawn, dtype=dtype)
    return pl.DataFrame(frame), list(sizes)


@settings(max_examples=60)
@given(tables())
def test_each_row_is_in_its_cell_and_all_other_cells_are_missing(drawn):
    frame, dims = drawn
    found = rd.to_xarray(frame, dims)
    for dim in dims:
        assert found[dim].to_numpy().tolist() == frame[dim].unique(maintain_order=True).to_list()
    rows = {tuple(row[dim] for dim in dims): row for row in frame.iter_rows(named=True)}
    for name in set(frame.columns) - set(dims):
        own = found[name]
        assert own.dims == tuple(dims)
        for cell in np.ndindex(own.shape):
            row = rows.get(tuple(found[dim].to_numpy()[at] for dim, at in zip(dims, cell, strict=True)))
            value = own.to_numpy()[cell]
            expected = None if row is None else row[name]
            if pd.isna(expected):
                assert pd.isna(value)
            elif isinstance(expected, datetime | timedelta):
                assert pd.Timestamp(value) == expected if name == "t" else pd.Timedelta(value) == expected
            else:
                assert value == expected
        whole = frame.height == found[name].size and not frame[name].has_nulls()
        if whole and frame[name].dtype.is_numeric():
            assert found[name].dtype == frame[name].to_numpy().dtype


def test_a_scan_keeps_attributes_encodings_coordinates_and_dimensions(tmp_path):
    ds = xr.Dataset(
        {
            "a": (("y", "x"), np.array([[1.5, np.nan, 3], [4, 5, 6]]), {"units": "K"}),
            "height": ("y", [10.0, 20.0], {"units": "m"}),
        },
        {
            "y": ("y", [3, 1], {"axis": "Y"}),
            "x": [9, 8, 7],
            "area": (("x", "y"), np.arange(6.0).reshape(3, 2)),
            "scalar": 4,
        },
        attrs={"title": "made up"},
    )
    ds.a.encoding = {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -1}
    ds.to_zarr(tmp_path / "s.zarr", consolidated=False)
    found = rd.to_xarray(rd.scan_zarr(tmp_path / "s.zarr"), ["y", "x"])
    expected = xr.open_zarr(tmp_path / "s.zarr", consolidated=False)
    xr.testing.assert_identical(found, expected.load().transpose("y", "x"))
    assert {name: found.a.encoding[name] for name in ("dtype", "scale_factor", "_FillValue")} == {
        "dtype": np.dtype("i2"),
        "scale_factor": 0.5,
        "_FillValue": -1,
    }
    found.to_zarr(tmp_path / "again.zarr", consolidated=False)
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "again.zarr", consolidated=False).load(), found)
    north = rd.scan_zarr(tmp_path / "s.zarr").filter(c.a > 2).group_by("y").agg(c.a.mean())
    assert rd.to_xarray(north, ["y"]).a.attrs == {}
    assert rd.to_xarray(north, ["y"], like=ds).a.attrs == {"units": "K"}
    assert rd.to_xarray(north, ["y"], like=tmp_path / "s.zarr").attrs == {"title": "made up"}


def test_a_variable_that_differs_along_a_dimension_keeps_the_dimension(tmp_path):
    like = xr.Dataset({"h": ("y", [1.0, 2.0])}, {"y": [0, 1]})
    frame = pl.DataFrame({"y": [0, 0, 1, 1], "x": [0, 1, 0, 1], "h": [1.0, 1.0, 2.0, 2.5]})
    assert rd.to_xarray(frame, ["y", "x"], like=like).h.dims == ("y", "x")
    assert rd.to_xarray(frame.with_columns(h=c.y.cast(pl.Float64)), ["y", "x"], like=like).h.dims == ("y",)


def test_labels_may_be_given():
    frame = pl.DataFrame({"x": [3, 1], "v": [30, 10]})
    found = rd.to_xarray(frame, {"x": [1, 2, 3]})
    assert found.v.to_numpy().tolist()[::2] == [10.0, 30.0]
    assert np.isnan(found.v.to_numpy()[1])
    with pytest.raises(RowsError, match="Row 0 has the label x=3"):
        rd.to_xarray(frame, {"x": [1, 2]})
    with pytest.raises(RowsError, match="repeat"):
        rd.to_xarray(frame, {"x": [1, 3, 3]})
    with pytest.raises(RowsError, match="not of type Int64"):
        rd.to_xarray(frame, {"x": ["a", "b"]})


def test_a_plan_stays_lazy(url):
    found = rd.to_xarray(rd.plan(url, c.lat > 30), ["lon", "time", "lat"])
    assert found.t2m.dims == ("lon", "time", "lat")
    assert not found.t2m.variable._in_memory
    with pytest.raises(QueryError, match="time, lat, lon"):
        rd.to_xarray(rd.plan(url), ["lon"])


@pytest.mark.parametrize(
    ("frame", "dims", "error", "text"),
    [
        ({"x": [1, 2, 1], "v": [1, 2, 3]}, ["x"], RowsError, "Rows 0 and 2 have the same cell, x=1"),
        ({"x": [1, None]}, ["x"], RowsError, "null or NaN"),
        ({"x": [1.0, float("nan")]}, ["x"], RowsError, "null or NaN"),
        ({"x": [1]}, ["y"], UnknownColumnError, "'y'"),
        ({"x": [1]}, ["x", "x"], RowsError, "twice"),
        ({"x": [1], "v": [[1]]}, ["x"], RowsError, "List"),
        ({"v": []}, [], RowsError, "no row"),
        (
            {"x": [1], "v": pl.Series([0]).cast(pl.Datetime("us", "Europe/Berlin"))},
            ["x"],
            RowsError,
            "convert_time_zone",
        ),
    ],
    ids=str,
)
def test_rows_that_fit_no_grid_are_refused(frame, dims, error, text):
    with pytest.raises(error, match=text):
        rd.to_xarray(pl.DataFrame(frame), dims)


def test_without_dimensions_there_is_one_cell():
    assert rd.to_xarray(pl.DataFrame({"v": [3]}), []).v.item() == 3
    with pytest.raises(RowsError, match="the only one"):
        rd.to_xarray(pl.DataFrame({"v": [3, 4]}), [])
