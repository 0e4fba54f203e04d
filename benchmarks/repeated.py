"""Many small queries to one kept backend, beside rainbear's: ``python -m benchmarks.repeated``.

Each query requests all 18 variables at one new cell. A cold backend is new, and a warm one has answered other queries.
Both packages take turns in one process. The best of several rounds counts, and all results are compared.
"""

import argparse
import asyncio
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from importlib.util import find_spec
from itertools import islice, product
from math import inf
from operator import and_
from pathlib import Path
from types import ModuleType
from typing import Any

import numpy as np
import polars as pl
import xarray as xr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from benchmarks.run import conditions

VARIABLES = tuple(f"v{number:02}" for number in range(18))


@dataclass(frozen=True)
class Store:
    """Float32 variables on one grid, and queries to it.

    Parameters
    ----------
    name : str
        Name in the table.
    sizes, chunks : mapping of str to int
        By dimension.
    projected : bool
        Whether it has latitudes and longitudes over its two dimensions.
    """

    name: str
    sizes: tuple[tuple[str, int], ...]
    chunks: tuple[int, ...]
    projected: bool = False

    def write(self, path: str) -> None:
        """Write the same data on each call."""
        sizes, rng = dict(self.sizes), np.random.default_rng(0)
        coords: dict[str, Any] = {dim: np.arange(size) * 3000.0 for dim, size in sizes.items()}
        if "time" in sizes:
            coords |= {
                "time": np.datetime64("2020-01-01", "ns") + np.arange(sizes["time"]) * np.timedelta64(1, "h"),
                "lat": np.linspace(90, -90, sizes["lat"]),
                "lon": np.arange(sizes["lon"]) * 360 / sizes["lon"],
            }
        if self.projected:
            y, x = np.meshgrid(coords["y"], coords["x"], indexing="ij")
            coords |= {"lat": (("y", "x"), 21 + y / 1e5), "lon": (("y", "x"), 230 + x / 1e5)}
        smooth = rng.standard_normal(tuple(sizes.values()), dtype="float32").round(2)
        data = {name: (tuple(sizes), smooth + number) for number, name in enumerate(VARIABLES)}
        encoding = {name: {"chunks": self.chunks} for name in VARIABLES}
        xr.Dataset(data, coords).to_zarr(path, zarr_format=3, consolidated=False, encoding=encoding)

    def questions(self, path: str, seed: int) -> list[pl.Expr]:
        """Return a filter for each of many distinct cells, in random order."""
        with xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as ds:
            labels = {dim: ds[dim].values for dim, _ in self.sizes}
        cells = np.random.default_rng(seed).permutation(np.prod([len(each) for each in labels.values()]))[:1000]
        places = np.unravel_index(cells, [len(each) for each in labels.values()])
        return [
            reduce(and_, (pl.col(dim) == pl.lit(labels[dim][i]) for dim, i in zip(labels, index, strict=True)))
            for index in zip(*places, strict=True)
        ]

    def shortened(self, size: int) -> "Store":
        """Return the store with fewer cells along each dimension."""
        return replace(
            self,
            sizes=tuple((dim, min(n, size)) for dim, n in self.sizes),
            chunks=tuple(min(n, size) for n in self.chunks),
        )


STORES = [
    Store("projected", (("y", 1059), ("x", 1799)), (265, 300), projected=True),
    Store("hourly", (("time", 96), ("lat", 181), ("lon", 360)), (24, 61, 120)),
]
COUNTS = (1, 10, 50)
WARM_UP = 100
"""Number of queries that a warm backend has answered."""

Ask = Callable[[Any, Sequence[pl.Expr]], list[pl.DataFrame]]


def synchronously(backend: Any, questions: Sequence[pl.Expr]) -> list[pl.DataFrame]:
    return [backend.scan_zarr_sync(question) for question in questions]


def awaited(backend: Any, questions: Sequence[pl.Expr]) -> list[pl.DataFrame]:
    async def ask() -> list[pl.DataFrame]:
        # rainbear does not treat a bare predicate as a filter
        return [await backend.scan_zarr_async(pl.col(VARIABLES).filter(question)) for question in questions]

    return asyncio.run(ask())


