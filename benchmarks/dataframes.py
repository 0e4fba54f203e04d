"""Dask DataFrames of a store on a cluster of two processes, beside xarray's: ``python -m benchmarks.dataframes``.

Both run in turns on one cluster. The first run does not count, and the best time does. Results are compared. Memory is
the peak of a worker in a separate cluster, libraries included. The last part writes a store of 6,000 x 45,000 float64
in chunks of 30 x 6,000 to Parquet.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import dask.dataframe as dd
import numpy as np
import pandas as pd
import xarray as xr
import zarr
from distributed import Client, LocalCluster

import rainbear_dask as rd
from benchmarks.problems import LAYOUTS
from benchmarks.processes import status
from benchmarks.run import conditions

QUICK_HOURS = 96
SHAPE, CHUNKS = (6000, 45_000), (30, 6000)


def _box(frame: dd.DataFrame) -> dd.DataFrame:
    return frame[frame.lat.between(30, 50) & (frame.lon <= 40) & (frame.time < "2020-01-02")]


def _by_lat(frame: dd.DataFrame) -> dd.DataFrame:
    return frame.astype({"t2m": "f8"}).groupby("lat").t2m.mean()


QUESTIONS: dict[str, Callable[[dd.DataFrame], Any]] = {
    "full": lambda frame: frame,
    "box": _box,
    "mean by lat": _by_lat,
    "length": lambda frame: frame.lat.size,
}
READERS: dict[str, Callable[[str], dd.DataFrame]] = {
    "rainbear_dask": rd.read_zarr,
    "xarray": lambda path: xr.open_zarr(path, consolidated=False, chunks={}).to_dask_dataframe(),
}


def ask(path: str, question: str, reader: str) -> Any:
    """Read, and return the result to this process. For all rows it is their number, because their table may not fit."""
    found = QUESTIONS[question](READERS[reader](path))
    if question == "full":
        return int(found.map_partitions(len, meta=pd.Series(dtype="i8")).sum().compute())
    return found.compute()


def digest(answer: Any) -> tuple[int, float]:
    """Return the number of rows, and their mean of t2m."""
    if isinstance(answer, int | np.integer):
        return int(answer), 0.0
    return len(answer), float(np.mean(np.asarray(answer if answer.ndim == 1 else answer["t2m"], "f8")))


def measure(path: str, question: str, rounds: int) -> dict[str, float]:
    """Return the seconds of each reader on the active cluster."""
    best = dict.fromkeys(READERS, np.inf)
    expected = digest(ask(path, question, "rainbear_dask"))
    for turn in range(rounds + 1):
        for reader in READERS:
            start = time.perf_counter()
            answer = ask(path, question, reader)
            taken = time.perf_counter() - start
            assert np.allclose(digest(answer), expected, rtol=1e-5), (question, reader)
            best[reader] = min(best[reader], taken) if turn else np.inf
    return best


def peak(path: str, question: str, reader: str) -> float:
    """Return the peak memory of a worker in MB."""
    with cluster() as workers, Client(workers) as client:
        ask(path, question, reader)
        return max(client.run(status, "VmHWM").values()) / 1e6


def cluster(memory_limit: str | None = None) -> LocalCluster:
    return LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=memory_limit)


def write_matrix(path: Path, shape: tuple[int, int]) -> None:
    """Write a matrix without coordinates, strip by strip."""
    group = zarr.create_group(path)
    array = group.create_array("a", shape=shape, chunks=CHUNKS, dtype="f8", dimension_names=("y", "x"))
    rng = np.random.default_rng(0)
    for start in range(0, shape[0], CHUNKS[0]):
        array[start : start + CHUNKS[0]] = rng.random((min(CHUNKS[0], shape[0] - start), shape[1]), "f4")


def to_parquet(source: Path, target: Path) -> tuple[float, float]:
    """Return the seconds, and the MB of the largest worker, for writing a store to Parquet."""
    with cluster("1500MB") as workers, Client(workers) as client:
        start = time.perf_counter()
        rd.read_zarr(str(source)).to_parquet(target)
        taken = time.perf_counter() - start
        return taken, max(client.run(status, "VmHWM").values()) / 1e6


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter stores")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.ERROR)
    print(f"{conditions()}\n")
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        print("| layout | question | rainbear_dask | xarray (of ours) | worker's peak | xarray's |")
        print("|---|---|---|---|---|---|")
        for layout in LAYOUTS[:2]:
            path = str(Path(folder) / f"{layout.name}.zarr")
            (layout.shortened(QUICK_HOURS) if options.quick else layout).write(path)
            for question in QUESTIONS:
                with cluster() as workers, Client(workers):
                    best = measure(path, question, options.rounds)
                ours, theirs = best["rainbear_dask"], best["xarray"]
                peaks = [f"{peak(path, question, reader):,.0f} MB" for reader in READERS]
                print(
                    f"| {layout.name} | {question} | {ours:.2f} s | {theirs:.2f} s ({theirs / ours:.1f}) | {' | '.join(peaks)} |",
                    flush=True,
                )
        shape = (SHAPE[0] // 20, SHAPE[1]) if options.quick else SHAPE
        write_matrix(Path(folder) / "matrix.zarr", shape)
        taken, most = to_parquet(Path(folder) / "matrix.zarr", Path(folder) / "matrix.parquet")
        print(f"\n{shape[0]:,} x {shape[1]:,} to Parquet: {taken:.0f} s, a worker's peak {most:,.0f} MB")


if __name__ == "__main__":
    main()
