"""On a real SLURM, which the tests start: jobs as workers, cancelled and preempted in mid-scan; batch scripts."""

import json
import os
import shlex
import subprocess
import sys
import threading
import time
from datetime import datetime
from pathlib import Path

import dask
import dask_jobqueue  # noqa: F401  its defaults have to be there before a test sets others for a while
import numpy as np
import polars as pl
import pytest
import shapely
import yaml
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.cluster import connect
from rainbear_dask.exceptions import ClusterError
from tests.support.oracle import expected_frame
from tests.support.stores import write_field

pytestmark = [
    pytest.mark.slurm,
    pytest.mark.filterwarnings("default"),  # workers that are killed leave their sockets to the garbage collector
]

CLUSTER = Path(__file__).parents[2] / "cluster"
c = pl.col
NUM_TASKS = 24


@pytest.fixture(scope="module", autouse=True)
def slurm():
    """Two nodes; what commands need is in the environment as long as the module runs."""
    up = subprocess.run(["bash", CLUSTER / "slurm" / "up.sh"], check=False, capture_output=True, text=True, timeout=300)
    assert up.returncode == 0, up.stderr
    exports = dict(word.split("=", 1) for word in shlex.split(up.stdout)[1:])
    with pytest.MonkeyPatch.context() as patch:
        for name, value in {**exports, "PATH": f"{Path(sys.executable).parent}:{os.environ['PATH']}"}.items():
            patch.setenv(name, value)
        yield Path(exports["SLURM_FOLDER"])
        down = subprocess.run(["bash", CLUSTER / "slurm" / "down.sh"], check=False, capture_output=True, timeout=60)
        assert down.returncode == 0, down.stderr


@pytest.fixture(autouse=True)
def configuration(slurm, tmp_path, monkeypatch):
    """The configuration that users are given, fit for this machine, for this process and those that it starts."""
    given = yaml.safe_load((CLUSTER / "slurm" / "dask.yaml").read_text())
    here = {
        "cores": 1,
        "memory": "1GiB",
        "interface": "lo",
        "local-directory": str(tmp_path / "spill"),
        "log-directory": str(slurm / "log" / "dask"),
        "scheduler-options": {"dashboard_address": ":0"},
    }
    given["jobqueue"]["slurm"] |= here
    given["distributed"] = {"deploy": {"lost-worker-timeout": "2s"}}
    (tmp_path / "dask").mkdir()
    (tmp_path / "dask" / "slurm.yaml").write_text(yaml.safe_dump(given))
    monkeypatch.setenv("DASK_CONFIG", str(tmp_path / "dask"))
    with (
        dask.config.set(dask.config.merge(dask.config.config, given)),
        dask.config.set({"rainbear-dask.task-bytes": 1, "rainbear-dask.small-plan-bytes": 0}),
    ):
        yield
    deadline = time.monotonic() + 20
    while queue() and time.monotonic() < deadline:
        time.sleep(0.2)
    assert queue() == []


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("slurm") / "field.zarr")
    write_field(path, chunks=(2, 12, 20))  # a task for each chunk, in row order
    return path


def queue() -> list[str]:
    """Jobs that are not over: id, state and node of each."""
    return command("squeue", "-h", "-o", "%i %t %N").splitlines()


def command(*words, seconds=60) -> str:
    return subprocess.run(words, check=True, capture_output=True, text=True, timeout=seconds).stdout


def wait_until(condition, seconds=60):
    deadline = time.monotonic() + seconds
    while not condition():
        assert time.monotonic() < deadline, queue()
        time.sleep(0.1)


def check(actual, url, predicate):
    """Row for row what this process gives by itself, and xarray's rows."""
    with dask.config.set({"rainbear-dask.small-plan-bytes": 2**40}):
        assert_frame_equal(actual, rd.scan_zarr(url).filter(predicate).collect())
    assert_frame_equal(actual, expected_frame(url).filter(predicate), check_row_order=False)


def num_workers(client) -> int:
    return len(client.scheduler_info(n_workers=-1)["workers"])


def test_two_jobs_give_the_same_rows_and_keep_coordinates(url):
    with connect("slurm", workers=2, timeout="60s") as client:
        client.wait_for_workers(2, timeout=60)
        assert len(queue()) == 2
        nodes = client.run(lambda: os.environ["SLURMD_NODENAME"])
        assert sorted(nodes.values()) == ["n1", "n2"]
        backend = rd.ZarrBackendSync.from_url(url)
        for predicate in (c.t2m > 280, c.lat > 0, c.t2m < 280):
            check(rd.scan_zarr(backend, client=client).filter(predicate).collect(), url, predicate)
        kept = backend.cache_stats()["workers"]
        assert set(kept) == set(nodes)
        for worker, stats in kept.items():
            print(f"{nodes[worker]}: coordinates {stats['hits']} hits, {stats['misses']} misses")
            assert stats["hits"] > stats["misses"] > 0


