"""A scan leaves nothing running when it is interrupted, and never keeps a worker from saying that it lives."""

import os
import signal
import subprocess
import sys
import time
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from distributed import get_worker
from distributed.utils import sync
from tornado.ioloop import PeriodicCallback

import rainbear_dask as rd
from rainbear_dask.execution.worker import make_frame
from tests.execution.test_run import nothing_left

pytestmark = pytest.mark.cluster

SCRIPT = """
import sys
import polars as pl
from distributed import Client
import rainbear_dask as rd
from benchmarks.slow_store import SlowStore

if __name__ == "__main__":
    path, engine, *scheduler = sys.argv[1:]
    client = Client(scheduler[0]) if scheduler else None
    query = rd.scan_zarr(SlowStore(path, seconds=5), client=client)
    print("begun", flush=True)
    query.filter(pl.col("v") > 2).collect(engine=engine)
    print("done", flush=True)
"""


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """A hundred chunks, each a task of its own: half a minute of reading, five seconds a request."""
    path = str(tmp_path_factory.mktemp("interrupts") / "large.zarr")
    xr.Dataset({"v": (("t", "x"), np.zeros((100, 1_048_576), "f4"))}).to_zarr(
        path, encoding={"v": {"chunks": (1, 1_048_576), "fill_value": 1}}, consolidated=False
    )
    return path


@pytest.mark.parametrize("where", ["threads", "cluster"])
@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_an_interrupt_from_the_keyboard_ends_a_scan(path, tmp_path, where, engine, request):
    script = tmp_path / "script.py"
    script.write_text(SCRIPT)
    command = [sys.executable, str(script), path, engine]
    client = request.getfixturevalue("client") if where == "cluster" else None
    if client is not None:
        command.append(client.scheduler.address)
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    pipes = {"stdout": subprocess.PIPE, "stderr": subprocess.PIPE}
    with subprocess.Popen(command, text=True, env=environment, **pipes) as process:  # noqa: S603  our own script
        assert process.stdout.readline() == "begun\n"
        time.sleep(3)
        os.kill(process.pid, signal.SIGINT)
        output, errors = process.communicate(timeout=60)
    assert output == ""
    assert "KeyboardInterrupt" in errors
    assert client is None or nothing_left(client)


AGAIN = """
import os, signal, sys, threading, time
import polars as pl
from distributed import Client
import rainbear_dask as rd

def interrupt():
    os.kill(os.getpid(), signal.SIGINT)

with Client(sys.argv[2]) as client:
    query = rd.scan_zarr(sys.argv[1], client=client)
    for seconds in (0.5, 0.7):
        threading.Timer(seconds, interrupt).start()
        try:
            while True:
                query.collect()
        except KeyboardInterrupt:
            pass
        try:
            time.sleep(0.1)  # Polars and Python may both say it
        except KeyboardInterrupt:
            pass
    print(query.select(pl.col("v").sum()).collect().item())
"""


def test_a_client_outlives_an_interrupt_from_the_keyboard(tmp_path, client):
    """The answers of a hundred small tasks arrive when it comes, on the event loop of the client."""
    path = str(tmp_path / "small.zarr")
    xr.Dataset({"v": (("t", "x"), np.ones((2000, 500)))}).to_zarr(
        path, encoding={"v": {"chunks": (20, 500)}}, consolidated=False
    )
    script = tmp_path / "script.py"
    script.write_text(AGAIN)
    environment = os.environ | {
        "PYTHONPATH": str(Path(__file__).parents[2]),
        "DASK_RAINBEAR_DASK__TASK_BYTES": "1",
    }
    done = subprocess.run(  # noqa: S603  our own script
        [sys.executable, str(script), path, client.scheduler.address],
        check=False,
        capture_output=True,
        text=True,
        env=environment,
        timeout=60,
    )
    assert done.stdout == "1000000.0\n", done.stderr[-2000:]
    assert nothing_left(client)


def test_the_event_loop_of_a_worker_turns_during_a_large_task(tmp_path, client):
    """As often as half of what is possible, while a task reads, filters and tidies 24 million rows: so heartbeats go on."""
    path = str(tmp_path / "large.zarr")
    values = np.random.default_rng(0).normal(size=(24, 1000, 1000)).astype("f4")
    xr.Dataset({"v": (("t", "y", "x"), values)}).to_zarr(path, encoding={"v": {"chunks": values.shape}})
    (task,) = rd.plan(path, pl.col("v") * 2 > pl.col("y") - 800).tasks()

    turns, possible = client.submit(turns_meanwhile, task).result()

    assert possible > 5
    assert turns > possible / 2


def turns_meanwhile(task):
    """Turns of the worker's event loop, a fiftieth of a second apart at least, while it makes a frame; and how many could have been."""
    loop, turns = get_worker().io_loop, 0

    def turn():
        nonlocal turns
        turns += 1

    async def watch():
        callback = PeriodicCallback(turn, 20)
        callback.start()
        return callback

    callback = sync(loop, watch)
    start = time.monotonic()
    make_frame(task)
    possible = (time.monotonic() - start) / 0.02
    loop.add_callback(callback.stop)
    return turns, possible
