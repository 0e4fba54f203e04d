"""Stores and queries that the benchmarks and the tests share."""

from collections.abc import Callable
from dataclasses import dataclass, replace
from datetime import date, datetime
from typing import Any, Literal

import numpy as np
import pandas as pd
import polars as pl
import xarray as xr

time, lat, lon, t2m = pl.col("time"), pl.col("lat"), pl.col("lon"), pl.col("t2m")

Size = Literal["full", "quick", "tiny"]
"""Size of a store: for the tables of results, for a run of minutes, for a test."""


@dataclass(frozen=True)
class Layout:
    """An hourly global grid from 2020-01-01, as one Zarr v3 store.

    Parameters
    ----------
    name : str
        What the tables call it.
    shape, chunks : tuple of int
        Along time, lat (90 to -90) and lon (from 0, eastwards).
    variables : tuple of str
        Float32 each, in K: colder towards the poles, with noise of 1 K.
    shards : tuple of int, optional
        Unit of storage, if it is not the chunk.
    compressed : bool
        Without compression, and with chunks that divide the shape, all chunks have the same stored size.
    """

    name: str
    shape: tuple[int, int, int]
    chunks: tuple[int, int, int]
    variables: tuple[str, ...] = ("t2m",)
    shards: tuple[int, int, int] | None = None
    compressed: bool = True

    def shortened(self, hours: int) -> "Layout":
        """Return the layout with fewer time steps: fewer chunks of the same size."""
        shards = self.shards and (min(self.shards[0], hours), *self.shards[1:])
        return replace(self, shape=(hours, *self.shape[1:]), shards=shards)

    def sized(self, size: Size) -> "Layout":
        """Return the layout itself, or over two days, or over one."""
        return self.shortened({"full": self.shape[0], "quick": 48, "tiny": 24}[size])

    def dataset(self) -> xr.Dataset:
        """Return all data, the same on every call."""
        rng = np.random.default_rng(0)
        times, lats, lons = self.shape
        zonal = (280 + 20 * np.sin(np.linspace(0, np.pi, lats, dtype="float32")))[:, np.newaxis]
        coords = {
            "time": np.datetime64("2020-01-01", "ns") + np.arange(times) * np.timedelta64(1, "h"),
            "lat": np.linspace(90, -90, lats),
            "lon": np.arange(lons) * 360 / lons,
        }
        data = {
            name: (tuple(coords), zonal + rng.standard_normal(self.shape, dtype="float32")) for name in self.variables
        }
        return xr.Dataset(data, coords)

    def write(self, store: Any) -> None:
        """Write the data to a path or a zarr store."""
        encoding: dict[str, Any] = {"chunks": self.chunks}
        if self.shards:
            encoding["shards"] = self.shards
        if not self.compressed:
            encoding["compressors"] = None
        encodings = dict.fromkeys(self.variables, encoding)
        self.dataset().to_zarr(store, zarr_format=3, consolidated=False, encoding=encodings)


LAYOUTS = [
    Layout("slabs", (744, 181, 360), (24, 181, 360), ("t2m", "u10")),
    Layout("tiles", (744, 181, 360), (24, 61, 120), ("t2m", "u10")),
    Layout("small chunks", (744, 181, 360), (1, 61, 120)),
    Layout("shard", (744, 181, 360), (1, 61, 120), shards=(744, 183, 360)),
]
"""Layouts for speed: a few large chunks, chunks in all directions, many small ones, and the latter in one shard."""


# Speed


@dataclass(frozen=True)
class Query:
    """A query to a store.

    Parameters
    ----------
    name : str
        What the tables call it.
    polars : callable
        The query to one or more tables.
    xarray : callable
        The same query to arrays, in idiomatic xarray. Returns a table, too.
    tables : tuple of tuple of str
        The variables of each table, in the order of the arguments of `polars`. Empty: all.
    keys : tuple of str
        Columns that identify the rows of the result, if others come from arithmetic.
    any_rows : bool
        Whether any rows are right, if their number is.
    target : float, optional
        Target at full size: rainbear's time as a multiple of ours, at least.
    """

    name: str
    polars: Callable[..., pl.LazyFrame]
    xarray: Callable[[xr.Dataset], pd.DataFrame]
    tables: tuple[tuple[str, ...], ...] = ((),)
    keys: tuple[str, ...] = ()
    any_rows: bool = False
    target: float | None = None