def mid_scan(url, client, disturb):
    """The rows of a scan that is disturbed after a third of its tasks, when others are on their way."""
    frames = []
    for number, frame in enumerate(rd.plan(url, c.t2m > 280).frames(client)):
        frames.append(frame)
        if number == NUM_TASKS // 3:
            disturb()
    assert len(frames) == NUM_TASKS
    return pl.concat(frames)


def test_a_job_that_is_cancelled_in_mid_scan_changes_nothing_and_is_replaced(url):
    with connect("slurm", workers=2, timeout="60s") as client:
        client.wait_for_workers(2, timeout=60)
        (first, *_), second = sorted(line.split() for line in queue())

        def cancel():
            command("scancel", first)
            wait_until(lambda: num_workers(client) == 1)

        check(mid_scan(url, client, cancel), url, c.t2m > 280)
        wait_until(lambda: num_workers(client) == 2)
        assert first not in {line.split()[0] for line in queue()}
        assert second in [line.split() for line in queue()]


def test_all_jobs_cancelled_in_mid_scan_only_delay_it(url):
    with connect("slurm", workers=2, timeout="60s") as client:
        client.wait_for_workers(2, timeout=60)
        cancel_all = lambda: command("scancel", *(line.split()[0] for line in queue()))  # noqa: E731
        check(mid_scan(url, client, cancel_all), url, c.t2m > 280)


def test_a_job_that_is_preempted_in_mid_scan_changes_nothing_and_comes_back(url):
    with connect("slurm", workers=2, timeout="60s") as client:
        client.wait_for_workers(2, timeout=60)

        def preempt():
            job = ["--partition=high", "--nodelist=n1", "--exclusive", "--output=/dev/null", "--wrap", "sleep 3"]
            command("sbatch", *job)
            wait_until(lambda: num_workers(client) == 1)

        check(mid_scan(url, client, preempt), url, c.t2m > 280)
        wait_until(lambda: num_workers(client) == 2)


def test_jobs_come_and_go_with_the_work(url):
    with connect("slurm", workers=(1, 2), timeout="60s") as client:
        assert len(queue()) == 1
        busy = client.map(lambda n: time.sleep(0.5) or n, range(60), pure=False)
        wait_until(lambda: num_workers(client) == 2)
        client.cancel(busy)
        wait_until(lambda: num_workers(client) == 1)


def test_what_slurm_refuses_is_said_at_once():
    with dask.config.set({"jobqueue.slurm.queue": "nowhere"}), pytest.raises(ClusterError, match="invalid partition"):
        connect("slurm")


def test_a_queue_that_is_too_long_is_an_error_that_leaves_nothing_in_it():
    held = {"jobqueue.slurm.job-extra-directives": ["--hold"]}
    with dask.config.set(held), pytest.raises(ClusterError, match="no worker after 2 s"):
        connect("slurm", timeout="2s")


def test_from_the_login_shell_to_a_file(url, tmp_path):
    output = tmp_path / "warm.parquet"
    command("rainbear-dask", "scan", url, "--where", "t2m > 290", "--cluster", "slurm", "--output", str(output))
    assert_frame_equal(pl.read_parquet(output), expected_frame(url).filter(c.t2m > 290))


def test_a_scan_as_a_batch_job(url, tmp_path, slurm):
    output = tmp_path / "rows.parquet"
    log = slurm / "log" / "batch.log"
    script = str(CLUSTER / "slurm" / "scan.sbatch")
    command("sbatch", "--wait", "--mem=1G", f"--output={log}", script, url, str(output))
    assert_frame_equal(pl.read_parquet(output), expected_frame(url))


def test_a_batch_job_that_is_cancelled_takes_its_workers_with_it(url, tmp_path, slurm, monkeypatch):
    monkeypatch.setenv("WHERE", "t2m > 280")
    held = yaml.safe_load((tmp_path / "dask" / "slurm.yaml").read_text())
    held["jobqueue"]["slurm"]["job-extra-directives"] = ["--hold"]  # so that it is still waiting for workers
    (tmp_path / "dask" / "slurm.yaml").write_text(yaml.safe_dump(held))
    log = slurm / "log" / "batch-cancelled.log"
    script = str(CLUSTER / "slurm" / "scan.sbatch")
    job = command("sbatch", "--parsable", "--mem=1G", f"--output={log}", script, url, str(tmp_path / "rows.parquet"))
    wait_until(lambda: len(queue()) == 3)
    command("scancel", "--full", job.strip())
    wait_until(lambda: queue() == [])


# ---------------------------------------------------------------------- samples, zonal statistics and exports


