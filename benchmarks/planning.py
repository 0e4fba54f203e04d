"""Time and memory of planning, on stores of metadata and coordinates alone: ``python -m benchmarks.planning``.

Planning reads no chunk of data. So a store of any size needs only a few files: metadata and coordinates. Each case runs
in a separate process, twice: its memory is that of a process that only plans.
"""

import argparse
import subprocess
import sys
import tempfile
from collections.abc import Callable, Iterator
from dataclasses import dataclass, fields, replace
from functools import cached_property
from itertools import islice
from pathlib import Path
from time import perf_counter
from typing import Any

import numpy as np
import polars as pl
import zarr

from benchmarks.processes import status
from rainbear_dask.diagnostics.explain import as_text
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.planning.build import plan_scan
from rainbear_dask.table.open import open_table

HOUR = np.timedelta64(1, "h")
FIRST_TASKS = 100


@dataclass(frozen=True)
class Grid:
    """A store of float32 variables on one grid, hourly along time.

    Parameters
    ----------
    name : str
        Name in the table.
    dims : tuple of str
        ``time`` and two others.
    shape, chunks : tuple of int
        Along each dimension.
    variables : int
        Number of variables.
    curvilinear : bool
        Whether ``lat`` and ``lon`` have two dimensions, as on a map projection.
    """

    name: str
    dims: tuple[str, str, str]
    shape: tuple[int, int, int]
    chunks: tuple[int, int, int]
    variables: int = 1
    curvilinear: bool = False

    @cached_property
    def coordinates(self) -> dict[str, tuple[tuple[str, ...], np.ndarray, dict[str, Any]]]:
        """Return dimensions, values and attributes of each coordinate."""
        times, height, width = self.shape
        hours = np.arange(times, dtype="int64")
        found = {"time": (("time",), hours, {"units": "hours since 1900-01-01"})}
        lat, lon = np.linspace(90, -90, height), np.arange(width) * 360 / width
        if self.curvilinear:
            y, x = np.mgrid[-1 : 1 : height * 1j, -1 : 1 : width * 1j]
            lat, lon = 38 + 14 * y - 4 * x**2, -97 + 30 * x * (1 + 0.2 * y)
        along = self.dims[1:] if self.curvilinear else None
        return found | {
            "lat": (along or ("lat",), lat, {}),
            "lon": (along or ("lon",), lon, {}),
        }

    def write(self, path: Path) -> None:
        """Write metadata and coordinates, but no chunk of a variable."""
        group = zarr.open_group(path, mode="w", zarr_format=3)
        for name, (dims, values, attributes) in self.coordinates.items():
            group.create_array(name, data=values, chunks=values.shape, dimension_names=dims, attributes=attributes)
        linked = {"coordinates": "lat lon"} if self.curvilinear else {}
        for number in range(self.variables):
            group.create_array(
                f"v{number}",
                shape=self.shape,
                chunks=self.chunks,
                dtype="f4",
                dimension_names=self.dims,
                attributes=linked,
            )


PLAIN = ("time", "lat", "lon")
ERA5 = Grid("ERA5", PLAIN, (1_323_648, 721, 1440), (1, 721, 1440))
ERA5_10 = Grid("ERA5, 10 variables", PLAIN, (1_323_648, 721, 1440), (1, 721, 1440), variables=10)
MILLIONS = [Grid(f"{t // 100} M chunks", PLAIN, (t, 1000, 1000), (1, 10, 10)) for t in (100, 1_000, 10_000)]
PROJECTED = Grid("projected", ("time", "y", "x"), (10_000, 1059, 1799), (1, 150, 150), curvilinear=True)

time, lat, lon = pl.col("time"), pl.col("lat"), pl.col("lon")
DAY = np.datetime64("1900-01-03", "ns")
BOX = time.is_between(DAY, DAY + 24 * HOUR) & lat.is_between(40, 50) & lon.is_between(0, 20)
CIRCLE = (lat - 40) ** 2 + (lon + 100) ** 2 < 100


def some_times(grid: Grid, count: int) -> pl.Expr:
    """Filter ``count`` random times."""
    hours = np.random.default_rng(0).choice(grid.shape[0], min(count, grid.shape[0]), replace=False)
    return time.is_in(pl.Series(np.datetime64("1900-01-01", "ns") + hours * HOUR).implode())


@dataclass(frozen=True)
class Case:
    """A query to a store. ``ask`` returns its filter."""

    grid: Grid
    name: str
    ask: Callable[[Grid], pl.Expr | None]


