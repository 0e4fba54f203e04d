"""`write_zarr`: modes, regions, refusals, and one writer for each stored object."""

import json
import os
import signal
import subprocess
import sys
import time
from datetime import date, datetime
from pathlib import Path
from threading import Lock, Thread

import dask
import fsspec
import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import (
    PlanTooLargeError,
    QueryError,
    RowsError,
    StoreNotFoundError,
    TargetExistsError,
    UnknownColumnError,
    UnknownOptionError,
    WriteError,
)
from rainbear_dask.storage.targets import Target
from rainbear_dask.writing import plans
from rainbear_dask.writing.slots import units
from tests.support.stores import write_field

c = pl.col
ROOT = str(Path(__file__).parents[2])
FRAME = pl.DataFrame({"x": [3, 1, 2], "v": [30.0, 10.0, 20.0]})


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("write") / "field.zarr")
    write_field(path)
    return path


@pytest.fixture
def target(tmp_path) -> str:
    """A store of FRAME."""
    rd.write_zarr(FRAME, tmp_path / "t.zarr", ["x"])
    return str(tmp_path / "t.zarr")


def names_in(folder) -> list[str]:
    """Return the names in a folder."""
    return sorted(path.name for path in Path(folder).iterdir())


def content(path) -> dict[str, bytes]:
    """Return all files of a store."""
    return {str(p.relative_to(path)): p.read_bytes() for p in Path(path).rglob("*") if p.is_file()}


# ---------------------------------------------------------------------- sources


def test_a_copy_equals_its_source_and_is_consolidated(url, tmp_path):
    rd.write_zarr(rd.scan_zarr(url), tmp_path / "copy.zarr")
    expected = xr.open_zarr(url, consolidated=False)
    xr.testing.assert_identical(xr.open_zarr(tmp_path / "copy.zarr", consolidated=True).load(), expected.load())
    assert zarr.open_group(tmp_path / "copy.zarr")["t2m"].chunks == (24, 4, 5)


def test_a_filter_on_values_leaves_fill(url, tmp_path):
    lf = rd.scan_zarr(url).filter(c.lat > 0, c.t2m > 280)
    rd.write_zarr(lf, tmp_path / "f.zarr", ["lon", "lat", "time"], chunks={"time": 10}, shards={"time": 20})
    found = xr.open_zarr(tmp_path / "f.zarr").load()
    source = xr.open_zarr(url, consolidated=False).load()
    source = source.sel(lat=source.lat > 0)
    expected = source.where(source.t2m > 280).transpose("lon", "lat", "time")
    xr.testing.assert_equal(found, expected)
    assert zarr.open_group(tmp_path / "f.zarr")["t2m"].shards == (5, 4, 20)


@pytest.mark.parametrize("predicate", [(c.lat > 60) | (c.lon > 300), (c.lat - c.lon > 0) | (c.time.dt.hour() == 3)])
def test_a_selection_that_is_no_box_leaves_fill(url, tmp_path, predicate):
    lf = rd.scan_zarr(url).filter(predicate)
    rd.write_zarr(lf, tmp_path / "f.zarr")
    found = rd.scan_zarr(tmp_path / "f.zarr").drop_nulls("t2m").collect()
    assert_frame_equal(found, lf.collect(), check_row_order=False)


@pytest.mark.cluster
def test_workers_write_the_same(url, tmp_path, client):
    lf = rd.scan_zarr(url).filter(c.t2m > 280)
    with dask.config.set({"rainbear-dask.task-bytes": 20_000}):
        rd.write_zarr(lf, tmp_path / "there.zarr", chunks={"time": 7}, client=client)
        with dask.config.set({"rainbear-dask.small-plan-bytes": 2**40}):
            rd.write_zarr(lf, tmp_path / "here.zarr", chunks={"time": 7})
    assert content(tmp_path / "there.zarr") == content(tmp_path / "here.zarr")


def test_other_queries_are_collected(url, tmp_path):
    daily = rd.scan_zarr(url).group_by("lat", "lon").agg(c.t2m.mean(), n=pl.len())
    rd.write_zarr(daily, tmp_path / "d.zarr", ["lat", "lon"])
    found = rd.scan_zarr(tmp_path / "d.zarr").collect()
    assert_frame_equal(found, daily.collect().select(found.columns), check_row_order=False, check_dtypes=False)


