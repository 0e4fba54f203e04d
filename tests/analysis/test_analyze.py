"""`rd.analyze`: which statistics it collects, what it reads again, and what scans make of it."""

import os
import pickle
import shutil
import warnings
from concurrent.futures import ThreadPoolExecutor
from pathlib import Path

import icechunk
import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal
from zarr.storage import MemoryStore

import rainbear_dask as rd
from rainbear_dask.exceptions import (
    ChunkReadError,
    ClusterError,
    IgnoredStatisticsWarning,
    QueryError,
    UnknownColumnError,
    WriteError,
)
from tests.support.stores import write_field

c = pl.col
NAME = ".rainbear/statistics.parquet"
icechunk.set_logs_filter("icechunk=error")


@pytest.fixture(autouse=True)
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


@pytest.fixture
def field(tmp_path):
    """A small field of two variables, 24 chunks each; one chunk of t2m alone has a value above 400."""
    path = tmp_path / "field.zarr"
    write_field(path)
    zarr.open_array(str(path / "t2m"), mode="r+")[30, 5, 7] = 500
    return path


def kept(path, condition=c.t2m > 400, **options):
    """Return the chunks that a scan reads, after comparing its rows with those of a scan without statistics."""
    query = rd.scan_zarr(path, **options).filter(condition)
    plain = rd.scan_zarr(path, **{**options, "statistics": False}).filter(condition)
    assert_frame_equal(query.collect(), plain.collect())
    return rd.explain(query.select("t2m")).chunks_kept


def test_statistics_are_those_of_the_decoded_values(field):
    found = rd.analyze(field)
    assert (found.chunks, found.read) == (48, 48)
    assert set(found.frames) == {"t2m", "sst"}
    for name, frame in found.frames.items():
        values = xr.open_zarr(field, consolidated=False)[name].to_numpy()
        for row in frame.iter_rows(named=True):
            time, lat, lon = row["time"], row["lat"], row["lon"]
            chunk = values[24 * time : 24 * time + 24, 4 * lat : 4 * lat + 4, 5 * lon : 5 * lon + 5]
            assert (row["min"], row["max"], row["count"]) == (chunk.min(), chunk.max(), chunk.size)
            assert (row["nulls"], row["nans"]) == (0, 0)
    assert "48 chunks, 48 of them read now" in str(found)
    assert str(field / "t2m" / NAME) in str(found)


def test_a_rare_value_is_found_in_one_chunk(field):
    assert kept(field) == 24
    rd.analyze(field)
    assert kept(field) == 1
    assert kept(field, c.t2m > 600) == 0
    assert kept(field, (c.t2m > 400) & (c.lat > 80)) == 0
    assert kept(field, (c.t2m > 400) | (c.lat > 80)) == 9  # with 8 of 24 chunks in the north
    assert kept(field, ~(c.t2m <= 400)) == 1
    assert kept(field, statistics=False) == 24


def test_nulls_and_nans_are_counted(tmp_path):
    values = np.array([[np.nan, 1, 2], [-9, -9, -9], [3, -9, 4]], "f4")
    path = tmp_path / "a.zarr"
    data = xr.Dataset({"a": (("y", "x"), values, {"missing_value": np.float32(-9)})})
    data.to_zarr(path, encoding={"a": {"chunks": (1, 3), "_FillValue": None}}, zarr_format=3, consolidated=False)
    frame = rd.analyze(path).frames["a"]
    assert frame.select("min", "max", "nulls", "nans").rows() == [(1, 2, 0, 1), (None, None, 3, 0), (3, 4, 1, 0)]


def test_only_changed_chunks_are_read_again(field):
    rd.analyze(field)
    assert rd.analyze(field).read == 0
    kept_scan = rd.scan_zarr(field).filter(c.t2m > 400).select("t2m")
    assert rd.explain(kept_scan).chunks_kept == 1
    array = zarr.open_array(str(field / "t2m"), mode="r+")
    array[0, 0, 0] = 450
    assert kept(field) == 2  # the changed chunk is unknown
    assert kept_scan.collect().height == 2  # also to an earlier scan
    assert rd.analyze(field).read == 1
    array[0, 0, 0] = 280
    assert rd.analyze(field, "t2m").read == 1
    assert kept(field) == 1


