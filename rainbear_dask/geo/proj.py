"""All questions to pyproj, on one thread of each process.

Polars calls Python on threads of its own. Python forgets such a thread after each call, and with it pyproj's state of the
thread, which pyproj's objects still use: the process would crash.
"""

from collections.abc import Callable, Mapping
from concurrent.futures import ThreadPoolExecutor
from functools import lru_cache, wraps
from typing import Any, ParamSpec, TypeVar

import numpy as np
import numpy.typing as npt

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import GeometryError

P = ParamSpec("P")
T = TypeVar("T")

_thread = ThreadPoolExecutor(1, thread_name_prefix="pyproj")


def _on_thread(func: Callable[P, T]) -> Callable[P, T]:
    """Make a function run on the thread for pyproj; such functions must not call each other."""

    @wraps(func)
    def moved(*args: P.args, **kwargs: P.kwargs) -> T:
        return _thread.submit(func, *args, **kwargs).result()

    return moved


@_on_thread
def crs_text(value: Any) -> str:
    """Return a CRS as text: its authority and code if it has one, else WKT.

    Raises
    ------
    GeometryError
        If pyproj does not know the CRS.
    """
    pyproj = _pyproj()
    try:
        return str(pyproj.CRS.from_user_input(value).to_string())
    except pyproj.exceptions.CRSError as err:
        text = str(err).partition("\n")[0].rstrip(".")
        raise GeometryError(
            f"pyproj does not know the CRS {value!r:.80}: {text}. Pass for example 'EPSG:4326'."
        ) from None


@_on_thread
def crs_of_attributes(attributes: Mapping[str, Any]) -> str:
    """Return the CRS of the CF attributes of a grid mapping, as text; empty if pyproj does not understand them."""
    pyproj = _pyproj()
    text = attributes.get("crs_wkt") or attributes.get("spatial_ref")
    try:
        crs = pyproj.CRS.from_user_input(text) if text else pyproj.CRS.from_cf(dict(attributes))
    except (pyproj.exceptions.CRSError, KeyError, TypeError, ValueError):
        return ""
    return str(crs.to_string())


@_on_thread
def is_lonlat(crs: str) -> bool:
    """Whether a CRS is longitude and latitude in degrees. Datums count as equal: they differ by less than a cell."""
    return _is_lonlat(crs)


@_on_thread
def are_same(a: str, b: str) -> bool:
    """Whether coordinates of two CRSs may be compared."""
    if _is_lonlat(a) or _is_lonlat(b):
        return _is_lonlat(a) and _is_lonlat(b)
    return bool(_plain(a).equals(_plain(b), ignore_axis_order=True))


@_on_thread
def names_of(crs: str) -> tuple[str, str]:
    """Return the name of a CRS, and a text with which users convert to it."""
    parsed = _plain(crs)
    code = 4326 if _is_lonlat(crs) else parsed.to_epsg()
    return str(parsed.name), f"EPSG:{code}" if code else "the CRS of the grid"


@_on_thread
def transformed(source: str, target: str, x: npt.NDArray[Any], y: npt.NDArray[Any]) -> npt.NDArray[np.float64]:
    """Return coordinates in another CRS, shape (2, n), easting first; infinite where the projection is not defined."""
    return np.array(_transformer(source, target).transform(x, y), dtype=np.float64)


def _pyproj() -> Any:
    return require("pyproj", extra="geo")


@lru_cache(maxsize=64)
def _transformer(source: str, target: str) -> Any:
    return _pyproj().Transformer.from_crs(source, target, always_xy=True)


@lru_cache(maxsize=64)
def _plain(crs: str) -> Any:
    """Return the horizontal CRS, without a vertical part or a shift of datum."""
    parsed = _pyproj().CRS.from_user_input(crs)
    while parsed.is_bound or parsed.is_compound:
        parsed = parsed.source_crs if parsed.is_bound else parsed.sub_crs_list[0]
    return parsed.to_2d()


def _is_lonlat(crs: str) -> bool:
    parsed = _plain(crs)
    return bool(parsed.is_geographic and not parsed.is_derived)
