"""Scans in units of the floor: the time to read and decode the same chunks into buffers that are reused.

``python -m benchmarks.floor`` measures the floor and the questions in turns, in one process. The floor does not use this
package: it reads files and decodes them with numcodecs or zstandard on as many threads as there are processors, one buffer
of stored and one of decoded bytes for each thread. Full scans have a second unit: the floor plus 1.3 times the time in
which NumPy writes the result once, into memory that is new to the process.
"""

import argparse
import os
import tempfile
import threading
import time
from collections.abc import Callable, Sequence
from concurrent.futures import ThreadPoolExecutor
from dataclasses import dataclass, replace
from itertools import product
from pathlib import Path
from typing import Any, TypeVar

import numpy as np
import polars as pl
import xarray as xr
import zarr
import zstandard
from numcodecs import blosc, gzip, zstd
from zarr.codecs import BloscCodec, GzipCodec, ZstdCodec

import rainbear_dask as rd
from benchmarks.problems import HOT, LAYOUTS, Layout, Size, lat, lon, t2m
from benchmarks.run import as_markdown, conditions

SMALL_BYTES = 2**17
"""Decoded bytes of a chunk below which zstandard, with a context for each thread, is faster than numcodecs."""

PACKED = {"dtype": "int16", "scale_factor": 0.01, "add_offset": 280.0, "_FillValue": -32768}


@dataclass(frozen=True)
class Store:
    """A layout with a codec.

    Parameters
    ----------
    name : str
        Name in the tables.
    layout : Layout
        Shape, chunks, shards and variables.
    compressor : codec or None
        Codec of zarr.
    packed : bool
        Whether values are stored as int16 with a scale and an offset.
    """

    name: str
    layout: Layout
    compressor: Any = None
    packed: bool = False

    def write(self, path: str) -> None:
        """Write the data."""
        encoding: dict[str, Any] = {"chunks": self.layout.chunks, "compressors": self.compressor}
        if self.layout.shards:
            encoding["shards"] = self.layout.shards
        if self.packed:
            encoding |= PACKED
        encodings = dict.fromkeys(self.layout.variables, encoding)
        self.layout.dataset().to_zarr(path, zarr_format=3, consolidated=False, encoding=encodings)


SLABS, TILES, SMALL, SHARD = LAYOUTS
STORES = [
    Store("slabs, zstd", SLABS, ZstdCodec()),
    Store("tiles, zstd", TILES, ZstdCodec()),
    Store("small chunks, zstd", SMALL, ZstdCodec()),
    Store("shard, zstd", SHARD, ZstdCodec()),
    Store("tiles, blosc", TILES, BloscCodec(cname="lz4", shuffle="shuffle")),
    Store("tiles, gzip", TILES, GzipCodec(level=1)),
    Store("tiles, none", TILES),
    Store("tiles, packed int16", TILES, ZstdCodec(), packed=True),
]


Positions = tuple[np.ndarray[Any, Any], ...]
"""Positions along each dimension."""


@dataclass(frozen=True)
class Question:
    """A question, and the chunks that it cannot do without.

    Parameters
    ----------
    name : str
        Name in the tables.
    polars : callable
        From the lazy table to the question.
    floor : callable
        From the variables of a store to those that are decoded whole for the unit.
    needed : callable, optional
        From the layout to the positions along each dimension whose chunks are read; by default all.
    limit : float
        Multiple of the floor that is to be reached at most.
    is_written : bool
        Whether the unit holds the time to write the result once.
    is_late : bool
        Whether the unit holds those chunks of the other variables that hold a row of the answer.
    """

    name: str
    polars: Callable[[pl.LazyFrame], pl.LazyFrame]
    floor: Callable[[Sequence[str]], Sequence[str]] = lambda names: names[:1]
    needed: Callable[[Layout], Positions] = lambda layout: tuple(np.arange(n) for n in layout.shape)
    limit: float = 1.5
    is_written: bool = False
    is_late: bool = False


def _noon_near_the_equator(layout: Layout) -> Positions:
    times, lats, lons = (np.arange(n) for n in layout.shape)
    return times[times % 24 == 12], lats[np.abs(np.linspace(90, -90, len(lats))) <= 10], lons


def _point(layout: Layout) -> Positions:
    """All times at 45 N, 10 E."""
    times, lats, lons = (np.arange(n) for n in layout.shape)
    return times, lats[np.linspace(90, -90, len(lats)) == 45], lons[lons * 360 == 10 * len(lons)]


QUESTIONS = [
    Question("value filter, one variable", lambda lf: lf.select("time", "lat", "lon", "t2m").filter(t2m > HOT)),
    Question("value filter, all variables", lambda lf: lf.filter(t2m > HOT), is_late=True),
    Question(
        "noon near the equator",
        lambda lf: lf.filter(pl.col("time").dt.hour() == 12, lat.abs() <= 10).select("time", "lat", "lon", "t2m"),
        needed=_noon_near_the_equator,
        limit=1.6,
    ),
    Question(
        "point series",
        lambda lf: lf.filter(lat == 45, lon == 10),
        floor=lambda names: names,
        needed=_point,
        limit=1.3,
    ),
    Question("full scan", lambda lf: lf, floor=lambda names: names, limit=1.0, is_written=True),
]


