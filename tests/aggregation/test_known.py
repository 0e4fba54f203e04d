"""Aggregates that statistics answer: the results of Polars, and no chunk."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal
from zarr.storage import LocalStore

import rainbear_dask as rd

c = pl.col
NAN = np.nan


@pytest.fixture
def path(tmp_path):
    data = xr.Dataset(
        {
            "f": (("y", "x"), np.array([[1, NAN, -3], [NAN, NAN, NAN], [5, 6, -0.0]], "f4")),
            "with_nan": (("y", "x"), np.array([[1, NAN, -3], [NAN, NAN, NAN], [5, 6, 7]])),
            "only_nan": (("y", "x"), np.full((3, 3), NAN)),
            "i": (("y", "x"), np.arange(9, dtype="u2").reshape(3, 3)),
            "time": (("y", "x"), np.arange(9).reshape(3, 3).astype("M8[h]").astype("M8[ns]")),
            "flag": (("y", "x"), np.arange(9).reshape(3, 3) > 4),
            "text": (("y", "x"), np.full((3, 3), "a", dtype=object)),
            "part": ("x", np.array([1.0, NAN, 3.0])),
        }
    )
    encoding = {name: {"chunks": (1, 3)} for name in data if name != "part"}
    for name in ("with_nan", "only_nan"):
        encoding[name]["_FillValue"] = None
    data.to_zarr(tmp_path / "a.zarr", encoding=encoding, zarr_format=3, consolidated=False)
    return tmp_path / "a.zarr"


@pytest.fixture
def no_reads(monkeypatch):
    """Reading a chunk is an error."""

    def fail(*_, **__):
        raise AssertionError("a chunk is read")

    monkeypatch.setattr("rainbear_dask.engine.source.run_bunches", fail)
    monkeypatch.setattr("rainbear_dask.query.io_source.iter_frames", fail)


NUMBERS = ["f", "with_nan", "only_nan", "i", "time", "part"]


def test_statistics_answer_like_polars(path, request):
    table = rd.scan_zarr(path)
    asked = [
        *(getattr(c(name), kind)().alias(f"{name}_{kind}") for name in NUMBERS for kind in ("min", "max", "count")),
        *(c(name).null_count().alias(f"{name}_nulls") for name in [*NUMBERS, "flag", "text"]),
        (c.f.max() - c.f.min()).alias("range"),
        pl.len().alias("rows"),
    ]
    expected = table.collect().select(asked)
    rd.analyze(path)
    request.getfixturevalue("no_reads")
    query = rd.scan_zarr(path).select(asked)
    assert_frame_equal(rd.collect(query), expected)
    assert "statistics of 20" in rd.explain(query)
    assert_frame_equal(query.collect(engine=rd.Engine()), expected)


@pytest.mark.parametrize(
    "ask",
    [
        lambda table: table.select(c.f.sum()),
        lambda table: table.select((c.f + 1).max()),
        lambda table: table.filter(c.y > 0).select(c.f.max()),
        lambda table: table.filter(c.i > 3).select(c.f.max()),
        lambda table: table.group_by("y").agg(c.f.max()),
        lambda table: table.head(4).select(c.f.max()),
        lambda table: table.select(c.f.filter(c.i < 3).max()),
        lambda table: table.select(c.x.max()),
        lambda table: table.select(c.flag.max()),
    ],
    ids=["sum", "shifted", "coordinates", "values", "keys", "head", "condition", "coordinate", "flag"],
)
def test_other_aggregates_read_chunks(path, ask):
    expected = rd.collect(ask(rd.scan_zarr(path, statistics=False)))
    rd.analyze(path)
    query = ask(rd.scan_zarr(path))
    assert_frame_equal(rd.collect(query), expected, check_row_order=False)
    assert "answer it" not in rd.explain(query)


def test_a_changed_chunk_is_read(path):
    rd.analyze(path)
    zarr.open_array(LocalStore(path), path="f", mode="r+")[1, 1] = 99
    query = rd.scan_zarr(path).select(c.f.max())
    assert rd.collect(query).item() == 99
    assert "answer it" not in rd.explain(query)


def test_bounds_of_a_scan_allow_an_answer_that_reads_nothing(path, no_reads):
    rd.analyze(path)
    assert rd.collect(rd.scan_zarr(path, max_chunks_to_read=0).select(c.f.max())).item() == 6


def test_an_unknown_chunk_is_read(tmp_path):
    values = np.array(["a", "z" * 300, "b", "c"], dtype=object)
    xr.Dataset({"a": ("x", values)}).to_zarr(
        tmp_path / "a.zarr", encoding={"a": {"chunks": (2,)}}, zarr_format=3, consolidated=False
    )
    rd.analyze(tmp_path / "a.zarr")
    query = rd.scan_zarr(tmp_path / "a.zarr").select(c.a.null_count())
    assert "answer it" not in rd.explain(query)
    assert rd.collect(query).item() == 0
