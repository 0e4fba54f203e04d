"""Polygons as lines over a grid: coordinates become positions along its dimensions."""

from collections.abc import Iterator
from math import ceil, floor
from typing import Any

import numpy as np
import numpy.typing as npt

from rainbear_dask.dependencies import require
from rainbear_dask.diagnostics.labels import labels_of
from rainbear_dask.geo.outlines import Outline
from rainbear_dask.table.model import Table

Line = npt.NDArray[np.float64]

_DETAIL = 500
"""Corners of a polygon closer than this part of a side of the grid are left out: a picture does not show them."""

_MAX_POLYGONS = 1000


def lines_of(outline: Outline, table: Table, down: str, across: str) -> list[Line]:
    """Return the rings of polygons as lines over two dimensions of a table.

    Parameters
    ----------
    outline : Outline
        The polygons.
    table : Table
        The table; it has a coordinate along each dimension.
    down, across : str
        The dimensions of a picture.

    Returns
    -------
    list of ndarray of float64, shape (n, 2)
        Position across and down of each corner; the cell of the first label reaches from 0 to 1. Empty if the polygons
        are over other coordinates, if labels are not monotonic, or if there are more than 1,000 polygons.
    """
    if {outline.x, outline.y} != {down, across} or len(outline.polygons) > _MAX_POLYGONS:
        return []
    axes = {name: _labels(table, name) for name in (outline.x, outline.y)}
    x, y = axes[outline.x], axes[outline.y]
    if x is None or y is None:
        return []
    found = []
    for ring in _rings(outline, x, y):
        places = {outline.x: _positions(x, ring[:, 0]), outline.y: _positions(y, ring[:, 1])}
        found.append(np.column_stack([places[across], places[down]]))
    return found


def _labels(table: Table, name: str) -> Line | None:
    labels = labels_of(table, name)
    if labels is None or len(labels) < 2 or not labels.dtype.is_numeric() or labels.null_count():
        return None
    values = labels.to_numpy().astype(np.float64)
    steps = np.diff(values)
    return values if np.all(steps > 0) or np.all(steps < 0) else None


def _rings(outline: Outline, x: Line, y: Line) -> Iterator[Line]:
    shapely = require("shapely", extra="geo")
    wide, tall = np.ptp(x), np.ptp(y)
    for wkb in filter(None, outline.polygons):
        polygon = shapely.simplify(shapely.from_wkb(wkb), min(wide, tall) / _DETAIL)
        west, _, east, _ = polygon.bounds
        for turn in _turns(west, east, x) if outline.wraps else [0]:
            for ring in _rings_of(shapely, polygon):
                yield np.add(ring, (360 * turn, 0))


def _turns(west: float, east: float, x: Line) -> range:
    """Return how often to turn a polygon around the Earth so that it meets the longitudes of a grid."""
    step = np.abs(np.diff(x)).max()
    return range(ceil((x.min() - step - east) / 360), floor((x.max() + step - west) / 360) + 1)


def _rings_of(shapely: Any, polygon: Any) -> Iterator[Line]:
    for part in shapely.get_parts(polygon):
        for ring in (part.exterior, *part.interiors):
            yield shapely.get_coordinates(ring)


def _positions(labels: Line, values: Line) -> Line:
    """Return where values lie among the labels of an axis: 0.5 at the first one, and further on outside."""
    ascending = labels if labels[0] < labels[-1] else labels[::-1]
    steps = ascending[1] - ascending[0], ascending[-1] - ascending[-2]
    places = np.interp(values, ascending, np.arange(len(labels)) + 0.5)
    places += np.minimum(values - ascending[0], 0) / steps[0] + np.maximum(values - ascending[-1], 0) / steps[1]
    found: Line = places if labels[0] < labels[-1] else len(labels) - places
    return found