def track(count) -> pl.DataFrame:
    rng = np.random.default_rng(0)
    hours = pl.Series((rng.uniform(0, 47, count) * 3.6e12).astype("m8[ns]"))
    return pl.DataFrame({"lat": rng.uniform(-82, 82, count), "lon": rng.uniform(0, 340, count)}).with_columns(
        time=pl.lit(datetime(2020, 1, 31, 12)).cast(pl.Datetime("ns")) + hours
    )


AREAS = {"north": shapely.box(20, 10, 200, 80), "south": shapely.box(100, -70, 300, -10)}


def test_a_sample_a_zonal_statistic_and_an_export_on_two_jobs(url, tmp_path):
    points, expected = track(500), expected_frame(url)
    here = rd.sample(url, points, method="linear").collect()
    means = rd.zonal(url, AREAS, stats=("mean", "max")).collect()
    with connect("slurm", workers=2, timeout="60s") as client:
        client.wait_for_workers(2, timeout=60)
        assert_frame_equal(rd.sample(url, points, method="linear", client=client).collect(), here)
        assert_frame_equal(rd.zonal(url, AREAS, stats=("mean", "max"), client=client).collect(), means)
        rd.write_parquet(rd.scan_zarr(url, client=client), tmp_path / "rows", client=client)
        assert len({*client.run(lambda: os.environ["SLURMD_NODENAME"]).values()}) == 2
    found = pl.scan_parquet(tmp_path / "rows", hive_partitioning=True).collect()
    assert_frame_equal(found, expected, check_row_order=False)


def test_a_job_that_is_cancelled_changes_no_sample_and_no_zonal_statistic(url):
    points = track(500)
    here = rd.sample(url, points, method="linear").collect()
    means = rd.zonal(url, AREAS).collect()
    with connect("slurm", workers=2, timeout="60s") as client:
        client.wait_for_workers(2, timeout=60)
        (job, *_) = queue()[0].split()
        gone = threading.Timer(0.2, command, ["scancel", job])
        gone.start()
        for _ in range(3):
            assert_frame_equal(rd.sample(url, points, method="linear", client=client).collect(), here)
            assert_frame_equal(rd.zonal(url, AREAS, client=client).collect(), means)
        gone.join()


def test_sample_zonal_and_export_as_a_batch_job(url, tmp_path, slurm):
    points, log = track(50), slurm / "log" / "batch-points.log"
    points.write_parquet(tmp_path / "points.parquet")
    zones = {
        "type": "FeatureCollection",
        "features": [
            {"type": "Feature", "properties": {"id": name}, "geometry": shapely.geometry.mapping(area)}
            for name, area in AREAS.items()
        ],
    }
    (tmp_path / "zones.geojson").write_text(json.dumps(zones))
    script = tmp_path / "job.sbatch"
    lines = [
        ["sample", url, "points.parquet", "--method", "linear", "--output", "points-out.parquet"],
        ["zonal", url, "zones.geojson", "--stats", "mean,max", "--output", "zones-out.parquet"],
        ["export", url, "rows"],
    ]
    commands = [shlex.join(["rainbear-dask", *words, "--cluster", "slurm", "--workers", "2"]) for words in lines]
    script.write_text("\n".join(["#!/bin/bash", "set -e", f"cd {tmp_path}", *commands]))
    command("sbatch", "--wait", "--mem=1G", f"--output={log}", str(script), seconds=250)
    assert_frame_equal(
        pl.read_parquet(tmp_path / "points-out.parquet"), rd.sample(url, points, method="linear").collect()
    )
    means = rd.zonal(url, str(tmp_path / "zones.geojson"), stats=("mean", "max")).collect()
    assert_frame_equal(pl.read_parquet(tmp_path / "zones-out.parquet"), means)
    found = pl.scan_parquet(tmp_path / "rows", hive_partitioning=True).collect()
    assert_frame_equal(found, expected_frame(url), check_row_order=False)


def test_jobs_collect_statistics_that_prune_here(url):
    """Each chunk is read once by the jobs; afterwards this process knows which chunks hold a rare value."""
    with connect("slurm", workers=2, timeout="60s") as client:
        found = rd.analyze(url, "t2m", client=client)
        assert found.read == NUM_TASKS
        assert rd.analyze(url, "t2m", client=client).read == 0
    values = found.frames["t2m"]
    rare = values["max"].sort(descending=True)[1]
    query = rd.scan_zarr(url).filter(c.t2m > rare)
    assert rd.explain(query.select("t2m")).chunks_kept == 1
    check(query.collect(), url, c.t2m > rare)


def test_the_command_collects_statistics_in_a_batch_script(url, tmp_path):
    script = tmp_path / "job.sh"
    script.write_text(
        f"#!/bin/sh\nrainbear-dask analyze {shlex.quote(url)} --variables sst --place {tmp_path}/beside\n"
    )
    command("sbatch", "--wait", f"--output={tmp_path}/log", str(script))
    assert f"{NUM_TASKS} chunks, {NUM_TASKS} of them read now" in (tmp_path / "log").read_text()
