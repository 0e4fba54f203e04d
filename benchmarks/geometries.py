"""Stores with the geometry of well-known public ones, and queries to each.

The stores keep storage type, packing, dims and their direction, the share of missing cells, and the number of chunks
per time step or shard. They have few time steps. If a chunk or a shard would be too large, the grid and its chunks are
coarser by the same factor.
"""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field, replace
from datetime import date, datetime, timedelta
from functools import partial
from typing import Any

import numpy as np
import pandas as pd
import polars as pl
import xarray as xr

from benchmarks.problems import Query, Size, as_table

HOUR = np.timedelta64(1, "h")
Sizes = Mapping[str, int]


@dataclass(frozen=True)
class Variable:
    """An array of noise around a mean.

    Parameters
    ----------
    dims : tuple of str
        Its dimensions.
    chunks, shards : tuple of int
        Along each of them.
    mean, spread : float
        Of its values.
    missing : float
        Share of its cells without a value.
    dtype : str
        Of the values.
    packing : mapping, optional
        Encoding for xarray, if the stored type differs.
    """

    dims: tuple[str, ...]
    chunks: tuple[int, ...]
    shards: tuple[int, ...] | None = None
    mean: float = 280.0
    spread: float = 15.0
    missing: float = 0.0
    dtype: str = "float32"
    packing: Mapping[str, Any] = field(default_factory=dict)

    def values(self, sizes: Sizes, rng: np.random.Generator) -> np.ndarray:
        """All cells."""
        shape = tuple(sizes[dim] for dim in self.dims)
        cells = rng.standard_normal(shape, dtype="float32")
        cells *= self.spread
        cells += self.mean
        if self.missing:
            cells[rng.random(shape, dtype="float32") < self.missing] = np.nan
        return cells.astype(self.dtype, copy=False)

    def encoding(self, sizes: Sizes) -> dict[str, Any]:
        """Return the encoding for xarray: chunks no longer than dimensions, shards of whole chunks."""
        chunks = tuple(min(n, sizes[dim]) for n, dim in zip(self.chunks, self.dims, strict=True))
        found = {"chunks": chunks, **self.packing}
        if self.shards:
            ends = (min(n, sizes[dim]) for n, dim in zip(self.shards, self.dims, strict=True))
            found["shards"] = tuple(-(-end // n) * n for end, n in zip(ends, chunks, strict=True))
        return found


@dataclass(frozen=True)
class Geometry:
    """A store, and queries to it.

    Parameters
    ----------
    name : str
        Name in the tables.
    sizes : mapping of str to int
        By dimension.
    coordinates : callable
        From the sizes to coordinates, as `xarray.Dataset` takes them.
    variables : mapping of str to Variable
        By name.
    queries : tuple of Query
        The queries.
    quick, tiny : mapping of str to int
        Sizes of a smaller store that differ.
    zarr_format : int
        2 or 3.
    """

    name: str
    sizes: Sizes
    coordinates: Callable[[Sizes], dict[str, Any]]
    variables: Mapping[str, Variable]
    queries: tuple[Query, ...]
    quick: Sizes
    tiny: Sizes
    zarr_format: Any = 3

    def sized(self, size: Size) -> "Geometry":
        """The same geometry with fewer steps."""
        fewer: Sizes = {"full": {}, "quick": self.quick, "tiny": self.tiny}[size]
        return replace(self, sizes={**self.sizes, **fewer})

    def write(self, path: str) -> None:
        """Write the same data on each call."""
        rng = np.random.default_rng(0)
        data = {name: (each.dims, each.values(self.sizes, rng)) for name, each in self.variables.items()}
        xr.Dataset(data, self.coordinates(self.sizes)).to_zarr(
            path,
            zarr_format=self.zarr_format,
            consolidated=self.zarr_format == 2,
            encoding={name: each.encoding(self.sizes) for name, each in self.variables.items()},
        )


# Coordinates


def times(start: str, count: int, step: np.timedelta64 = HOUR) -> np.ndarray:
    return np.datetime64(start, "ns") + np.arange(count) * step


def globe(sizes: Sizes, start: str, step: np.timedelta64 = HOUR) -> dict[str, np.ndarray]:
    """Latitudes from the north, longitudes from 0 eastwards."""
    return {
        "time": times(start, sizes["time"], step),
        "latitude": np.linspace(90, -90, sizes["latitude"]),
        "longitude": np.arange(sizes["longitude"]) * 360 / sizes["longitude"],
    }


def with_levels(sizes: Sizes) -> dict[str, np.ndarray]:
    return {**globe(sizes, "2020-06-01"), "level": np.linspace(1, 1000, sizes["level"]).astype("int64")}


def forecasts(sizes: Sizes) -> dict[str, np.ndarray]:
    """Latitudes from the south, as in the forecasts of WeatherBench2."""
    return {
        "time": times("2020-01-01", sizes["time"], 6 * HOUR),
        "prediction_timedelta": (np.arange(sizes["prediction_timedelta"]) * 6 * HOUR).astype("timedelta64[ns]"),
        "longitude": np.arange(sizes["longitude"]) * 360 / sizes["longitude"],
        "latitude": np.linspace(-87.1875, 87.1875, sizes["latitude"]),
    }


def projected(sizes: Sizes) -> dict[str, Any]:
    """Metres along two dimensions, with latitudes and longitudes over both."""
    y, x = np.mgrid[-1 : 1 : sizes["y"] * 1j, -1 : 1 : sizes["x"] * 1j].astype("float32")
    return {
        "time": times("2020-05-31", sizes["time"]),
        "y": np.linspace(-1_587_306, 1_587_306, sizes["y"]),
        "x": np.linspace(-2_697_520, 2_697_520, sizes["x"]),
        "latitude": (("y", "x"), 38 + 14 * y - 4 * x**2),
        "longitude": (("y", "x"), -97 + 30 * x * (1 + 0.2 * y)),
    }


def ensemble(sizes: Sizes) -> dict[str, np.ndarray]:
    return {
        "init_time": times("2020-10-01", sizes["init_time"], 24 * HOUR),
        "ensemble_member": np.arange(sizes["ensemble_member"]),
        "lead_time": (np.arange(sizes["lead_time"]) * 3 * HOUR).astype("timedelta64[ns]"),
        "latitude": np.linspace(90, -90, sizes["latitude"]),
        "longitude": -180 + np.arange(sizes["longitude"]) * 360 / sizes["longitude"],
    }


def reaches(sizes: Sizes) -> dict[str, Any]:
    """Numbers of river reaches, with place, order and, for every hundredth, a gage."""
    count = sizes["feature_id"]
    numbers = np.arange(count)
    gages = np.where(numbers % 100 == 0, np.char.zfill(numbers.astype("S8"), 8), b"").astype("S15")
    along = "feature_id"
    return {
        "time": times("2020-01-31", sizes["time"]),
        "feature_id": 101 + 7 * numbers,
        "latitude": (along, np.linspace(25, 50, count, dtype="float32")),
        "longitude": (along, np.linspace(-120, -70, count, dtype="float32")),
        "elevation": (along, (numbers % 3000).astype("float32")),
        "order": (along, 1 + (numbers % 512 == 0) * 6 + (numbers % 3).astype("int32")),
        "gage_id": (along, gages),
    }


def square(sizes: Sizes) -> dict[str, np.ndarray]:
    return {"y": 4_000_000 - 10.0 * np.arange(sizes["y"]), "x": 500_000 + 10.0 * np.arange(sizes["x"])}


# Queries

time, latitude, longitude = pl.col("time"), pl.col("latitude"), pl.col("longitude")
temperature, t2m = pl.col("temperature"), pl.col("2m_temperature")
PLACE = ("latitude", "longitude")

SURFACE = (("2m_temperature", "10m_u_component_of_wind"),)
PRESSURE = (("temperature",),)
CONUS = latitude.is_between(25, 50) & longitude.is_between(235, 290)
NEW_YORK = latitude.is_between(39, 40) & longitude.is_between(286, 287)
REGIONS = pl.DataFrame({
    "region": list("abcdefgh"),
    "south": [-60.0, -30, -10, 0, 10, 30, 45, 60],
    "north": [-30.0, -10, 10, 20, 40, 50, 60, 80],
    "west": [10.0, 20, 95, 280, 60, 235, 0, 40],
    "east": [60.0, 50, 150, 320, 100, 290, 30, 180],
})  # fmt: skip
HOT = 326.4  # q99.9 of a normal distribution of 280 +- 15

POINTS = np.random.default_rng(1).permutation(121 * 240)[:1000]
POINT_TABLE = pl.LazyFrame({"latitude": np.linspace(90, -90, 121)[POINTS // 240], "longitude": POINTS % 240 * 1.5})


def _by_hour(lf: pl.LazyFrame) -> pl.LazyFrame:
    return lf.filter(CONUS).with_columns(hour=time.dt.hour(), kelvin=t2m.cast(pl.Float64))


def _climatology(lf: pl.LazyFrame) -> pl.LazyFrame:
    return _by_hour(lf).group_by("hour", *PLACE).agg(mean=pl.col("kelvin").mean())


def _climatology_of(ds: xr.Dataset) -> tuple[xr.DataArray, xr.DataArray]:
    box = ds["2m_temperature"].sel(latitude=slice(50, 25), longitude=slice(235, 290)).astype("float64")
    return box, box.groupby("time.hour").mean()


def _anomalies(ds: xr.Dataset) -> pd.DataFrame:
    box, mean = _climatology_of(ds)
    return (box.groupby("time.hour") - mean).to_dataframe("anomaly").reset_index().drop(columns="hour")


def _region_means(ds: xr.Dataset) -> pd.DataFrame:
    first = ds["2m_temperature"].isel(time=slice(6))
    boxes = {
        row["region"]: first.sel(latitude=slice(row["north"], row["south"]), longitude=slice(row["west"], row["east"]))
        for row in REGIONS.iter_rows(named=True)
    }
    return pd.DataFrame({"region": list(boxes), "mean": [float(box.mean(dtype="float64")) for box in boxes.values()]})


def _where(name: str) -> Callable[[xr.Dataset], pd.DataFrame]:
    """All cells of a variable above `HOT`."""

    def ask(ds: xr.Dataset) -> pd.DataFrame:
        cells = np.nonzero(ds[name].values > HOT)
        at = {dim: ("cell", each) for dim, each in zip(ds[name].dims, cells, strict=True)}
        return ds[[name]].isel(at).to_dataframe()

    return ask


def _point_table(ds: xr.Dataset) -> pd.DataFrame:
    at = {"latitude": ("point", POINTS // 240), "longitude": ("point", POINTS % 240)}
    return as_table(ds[["2m_temperature"]].isel(at)).drop(columns="point")


def _mean(ds: xr.Dataset, variable: str, dims: tuple[str, ...], name: str = "mean") -> pd.DataFrame:
    return as_table(ds[[variable]].mean(dims, dtype="float64").rename({variable: name}))


ERA5_SURFACE = tuple(
    replace(query, tables=SURFACE)
    for query in (
        Query(
            "diurnal climatology",
            _climatology,
            lambda ds: as_table(_climatology_of(ds)[1].to_dataset(name="mean")),
            keys=("hour", *PLACE),
        ),
        Query(
            "anomaly from it",
            lambda lf: (
                _by_hour(lf)
                .join(_climatology(lf), on=["hour", *PLACE])
                .select("time", *PLACE, anomaly=pl.col("kelvin") - pl.col("mean"))
            ),
            _anomalies,
            keys=("time", *PLACE),
        ),
        Query(
            "zonal mean of a day",
            lambda lf: lf.filter(time.dt.date() == date(2020, 6, 1)).group_by("latitude").agg(mean=t2m.mean()),
            lambda ds: _mean(ds.sel(time="2020-06-01"), "2m_temperature", ("time", "longitude")),
            keys=("latitude",),
        ),
        Query(
            "means of regions",
            lambda lf: (
                lf.filter(time < datetime(2020, 6, 1, 6))
                .join_where(
                    REGIONS.lazy(),
                    latitude >= pl.col("south"),
                    latitude <= pl.col("north"),
                    longitude >= pl.col("west"),
                    longitude <= pl.col("east"),
                )
                .group_by("region")
                .agg(mean=t2m.mean())
            ),
            _region_means,
            keys=("region",),
        ),
        Query(
            "mean over New York",
            lambda lf: lf.filter(NEW_YORK, time <= datetime(2020, 6, 1, 5)).select(mean=t2m.mean()),
            lambda ds: _mean(
                ds.sel(
                    latitude=slice(40, 39), longitude=slice(286, 287), time=slice(None, "2020-06-01T05")
                ).expand_dims("all"),
                "2m_temperature",
                ("time", *PLACE),
            )[["mean"]],
        ),
        Query(
            "mean of each cell",
            lambda lf: lf.group_by(*PLACE).agg(mean=t2m.mean()),
            lambda ds: _mean(ds, "2m_temperature", ("time",)),
            keys=PLACE,
        ),
        Query(
            "1,000 points",
            lambda lf: lf.select("time", *PLACE, "2m_temperature").join(POINT_TABLE, on=[*PLACE]),
            _point_table,
            keys=("time", *PLACE),
        ),
        Query(
            "above q99.9",
            lambda lf: lf.filter(t2m > HOT).select("time", *PLACE, "2m_temperature"),
            _where("2m_temperature"),
        ),
    )
)

ERA5_PRESSURE = tuple(
    replace(query, tables=PRESSURE)
    for query in (
        Query(
            "mean by level",
            lambda lf: lf.group_by("level").agg(mean=temperature.mean()),
            lambda ds: _mean(ds, "temperature", ("time", *PLACE)),
            keys=("level",),
        ),
        Query(
            "profile",
            lambda lf: lf.filter(latitude == 45, longitude == 9, time == datetime(2020, 6, 1)),
            lambda ds: as_table(ds[["temperature"]].sel(latitude=[45], longitude=[9], time=["2020-06-01"])),
        ),
    )
)

MODELS = ("hres", "pangu")
lead = pl.col("prediction_timedelta")


def _skill(forecast: pl.LazyFrame, truth: pl.LazyFrame) -> pl.LazyFrame:
    on = ["valid", "longitude", "latitude"]
    error = (pl.col(MODELS).cast(pl.Float64) - pl.col("truth")) ** 2
    return (
        forecast.with_columns(valid=time + lead)
        .join(truth.rename({"time": "valid"}), on=on)
        .group_by(lead)
        .agg(error.mean().sqrt())
    )


def _skill_of(ds: xr.Dataset) -> pd.DataFrame:
    last = ds.time.values[-1] + ds.prediction_timedelta.values[-1]
    valid = np.arange(ds.time.values[0], last + HOUR, 6 * HOUR)
    truth = ds.truth.rename(time="valid").reindex(valid=valid).sel(valid=ds.time + ds.prediction_timedelta)
    error = (ds[list(MODELS)].astype("float64") - truth.drop_vars("valid")) ** 2
    return as_table(np.sqrt(error.mean(["time", "longitude", "latitude"]))).dropna()  # leads beyond the last truth


FORECASTS = (
    Query("skill by lead", _skill, _skill_of, tables=(MODELS, ("truth",)), keys=("prediction_timedelta",)),
    Query(
        "a day ahead",
        lambda lf: lf.filter(lead == timedelta(days=1)).group_by("latitude").agg(mean=pl.col("hres").mean()),
        lambda ds: _mean(ds.sel(prediction_timedelta="24h"), "hres", ("time", "longitude"))[["latitude", "mean"]],
        tables=(MODELS,),
        keys=("latitude",),
    ),
)


def _box_of_two_dims(ds: xr.Dataset) -> pd.DataFrame:
    inside = ds.latitude.load().pipe(lambda lat: (lat >= 39) & (lat <= 41))
    inside &= (ds.longitude.load() >= -106) & (ds.longitude <= -104)
    rows, cols = np.nonzero(inside.values)
    hours = ds.time.dt.hour
    ds = ds.isel(
        time=ds.time.dt.month.isin([6, 7, 8]) & (hours >= 12) & (hours <= 18),
        y=slice(rows.min(), rows.max() + 1),
        x=slice(cols.min(), cols.max() + 1),
    )
    return as_table(ds.where(inside)).dropna(subset="temperature")[["time", "y", "x", "temperature"]]


def _at_cell(lf: pl.LazyFrame) -> pl.LazyFrame:
    return lf.filter(latitude == 45, longitude == 9).select("time", "temperature")


def _cell(ds: xr.Dataset) -> pd.DataFrame:
    return as_table(ds.sel(latitude=45, longitude=9))[["time", "temperature"]]


CURVILINEAR = (
    Query(
        "box by latitude and longitude, summer afternoons",
        lambda lf: lf.filter(
            latitude.is_between(39, 41),
            longitude.is_between(-106, -104),
            time.dt.month().is_in([6, 7, 8]),
            time.dt.hour().is_between(12, 18),
        ).select("time", "y", "x", "temperature"),
        _box_of_two_dims,
    ),
    Query(
        "mean by hour near a place",
        lambda lf: (
            lf.filter((latitude - 40) ** 2 + (longitude + 105) ** 2 < 1)
            .group_by(hour=time.dt.hour())
            .agg(mean=temperature.mean())
        ),
        lambda ds: _mean(
            ds.where((ds.latitude.load() - 40) ** 2 + (ds.longitude.load() + 105) ** 2 < 1, drop=True)
            .groupby("time.hour")
            .mean(dtype="float64"),
            "temperature",
            ("y", "x"),
        ),
        keys=("hour",),
    ),
)

ANALYSIS = (
    Query("point series", _at_cell, _cell),
    Query(
        "daily mean of a box",
        lambda lf: (
            lf.filter(latitude.is_between(39, 41), longitude.is_between(286, 288))
            .group_by(time.dt.truncate("1d"))
            .agg(mean=temperature.mean())
        ),
        lambda ds: _mean(
            ds.sel(latitude=slice(41, 39), longitude=slice(286, 288)).resample(time="1D").mean(dtype="float64"),
            "temperature",
            PLACE,
        ),
        keys=("time",),
    ),
)

ENSEMBLE = (
    Query(
        "spread at a place",
        lambda lf: (
            lf.filter(latitude == 46, longitude == 8)
            .group_by("lead_time")
            .agg(mean=temperature.cast(pl.Float64).mean(), spread=temperature.cast(pl.Float64).std())
        ),
        lambda ds: as_table(
            ds.sel(latitude=46, longitude=8)
            .temperature.astype("float64")
            .isel(init_time=0)
            .pipe(
                lambda here: xr.Dataset(
                    {"mean": here.mean("ensemble_member"), "spread": here.std("ensemble_member", ddof=1)}
                )
            )
        )[["lead_time", "mean", "spread"]],
        keys=("lead_time",),
    ),
    Query(
        "members a day ahead, in a box",
        lambda lf: (
            lf.filter(
                pl.col("lead_time") == timedelta(days=1), latitude.is_between(30, 50), longitude.is_between(0, 40)
            )
            .group_by("ensemble_member")
            .agg(mean=temperature.mean())
        ),
        lambda ds: _mean(
            ds.sel(latitude=slice(50, 30), longitude=slice(0, 40), lead_time="24h"),
            "temperature",
            ("init_time", *PLACE),
        )[["ensemble_member", "mean"]],
        keys=("ensemble_member",),
    ),
)

GAGE = b"00000200"


def _gage_series(ds: xr.Dataset) -> pd.DataFrame:
    found = ds.isel(feature_id=np.nonzero(ds.gage_id.values == GAGE)[0], time=ds.time.dt.month == 2)
    return as_table(found[["streamflow"]])[["time", "streamflow"]]


RIVERS = (
    Query(
        "series of a gage in a month",
        lambda lf: lf.filter(pl.col("gage_id") == GAGE.decode(), time.dt.month() == 2).select("time", "streamflow"),
        _gage_series,
    ),
    Query(
        "means of large rivers",
        lambda lf: (
            lf.filter(pl.col("order") >= 7)
            .group_by("feature_id")
            .agg(mean=pl.col("streamflow").cast(pl.Float64).mean())
        ),
        lambda ds: _mean(ds.isel(feature_id=np.nonzero(ds.order.values >= 7)[0]), "streamflow", ("time",))[
            ["feature_id", "mean"]
        ],
        keys=("feature_id",),
    ),
)

CLIMATE = (
    Query("point series", _at_cell, _cell),
    Query(
        "map of a day",
        lambda lf: lf.filter(time == datetime(2000, 1, 2)),
        lambda ds: as_table(ds.sel(time=["2000-01-02"])),
    ),
    Query(
        "zonal mean in January",
        lambda lf: lf.filter(time.dt.month() == 1).group_by("latitude").agg(mean=temperature.mean()),
        lambda ds: _mean(ds.isel(time=ds.time.dt.month == 1), "temperature", ("time", "longitude")),
        keys=("latitude",),
    ),
)

red, nir = pl.col("red").cast(pl.Float64), pl.col("nir").cast(pl.Float64)


def _vegetation(ds: xr.Dataset) -> pd.DataFrame:
    red, nir = ds.red.astype("float64"), ds.nir.astype("float64")
    return as_table(((nir - red) / (nir + red)).to_dataset(name="ndvi"))


BANDS = (
    Query("vegetation index", lambda lf: lf.select("y", "x", ndvi=(nir - red) / (nir + red)), _vegetation),
    Query(
        "bright cells",
        lambda lf: lf.filter(pl.col("nir") > 5000).select("y", "x", "nir"),
        lambda ds: (
            ds[["nir"]]
            .isel({dim: ("cell", at) for dim, at in zip(("y", "x"), np.nonzero(ds.nir.values > 5000), strict=True)})
            .to_dataframe()
        ),
    ),
)


# Stores

_SURFACE = Variable(("time", *PLACE), (1, 121, 240))
_WB = ("time", "prediction_timedelta", "longitude", "latitude")


def _climate(name: str, chunks: tuple[int, int, int]) -> Geometry:
    return Geometry(
        f"CMIP6 {name}",
        {"time": 1095, "latitude": 121, "longitude": 280},
        partial(globe, start="2000-01-01", step=24 * HOUR),
        {"temperature": Variable(("time", *PLACE), chunks)},
        CLIMATE,
        quick={"time": 120},
        tiny={"time": 8},
        zarr_format=2,
    )


GEOMETRIES = [
    Geometry(
        "ERA5, surface and pressure levels",
        {"time": 72, "level": 37, "latitude": 121, "longitude": 240},
        with_levels,
        {
            "2m_temperature": _SURFACE,
            "10m_u_component_of_wind": replace(_SURFACE, mean=0, spread=5),
            "temperature": Variable(("time", "level", *PLACE), (1, 37, 121, 240)),
        },
        (*ERA5_SURFACE, *ERA5_PRESSURE),
        quick={"time": 24},
        tiny={"time": 3, "level": 2},
        zarr_format=2,
    ),
    Geometry(
        "WeatherBench2 forecasts, 64 x 32",
        {"time": 64, "prediction_timedelta": 20, "longitude": 64, "latitude": 32},
        forecasts,
        {
            **dict.fromkeys(MODELS, Variable(_WB, (1, 1, 64, 32))),
            "truth": Variable(("time", "longitude", "latitude"), (100, 64, 32)),
        },
        FORECASTS,
        quick={"time": 16},
        tiny={"time": 6, "prediction_timedelta": 5},
        zarr_format=2,
    ),
    Geometry(
        "HRRR analysis, curvilinear, shards",
        {"time": 2160, "y": 118, "x": 200},
        projected,
        {"temperature": Variable(("time", "y", "x"), (2160, 5, 5), shards=(2160, 60, 50))},
        CURVILINEAR,
        quick={"time": 240},
        tiny={"time": 48},
    ),
    Geometry(
        "GFS analysis, shards",
        {"time": 1440, "latitude": 181, "longitude": 360},
        partial(globe, start="2020-01-01"),
        {"temperature": Variable(("time", *PLACE), (1440, 25, 25), shards=(1440, 100, 100))},
        ANALYSIS,
        quick={"time": 240},
        tiny={"time": 24},
    ),
    Geometry(
        "GEFS 35 days, shards",
        {"init_time": 1, "ensemble_member": 31, "lead_time": 181, "latitude": 46, "longitude": 90},
        ensemble,
        {
            "temperature": Variable(
                ("init_time", "ensemble_member", "lead_time", *PLACE), (1, 31, 64, 1, 1), shards=(1, 31, 192, 24, 23)
            )
        },
        ENSEMBLE,
        quick={"lead_time": 64},
        tiny={"ensemble_member": 3, "lead_time": 9},
    ),
    Geometry(
        "NWM rivers",
        {"time": 1344, "feature_id": 12_000},
        reaches,
        {
            "streamflow": Variable(
                ("time", "feature_id"),
                (672, 3000),
                mean=20,
                spread=5,
                missing=0.05,
                packing={"dtype": "int32", "scale_factor": 0.01, "add_offset": 0.0, "_FillValue": -999_900},
            )
        },
        RIVERS,
        quick={},
        tiny={"time": 48},
        zarr_format=2,
    ),
    _climate("by months", (29, 121, 280)),
    _climate("by days", (1, 121, 280)),
    _climate("by years and tiles", (365, 53, 51)),
    Geometry(
        "two bands of a tile",
        {"y": 1024, "x": 1024},
        square,
        {
            "red": Variable(("y", "x"), (256, 256), mean=1500, spread=300, dtype="uint16"),
            "nir": Variable(("y", "x"), (256, 256), mean=3500, spread=500, dtype="uint16"),
        },
        BANDS,
        quick={},
        tiny={"y": 300, "x": 300},
        zarr_format=2,
    ),
]
