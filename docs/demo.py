"""A first scan: three queries on five years of sea-surface temperature, run on a Dask cluster and checked by NumPy.

Run it with ``make demo``. The data are monthly means of the tropical oceans from OSTIA, the analysis of the UK Met
Office, from the package ``iris-sample-data``. Land is masked, so it is null in the table.
"""

import inspect
import sys
import time
from collections.abc import Callable
from datetime import datetime
from pathlib import Path
from textwrap import indent
from typing import NamedTuple

import iris_sample_data
import netCDF4
import numpy as np
import polars as pl
import zarr
from dask.distributed import LocalCluster

import rainbear_dask as rd

NETCDF = Path(iris_sample_data.path) / "ostia_monthly.nc"
STORE = Path(__file__).parents[1] / ".demo" / "sst.zarr"
DIMS = ["time", "latitude", "longitude"]


class Field(NamedTuple):
    """Temperatures in K by time, latitude and longitude, NaN on land, with their labels."""

    time: np.ndarray
    latitude: np.ndarray
    longitude: np.ndarray
    sst: np.ndarray


# Three queries, each in Polars on the table, and in NumPy on the arrays: the cells of the result.


def pacific_in_2008(sst: pl.LazyFrame) -> pl.LazyFrame:
    return sst.filter(
        pl.col("latitude").is_between(-5, 5),
        pl.col("longitude").is_between(190, 240),
        pl.col("time").is_between(datetime(2008, 1, 1), datetime(2008, 12, 31)),
    )


def pacific_in_2008_by_numpy(field: Field) -> np.ndarray:
    year = field.time.astype("M8[Y]") == np.datetime64("2008")
    south, west = abs(field.latitude) <= 5, (field.longitude >= 190) & (field.longitude <= 240)
    return year[:, None, None] & south[:, None] & west


def summers(sst: pl.LazyFrame) -> pl.LazyFrame:
    return sst.filter(pl.col("time").dt.month().is_in([7, 8, 9]))


def summers_by_numpy(field: Field) -> np.ndarray:
    month = field.time.astype("M8[M]").astype(int) % 12 + 1
    return np.broadcast_to(np.isin(month, [7, 8, 9])[:, None, None], field.sst.shape)


def warmest_cells(sst: pl.LazyFrame) -> pl.LazyFrame:
    return sst.filter(pl.col("sst") > 304).sort("sst", descending=True).head(10)


def warmest_cells_by_numpy(field: Field) -> np.ndarray:
    return field.sst >= np.sort(field.sst[~np.isnan(field.sst)])[-10]


QUESTIONS = [
    (pacific_in_2008, pacific_in_2008_by_numpy),
    (summers, summers_by_numpy),
    (warmest_cells, warmest_cells_by_numpy),
]


def main() -> int:
    """Run all queries. Return 0 if NumPy agrees with every result."""
    field = open_netcdf()
    if not STORE.exists():
        write_store(field)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        cluster.get_client() as client,
        pl.Config(tbl_rows=6),
    ):
        print(f"Zarr store: {STORE}")
        table = rd.scan_zarr(STORE, client=client)  # explicit: such small plans would otherwise stay here
        agreed = [ask(question, table, field, cells(field)) for question, cells in QUESTIONS]
    return 0 if all(agreed) else 1


def open_netcdf() -> Field:
    """Read the file; its times are whole hours."""
    with netCDF4.Dataset(NETCDF) as file:
        times = netCDF4.num2date(file["time"][:], file["time"].units, file["time"].calendar)
        return Field(
            np.array([np.datetime64(str(when), "h") for when in times]),
            file["latitude"][:].filled(),
            file["longitude"][:].filled(),
            file["surface_temperature"][:].filled(np.nan),
        )


def write_store(field: Field) -> None:
    """Convert to Zarr v3: 144 chunks in 3 shards."""
    half_written = STORE.with_suffix(".new")
    group = zarr.create_group(half_written, overwrite=True)
    hours = (field.time - field.time[0]).astype("i8")
    since = {"units": f"hours since {field.time[0].astype('M8[s]')}", "calendar": "standard"}
    for name, labels, attributes in (
        ("time", hours, since),
        ("latitude", field.latitude, {"units": "degrees_north"}),
        ("longitude", field.longitude, {"units": "degrees_east"}),
    ):
        group.create_array(name, data=labels, dimension_names=[name], attributes=attributes)
    stored = np.where(np.isnan(field.sst), -1, field.sst).astype("f4")
    land = {"units": "K", "missing_value": -1.0}
    group.create_array(
        "sst", data=stored, chunks=(3, 9, 108), shards=(18, 18, 432), dimension_names=DIMS, attributes=land
    )
    half_written.rename(STORE)


def ask(question: Callable[[pl.LazyFrame], pl.LazyFrame], table: pl.LazyFrame, field: Field, cells: np.ndarray) -> bool:
    """Print a query, its plan, its result and the check by NumPy."""
    query = question(table)
    print(f"\n{'-' * 80}\n{inspect.getsource(question)}\n{indent(str(rd.explain(query)), '    ')}\n")
    start = time.perf_counter()
    frame = query.collect()
    seconds = time.perf_counter() - start
    print(f"{frame}\n{seconds:.2f} s")
    return agree(frame, field, cells)


def agree(frame: pl.DataFrame, field: Field, cells: np.ndarray) -> bool:
    """Compare a result with the values of some cells, in any order of rows."""
    frame, positions = frame.sort(DIMS), np.nonzero(cells)  # labels ascend in all dimensions
    labels = [coordinate[at] for coordinate, at in zip(field[:3], positions, strict=True)]
    same_cells = all(
        np.array_equal(frame[dim].to_numpy(), expected) for dim, expected in zip(DIMS, labels, strict=True)
    )
    if not same_cells:
        print(f"!= NumPy: {len(frame):,} rows, expected {len(positions[0]):,}, or at other places")
        return False
    ours, theirs = frame["sst"].to_numpy(), field.sst[positions].astype("f4")  # null and masked values are NaN in both
    ok = np.array_equal(ours, theirs, equal_nan=True)
    print(f"{'=' if ok else '!='} NumPy: {len(frame):,} rows")
    return ok


if __name__ == "__main__":  # worker processes import this file
    sys.exit(main())
