"""Aggregations answered where the chunks are, in units of the floor and beside others: ``python -m benchmarks.engine``.

Twelve queries to each layout of `problems.LAYOUTS`. The unit is the time to read and decode the chunks of the query's
variables into reused buffers (`floor.floor`), in the same run. Beside `rainbear_dask.collect` stand the plain
``lf.collect()``, Polars over the same table as one Parquet file, xarray with flox on threads, and rainbear, each if it is
installed. The ways take turns, and the best of some rounds counts. All answers are compared.
"""

import os
import tempfile
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from importlib.util import find_spec
from math import inf
from statistics import median
from typing import Any

import numpy as np
import polars as pl
import xarray as xr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from benchmarks.floor import Sample, floor, measure_stores, places
from benchmarks.problems import LAYOUTS, Layout, Size, lat, lon, t2m, time
from benchmarks.run import as_markdown

u10 = pl.col("u10")
weight = lat.radians().cos()
WARM = 290.5
"""Threshold, in K, between the means of low and of high latitudes."""


@dataclass(frozen=True)
class Question:
    """An aggregation.

    Parameters
    ----------
    name : str
        Name in the tables.
    polars : callable
        From the lazy table to the query.
    xarray : callable or None
        The same query to arrays, in idiomatic xarray.
    variables : int
        Number of variables that it reads.
    keys : tuple of str
        Columns that identify the rows of the answer.
    limit : float
        Multiple of the floor that is to be reached at most.
    """

    name: str
    polars: Callable[[pl.LazyFrame], pl.LazyFrame]
    xarray: Callable[[xr.Dataset], xr.Dataset | xr.DataArray] | None = None
    variables: int = 1
    keys: tuple[str, ...] = ()
    limit: float = 1.5


def _region(ds: xr.Dataset) -> xr.DataArray:
    return (np.floor(ds.lat / 30) * 10 + np.floor(ds.lon / 60)).rename("region")


QUESTIONS = [
    Question(
        "mean by lat",
        lambda lf: lf.group_by("lat").agg(t2m.mean()),
        lambda ds: ds.t2m.mean(["time", "lon"]),
        keys=("lat",),
    ),
    Question(
        "mean by lat, lon, hour",
        lambda lf: lf.group_by("lat", "lon", time.dt.hour().alias("hour")).agg(t2m.mean()),
        lambda ds: ds.t2m.groupby("time.hour").mean(),
        keys=("lat", "lon", "hour"),
        limit=2.0,
    ),
    Question(
        "weighted mean by time",
        lambda lf: lf.group_by("time").agg((t2m * weight).sum() / weight.sum()),
        lambda ds: ds.t2m.weighted(np.cos(np.radians(ds.lat))).mean(["lat", "lon"]),
        keys=("time",),
    ),
    Question(
        "std by lon",
        lambda lf: lf.group_by("lon").agg(t2m.std()),
        lambda ds: ds.t2m.std(["time", "lat"], ddof=1),
        keys=("lon",),
    ),
    Question(
        "mean by region",
        lambda lf: lf.group_by(((lat / 30).floor() * 10 + (lon / 60).floor()).alias("region")).agg(t2m.mean()),
        lambda ds: ds.t2m.groupby(_region(ds)).mean(),
        keys=("region",),
    ),
    Question(
        "count over a threshold by lat",
        lambda lf: lf.group_by("lat").agg((t2m > WARM).sum()),
        lambda ds: (ds.t2m > WARM).sum(["time", "lon"]),
        keys=("lat",),
    ),
    Question(
        "mean and max",
        lambda lf: lf.select(t2m.mean(), max=t2m.max()),
        lambda ds: xr.Dataset({"mean": ds.t2m.mean(), "max": ds.t2m.max()}),
    ),
    Question(
        "mean by month",
        lambda lf: lf.group_by(time.dt.month().alias("month")).agg(t2m.mean()),
        lambda ds: ds.t2m.groupby("time.month").mean(...),
        keys=("month",),
    ),
    Question(
        "four statistics of all variables by day",
        lambda lf: lf.group_by(time.dt.date().alias("day")).agg(
            pl.selectors.float().exclude("lat", "lon").mean().name.suffix("_mean"),
            pl.selectors.float().exclude("lat", "lon").std().name.suffix("_std"),
            pl.selectors.float().exclude("lat", "lon").min().name.suffix("_min"),
            pl.selectors.float().exclude("lat", "lon").max().name.suffix("_max"),
        ),
        variables=2,
        keys=("day",),
        limit=1.8,
    ),
    Question("warm cells by lat", lambda lf: lf.filter(t2m > WARM).group_by("lat").agg(t2m.mean()), keys=("lat",)),
    Question(
        "mean by band, hour",
        lambda lf: lf.group_by((lat / 10).floor().alias("band"), time.dt.hour().alias("hour")).agg(t2m.mean()),
        keys=("band", "hour"),
    ),
    Question(
        "mean by time",
        lambda lf: lf.group_by("time").agg(t2m.mean()),
        lambda ds: ds.t2m.mean(["lat", "lon"]),
        keys=("time",),
    ),
]