# The floor


class Reader:
    """Reads and decodes chunks on one thread, into buffers of its own."""

    def __init__(self, array: zarr.Array[Any]) -> None:
        self.size = int(np.prod(array.chunks)) * array.dtype.itemsize
        self.stored, self.values = np.empty(2 * self.size + 4096, "u1"), np.empty(self.size, "u1")
        inner = array.metadata.codecs[0].codecs if array.shards else array.metadata.codecs
        self.decode = self._decoder({type(codec).__name__ for codec in inner})

    def _decoder(self, names: set[str]) -> Callable[[Any], object]:
        context = zstandard.ZstdDecompressor()
        if "ZstdCodec" in names and self.size < SMALL_BYTES:
            return lambda raw: self._copied(context.decompress(raw))
        if "ZstdCodec" in names:
            return lambda raw: zstd.decompress(raw, self.values)
        if "BloscCodec" in names:
            return lambda raw: blosc.decompress(raw, self.values)
        if "GzipCodec" in names:
            return lambda raw: self._copied(gzip.GZip().decode(raw))
        return self._copied

    def _copied(self, raw: Any) -> None:
        self.values[:] = np.frombuffer(raw, "u1")

    def read(self, file: int, start: int | None, length: int) -> None:
        """Read one chunk of an open file, and decode it."""
        part = self.stored[:length]
        assert os.preadv(file, [part.data], start or 0) == length
        self.decode(part.data)


