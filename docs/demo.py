"""A first scan: three queries on five years of sea-surface temperature, run on a Dask cluster and checked by xarray.

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

import iris_sample_data
import numpy as np
import pandas as pd
import polars as pl
import xarray as xr
from dask.distributed import LocalCluster

import rainbear_dask as rd

NETCDF = Path(iris_sample_data.path) / "ostia_monthly.nc"
STORE = Path(__file__).parents[1] / ".demo" / "sst.zarr"


# Three queries, each in Polars on the table, and in xarray on the arrays.


def pacific_in_2008(sst: pl.LazyFrame) -> pl.LazyFrame:
    return sst.filter(
        pl.col("latitude").is_between(-5, 5),
        pl.col("longitude").is_between(190, 240),
        pl.col("time").is_between(datetime(2008, 1, 1), datetime(2008, 12, 31)),
    )


def pacific_in_2008_by_xarray(sst: xr.DataArray) -> pd.DataFrame:
    return sst.sel(latitude=slice(-5, 5), longitude=slice(190, 240), time="2008").to_dataframe().reset_index()


def summers(sst: pl.LazyFrame) -> pl.LazyFrame:
    return sst.filter(pl.col("time").dt.month().is_in([7, 8, 9]))


def summers_by_xarray(sst: xr.DataArray) -> pd.DataFrame:
    return sst[sst.time.dt.month.isin([7, 8, 9])].to_dataframe().reset_index()


def warmest_cells(sst: pl.LazyFrame) -> pl.LazyFrame:
    return sst.filter(pl.col("sst") > 304).sort("sst", descending=True).head(10)


def warmest_cells_by_xarray(sst: xr.DataArray) -> pd.DataFrame:
    return sst.to_dataframe().reset_index().nlargest(10, "sst")


QUESTIONS = [
    (pacific_in_2008, pacific_in_2008_by_xarray),
    (summers, summers_by_xarray),
    (warmest_cells, warmest_cells_by_xarray),
]


def main() -> int:
    """Run all queries. Return 0 if xarray agrees with every result."""
    arrays = open_netcdf()
    if not STORE.exists():
        write_store(arrays)
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, host="127.0.0.1", dashboard_address=None) as cluster,
        cluster.get_client() as client,
        pl.Config(tbl_rows=6),
    ):
        print(f"Zarr store: {STORE}")
        table = rd.scan_zarr(STORE, client=client)  # explicit: such small plans would otherwise stay here
        agreed = [ask(question, table, expected(arrays)) for question, expected in QUESTIONS]
    return 0 if all(agreed) else 1


def open_netcdf() -> xr.DataArray:
    """Return temperatures in K, by time, latitude and longitude."""
    with xr.open_dataset(NETCDF, decode_coords="all") as ds:
        return ds["surface_temperature"].reset_coords(drop=True).drop_encoding().rename("sst").load()


def write_store(arrays: xr.DataArray) -> None:
    """Convert to Zarr v3: 144 chunks in 3 shards."""
    half_written = STORE.with_suffix(".new")
    layout = {"sst": {"chunks": (3, 9, 108), "shards": (18, 18, 432)}}
    arrays.to_dataset().to_zarr(half_written, mode="w", zarr_format=3, consolidated=False, encoding=layout)
    half_written.rename(STORE)


def ask(question: Callable[[pl.LazyFrame], pl.LazyFrame], table: pl.LazyFrame, expected: pd.DataFrame) -> bool:
    """Print a query, its plan, its result and the check by xarray."""
    query = question(table)
    print(f"\n{'-' * 80}\n{inspect.getsource(question)}\n{indent(str(rd.explain(query)), '    ')}\n")
    start = time.perf_counter()
    frame = query.collect()
    seconds = time.perf_counter() - start
    print(f"{frame}\n{seconds:.2f} s")
    return agree(frame, expected)


def agree(frame: pl.DataFrame, expected: pd.DataFrame) -> bool:
    """Compare two tables by value, in any order of rows."""
    dims = ["time", "latitude", "longitude"]
    frame, expected = frame.sort(dims), expected.sort_values(dims)
    same_cells = all(np.array_equal(frame[dim].to_numpy(), expected[dim].to_numpy()) for dim in dims)
    if not same_cells:
        print(f"!= xarray: {len(frame):,} rows, expected {len(expected):,}, or at other places")
        return False
    ours, theirs = frame["sst"].to_numpy(), expected["sst"].to_numpy()  # null and masked values are NaN in both
    same_land = np.array_equal(np.isnan(ours), np.isnan(theirs))
    difference = np.nanmax(np.abs(ours - theirs))
    ok = same_land and difference == 0
    print(f"{'=' if ok else '!='} xarray: {len(frame):,} rows, max difference {difference:g}")
    return ok


if __name__ == "__main__":  # worker processes import this file
    sys.exit(main())
