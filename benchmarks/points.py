"""Values at points beside xarray: ``python -m benchmarks.points``.

Random points in the whole grid, nearest and linear, on three layouts. Both packages take turns in one process, from the
address of a store to the values in memory, and all values are compared. ``memory``, ``latency`` and ``cluster`` run by
themselves.
"""

import argparse
import tempfile
import time
from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import inf
from pathlib import Path
from statistics import median

import dask
import numpy as np
import polars as pl
import xarray as xr
from distributed import Client, LocalCluster

import rainbear_dask as rd
from benchmarks.latency import best_time
from benchmarks.problems import LAYOUTS, Layout, Size
from benchmarks.processes import added_peak
from benchmarks.run import conditions
from benchmarks.slow_store import SlowStore

STORES = LAYOUTS[:3]
"""Slabs, tiles, and small chunks."""
COUNTS = (100, 10_000, 100_000, 1_000_000)
METHODS = ("nearest", "linear")
SECONDS = 0.05
"""Seconds of each response of the store with latency."""
IN_FLIGHT = 64
SLOW_FOR_XARRAY = 10**9
"""Points times chunks from which on xarray takes minutes to interpolate."""


def points_of(layout: Layout, count: int) -> pl.DataFrame:
    """Return random points inside the grid, the same on every call."""
    rng, (times, _, lons) = np.random.default_rng(1), layout.shape
    hours = rng.uniform(0, times - 1, count)
    return pl.DataFrame(
        {
            "time": np.datetime64("2020-01-01", "ns") + (hours * 3.6e12).astype("timedelta64[ns]"),
            "lat": rng.uniform(-90, 90, count),
            "lon": rng.uniform(0, 360 - 360 / lons, count),
        }
    )


def ours(path: str, points: pl.DataFrame, method: str) -> np.ndarray:
    return rd.sample(path, points, method=method, columns="t2m").select("t2m").collect()["t2m"].to_numpy()


def theirs(path: str, points: pl.DataFrame, method: str) -> np.ndarray:
    at = {dim: xr.DataArray(points[dim].to_numpy(), dims="point") for dim in points.columns}
    with xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as ds:
        found = ds["t2m"].sel(at, method="nearest") if method == "nearest" else ds["t2m"].interp(at)
        return found.values


@dataclass
class Measure:
    """Return the best seconds of each package."""

    store: str
    count: int
    method: str
    ours: float = inf
    theirs: float = inf

    @property
    def ratio(self) -> float:
        return self.theirs / self.ours