def test_auxiliary_coordinates_scalars_and_grid_mappings_are_kept(tmp_path):
    ds = xr.Dataset(
        {"a": (("y", "x"), np.arange(6.0).reshape(2, 3), {"grid_mapping": "crs", "units": "K"}), "h": ("y", [1, 2])},
        {"area": (("y", "x"), np.ones((2, 3))), "ref": 3, "name": ("x", np.array(["a", "b", "c"], dtype=object))},
        attrs={"title": "made up"},
    )
    ds["crs"] = ((), 0, {"grid_mapping_name": "latitude_longitude"})
    ds.to_zarr(tmp_path / "s.zarr", consolidated=False)
    rd.write_zarr(rd.scan_zarr(tmp_path / "s.zarr"), tmp_path / "t.zarr")
    found = xr.open_zarr(tmp_path / "t.zarr").load()
    expected = xr.open_zarr(tmp_path / "s.zarr", consolidated=False).load()
    xr.testing.assert_identical(found.drop_vars("crs"), expected.drop_vars("crs"))
    assert found.crs.attrs == expected.crs.attrs
    assert rd.scan_zarr(tmp_path / "t.zarr").collect_schema() == rd.scan_zarr(tmp_path / "s.zarr").collect_schema()


def test_a_dimension_without_labels_keeps_its_positions(tmp_path):
    xr.Dataset({"a": ("x", np.arange(6.0))}).to_zarr(tmp_path / "s.zarr", consolidated=False)
    lf = rd.scan_zarr(tmp_path / "s.zarr")
    rd.write_zarr(lf, tmp_path / "all.zarr")
    rd.write_zarr(lf.filter(c.x > 2), tmp_path / "some.zarr")
    assert "x" not in xr.open_zarr(tmp_path / "all.zarr").coords
    assert_frame_equal(rd.scan_zarr(tmp_path / "some.zarr").collect(), lf.filter(c.x > 2).collect())


def test_nothing_is_a_store_without_cells(url, tmp_path):
    rd.write_zarr(rd.scan_zarr(url).filter(c.lat > 100), tmp_path / "n.zarr")
    assert rd.scan_zarr(tmp_path / "n.zarr").collect().height == 0
    rd.write_zarr(FRAME.clear(), tmp_path / "m.zarr", ["x"])
    assert rd.scan_zarr(tmp_path / "m.zarr").collect().schema == FRAME.schema


