"""Time and memory of a few questions to a few layouts, beside rainbear and xarray: ``python -m benchmarks.run``.

All readers answer in one process, in turns, each from the address of the store to the answer, after a first time that
does not count; the best time is taken. Every answer is compared with xarray's: a wrong one gets no time. The peak of
memory is that of a process of its own, libraries included.
"""

import argparse
import os
import platform
import subprocess
import sys
import tempfile
import time
from collections.abc import Callable, Sequence
from dataclasses import dataclass
from datetime import UTC, datetime
from importlib.metadata import version
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import polars.selectors as cs
import xarray as xr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from benchmarks.problems import LAYOUTS, QUERIES, Query

RESULTS = Path(__file__).parent / "results"
QUICK_HOURS = 96
QUICK_PEAKS = ("full scan", "value filter")
LARGE = 100_000
"""Rows above which tables are compared by a hash."""

# Readers: from the address of a store to the answer, as a table of Polars or pandas


def ours(path: str, query: Query) -> Any:
    return query.polars(rd.scan_zarr(path)).collect()


def rainbear(path: str, query: Query) -> Any:
    from rainbear import scan_zarr  # noqa: PLC0415  not on every Python

    return query.polars(scan_zarr(path)).collect()


def xarray(path: str, query: Query) -> Any:
    with xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as ds:
        return query.xarray(ds)


READERS: dict[str, Callable[[str, Query], Any]] = {"rainbear_dask": ours, "rainbear": rainbear, "xarray": xarray}
if find_spec("rainbear") is None:
    del READERS["rainbear"]


# Measures


@dataclass
class Measure:
    """What one reader needed for one query."""

    layout: str
    query: str
    reader: str
    right: bool
    seconds: float = inf
    peak: float | None = None  # MB


def measure(path: str, layout: str, query: Query, *, rounds: int = 3) -> list[Measure]:
    """Ask all readers one query, in turns; the best of their times, and whether they are right."""
    expected = _digest(_polars(xarray(path, query)))
    measures = [Measure(layout, query.name, name, is_right(path, query, name, expected)) for name in READERS]
    for _ in range(rounds):
        for each in measures:
            if each.right:
                start = time.perf_counter()
                table = READERS[each.reader](path, query)
                each.seconds = min(each.seconds, time.perf_counter() - start)
                del table  # not while the next one is timed
    return measures


def is_right(path: str, query: Query, reader: str, expected: pl.DataFrame) -> bool:
    """Whether a reader gives the expected answer; one that raises does not."""
    try:
        table = _polars(READERS[reader](path, query))
    except Exception as err:  # noqa: BLE001  whatever a reader raises
        print(f"{reader}, {query.name} of {path}: {err!r:.200}")
        return False
    if query.any_rows:
        return table.height == expected.height and are_rows_of(path, table)
    try:
        assert_frame_equal(_digest(table), expected, check_dtypes=False, rel_tol=1e-5)
    except AssertionError:
        return False
    return True


def are_rows_of(path: str, table: pl.DataFrame) -> bool:
    """Whether all rows of a table are in a store, and none of them is there twice."""
    with xr.open_dataset(path, engine="zarr", consolidated=False, chunks=None) as ds:
        stored = ds.sel({dim: xr.Variable("row", table[dim].to_numpy()) for dim in ds.dims})
        same = all(np.array_equal(stored[name].values, table[name].to_numpy()) for name in ds.data_vars)
        return same and table.n_unique(list(ds.dims)) == table.height


def _polars(table: Any) -> pl.DataFrame:
    if not isinstance(table, pl.DataFrame):
        table = pl.DataFrame({name: table[name].to_numpy() for name in table})
    return table.select(cs.by_name(sorted(table.columns))).with_columns(cs.datetime().dt.cast_time_unit("ns"))


def _digest(table: pl.DataFrame) -> pl.DataFrame:
    """The rows in one order, or if they are many, a hash of them that knows no order."""
    if table.height <= LARGE:
        return table.sort(table.columns)
    return pl.DataFrame({"rows": [table.height], "hash": [str(np.add.reduce(table.hash_rows().to_numpy()))]})


