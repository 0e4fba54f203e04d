"""Query Zarr stores as tidy Polars tables, on one machine or on a Dask cluster.

The package imports a name on first use, because the command line and the workers need few names and their dependencies
import slowly. ``__init__.pyi`` lists the names for type checkers and editors.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "BackendOptions": "backends.cached_store",
    "Engine": "api.collect",
    "ExportReport": "export.run",
    "IcechunkBackend": "backends.icechunk",
    "Statistics": "analysis.run",
    "TableKey": "table.model",
    "ZarrBackend": "backends.zarr",
    "ZarrBackendSync": "backends.zarr",
    "__version__": "diagnostics.versions",
    "analyze": "api.analyze",
    "collect": "api.collect",
    "configure_zarr_codecs": "metadata.codec_names",
    "exceptions": "exceptions",
    "explain": "api.scan",
    "geo": "geo",
    "open_sample": "api.sample_store",
    "plan": "api.scan",
    "print_extension_info": "diagnostics.versions",
    "progress": "diagnostics.progress",
    "read_zarr": "api.dataframe",
    "rewrite": "api.collect",
    "sample": "api.sample",
    "scan_zarr": "api.scan",
    "scan_zarr_async": "backends.zarr",
    "show_versions": "diagnostics.versions",
    "sql": "api.sql",
    "store": "store",
    "tables": "api.scan",
    "to_dask_dataframe": "api.dataframe",
    "to_xarray": "api.dataset",
    "write_icechunk": "api.write",
    "write_parquet": "api.export",
    "write_zarr": "api.write",
    "zonal": "api.zonal",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES[name]}")
    if _HOMES[name].startswith("api."):
        import_module(f"{__name__}.api.namespace")  # registers `lf.zarr`
    globals()[name] = value = home if name == _HOMES[name] else getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
