"""Query Zarr stores as tidy Polars tables, on one machine or on a Dask cluster."""

from rainbear_dask import exceptions, store
from rainbear_dask.backends import (
    BackendOptions,
    ZarrBackend,
    ZarrBackendSync,
    scan_zarr_async,
)
from rainbear_dask.bars import progress
from rainbear_dask.documents import configure_zarr_codecs
from rainbear_dask.read import read_zarr, to_dask_dataframe
from rainbear_dask.repositories import IcechunkBackend
from rainbear_dask.scan import explain, plan, scan_zarr, tables
from rainbear_dask.table import TableKey
from rainbear_dask.versions import print_extension_info

__all__ = [
    "BackendOptions",
    "IcechunkBackend",
    "TableKey",
    "ZarrBackend",
    "ZarrBackendSync",
    "configure_zarr_codecs",
    "exceptions",
    "explain",
    "plan",
    "print_extension_info",
    "progress",
    "read_zarr",
    "scan_zarr",
    "scan_zarr_async",
    "store",
    "tables",
    "to_dask_dataframe",
]
