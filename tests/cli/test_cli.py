"""The command line: what it prints and writes, where to, and with which exit code."""

import json
import os
import pty
import re
import shlex
import signal
import subprocess
import sys
import threading
import time
from contextlib import suppress
from functools import partial
from http.server import SimpleHTTPRequestHandler, ThreadingHTTPServer
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.cli import parser as cli
from rainbear_dask.cli.parser import main
from tests.support.oracle import expected_frame
from tests.support.stores import write_field

COMMAND = str(Path(sys.executable).with_name("rainbear-dask"))
c = pl.col


def run(*arguments, **options):
    """The command in a process of its own, as a user starts it."""
    return subprocess.run([COMMAND, *arguments], check=False, capture_output=True, text=True, timeout=120, **options)


# ---------------------------------------------------------------------- questions


@pytest.mark.parametrize(
    ("where", "predicate"),
    [
        ("lat > 45", c.lat > 45),
        ("time >= '2020-02-01'", c.time >= pl.datetime(2020, 2, 1)),
        (
            "time BETWEEN '2020-01-31T20:00' AND '2020-02-01'",
            c.time.is_between(pl.datetime(2020, 1, 31, 20), pl.date(2020, 2, 1)),
        ),
        ("EXTRACT(HOUR FROM time) IN (6, 18) OR t2m > 300", c.time.dt.hour().is_in([6, 18]) | (c.t2m > 300)),
        ('"t2m" - 273.15 < 0 AND NOT lon < 90 -- freezing', (c.t2m - 273.15 < 0) & ~(c.lon < 90)),
        ("t2m > AVG(t2m)", c.t2m > c.t2m.mean()),
    ],
)
def test_a_condition_is_sql_and_the_rows_are_those_of_polars(url, tmp_path, where, predicate):
    output = tmp_path / "rows.parquet"
    assert main(["scan", url, "--where", where, "--output", str(output)]) == 0
    assert_frame_equal(pl.read_parquet(output), expected_frame(url).filter(predicate))


@pytest.mark.parametrize("suffix", ["parquet", "pq", "csv", "ipc", "arrow", "feather"])
def test_the_suffix_says_what_is_written(url, tmp_path, suffix):
    output = tmp_path / f"rows.{suffix}"
    assert main(["scan", url, "--select", "t2m,lat", "--head", "7", "--output", str(output)]) == 0
    read = {"csv": pl.read_csv, "parquet": pl.read_parquet, "pq": pl.read_parquet}.get(suffix, pl.read_ipc)
    expected = expected_frame(url).select("t2m", "lat").head(7)
    assert_frame_equal(read(output), expected if suffix != "csv" else pl.read_csv(expected.write_csv().encode()))
    assert [path.name for path in tmp_path.iterdir()] == [output.name]


def test_standard_output_is_csv_and_nothing_else(url):
    done = run("scan", url, "--where", "t2m > 310")
    assert done.stdout == expected_frame(url).filter(c.t2m > 310).write_csv()
    assert (done.returncode, done.stderr) == (0, "")


def test_other_formats_go_down_a_pipe_too(url):
    done = subprocess.run([COMMAND, "scan", url, "--format", "parquet"], check=False, capture_output=True, timeout=120)
    assert_frame_equal(pl.read_parquet(done.stdout), expected_frame(url))


ZONES = {"type": "FeatureCollection", "features": []}
for name, west in (("west", 0), ("east", 90)):
    ring = [[west, -60], [west + 80, -60], [west + 80, 60], [west, 60], [west, -60]]
    shape = {"type": "Polygon", "coordinates": [ring]}
    ZONES["features"].append({"type": "Feature", "properties": {"name": name}, "geometry": shape})


