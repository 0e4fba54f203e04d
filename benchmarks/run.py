"""Time and memory of queries to stores, beside rainbear, xarray-sql and xarray: ``python -m benchmarks.run``.

All readers run in one process, in turns, each from the address of the store to the result. The first run does not
count. Each result is compared with xarray's, and a wrong one gets no time. Peak memory and bytes read come from a
separate process.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Container, Iterable, Iterator, Sequence
from dataclasses import dataclass, field
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from math import inf
from pathlib import Path
from statistics import median
from typing import Any, Literal

import numpy as np
import polars as pl
import polars.selectors as cs
import xarray as xr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from benchmarks.geometries import GEOMETRIES, Geometry
from benchmarks.predicate_forms import planned
from benchmarks.problems import HOT, LAYOUTS, QUERIES, Layout, Query, Size, t2m
from benchmarks.processes import status

RESULTS = Path(__file__).parent / "results"
PEAKS = ("full scan", "value filter")
"""Queries on the four layouts with a measurement of memory."""
LARGE = 100_000
"""Number of rows above which tables are compared by a hash."""
PATIENCE: dict[Size, float] = {"full": 5.0, "quick": 0.5}
"""Seconds above which a reader runs once: its first time counts, and its memory is not measured."""

SUITES: dict[str, list[tuple[Layout | Geometry, Sequence[Query]]]] = {
    "layouts": [(layout, QUERIES) for layout in LAYOUTS],
    "geometries": [(geometry, geometry.queries) for geometry in GEOMETRIES],
}
"""Stores with their queries: layouts with targets, and geometries of public stores."""

# Readers: from the address of a store to the result, as a table of Polars or pandas


def lazily(path: str, query: Query) -> pl.LazyFrame:
    return query.polars(*(rd.scan_zarr(path, variables=names or None) for names in query.tables))


def ours(path: str, query: Query) -> Any:
    return lazily(path, query).collect()


def rainbear(path: str, query: Query) -> Any:
    from rainbear import scan_zarr  # noqa: PLC0415  not on every Python

    return query.polars(*(scan_zarr(path) for _ in query.tables)).collect()  # which cannot choose variables


def xarray_sql(path: str, query: Query) -> Any:
    from xarray_sql import arrow_dataset  # noqa: PLC0415  not on every Python

    with open_dataset(path) as ds:
        parts = (ds[list(names)] if names else ds for names in query.tables)
        return query.polars(*(pl.scan_pyarrow_dataset(arrow_dataset(part)) for part in parts)).collect()


def xarray(path: str, query: Query) -> Any:
    with open_dataset(path) as ds:
        return query.xarray(ds)


def open_dataset(path: str) -> xr.Dataset:
    consolidated = (Path(path) / ".zmetadata").exists()
    return xr.open_dataset(path, engine="zarr", consolidated=consolidated, chunks=None, decode_timedelta=True)


READERS: dict[str, Callable[[str, Query], Any]] = {
    "rainbear_dask": ours,
    "rainbear": rainbear,
    "xarray-sql": xarray_sql,
    "xarray": xarray,
}
for _name, _module in (("rainbear", "rainbear"), ("xarray-sql", "xarray_sql")):
    if find_spec(_module) is None:
        del READERS[_name]


# Measures


@dataclass
class Memory:
    """Memory of a process with one query, in MB: after opening the store, peak, of the result; and MB read."""

    opened: float
    peak: float
    answer: float
    read: float


@dataclass
class Measure:
    """Cost of one query for one reader.

    Parameters
    ----------
    layout, query, reader : str
        Their names.
    answer : {"right", "wrong", "none"}
        None if the reader raises.
    times : list of float
        Seconds, if the result is right.
    memory : Memory, optional
        Of a separate process.
    chunks : tuple of int, optional
        Kept by the plan, and of all variables, if the reader has a plan.
    """

    layout: str
    query: str
    reader: str
    answer: Literal["right", "wrong", "none"]
    times: list[float] = field(default_factory=list)
    memory: Memory | None = None
    chunks: tuple[int, int] | None = None

    @property
    def seconds(self) -> float:
        return min(self.times, default=inf)


def measure(path: str, layout: str, query: Query, *, rounds: int = 3, patience: float = 5.0) -> list[Measure]:
    """Run one query with all readers, in turns, and compare their results."""
    expected = _digest(_polars(xarray(path, query)), query)
    measures = [_first(path, layout, query, reader, expected, patience=patience) for reader in READERS]
    for _ in range(rounds):
        for each in measures:
            if each.answer == "right" and max(each.times, default=0) < patience:
                start = time.perf_counter()
                table = READERS[each.reader](path, query)
                each.times.append(time.perf_counter() - start)
                del table  # not during the next measurement
    return measures


def _first(path: str, layout: str, query: Query, reader: str, expected: pl.DataFrame, *, patience: float) -> Measure:
    """Return the first time, which counts only if it is long, and whether the result is right."""
    found = Measure(layout, query.name, reader, "right")
    try:
        if reader == "rainbear_dask":
            found.chunks = planned(lazily(path, query))
        start = time.perf_counter()
        table = READERS[reader](path, query)
        taken = time.perf_counter() - start
    except BaseException as err:  # Polars and rainbear panic with a BaseException
        if isinstance(err, KeyboardInterrupt | SystemExit):
            raise
        print(f"{reader} cannot answer {query.name} of {layout}: {' '.join(repr(err).split())[:300]}")
        found.answer = "none"
        return found
    if not is_right(path, query, _polars(table), expected):
        found.answer = "wrong"
    elif taken > patience:
        found.times = [taken]
    return found


def is_right(path: str, query: Query, table: pl.DataFrame, expected: pl.DataFrame) -> bool:
    """Whether a result is the expected one, in any order."""
    if query.any_rows:
        return table.height == expected.height and are_rows_of(path, table)
    try:
        assert_frame_equal(_digest(table, query), expected, check_dtypes=False, rel_tol=1e-5)
    except AssertionError:
        return False
    return True


def are_rows_of(path: str, table: pl.DataFrame) -> bool:
    """Whether all rows of a table are in a store, without duplicates."""
    with open_dataset(path) as ds:
        stored = ds.sel({dim: xr.Variable("row", table[dim].to_numpy()) for dim in ds.dims})
        same = all(np.array_equal(stored[name].values, table[name].to_numpy()) for name in ds.data_vars)
        return same and table.n_unique(list(ds.dims)) == table.height


def _polars(table: Any) -> pl.DataFrame:
    """Return a table with sorted columns, times in ns, and null for NaN."""
    if not isinstance(table, pl.DataFrame):
        table = pl.DataFrame({name: table[name].to_numpy() for name in table})
    return table.select(cs.by_name(sorted(table.columns))).with_columns(
        (cs.datetime() | cs.duration()).dt.cast_time_unit("ns"), cs.float().fill_nan(None)
    )


def _digest(table: pl.DataFrame, query: Query) -> pl.DataFrame:
    """Return the rows in one order. If they are many, return a hash that ignores order."""
    if table.height <= LARGE:
        return table.sort(query.keys or table.columns)
    return pl.DataFrame({"rows": [table.height], "hash": [str(np.add.reduce(table.hash_rows().to_numpy()))]})


def memory_of(path: str, layout: str, query: str, reader: str) -> Memory | None:
    """Run one query in a separate process. Return None if another reader's process dies, as some do at exit."""
    command = [sys.executable, "-m", "benchmarks.run", "--memory", reader, path, layout, query]
    root = Path(__file__).parents[1]
    ours = reader == "rainbear_dask"
    done = subprocess.run(command, cwd=root, check=ours, capture_output=True, text=True)  # noqa: S603  our own command
    if done.returncode:
        print(f"{reader}'s process for {query} of {layout} ended with {done.returncode}")
        return None
    return Memory(*map(float, done.stdout.split()[-4:]))


