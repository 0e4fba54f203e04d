"""Sources for exactextract: a raster without values, and polygons as WKB. Import it where exactextract is needed."""

from collections.abc import Iterator, Sequence
from typing import Any

import numpy as np
import numpy.typing as npt
from exactextract import exact_extract
from exactextract.feature import FeatureSource, JSONFeature
from exactextract.raster import RasterSource


class BlankRaster(RasterSource):  # type: ignore[misc]  # exactextract has no types
    """A raster of zeros, which takes no memory but that of a window.

    Parameters
    ----------
    extent : tuple of float
        West, south, east, north.
    shape : tuple of int
        Rows, from the north, and columns.
    """

    def __init__(self, extent: tuple[float, float, float, float], shape: tuple[int, int]) -> None:
        super().__init__()
        self._extent, self._shape = extent, shape

    def res(self) -> tuple[float, float]:
        """Return the size of a cell."""
        west, south, east, north = self._extent
        return (east - west) / self._shape[1], (north - south) / self._shape[0]

    def extent(self) -> tuple[float, float, float, float]:
        """Return west, south, east and north."""
        return self._extent

    def nodata_value(self) -> None:
        """Return no value, because none is missing."""

    def srs_wkt(self) -> None:
        """Return no CRS, because that was checked."""

    def read_window(self, _x: int, _y: int, columns: int, rows: int) -> npt.NDArray[np.int8]:
        """Return the values of a window."""
        return np.zeros((rows, columns), dtype=np.int8)


class _WkbFeature(JSONFeature):  # type: ignore[misc]
    def __init__(self, wkb: bytes) -> None:
        super().__init__()
        self._wkb = wkb

    def geometry(self) -> bytes:
        return self._wkb


class WkbFeatures(FeatureSource):  # type: ignore[misc]
    """Polygons, as WKB."""

    def __init__(self, polygons: Sequence[bytes]) -> None:
        super().__init__()
        self._polygons = polygons

    def __iter__(self) -> Iterator[_WkbFeature]:
        return map(_WkbFeature, self._polygons)

    def count(self) -> int:
        """Return the number of polygons."""
        return len(self._polygons)

    def srs_wkt(self) -> None:
        """Return no CRS, because that was checked."""


def extract(raster: BlankRaster, polygons: WkbFeatures) -> Iterator[dict[str, Any]]:
    """Yield the covered cells of each polygon: ``cell_id`` and ``coverage``, arrays of one shape."""
    for feature in exact_extract(raster, polygons, ["cell_id", "coverage"]):
        yield feature["properties"]
