"""A few queries on a cluster of two processes, beside threads and beside xarray: ``python -m benchmarks.cluster``.

All readers take turns in one process and on one cluster. The first run does not count, and the best time does. Each
result is compared with that of threads. Only the ratios of one run are meaningful.
"""

import argparse
import logging
import tempfile
import time
from collections.abc import Callable, Iterator
from contextlib import contextmanager
from pathlib import Path
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import xarray as xr
from distributed import Client, LocalCluster
from tornado.iostream import IOStream

import rainbear_dask as rd
from benchmarks.problems import HOT, LAYOUTS, QUERIES
from benchmarks.run import conditions

QUESTIONS = ("full scan", "box", "point series", "value filter", "mean by lat")
QUICK_HOURS = 96

# The queries of xarray: a Dask DataFrame on the same cluster, of the selection of its indexes


def _frame(ds: xr.Dataset) -> Any:
    return ds.to_dask_dataframe()


XARRAY: dict[str, Callable[[xr.Dataset], Any]] = {
    "full scan": _frame,
    "box": lambda ds: _frame(ds.sel(lat=slice(50, 30), lon=slice(0, 40), time=slice("2020-01-01", "2020-01-01"))),
    "point series": lambda ds: _frame(ds.sel(lat=[45], lon=[10])),
    "value filter": lambda ds: (frame := _frame(ds))[frame.t2m > HOT],
    "mean by lat": lambda ds: _frame(ds).astype({"t2m": "f8"}).groupby("lat").t2m.mean().reset_index(),
}
"""The mean is in float64, as in Polars."""

FILTERED: dict[str, Callable[[xr.Dataset], Any]] = {
    "box": lambda ds: (frame := _frame(ds))[
        frame.lat.between(30, 50) & frame.lon.between(0, 40) & (frame.time < pd.Timestamp("2020-01-02"))
    ],
    "point series": lambda ds: (frame := _frame(ds))[(frame.lat == 45) & (frame.lon == 10)],
}
"""The same queries as filters of the Dask DataFrame, as for the value."""


def ask_xarray(path: str, question: Callable[[xr.Dataset], Any], client: Client) -> pd.DataFrame:
    return question(xr.open_zarr(path, consolidated=False, chunks={})).compute(scheduler=client)


def ask(path: str, name: str, client: Client | None) -> pl.DataFrame:
    (query,) = [query for query in QUERIES if query.name == name]
    return query.polars(rd.scan_zarr(path, client=client)).collect()


def ask_active(path: str, name: str, client: Client) -> pl.DataFrame:
    with client.as_current():
        return ask(path, name, None)


# Measures


@contextmanager
def bytes_read() -> Iterator[list[int]]:
    """Count the bytes that this process reads from sockets."""
    counts: list[int] = []
    read_into = IOStream.read_into

    async def counting(stream: IOStream, *args: Any, **options: Any) -> int:
        counts.append(await read_into(stream, *args, **options))
        return counts[-1]

    IOStream.read_into = counting
    try:
        yield counts
    finally:
        IOStream.read_into = read_into


def digest(table: Any) -> tuple[int, float]:
    """Return the number of rows, and their mean of t2m."""
    return len(table), float(np.mean(np.asarray(table["t2m"], dtype="f8"))) if len(table) else 0.0


def measure(path: str, name: str, client: Client, rounds: int) -> str:
    """Return a row of the table: seconds on threads, cluster, active client and xarray; bytes on the wire."""
    ways: dict[str, Callable[[], Any]] = {
        "threads": lambda: ask(path, name, None),
        "cluster": lambda: ask(path, name, client),
        "active": lambda: ask_active(path, name, client),
        "xarray": lambda: ask_xarray(path, XARRAY[name], client),
    }
    if name in FILTERED:
        ways["filtered"] = lambda: ask_xarray(path, FILTERED[name], client)
    first: dict[str, float] = {}
    best = dict.fromkeys(ways, np.inf)
    wire = tidy = 0
    expected = digest(ways["threads"]())

    def is_long(way: str) -> bool:
        return way in PEERS and first[way] > LONG

    for turn in range(rounds + 1):
        for way, run in ways.items():
            if turn and is_long(way):
                continue
            with bytes_read() as counts:
                start = time.perf_counter()
                table = run()
                first[way] = time.perf_counter() - start
            assert np.allclose(digest(table), expected, rtol=1e-5), (name, way)
            if turn or is_long(way):
                best[way] = min(best[way], first[way])
            if way == "cluster":
                wire, tidy = sum(counts), table.estimated_size()
            del table
    ours = best["cluster"]
    cells = [
        f"{best['threads']:.2f} s",
        f"{ours:.2f} s ({ours / best['threads']:.1f})",
        f"{best['active']:.2f} s ({best['active'] / best['threads']:.1f})",
        *(f"{best[way]:.2f} s ({best[way] / ours:.1f})" if way in best else "" for way in PEERS),
        f"{wire / 1e6:,.2f} MB",
        f"{wire / tidy:.2f}" if name in TIDY else "",
    ]
    return " | ".join(cells)


TIDY = ("full scan", "box")
"""Queries with large results, sent as the workers make them."""

PEERS = ("xarray", "filtered")
LONG = 8
"""Seconds above which one run of a peer is enough."""


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter stores")
    parser.add_argument("--rounds", type=int, default=3)
    options = parser.parse_args()
    print(f"{conditions()}\n")
    print(
        "| layout | query | threads | cluster (of threads) | active (of threads) | xarray (of cluster) | filtered | wire | of tidy |"
    )
    print("|---|---|---|---|---|---|---|---|---|")
    logging.getLogger("distributed.shuffle").setLevel(logging.ERROR)
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as cluster,
        Client(cluster, set_as_default=False) as client,  # otherwise the runs on threads would find it
    ):
        for layout in LAYOUTS[:2]:
            path = str(Path(folder) / f"{layout.name}.zarr")
            (layout.shortened(QUICK_HOURS) if options.quick else layout).write(path)
            for name in QUESTIONS:
                print(f"| {layout.name} | {name} | {measure(path, name, client, options.rounds)} |", flush=True)


if __name__ == "__main__":
    main()