def lazily(package: ModuleType) -> Ask:
    def ask(backend: Any, questions: Sequence[pl.Expr]) -> list[pl.DataFrame]:
        return [package.scan_zarr(backend).filter(question).collect() for question in questions]

    return ask


@dataclass(frozen=True)
class Way:
    """The use of a package: a constructor of its backend, and a function for queries."""

    open: Callable[[str], Any]
    ask: Ask


def ways_of(package: ModuleType) -> dict[str, Way]:
    """Return the ways of a package by name. All packages have the same names."""
    return {
        "ZarrBackendSync": Way(package.ZarrBackendSync.from_url, synchronously),
        "ZarrBackend": Way(package.ZarrBackend.from_url, awaited),
        "scan_zarr(backend)": Way(package.ZarrBackendSync.from_url, lazily(package)),
    }


def packages() -> dict[str, ModuleType]:
    found: dict[str, ModuleType] = {"rainbear_dask": rd}
    if find_spec("rainbear"):
        import rainbear  # noqa: PLC0415  not on every Python

        found["rainbear"] = rainbear
    return found


@dataclass
class Measure:
    """Return the best seconds of each package for this many queries in one way."""

    store: str
    way: str
    count: int
    warm: bool
    seconds: dict[str, float]


def measure(path: str, store: Store, *, rounds: int = 5, counts: Sequence[int] = COUNTS) -> list[Measure]:
    """Run both packages in all ways, in turns, and compare their results."""
    asked = {name: ways_of(package) for name, package in packages().items()}
    measures = []
    for way, warm, count in product(ways_of(rd), (False, True), counts):
        found = Measure(store.name, way, count, warm, dict.fromkeys(asked, inf))
        fresh = iter(store.questions(path, seed=count))
        first = list(islice(fresh, WARM_UP))
        kept: dict[str, Any] = {}
        for _ in range(rounds):
            questions, answers = list(islice(fresh, count)), {}
            for name, ways in asked.items():
                if warm and name not in kept:
                    kept[name] = ways[way].open(path)
                    ways[way].ask(kept[name], first)
                start = time.perf_counter()
                backend = kept[name] if warm else ways[way].open(path)
                answers[name] = ways[way].ask(backend, questions)
                found.seconds[name] = min(found.seconds[name], time.perf_counter() - start)
            check(answers)
        measures.append(found)
    return measures


def check(answers: dict[str, list[pl.DataFrame]]) -> None:
    """Reject results that differ, or have more or fewer rows than one."""
    for each in zip(*answers.values(), strict=True):
        for answer in each:
            assert answer.height == 1
            assert_frame_equal(answer.select(VARIABLES), each[0].select(VARIABLES))


def report(measures: Sequence[Measure]) -> str:
    """Return a row for each way and state, with the multiple of the time of rainbear_dask in brackets."""
    counts = sorted({each.count for each in measures})
    lines = [
        ["store", "asked by", "backend", *(f"{n} question{'s' * (n > 1)}, {p}" for n in counts for p in packages())]
    ]
    lines.append(["---"] * 3 + ["--:"] * (len(lines[0]) - 3))
    for key in dict.fromkeys((each.store, each.way, each.warm) for each in measures):
        times = []
        for each in measures:
            if (each.store, each.way, each.warm) == key:
                ours = each.seconds["rainbear_dask"]
                times += [
                    f"{1000 * taken:.1f} ms" + (f" ({taken / ours:.2g})" if name != "rainbear_dask" else "")
                    for name, taken in each.seconds.items()
                ]
        lines.append([key[0], key[1], "warm" if key[2] else "cold", *times])
    return "\n".join(f"| {' | '.join(line)} |" for line in lines)


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--rounds", type=int, default=5)
    rounds = parser.parse_args().rounds
    measures: list[Measure] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        for store in STORES:
            path = str(Path(folder) / f"{store.name}.zarr")
            store.write(path)
            measures += measure(path, store, rounds=rounds)
    print(f"{conditions()}\n\n{report(measures)}")


if __name__ == "__main__":
    main()
