"""Scheduler, workers and store on hosts of their own, which are network namespaces: a link that is cut, a store that is far."""

import os
import subprocess
import sys
from pathlib import Path

import pytest

pytestmark = pytest.mark.hosts

HOSTS = Path(__file__).parents[2] / "cluster" / "hosts"
DASK = str(Path(sys.executable).with_name("dask"))
WORKER_TTL, TCP_TIMEOUT = 8, 12
DOCUMENTED_SECONDS = 60  # in cluster/README.md, with these settings
SETTINGS = {
    "DASK_DISTRIBUTED__SCHEDULER__WORKER_TTL": f"{WORKER_TTL}s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__TCP": f"{TCP_TIMEOUT}s",
    "DASK_DISTRIBUTED__COMM__TIMEOUTS__CONNECT": "5s",
    "DASK_RAINBEAR_DASK__TASK_BYTES": "1",
    "PYTHONPATH": str(Path(__file__).parents[2]),
}


def hosts(*words):
    done = subprocess.run(["bash", HOSTS / "hosts.sh", *words], check=False, capture_output=True, text=True)
    assert done.returncode == 0, done.stderr


@pytest.fixture(autouse=True)
def four_hosts():
    """10.99.0.10 to .13; what starts on them ends with them."""
    hosts("up", "4")
    started = []

    def start(host, *words, **options):
        place = ["ip", "netns", "exec", f"rainbear-{host}"]
        process = subprocess.Popen([*place, *map(str, words)], env=os.environ | SETTINGS, text=True, **options)
        started.append(process)
        return process

    yield start
    for process in reversed(started):
        process.terminate()
    for process in started:
        try:
            process.communicate(timeout=5)
        except subprocess.TimeoutExpired:
            process.kill()
            process.communicate()
    hosts("down")


@pytest.fixture
def dask_hosts(four_hosts, tmp_path):
    """A scheduler on h0, and workers on h1 and h2."""
    quiet = {"stdout": subprocess.DEVNULL, "stderr": subprocess.DEVNULL}
    four_hosts("h0", DASK, "scheduler", "--host", "10.99.0.10", "--port", "8786", "--no-dashboard", **quiet)
    for i in (1, 2):
        words = [
            "--host",
            f"10.99.0.1{i}",
            "--nthreads",
            "1",
            "--no-dashboard",
            "--local-directory",
            tmp_path / f"h{i}",
        ]
        four_hosts(f"h{i}", DASK, "worker", "tcp://10.99.0.10:8786", *words, **quiet)
    return four_hosts


CUT = """
import subprocess, sys, time
import polars as pl
from polars.testing import assert_frame_equal
import rainbear_dask as rd
from rainbear_dask.cluster import connect
from tests.support.oracle import expected_frame
from tests.support.stores import write_field

hosts, url = sys.argv[1:]
write_field(url, chunks=(2, 12, 20))  # a task for each chunk
warm = pl.col("t2m") > 280
here = rd.plan(url, warm).collect()
assert_frame_equal(here, expected_frame(url).filter(warm), check_row_order=False)
with connect("tcp://10.99.0.10:8786", timeout="60s") as client:
    client.wait_for_workers(2, timeout=60)
    frames = []
    for number, frame in enumerate(rd.plan(url, warm).frames(client)):
        frames.append(frame)
        if number == 8:
            subprocess.run(["bash", hosts, "cut", "2"], check=True)
            cut = time.monotonic()
    seconds = time.monotonic() - cut
    assert_frame_equal(pl.concat(frames), here)
    left = [address for address in client.scheduler_info(n_workers=-1)["workers"]]
print("seconds", round(seconds, 1), *left)
"""


@pytest.mark.slow
def test_a_link_that_is_cut_in_mid_scan_changes_nothing(dask_hosts, tmp_path):
    client = dask_hosts(
        "h0", sys.executable, "-c", CUT, HOSTS / "hosts.sh", tmp_path / "field.zarr", stdout=subprocess.PIPE
    )
    out, _ = client.communicate(timeout=200)
    assert client.returncode == 0
    word, seconds, *left = out.split()
    print(f"\ndone {seconds} s after the cut")
    assert word == "seconds"
    assert float(seconds) < DOCUMENTED_SECONDS
    assert [address.rpartition(":")[0] for address in left] == ["tcp://10.99.0.11"]


FAR = """
import sys, time
import polars as pl
from polars.testing import assert_frame_equal
import rainbear_dask as rd
from rainbear_dask.cluster import connect
from tests.support.oracle import expected_frame

folder, url = sys.argv[1:]
with connect("tcp://10.99.0.10:8786", timeout="60s") as client:
    client.wait_for_workers(2, timeout=60)
    start = time.monotonic()
    frame = rd.scan_zarr(url, client=client).filter(pl.col("t2m") > 280).collect()
    seconds = time.monotonic() - start
assert_frame_equal(frame, expected_frame(folder).filter(pl.col("t2m") > 280), check_row_order=False)
print("seconds", round(seconds, 2))
"""


@pytest.mark.slow
def test_a_store_that_is_25_ms_away_is_scanned_with_many_requests_at_once(dask_hosts, tmp_path):
    folder = tmp_path / "field.zarr"
    make = "import sys, zarr; from tests.support.stores import write_field; write_field(sys.argv[1]); zarr.consolidate_metadata(sys.argv[1])"
    subprocess.run([sys.executable, "-W", "ignore", "-c", make, folder], check=True, env=os.environ | SETTINGS)
    log = (tmp_path / "requests.log").open("w")
    dask_hosts(
        "h3", sys.executable, "-m", "http.server", "8000", "--bind", "10.99.0.13", "--directory", tmp_path, stderr=log
    )
    hosts("far", "3")
    delay = subprocess.Popen(
        ["ip", "netns", "exec", "rainbear-hub", sys.executable, HOSTS / "delay.py", "f0", "v3", "25"],
        stdout=subprocess.PIPE,
        text=True,
    )
    try:
        assert delay.stdout.readline() == "ready\n"
        client = dask_hosts(
            "h0", sys.executable, "-c", FAR, folder, "http://10.99.0.13:8000/field.zarr", stdout=subprocess.PIPE
        )
        out, _ = client.communicate(timeout=120)
        assert client.returncode == 0
    finally:
        delay.terminate()
        delay.communicate()
        log.close()
    seconds = float(out.split()[1])
    requests = [line.split('"')[1] for line in (tmp_path / "requests.log").read_text().splitlines() if '"' in line]
    chunks = [line.split()[1] for line in requests if "/t2m/c/" in line]
    print(f"\n{len(requests)} requests, {seconds} s, 50 ms each there and back")
    assert len(chunks) == len(set(chunks)) == 24
