"""A small store to try queries on: synthetic monthly sea-surface temperatures of five years, as Zarr v3."""

import os
import shutil
import tempfile
from pathlib import Path
from typing import Any

import numpy as np
import zarr

LAND = -9999.0
"""Stored value of cells on land, which is missing in tables."""

_CONTINENTS = [  # longitude and latitude of the centre, and half the width and height, in degrees
    (20.0, 5.0, 22.0, 30.0),
    (90.0, 50.0, 70.0, 22.0),
    (134.0, -25.0, 20.0, 13.0),
    (260.0, 50.0, 35.0, 22.0),
    (300.0, -15.0, 18.0, 32.0),
    (320.0, 75.0, 20.0, 12.0),
]


def sample_path() -> Path:
    """Return the path of the sample in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "rainbear-dask" / "sst-1.zarr"


def write_sample(path: Path) -> None:
    """Write the sample, unless something is at the path. A store at the path is always complete."""
    if path.exists():
        return
    path.parent.mkdir(parents=True, exist_ok=True)
    unfinished = Path(tempfile.mkdtemp(prefix=f".{path.name[:40]}.", dir=path.parent))
    try:
        unfinished.chmod(0o755)  # the folder is private until now
        _write(unfinished)
        try:
            unfinished.rename(path)
        except OSError:
            if not path.exists():  # else another process has written it meanwhile
                raise
    finally:
        shutil.rmtree(unfinished, ignore_errors=True)


def _write(path: Path) -> None:
    time, latitude = np.arange(60), np.arange(-88.75, 90, 2.5)
    longitude = np.arange(0, 360, 2.5)
    dims = ["time", "latitude", "longitude"]
    starts = np.arange("2006-01", "2011-01", dtype="M8[M]")
    days = (starts.astype("M8[D]") - np.datetime64("2006-01-01")).astype("i4")
    group = zarr.create_group(
        path, zarr_format=3, attributes={"title": "Synthetic sea-surface temperature, monthly means, 2006 to 2010"}
    )
    calendar: dict[str, Any] = {"units": "days since 2006-01-01", "calendar": "standard", "standard_name": "time"}
    north: dict[str, Any] = {"units": "degrees_north", "standard_name": "latitude"}
    east: dict[str, Any] = {"units": "degrees_east", "standard_name": "longitude"}
    for name, labels, attributes in (
        ("time", days, calendar),
        ("latitude", latitude, north),
        ("longitude", longitude, east),
    ):
        array = group.create_array(
            name, shape=labels.shape, dtype=labels.dtype, dimension_names=[name], attributes=attributes
        )
        array[:] = labels
    sst = group.create_array(
        "sst",
        shape=(60, 72, 144),
        chunks=(12, 24, 48),
        dtype="f4",
        fill_value=LAND,
        dimension_names=dims,
        attributes={
            "long_name": "sea surface temperature",
            "units": "degC",
            "missing_value": LAND,
        },
    )
    sst[:] = _temperatures(time[:, None, None], latitude[:, None], longitude)


def _temperatures(month: np.ndarray, latitude: np.ndarray, longitude: np.ndarray) -> np.ndarray:
    """Return temperatures in °C: zones by latitude, seasons, a slow wave in the Pacific, and weather."""
    zones = 31 * np.cos(np.radians(latitude)) ** 1.5 - 2
    seasons = -4 * np.sin(np.radians(2 * latitude)) * np.cos(2 * np.pi * (month - 1) / 12)
    wave = 2 * np.exp(-((latitude / 8) ** 2) - ((longitude - 230) / 30) ** 2) * np.sin(2 * np.pi * month / 44)
    weather = np.random.default_rng(0).normal(0, 0.3, (60, 72, 144))
    values = np.maximum(zones + seasons + wave + weather, -1.8)
    land = np.zeros((72, 144), dtype=bool)
    for east, north, wide, tall in _CONTINENTS:
        apart = (longitude - east + 180) % 360 - 180
        land |= (apart / wide) ** 2 + ((latitude - north) / tall) ** 2 < 1
    return np.where(land, LAND, values).astype("f4")