CASES = [
    Case(ERA5, "everything", lambda _: None),
    Case(ERA5_10, "everything", lambda _: None),
    Case(ERA5, "a box", lambda _: BOX),
    Case(ERA5_10, "a box", lambda _: BOX),
    Case(ERA5, "month == 7", lambda _: time.dt.month() == 7),
    Case(ERA5, "hour == 7", lambda _: time.dt.hour() == 7),
    Case(ERA5, "is_in of 100,000", lambda grid: some_times(grid, 100_000)),
    Case(ERA5, "lat > 45 or hour == 7", lambda _: (lat > 45) | (time.dt.hour() == 7)),
    *(Case(grid, "everything", lambda _: None) for grid in MILLIONS),
    *(Case(grid, "a box", lambda _: BOX) for grid in MILLIONS),
    *(
        Case(grid, "a belt or every 3rd hour", lambda _: (lat.abs() < 10) | (time.dt.hour() % 3 == 0))
        for grid in MILLIONS
    ),
    Case(PROJECTED, "a circle", lambda _: CIRCLE),
    Case(PROJECTED, "a circle at hour == 7", lambda _: CIRCLE & (time.dt.hour() == 7)),
    Case(PROJECTED, "a circle or hour == 7", lambda _: CIRCLE | (time.dt.hour() == 7)),
]


@dataclass(frozen=True)
class Result:
    """One measurement.

    Parameters
    ----------
    chunks, kept, tasks : int
        Chunks of the variables, chunks that the plan keeps, and tasks.
    open, plan, explain, first_tasks : float
        Seconds to open the store, read coordinates and plan; to plan again; to count and report; to make the
        first 100 tasks.
    memory : float
        MB at the peak, beyond the libraries.
    """

    chunks: int
    kept: int
    tasks: int
    open: float
    plan: float
    explain: float
    first_tasks: float
    memory: float


def measure(case: Case, path: Path) -> Result:
    """Plan one query to an existing store."""
    before = status("VmRSS")
    predicate = case.ask(case.grid)
    start = perf_counter()
    table = open_table(open_store(str(path)))
    plan = plan_scan(table, predicate=predicate)
    opened = perf_counter() - start
    times = [
        _best(lambda: plan_scan(table, predicate=predicate)),
        _best(lambda: as_text(replace(plan), "threads")),  # a plan that has counted nothing yet
        _best(lambda: list(islice(replace(plan).tasks(), FIRST_TASKS))),
    ]
    return Result(
        plan.counts.num_chunks,
        plan.counts.num_chunks_kept,
        plan.counts.num_tasks,
        opened,
        *times,
        (status("VmHWM") - before) / 1e6,
    )


def _best(work: Callable[[], object]) -> float:
    """Return the seconds of the best of three runs."""
    times = []
    for _ in range(3):
        start = perf_counter()
        work()
        times.append(perf_counter() - start)
    return min(times)


def measured_alone(case: Case, path: Path) -> Result:
    """Return the same from a separate process."""
    command = [sys.executable, "-m", "benchmarks.planning", "--case", str(CASES.index(case)), "--store", str(path)]
    root = Path(__file__).parents[1]
    found = subprocess.run(command, cwd=root, check=True, capture_output=True, text=True)  # noqa: S603  our own command
    return Result(*(field.type(text) for field, text in zip(fields(Result), found.stdout.split(), strict=True)))


def report(measured: Iterator[tuple[Case, Result]]) -> Iterator[str]:
    """Return the lines of a table."""
    yield "| store | question | chunks | kept | tasks | first time | plan | explain | 100 tasks | MB |"
    yield "|---|---|--:|--:|--:|--:|--:|--:|--:|--:|"
    for case, found in measured:
        counts = " | ".join(f"{n:,}" for n in (found.chunks, found.kept, found.tasks))
        times = " | ".join(f"{s:.3f} s" for s in (found.open, found.plan, found.explain, found.first_tasks))
        yield f"| {case.grid.name} | {case.name} | {counts} | {times} | {found.memory:.0f} |"


def main() -> None:
    """Print a row for each case."""
    parser = argparse.ArgumentParser(description=__doc__)
    parser.add_argument("--case", type=int, help=argparse.SUPPRESS)
    parser.add_argument("--store", type=Path, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.store:
        found = measure(CASES[options.case], options.store)
        print(*(getattr(found, field.name) for field in fields(found)))
        return
    with tempfile.TemporaryDirectory(prefix="planning-") as folder:
        paths = {grid: Path(folder) / f"{number}.zarr" for number, grid in enumerate({c.grid: None for c in CASES})}
        for grid, path in paths.items():
            grid.write(path)
        for line in report((case, measured_alone(case, paths[case.grid])) for case in CASES):
            print(line, flush=True)


if __name__ == "__main__":
    main()
