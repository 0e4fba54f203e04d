"""Joins, orders and windows of unmodified queries beside plain ``collect()``: ``python -m benchmarks.queries``.

Each query to each layout of `problems.LAYOUTS`, by `rainbear_dask.collect` and by ``lf.collect()`` in turns. The best of
some rounds counts, and all answers are compared. ``max`` stands for the time to read and decode. The table shows the
chunks that the scans of each way read.
"""

import argparse
import tempfile
from collections.abc import Callable
from dataclasses import dataclass
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from benchmarks.problems import LAYOUTS, Size, lat, t2m, time
from benchmarks.run import as_markdown
from rainbear_dask.query.io_source import plans_of


@dataclass(frozen=True)
class Query:
    """A query, and whether the order of its rows counts."""

    name: str
    ask: Callable[[pl.LazyFrame], pl.LazyFrame]
    ordered: bool = True


def queries(lf: pl.LazyFrame) -> list[Query]:
    """Return the queries; tables of keys are made of labels of the store."""
    labels = {name: lf.select(pl.col(name).unique().sort()).collect().to_series() for name in ("time", "lat", "lon")}
    rng = np.random.default_rng(0)

    def keys(count: int, *names: str) -> pl.LazyFrame:
        rows = {name: labels[name].gather(rng.integers(0, len(labels[name]), count)) for name in names}
        return pl.LazyFrame(rows).unique(maintain_order=True).with_row_index("id")

    ships, places, days = keys(1000, "time", "lat", "lon"), keys(20, "lat", "lon"), keys(3, "time")
    many = keys(100_000, "time", "lat", "lon")
    seen = days.select(seen=pl.col("time") + pl.duration(minutes=7).cast(pl.Duration("ns"))).sort("seen")
    hour = time.dt.hour()
    return [
        Query("max", lambda t: t.select(t2m.max())),
        Query("join 1,000 positions of ships", lambda t: ships.join(t, on=["time", "lat", "lon"], how="left"), False),
        Query("join 100,000 positions", lambda t: t.join(many, on=["time", "lat", "lon"], how="semi")),
        Query("join 20 places", lambda t: t.join(places, on=["lat", "lon"]).select("id", "time", "t2m"), False),
        Query("semi join of 3 steps", lambda t: t.join(days, on="time", how="semi").select("lat", "t2m")),
        Query(
            "nearest of 3 steps",
            lambda t: seen.join_asof(
                t.filter(lat == labels["lat"][0], pl.col("lon") == labels["lon"][0]), left_on="seen", right_on="time"
            ),
        ),
        Query("top 10", lambda t: t.top_k(10, by="t2m")),
        Query("first 10 by time and t2m", lambda t: t.sort("time", "t2m", descending=[True, False]).head(10)),
        Query("top 10 by two keys", lambda t: t.top_k(10, by=["t2m", "lat"])),
        Query("anomaly of hour, aggregated", lambda t: t.select((t2m - t2m.mean().over("lat", hour)).std())),
        Query(
            "SQL: IN (SELECT ..)",
            lambda t: pl.SQLContext(era=t, days=days).execute(
                "SELECT lat, max(t2m) AS t2m FROM era WHERE time IN (SELECT time FROM days) GROUP BY lat ORDER BY lat"
            ),
        ),
    ]


def main() -> None:
    """Print a table for each layout."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--quick", action="store_true", help="a smaller store, one round")
    quick = parser.parse_args().quick
    size: Size = "quick" if quick else "full"
    lines = [HEADER]
    for layout in LAYOUTS:
        with tempfile.TemporaryDirectory() as folder:
            store = Path(folder) / "era5.zarr"
            layout.sized(size).write(store)
            lines += [[layout.name, *line] for line in measure(rd.scan_zarr(store), 1 if quick else 3)]
    print(as_markdown(lines))


HEADER = ["layout", "query", "rd.collect", "collect", "chunks of both"]


def measure(lf: pl.LazyFrame, rounds: int) -> list[list[str]]:
    """Return for each query its name, the seconds of both ways, and the chunks that they read."""
    lines = []
    for query in queries(lf):
        asked = query.ask(lf)
        best = {"rd.collect": np.inf, "collect": np.inf}
        ways: dict[str, Callable[[], pl.DataFrame]] = {
            "rd.collect": lambda asked=asked: rd.collect(asked, engine="in-memory"),  # type: ignore[misc]
            "collect": lambda asked=asked: asked.collect(engine="in-memory"),  # type: ignore[misc]
        }
        answers = {}
        for _ in range(rounds):
            for name, run in ways.items():
                start = perf_counter()
                answers[name] = run()
                best[name] = min(best[name], perf_counter() - start)
        assert_frame_equal(*answers.values(), check_row_order=query.ordered, rel_tol=1e-4, abs_tol=1e-3)
        chunks = [str(sum(plan.counts.num_chunks_kept for plan in plans_of(one))) for one in (rd.rewrite(asked), asked)]
        lines.append([query.name, *(f"{seconds:.3f} s" for seconds in best.values()), " / ".join(chunks)])
    return lines


if __name__ == "__main__":
    main()