def test_zonal_statistics_are_those_of_python(url, tmp_path, capsys):
    zones = tmp_path / "zones.geojson"
    zones.write_text(json.dumps(ZONES))
    options = [
        "--by",
        "name",
        "--stats",
        "mean,quantile(q=0.9)",
        "--columns",
        "t2m",
        "--lat",
        "lat",
        "--weights",
        "area",
    ]
    output = tmp_path / "out.parquet"
    assert main(["zonal", url, str(zones), *options, "--where", "name = 'east'", "--output", str(output)]) == 0
    stats = ("mean", "quantile(q=0.9)")
    expected = rd.zonal(url, ZONES, "t2m", stats=stats, by="name", weights="area").filter(name="east").collect()
    assert pl.read_parquet(output).equals(expected)
    assert expected.height > 0
    assert f"wrote {expected.height:,} rows to {output} (" in capsys.readouterr().err
    assert main(["zonal", url, str(tmp_path / "no-such.geojson")]) == 2
    assert "There is no file" in capsys.readouterr().err
    assert main(["zonal", url, str(zones), "--stats", "maen"]) == 2
    assert "Did you mean 'mean'?" in capsys.readouterr().err


def test_info_shows_columns_and_chunks(url, capsys):
    assert main(["info", url]) == 0
    printed = re.sub(" +", " ", capsys.readouterr().out)
    assert "11,520 rows" in printed
    assert "t2m Float32 data time: 48, lat: 12, lon: 20 24 x 4 x 5" in printed


def test_a_plan_reads_no_data(url, capsys):
    assert main(["plan", url, "--where", "lat > 45", "--select", "t2m", "--cluster", "slurm"]) == 0
    assert "8 of 24" in capsys.readouterr().out


def test_parts_of_a_store_are_named_as_in_python(tmp_path, capsys):
    data = xr.Dataset({"a": ("x", [1.0, 2.0]), "b": (("x", "y"), [[1.0, 2.0, 3.0]] * 2)})
    data.to_zarr(tmp_path / "tree.zarr", group="model/run", consolidated=False)
    assert main(["scan", str(tmp_path / "tree.zarr"), "--group", "model/run", "--variables", "a"]) == 0
    assert capsys.readouterr().out == "x,a\n0,1.0\n1,2.0\n"


def test_storage_options_reach_the_file_system(url, capsys):
    class WithKey(SimpleHTTPRequestHandler):
        """Serves a folder to who has the key."""

        def do_GET(self):
            """Answer one request."""
            return super().do_GET() if self.headers["X-Key"] == "hush" else self.send_error(401)

        do_HEAD = do_GET  # noqa: N815

        def log_message(self, *_):
            """Say nothing."""

    with ThreadingHTTPServer(("127.0.0.1", 0), partial(WithKey, directory=url)) as server:
        threading.Thread(target=server.serve_forever, daemon=True).start()
        address = f"http://127.0.0.1:{server.server_port}"
        zarr.consolidate_metadata(url)
        assert main(["info", address]) == 3
        assert main(["info", address, "--option", "client_kwargs.headers.X-Key=hush"]) == 0
        server.shutdown()
    assert "11,520 rows" in capsys.readouterr().out


@pytest.mark.cluster
def test_a_cluster_gives_the_same_rows_and_a_bar(url, tmp_path):
    output = tmp_path / "rows.parquet"
    options = ["--cluster", "local", "--workers", "2", "--progress", "--output", str(output)]
    done = run("scan", url, "--where", "t2m > 290", *options)
    assert done.returncode == 0, done.stderr
    assert "100%" in done.stderr
    assert_frame_equal(pl.read_parquet(output), expected_frame(url).filter(c.t2m > 290))