def test_a_chunk_that_vanished_has_the_fill_value(tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(str(path / "a"), shape=(4,), chunks=(1,), dtype="i4", fill_value=7, dimension_names=["x"])
    array[:3] = [1, 2, 3]
    zarr.open_group(path)
    assert rd.analyze(path).frames["a"]["max"].to_list() == [1, 2, 3, 7]
    (path / "a" / "c" / "0").unlink()
    query = rd.scan_zarr(path).filter(c.a == 7)
    assert query.collect()["x"].to_list() == [0, 3]
    assert rd.analyze(path).read == 1


def test_an_array_that_grows_keeps_its_statistics(tmp_path):
    path = tmp_path / "a.zarr"
    data = xr.Dataset({"a": ("x", np.arange(10.0))}, {"x": np.arange(10)})
    data.to_zarr(path, encoding={"a": {"chunks": (4,)}}, zarr_format=3, consolidated=False)
    rd.analyze(path)
    (data + 100).assign_coords(x=np.arange(10, 20)).to_zarr(path, append_dim="x", consolidated=False)
    condition = c.a > 104
    query = rd.scan_zarr(path).filter(condition)
    assert query.collect()["x"].to_list() == [15, 16, 17, 18, 19]
    assert rd.explain(query).chunks_kept == 3  # two of five are known
    assert rd.analyze(path).read == 3


def test_files_beside_the_array_disturb_no_reader(field):
    rd.analyze(field)
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert set(xr.open_zarr(field, consolidated=False).variables) == {"time", "lat", "lon", "t2m", "sst"}
        assert len(list(zarr.open_group(field).members(max_depth=None))) == 5


def test_shards_have_statistics_of_their_chunks(tmp_path):
    path = tmp_path / "a.zarr"
    values = np.arange(64.0).reshape(8, 8)
    group = zarr.create_group(path)
    group.create_array("a", data=values, chunks=(2, 2), shards=(4, 8), dimension_names=["y", "x"])
    assert rd.analyze(path).frames["a"].height == 16
    assert rd.explain(rd.scan_zarr(path).filter(c.a > 62)).chunks_kept == 1
    group["a"][0, 0] = 99
    query = rd.scan_zarr(path).filter(c.a > 62)
    assert rd.explain(query).chunks_kept == 9  # all chunks of the changed shard
    assert query.collect()["a"].to_list() == [99, 63]
    assert rd.analyze(path).read == 8


# ------------------------------------------------------------------ places


def test_scans_find_statistics_in_the_cache(field, cache):
    found = rd.analyze(field, where="cache")
    assert not (field / "t2m" / NAME).exists()
    assert Path(found.places["t2m"]).is_relative_to(cache / "rainbear-dask" / "statistics")
    assert kept(field) == 1


def test_a_folder_is_named_by_scans(field, tmp_path):
    folder = tmp_path / "folder"
    with pytest.raises(QueryError, match="not a folder"):
        rd.scan_zarr(field, statistics=folder)
    rd.analyze(field, where=folder)
    assert kept(field) == 24
    assert kept(field, statistics=str(folder)) == 1
    assert kept(field, statistics=folder) == 1


def test_statistics_in_the_store_come_first(field):
    rd.analyze(field, where="cache")
    rd.analyze(field)
    query = rd.scan_zarr(field).filter(c.t2m > 400)
    assert str(field / "t2m" / NAME) in rd.explain(query)
    shutil.rmtree(field / "t2m" / ".rainbear")
    assert "/statistics/" in rd.explain(rd.scan_zarr(field).filter(c.t2m > 400))


@pytest.mark.parametrize("where", [5, None, b"store"])
def test_a_place_is_checked(field, where):
    with pytest.raises(QueryError, match="where"):
        rd.analyze(field, where=where)


@pytest.mark.parametrize("option", [True, None, 5])
def test_the_option_of_scans_is_checked(field, option):
    with pytest.raises(QueryError, match="statistics"):
        rd.scan_zarr(field, statistics=option)


def test_a_group_and_its_path_share_statistics(tmp_path):
    path = tmp_path / "a.zarr"
    write_field(path / "inner")
    zarr.open_group(path, mode="a")
    rd.analyze(path, group="inner")
    for table in (rd.scan_zarr(path, group="inner"), rd.scan_zarr(path / "inner")):
        assert rd.explain(table.filter(c.t2m > 1000)).chunks_kept == 0
    assert rd.analyze(path).read == 0


@pytest.mark.skipif(not hasattr(os, "geteuid") or os.geteuid() == 0, reason="root may write everywhere")
def test_a_folder_without_the_right_to_write_names_the_cache_before_reading(field):
    (field / "t2m").chmod(0o555)
    try:
        with pytest.raises(WriteError, match='where="cache"'):
            rd.analyze(field)
    finally:
        (field / "t2m").chmod(0o755)


def test_an_error_of_writing_names_the_cache_before_reading(field):
    (field / "sst" / ".rainbear").write_text("a file")
    (field / "t2m" / "c" / "0" / "0" / "0").write_bytes(b"damaged")
    with pytest.raises(WriteError, match='where="cache"'):
        rd.analyze(field)


# ------------------------------------------------------------------ sources


def test_a_zip_file_is_described_in_the_cache(field, tmp_path):
    path = shutil.make_archive(str(tmp_path / "a"), "zip", field)
    with pytest.raises(WriteError, match='where="cache"'):
        rd.analyze(path)
    rd.analyze(path, where="cache")
    assert kept(path) == 1
    os.utime(path, ns=(0, 0))
    assert kept(path) == 24


def test_a_snapshot_of_icechunk_is_described_in_the_cache(tmp_path):
    repository = icechunk.Repository.create(icechunk.local_filesystem_storage(str(tmp_path / "repository")))
    session = repository.writable_session("main")
    data = xr.Dataset({"t2m": ("x", np.arange(8.0))})
    data.to_zarr(session.store, encoding={"t2m": {"chunks": (2,)}}, consolidated=False, zarr_format=3)
    session.commit("first")
    with pytest.raises(WriteError, match='where="cache"'):
        rd.analyze(repository.readonly_session("main"))
    rd.analyze(repository.readonly_session("main"), where="cache")
    assert kept(repository.readonly_session("main"), c.t2m > 6) == 1
    session = repository.writable_session("main")
    zarr.open_array(session.store, path="t2m", mode="r+")[0] = 9
    session.commit("second")
    assert kept(repository.readonly_session("main"), c.t2m > 6) == 4


def test_a_store_in_memory_is_refused(field):
    store = MemoryStore()
    xr.open_zarr(field, consolidated=False).to_zarr(store, consolidated=False)
    with pytest.raises(QueryError, match="nothing tells whether a chunk has changed"):
        rd.analyze(store, where="cache")


def test_other_stores_of_a_folder(field):
    rd.analyze(zarr.storage.LocalStore(field))
    assert (field / "t2m" / NAME).is_file()
    assert kept(zarr.storage.LocalStore(field)) == 1


def test_variables_are_checked(field):
    with pytest.raises(UnknownColumnError, match="t2m"):
        rd.analyze(field, ["t2n"])
    with pytest.raises(UnknownColumnError):
        rd.analyze(field, "lat")
    assert list(rd.analyze(field, "sst").frames) == ["sst"]


def test_scalars_have_no_statistics(tmp_path):
    path = tmp_path / "a.zarr"
    xr.Dataset({"a": ("x", [1.0]), "scalar": 5}).to_zarr(path, consolidated=False, zarr_format=3)
    assert list(rd.analyze(path).frames) == ["a"]
    with pytest.raises(QueryError, match="a scalar"):
        rd.analyze(path, ["scalar"])


def test_texts_and_times_have_statistics(tmp_path):
    path = tmp_path / "a.zarr"
    data = xr.Dataset(
        {
            "text": ("x", np.array(["b", "a", "z" * 300, "d"], dtype=object)),
            "time": ("x", np.array(["2020-01-01", "NaT", "2020-01-03", "2021-01-01"], "M8[ns]")),
        }
    )
    data.to_zarr(path, encoding={name: {"chunks": (2,)} for name in data}, consolidated=False, zarr_format=3)
    found = rd.analyze(path)
    assert found.frames["text"]["max"].to_list() == ["b", None]  # the second is too long to keep
    assert found.frames["time"]["nulls"].to_list() == [1, 0]
    table = rd.scan_zarr(path)
    assert rd.explain(table.filter(c.text > "c").select("x")).chunks_kept == 1
    assert rd.explain(table.filter(c.time.dt.year() == 2020).select("x")).chunks_kept == 2
    assert rd.explain(table.filter(c.time < pl.datetime(2020, 1, 2)).select("x")).chunks_kept == 1
    assert rd.analyze(path).read == 1  # the long text again


# ------------------------------------------------------------------ faults


def test_a_damaged_chunk_keeps_the_statistics_of_others(field):
    damaged = field / "t2m" / "c" / "1" / "2" / "3"
    content = damaged.read_bytes()
    damaged.write_bytes(b"damaged")
    with pytest.raises(ChunkReadError, match="t2m"):
        rd.analyze(field)  # sst comes first
    damaged.write_bytes(content)
    assert rd.analyze(field).read == 24


def test_a_closed_client_is_refused(field):
    with pytest.raises(ClusterError):
        rd.analyze(field, client="tcp://nowhere:1")


@pytest.mark.parametrize("content", [b"", b"PAR1", b"x" * 5000])
def test_a_damaged_file_is_ignored_with_one_warning(field, content):
    rd.analyze(field)
    (field / "t2m" / NAME).write_bytes(content)
    table = rd.scan_zarr(field)
    with pytest.warns(IgnoredStatisticsWarning, match=r"statistics.parquet is ignored, because .*rd.analyze"):
        found = table.filter(c.t2m > 400).collect()
    assert found.height == 1
    assert table.filter(c.t2m > 300).collect().height > 1  # without another warning
    with pytest.warns(IgnoredStatisticsWarning):
        assert rd.analyze(field).read == 24
    assert kept(field) == 1


def test_a_pipe_in_the_place_of_the_file_is_ignored(field):
    (field / "t2m" / ".rainbear").mkdir()
    os.mkfifo(field / "t2m" / NAME)
    with pytest.warns(IgnoredStatisticsWarning, match="pipe"):
        assert rd.scan_zarr(field).filter(c.t2m > 400).collect().height == 1


def test_two_calls_at_once_leave_one_whole_file(field):
    with ThreadPoolExecutor(4) as pool:
        assert [found.chunks for found in pool.map(rd.analyze, [field] * 4)] == [48] * 4
    assert [path.name for path in (field / "t2m" / ".rainbear").iterdir()] == ["statistics.parquet"]
    assert rd.analyze(field).read == 0


# ------------------------------------------------------------------ other values


def test_scans_with_other_values_do_not_use_them(tmp_path):
    path = tmp_path / "a.zarr"
    packed = {"dtype": "i2", "scale_factor": 0.5, "add_offset": 10.0, "_FillValue": -1, "chunks": (2,)}
    xr.Dataset({"a": ("x", [10.0, 12.0, np.nan, 20.0])}).to_zarr(
        path, encoding={"a": packed}, consolidated=False, zarr_format=3
    )
    assert rd.analyze(path).frames["a"].select("min", "max", "nulls").rows() == [(10.0, 12.0, 0), (20.0, 20.0, 1)]
    for options in ({}, {"mask": False}, {"decode": False}):
        for condition in (c.a > 15, c.a < 0, c.a.is_null(), c.a == 9.5):
            plain = rd.scan_zarr(path, statistics=False, **options).filter(condition).collect()
            assert_frame_equal(rd.scan_zarr(path, **options).filter(condition).collect(), plain)
    assert rd.explain(rd.scan_zarr(path).filter(c.a > 15)).chunks_kept == 1
    assert rd.explain(rd.scan_zarr(path, mask=False).filter(c.a > 15)).chunks_kept == 2


def test_another_attribute_makes_them_invalid(tmp_path):
    path = tmp_path / "a.zarr"
    array = zarr.create_array(
        str(path / "a"), shape=(4,), chunks=(2,), dtype="i2", dimension_names=["x"], attributes={"scale_factor": 1.0}
    )
    array[:] = [1, 2, 3, 4]
    zarr.open_group(path)
    rd.analyze(path)
    array.attrs["scale_factor"] = 100.0
    assert rd.scan_zarr(path).filter(c.a > 5).collect().height == 4


def test_the_statistics_travel_with_a_table(field):
    rd.analyze(field)
    query = pickle.loads(pickle.dumps(rd.scan_zarr(field).filter(c.t2m > 400)))
    assert rd.explain(query.select("t2m")).chunks_kept == 1


def test_the_report_names_them(field):
    found = rd.analyze(field)
    report = str(rd.explain(rd.scan_zarr(field).filter(c.t2m > 400)))
    assert f"t2m keeps 1 of 24 chunks ({found.places['t2m']})" in report
    assert "statistics of 20" in report
    assert "statistics" not in str(rd.explain(rd.scan_zarr(field).filter(c.lat > 0)))


def test_every_kind_of_query_reads_fewer_chunks(field):
    rd.analyze(field)
    table = rd.scan_zarr(field).filter(c.t2m > 400)
    assert rd.plan(field, c.t2m > 400, ["t2m"]).num_chunks_kept == 1
    assert rd.collect(table.select(c.t2m.max())).item() == 500
    assert rd.explain(table.select(c.t2m.max())).chunks_kept == 1
    frame = rd.read_zarr(field)
    assert len(frame[frame["t2m"] > 400].compute()) == 1
    assert table.head(5).collect().height == 1


def test_workers_collect_the_same(field, client):
    here = rd.analyze(field, where="cache")
    there = rd.analyze(field, client=client)
    assert there.read == 48
    for name, frame in here.frames.items():
        assert_frame_equal(there.frames[name], frame)
    zarr.open_array(str(field / "t2m"), mode="r+")[30, 5, 7] = 280
    assert rd.analyze(field, client=client).read == 1
    assert kept(field) == 0