def test_each_stored_object_has_one_writer(url, tmp_path, monkeypatch):
    written, lock = [], Lock()
    write_unit = plans.write_unit

    def noting(store, slot, spans, values, cells, *, keep):
        objects = [range(spans[d][0] // n, -(-spans[d][1] // n)) for d, n in zip(slot.dims, slot.objects, strict=True)]
        with lock:
            written.extend(
                (slot.path, *index)
                for index in np.stack(np.meshgrid(*objects), -1).reshape(-1, len(objects)).tolist()
                for index in [tuple(index)]
            )
        write_unit(store, slot, spans, values, cells, keep=keep)

    monkeypatch.setattr(plans, "write_unit", noting)
    with dask.config.set({"rainbear-dask.task-bytes": 3000}):
        rd.write_zarr(rd.scan_zarr(url), tmp_path / "t.zarr", chunks={"time": 5, "lat": 3}, shards={"time": 10})
    assert len(written) == len(set(written))
    assert len(written) == 2 * 5 * 4 * 4 + 3  # two variables; the three coordinates are one chunk each


def test_sparse_rows_write_only_their_chunks(tmp_path):
    frame = pl.DataFrame({"y": [0, 299], "x": [0, 299], "v": [1.0, 2.0]})
    axes = {"y": np.arange(300), "x": np.arange(300)}
    rd.write_zarr(frame, tmp_path / "s.zarr", axes, chunks={"y": 10, "x": 10})
    assert len([p for p in (tmp_path / "s.zarr" / "v" / "c").rglob("*") if p.is_file()]) == 2
    assert rd.scan_zarr(tmp_path / "s.zarr").drop_nulls("v").collect().equals(frame)


def test_units_cover_a_part_at_borders_of_objects():
    found = list(units({"y": (3, 12), "x": (0, 4)}, {"y": 5, "x": 4}))
    assert found == [{"y": span, "x": (0, 4)} for span in [(3, 5), (5, 10), (10, 12)]]
    assert list(units({"y": (3, 3)}, {"y": 5})) == []
    assert list(units({}, {})) == [{}]


# ---------------------------------------------------------------------- modes


def test_a_store_that_exists_is_refused_or_replaced(target, tmp_path):
    before = content(target)
    with pytest.raises(TargetExistsError, match="mode='w'"):
        rd.write_zarr(FRAME, target, ["x"])
    assert content(target) == before
    rd.write_zarr(FRAME.rename({"v": "w"}), target, ["x"], mode="w")
    assert set(xr.open_zarr(target).data_vars) == {"w"}
    assert names_in(tmp_path) == ["t.zarr"]


def test_a_folder_that_is_no_store_is_not_replaced(tmp_path):
    (tmp_path / "thesis").mkdir()
    (tmp_path / "thesis" / "chapter.txt").write_text("mine")
    for mode in ("w", "w-"):
        with pytest.raises(TargetExistsError):
            rd.write_zarr(FRAME, tmp_path / "thesis", ["x"], mode=mode)
    assert names_in(tmp_path) == ["thesis"]


def test_cells_are_found_by_their_labels(target):
    rd.write_zarr(pl.DataFrame({"v": [-2.0, -3.0], "x": [2, 3]}), target, mode="r+")
    assert rd.scan_zarr(target).collect()["v"].to_list() == [-3.0, 10.0, -2.0]
    before = content(target)
    for frame, error, text in (
        (pl.DataFrame({"x": [4], "v": [0.0]}), RowsError, "x=4"),
        (pl.DataFrame({"x": [1], "w": [0.0]}), UnknownColumnError, "'w'"),
        (pl.DataFrame({"x": [1, 1], "v": [0.0, 1.0]}), RowsError, "Rows 0 and 1"),
        (pl.DataFrame({"x": [1], "v": ["text"]}), RowsError, "holds Float64"),
        (pl.DataFrame({"y": [1], "v": [0.0]}), UnknownColumnError, "'x'"),
    ):
        with pytest.raises(error, match=text):
            rd.write_zarr(frame, target, mode="r+")
        assert content(target) == before


def test_new_columns_become_new_arrays(target):
    rd.write_zarr(pl.DataFrame({"x": [1, 2, 3], "n": [1, 2, 3], "v": [0.0, 0.0, 0.0]}), target, mode="a")
    found = xr.open_zarr(target).load()
    assert found.n.to_numpy().tolist() == [3, 1, 2]
    assert found.v.to_numpy().tolist() == [0, 0, 0]
    with pytest.raises(RowsError, match="fill value"):
        rd.write_zarr(pl.DataFrame({"x": [1], "m": [1]}), target, mode="a")


def test_a_scan_is_written_into_a_part(url, tmp_path):
    lf = rd.scan_zarr(url)
    rd.write_zarr(lf.select("t2m"), tmp_path / "t.zarr", chunks={"time": 10})
    warmer = tmp_path / "warmer.zarr"
    later = lf.filter(c.time.dt.day() == 1, c.lat < 0)
    rd.write_zarr(
        later.with_columns(c.t2m + 100).select("time", "lat", "lon", "t2m").collect(), warmer, ["time", "lat", "lon"]
    )
    for source in (rd.scan_zarr(warmer), rd.scan_zarr(warmer).filter(c.t2m > 380)):
        rd.write_zarr(source, tmp_path / "t.zarr", mode="r+")
    expected = xr.open_zarr(url, consolidated=False)[["t2m"]].load()
    part = (expected.time.dt.day == 1) & (expected.lat < 0)
    expected = expected.t2m.where(~part, expected.t2m + np.float32(100))
    np.testing.assert_array_equal(xr.open_zarr(tmp_path / "t.zarr").t2m, expected.transpose("time", "lat", "lon"))


def test_a_region_bounds_the_labels(target):
    rd.write_zarr(pl.DataFrame({"x": [1], "v": [0.0]}), target, mode="r+", region={"x": slice(1, 2)})
    with pytest.raises(RowsError, match="outside of the region"):
        rd.write_zarr(pl.DataFrame({"x": [2], "v": [0.0]}), target, mode="r+", region={"x": slice(1, 2)})
    with pytest.raises(QueryError, match="'y'"):
        rd.write_zarr(pl.DataFrame({"x": [2], "v": [0.0]}), target, mode="r+", region={"y": slice(1, 2)})
    with pytest.raises(QueryError, match="neither 'auto' nor slices"):
        rd.write_zarr(pl.DataFrame({"x": [2], "v": [0.0]}), target, mode="r+", region="here")


# ---------------------------------------------------------------------- appending


@pytest.mark.parametrize("consolidated", [True, False])
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_xarray_stores_become_longer(url, tmp_path, zarr_format, consolidated):
    whole = xr.open_zarr(url, consolidated=False).load()
    whole.isel(time=slice(30)).drop_encoding().to_zarr(
        tmp_path / "t.zarr",
        zarr_format=zarr_format,
        consolidated=consolidated,
        encoding={"t2m": {"chunks": (7, 12, 9)}},
    )
    last = rd.scan_zarr(url).filter(c.time > whole.time.to_numpy()[29])
    with dask.config.set({"rainbear-dask.task-bytes": 5000}):
        rd.write_zarr(last, tmp_path / "t.zarr", append_dim="time")
    found = xr.open_zarr(tmp_path / "t.zarr", consolidated=consolidated).load()
    xr.testing.assert_equal(found, whole)
    assert_frame_equal(rd.scan_zarr(tmp_path / "t.zarr").collect(), rd.scan_zarr(url).collect())


def test_new_labels_continue_the_axis(target, tmp_path):
    before = content(target)
    for frame, error, text in (
        (FRAME, RowsError, "x=3 is in .* already"),
        (pl.DataFrame({"x": [7, 7], "v": [1.0, 2.0]}), RowsError, "Rows 0 and 1"),
        (pl.DataFrame({"x": [7]}), RowsError, "lack the column 'v'"),
        (pl.DataFrame({"x": [7], "v": [1.0], "w": [1]}), UnknownColumnError, "'w'"),
        (pl.DataFrame({"x": [7.5], "v": [1.0]}), RowsError, "Cast it"),
    ):
        with pytest.raises(error, match=text):
            rd.write_zarr(frame, target, append_dim="x")
        assert content(target) == before
    rd.write_zarr(FRAME.sort("x"), tmp_path / "up.zarr", ["x"])
    with pytest.raises(RowsError, match="do not continue"):
        rd.write_zarr(pl.DataFrame({"x": [0], "v": [1.0]}), tmp_path / "up.zarr", append_dim="x")
    rd.write_zarr(pl.DataFrame({"x": [9, 5], "v": [9.0, 5.0]}), tmp_path / "up.zarr", append_dim="x")
    assert rd.scan_zarr(tmp_path / "up.zarr").collect().rows() == [(1, 10), (2, 20), (3, 30), (5, 5), (9, 9)]


def test_a_dimension_without_labels_counts_on(tmp_path):
    xr.Dataset({"v": ("x", [1.0, 2.0])}).to_zarr(tmp_path / "t.zarr", consolidated=False)
    with pytest.raises(RowsError, match="count on from 2"):
        rd.write_zarr(pl.DataFrame({"x": [0], "v": [3.0]}), tmp_path / "t.zarr", append_dim="x")
    rd.write_zarr(pl.DataFrame({"x": [3, 2], "v": [4.0, 3.0]}), tmp_path / "t.zarr", append_dim="x")
    assert xr.open_zarr(tmp_path / "t.zarr", consolidated=False).v.to_numpy().tolist() == [1, 2, 3, 4]


def test_an_append_is_visible_when_it_is_whole(target, monkeypatch):
    found = []
    from rainbear_dask.writing import rows  # noqa: PLC0415

    write_frame = rows.write_frame

    def noting(*arguments, **options):
        write_frame(*arguments, **options)
        found.append(xr.open_zarr(target).sizes["x"])

    monkeypatch.setattr(rows, "write_frame", noting)
    rd.write_zarr(FRAME.with_columns(c.x + 10), target, append_dim="x")
    assert found == [3, 3]
    assert xr.open_zarr(target).sizes["x"] == 6


# ---------------------------------------------------------------------- refusals


WRONG = [
    ({"n": [1, 2]}, {"dims": ["x"]}, UnknownColumnError, "'x'"),
    ({"x": [1, 1], "n": [1, 2]}, {"dims": ["x"]}, RowsError, "Rows 0 and 1 have the same cell, x=1"),
    ({"x": [1, None], "n": [1, 2]}, {"dims": ["x"]}, RowsError, "null or NaN"),
    ({"x": [1, 2], "n": [1, None]}, {"dims": ["x"]}, RowsError, "'n' has nulls"),
    ({"x": [1, 2], "b": [True, None]}, {"dims": ["x"]}, RowsError, "'b' has nulls"),
    ({"x": [1, 2], "s": ["a", None]}, {"dims": ["x"]}, RowsError, "'s' has nulls"),
    ({"x": [1], "n": [1]}, {"dims": {"x": [1, 2]}}, RowsError, "no row"),
    ({"x": [1], "v": [1.0]}, {"dims": {"x": [1, 2]}, "missing": "error"}, RowsError, "1 cells have no row"),
    ({"x": [1], "l": [[1]]}, {"dims": ["x"]}, RowsError, "List"),
    ({"x": [1], "y": [b"b"]}, {"dims": ["x"]}, RowsError, "Binary"),
    ({"x": [1], "n": [300]}, {"dims": ["x"], "encoding": {"n": {"dtype": "i1"}}}, RowsError, "300"),
    ({"x": [1], "n": [7]}, {"dims": ["x"], "encoding": {"n": {"_FillValue": 7}}}, RowsError, "read as null"),
    ({"x": [1], "s": ["-"]}, {"dims": ["x"], "encoding": {"s": {"_FillValue": "-"}}}, RowsError, "read as null"),
    ({"x": [1], "s": ["abc"]}, {"dims": ["x"], "encoding": {"s": {"dtype": "U2"}}}, RowsError, "2 letters"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "encoding": {"n": {"_FillValue": 0.5}}}, QueryError, "0.5"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "encoding": {"m": {}}}, QueryError, "'m'"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "encoding": {"n": {"_Fillvalue": 1}}}, UnknownOptionError, "_FillValue"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "encoding": {"n": {"dtype": "f9"}}}, QueryError, "unknown to NumPy"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "encoding": {"n": {"dtype": "c8"}}}, RowsError, "complex64"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "chunks": {"y": 1}}, QueryError, "'y'"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "chunks": {"x": 0}}, QueryError, "chunks"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "chunks": 5}, QueryError, "not a mapping"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "chunks": {"x": 2}, "shards": {"x": 3}}, QueryError, "multiples"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "mode": "x"}, QueryError, "'r\\+'"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "duplicates": "first"}, QueryError, "duplicates"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "mode": "r+", "append_dim": "x"}, QueryError, "exclude each other"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "append_dim": "x", "region": {"x": slice(1)}}, QueryError, "exclude"),
    ({"x": [1], "n": [1]}, {"dims": ["x"], "mode": "r+"}, StoreNotFoundError, "w-"),
    ({"x": [1], "n": [1]}, {}, QueryError, "dims="),
    (
        {"x": [1], "t": [datetime(2020, 1, 1, 0, 30)]},
        {"dims": ["x"], "encoding": {"t": {"units": "hours since 2000-01-01", "dtype": "i4"}}},
        RowsError,
        "finer units",
    ),
    (
        {"x": [1], "t": [date(1500, 1, 1)]},
        {"dims": ["x"], "encoding": {"t": {"units": "days since 1970-01-01", "calendar": "standard"}}},
        RowsError,
        "1582",
    ),
    (
        {"x": [1], "t": [datetime(2900, 1, 1)]},
        {"dims": ["x"], "encoding": {"t": {"units": "nanoseconds since 1970-01-01"}}},
        RowsError,
        "cannot hold",
    ),
    (
        {"x": [1], "t": pl.Series([datetime(2020, 1, 1)]).dt.replace_time_zone("UTC")},
        {"dims": ["x"]},
        RowsError,
        "convert_time_zone",
    ),
]


