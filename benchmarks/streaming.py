"""Memory of client and workers while a table larger than memory passes through: ``python -m benchmarks.streaming``.

A cluster of two processes delivers a table of 20 GB three times: frame by frame, to Parquet by Polars' streaming
engine, and to a consumer that pauses for a minute. Memory is the system's figure for each process, libraries included.
"""

import argparse
import os
import shutil
import tempfile
import threading
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path

import numpy as np
import psutil
import xarray as xr
import zarr
from distributed import Client, LocalCluster

import rainbear_dask as rd
from benchmarks.run import conditions
from rainbear_dask.api.plan import ScanPlan

SHAPE, CHUNKS = (24, 181, 360), (24, 181, 360)
BYTES_PER_ROW = 3 * 8 + 2 * 4  # three coordinates, two variables


def write(path: str, gigabytes: float) -> int:
    """Write a store of two variables whose table has this many bytes, repeating one day. Return its rows."""
    days = max(round(gigabytes * 1e9 / BYTES_PER_ROW / np.prod(SHAPE)), 1)
    times, lats, lons = days * SHAPE[0], *SHAPE[1:]
    coords = {
        "time": np.datetime64("2020-01-01", "ns") + np.arange(times) * np.timedelta64(1, "h"),
        "lat": np.linspace(90, -90, lats),
        "lon": np.arange(lons) * 360 / lons,
    }
    xr.Dataset(coords=coords).to_zarr(path, zarr_format=3, consolidated=False)
    group = zarr.open_group(path, mode="a")
    values = np.random.default_rng(0).normal(280, 10, SHAPE).astype("f4").round(1)
    for name in ("t2m", "u10"):
        array = group.create_array(
            name, shape=(times, lats, lons), chunks=CHUNKS, dtype="f4", dimension_names=tuple(coords)
        )
        array[: SHAPE[0]] = values
        first = Path(path) / name / "c/0/0/0"
        for day in range(1, days):
            copy = Path(path) / name / f"c/{day}/0/0"
            copy.parent.mkdir(parents=True)
            shutil.copyfile(first, copy)  # the same bytes, compressed once
    return times * lats * lons


@contextmanager
def peaks(pids: list[int]) -> Iterator[list[float]]:
    """Record the peak memory of each process meanwhile, in MB."""
    processes = [psutil.Process(pid) for pid in pids]
    most = [0.0] * len(pids)
    done = threading.Event()

    def look() -> None:
        while not done.wait(0.05):
            for number, process in enumerate(processes):
                most[number] = max(most[number], process.memory_info().rss / 1e6)

    thread = threading.Thread(target=look)
    thread.start()
    try:
        yield most
    finally:
        done.set()
        thread.join()


def measure(name: str, pids: list[int], run: Callable[[], object]) -> list[float]:
    """Run a function and print its time, and the peaks of client and workers."""
    start = time.perf_counter()
    with peaks(pids) as most:
        run()
    client, *workers = (f"{peak:,.0f}" for peak in most)
    print(f"| {name} | {time.perf_counter() - start:.0f} s | {client} MB | {', '.join(workers)} MB |", flush=True)
    return most


def take(plan: ScanPlan, client: Client, num_rows: int) -> None:
    """Read all frames and drop them."""
    assert sum(frame.height for frame in plan.frames(client)) == num_rows


def pause(plan: ScanPlan, client: Client, pids: list[int], seconds: float) -> list[float]:
    """Read some frames and wait. Return the growth of each process in the last two thirds of the wait, in MB."""
    frames = plan.frames(client)
    for _ in range(5):
        next(frames)
    time.sleep(seconds / 3)
    before = [psutil.Process(pid).memory_info().rss for pid in pids]
    time.sleep(2 * seconds / 3)
    growth = [(psutil.Process(pid).memory_info().rss - old) / 1e6 for pid, old in zip(pids, before, strict=True)]
    frames.close()
    return growth


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--gigabytes", type=float, default=20.0)
    parser.add_argument("--pause", type=float, default=60.0, help="seconds")
    options = parser.parse_args()
    print(f"{conditions()}\n\n| way | time | peak of the client | peaks of the workers |\n|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as cluster,
        Client(cluster) as client,
    ):
        path = str(Path(folder) / "long.zarr")
        num_rows = write(path, options.gigabytes)
        plan = rd.plan(path)
        pids = [os.getpid(), *client.run(os.getpid).values()]
        measure("frames", pids, lambda: take(plan, client, num_rows))
        target = Path(folder) / "table.parquet"
        measure("sink_parquet", pids, lambda: rd.scan_zarr(path, client=client).sink_parquet(target))
        print(f"\nGrowth in a pause: {', '.join(f'{mb:.0f}' for mb in pause(plan, client, pids, options.pause))} MB")


if __name__ == "__main__":
    main()
