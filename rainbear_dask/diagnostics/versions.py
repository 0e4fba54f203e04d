"""Which versions are in use."""

import platform
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

__version__ = version("rainbear-dask")


def print_extension_info() -> str:
    """Say which versions are in use.

    Returns
    -------
    str
        One line; it is returned, and not printed.
    """
    names = ["rainbear-dask", "zarr", "polars", "dask", "icechunk", "obstore"]
    found = []
    for name in names:
        with suppress(PackageNotFoundError):
            found.append(f"{name} {version(name)}")
    return f"{', '.join(found)} on Python {platform.python_version()}"
