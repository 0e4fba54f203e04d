"""If the scheduler dies, a scan ends at once with an error that says how to go on."""

import subprocess
import sys
import time
from contextlib import ExitStack

import dask
import pytest
from distributed import Client

import rainbear_dask as rd
from rainbear_dask.exceptions import ClusterError
from tests.support.stores import write_field

pytestmark = pytest.mark.cluster


def slowly(frame):
    time.sleep(0.05)
    return frame.height


@pytest.mark.filterwarnings("ignore:.*:ResourceWarning")
def test_a_scan_ends_with_an_error_when_the_scheduler_dies(tmp_path):
    path, file = str(tmp_path / "field.zarr"), tmp_path / "scheduler.json"
    write_field(path, chunks=(1, 12, 20))
    options = ["--scheduler-file", str(file), "--no-dashboard"]
    commands = [
        [sys.executable, "-m", "dask", "scheduler", "--host", "127.0.0.1", "--port", "0", *options],
        [sys.executable, "-m", "dask", "worker", "--host", "127.0.0.1", "--no-nanny", "--death-timeout", "5", *options],
    ]
    with ExitStack() as stack:
        started = []
        for command in commands:
            process = subprocess.Popen(command, stderr=subprocess.DEVNULL)  # noqa: S603  our own commands
            stack.callback(process.wait)
            stack.callback(process.kill)
            started.append(process)
        while not file.exists():
            time.sleep(0.05)
        client = stack.enter_context(Client(scheduler_file=str(file), set_as_default=False, timeout=30))
        client.wait_for_workers(1, timeout=30)
        with dask.config.set({"rainbear-dask.task-bytes": 1}):
            found = rd.plan(path).map_partitions(slowly, client=client)
        next(found)
        started[0].kill()
        with pytest.raises(ClusterError, match=r"scheduler is gone.*Connect again"):
            list(found)
