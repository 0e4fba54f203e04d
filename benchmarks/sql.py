"""Nine geospatial jobs as LazyFrames, as SQL text, and by xarray-sql: ``python -m benchmarks.sql``.

The jobs come from xarray-sql's documentation, on synthetic stores: a scene of satellite bands, an analysis, a forecast
with its truth, a projected grid. The ways take turns, and the best of some rounds counts. All answers are compared. A way
that is not installed is left out. ``--quick`` takes smaller stores and two rounds.
"""

import argparse
import tempfile
import time
from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from importlib.util import find_spec
from math import inf
from pathlib import Path
from typing import Any

import numpy as np
import polars as pl
import xarray as xr

import rainbear_dask as rd
from benchmarks.run import as_markdown

c = pl.col
REGIONS = pl.DataFrame(
    {
        "region": [0, 1, 2, 3, 4, 5],
        "south": [10.0, 20, -30, 40, -60, 0],
        "north": [30.0, 50, 0, 70, -40, 10],
        "west": [10.0, 100, 200, 240, 20, 300],
        "east": [60.0, 140, 250, 290, 100, 320],
    }
)
UTM, LONLAT = "EPSG:32610", "EPSG:4326"
PERIOD = (
    "time BETWEEN TIMESTAMP '2020-06-01 00:00:00' AND TIMESTAMP '2020-06-02 23:00:00' "
    "AND latitude BETWEEN 25 AND 50 AND longitude BETWEEN 235 AND 290"
)
IN_PERIOD = (
    c("time").is_between(pl.datetime(2020, 6, 1), pl.datetime(2020, 6, 2, 23))
    & c("latitude").is_between(25, 50)
    & c("longitude").is_between(235, 290)
)
DAY = pl.datetime(2020, 6, 2)


@dataclass(frozen=True)
class Job:
    """A query, in the ways that know it.

    Parameters
    ----------
    name : str
        Name in the table.
    lazy : callable
        From the lazy tables, by name, to the query.
    sql : str
        The same in Polars' SQL.
    column : str
        A column of the answer, by which answers are compared.
    theirs : str
        The same in xarray-sql's; by default equal to ``sql``.
    tables : tuple of str
        Frames that are not stores.
    """

    name: str
    lazy: Callable[[Mapping[str, pl.LazyFrame]], pl.LazyFrame]
    sql: str
    column: str
    theirs: str = ""
    tables: tuple[str, ...] = field(default=())


