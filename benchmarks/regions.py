"""Means over polygons beside exactextract, xvec and a join: ``python -m benchmarks.regions``.

The store is the global hourly grid in tiles; 50 polygons overlap. All readers give one mean for each hour and polygon,
weighted by covered shares, and are compared. exactextract reads an array that is in memory already. The join reads our
scan, joins it with a table of weights, which is not timed, and groups. xvec is left out if it is not installed.
"""

import argparse
import tempfile
import time
from collections.abc import Callable
from dataclasses import dataclass
from importlib.util import find_spec
from math import inf
from pathlib import Path

import geopandas
import numpy as np
import polars as pl
import shapely
import xarray as xr
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource

import rainbear_dask as rd
from benchmarks.problems import LAYOUTS, Size
from benchmarks.run import conditions

TILES = next(layout for layout in LAYOUTS if layout.name == "tiles")
EXTENT = (-0.5, -90.5, 359.5, 90.5)
"""West, south, east and north of the grid, as exactextract wants it."""

Reader = Callable[[str, geopandas.GeoDataFrame], np.ndarray]
"""Returns means, shape (hours, polygons)."""


def polygons(count: int = 50) -> geopandas.GeoDataFrame:
    """Return round polygons of 3 to 20 degrees, away from the poles; many overlap."""
    rng = np.random.default_rng(0)
    shapes = [shapely.Point(*rng.uniform((20, -65), (340, 65))).buffer(rng.uniform(3, 20)) for _ in range(count)]
    return geopandas.GeoDataFrame({"id": range(count)}, geometry=shapes, crs=4326)


def ours(path: str, zones: geopandas.GeoDataFrame) -> np.ndarray:
    found = rd.zonal(path, zones, "t2m").collect()
    return found["t2m_mean"].to_numpy().reshape(-1, len(zones))


def by_exactextract(path: str, zones: geopandas.GeoDataFrame) -> np.ndarray:
    values = xr.open_zarr(path, chunks=None, consolidated=False).t2m.values.astype("f8")
    west, south, east, north = EXTENT
    rasters = [NumPyRasterSource(each, west, south, east, north, name=f"b{i}") for i, each in enumerate(values)]
    found = exact_extract(rasters, zones, ["mean"], output="pandas")
    return found.filter(like="mean").to_numpy().T


def by_join(path: str, zones: geopandas.GeoDataFrame) -> np.ndarray:
    weights = _weights(zones)
    lf = rd.scan_zarr(path).select("time", "lat", "lon", "t2m").join(weights.lazy(), on=["lat", "lon"])
    weighted = (pl.col("t2m").cast(pl.Float64) * pl.col("weight")).sum() / pl.col("weight").sum()
    found = lf.group_by("time", "id").agg(mean=weighted).sort("time", "id").collect()
    return found["mean"].to_numpy().reshape(-1, len(zones))


def _weights(zones: geopandas.GeoDataFrame) -> pl.DataFrame:
    west, south, east, north = EXTENT
    raster = NumPyRasterSource(np.zeros((181, 360), dtype="i1"), west, south, east, north)
    found = exact_extract(raster, zones, ["cell_id", "coverage"], output="pandas")
    parts = []
    for number, cells, share in zip(zones["id"], found["cell_id"], found["coverage"], strict=True):
        row, column = np.divmod(np.asarray(cells), 360)
        parts.append(pl.DataFrame({"id": number, "lat": 90.0 - row, "lon": column.astype("f8"), "weight": share}))
    return pl.concat(parts)


def by_xvec(path: str, zones: geopandas.GeoDataFrame) -> np.ndarray:
    import rioxarray  # noqa: F401, PLC0415  an accessor that xvec needs
    import xvec  # noqa: F401, PLC0415

    array = xr.open_zarr(path, chunks=None, consolidated=False).t2m.astype("f8").load()
    array = array.rename(lon="x", lat="y").rio.write_crs(4326)
    found = array.xvec.zonal_stats(zones.geometry, x_coords="x", y_coords="y", stats="mean", method="exactextract")
    return found.transpose("time", ...).values.reshape(array.sizes["time"], -1)


def readers() -> dict[str, Reader]:
    """Return the readers by name, ours first."""
    found: dict[str, Reader] = {"rainbear_dask": ours, "exactextract": by_exactextract, "scan, join, group": by_join}
    if find_spec("xvec") and find_spec("rioxarray"):
        found["xvec"] = by_xvec
    return found


@dataclass
class Measure:
    """Best seconds of a reader."""

    reader: str
    seconds: float


def measure(path: str, zones: geopandas.GeoDataFrame, *, rounds: int = 3) -> list[Measure]:
    """Run all readers in turns, compare their means, and keep the best time of each."""
    found = dict.fromkeys(readers(), inf)
    for _ in range(rounds):
        answers = {}
        for name, read in readers().items():
            start = time.perf_counter()
            answers[name] = read(path, zones)
            found[name] = min(found[name], time.perf_counter() - start)
        for answer in answers.values():
            np.testing.assert_allclose(answer, answers["rainbear_dask"], rtol=1e-12)
    return [Measure(*each) for each in found.items()]


def report(measures: list[Measure]) -> str:
    """Return a row for each reader, with the multiple of the time of rainbear_dask."""
    first = measures[0].seconds
    rows = [f"| {each.reader} | {each.seconds:.3f} s | {each.seconds / first:.2g} |" for each in measures]
    return "\n".join(["| reader | best | multiple |", "| --- | --: | --: |", *rows])


def main() -> None:
    """Measure everything and print it."""
    parser = argparse.ArgumentParser(description=__doc__, formatter_class=argparse.RawDescriptionHelpFormatter)
    parser.add_argument("--quick", action="store_true", help="two days instead of 31, and two rounds")
    quick = parser.parse_args().quick
    size: Size = "quick" if quick else "full"
    with tempfile.TemporaryDirectory(prefix="benchmarks-") as folder:
        path = str(Path(folder) / "tiles.zarr")
        TILES.sized(size).write(path)
        print(f"{conditions()}\n\n{report(measure(path, polygons(), rounds=2 if quick else 4))}")


if __name__ == "__main__":
    main()