def test_many_rows_are_written_in_little_memory(tmp_path):
    """Of four times the rows, the peak grows by less than a quarter of what they take."""
    environment = {
        **os.environ,
        "DASK_RAINBEAR_DASK__IN_FLIGHT_BYTES": "32MiB",
        "DASK_RAINBEAR_DASK__TASK_BYTES": "4MiB",
        "DASK_RAINBEAR_DASK__THREADS": "2",
        "POLARS_MAX_THREADS": "2",
    }
    peaks = []
    for hours in (100, 400):
        url, shape = tmp_path / f"{hours}.zarr", (hours, 100, 400)
        data = xr.Dataset({"v": (("time", "y", "x"), np.random.default_rng(0).random(shape, dtype="f4"))})
        data.to_zarr(url, zarr_format=3, consolidated=False, encoding={"v": {"chunks": (5, 100, 400)}})
        with subprocess.Popen(
            [COMMAND, "scan", str(url), "--output", str(tmp_path / "rows.parquet")], env=environment
        ) as process:
            _, status, used = os.wait4(process.pid, 0)
            process.returncode = os.waitstatus_to_exitcode(status)
        assert process.returncode == 0
        assert pl.scan_parquet(tmp_path / "rows.parquet").select(pl.len()).collect().item() == hours * 100 * 400
        peaks.append(used.ru_maxrss * 1024)
    more_rows = 300 * 100 * 400
    assert peaks[1] - peaks[0] < more_rows * (3 * 8 + 4) / 4


# ---------------------------------------------------------------------- what goes wrong


@pytest.mark.parametrize(
    ("arguments", "code", "words"),
    [
        (["scan", "{url}", "--where", "t2n > 3"], 2, "Did you mean 't2m'"),
        (["scan", "{url}", "--select", "t2n"], 2, "Did you mean 't2m'"),
        (["scan", "{url}", "--where", "t2m >"], 2, "--where 't2m >'"),
        (["scan", "{url}", "--where", "t2m"], 2, "Boolean"),
        (["scan", "{url}", "--where", "t2m > '2020'"], 2, "cannot compare string"),
        (["scan", "{url}", "--where", "lat > 1; SELECT 1"], 2, "--where"),
        (["scan", "{url}", "--where", "lat > 1, lat < 3"], 2, "--where"),
        (["scan", "{url}", "--where", "lat > 1) OR (lat < 3"], 2, "--where"),
        (["scan", "{url}", "--output", "rows.xyz"], 2, "--format"),
        (["scan", "{url}", "--output", "damaged.zarr", "--format", "csv"], 2, "is a folder"),
        (["scan", "{url}", "--output", "/nowhere/rows.csv"], 2, "Create /nowhere first"),
        (["info", "{url}/nothing"], 3, "No Zarr store at"),
        (["scan", "{damaged}", "--output", "rows.csv"], 3, "'t2m'"),
        (["scan", "{url}", "--max-chunks", "5"], 4, "24 chunks needed, limit is 5"),
        (["scan", "{url}", "--max-rows", "5"], 4, "limit is 5"),
        (["scan", "{url}", "--max-bytes", "5"], 4, "limit is 5"),
        (["scan", "{url}", "--cluster", "nowhere"], 5, "slurm"),
        (["scan", "{url}", "--cluster", "tcp://127.0.0.1:1", "--wait", "1s"], 5, "tcp://127.0.0.1:1"),
        (["scan", "{url}", "--cluster", "local", "--workers", "0"], 5, "at least 1"),
        (["scan", "{url}", "--cluster", "local", "--wait", "long"], 5, "timeout is 'long'"),
        (["scan", "{url}", "--workers", "2"], 2, "--cluster local"),
    ],
)
def test_what_is_wrong_is_one_line_and_an_exit_code(url, tmp_path, monkeypatch, capsys, arguments, code, words):
    monkeypatch.chdir(tmp_path)
    damaged = tmp_path / "damaged.zarr"
    write_field(str(damaged))
    (damaged / "t2m" / "c" / "1" / "0" / "0").write_bytes(b"not a chunk")
    assert main([text.format(url=url, damaged=damaged) for text in arguments]) == code
    out, err = capsys.readouterr()
    assert out == ""
    assert err.startswith("rainbear-dask: ")
    assert err.count("\n") == 1
    assert words in err
    assert [path.name for path in tmp_path.iterdir()] == ["damaged.zarr"]