def _anomaly(tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    mean = c("t2m").mean().over("latitude", "longitude", c("time").dt.hour())
    return tables["era"].filter(IN_PERIOD).select("time", "latitude", "longitude", anomaly=c("t2m") - mean)


def _skill(tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    forecast = tables["forecast"].with_columns(valid=c("time") + c("lead"))
    keys = ["valid", "latitude", "longitude"]
    joined = forecast.join(tables["truth"].rename({"time": "valid", "t": "e"}), on=keys)
    return joined.group_by("model", "lead").agg(rmse=((c("t") - c("e")) ** 2).mean().sqrt())


def _regions(tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
    day = tables["era"].filter(c("time") < DAY)
    return pl.concat(
        day.filter(c("latitude").is_between(south, north), c("longitude").is_between(west, east)).select(
            region=pl.lit(region), mean=c("t2m").mean()
        )
        for region, south, north, west, east in REGIONS.iter_rows()
    )


def _regrid(store: str, y: str, x: str) -> Callable[[Mapping[str, pl.LazyFrame]], pl.LazyFrame]:
    def lazy(tables: Mapping[str, pl.LazyFrame]) -> pl.LazyFrame:
        joined = tables[store].join(tables[f"{store}_weights"], on=[y, x])
        return joined.group_by("id").agg(z=(c("v") * c("w")).sum())

    return lazy


def _regrid_sql(store: str, y: str, x: str) -> str:
    return (
        f"SELECT w.id, SUM(s.v * w.w) AS z FROM {store} s JOIN {store}_weights w "  # noqa: S608  our own text
        f"ON s.{y} = w.{y} AND s.{x} = w.{x} GROUP BY w.id"
    )


_ANOMALY_SQL = (
    "WITH a AS (SELECT *, {hour} AS h FROM era WHERE {period}), "
    "m AS (SELECT latitude, longitude, h, AVG(t2m) AS mean FROM a GROUP BY latitude, longitude, h) "
    "SELECT a.time, a.latitude, a.longitude, a.t2m - m.mean AS anomaly FROM a JOIN m "
    "ON a.latitude = m.latitude AND a.longitude = m.longitude AND a.h = m.h"
)
_POINT = rd.geo.transform("x", "y", UTM, LONLAT)

JOBS = [
    Job(
        "NDVI",
        lambda tables: tables["scene"].select("y", "x", ndvi=(c("nir") - c("red")) / (c("nir") + c("red"))),
        "SELECT y, x, (nir - red) / (nir + red) AS ndvi FROM scene",
        "ndvi",
    ),
    Job(
        "climatology by hour",
        lambda tables: (
            tables["era"]
            .filter(IN_PERIOD)
            .group_by("latitude", "longitude", c("time").dt.hour().alias("h"))
            .agg(mean=c("t2m").mean())
        ),
        "SELECT latitude, longitude, EXTRACT(HOUR FROM time) AS h, AVG(t2m) AS mean "  # noqa: S608  our own text
        f"FROM era WHERE {PERIOD} GROUP BY latitude, longitude, EXTRACT(HOUR FROM time)",
        "mean",
    ),
    Job(
        "zonal mean of a day",
        lambda tables: tables["era"].filter(c("time") < DAY).group_by("latitude").agg(mean=c("t2m").mean()),
        "SELECT latitude, AVG(t2m) AS mean FROM era WHERE time < TIMESTAMP '2020-06-02 00:00:00' GROUP BY latitude",
        "mean",
    ),
    Job(
        "anomaly",
        _anomaly,
        _ANOMALY_SQL.format(hour="EXTRACT(HOUR FROM time)", period=PERIOD),
        "anomaly",
    ),
    Job(
        "skill of a forecast",
        _skill,
        "WITH f AS (SELECT *, time + lead AS valid FROM forecast) "
        "SELECT f.model, f.lead, SQRT(AVG(POWER(f.t - e.t, 2))) AS rmse FROM f JOIN truth e ON e.time = f.valid "
        "AND e.latitude = f.latitude AND e.longitude = f.longitude GROUP BY f.model, f.lead",
        "rmse",
    ),
    Job(
        "means of regions",
        _regions,
        "SELECT r.region, AVG(e.t2m) AS mean FROM era e JOIN regions r ON e.latitude BETWEEN r.south AND r.north "
        "AND e.longitude BETWEEN r.west AND r.east WHERE e.time < TIMESTAMP '2020-06-02 00:00:00' GROUP BY r.region",
        "mean",
        tables=("regions",),
    ),
    Job(
        "reprojection",
        lambda tables: tables["projected"].select("y", "x", _POINT).unnest("point", separator="_"),
        "SELECT y, x, point_x FROM projected_points",
        "point_x",
        f"SELECT y, x, reproject(x, y, '{UTM}', '{LONLAT}')['x'] AS point_x FROM projected",  # noqa: S608  our own text
    ),
    Job(
        "regridding",
        _regrid("source", "lat", "lon"),
        _regrid_sql("source", "lat", "lon"),
        "z",
        tables=("source_weights",),
    ),
    Job("warp", _regrid("projected", "y", "x"), _regrid_sql("projected", "y", "x"), "z", tables=("projected_weights",)),
]


# ---------------------------------------------------------------------- stores


def write_stores(folder: Path, scale: int) -> dict[str, str]:
    """Write the stores; ``scale`` divides the lengths of their dimensions. Return their paths by name."""
    rng = np.random.default_rng(0)
    hour = np.timedelta64(1, "h").astype("m8[ns]")
    hours = np.datetime64("2020-06-01", "ns") + np.arange(48) * hour
    runs = np.datetime64("2020-01-01", "ns") + np.arange(60 // scale) * 6 * hour
    side, wide = 1024 // scale, 300 // scale
    globe = {"latitude": np.linspace(-87, 87, 32 // scale), "longitude": np.arange(64 // scale) * 5.625 * scale}
    grids: dict[str, tuple[dict[str, Any], tuple[str, ...], tuple[int, ...]]] = {
        "scene": (
            {"y": 5e6 - 10.0 * np.arange(side), "x": 3e5 + 10.0 * np.arange(side)},
            ("red", "nir"),
            (256, 256),
        ),
        "era": (
            {"time": hours, "latitude": np.linspace(90, -90, 181 // scale), "longitude": np.arange(0.0, 360, scale)},
            ("t2m",),
            (6, 181, 360),
        ),
        "truth": ({"time": runs} | globe, ("t",), (10, 32, 64)),
        "forecast": (
            {"model": np.arange(2), "time": runs[: len(runs) // 2], "lead": np.arange(1, 21) * 6 * hour} | globe,
            ("t",),
            (1, 4, 20, 32, 64),
        ),
        "projected": (
            {"y": 4.1e6 - 500.0 * scale * np.arange(wide), "x": 5e5 + 500.0 * scale * np.arange(wide)},
            ("v",),
            (100, 100),
        ),
        "source": ({"lat": np.linspace(0, 9.9, 100), "lon": np.linspace(0, 9.9, 100)}, ("v",), (50, 50)),
    }
    paths = {}
    for name, (axes, variables, chunks) in grids.items():
        shape = tuple(map(len, axes.values()))
        fields = {each: (tuple(axes), rng.random(shape, dtype="f4")) for each in variables}
        fitting = tuple(min(pair) for pair in zip(chunks, shape, strict=True))
        paths[name] = str(folder / f"{name}.zarr")
        encoding = {each: {"chunks": fitting} for each in variables}
        xr.Dataset(fields, axes).to_zarr(paths[name], encoding=encoding, zarr_format=3, consolidated=False)
    return paths


def frames_of(paths: Mapping[str, str]) -> dict[str, pl.DataFrame]:
    """Return the frames beside the stores: regions, and bilinear weights of other grids."""
    projected, source = (xr.open_zarr(paths[name], consolidated=False) for name in ("projected", "source"))
    y, x = projected.y.values[::-1], projected.x.values
    inner = _points(y[1], y[-2], x[1], x[-2], 100)
    return {
        "regions": REGIONS,
        "source_weights": _weights(source.lat.values, source.lon.values, *_points(0.05, 9.8, 0.05, 9.8, 200)),
        "projected_weights": _weights(y, x, *inner).rename({"lat": "y", "lon": "x"}),
    }


def _points(south: float, north: float, west: float, east: float, count: int) -> list[np.ndarray]:
    grid = np.meshgrid(np.linspace(south, north, count), np.linspace(west, east, count), indexing="ij")
    return [axis.ravel() for axis in grid]


def _weights(lat: np.ndarray, lon: np.ndarray, at_lat: np.ndarray, at_lon: np.ndarray) -> pl.DataFrame:
    """Return four corners of each point, with their weights."""
    i = np.clip(np.searchsorted(lat, at_lat, side="right") - 1, 0, len(lat) - 2)
    j = np.clip(np.searchsorted(lon, at_lon, side="right") - 1, 0, len(lon) - 2)
    up, right = (at_lat - lat[i]) / (lat[i + 1] - lat[i]), (at_lon - lon[j]) / (lon[j + 1] - lon[j])
    corners = [
        {
            "id": np.arange(len(i)),
            "lat": lat[i + a],
            "lon": lon[j + b],
            "w": (up if a else 1 - up) * (right if b else 1 - right),
        }
        for a in (0, 1)
        for b in (0, 1)
    ]
    return pl.concat(map(pl.DataFrame, corners))


# ---------------------------------------------------------------------- ways


def ways_of(job: Job, paths: Mapping[str, str], frames: Mapping[str, pl.DataFrame]) -> dict[str, Callable[[], Any]]:
    """Return the ways of a job: each opens its stores and gives the values of one column."""

    def lazy() -> pl.Series:
        tables = {name: rd.scan_zarr(path) for name, path in paths.items()}
        query = job.lazy(tables | {name: frame.lazy() for name, frame in frames.items()})
        return rd.collect(query)[job.column]

    def sql() -> pl.Series:
        # SQL has no transformation of coordinates, so its table is a LazyFrame
        points = rd.scan_zarr(paths["projected"]).with_columns(_POINT).unnest("point", separator="_")
        return rd.collect(rd.sql(job.sql, **paths, **frames, projected_points=points))[job.column]

    ways: dict[str, Callable[[], Any]] = {"LazyFrame": lazy, "SQL": sql}
    if find_spec("xarray_sql"):
        context = _context(job, paths, frames)
        ways["xarray-sql"] = lambda: pl.from_pandas(context.sql(job.theirs or job.sql).to_pandas())[job.column]
    return ways


def _context(job: Job, paths: Mapping[str, str], frames: Mapping[str, pl.DataFrame]) -> Any:
    import xarray_sql  # noqa: PLC0415  needs Python 3.12

    context = xarray_sql.XarrayContext()
    for name, path in paths.items():
        context.from_dataset(name, xr.open_zarr(path, chunks=None, consolidated=False), chunks=_chunks(path))
    for name in job.tables:
        frame = frames[name]
        columns = {each: ("row", frame[each].to_numpy()) for each in frame.columns}
        context.from_dataset(name, xr.Dataset(columns, {"row": np.arange(frame.height)}), chunks={"row": frame.height})
    return context


def _chunks(path: str) -> dict[str, int]:
    return {str(dim): sizes[0] for dim, sizes in xr.open_zarr(path, consolidated=False).chunksizes.items()}


def measure(job: Job, paths: Mapping[str, str], frames: Mapping[str, pl.DataFrame], rounds: int) -> dict[str, float]:
    """Return the best time of each way in seconds, after a first time that does not count and whose answers agree."""
    ways = ways_of(job, paths, frames)
    answers = {name: np.sort(way().to_numpy()) for name, way in ways.items()}
    for name, answer in answers.items():
        np.testing.assert_allclose(answer, answers["LazyFrame"], rtol=1e-3, atol=1e-4, err_msg=f"{job.name}, {name}")
    best = dict.fromkeys(ways, inf)
    for turn in range(rounds):
        for name in list(ways)[:: 1 if turn % 2 else -1]:
            start = time.perf_counter()
            ways[name]()
            best[name] = min(best[name], time.perf_counter() - start)
    return best


def report(results: Mapping[str, Mapping[str, float]]) -> str:
    """A row for each job: seconds, and how many times faster than xarray-sql."""
    rows = [["job", "LazyFrame s", "SQL s", "xarray-sql s", "LazyFrame, times faster", "SQL, times faster"]]
    for name, best in results.items():
        theirs = best.get("xarray-sql")
        seconds = [f"{best[way]:.3f}" if way in best else "-" for way in ("LazyFrame", "SQL", "xarray-sql")]
        ratios = [f"{theirs / best[way]:.1f}" if theirs else "-" for way in ("LazyFrame", "SQL")]
        rows.append([name, *seconds, *ratios])
    return as_markdown(rows)


def main() -> None:
    """Measure, and print the table."""
    parser = argparse.ArgumentParser(description=__doc__.partition("\n")[0])
    parser.add_argument("--quick", action="store_true", help="smaller stores, two rounds")
    parser.add_argument("words", nargs="*", help="jobs whose names have one of the words; by default all")
    args = parser.parse_args()
    with tempfile.TemporaryDirectory() as folder:
        paths = write_stores(Path(folder), 4 if args.quick else 1)
        frames = frames_of(paths)
        results = {}
        for job in JOBS:
            if not args.words or any(word in job.name for word in args.words):
                results[job.name] = measure(job, paths, frames, 2 if args.quick else 5)
                print(report({job.name: results[job.name]}).splitlines()[-1], flush=True)
        print(report(results))


if __name__ == "__main__":
    main()
