"""The commands that write: `export`, `write-zarr` and `write-icechunk`."""

import icechunk
import polars as pl
import pytest
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.cli.parser import main

c = pl.col


def test_export_writes_a_folder_and_says_so(url, tmp_path, capsys):
    out = str(tmp_path / "out")
    arguments = [
        "export",
        url,
        out,
        "--where",
        "t2m > 280",
        "--by",
        "month=MONTH(time)",
        "--by",
        "lat",
        "--geo",
        "lon,lat",
    ]
    assert main([*arguments, "--row-group-rows", "50", "--compression", "lz4"]) == 0
    said = capsys.readouterr().out
    found = pl.scan_parquet(out, hive_partitioning=True).collect()
    expected = rd.scan_zarr(url).filter(c.t2m > 280).with_columns(month=c.time.dt.month()).collect()
    names, places = expected.columns, ["time", "lat", "lon"]
    assert_frame_equal(found.select(names).sort(places), expected.sort(places), check_dtypes=False)
    assert said.startswith(f"{out}: {expected.height:,} rows in ")
    assert main([*arguments, "--no-resume", "--row-group-rows", "50", "--compression", "lz4"]) == 1
    assert "resume=True" in capsys.readouterr().err


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["--by", "year=YEAR(time"], 2, "--by 'year=YEAR(time'"),
        (["--by", "latt"], 2, "Did you mean 'lat'"),
        (["--compression", "zip"], 2, "zstd"),
        (["--max-chunks", "3"], 4, "limit is 3"),
        (["--head", "3", "--where", "t2m > 280"], 2, "sink_parquet"),
    ],
)
def test_export_reports_mistakes_in_one_line(url, tmp_path, capsys, arguments, code, text):
    assert main(["export", url, str(tmp_path / "out"), *arguments]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert text in said
    assert not (tmp_path / "out").exists()


def test_export_shows_no_secret_of_its_target(url, capsys):
    options = ["--target-option", "key=a-public-name", "--target-option", "secret=very-secret"]
    assert main(["export", url, "s3://127.0.0.1:1/out", *options]) != 0
    assert "very-secret" not in capsys.readouterr().err


def test_write_zarr_writes_and_appends(url, tmp_path, capsys):
    target = str(tmp_path / "t.zarr")
    january = ["--where", "DAY(time) = 31", "--chunks", "time=5,lat=3", "--shards", "time=10", "--dims", "lat,time,lon"]
    assert main(["write-zarr", url, target, *january]) == 0
    assert zarr.open_group(target)["t2m"].shards == (3, 10, 5)
    assert main(["write-zarr", url, target, "--where", "DAY(time) < 31", "--append-dim", "time"]) == 0
    expected = rd.scan_zarr(url).collect()
    assert_frame_equal(
        rd.scan_zarr(target)
        .collect()
        .select(expected.columns)
        .sort("time", maintain_order=True)
        .sort("time", "lat", "lon"),
        expected.sort("time", "lat", "lon"),
    )
    assert capsys.readouterr() == ("", "")


def test_write_icechunk_prints_the_snapshot(url, tmp_path, capsys):
    icechunk.set_logs_filter("icechunk=error")
    repository = str(tmp_path / "repository")
    assert main(["write-icechunk", url, repository, "--message", "all", "--where", "lat > 0"]) == 0
    snapshot = capsys.readouterr().out.strip()
    found = icechunk.Repository.open(icechunk.local_filesystem_storage(repository))
    assert found.lookup_branch("main") == snapshot
    store = found.readonly_session("main").store
    assert_frame_equal(rd.scan_zarr(store).collect(), rd.scan_zarr(url).filter(c.lat > 0).collect())


@pytest.mark.parametrize(
    ("arguments", "code", "text"),
    [
        (["write-zarr", "{url}", "{url}"], 1, "mode='w'"),
        (["write-zarr", "{url}", "{url}", "--mode", "r+"], 2, "while it is read"),
        (["write-zarr", "{url}", "{out}", "--append-dim", "x", "--mode", "r+"], 2, "exclude each other"),
        (["write-zarr", "{url}", "{out}", "--dims", "lat"], 2, "time, lat, lon"),
        (["write-zarr", "{url}", "http://x.org/y.zarr"], 2, "http://"),
        (["write-icechunk", "{url}", "https://x.org/y", "--message", "m"], 2, "https://"),
        (["write-icechunk", "{url}", "{out}", "--message", "m", "--branch", "no"], 3, "'no'"),
    ],
)
def test_writing_reports_mistakes_in_one_line(url, tmp_path, capsys, arguments, code, text):
    out = str(tmp_path / "out")
    assert main([each.format(url=url, out=out) for each in arguments]) == code
    said = capsys.readouterr().err
    assert said.count("\n") == 1
    assert text in said
