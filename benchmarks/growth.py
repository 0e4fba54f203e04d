"""Growth of time with streamed rows, chunks of a store, and its variables: ``python -m benchmarks.growth``.

A slope is that of a straight line through the logarithms of sizes and seconds: 1 is proportional, 0 is constant. Each
point is the best of several runs after a first one, in a separate process. If rainbear is installed, it runs the same
queries.
"""

import argparse
import os
import subprocess
import sys
import tempfile
import warnings
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import datetime
from functools import partial
from importlib.util import find_spec
from pathlib import Path
from time import perf_counter

import numpy as np
import polars as pl
import zarr

import rainbear_dask as rd
from benchmarks.planning import PLAIN, Grid
from benchmarks.processes import status
from benchmarks.run import as_markdown, conditions

DAY = 24
LATS, LONS = 181, 360
SMALL = (1, 100, 100)
"""Numbers of chunks of the stores, a hundred per time step."""

# Stores


def write_rows(path: Path, rows: int) -> None:
    """Write days of a global grid, one chunk each: the first as a file, the others as links to it."""
    days = max(1, round(rows / (DAY * LATS * LONS)))
    grid = Grid("rows", PLAIN, (days * DAY, LATS, LONS), (DAY, LATS, LONS))
    grid.write(path)
    values = np.random.default_rng(0).standard_normal(grid.chunks, dtype="float32")
    zarr.open_array(path / "v0")[:DAY] = 280 + values
    first = path / "v0/c/0/0/0"
    for day in range(1, days):
        other = path / f"v0/c/{day}/0/0"
        other.parent.mkdir(parents=True)
        os.link(first, other)


