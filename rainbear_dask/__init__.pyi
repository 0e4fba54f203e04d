"""Query Zarr stores as tidy Polars tables, on one machine or on a Dask cluster."""

from rainbear_dask import exceptions, geo, store
from rainbear_dask.analysis.run import Statistics
from rainbear_dask.api.analyze import analyze
from rainbear_dask.api.collect import Engine, collect, rewrite
from rainbear_dask.api.dataframe import read_zarr, to_dask_dataframe
from rainbear_dask.api.dataset import to_xarray
from rainbear_dask.api.export import write_parquet
from rainbear_dask.api.sample import sample
from rainbear_dask.api.sample_store import open_sample
from rainbear_dask.api.scan import explain, plan, scan_zarr, tables
from rainbear_dask.api.sql import sql
from rainbear_dask.api.write import write_icechunk, write_zarr
from rainbear_dask.api.zonal import zonal
from rainbear_dask.backends.cached_store import BackendOptions
from rainbear_dask.backends.icechunk import IcechunkBackend
from rainbear_dask.backends.zarr import ZarrBackend, ZarrBackendSync, scan_zarr_async
from rainbear_dask.diagnostics.progress import progress
from rainbear_dask.diagnostics.versions import __version__, print_extension_info, show_versions
from rainbear_dask.export.run import ExportReport
from rainbear_dask.metadata.codec_names import configure_zarr_codecs
from rainbear_dask.table.model import TableKey

__all__ = [
    "BackendOptions",
    "Engine",
    "ExportReport",
    "IcechunkBackend",
    "Statistics",
    "TableKey",
    "ZarrBackend",
    "ZarrBackendSync",
    "__version__",
    "analyze",
    "collect",
    "configure_zarr_codecs",
    "exceptions",
    "explain",
    "geo",
    "open_sample",
    "plan",
    "print_extension_info",
    "progress",
    "read_zarr",
    "rewrite",
    "sample",
    "scan_zarr",
    "scan_zarr_async",
    "show_versions",
    "sql",
    "store",
    "tables",
    "to_dask_dataframe",
    "to_xarray",
    "write_icechunk",
    "write_parquet",
    "write_zarr",
    "zonal",
]
