"""Output beside peers: Parquet on a cluster, Zarr from frames and from queries: ``python -m benchmarks.writing``.

Each writer runs in turns, into a folder of its own. The first run does not count, and the best time does. Row numbers
are compared. Memory is the peak of a worker in a separate cluster, libraries included. ``sink_parquet`` runs in this
process, on all its threads. The last part exports a store that is larger than the memory of all workers.
"""

import argparse
import logging
import shutil
import tempfile
import time
from collections.abc import Callable
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xarray as xr
from distributed import Client

import rainbear_dask as rd
from benchmarks.dataframes import cluster, write_matrix
from benchmarks.problems import LAYOUTS, Layout
from benchmarks.processes import status
from benchmarks.run import conditions

QUICK_HOURS = 48
LARGE = (50_000, 45_000)  # 18 GB of float64
DIMS = ["time", "lat", "lon"]


def export(path: str, target: Path) -> None:
    rd.write_parquet(path, target)


def sink(path: str, target: Path) -> None:
    target.mkdir()
    rd.scan_zarr(path).sink_parquet(target / "all.parquet")


def xarray_parquet(path: str, target: Path) -> None:
    xr.open_zarr(path, consolidated=False, chunks={}).to_dask_dataframe().to_parquet(target)


PARQUET: dict[str, Callable[[str, Path], None]] = {
    "write_parquet": export,
    "sink_parquet": sink,
    "xarray to_parquet": xarray_parquet,
}


def ours(frame: pl.DataFrame, target: Path) -> None:
    rd.write_zarr(frame, target, DIMS)


def pandas_zarr(frame: pl.DataFrame, target: Path) -> None:
    frame.to_pandas().set_index(DIMS).to_xarray().to_zarr(target)


FRAMES: dict[str, Callable[[pl.DataFrame, Path], None]] = {"write_zarr": ours, "pandas to_xarray": pandas_zarr}


def copy(path: str, target: Path) -> None:
    rd.write_zarr(rd.scan_zarr(path), target)


def xarray_copy(path: str, target: Path) -> None:
    xr.open_zarr(path, consolidated=False, chunks={}).to_zarr(target)


COPIES: dict[str, Callable[[str, Path], None]] = {"write_zarr": copy, "xarray to_zarr": xarray_copy}


def best_times(writers: dict[str, Callable[..., None]], source: Any, folder: Path, rounds: int) -> dict[str, float]:
    """Return the seconds of each writer. The folders of the last round stay, in ``folder / name``."""
    best = dict.fromkeys(writers, np.inf)
    for turn in range(rounds + 1):
        for name, write in writers.items():
            shutil.rmtree(folder / name, ignore_errors=True)
            (folder / f"{name}.manifest.jsonl").unlink(missing_ok=True)
            start = time.perf_counter()
            write(source, folder / name)
            taken = time.perf_counter() - start
            best[name] = min(best[name], taken) if turn else np.inf
    return best


def parquet(layout: Layout, folder: Path, rounds: int) -> tuple[int, dict[str, float], dict[str, float]]:
    """Return rows, and by writer seconds and the MB of the largest worker, for a whole store to Parquet."""
    path = str(folder / f"{layout.name}.zarr")
    layout.write(path)
    with cluster() as workers, Client(workers):
        best = best_times(PARQUET, path, folder, rounds)
    counts = {name: pl.scan_parquet(folder / name / "*.parquet").select(pl.len()).collect().item() for name in PARQUET}
    assert len(set(counts.values())) == 1, counts
    peaks = {}
    for name in ("write_parquet", "xarray to_parquet"):
        shutil.rmtree(folder / name)
        (folder / f"{name}.manifest.jsonl").unlink(missing_ok=True)
        with cluster() as workers, Client(workers) as client:
            PARQUET[name](path, folder / name)
            peaks[name] = max(client.run(status, "VmHWM").values()) / 1e6
    return counts["write_parquet"], best, peaks


def frames(layout: Layout, folder: Path, rounds: int) -> dict[str, tuple[int, dict[str, float]]]:
    """Return rows, and seconds by writer, for ordered and shuffled rows to Zarr."""
    path = str(folder / "frames.zarr")
    layout.write(path)
    rows = rd.scan_zarr(path).select(*DIMS, "t2m").collect()
    found = {}
    for order, frame in {"ordered": rows, "shuffled": rows.sample(fraction=1, shuffle=True, seed=0)}.items():
        found[order] = (frame.height, best_times(FRAMES, frame, folder, rounds))
        written = [xr.open_zarr(folder / name).t2m.sortby(DIMS) for name in FRAMES]
        assert bool((written[0] == written[1]).all())
    return found


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter stores")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    logging.getLogger("distributed").setLevel(logging.ERROR)
    print(f"{conditions()}\n")
    layouts = [layout.shortened(QUICK_HOURS) if options.quick else layout for layout in LAYOUTS[:2]]
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as name:
        folder = Path(name)
        print("| store | rows | write_parquet | sink_parquet (of ours) | xarray (of ours) | worker's peak | xarray's |")
        print("|---|---|---|---|---|---|---|")
        for layout in layouts:
            rows, best, peaks = parquet(layout, folder, options.rounds)
            mine, others = best["write_parquet"], [best["sink_parquet"], best["xarray to_parquet"]]
            shown = " | ".join(f"{other:.2f} s ({other / mine:.1f})" for other in others)
            print(
                f"| {layout.name} | {rows:,} | {mine:.2f} s | {shown} | {' | '.join(f'{p:,.0f} MB' for p in peaks.values())} |"
            )
        print("\n| rows to Zarr | rows | write_zarr | pandas (of ours) |\n|---|---|---|---|")
        for order, (rows, best) in frames(
            layouts[0].shortened(QUICK_HOURS if options.quick else 48 * 5), folder, options.rounds
        ).items():
            mine, theirs = best.values()
            print(f"| {order} | {rows:,} | {mine:.2f} s | {theirs:.2f} s ({theirs / mine:.1f}) |")
        with cluster() as workers, Client(workers):
            mine, theirs = best_times(COPIES, str(folder / f"{layouts[0].name}.zarr"), folder, options.rounds).values()
        print(f"\nA copy of {layouts[0].name} on a cluster: {mine:.2f} s, xarray {theirs:.2f} s ({theirs / mine:.1f})")
        shape = (LARGE[0] // 100, LARGE[1]) if options.quick else LARGE
        write_matrix(folder / "matrix.zarr", shape)
        with cluster() as workers, Client(workers) as client:
            start = time.perf_counter()
            report = rd.write_parquet(folder / "matrix.zarr", folder / "matrix")
            taken, most = time.perf_counter() - start, max(client.run(status, "VmHWM").values()) / 1e6
        task = rd.plan(folder / "matrix.zarr").task_bytes_at_most / 1e6
        print(
            f"\n{report.rows:,} rows to Parquet: {taken:.0f} s, a worker's peak {most:,.0f} MB; a task at most {task:,.0f} MB"
        )


if __name__ == "__main__":
    main()
