"""Filters on values with and without statistics of chunks: ``python -m benchmarks.statistics``.

Questions with and without statistics take turns in one process. The best of several rounds counts, and all results are
compared. "collecting" is compared with a full scan of the same variable. "opening" reads the statistics of 100,000
chunks, and evaluates a condition on them.
"""

import argparse
import io
import shutil
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from datetime import UTC, datetime
from math import ceil, inf
from pathlib import Path

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from benchmarks.problems import LAYOUTS, Layout, Size, t2m
from benchmarks.run import conditions
from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.planning.intervals import Bounds, may_hold
from rainbear_dask.statistics.form import ChunkStatistics, Subject, read_statistics, write_statistics

STORES = [layout for layout in LAYOUTS if layout.name != "shard"]
KEPT = 0.02
"""Share of the chunks that hold a rare value."""


@dataclass(frozen=True)
class Measure:
    """Seconds of one question."""

    store: str
    question: str
    plain: float
    known: float
    note: str = ""


def measure(path: str, store: str, rounds: int = 3) -> list[Measure]:
    """Measure a store without statistics; it has statistics afterwards."""
    plain = rd.scan_zarr(path, statistics=False).select("time", "lat", "lon", "t2m")
    scanned, collected = inf, inf
    for _ in range(rounds):
        scanned = min(scanned, timed(lambda: plain.select(t2m).collect()))
        shutil.rmtree(Path(path, "t2m", ".rainbear"), ignore_errors=True)
        collected = min(collected, timed(lambda: rd.analyze(path, "t2m")))
    tops = rd.analyze(path, "t2m").frames["t2m"]["max"].sort(descending=True)
    rare = float(tops[min(ceil(KEPT * len(tops)), len(tops) - 1)])
    questions: dict[str, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
        "rare values": lambda lf: lf.filter(t2m > rare),
        "no value": lambda lf: lf.filter(t2m > 1000),
        "values everywhere": lambda lf: lf.filter(t2m > 303),
        "greatest value": lambda lf: lf.select(t2m.max()),
    }
    found = [Measure(store, "collecting", scanned, collected, f"{len(tops):,} chunks")]
    for name, ask in questions.items():
        seconds = {"plain": inf, "known": inf}
        for _ in range(rounds):
            rows = {}
            for option, statistics in (("plain", False), ("known", "auto")):
                query = ask(rd.scan_zarr(path, statistics=statistics).select("time", "lat", "lon", "t2m"))
                start = time.perf_counter()
                rows[option] = rd.collect(query)
                seconds[option] = min(seconds[option], time.perf_counter() - start)
            assert_frame_equal(rows["known"], rows["plain"])
        kept = rd.explain(ask(rd.scan_zarr(path).select("t2m"))).chunks_kept
        found.append(Measure(store, name, seconds["plain"], seconds["known"], f"{kept:,} chunks"))
    return found


def timed(work: Callable[[], object]) -> float:
    start = time.perf_counter()
    work()
    return time.perf_counter() - start


def opening(counts: tuple[int, int, int] = (1000, 10, 10), rounds: int = 5) -> float:
    """Return the seconds to read the statistics of many chunks, and to evaluate a condition on them."""
    grid = ChunkGrid(("t", "y", "x"), tuple(4 * count for count in counts), (4, 4, 4))
    rng, n = np.random.default_rng(0), grid.num_chunks
    rows = pl.DataFrame(
        {
            "min": rng.normal(size=n).astype("f4"),
            "max": rng.normal(3, size=n).astype("f4"),
            "nulls": np.zeros(n, "i8"),
            "nans": np.zeros(n, "i8"),
            "count": np.full(n, 64),
            "stamp": rng.integers(0, 2**62, n),
            "size": rng.integers(0, 2**12, n),
        }
    )
    subject, file = Subject(grid.chunks, "", "", "files"), io.BytesIO()
    write_statistics(ChunkStatistics(rows, datetime.now(UTC)), subject, "a", grid, file)

    def open_and_ask() -> None:
        found = read_statistics(file.getvalue(), subject, grid, pl.Float32())
        assert found is not None
        none = np.zeros(n, dtype=bool)
        may_hold(t2m > 6, Bounds(found.rows["min"], found.rows["max"], none, none), outcome=True)

    return min(timed(open_and_ask) for _ in range(rounds))


def report(measures: list[Measure]) -> str:
    lines = ["| store | question | without | with | ratio | kept |", "|---|---|---|---|---|---|"]
    for each in measures:
        ratio = each.plain / each.known
        lines.append(
            f"| {each.store} | {each.question} | {each.plain:.3f} s | {each.known:.3f} s | {ratio:.1f} | {each.note} |"
        )
    return "\n".join(lines)


def write(layout: Layout, folder: str) -> str:
    path = str(Path(folder, layout.name.replace(" ", "-")))
    layout.write(path)
    return path


def main() -> None:
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="stores of two days")
    parser.add_argument("--rounds", type=int, default=3)
    args = parser.parse_args()
    size: Size = "quick" if args.quick else "full"
    print(conditions())
    measures = []
    with tempfile.TemporaryDirectory() as folder:
        for layout in STORES:
            measures += measure(write(layout.sized(size), folder), layout.name, args.rounds)
    print(report(measures))
    print(f"opening the statistics of 100,000 chunks: {1e3 * opening():.1f} ms")


if __name__ == "__main__":
    main()
