"""Query Zarr stores as tidy Polars tables, on one machine or on a Dask cluster.

A name is imported when it is first asked for: the command line and workers need few of them, and what they bring is slow to
import. ``__init__.pyi`` tells them to type checkers and editors.
"""

from importlib import import_module
from typing import Any

_HOMES = {
    "BackendOptions": "backends.base",
    "IcechunkBackend": "backends.icechunk",
    "TableKey": "table.model",
    "ZarrBackend": "backends.zarr",
    "ZarrBackendSync": "backends.zarr",
    "configure_zarr_codecs": "metadata.codec_names",
    "exceptions": "exceptions",
    "explain": "api.scan",
    "plan": "api.scan",
    "print_extension_info": "diagnostics.versions",
    "progress": "diagnostics.progress",
    "read_zarr": "api.dataframe",
    "scan_zarr": "api.scan",
    "scan_zarr_async": "backends.zarr",
    "store": "store",
    "tables": "api.scan",
    "to_dask_dataframe": "api.dataframe",
}
__all__ = list(_HOMES)


def __getattr__(name: str) -> Any:
    if name not in _HOMES:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    home = import_module(f"{__name__}.{_HOMES[name]}")
    globals()[name] = value = home if name == _HOMES[name] else getattr(home, name)
    return value


def __dir__() -> list[str]:
    return sorted({*globals(), *__all__})