@pytest.mark.parametrize(("frame", "options", "error", "text"), WRONG, ids=[str(k) for k in range(len(WRONG))])
def test_bad_input_is_refused_and_nothing_is_left(tmp_path, frame, options, error, text):
    with pytest.raises(error, match=text):
        rd.write_zarr(pl.DataFrame(frame), tmp_path / "t.zarr", **options)
    assert names_in(tmp_path) == []


def test_bad_frames_are_refused(tmp_path):
    axes = {"x": [1, 2, 3]}
    for frames, text in (
        ([FRAME, FRAME], "Two frames have a row for the same cell, x=3"),
        ([FRAME, FRAME.rename({"v": "w"})], "frames differ"),
        ([], "no frame"),
    ):
        with pytest.raises(RowsError, match=text):
            rd.write_zarr(iter(frames), tmp_path / "t.zarr", axes)
        assert names_in(tmp_path) == []
    for data in ("a.zarr", 3):
        with pytest.raises(QueryError, match="has no rows"):
            rd.write_zarr(data, tmp_path / "t.zarr")
    rd.write_zarr(iter([FRAME[:1], FRAME]), tmp_path / "t.zarr", axes, duplicates="last")
    rd.write_zarr(pl.concat([FRAME, FRAME])[::-1], tmp_path / "u.zarr", ["x"], duplicates="last")