def write_chunks(path: Path, chunks: int) -> None:
    """Write consolidated metadata of this many chunks, and the chunks of the first step."""
    _write_grid(path, Grid("chunks", PLAIN, (chunks // 100, 1000, 1000), SMALL))


def write_variables(path: Path, variables: int) -> None:
    """Write consolidated metadata of this many variables, and the data of the first."""
    _write_grid(path, Grid("variables", PLAIN, (1, 1000, 1000), SMALL, variables=variables))


def _write_grid(path: Path, grid: Grid) -> None:
    grid.write(path)
    zarr.open_array(path / "v0")[0] = np.random.default_rng(0).standard_normal(grid.shape[1:], dtype="float32")
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # that version 3 does not name it yet
        zarr.consolidate_metadata(path)


# Queries

time, lat, lon, v0 = pl.col("time"), pl.col("lat"), pl.col("lon"), pl.col("v0")


def stream(lf: pl.LazyFrame) -> pl.DataFrame:
    """Make all rows, and release each frame."""
    return lf.select(pl.len(), v0.sum(), lat.sum(), lon.sum(), time.max()).collect(engine="streaming")


def box(lf: pl.LazyFrame) -> pl.DataFrame:
    """Query a box of about six chunks."""
    where = time == datetime(1900, 1, 1), lat.is_between(30, 50), lon.is_between(0, 40)
    return lf.filter(*where).select(*PLAIN, "v0").collect()


@dataclass(frozen=True)
class Growth:
    """One way to grow.

    Parameters
    ----------
    name : str
        Subject of the growth.
    unit : str
        Unit of the sizes.
    sizes : tuple of int
        Sizes to measure.
    write : callable
        Writes the store of a size to a path.
    ask : callable
        The query.
    rounds : int
        Runs that count. The best is the result.
    """

    name: str
    unit: str
    sizes: tuple[int, ...]
    write: Callable[[Path, int], None]
    ask: Callable[[pl.LazyFrame], pl.DataFrame]
    rounds: int = 5


GROWTHS = {
    each.name: each
    for each in (
        Growth("rows", "rows, streamed", (10**6, 10**7, 10**8, 5 * 10**8), write_rows, stream, rounds=1),
        Growth("chunks", "chunks in the store, one box asked", (10**2, 10**3, 10**4, 10**5, 10**6), write_chunks, box),
        Growth("variables", "variables in the store, one asked", (1, 10, 100, 1000), write_variables, box),
    )
}


# Measures


@dataclass(frozen=True)
class Series:
    """Best seconds, and peak MB, of one reader for each size."""

    reader: str
    unit: str
    sizes: tuple[int, ...]
    seconds: tuple[float, ...]
    peaks: tuple[float, ...]

    @property
    def slope(self) -> float:
        """Return the slope of the straight line through the logarithms."""
        return float(np.polyfit(np.log(self.sizes), np.log(self.seconds), 1)[0])


def scan_with(reader: str) -> Callable[[str], pl.LazyFrame]:
    if reader == "rainbear":
        import rainbear  # noqa: PLC0415  not on every Python

        return rainbear.scan_zarr
    # the subject is the plan of one variable, not a table of a thousand columns
    return partial(rd.scan_zarr, variables=["v0"])


READERS = ("rainbear_dask", "rainbear") if find_spec("rainbear") else ("rainbear_dask",)


def ask_here(growth: Growth, reader: str, path: str) -> tuple[float, float]:
    """Return the best seconds from the path to the result, and the peak MB of this process."""
    scan, times = scan_with(reader), []
    for _ in range(1 + growth.rounds):
        start = perf_counter()
        answer = growth.ask(scan(path))
        times.append(perf_counter() - start)
        assert answer.height > 0
    peak = status("VmHWM") / 1e6
    return min(times[1:]), peak


def ask_alone(growth: Growth, reader: str, path: Path) -> tuple[float, float]:
    """Return the same from a separate process."""
    command = [sys.executable, "-m", "benchmarks.growth", "--ask", growth.name, reader, str(path)]
    root = Path(__file__).parents[1]
    done = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)  # noqa: S603  our own command
    seconds, peak = map(float, done.stdout.split())
    return seconds, peak


def measure(growth: Growth, sizes: Sequence[int], folder: Path, ask: Callable = ask_alone) -> list[Series]:
    """Grow a store, and run all readers at each size."""
    found: dict[str, list[tuple[float, float]]] = {reader: [] for reader in READERS}
    for size in sizes:
        path = folder / f"{growth.name}-{size}.zarr"
        growth.write(path, size)
        for reader in READERS:
            found[reader].append(ask(growth, reader, path))
    return [
        Series(reader, growth.unit, tuple(sizes), *(tuple(column) for column in zip(*points, strict=True)))
        for reader, points in found.items()
    ]


def report(measured: Sequence[Series]) -> str:
    """Return a row for each size, and the slopes."""
    lines = [["grows", "size", *(f"{word} {reader}" for word in ("seconds", "MB") for reader in READERS)]]
    for i in range(0, len(measured), len(READERS)):
        group = measured[i : i + len(READERS)]
        for at, size in enumerate(group[0].sizes):
            seconds = (f"{each.seconds[at]:.3f}" for each in group)
            lines.append([group[0].unit, f"{size:,}", *seconds, *(f"{each.peaks[at]:.0f}" for each in group)])
        lines.append([group[0].unit, "slope", *(f"{each.slope:.2f}" for each in group), *("" for _ in group)])
    return as_markdown(lines)


def main() -> None:
    """Measure everything, print it, and draw it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--plot", type=Path, help="where to draw it")
    parser.add_argument("--ask", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.ask:
        name, reader, path = options.ask
        print(*ask_here(GROWTHS[name], reader, path))
        return
    measured: dict[str, list[Series]] = {}
    print(conditions(), flush=True)
    for growth in GROWTHS.values():
        with tempfile.TemporaryDirectory(prefix="growth-") as folder:
            measured[growth.name] = measure(growth, growth.sizes, Path(folder))
        print(f"\n{report(measured[growth.name])}", flush=True)
    print(f"\n{conditions()}")
    if options.plot:
        from benchmarks.plots import draw_growth  # noqa: PLC0415  of the benchmarks' own environment

        draw_growth(measured, options.plot)


if __name__ == "__main__":
    main()
