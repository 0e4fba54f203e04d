"""Aggregations with many groups, and in row space: ``python -m benchmarks.groups``.

Two stores of hourly values on a 0.25 degree grid, one with a step in a chunk, one with all steps, answer a climatology
of 25 million groups. Chunks are missing, so the fill value is all that is read, and memory and merging remain. Then a
cluster of two processes answers questions in row space, beside `lf.collect()`, which ships the rows. Memory is the
system's figure for each process, libraries included.
"""

import argparse
import os
import tempfile
from collections.abc import Callable
from pathlib import Path

import numpy as np
import polars as pl
import xarray as xr
import zarr
from distributed import Client, LocalCluster

import rainbear_dask as rd
from benchmarks.run import conditions
from benchmarks.streaming import measure

SHAPE = (744, 721, 1440)
LAYOUTS = {"a step": (1, 721, 1440), "all steps": (744, 16, 16)}
SMALL = (72, 61, 120)

x = pl.col("x")
QUESTIONS: dict[str, Callable[[pl.LazyFrame], pl.LazyFrame]] = {
    "by a condition": lambda table: table.group_by(hot=x > 0).agg(x.mean(), pl.len()),
    "first and last": lambda table: table.group_by("lat").agg(x.first(), last=x.last()),
    "distinct values": lambda table: table.group_by("time").agg((x * 10).cast(pl.Int16).n_unique()),
    "medians": lambda table: table.group_by("time").agg(x.median()),
}


def write(path: str, shape: tuple[int, ...], chunks: tuple[int, ...], *, filled: bool) -> None:
    """Write an hourly variable on a grid, with values or with its fill value alone."""
    coords = {
        "time": np.datetime64("2024-01-01", "ns") + np.arange(shape[0]) * np.timedelta64(1, "h"),
        "lat": np.linspace(90, -90, shape[1]),
        "lon": np.arange(shape[2]) * 360 / shape[2],
    }
    xr.Dataset(coords=coords).to_zarr(path, zarr_format=3, consolidated=False)
    group = zarr.open_group(path, mode="a")
    chunks = tuple(map(min, chunks, shape))
    array = group.create_array(
        "x", shape=shape, chunks=chunks, dtype="f4", fill_value=1.5, dimension_names=tuple(coords)
    )
    if filled:
        rng = np.random.default_rng(0)
        for start in range(0, shape[0], 24):
            array[start : start + 24] = rng.standard_normal(array[start : start + 24].shape).astype("f4")


def climatology(path: str) -> int:
    """Run a climatology by cell and hour batch by batch, and return the number of its groups."""
    table = rd.scan_zarr(path).group_by("lat", "lon", pl.col("time").dt.hour().alias("hour")).agg(x.mean())
    return sum(batch.height for batch in rd.rewrite(table).collect_batches())


def check(path: str, client: Client) -> None:
    """Assert that workers answer the questions in row space, as Polars does."""
    for ask in QUESTIONS.values():
        query = ask(rd.scan_zarr(path, client=client))
        assert rd.explain(query).split == ("rows",)
        key = query.collect_schema().names()[0]
        found, expected = rd.collect(query).sort(key), query.collect().sort(key)
        assert found.select(key).equals(expected.select(key))
        assert found.height == expected.height > 1


def main() -> None:
    """Measure and print."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="a coarse grid of three days")
    options = parser.parse_args()
    shape = SMALL if options.quick else SHAPE
    print(f"{conditions()}\n\n| question | time | peak of the client | peaks of the workers |\n|---|---|---|---|")
    with (
        tempfile.TemporaryDirectory(prefix="benchmarks-") as folder,
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as cluster,
        Client(cluster, set_as_default=False) as client,
    ):
        pids = [os.getpid(), *client.run(os.getpid).values()]
        for name, chunks in LAYOUTS.items():
            path = str(Path(folder) / f"{name}.zarr")
            write(path, shape, chunks, filled=False)
            measure(f"climatology, {name} in a chunk, threads", pids, lambda path=path: climatology(path))
            with client.as_current():
                measure(f"climatology, {name} in a chunk, workers", pids, lambda path=path: climatology(path))
        path = str(Path(folder) / "values.zarr")
        write(path, (shape[0], *SMALL[1:]), (24, *SMALL[1:]), filled=True)
        check(path, client)
        for name, ask in QUESTIONS.items():
            query = ask(rd.scan_zarr(path, client=client))
            measure(f"{name}, rows", pids, query.collect)
            measure(f"{name}, row space", pids, lambda query=query: rd.collect(query))


if __name__ == "__main__":
    main()