def print_memory(reader: str, path: str, layout: str, name: str) -> None:
    """Run a query twice, and print a `Memory`: memory of the first run, bytes of the second."""
    query = next(
        q for suite in SUITES.values() for s, queries in suite for q in queries if (s.name, q.name) == (layout, name)
    )
    lazily(path, query)
    opened = status("VmRSS") / 1e6
    table = READERS[reader](path, query)
    peak = status("VmHWM") / 1e6
    size = table.estimated_size() if isinstance(table, pl.DataFrame) else int(table.memory_usage().sum())
    del table
    before = _bytes_read()
    READERS[reader](path, query)  # all imports are done
    print(opened, peak, size / 1e6, (_bytes_read() - before) / 1e6)


def _bytes_read() -> int:
    """Return the bytes that this process has read from files, in the page cache or not, for Linux."""
    return int(Path("/proc/self/io").read_text().split("rchar:")[1].split()[0])


# Targets


@dataclass(frozen=True)
class Target:
    """What was to be reached, and what was."""

    layout: str
    what: str
    target: float
    reached: float
    at_most: bool = False

    @property
    def is_reached(self) -> bool:
        return self.reached <= self.target if self.at_most else self.reached >= self.target


def targets_of(measures: Iterable[Measure]) -> list[Target]:
    """Return rainbear's times over ours, beside the targets."""
    wanted = {query.name: query.target for query in QUERIES}
    seconds = {(each.layout, each.query, each.reader): each.seconds for each in measures}
    return [
        Target(layout, f"{query}: rainbear's time over ours", target, taken / seconds[layout, query, "rainbear_dask"])
        for (layout, query, reader), taken in seconds.items()
        if reader == "rainbear" and taken < inf and (target := wanted.get(query))
    ]


