"""Weights of cells: the share of each cell that a zone covers, by exactextract, or whether it covers the centre."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass
from math import ceil, floor
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rainbear_dask.dependencies import require
from rainbear_dask.geo.kernels import EARTH_RADIUS, Within
from rainbear_dask.regions.axes import CellAxis, Floats

Weights = Literal["fraction", "area", "center"]


@dataclass(frozen=True)
class Coverage:
    """The cells of all zones, sorted by zone and by cell; all arrays have shape (n,).

    Parameters
    ----------
    zone, row, column : ndarray of int64
        Number of the zone, and position of the cell along y and x.
    fraction : ndarray of float64
        Share of the cell that counts as covered, above 0 and at most 1.
    weight : ndarray of float64
        Weight of the cell's value.
    """

    zone: npt.NDArray[np.int64]
    row: npt.NDArray[np.int64]
    column: npt.NDArray[np.int64]
    fraction: Floats
    weight: Floats


def cover(polygons: Sequence[bytes], x: CellAxis, y: CellAxis, weights: Weights, *, lonlat: bool) -> Coverage:
    """Find the cells of each zone.

    Parameters
    ----------
    polygons : sequence of bytes
        WKB of each zone; empty for none.
    x, y : CellAxis
        The grid.
    weights : {"fraction", "area", "center"}
        Weight of a cell: its covered share, its covered area in square metres (of the unit of the grid, if it is
        projected), or 1 if the zone covers its centre.
    lonlat : bool
        Whether the grid is in longitude and latitude.
    """
    shape = len(y.centers), len(x.centers)
    if weights == "center":
        zone, cell, fraction = _centers(polygons, x, y, lonlat=lonlat)
    else:
        zone, cell, fraction = _joined(_fractions(polygons, x, y, lonlat=lonlat), shape)
    row, column = np.divmod(cell, shape[1])
    weight = fraction
    if weights == "area":
        weight = fraction * _areas(x, y, lonlat=lonlat)[row] * x.lengths[column]
    return Coverage(zone, row, column, fraction, weight)


def _areas(x: CellAxis, y: CellAxis, *, lonlat: bool) -> Floats:
    """Return the area of a cell in each row, for each unit of length along x."""
    if not lonlat:
        return y.lengths
    heights = np.abs(np.diff(np.sin(np.radians(y.edges))))
    return np.asarray(heights * np.radians(1.0) * EARTH_RADIUS**2)


_SLACK = 1e-9
"""Units by which the box of a zone is wider, because arithmetic rounds."""

_BLOCK_CELLS = 2**20
"""Cells whose centres are tested at once."""

_Cells = tuple[npt.NDArray[np.int64], npt.NDArray[np.int64], Floats]
"""Zone, cell (C order of y and x) and covered share, each of shape (n,)."""


def _centers(polygons: Sequence[bytes], x: CellAxis, y: CellAxis, *, lonlat: bool) -> _Cells:
    shapely, found = require("shapely", extra="geo"), []
    for number, wkb in enumerate(polygons):
        if wkb:
            west, south, east, north = shapely.from_wkb(wkb).bounds
            all_rows = np.flatnonzero((y.centers >= south) & (y.centers <= north))
            offset = x.centers - west + _SLACK
            offset = offset % 360 if lonlat else offset
            columns = np.flatnonzero((offset >= 0) & (offset <= east - west + 2 * _SLACK))
            step = max(_BLOCK_CELLS // max(len(columns), 1), 1)
            for rows in (all_rows[first : first + step] for first in range(0, len(all_rows), step)):
                across, down = np.tile(x.centers[columns], len(rows)), np.repeat(y.centers[rows], len(columns))
                at = np.flatnonzero(Within(wkb, lonlat, strict=False).test(across, down))
                cells = rows[at // len(columns)] * len(x.centers) + columns[at % len(columns)]
                found.append((np.full(len(at), number), cells, np.ones(len(at))))
    return _concatenated(found)


def _joined(found: _Cells, shape: tuple[int, int]) -> _Cells:
    """Add up the shares of cells that several turns of a zone cover, and sort by zone and cell."""
    zone, cell, fraction = found
    size = shape[0] * shape[1]
    keys, inverse = np.unique(zone * size + cell, return_inverse=True)
    total = np.minimum(np.bincount(inverse, fraction, len(keys)), 1.0)
    some = total > 0
    return keys[some] // size, keys[some] % size, total[some]


def _fractions(polygons: Sequence[bytes], x: CellAxis, y: CellAxis, *, lonlat: bool) -> _Cells:
    uniform = x.uniform and y.uniform
    numbers, parts = [], []
    for number, part in _parts(polygons, x, y, lonlat=lonlat):
        numbers.append(number)
        parts.append(part if uniform else _in_cells(part, x, y))
    if not parts:
        return _concatenated([])
    shape = len(y.centers), len(x.centers)
    if uniform:
        west, east = sorted((x.nominal[0], x.nominal[-1]))
        south, north = sorted((y.nominal[0], y.nominal[-1]))
    else:
        west, south, east, north = 0.0, 0.0, float(shape[1]), float(shape[0])
    found = []
    stretch_y, stretch_x = y.stretch, x.stretch
    for number, (cells, fraction) in zip(numbers, _extracted(parts, (west, south, east, north), shape), strict=True):
        row, column = np.divmod(cells, shape[1])  # from the north-western corner of the raster
        row = shape[0] - 1 - row if not uniform or y.nominal[-1] > y.nominal[0] else row
        column = shape[1] - 1 - column if uniform and x.nominal[-1] < x.nominal[0] else column
        # no zone lies beyond the true edge of a cell, so its share of the true cell is larger
        share = fraction * stretch_y[row] * stretch_x[column]
        found.append((np.full(len(cells), number), row * shape[1] + column, share))
    return _concatenated(found)


def _parts(polygons: Sequence[bytes], x: CellAxis, y: CellAxis, *, lonlat: bool) -> Iterator[tuple[int, Any]]:
    """Yield the zones that meet the grid, each in all turns that do, without the parts beyond the grid."""
    shapely = require("shapely", extra="geo")
    (low, high), (bottom, top) = x.extent, y.extent
    grid = shapely.box(low, bottom, high, top)
    for number, wkb in enumerate(polygons):
        if not wkb:
            continue
        polygon = shapely.from_wkb(wkb)
        west, south, east, north = polygon.bounds
        if north <= bottom or south >= top:
            continue
        turns = range(ceil((low - east) / 360), floor((high - west) / 360) + 1) if lonlat else (0,)
        for turn in turns:
            moved = shapely.transform(polygon, lambda xy, by=360 * turn: np.add(xy, (by, 0))) if turn else polygon
            if not grid.covers(moved):
                # cut only at cells that end earlier than the nominal grid: exactextract cuts the others, to the bit
                moved = _cut(shapely, moved, x, y)
            yield number, moved


def _cut(shapely: Any, polygon: Any, x: CellAxis, y: CellAxis) -> Any:
    (low, high), (bottom, top) = x.extent, y.extent
    west, south, east, north = polygon.bounds
    if x.uniform and np.array_equal(x.edges, x.nominal):
        low, high = min(low, west), max(high, east)
    if y.uniform and np.array_equal(y.edges, y.nominal):
        bottom, top = min(bottom, south), max(top, north)
    box = shapely.box(low, bottom, high, top)
    return polygon if box.covers(polygon) else shapely.intersection(polygon, box)


def _in_cells(polygon: Any, x: CellAxis, y: CellAxis) -> Any:
    """Return a polygon in units of cells of an irregular grid.

    Coordinates become positions, linearly inside each cell. An edge that crosses cells gets a vertex at each crossing,
    so it stays straight inside every cell, and the covered shares stay the same.
    """
    shapely = require("shapely", extra="geo")

    def moved(ring: Floats) -> Floats:
        for axis, edges in ((0, x.nominal), (1, y.nominal)):
            ring = _with_crossings(ring, axis, np.sort(edges))
        return np.column_stack([_positions(ring[:, axis], a.nominal) for axis, a in ((0, x), (1, y))])

    def in_cells(part: Any) -> Any:
        holes = [moved(shapely.get_coordinates(hole)) for hole in part.interiors]
        return shapely.Polygon(moved(shapely.get_coordinates(part.exterior)), holes)

    polygons = [part for part in shapely.get_parts(polygon) if part.geom_type == "Polygon" and not part.is_empty]
    return shapely.MultiPolygon([in_cells(part) for part in polygons])


def _with_crossings(ring: Floats, axis: int, edges: Floats) -> Floats:
    """Insert a vertex into a ring wherever it crosses an edge of cells along an axis."""
    start, stop = ring[:-1, axis], ring[1:, axis]
    low, high = np.minimum(start, stop), np.maximum(start, stop)
    first, last = np.searchsorted(edges, low, side="right"), np.searchsorted(edges, high, side="left")
    count = np.maximum(last - first, 0)
    segment = np.repeat(np.arange(len(start)), count)
    rank = np.arange(len(segment)) - np.repeat(np.cumsum(count) - count, count)
    forward = (stop > start)[segment]
    at = edges[np.where(forward, first[segment] + rank, last[segment] - 1 - rank)]
    share = (at - start[segment]) / (stop - start)[segment]
    crossings = ring[segment] + share[:, None] * (ring[segment + 1] - ring[segment])
    crossings[:, axis] = at
    return np.insert(ring, segment + 1, crossings, axis=0)


def _positions(values: Floats, edges: Floats) -> Floats:
    """Return positions of coordinates in cells, counted from the lowest or from the first edge; linear beyond the ends."""
    places = np.arange(len(edges), dtype=np.float64)
    if edges[-1] < edges[0]:
        edges, places = edges[::-1], places[::-1]
    cell = np.clip(np.searchsorted(edges, values, side="right") - 1, 0, len(edges) - 2)
    share = (values - edges[cell]) / (edges[cell + 1] - edges[cell])
    return np.asarray(places[cell] + share * (places[cell + 1] - places[cell]))


def _extracted(
    parts: Sequence[Any], extent: tuple[float, float, float, float], shape: tuple[int, int]
) -> Iterator[tuple[npt.NDArray[np.int64], Floats]]:
    """Yield the cells that each polygon covers, from the north-western corner of a raster, and the covered shares."""
    require("exactextract", extra="geo")
    from rainbear_dask.regions.rasters import BlankRaster, WkbFeatures, extract  # noqa: PLC0415  subclasses of exactextract's

    for found in extract(BlankRaster(extent, shape), WkbFeatures([part.wkb for part in parts])):
        yield np.asarray(found["cell_id"], dtype=np.int64), np.asarray(found["coverage"], dtype=np.float64)


def _concatenated(found: Sequence[_Cells]) -> _Cells:
    zone, cell, fraction = zip(*found, strict=True) if found else ((), (), ())
    whole = np.empty(0, dtype=np.int64)
    return np.concatenate([whole, *zone]), np.concatenate([whole, *cell]), np.concatenate([np.empty(0), *fraction])
