"""The command that writes the values at the points of a file."""

from datetime import timedelta
from pathlib import Path

import numpy as np
import polars as pl
import pytest
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.cli.parser import _parser, main


@pytest.fixture
def points(tmp_path, monkeypatch) -> pl.DataFrame:
    monkeypatch.chdir(tmp_path)
    rng = np.random.default_rng(0)
    hours = pl.Series([timedelta(hours=float(hour)) for hour in rng.uniform(0, 60, 50)])
    frame = pl.DataFrame(
        {"ship": range(50), "when": hours, "lat": rng.uniform(-80, 80, 50), "x": rng.uniform(0, 340, 50)}
    )
    frame = frame.with_columns(when=pl.datetime(2020, 1, 31, 12) + pl.col("when"))
    frame.write_parquet("points.parquet")
    frame.write_csv("points.csv")
    frame.write_ipc("points.arrow")
    return frame


ON = {"time": "when", "lat": "lat", "lon": "x"}


@pytest.mark.parametrize("suffix", ["parquet", "csv", "arrow"])
def test_the_rows_are_those_of_the_function(url, points, suffix, capsys):
    arguments = ["sample", url, f"points.{suffix}", "--on", "time=when,lat,lon=x", "--output", "out.parquet"]
    more = [
        "--method",
        "linear",
        "--tolerance",
        "time=90min,lat=3",
        "--coordinates",
        "--distance",
        "far",
        "--select",
        "t2m",
    ]
    assert main([*arguments, *more, "--where", "lat > -40 AND t2m < 290"]) == 0
    assert capsys.readouterr().err.startswith("rainbear-dask: wrote 50 rows to out.parquet (")
    scan = rd.scan_zarr(url).filter(pl.col("lat") > -40, pl.col("t2m") < 290).select("t2m")
    limits = {"time": timedelta(minutes=90), "lat": 3}
    expected = rd.sample(
        scan, points, ON, method="linear", tolerance=limits, coordinates=True, distance="far"
    ).collect()
    assert_frame_equal(pl.read_parquet("out.parquet").with_columns(pl.col("when").cast(points["when"].dtype)), expected)
    assert 0 < expected["t2m"].null_count() < 50


def test_methods_and_limits_for_each_dimension():
    arguments = [
        "sample",
        "a.zarr",
        "b.csv",
        "--method",
        "time=nearest,lat=linear",
        "--tolerance",
        "time=6h,lat=1e-3,lon=2",
    ]
    args = _parser().parse_args(arguments)
    assert args.method == {"time": "nearest", "lat": "linear"}
    assert args.tolerance == {"time": timedelta(hours=6), "lat": 1e-3, "lon": 2.0}
    assert args.on is None


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["nothing.parquet"], 2, "no file of points"),
        (["points.txt"], 2, "names no format of points"),
        (["ships.csv"], 2, "No column of the points"),
        (["points.csv", "--on", "latt=lat"], 2, "Did you mean 'lat'"),
        (["points.csv", "--on", "lat=latt"], 2, "Did you mean 'lat'"),
        (["points.csv", "--on", "lat", "--method", "lineer"], 2, "Did you mean 'linear'"),
        (["points.csv", "--on", "lat", "--max-chunks", "5"], 4, "max_chunks_to_read exceeded"),
        (["points.csv", "--on", "lat", "--max-chunks", "5", "--where", "lon > 90"], 4, "max_chunks_to_read exceeded"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(url, points, capsys, arguments, code, words):
    points.select("ship").write_csv("ships.csv")
    assert main(["sample", url, *arguments, "--output", "out.csv"]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rainbear-dask: ")
    assert err.count("\n") == 1
    assert words in err
    assert not Path("out.csv").exists()