def targets_of_memory(path: str, layout: str, measures: Iterable[Measure]) -> list[Target]:
    """Return memory peaks beside their upper targets: of a full scan, and of a filter that keeps little."""
    known = {each.query: each.memory for each in measures if each.reader == "rainbear_dask"}
    scan, kept = (known[query] or memory_of(path, layout, query, "rainbear_dask") for query in PEAKS)
    assert scan
    assert kept
    task = rd.plan(path, t2m > HOT).task_bytes_at_most / 1e6
    return [
        Target(layout, "full scan: peak over the result", 1.25, scan.peak / scan.answer, at_most=True),
        Target(
            layout,
            "value filter: peak beyond the opened store, in tasks",
            3,
            (kept.peak - kept.opened) / task,
            at_most=True,
        ),
    ]


# Report


def as_markdown(lines: Sequence[Sequence[str]]) -> str:
    """Return a Markdown table. The first line is the header."""
    lines = [lines[0], ["---"] * len(lines[0]), *lines[1:]]
    widths = [max(len(line[i]) for line in lines) for i in range(len(lines[0]))]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def report(measures: Sequence[Measure]) -> str:
    """Return best and median seconds for each layout and query, with the best as a multiple of ours in brackets."""
    lines = [["layout", "query", "chunks", *READERS]]
    for row in _rows(measures):
        first = row["rainbear_dask"]
        chunks = f"{first.chunks[0]:,} of {first.chunks[1]:,}" if first.chunks else ""
        lines.append([first.layout, first.query, chunks, *(_time(each, first.seconds) for each in row.values())])
    return as_markdown(lines)


def report_memory(measures: Sequence[Measure]) -> str:
    """Return memory peaks and bytes read."""
    lines = [["layout", "query", *(f"MB {name}" for name in READERS), *(f"read by {name}" for name in READERS)]]
    for row in _rows(measures):
        memories = [each.memory for each in row.values()]
        if any(memories):
            first = row["rainbear_dask"]
            peaks = [f"{each.peak:,.0f}" if each else "" for each in memories]
            read = [f"{each.read:,.3g} MB" if each else "" for each in memories]
            lines.append([first.layout, first.query, *peaks, *read])
    return as_markdown(lines)


def report_targets(targets: Iterable[Target]) -> str:
    """What was to be reached, and what was."""
    lines = [["layout", "what", "target", "reached", ""]]
    for each in targets:
        bound = f"{'<=' if each.at_most else '>='} {each.target:g}"
        lines.append([each.layout, each.what, bound, f"{each.reached:.3f}", "yes" if each.is_reached else "no"])
    return as_markdown(lines)


def _rows(measures: Sequence[Measure]) -> Iterable[dict[str, Measure]]:
    """Return the results by reader, for each layout and query."""
    for i in range(0, len(measures), len(READERS)):
        yield {each.reader: each for each in measures[i : i + len(READERS)]}