HOT = 303.7  # about one cell in 100,000


def as_table(ds: xr.Dataset) -> pd.DataFrame:
    return ds.to_dataframe().reset_index()


def _hot_cells(ds: xr.Dataset) -> pd.DataFrame:
    cells = np.nonzero(ds.t2m.values > HOT)
    return ds.isel({dim: ("cell", at) for dim, at in zip(ds.t2m.dims, cells, strict=True)}).to_dataframe()


QUERIES = [
    Query("full scan", lambda lf: lf, as_table, target=1.4),
    Query("value filter", lambda lf: lf.filter(t2m > HOT), _hot_cells, target=1.5),
    Query(
        "point series",
        lambda lf: lf.filter(lat == 45, lon == 10),
        lambda ds: as_table(ds.sel(lat=[45], lon=[10])),
        target=1.0,
    ),
    Query(
        "box",
        lambda lf: lf.filter(lat.is_between(30, 50), lon.is_between(0, 40), time < datetime(2020, 1, 2)),
        lambda ds: as_table(ds.sel(lat=slice(50, 30), lon=slice(0, 40), time=slice("2020-01-01", "2020-01-01"))),
        target=1.0,
    ),
    Query(
        "head(1000)",
        lambda lf: lf.head(1000),
        lambda ds: as_table(ds.isel(time=[0], lat=slice(0, 3))).head(1000),
        any_rows=True,
        target=1.0,
    ),
    Query(
        "count",
        lambda lf: lf.select(pl.len().cast(pl.Int64).alias("rows")),
        lambda ds: pd.DataFrame({"rows": [np.prod(list(ds.sizes.values()))]}),
        target=20.0,
    ),
    Query(
        "mean by lat",
        lambda lf: lf.group_by("lat").agg(t2m.mean()),
        lambda ds: as_table(ds[["t2m"]].mean(["time", "lon"], dtype="float64")),
        target=1.0,
    ),
]


# Chunks read

CHUNKED = Layout("chunked", (48, 721, 1440), (24, 103, 144), compressed=False)
"""Two days of 7 x 10 tiles of a quarter-degree grid: 140 chunks."""

SHARDED = replace(CHUNKED, name="sharded", shards=(24, 721, 1440))
"""The same chunks, seventy per shard."""


def write_stations(store: Any) -> None:
    """Write ``t2m`` over a dimension of five strings, one chunk each."""
    data = {"t2m": (("station", "time"), np.full((5, 1000), 280, "float32"))}
    encoding = {"t2m": {"chunks": (1, 1000), "compressors": None}}
    stations = np.array(list("abcde"), dtype=object)
    xr.Dataset(data, {"station": stations}).to_zarr(store, zarr_format=2, consolidated=False, encoding=encoding)


def write_noleap(store: Any) -> None:
    """Write eight years of daily ``t2m`` in a calendar without 29 February, one year per chunk."""
    days = xr.date_range("2001-01-01", periods=8 * 365, calendar="noleap", use_cftime=True)
    data = {"t2m": (("time", "lat"), np.full((days.size, 10), 280, "float32"))}
    encoding = {"t2m": {"chunks": (365, 10), "compressors": None}}
    xr.Dataset(data, {"time": days}).to_zarr(store, zarr_format=3, consolidated=False, encoding=encoding)


@dataclass(frozen=True)
class Form:
    """A form of query for a part of a store, and the chunks that it needs.

    Parameters
    ----------
    name : str
        The form in Polars' terms.
    query : callable
        From the whole table to a result.
    need : int
        The fewest chunks of data that any correct reader must read, without coordinates.
    store : str
        "grid" (`CHUNKED` and its twin `SHARDED`), "stations" or "noleap".
    engine : str
        Engine of Polars.
    gap : str
        Reason for more reads, if any.
    """

    name: str
    query: Callable[[pl.LazyFrame], pl.LazyFrame]
    need: int
    store: str = "grid"
    engine: str = "auto"
    gap: str = ""