@dataclass(frozen=True)
class Result:
    """What a query took, each way.

    Parameters
    ----------
    layout, question : str
        Their names.
    limit : float
        Multiple of the floor that is to be reached at most.
    samples : dict of str to Sample
        By way; ``floor`` is the unit.
    """

    layout: str
    question: str
    limit: float
    samples: dict[str, Sample]

    def ratio(self, way: str) -> float:
        """Wall time of a way in units of the floor."""
        return self.samples[way].wall / self.samples["floor"].wall if way in self.samples else inf


WAYS = ["ours", "today", "parquet", "xarray", "rainbear"]


def measure(layout: Layout, path: str, parquet: str, question: Question, rounds: int) -> Result:
    """Measure one query each way, in turns, after a first time that does not count."""
    threads = len(os.sched_getaffinity(0))
    names = layout.variables[: question.variables]
    chunks = places(path, names, tuple(np.arange(n) for n in layout.shape))
    ways: dict[str, Callable[[], Any]] = {
        "floor": lambda: floor(path, chunks, threads),
        "ours": lambda: rd.collect(question.polars(rd.scan_zarr(path))),
        "today": lambda: question.polars(rd.scan_zarr(path)).collect(),
        "parquet": lambda: question.polars(pl.scan_parquet(parquet)).collect(),
    }
    if question.xarray is not None and find_spec("flox"):
        ask = question.xarray
        ways["xarray"] = lambda: ask(xr.open_zarr(path, consolidated=False, chunks={})).compute()
    if find_spec("rainbear"):
        from rainbear import scan_zarr  # noqa: PLC0415  needs Python 3.12

        ways["rainbear"] = lambda: question.polars(scan_zarr(path)).collect()
    expected = ways["parquet"]()
    for way in ("ours", "today"):
        check(ways[way](), expected, question.keys)
    for run in ways.values():
        run()
    samples = {way: Sample() for way in ways}
    for turn in range(rounds):
        for way in list(ways)[:: 1 if turn % 2 else -1]:
            samples[way].add(ways[way])
    return Result(layout.name, question.name, question.limit, samples)


def check(actual: pl.DataFrame, expected: pl.DataFrame, keys: Sequence[str]) -> None:
    """Compare two answers; Polars adds float32 up in float32."""
    if keys:
        actual, expected = actual.sort(keys), expected.sort(keys)
    assert_frame_equal(actual, expected, rel_tol=1e-3)


def report(results: Sequence[Result]) -> str:
    """A row for each query to each layout, and the medians."""
    ways = [way for way in WAYS if any(way in each.samples for each in results)]
    rows = [
        ["store", "query", "floor s (processor)", *(f"{way}: x floor (processor s)" for way in ways), "at most", ""]
    ]
    for each in results:
        unit = each.samples["floor"]
        cells = [
            f"{each.ratio(way):.2f} ({each.samples[way].processor:.2f})" if way in each.samples else "-" for way in ways
        ]
        reached = "yes" if each.ratio("ours") <= each.limit else "no"
        rows.append(
            [each.layout, each.question, f"{unit.wall:.3f} ({unit.processor:.2f})", *cells, f"{each.limit}", reached]
        )
    medians = [f"{median([each.ratio(way) for each in results if way in each.samples] or [inf]):.2f}" for way in ways]
    return as_markdown([*rows, ["median", "", "", *medians, "", ""]])


def write(layout: Layout, folder: str) -> tuple[str, str]:
    """Write a layout as Zarr, and its table as one Parquet file; return both addresses."""
    name = layout.name.replace(" ", "-")
    path, parquet = f"{folder}/{name}.zarr", f"{folder}/{name}.parquet"
    layout.write(path)
    rd.scan_zarr(path).sink_parquet(parquet)
    return path, parquet


def run(size: Size, rounds: int, words: Sequence[str] = ()) -> list[Result]:
    """Measure all layouts whose names have one of the words."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for layout in LAYOUTS:
            if words and not any(word in layout.name for word in words):
                continue
            sized = layout.sized(size)
            path, parquet = write(sized, folder)
            for question in QUESTIONS:
                results.append(measure(sized, path, parquet, question, rounds))
                print(report(results[-1:]).splitlines()[-2], flush=True)
    return results


def main() -> None:
    """Measure, and print the table."""
    measure_stores(__doc__, run, report, rounds=5)


if __name__ == "__main__":
    main()
