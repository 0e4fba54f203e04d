"""A store with added latency: the share of the ideal that a scan reaches: ``python -m benchmarks.latency``.

In the ideal case, each round trip delivers as many chunks as a process may have requests in flight. On a cluster of
latency-bound workers, each worker has its own process. The table also shows the time of the store alone: the same
requests, with discarded responses.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable
from pathlib import Path

import dask
import numpy as np
import xarray as xr
from distributed import Client, LocalCluster
from zarr.core.buffer import default_buffer_prototype

import rainbear_dask as rd
from benchmarks.run import conditions
from benchmarks.slow_store import SlowStore

SECONDS = 0.05
SLOWER = 0.2
"""Seconds per response in the test of workers. On two processors, eight workers must mostly wait."""
NUM_CHUNKS = 256
NUM_SLOWER = 96
"""Number of chunks in the test of workers."""
AT_A_TIME = (16, 64)
"""Numbers of requests that a process may have in flight."""
WORKERS = (1, 2, 4, 8)
SIDE, LARGE_SIDE = 128, 512
"""Shapes of chunks of 64 KiB and of 1 MiB."""


def write(path: str, num_chunks: int = NUM_CHUNKS, side: int = SIDE) -> None:
    """Write chunks of one time step each."""
    values = np.random.default_rng(0).normal(size=(num_chunks, side, side)).astype("f4").round(1)
    xr.Dataset({"v": (("t", "y", "x"), values)}).to_zarr(
        path, encoding={"v": {"chunks": (1, side, side)}}, consolidated=False
    )


def best_time(run: Callable[[], object], rounds: int) -> float:
    """Return the best of some runs, after a first that does not count."""
    times = []
    for _ in range(rounds + 1):
        start = time.perf_counter()
        run()
        times.append(time.perf_counter() - start)
    return min(times[1:])


async def ask_all(store: SlowStore, at_a_time: int) -> None:
    """Request the bytes of each chunk."""
    places = asyncio.Semaphore(at_a_time)

    async def ask(number: int) -> None:
        async with places:
            assert await store.get(f"v/c/{number}/0/0", default_buffer_prototype())

    await asyncio.gather(*(ask(number) for number in range(NUM_CHUNKS)))


def threads(path: str, at_a_time: int, rounds: int = 3) -> float:
    """Print the share of the ideal that threads of one process reach."""
    plan = rd.plan(SlowStore(path, SECONDS), columns=["v"])
    with dask.config.set({"rainbear-dask.requests-in-flight": at_a_time}):
        seconds = best_time(plan.collect, rounds)
        start = time.process_time()
        plan.collect()
        busy = time.process_time() - start
    store = best_time(lambda: asyncio.run(ask_all(SlowStore(path, SECONDS), at_a_time)), rounds)
    ideal = -(-sum(plan.chunks_kept.values()) // at_a_time) * SECONDS
    print(
        f"threads, {at_a_time} requests at a time: {seconds:.2f} s, of a processor {busy:.2f} s, "
        f"the store alone {store:.2f} s, ideal {ideal:.2f} s: {ideal / seconds:.0%}",
        flush=True,
    )
    return ideal / seconds


def cluster(path: str, num_workers: int, rounds: int = 3) -> float:
    """Return the seconds of single-threaded, latency-bound workers for tasks of one chunk."""
    with (
        dask.config.set({"rainbear-dask.task-bytes": 1}),
        LocalCluster(n_workers=num_workers, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as site,
        Client(site, set_as_default=False) as client,
    ):
        client.wait_for_workers(num_workers)
        plan = rd.plan(SlowStore(path, SLOWER))
        return best_time(lambda: plan.collect(client), rounds)


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{conditions()}\n\nChunks of 64 KiB, then of 1 MiB:")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        path, larger, shorter = (str(Path(folder) / name) for name in ("chunks.zarr", "larger.zarr", "shorter.zarr"))
        write(path)
        write(larger, side=LARGE_SIDE)
        write(shorter, NUM_SLOWER)
        for store in (path, larger):
            for at_a_time in AT_A_TIME:
                threads(store, at_a_time, options.rounds)
        alone = None
        for number in WORKERS:
            seconds = cluster(shorter, number, options.rounds)
            alone = alone or seconds
            print(
                f"{number} workers: {seconds:.2f} s, {alone / seconds:.2f} times one: {alone / seconds / number:.0%}",
                flush=True,
            )


if __name__ == "__main__":
    main()