def _where(name: str, predicate: pl.Expr, need: int, **more: str) -> Form:
    # one aggregate needs every matching row, but no table of millions
    return Form(name, lambda lf: lf.filter(predicate).select(t2m.sum()), need, **more)


_MIDNIGHT, _NOON = datetime(2020, 1, 2), datetime(2020, 1, 1, 12)
_LATS = pl.LazyFrame({"lat": [45.0, 44.75]})

FORMS = [
    _where("time >= t", time >= _MIDNIGHT, 70),
    _where("time.is_between(a, b)", time.is_between(_NOON, datetime(2020, 1, 1, 18)), 70),
    _where("(time >= a) & (time < b)", (time >= _NOON) & (time < _MIDNIGHT), 70),
    _where("between pl.datetime(...)", time.is_between(pl.datetime(2020, 1, 1), pl.datetime(2020, 1, 1, 18)), 70),
    _where("lat > 45", lat > 45, 40),
    _where("lat.is_between(a, b)", lat.is_between(40, 60), 20),
    _where("lat == 45", lat == 45, 20),
    _where("lat.is_in([a, b])", lat.is_in([45.0, 44.75]), 20),
    _where("lat.is_in, two rows of chunks", lat.is_in([45.0, -45.0]), 40),
    _where("one box | another", ((lat > 80) & (lon < 36)) | ((lat < -80) & lon.is_between(100, 140)), 6),
    _where("~(lat < 45)", ~(lat < 45), 40),
    _where("(lat > 45) & (lon < 36)", (lat > 45) & (lon < 36), 4),
    _where("time.dt.day() == 2", time.dt.day() == 2, 70),
    _where("hours from day and hour", (time.dt.day() * 24 + time.dt.hour()).is_between(30, 40), 70),
    _where("time.dt.date() == d", time.dt.date() == date(2020, 1, 2), 70),
    _where("time.dt.truncate('1d') == t", time.dt.truncate("1d") == _MIDNIGHT, 70),
    _where("time.dt.year() == y", time.dt.year() == 2021, 0),
    _where("lat + 10 > 60", lat + 10 > 60, 40),
    _where("lat.abs() < 10", lat.abs() < 10, 20),
    _where("lat.cast(Int32) == 45", lat.cast(pl.Int32) == 45, 20),
    _where("lat.round() == 45", lat.round() == 45, 20),
    _where("(lat - 45).abs() < 0.1", (lat - 45).abs() < 0.1, 20),
    _where("wrapped lon in a range", ((lon + 180) % 360 - 180).is_between(-10, 10), 28),
    _where("t2m > 1000", t2m > 1000, 0, gap="nothing is known of the values in a chunk"),
    Form("len()", lambda lf: lf.select(pl.len()), 0),
    Form("time.min(), time.max()", lambda lf: lf.select(time.min(), time_max=time.max()), 0),
    Form("lat.unique()", lambda lf: lf.select(lat.unique()), 0),
    Form("head(10)", lambda lf: lf.head(10), 1),
    Form(
        "filter + head(10)",
        lambda lf: lf.filter(lat < 45).head(10),
        1,
        engine="streaming",  # the other engine reads all matching rows
        gap="behind a filter, Polars tells a source no number of rows: it stops reading, some tasks later",
    ),
    Form(
        "sort by time, head(5)",
        lambda lf: lf.select("time", "t2m").sort("time").head(5),
        1,
        gap="Polars does not tell a source in which order rows are wanted",
    ),
    Form(
        "lat in a subquery",
        lambda lf: lf.join(_LATS, on="lat", how="semi").select(t2m.sum()),
        20,
        gap="Polars does not hand the keys of a join to a source",
    ),
    _where("station == 'b'", pl.col("station") == "b", 1, store="stations"),
    _where("noleap time in a year", time.dt.year() == 2003, 1, store="noleap"),
]