def test_bad_plans_are_refused(url, tmp_path):
    lf = rd.scan_zarr(url)
    for data, options, error, text in (
        (lf, {"dims": ["time", "lat"]}, QueryError, "time, lat, lon"),
        (rd.plan(url, n_rows=5), {}, QueryError, "first rows"),
        (rd.scan_zarr(url, max_chunks_to_read=3), {}, PlanTooLargeError, "limit is 3"),
        (lf, {"dims": ["time", "lat", "lon"], "chunk": {}}, UnknownOptionError, "`chunks`"),
        (lf.filter(c.t2m > 280), {"missing": "error"}, RowsError, "no row"),
    ):
        with pytest.raises(error, match=text):
            rd.write_zarr(data, tmp_path / "t.zarr", **options)
        assert names_in(tmp_path) == []
    ints = pl.DataFrame({"x": [1, 2], "n": [1, 2]})
    rd.write_zarr(ints, tmp_path / "i.zarr", ["x"])
    with pytest.raises(RowsError, match="'n'"):
        rd.write_zarr(rd.scan_zarr(tmp_path / "i.zarr").filter(c.n > 1), tmp_path / "t.zarr")
    assert names_in(tmp_path) == ["i.zarr"]


def test_a_target_that_is_read_is_refused(target):
    before = content(target)
    for mode in ("w", "r+", "a"):
        with pytest.raises(QueryError, match="while it is read"):
            rd.write_zarr(rd.scan_zarr(target), target, mode=mode)
    assert content(target) == before


