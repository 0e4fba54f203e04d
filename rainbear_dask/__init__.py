"""Query Zarr stores as tidy Polars tables, on one machine or on a Dask cluster."""

from rainbear_dask import exceptions
from rainbear_dask.scan import explain, plan, scan_zarr, tables

__all__ = ["exceptions", "explain", "plan", "scan_zarr", "tables"]
