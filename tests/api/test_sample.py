"""The sample store: written once, complete, the same everywhere, and read by xarray alike."""

from concurrent.futures import ThreadPoolExecutor

import numpy as np
import polars as pl
import pytest
import xarray as xr

import rainbear_dask as rd
from rainbear_dask.exceptions import StoreNotFoundError
from rainbear_dask.sample_data import sample_path


@pytest.fixture
def cache(tmp_path, monkeypatch):
    monkeypatch.setenv("XDG_CACHE_HOME", str(tmp_path / "cache"))
    return tmp_path / "cache"


def test_the_sample_is_written_into_the_cache_once(cache):
    first = rd.open_sample()
    path = sample_path()
    assert path.is_relative_to(cache)
    assert [entry.name for entry in path.parent.iterdir()] == [path.name]
    state = (path / "zarr.json").stat().st_mtime_ns
    assert rd.open_sample().collect().equals(first.collect())
    assert (path / "zarr.json").stat().st_mtime_ns == state


def test_the_sample_is_what_its_docstring_says(tmp_path):
    table = rd.open_sample(tmp_path / "a.zarr")
    assert table.collect_schema() == {
        "time": pl.Datetime("ns"),
        "latitude": pl.Float64,
        "longitude": pl.Float64,
        "sst": pl.Float32,
    }
    found = rd.explain(table)
    assert (found.chunks_total, found.rows) == (45, 622_080)
    frame = table.collect()
    sst = frame["sst"]
    assert 0.15 < sst.null_count() / len(sst) < 0.4
    assert not sst.is_nan().any()
    assert -1.81 < sst.min() < 0
    assert 28 < sst.max() < 40
    north = frame.filter(pl.col("latitude") == 41.25).group_by(pl.col("time").dt.month()).agg(pl.col("sst").mean())
    assert north.sort("sst")["time"].to_list()[-1] in (7, 8)
    with xr.open_zarr(tmp_path / "a.zarr", consolidated=False) as data:
        assert np.array_equal(data.sst.values.ravel(), sst.to_numpy(), equal_nan=True)
        assert (data.time.values == frame["time"].unique().sort().to_numpy()).all()


def test_several_threads_may_write_it_together(tmp_path):
    with ThreadPoolExecutor(4) as pool:
        frames = list(pool.map(lambda _: rd.open_sample(tmp_path / "a.zarr").head(9).collect(), range(4)))
    assert all(frame.equals(frames[0]) for frame in frames)
    assert [entry.name for entry in tmp_path.iterdir()] == ["a.zarr"]


def test_a_writer_that_fails_leaves_nothing(tmp_path, monkeypatch):
    def fail(*_):
        raise OSError("no room")

    monkeypatch.setattr("rainbear_dask.sample_data._temperatures", fail)
    with pytest.raises(OSError, match="no room"):
        rd.open_sample(tmp_path / "a.zarr")
    assert list(tmp_path.iterdir()) == []


def test_another_file_at_the_path_is_left_alone(tmp_path):
    (tmp_path / "a.zarr").write_text("mine")
    with pytest.raises(StoreNotFoundError, match="it is a file"):
        rd.open_sample(tmp_path / "a.zarr")
    assert (tmp_path / "a.zarr").read_text() == "mine"


def test_versions_are_printed(capsys):
    assert rd.show_versions() is None
    lines = dict(line.split(maxsplit=1) for line in capsys.readouterr().out.splitlines())
    assert lines["polars"] == pl.__version__
    assert lines["rainbear-dask"] == rd.__version__
    assert {"Python", "system", "zarr", "dask", "obstore"} <= lines.keys()
