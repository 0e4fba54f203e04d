"""Scheduler, workers and client that speak TLS, with certificates as users make them; whoever has none is refused."""

import os
import re
import subprocess
import sys
from pathlib import Path

import polars as pl
import pytest
from polars.testing import assert_frame_equal

from tests.support.oracle import expected_frame
from tests.support.stores import write_field

pytestmark = pytest.mark.cluster

SCRIPT = Path(__file__).parents[2] / "cluster" / "tls" / "certificates.sh"
DASK, COMMAND = (str(Path(sys.executable).with_name(name)) for name in ("dask", "rainbear-dask"))


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("tls") / "field.zarr")
    write_field(path)
    return path


@pytest.fixture(scope="module")
def certificates(tmp_path_factory):
    """Makes a folder of certificates, of an authority of its own."""

    def make(name: str) -> dict[str, str]:
        folder = tmp_path_factory.mktemp(name)
        subprocess.run(["bash", SCRIPT, folder], check=True)
        assert {path.name for path in folder.iterdir()} == {"ca.pem", "cert.pem", "key.pem", "dask.yaml"}
        assert all(path.stat().st_mode & 0o077 == 0 for path in folder.iterdir())
        return os.environ | {"DASK_CONFIG": str(folder), "DASK_RAINBEAR_DASK__SMALL_PLAN_BYTES": "0"}

    return make


def first_match(process: subprocess.Popen, pattern: str) -> str:
    for line in process.stderr:
        if found := re.search(pattern, line):
            return found[0]
    raise AssertionError(f"{process.args} ended without {pattern}")


@pytest.fixture(scope="module")
def ours(certificates):
    return certificates("ours")


@pytest.fixture(scope="module")
def scheduler(ours, tmp_path_factory):
    """Address of a scheduler that has one worker."""
    options = {"env": ours, "stderr": subprocess.PIPE, "text": True}
    start = [DASK, "scheduler", "--host", "127.0.0.1", "--port", "0", "--no-dashboard"]
    with subprocess.Popen(start, **options) as process:
        address = first_match(process, r"tls://127\.0\.0\.1:\d+")
        spill = str(tmp_path_factory.mktemp("spill"))
        work = [DASK, "worker", address, "--nthreads", "1", "--no-dashboard", "--local-directory", spill]
        with subprocess.Popen(work, **options) as worker:
            first_match(worker, "Registered to")
            yield address
            worker.terminate()
        process.terminate()


def scan(url, address, environment, output):
    words = [COMMAND, "scan", url, "--where", "t2m > 290", "--cluster", address, "--wait", "5s", "--output", output]
    return subprocess.run(words, check=False, env=environment, capture_output=True, text=True, timeout=60)


def test_a_scan_over_tls_gives_the_same_rows(url, scheduler, ours, tmp_path):
    done = scan(url, scheduler, ours, tmp_path / "rows.parquet")
    assert done.returncode == 0, done.stderr
    assert_frame_equal(pl.read_parquet(tmp_path / "rows.parquet"), expected_frame(url).filter(pl.col("t2m") > 290))


def test_a_client_without_certificate_or_with_one_of_another_authority_is_refused(
    url, scheduler, certificates, tmp_path
):
    for address, environment in [
        (scheduler, os.environ | {"DASK_CONFIG": str(tmp_path)}),
        (scheduler.replace("tls:", "tcp:"), os.environ | {"DASK_CONFIG": str(tmp_path)}),
        (scheduler, certificates("theirs")),
    ]:
        done = scan(url, address, environment, tmp_path / "rows.parquet")
        assert done.returncode == 5, done.stderr
        assert "Traceback" not in done.stderr
        assert done.stderr.splitlines()[-1].startswith(
            f"rainbear-dask: The Dask scheduler at {address} does not answer"
        )
        assert list(tmp_path.iterdir()) == []


def test_a_worker_of_another_authority_is_refused(url, scheduler, ours, certificates, tmp_path):
    work = [DASK, "worker", scheduler, "--name", "stranger", "--death-timeout", "3", "--no-dashboard"]
    stranger = subprocess.run(
        [*work, "--local-directory", tmp_path],
        check=False,
        env=certificates("strangers"),
        capture_output=True,
        timeout=90,
    )
    assert stranger.returncode != 0
    assert b"Registered to" not in stranger.stderr