@pytest.mark.parametrize(
    "arguments",
    [
        [],
        ["read"],
        ["scan"],
        ["scan", "x", "--option", "anon"],
        ["scan", "x", "--workers", "many"],
        ["scan", "x", "--head", "q"],
        ["scan", "x", "--head", "-3"],
        ["scan", "x", "--max-rows", "-1"],
        ["sample", "x"],
        ["sample", "x", "p.csv", "--tolerance", "lat=far"],
        ["sample", "x", "p.csv", "--head", "3"],
        ["scan", "x", "--wher", "a > 1"],
    ],
)
def test_a_wrong_command_line_shows_how_it_is_used(arguments, capsys):
    with pytest.raises(SystemExit) as info:
        main(arguments)
    assert info.value.code == 2
    assert capsys.readouterr().err.startswith("usage: rainbear-dask")


@pytest.mark.parametrize("command", [[], ["info"], ["plan"], ["sample"], ["scan"], ["zonal"]])
def test_help_has_examples_and_exit_codes(command, capsys):
    with pytest.raises(SystemExit) as info:
        main([*command, "--help"])
    assert info.value.code == 0
    printed = capsys.readouterr().out
    assert "examples:" in printed
    assert "exit codes:" in printed


def test_the_version_is_said_with_those_of_what_it_uses():
    done = run("--version")
    assert (done.returncode, done.stdout) == (0, f"{rd.print_extension_info()}\n")


def test_the_examples_of_the_help_are_commands():
    lines = [line.strip() for line in cli._parser().epilog.splitlines() if line.strip().startswith("rainbear-dask")]
    assert len(lines) == 17
    for line in lines:
        cli._parser().parse_args(shlex.split(line)[1:])


def test_where_there_is_no_kubernetes_a_line_says_it_and_nothing_follows_at_exit(url, tmp_path):
    kept = {name: value for name, value in os.environ.items() if not name.startswith("KUBE")}
    done = run("scan", url, "--cluster", "kubernetes", env=kept | {"HOME": str(tmp_path)})
    assert (done.returncode, done.stdout) == (5, "")
    assert done.stderr.startswith("rainbear-dask: Kubernetes starts no cluster: ")
    assert done.stderr.count("\n") == 1, done.stderr


def test_a_warning_is_a_line_on_standard_error(tmp_path):
    path = tmp_path / "odd.zarr"
    xr.Dataset({"a": ("x", [1.0, 2.0]), "odd": ("x", [1j, 2j])}).to_zarr(path, zarr_format=2, consolidated=False)
    done = run("scan", str(path))
    assert (done.returncode, done.stdout) == (0, "x,a\n0,1.0\n1,2.0\n")
    assert done.stderr.startswith("rainbear-dask: warning: array 'odd'")
    assert done.stderr.count("\n") == 1


def test_a_secret_in_the_address_is_not_told(capsys):
    assert main(["scan", "http://user:hush@127.0.0.1:1/x.zarr?token=quiet"]) == 3
    error = capsys.readouterr().err
    assert "127.0.0.1:1/x.zarr" in error
    assert "hush" not in error
    assert "quiet" not in error


def test_a_reader_that_has_seen_enough_ends_it_quietly(tmp_path):
    url = tmp_path / "long.zarr"
    xr.Dataset({"v": (("y", "x"), np.zeros((2000, 1000)))}).to_zarr(url, consolidated=False)
    with subprocess.Popen([COMMAND, "scan", str(url)], stdout=subprocess.PIPE, stderr=subprocess.PIPE) as process:
        assert process.stdout.readline() == b"y,x,v\n"
        process.stdout.close()
        assert process.stderr.read() == b""
        assert process.wait(60) == 128 + signal.SIGPIPE


@pytest.mark.cluster
@pytest.mark.parametrize("number", [signal.SIGINT, signal.SIGTERM])
def test_a_signal_ends_it_with_its_cluster_and_leaves_no_file(tmp_path, number):
    url = tmp_path / "long.zarr"
    data = xr.Dataset({"v": (("y", "x"), np.random.default_rng(0).random((4000, 2000)))})
    data.to_zarr(url, consolidated=False, encoding={"v": {"chunks": (10, 2000)}})
    output = tmp_path / "rows.csv"
    command = [COMMAND, "scan", str(url), "--cluster", "local", "--workers", "2", "--output", str(output)]
    with subprocess.Popen(command, stderr=subprocess.PIPE, text=True, start_new_session=True) as process:
        while not list(tmp_path.glob(".rows.csv.*")) and process.poll() is None:
            time.sleep(0.02)
        process.send_signal(number)
        error = process.communicate(timeout=60)[1]
    assert process.returncode == 128 + number, error
    assert "Traceback" not in error
    assert [path.name for path in tmp_path.iterdir()] == ["long.zarr"]
    deadline = time.monotonic() + 20
    while session_of(process.pid) and time.monotonic() < deadline:
        time.sleep(0.1)
    assert session_of(process.pid) == []