def peak_memory(path: str, query: Query, reader: str) -> float:
    """Most memory, in MB, of a process that opens a store and asks one query."""
    command = [sys.executable, "-m", "benchmarks.run", "--peak", reader, path, query.name]
    done = subprocess.run(command, check=True, capture_output=True, text=True)  # noqa: S603  our own words
    return float(done.stdout)


def print_peak(reader: str, path: str, name: str) -> None:
    """Ask, and print the most memory that this process ever had, in MB; for Linux."""
    READERS[reader](path, next(query for query in QUERIES if query.name == name))
    # not ru_maxrss, which begins with that of the process that started this one
    status = Path("/proc/self/status").read_text()
    print(int(status.split("VmHWM:")[1].split()[0]) / 1000)


# Report


def report(measures: Sequence[Measure]) -> str:
    """A table with a row for each layout and query; in brackets, a multiple of the time of rainbear_dask."""
    others = [name for name in READERS if name != "rainbear_dask"]
    header = ["layout", "query", "rainbear_dask", *others, *(f"MB {name}" for name in READERS)]
    lines = [header, ["---"] * len(header)]
    for i in range(0, len(measures), len(READERS)):
        row = {each.reader: each for each in measures[i : i + len(READERS)]}
        first = row["rainbear_dask"]
        times = [_time(first), *(_time(row[name], first.seconds) for name in others)]
        peaks = ["" if each.peak is None else f"{each.peak:,.0f}" for each in row.values()]
        lines.append([first.layout, first.query, *times, *peaks])
    widths = [max(len(line[i]) for line in lines) for i in range(len(header))]
    return "\n".join("| " + " | ".join(c.ljust(w) for c, w in zip(line, widths, strict=True)) + " |" for line in lines)


def _time(each: Measure, unit: float = inf) -> str:
    if not each.right:
        return "wrong"
    return f"{each.seconds:.3f} s" + (f" ({each.seconds / unit:.2g})" if unit < inf else "")


def conditions() -> str:
    """Date, machine and versions."""
    cpus = Path("/proc/cpuinfo").read_text().split("model name")[1].split("\n")[0].strip("\t :")
    packages = ["rainbear", "polars", "zarr", "zarrs", "xarray", "numpy"]
    versions = ", ".join(f"{name} {version(name)}" for name in packages if find_spec(name))
    return (
        f"{datetime.now(UTC):%Y-%m-%d %H:%M} UTC; {len(os.sched_getaffinity(0))} x {cpus}, {platform.platform()}; "
        f"Python {platform.python_version()}, {versions}"
    )


def main() -> None:
    """Measure everything, print it, and keep it in ``results``."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="shorter stores, and two peaks of memory for each")
    parser.add_argument("--peak", nargs=3, help=argparse.SUPPRESS)
    options = parser.parse_args()
    if options.peak:
        print_peak(*options.peak)
        return
    if "rainbear" not in READERS:
        print("==> without rainbear, which needs Python 3.12 or newer")
    measures: list[Measure] = []
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        for layout in LAYOUTS:
            path = str(Path(folder) / f"{layout.name}.zarr")
            (layout.shortened(QUICK_HOURS) if options.quick else layout).write(path)
            for query in QUERIES:
                found = measure(path, layout.name, query)
                for each in found:
                    if each.right and (not options.quick or query.name in QUICK_PEAKS):
                        each.peak = peak_memory(path, query, each.reader)
                print(", ".join(f"{each.reader} {_time(each)}" for each in found), f"({layout.name}, {query.name})")
                measures += found
    size = f"{QUICK_HOURS} hours" if options.quick else "744 hours"
    text = f"{conditions()}; {size}\n\n{report(measures)}\n"
    RESULTS.mkdir(exist_ok=True)
    (RESULTS / f"{datetime.now(UTC):%Y-%m-%dT%H-%M-%S}.md").write_text(text)
    print(f"\n{text}")


if __name__ == "__main__":
    main()
