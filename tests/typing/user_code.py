"""A user's code, which ``make types`` checks: what each public call takes and gives. Nothing runs it."""

from collections.abc import Iterator
from datetime import timedelta
from pathlib import Path
from typing import Any, Unpack, assert_type

import dask.dataframe as dd
import obstore.store
import polars as pl
import pystac
import zarr.storage
from dask.delayed import Delayed

import rainbear_dask as rd
from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.diagnostics.explanation import Explanation
from rainbear_dask.typing import ScanOptions, StoreLike


def scans(path: Path) -> None:
    """Every kind of source, and every option."""
    assert_type(rd.scan_zarr("s3://bucket/era5.zarr", storage_options={"anon": True}), pl.LazyFrame)
    assert_type(rd.scan_zarr(path, variables=["t2m"], group="a/b", prefix="c", decode=False), pl.LazyFrame)
    assert_type(rd.scan_zarr(zarr.storage.MemoryStore(), mask=False, max_chunks_to_read=5), pl.LazyFrame)
    assert_type(rd.scan_zarr(obstore.store.MemoryStore(), max_rows=1, max_bytes=2), pl.LazyFrame)
    assert_type(rd.tables(path, prefix="c", max_rows=5), dict[rd.TableKey, pl.LazyFrame])
    assert_type(rd.scan_zarr(path, time_unit="us"), pl.LazyFrame)
    rd.scan_zarr(path, time_unit="s")  # type: ignore[arg-type]
    assert_type(rd.scan_zarr({"href": "a.zarr"}), pl.LazyFrame)
    assert_type(rd.scan_zarr(pystac.Asset("a.zarr")), pl.LazyFrame)
    assert_type(rd.sql("SELECT * FROM t WHERE x > :a", params={"a": 1}, t=path), pl.LazyFrame)
    assert_type(rd.explain(rd.scan_zarr(path)), Explanation)
    assert_type(rd.explain(rd.scan_zarr(path)).chunks_kept, int)
    rd.scan_zarr(path, varaibles=["t2m"])  # type: ignore[call-arg]
    rd.scan_zarr(path, variables=3)  # type: ignore[arg-type]
    rd.scan_zarr(3)  # type: ignore[arg-type]
    rd.plan(path, varaibles=["t2m"])  # type: ignore[call-arg]
    rd.plan(path, group=3)  # type: ignore[arg-type]
    rd.tables(path, variables=["t2m"])  # type: ignore[call-arg]


def warm(source: StoreLike, **options: Unpack[ScanOptions]) -> pl.LazyFrame:
    """A function of a user that hands on the options."""
    return rd.scan_zarr(source, **options).filter(pl.col("t2m") > 290)


def regions(path: Path, frame: pl.DataFrame) -> None:
    """Geometry in expressions, and statistics over polygons."""
    assert_type(rd.geo.within("POLYGON ((0 0, 1 1, 1 0, 0 0))", "x", pl.col("y"), boundary="exclude"), pl.Expr)
    assert_type(rd.geo.dwithin((5.1, 52.1), meters=50e3) & rd.geo.intersects_bbox(0, 0, 1, 1), pl.Expr)
    assert_type(rd.geo.point() if frame.height else rd.geo.cell("w", "s", 5, pl.col("n")), pl.Expr)
    assert_type(rd.geo.transform("x", "y", 32633, "EPSG:4326"), pl.Expr)
    assert_type(rd.zonal(path, {"a": b""}, "t2m", stats=("mean", "quantile(q=0.9)"), weights="area"), pl.LazyFrame)
    assert_type(rd.zonal(rd.scan_zarr(path), frame, ["t2m"], stats="max", by="name", lon="x", lat="y"), pl.LazyFrame)
    rd.zonal(path, frame, weights="centre")  # type: ignore[arg-type]
    rd.geo.within(b"", boundary="inside")  # type: ignore[arg-type]


def points(path: Path) -> None:
    """Values at points."""
    stations = pl.DataFrame({"lat": [52.4], "lon": [4.9]})
    assert_type(
        rd.sample(path, stations, {"latitude": "lat"}, method="linear", tolerance={"latitude": 0.5}), pl.LazyFrame
    )
    assert_type(
        rd.sample(rd.scan_zarr(path), stations.lazy(), wrap=None, distance="far", coordinates=True), pl.LazyFrame
    )
    rd.sample(
        path, stations, method={"lat": "linear", "lon": "nearest"}, outside="nearest", tolerance=timedelta(hours=1)
    )
    rd.sample(path, stations, method="lineer")  # type: ignore[arg-type]
    rd.sample(path, 3)  # type: ignore[arg-type]


def plans(path: Path) -> None:
    """A plan and its exits."""
    plan = rd.plan(path, pl.col("t2m") > 290, ["t2m"], n_rows=5, variables=["t2m"])
    assert_type(plan, ScanPlan)
    assert_type(plan.collect(), pl.DataFrame)
    assert_type(plan.frames(ordered=False), Iterator[pl.DataFrame])
    assert_type(plan.map_partitions(lambda frame: frame.height), Iterator[int])
    assert_type(plan.to_delayed(), list[Delayed])
    assert_type(plan.to_dask_dataframe(index="time", dtype_backend="pyarrow"), dd.DataFrame)
    assert_type(plan.num_chunks_kept, int)
    plan.to_pandas(dtype_backend="arrow")  # type: ignore[arg-type]


def data_frames(path: Path) -> None:
    """Dask DataFrames."""
    assert_type(rd.read_zarr(path, [("lat", ">", 45)], ["t2m"], "time", mask=False), dd.DataFrame)
    assert_type(rd.to_dask_dataframe(rd.scan_zarr(path), categories=["lat"]), dd.DataFrame)


async def backends(path: Path) -> None:
    """Backends, which are sources too."""
    options = rd.BackendOptions(coord_cache_max_entries=5)
    backend = rd.ZarrBackend.from_url(path, options)
    assert_type(backend, rd.ZarrBackend)
    assert_type(await backend.scan_zarr_async(pl.col("t2m") > 290), pl.DataFrame)
    assert_type(await backend.cache_stats(), dict[str, Any])
    sync = rd.ZarrBackendSync.from_store(zarr.storage.MemoryStore())
    assert_type(sync, rd.ZarrBackendSync)
    assert_type(sync.scan_zarr_sync(pl.col("t2m") > 290), pl.DataFrame)
    assert_type(sync.scan_zarr_streaming_sync(), Iterator[pl.DataFrame])
    assert_type(await rd.IcechunkBackend.from_filesystem(path), rd.IcechunkBackend)
    assert_type(await rd.scan_zarr_async(backend, None), pl.DataFrame)
    assert_type(rd.scan_zarr(sync), pl.LazyFrame)
    assert_type(sync.schema(), dict[str, pl.DataType])


def rest() -> None:
    """What is left."""
    assert_type(rd.__version__, str)
    with rd.progress():
        pass
    rd.exceptions.UnknownOptionError("a message")