def session_of(leader: int) -> list[str]:
    """Processes of a session that still run."""
    found = subprocess.run(
        ["ps", "-o", "stat=,args=", "-s", str(leader)], check=False, capture_output=True, text=True
    ).stdout
    return [line for line in found.splitlines() if not line.startswith("Z")]


def test_info_shows_units_names_and_ranges_also_as_json(tmp_path, capsys):
    path = str(tmp_path / "s.zarr")
    rd.open_sample(path)
    assert main(["info", path]) == 0
    first, heading, *lines = capsys.readouterr().out.splitlines()
    assert first == f"{path}: 622,080 rows"
    assert " ".join(heading.split()) == "column type role dimensions chunks units long name range"
    assert "-88.75° to 88.75°, step 2.5°" in lines[1]
    assert "Datetime[ns]" in lines[0]
    assert "degC" in lines[3]
    assert "sea surface temperature" in lines[3]
    assert main(["info", path, "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    assert (found["store"], found["rows"]) == (path, 622_080)
    assert found["sizes"] == {"time": 60, "latitude": 72, "longitude": 144}
    assert found["columns"][3] == {
        "name": "sst",
        "type": "Float32",
        "role": "data",
        "dimensions": ["time", "latitude", "longitude"],
        "chunks": [12, 24, 48],
        "shards": None,
        "units": "degC",
        "long_name": "sea surface temperature",
    }


def test_a_plan_as_json_has_the_attributes_of_the_explanation(url, capsys):
    assert main(["plan", url, "--where", "lat > 45", "--json"]) == 0
    found = json.loads(capsys.readouterr().out)
    expected = rd.explain(rd.scan_zarr(url).filter(c.lat > 45))
    assert found.pop("stores") == [url]
    assert found.pop("kept_by_polars") == []
    assert found.pop("split") == []
    assert found == {name: getattr(expected, name) for name in found}
    assert found["chunks_kept"] < found["chunks_total"]


@pytest.mark.parametrize("suffix", ["parquet", "csv"])
def test_the_command_says_what_it_wrote(url, tmp_path, capsys, suffix):
    output = tmp_path / f"rows.{suffix}"
    assert main(["scan", url, "--where", "lat > 45 AND t2m > 280", "--output", str(output)]) == 0
    out, err = capsys.readouterr()
    rows = expected_frame(url).filter(c.lat > 45, c.t2m > 280).height
    assert out == ""
    assert re.fullmatch(rf"rainbear-dask: wrote {rows:,} rows to {output} \(\S+ k?B\) in \S+ s\n", err)


@pytest.mark.parametrize(
    ("arguments", "count"), [([], 1000), (["--head", "1200"], 1200), (["--where", "lat > 80"], None)]
)
def test_a_terminal_shows_a_thousand_rows_and_says_so(url, arguments, count):
    parent, child = pty.openpty()
    done = subprocess.Popen(
        [COMMAND, "scan", url, "--select", "t2m", *arguments], stdout=child, stderr=subprocess.PIPE, text=True
    )
    os.close(child)
    shown = b""
    with suppress(OSError):  # the end of a terminal
        while part := os.read(parent, 2**16):
            shown += part
    os.close(parent)
    _, err = done.communicate(timeout=60)
    assert done.returncode == 0
    expected = count or expected_frame(url).filter(c.lat > 80).height
    assert shown.count(b"\n") == expected + 1
    assert ("a terminal shows 1,000 rows at most. Add --head N" in err) is (count == 1000)