def test_a_tree_is_refused(tmp_path):
    xr.Dataset({"a": ("x", [1.0])}).to_zarr(tmp_path / "s.zarr", consolidated=False)
    xr.Dataset({"b": ("x", [1.0])}).to_zarr(tmp_path / "s.zarr", group="child", mode="a", consolidated=False)
    with pytest.raises(QueryError, match="child/b"):
        rd.write_zarr(rd.scan_zarr(tmp_path / "s.zarr"), tmp_path / "t.zarr")


# ---------------------------------------------------------------------- deaths and object stores


def test_after_a_failure_no_target_is_left(url, tmp_path, monkeypatch):
    def fail(*_, **__):
        raise WriteError("disk full")

    monkeypatch.setattr(plans, "write_unit", fail)
    with pytest.raises(WriteError, match="disk full"):
        rd.write_zarr(rd.scan_zarr(url), tmp_path / "t.zarr")
    assert names_in(tmp_path) == []


WRITE = """
import sys, dask
import rainbear_dask as rd
with dask.config.set({"rainbear-dask.task-bytes": 3000}):
    rd.write_zarr(rd.scan_zarr(sys.argv[1]), sys.argv[2], mode="w", chunks={"time": 1})
"""


def test_a_killed_process_leaves_the_old_store(url, target):
    before = content(target)
    process = subprocess.Popen(
        [sys.executable, "-c", WRITE, url, target], env=os.environ | {"PYTHONPATH": ROOT}, cwd=ROOT
    )
    while process.poll() is None and not any(Path(target).parent.glob(".t.zarr.*.part/t2m")):
        time.sleep(0.002)
    process.send_signal(signal.SIGKILL)
    process.wait()
    assert content(target) == before