def _time(each: Measure, unit: float) -> str:
    if each.answer != "right":
        return "wrong" if each.answer == "wrong" else "-"
    ratio = "" if each.reader == "rainbear_dask" or unit == inf else f" ({each.seconds / unit:.2g})"
    return f"{each.seconds:.3f} / {median(each.times):.3f} s{ratio}"


def measure_store(
    path: str, name: str, queries: Sequence[Query], size: Size, *, rounds: int, peaks: Container[str] = PEAKS
) -> Iterator[Measure]:
    """Measure an existing store and print the results, with the memory of the queries in `peaks`."""
    for query in queries:
        found = measure(path, name, query, rounds=rounds, patience=PATIENCE[size])
        for each in found:
            if each.seconds < PATIENCE[size] and query.name in peaks:
                each.memory = memory_of(path, name, query.name, each.reader)
        print(report(found).splitlines()[-1], flush=True)
        yield from found


def conditions() -> str:
    """Return date, machine, its load, and versions."""
    cpus = Path("/proc/cpuinfo").read_text().split("model name")[1].split("\n")[0].strip("\t :")
    packages = ["rainbear", "xarray-sql", "polars", "zarr", "numcodecs", "zstandard", "xarray", "numpy"]
    versions = ", ".join(f"{name} {version(name)}" for name in packages if find_spec(name.replace("-", "_")))
    load = ", ".join(f"{each:.1f}" for each in os.getloadavg())
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {len(os.sched_getaffinity(0))} x {cpus}, {platform.platform()}; "
        f"load {load} (of 1, 5, 15 minutes); Python {platform.python_version()}, {versions}"
    )


def choose_readers(names: Sequence[str] | None) -> None:
    """Compare only with some readers, and report missing ones."""
    for name in list(READERS):
        if names and name not in ("rainbear_dask", *names):
            del READERS[name]
    for name in names or ("rainbear", "xarray-sql"):
        if name not in READERS:
            print(f"==> without {name}, which is not installed; it needs Python 3.12 or newer")


def keep(text: str, measures: Sequence[Measure], suites: Sequence[str], plots: Path) -> None:
    """Write the results, and a figure of each suite."""
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}.md").write_text(text)
    if find_spec("matplotlib"):
        from benchmarks.plots import draw_ratios  # noqa: PLC0415  of the benchmarks' own environment

        for suite in suites:
            names = {store.name for store, _ in SUITES[suite]}
            draw_ratios([each for each in measures if each.layout in names], plots / f"{suite}.svg")


def main() -> None:
    """Measure everything, print it, and store it in ``results``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="smaller stores, and two peaks of memory for each layout")
    parser.add_argument("--suite", choices=SUITES, action="append", help="one of two; both, if none is named")
    parser.add_argument("--reader", action="append", help="one to compare with; all, if none is named")
    parser.add_argument("--rounds", type=int, default=3, help="times that count")
    parser.add_argument("--plots", type=Path, default=RESULTS, help="the folder for a picture of each suite")
    parser.add_argument("--memory", nargs=4, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.memory:
        print_memory(*options.memory)
        return
    choose_readers(options.reader)
    size: Size = "quick" if options.quick else "full"
    before = conditions()
    measures: list[Measure] = []
    targets: list[Target] = []
    for suite in options.suite or SUITES:
        for store, queries in SUITES[suite]:
            with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
                path = str(Path(folder) / "store.zarr")
                store.sized(size).write(path)
                peaks = PEAKS if suite == "layouts" else [query.name for query in queries if size == "full"]
                found = list(measure_store(path, store.name, queries, size, rounds=options.rounds, peaks=peaks))
                measures += found
                if suite == "layouts" and size == "full":
                    targets += targets_of(found) + targets_of_memory(path, store.name, found)
    text = f"{before}; {size} stores, best of {options.rounds}\n\n{report(measures)}\n\n{report_memory(measures)}\n"
    if targets:
        text += f"\n{report_targets(targets)}\n"
    keep(text, measures, options.suite or list(SUITES), options.plots)
    print(f"\n{text}\n{conditions()}")


if __name__ == "__main__":
    main()
