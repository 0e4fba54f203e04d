"""A guard against slow decay: ``python -m benchmarks.guard`` compares a dozen small measures with the recorded ones.

Two figures for each question, and neither depends on the load of the machine by much. Calls are the calls of Python and C
functions on all threads of this process. The second is processor time, as a multiple of the time in which numcodecs
decodes 8 MB in the same run. ``--record`` writes them to ``benchmarks/guard.json``, before a release.
"""

import argparse
import json
import sys
import tempfile
import threading
import time
from collections.abc import Callable
from importlib.metadata import version
from pathlib import Path
from typing import Any

import dask
import numpy as np
import polars as pl
from numcodecs import zstd

import rainbear_dask as rd
from benchmarks.problems import LAYOUTS, lat, lon, t2m
from benchmarks.run import as_markdown

FILE = Path(__file__).with_suffix(".json")

MAX_CALLS, MAX_TIME = 1.1, 1.3
"""Multiples of the recorded figures that are reported as decay. Calls repeat within 2 %, times within 20 %."""

ROUNDS = 7

_STATION = pl.DataFrame({"lat": [45.2], "lon": [9.8]})

QUESTIONS: dict[str, Callable[[str, pl.LazyFrame], object]] = {
    "open": lambda path, lf: rd.scan_zarr(path),
    "explain": lambda path, lf: rd.explain(lf.filter(lat > 45)),
    "plan": lambda path, lf: rd.plan(path, (lat > 45) & (lon < 90) & (t2m > 290)),
    "one cell": lambda path, lf: lf.filter(lat == 45, lon == 10).head(1).collect(),
    "head": lambda path, lf: lf.head(10).collect(),
    "box": lambda path, lf: lf.filter(lat.is_between(40, 50), lon.is_between(0, 20)).collect(),
    "value filter": lambda path, lf: lf.filter(t2m > 303).collect(),
    "noon": lambda path, lf: lf.filter(pl.col("time").dt.hour() == 12, lat.abs() < 10).collect(),
    "full scan": lambda path, lf: lf.collect(),
    "mean by latitude": lambda path, lf: rd.collect(lf.group_by("lat").agg(t2m.mean())),
    "largest": lambda path, lf: rd.collect(lf.select(t2m.max())),
    "sample": lambda path, lf: rd.sample(lf, _STATION, method="linear").collect(),
}


def count_calls(ask: Callable[[], object]) -> int:
    """Return the number of function calls on this thread, and on threads that begin meanwhile."""
    counts: list[int] = []

    def watch() -> Callable[..., None]:
        counts.append(0)
        own = len(counts) - 1

        def profile(_: Any, event: str, __: Any) -> None:
            if event in ("call", "c_call"):
                counts[own] += 1

        return profile

    def begin(*event: Any) -> None:
        sys.setprofile(watch())

    threading.setprofile(begin)
    sys.setprofile(watch())
    try:
        ask()
    finally:
        sys.setprofile(None)
        threading.setprofile(None)  # type: ignore[arg-type]  # as its documentation says
    return sum(counts)


def processor_time(ask: Callable[[], object]) -> float:
    """Return the best processor time of this process."""
    best = np.inf
    for _ in range(ROUNDS):
        start = time.process_time()
        ask()
        best = min(best, time.process_time() - start)
    return float(best)


def measure(path: str) -> dict[str, tuple[int, float]]:
    """Return calls and relative time of each question to a store."""
    packed = zstd.Zstd().encode(np.random.default_rng(0).normal(280, 10, 2**21).astype("f4").tobytes())
    unit, found = processor_time(lambda: zstd.decompress(packed)), {}
    with dask.config.set({"rainbear-dask.threads": 1}):
        lf = rd.scan_zarr(path)
        for name, ask in QUESTIONS.items():
            ask(path, lf)  # imports, and coordinates
            calls = min(count_calls(lambda ask=ask: ask(path, lf)) for _ in range(3))  # type: ignore[misc]
            found[name] = calls, processor_time(lambda ask=ask: ask(path, lf)) / unit  # type: ignore[misc]
    return found


def versions() -> dict[str, str]:
    """Return the versions on which the figures depend."""
    packages = {name: version(name) for name in ("polars", "zarr", "dask", "numpy")}
    return {"python": ".".join(map(str, sys.version_info[:2])), **packages}


def report(found: dict[str, tuple[int, float]], known: dict[str, Any]) -> tuple[str, list[str]]:
    """Return a table beside the recorded figures, and the questions that have become slower."""
    lines, worse = [["question", "calls", "recorded", "time", "recorded"]], []
    for name, (calls, taken) in found.items():
        before = known.get("figures", {}).get(name)
        lines.append([name, f"{calls:,}", f"{before[0]:,}" if before else "", f"{taken:.2f}"])
        lines[-1].append(f"{before[1]:.2f}" if before else "")
        if before and (calls > MAX_CALLS * before[0] or taken > MAX_TIME * before[1]):
            worse.append(f"{name}: {calls / before[0]:.2f} times the calls, {taken / before[1]:.2f} times the time")
    return as_markdown(lines), worse


def main() -> None:
    """Measure, and compare or record."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--record", action="store_true", help=f"write the figures to {FILE.name}")
    args = parser.parse_args()
    known = json.loads(FILE.read_text()) if FILE.exists() else {}
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        path = str(Path(folder) / "tiles.zarr")
        LAYOUTS[1].sized("quick").write(path)
        found = measure(path)
    if args.record:
        FILE.write_text(json.dumps({"versions": versions(), "figures": found}, indent=1) + "\n")
    text, worse = report(found, known)
    print(text)
    if known and known["versions"] != versions():
        print(f"==> recorded with {known['versions']}, measured with {versions()}")
    for line in worse:
        print(f"==> SLOWER THAN RECORDED: {line}")
    if known and not worse:
        print("==> no question is slower than recorded")


if __name__ == "__main__":
    main()