def test_an_object_store_gets_its_document_last(url, monkeypatch):
    keys = []
    write = Target.write

    def noting(self, name, fill):
        keys.append(name)
        return write(self, name, fill)

    monkeypatch.setattr(Target, "write", noting)
    rd.write_zarr(rd.scan_zarr(url), "memory://written/a/t.zarr")
    assert keys[-1] == "zarr.json"
    mapper = fsspec.get_mapper("memory://written/a/t.zarr")
    assert_frame_equal(rd.scan_zarr(mapper).collect(), rd.scan_zarr(url).collect())
    with pytest.raises(TargetExistsError):
        rd.write_zarr(FRAME, "memory://written/a/t.zarr", ["x"])
    rd.write_zarr(FRAME, "memory://written/a/t.zarr", ["x"], mode="w")
    rd.write_zarr(FRAME.with_columns(c.x + 5), "memory://written/a/t.zarr", append_dim="x")
    assert rd.scan_zarr("memory://written/a/t.zarr").collect().height == 6
    assert not [key for key in fsspec.get_mapper("memory://written/a/t.zarr") if key.startswith("t2m")]
    with pytest.raises(RowsError):
        rd.write_zarr(
            pl.DataFrame({"x": [1], "n": [None]}, schema_overrides={"n": pl.Int8}), "memory://written/b.zarr", ["x"]
        )
    assert not list(fsspec.get_mapper("memory://written/b.zarr"))


def test_writers_of_different_chunks_lose_nothing(tmp_path):
    axes = {"x": np.arange(100)}
    rd.write_zarr(pl.DataFrame({"x": [0], "v": [0.0]}), tmp_path / "t.zarr", axes, chunks={"x": 10})
    errors = []

    def write(number):
        try:
            rows = pl.DataFrame({"x": range(10 * number, 10 * number + 10), "v": [float(number)] * 10})
            rd.write_zarr(rows, tmp_path / "t.zarr", mode="r+")
        except Exception as err:  # noqa: BLE001  reported below
            errors.append(err)

    threads = [Thread(target=write, args=(number,)) for number in range(10)]
    for thread in threads:
        thread.start()
    for thread in threads:
        thread.join()
    assert not errors
    assert rd.scan_zarr(tmp_path / "t.zarr").collect()["v"].to_list() == [float(k // 10) for k in range(100)]


def test_documents_are_those_of_zarr_v3(target):
    document = json.loads((Path(target) / "v" / "zarr.json").read_text())
    assert document["zarr_format"] == 3
    assert document["dimension_names"] == ["x"]
    assert "consolidated_metadata" in json.loads((Path(target) / "zarr.json").read_text())


def test_texts_leave_fill_in_other_cells_of_their_unit(tmp_path):
    frame = pl.DataFrame({"x": [0, 2], "s": ["a", "b"]})
    encoding = {"s": {"_FillValue": "-"}}
    rd.write_zarr(frame, tmp_path / "t.zarr", {"x": [0, 1, 2]}, encoding=encoding)
    rd.write_zarr(pl.DataFrame({"x": [3, 4], "s": ["c", None]}), tmp_path / "t.zarr", append_dim="x")
    assert rd.scan_zarr(tmp_path / "t.zarr").collect()["s"].to_list() == ["a", None, "b", "c", None]
    times = pl.DataFrame({"x": [0], "t": [datetime(1, 1, 1)]})
    rd.write_zarr(times, tmp_path / "far.zarr", {"x": [0, 1]})
    assert rd.scan_zarr(tmp_path / "far.zarr").collect()["t"].to_list() == [datetime(1, 1, 1), None]
