"""Versions in use."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

__version__ = version("rainbear-dask")


def print_extension_info() -> str:
    """Return the versions in use.

    Returns
    -------
    str
        One line. The function does not print it.
    """
    names = ["rainbear-dask", "zarr", "polars", "dask", "icechunk", "obstore"]
    found = []
    for name in names:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return f"{', '.join(found)} on Python {platform.python_version()}"
