"""Versions in use."""

import platform
from collections.abc import Iterable, Iterator
from contextlib import suppress
from importlib.metadata import PackageNotFoundError, version

__version__ = version("rainbear-dask")


def print_extension_info() -> str:
    """Return the versions in use.

    Returns
    -------
    str
        One line. The function does not print it.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> rd.print_extension_info().split()[0]
    'rainbear-dask'
    """
    names = ["rainbear-dask", "zarr", "polars", "dask", "icechunk", "obstore"]
    found = [f"{name} {number}" for name, number in _versions(names)]
    return f"{', '.join(found)} on Python {platform.python_version()}"


def show_versions() -> None:
    """Print the versions in use, one on each line, for reports of problems.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> rd.show_versions()  # doctest: +ELLIPSIS
    Python...
    """
    lines = [("Python", platform.python_version()), ("system", platform.platform()), *_versions(_PACKAGES)]
    width = max(len(name) for name, _ in lines)
    print("\n".join(f"{name:{width}}  {number}" for name, number in lines))  # noqa: T201  users ask for it


_PACKAGES = [
    *("rainbear-dask", "polars", "zarr", "dask", "distributed", "numpy", "numcodecs", "fsspec"),
    *("obstore", "s3fs", "icechunk", "pandas", "pyarrow", "xarray", "dask-jobqueue", "dask-kubernetes"),
]


def _versions(names: Iterable[str]) -> Iterator[tuple[str, str]]:
    """Yield the name and the version of each package that is installed."""
    for name in names:
        with suppress(PackageNotFoundError):
            yield name, version(name)