def measure(path: str, layout: Layout, *, rounds: int, counts: Sequence[int]) -> list[Measure]:
    """Run both packages in turns, and compare their values."""
    measures = []
    for count, method in product(counts, METHODS):
        found, points = Measure(layout.name, count, method), points_of(layout, count)
        num_chunks = np.prod([-(-n // c) for n, c in zip(layout.shape, layout.chunks, strict=True)])
        alone = method == "linear" and count * num_chunks > SLOW_FOR_XARRAY
        for _ in range(rounds):
            start = time.perf_counter()
            values = ours(path, points, method)
            found.ours = min(found.ours, time.perf_counter() - start)
            if not alone:
                start = time.perf_counter()
                expected = theirs(path, points, method)
                found.theirs = min(found.theirs, time.perf_counter() - start)
                np.testing.assert_allclose(values, expected, rtol=0 if method == "nearest" else 1e-5)
        measures.append(found)
    return measures


def report(measures: Sequence[Measure]) -> str:
    """Return a row for each store and number of points, and the least and the median ratio of each method."""
    lines = ["| store | points | method | rainbear_dask | xarray | ratio |", "|---|--:|---|--:|--:|--:|"]
    for each in measures:
        other = "not run" if each.theirs == inf else f"{each.theirs:.3f} s | {each.ratio:.2g}"
        row = f"| {each.store} | {each.count:,} | {each.method} | {each.ours:.3f} s | {other}"
        lines.append(f"{row} |" if each.theirs < inf else f"{row} | |")
    for method in METHODS:
        ratios = [each.ratio for each in measures if each.method == method and each.theirs < inf]
        if ratios:
            lines.append(f"\n{method}: median {median(ratios):.2g} times as fast as xarray, at least {min(ratios):.2g}")
    return "\n".join(lines)


# ---------------------------------------------------------------------- memory, latency, workers


def peak(reader: str, path: str, layout: Layout, count: int, method: str) -> int:
    """Return the bytes that a process of its own adds for the values of some points."""
    first = (
        "from benchmarks import points\nfrom benchmarks.problems import LAYOUTS\n"
        f"layout = next(one for one in LAYOUTS if one.name == {layout.name!r}).shortened({layout.shape[0]})\n"
        f"points.{reader}({path!r}, points.points_of(layout, 10), {method!r})\n"
        f"wanted = points.points_of(layout, {count})"
    )
    return added_peak(first, f"points.{reader}({path!r}, wanted, {method!r})")


def report_memory(path: str, layout: Layout, count: int) -> str:
    rows = [
        f"| {layout.name} | {count:,} | {method} | "
        + " | ".join(f"{peak(reader, path, layout, count, method) / 1e6:.0f} MB" for reader in ("ours", "theirs"))
        + " |"
        for method in METHODS
    ]
    return "\n".join(["| store | points | method | rainbear_dask | xarray |", "|---|--:|---|--:|--:|", *rows])


def report_latency(path: str, layout: Layout, count: int, rounds: int) -> str:
    """Return the share of the ideal, in which each round trip delivers as many chunks as may be in flight."""
    points, lines = points_of(layout, count), []
    for method in METHODS:
        query = rd.sample(SlowStore(path, SECONDS), points, method=method, columns="t2m").select("t2m")
        num_chunks = int(rd.explain(query).split("chunks")[1].split("of")[0].replace(",", ""))
        with dask.config.set({"rainbear-dask.requests-in-flight": IN_FLIGHT}):
            seconds = best_time(query.collect, rounds)
        ideal = -(-num_chunks // IN_FLIGHT) * SECONDS
        lines.append(f"{method}, {num_chunks} chunks: {seconds:.2f} s, ideal {ideal:.2f} s: {ideal / seconds:.0%}")
    return "\n".join(lines)


def report_cluster(path: str, layout: Layout, count: int, rounds: int) -> str:
    """Return the seconds of one worker and of two, of one thread each."""
    points, lines = points_of(layout, count), []
    for method in METHODS:
        seconds = []
        for workers in (1, 2):
            with (
                LocalCluster(
                    n_workers=workers, threads_per_worker=1, dashboard_address=":0", memory_limit=None
                ) as site,
                Client(site, set_as_default=False) as client,
            ):
                query = rd.sample(path, points, method=method, columns="t2m", client=client).select("t2m")
                seconds.append(best_time(query.collect, rounds))
        lines.append(f"{method}: {seconds[0]:.2f} s with one worker, {seconds[1]:.2f} s with two")
    return "\n".join(lines)


def main() -> None:
    """Measure and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("part", nargs="?", choices=["speed", "memory", "latency", "cluster"], default="speed")
    parser.add_argument("--rounds", type=int, default=3)
    parser.add_argument("--quick", action="store_true", help="two days, and at most 10,000 points")
    args = parser.parse_args()
    size: Size = "quick" if args.quick else "full"
    counts = COUNTS[:2] if args.quick else COUNTS
    print(conditions(), flush=True)
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        measures = []
        for layout in [layout.sized(size) for layout in (STORES if args.part == "speed" else STORES[1:2])]:
            path = str(Path(folder) / f"{layout.name}.zarr")
            layout.write(path)
            if args.part == "speed":
                measures += measure(path, layout, rounds=args.rounds, counts=counts)
            elif args.part == "memory":
                print(report_memory(path, layout, counts[-1]))
            elif args.part == "latency":
                print(report_latency(path, layout, 10_000, args.rounds))
            else:
                print(report_cluster(path, layout, 30 * counts[1], args.rounds))
        if measures:
            print(f"\n{report(measures)}")


if __name__ == "__main__":
    main()
