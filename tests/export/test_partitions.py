"""Partition keys: every row in one folder, and folders that readers understand."""

import io
from pathlib import Path

import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import given
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import PlanTooLargeError, PredicateError, QueryError, UnknownColumnError
from rainbear_dask.export import partitions as module
from rainbear_dask.export.partitions import partition_keys, partitions
from tests.support.stores import write_field

c = pl.col


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("partitions") / "field.zarr")
    write_field(path)
    return path


@given(
    st.lists(
        st.tuples(
            st.none() | st.sampled_from(["", "a", "a b", "a/b", "..", "ü=%", "%2F", "x\0y\1z", "null", "é\n"]),
            st.none() | st.integers(-3, 3),
            st.none() | st.sampled_from([0.1, -2.5e300, float("inf")]),
        ),
        min_size=1,
        max_size=20,
    )
)
def test_partitions_hold_each_row_once_and_readers_find_the_keys_again(rows):
    frame = pl.DataFrame(
        rows, schema={"text": pl.String, "number": pl.Int8, "real": pl.Float64}, orient="row"
    ).with_row_index("row")
    keys = {name: c(name) for name in ("text", "number", "real")}
    found = partitions(frame, keys)
    assert len({folder for folder, _ in found}) == len(found)
    assert sorted(row for _, part in found for row in part["row"]) == list(range(len(rows)))
    for folder, part in found:
        assert part.columns == ["row"]
        assert ".." not in Path(folder).parts
        assert folder.count("/") == 2
        file = io.BytesIO()
        part.write_parquet(file)
        assert len(frame[part["row"].to_list()].drop("row").unique()) == 1


@pytest.mark.parametrize(
    "by",
    [
        "lat",
        ["lat", "lon"],
        ["time"],
        {"month": c.time.dt.month(), "warm": c.t2m > 280},
        {"name": pl.when(c.lat > 0).then(pl.lit("a b/ü=%")).when(c.lat < -50).then(pl.lit("z"))},
    ],
    ids=["name", "names", "time", "expressions", "text"],
)
def test_polars_reads_the_rows_with_the_keys(url, tmp_path, by):
    lf = rd.scan_zarr(url)
    report = rd.write_parquet(lf, tmp_path / "out", partition_by=by)
    found = pl.scan_parquet(tmp_path / "out", hive_partitioning=True).collect()
    expected = lf.collect()
    expected = expected.with_columns(**by) if isinstance(by, dict) else expected
    assert report.rows == expected.height
    places = ["time", "lat", "lon"]
    assert_frame_equal(
        found.select(expected.columns).sort(places), expected.sort(places), check_dtypes=False, check_exact=True
    )
    first = next((tmp_path / "out").rglob("*.parquet"))
    assert not set(by) & set(pl.read_parquet_schema(first)) or isinstance(by, str)


def test_a_filter_on_a_key_skips_folders(url, tmp_path):
    rd.write_parquet(url, tmp_path / "out", partition_by={"month": c.time.dt.month()})
    for file in (tmp_path / "out" / "month=2").iterdir():
        file.write_bytes(b"not read")
    january = pl.scan_parquet(tmp_path / "out", hive_partitioning=True).filter(month=1)
    expected = rd.scan_zarr(url).filter(c.time.dt.month() == 1).collect()
    assert january.collect().height == expected.height


def test_a_key_need_not_be_selected(url, tmp_path):
    lf = rd.scan_zarr(url).select("time", "sst")
    rd.write_parquet(lf, tmp_path / "out", partition_by={"north": c.lat > 0})
    found = pl.scan_parquet(tmp_path / "out", hive_partitioning=True).collect()
    assert found.columns == ["time", "sst", "north"]
    assert found["north"].sum() == 48 * 6 * 20


@pytest.mark.parametrize(
    ("by", "error", "text"),
    [
        ("latt", UnknownColumnError, "Did you mean 'lat'"),
        ({"k": c.latt}, UnknownColumnError, "Did you mean 'lat'"),
        ({"k": c.lat.sum()}, PredicateError, "one value per row"),
        ({"k": pl.lit(1)}, PredicateError, "one value per row"),
        ({"k": 3}, PredicateError, "one value per row"),
        ({"lat": c.lat > 0}, QueryError, "another name"),
        ({"k": pl.concat_list("lat", "lon")}, QueryError, "no folder names"),
        (["time", "lat", "lon", "sst", "t2m"], QueryError, "Every column"),
    ],
)
def test_wrong_keys_are_refused_before_anything_is_written(url, tmp_path, by, error, text):
    with pytest.raises(error, match=text):
        rd.write_parquet(url, tmp_path / "out", partition_by=by)
    assert not list(tmp_path.iterdir())


def test_too_many_partitions_are_refused_beforehand(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_PARTITIONS", 50)
    ds = xr.Dataset({"a": (("y", "x"), np.zeros((60, 2)))}, {"y": np.arange(60.0), "x": [0, 1]})
    ds.to_zarr(tmp_path / "s.zarr", consolidated=False)
    lf = rd.scan_zarr(tmp_path / "s.zarr")
    with pytest.raises(PlanTooLargeError, match="60 values"):
        rd.write_parquet(lf, tmp_path / "out", partition_by="y")
    assert not (tmp_path / "out").exists()
    assert rd.write_parquet(lf.filter(c.y < 50), tmp_path / "out", partition_by="y").files == 50


def test_too_many_partitions_of_values_are_refused_when_they_are_found(tmp_path, monkeypatch):
    monkeypatch.setattr(module, "MAX_PARTITIONS", 50)
    ds = xr.Dataset({"a": ("y", np.arange(60.0))})
    ds.to_zarr(tmp_path / "s.zarr", consolidated=False)
    with pytest.raises(PlanTooLargeError, match="60 values"):
        rd.write_parquet(tmp_path / "s.zarr", tmp_path / "out", partition_by="a")
    assert not (tmp_path / "out" / "_SUCCESS").exists()


def test_keys_are_expressions_by_name(url):
    plan = rd.plan(url).read_plan
    assert list(partition_keys(None, plan)) == []
    assert list(partition_keys(["lat", "lon"], plan)) == ["lat", "lon"]