def places(
    path: str, names: Sequence[str], needed: Positions, *, are_cells: bool = False
) -> list[tuple[str, str, int | None, int]]:
    """Find the chunks of some variables at the positions: variable, file, first byte in a shard, stored bytes.

    The positions are those of single cells, or their product is meant.
    """
    found = []
    for name in names:
        array = zarr.open_array(path, path=name, mode="r")
        along = [p // c for p, c in zip(needed, array.chunks, strict=True)]
        indices = zip(*along, strict=True) if are_cells else product(*(np.unique(one) for one in along))
        for index in sorted({tuple(int(i) for i in index) for index in indices}):
            corner = [i * c for i, c in zip(index, array.chunks, strict=True)]
            unit = array.shards or array.chunks
            key = array.metadata.encode_chunk_key(tuple(f // u for f, u in zip(corner, unit, strict=True)))
            file = f"{path}/{name}/{key}"
            if array.shards is None:
                found.append((name, file, None, Path(file).stat().st_size))
            else:
                found.append((name, file, *_span(file, array, corner)))
    return sorted(found, key=lambda place: (place[0], place[1], place[2] or 0))


def _span(file: str, array: zarr.Array[Any], corner: Sequence[int]) -> tuple[int, int]:
    """Where in a shard a chunk is; the index is at its end, with a checksum."""
    counts = [s // c for s, c in zip(array.shards, array.chunks, strict=True)]
    inner = [f % s // c for f, s, c in zip(corner, array.shards, array.chunks, strict=True)]
    if file not in _indexes:
        size = 16 * int(np.prod(counts))
        with Path(file).open("rb") as shard:
            shard.seek(-size - 4, os.SEEK_END)
            _indexes[file] = np.frombuffer(shard.read(size), "<u8").reshape(*counts, 2)
    start, length = _indexes[file][tuple(inner)].tolist()
    return start, length


_indexes: dict[str, Any] = {}


def floor(path: str, chunks: Sequence[tuple[str, str, int | None, int]], threads: int) -> None:
    """Read and decode chunks, each thread the next one that is left."""
    arrays = {name: zarr.open_array(path, path=name, mode="r") for name in {name for name, *_ in chunks}}
    todo, lock = iter(chunks), threading.Lock()

    def work() -> None:
        readers = {name: Reader(array) for name, array in arrays.items()}
        shards: dict[str, int] = {}
        try:
            while True:
                with lock:
                    place = next(todo, None)
                if place is None:
                    return
                name, file, start, length = place
                if start is not None:
                    if file not in shards:
                        shards[file] = os.open(file, os.O_RDONLY)
                    readers[name].read(shards[file], start, length)
                    continue
                opened = os.open(file, os.O_RDONLY)
                try:
                    readers[name].read(opened, None, length)
                finally:
                    os.close(opened)
        finally:
            for opened in shards.values():
                os.close(opened)

    with ThreadPoolExecutor(threads) as pool:
        for done in [pool.submit(work) for _ in range(threads)]:
            done.result()


def write_once(columns: Sequence[tuple[int, int]], threads: int) -> None:
    """Write columns of some bytes once, each thread a part of each, into memory that is new to the process."""

    def fill(part: np.ndarray[Any, Any]) -> None:
        part[:] = 1

    with ThreadPoolExecutor(threads) as pool:
        for rows, width in columns:
            column = np.empty(rows * width, "u1")
            list(pool.map(fill, np.array_split(column, threads)))


# Measuring


@dataclass
class Sample:
    """Wall and processor seconds of one way, best of some rounds."""

    wall: float = float("inf")
    processor: float = float("inf")

    def add(self, run: Callable[[], object]) -> None:
        """Run once."""
        wall, processor = time.perf_counter(), time.process_time()
        run()
        self.wall = min(self.wall, time.perf_counter() - wall)
        self.processor = min(self.processor, time.process_time() - processor)


@dataclass(frozen=True)
class Result:
    """What a question took, beside its floor."""

    store: str
    question: Question
    chunks: int
    floor: Sample
    written: Sample
    ours: Sample

    @property
    def ratio(self) -> float:
        """Our wall time in units of the floor; of a full scan the unit is floor + 1.3 x write."""
        return self.ours.wall / (self.floor.wall + 1.3 * self.written.wall * self.question.is_written)


def measure(store: Store, path: str, question: Question, rounds: int) -> Result:
    """Measure one question and its floor, in turns; the first time of each does not count."""
    threads = len(os.sched_getaffinity(0))
    chunks = places(path, question.floor(store.layout.variables), question.needed(store.layout))
    lf = question.polars(rd.scan_zarr(path))
    answer = lf.collect()
    if question.is_late:
        chunks += places(path, store.layout.variables[1:], cells_of(path, answer), are_cells=True)
    columns = [(answer.height, answer[name].estimated_size() // max(answer.height, 1)) for name in answer.columns]
    assert answer.height == xarray_rows(path, question), (store.name, question.name)
    del answer
    ways: dict[str, tuple[Sample, Callable[[], object]]] = {
        "floor": (Sample(), lambda: floor(path, chunks, threads)),
        "ours": (Sample(), lambda: question.polars(rd.scan_zarr(path)).collect()),
    }
    if question.is_written:
        ways["written"] = (Sample(), lambda: write_once(columns, threads))
    for _, run in ways.values():
        run()
    for turn in range(rounds):
        for sample, run in list(ways.values())[:: 1 if turn % 2 else -1]:
            sample.add(run)
    written = ways["written"][0] if question.is_written else Sample(0, 0)
    return Result(store.name, question, len(chunks), ways["floor"][0], written, ways["ours"][0])


def cells_of(path: str, answer: pl.DataFrame) -> Positions:
    """Positions of the rows of an answer along each dimension."""
    with xr.open_zarr(path, consolidated=False, chunks=None) as ds:
        return tuple(
            np.searchsorted(
                -ds[dim].values if dim == "lat" else ds[dim].values,
                -answer[dim].to_numpy() if dim == "lat" else answer[dim].to_numpy(),
            )
            for dim in ("time", "lat", "lon")
        )


def xarray_rows(path: str, question: Question) -> int:
    """Rows of the answer, counted by Polars on the frame that xarray makes."""
    with xr.open_zarr(path, consolidated=False, chunks=None) as ds:
        table = pl.from_pandas(ds.to_dataframe().reset_index()).lazy()
        return int(question.polars(table).select(pl.len()).collect().item())


def report(results: Sequence[Result]) -> str:
    """A row for each question to each store."""
    rows = [["store", "question", "chunks", "floor s (processor)", "ours s (processor)", "x floor", "at most", ""]]
    for each in results:
        unit = f"{each.floor.wall:.3f} ({each.floor.processor:.2f})"
        if each.question.is_written:
            unit += f" + 1.3 x {each.written.wall:.3f}"
        reached = "yes" if each.ratio <= each.question.limit else "no"
        ours = f"{each.ours.wall:.3f} ({each.ours.processor:.2f})"
        name = each.question.name
        rows.append(
            [each.store, name, f"{each.chunks:,}", unit, ours, f"{each.ratio:.2f}", f"{each.question.limit}", reached]
        )
    return as_markdown(rows)


def run(size: Size, rounds: int, words: Sequence[str] = ()) -> list[Result]:
    """Measure all stores whose names have one of the words."""
    results = []
    with tempfile.TemporaryDirectory() as folder:
        for store in STORES:
            if words and not any(word in store.name for word in words):
                continue
            sized = replace(store, layout=store.layout.sized(size))
            path = f"{folder}/{store.name.replace(', ', '-').replace(' ', '-')}.zarr"
            sized.write(path)
            for question in QUESTIONS:
                results.append(measure(sized, path, question, rounds))
                print(report(results[-1:]).splitlines()[-1], flush=True)
    return results


R = TypeVar("R")


def measure_stores(
    description: str | None,
    run: Callable[[Size, int, Sequence[str]], list[R]],
    report: Callable[[Sequence[R]], str],
    *,
    rounds: int,
) -> None:
    """Read the command line of a benchmark in units of the floor, measure, and print the table."""
    parser = argparse.ArgumentParser(description=description, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two days instead of a month")
    parser.add_argument("--rounds", type=int, default=rounds)
    parser.add_argument("--stores", nargs="*", default=[], help="words of which a store's name has one")
    args = parser.parse_args()
    results = run("quick" if args.quick else "full", args.rounds, args.stores)
    print(f"\n{conditions()}\n\n{report(results)}")


def main() -> None:
    """Measure, and print the table."""
    measure_stores(__doc__, run, report, rounds=7)


if __name__ == "__main__":
    main()
