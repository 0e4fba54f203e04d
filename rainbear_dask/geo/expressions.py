"""The public expressions of ``rainbear_dask.geo``."""

from functools import reduce
from math import asin, cos, degrees, isfinite, radians, sin
from operator import or_
from typing import Any, Literal

import polars as pl

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import GeometryError
from rainbear_dask.geo import kernels
from rainbear_dask.geo.crs import LONLAT
from rainbear_dask.geo.kernels import EARTH_RADIUS, Cells, DistanceWithin, Points, Transform, Within, points_of
from rainbear_dask.geo.proj import crs_text, is_lonlat
from rainbear_dask.geo.shapes import read_polygon, read_shape

_SLACK = 1e-9
"""Degrees by which conditions on one coordinate are wider than the geometry, because arithmetic rounds."""


def within(
    polygon: Any,
    lon: str | pl.Expr = "lon",
    lat: str | pl.Expr = "lat",
    boundary: Literal["include", "exclude"] = "include",
) -> pl.Expr:
    """Return whether each row's point lies in a polygon.

    In a scan, the expression prunes chunks: the scan reads only chunks that hold a point of the polygon.

    Parameters
    ----------
    polygon
        A polygon or multipolygon: a shapely geometry, GeoDataFrame, GeoSeries (several rows count as their union), WKT,
        WKB, EWKB, GeoJSON, or an object with ``__geo_interface__``.
    lon, lat : str or Expr
        Coordinates of the points, in degrees; on a projected grid easting and northing, in the unit of the grid.
    boundary : {"include", "exclude"}
        Whether points on the boundary lie inside.

    Returns
    -------
    Expr
        A Boolean for each row; null if a coordinate is null. Elementwise, and it pickles.

    Raises
    ------
    GeometryError
        If ``polygon`` is no valid polygon. A scan raises it if the polygon's CRS is known and differs from the grid's.
    MissingDependencyError
        If shapely or pyproj is not installed.

    Notes
    -----
    The result equals ``shapely.covers`` (``"include"``) or ``shapely.contains`` (``"exclude"``) of polygon and point, in
    the plane of the coordinates: edges are straight lines in it, and a pole is an edge of the map.

    Longitudes count modulo 360 if the polygon is in longitude and latitude, so grids of 0 to 360 match polygons of -180
    to 180. Such a polygon may cross the antimeridian, as 170 to 190 or in two parts. A polygon without a CRS (shapely,
    WKT, WKB) is in longitude and latitude if ``lon`` names a longitude, else in the coordinates of the columns.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> frame = pl.DataFrame({"lon": [5.0, 355.0, None], "lat": [50.0, 50.0, 50.0]})
    >>> frame.select(rd.geo.within("POLYGON ((-10 40, 0 40, 0 60, -10 60, -10 40))")).to_series().to_list()
    [False, True, None]
    """
    if boundary not in ("include", "exclude"):
        raise GeometryError(f"The boundary {boundary!r} is neither 'include' nor 'exclude'. Did you mean 'include'?")
    geometry, crs = read_polygon(polygon, "The polygon")
    return _within(geometry, crs, lon, lat, strict=boundary == "exclude").alias("within")


def intersects_bbox(  # noqa: PLR0917  the order of a bbox in GeoJSON
    west: float,
    south: float,
    east: float,
    north: float,
    lon: str | pl.Expr = "lon",
    lat: str | pl.Expr = "lat",
) -> pl.Expr:
    """Return whether each row's point lies in a box, its sides included.

    Parameters
    ----------
    west, south, east, north : float
        Sides of the box, in the unit of the coordinates. A longitude ``west > east`` crosses the antimeridian.
    lon, lat : str or Expr
        As in `within`.

    Returns
    -------
    Expr
        As in `within`.

    Raises
    ------
    GeometryError
        If a side is not finite, or a box is empty.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> frame = pl.DataFrame({"lon": [175.0, 185.0, 5.0], "lat": [0.0, 0.0, 0.0]})
    >>> frame.select(rd.geo.intersects_bbox(170, -10, -170, 10)).to_series().to_list()
    [True, True, False]
    """
    if not all(map(isfinite, (west, south, east, north))):
        raise GeometryError(f"A side of the box {west, south, east, north} is not finite. Pass four finite numbers.")
    wraps = _is_longitude(lon)
    if wraps and west > east:
        east += 360
    if west >= east or south >= north:
        raise GeometryError(
            f"The box {west, south, east, north} is empty. Pass west, south, east, north, in this order."
        )
    box = require("shapely", extra="geo").box(west, south, east, north)
    return _within(box, "", lon, lat, strict=False).alias("intersects_bbox")


def _within(geometry: Any, crs: str, lon: str | pl.Expr, lat: str | pl.Expr, *, strict: bool) -> pl.Expr:
    wraps = is_lonlat(crs) if crs else _is_longitude(lon)
    crs = crs or (LONLAT if wraps else "")
    west, south, east, north = geometry.bounds
    x, y = _column(lon), _column(lat)
    sides = [_between(y, south, north), _turned(x, west, east) if wraps else _between(x, west, east)]
    return _bounded(x, y, sides, crs, kernels.within(geometry.wkb, wraps, strict))


def dwithin(point: Any, meters: float, lon: str | pl.Expr = "lon", lat: str | pl.Expr = "lat") -> pl.Expr:
    """Return whether each row's point lies within a distance of a point.

    Parameters
    ----------
    point
        A point in longitude and latitude, as ``(lon, lat)`` or in a form of `within`.
    meters : float
        Distance on the great circle, on a sphere of radius 6,371,008.8 m. It differs from the distance on the ellipsoid
        by at most 0.6 percent.
    lon, lat : str or Expr
        Longitude and latitude, in degrees.

    Returns
    -------
    Expr
        A Boolean for each row; null if a coordinate is null. It prunes chunks, across the antimeridian and over poles.

    Raises
    ------
    GeometryError
        If ``point`` is no point in longitude and latitude, or ``meters`` is negative or not finite.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> frame = pl.DataFrame({"lon": [4.9, 359.9], "lat": [52.4, 51.5]})
    >>> frame.select(rd.geo.dwithin((5.1, 52.1), meters=50e3)).to_series().to_list()
    [True, False]
    """
    shapely = require("shapely", extra="geo")
    shape = read_shape(shapely.Point(point) if isinstance(point, tuple | list) else point, "The point")
    if shape.geometry.geom_type != "Point" or shape.geometry.is_empty:
        raise GeometryError(f"`point` is a {shape.geometry.geom_type}. Pass one point, for example (5.1, 52.1).")
    if shape.crs and not is_lonlat(shape.crs):
        raise GeometryError(f"The point is in {shape.crs}. Convert it to longitude and latitude: to_crs('EPSG:4326').")
    longitude, latitude = shape.geometry.x, shape.geometry.y
    if not (isfinite(longitude) and abs(latitude) <= 90):
        raise GeometryError(f"The point ({longitude}, {latitude}) is no longitude and latitude. Pass (lon, lat).")
    if not (isfinite(meters) and meters >= 0):
        raise GeometryError(f"The distance {meters} is not a number of metres, 0 or more.")
    angle = meters / EARTH_RADIUS
    reach = degrees(angle) + _SLACK
    x, y = _column(lon), _column(lat)
    sides = [_between(y, latitude - reach, latitude + reach)]
    if abs(latitude) + reach < 90:  # else the circle holds a pole, and so all longitudes
        wide = degrees(asin(min(sin(angle) / cos(radians(latitude)), 1))) + _SLACK
        sides.append(_turned(x, longitude - wide, longitude + wide))
    return _bounded(x, y, sides, LONLAT, DistanceWithin(longitude, latitude, float(meters))).alias("dwithin")


def point(lon: str | pl.Expr = "lon", lat: str | pl.Expr = "lat", srid: int = 4326) -> pl.Expr:
    """Return each row's point as EWKB.

    Parameters
    ----------
    lon, lat : str or Expr
        The coordinates.
    srid : int
        Code of the CRS; 0 gives plain WKB.

    Returns
    -------
    Expr
        Binary; null if a coordinate is null. Otherwise bit for bit the result of ``polars_st.point``.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> pl.select(rd.geo.point(pl.lit(1.0), pl.lit(2.0), srid=0)).item().hex()
    '0101000000000000000000f03f0000000000000040'
    """
    _check_srid(srid)
    return _mapped(points_of(_column(lon), _column(lat)), Points(srid), pl.Binary()).alias("point")


def cell(
    west: str | float | pl.Expr,
    south: str | float | pl.Expr,
    east: str | float | pl.Expr,
    north: str | float | pl.Expr,
    srid: int = 4326,
) -> pl.Expr:
    """Return the box of each row's cell as EWKB.

    Parameters
    ----------
    west, south, east, north : str, float or Expr
        Sides of the cell: names of columns with its bounds, expressions, or numbers.
    srid : int
        Code of the CRS; 0 gives plain WKB.

    Returns
    -------
    Expr
        Binary; null if a side is null. The ring is that of ``shapely.box``, counterclockwise.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> lon, lat = pl.col("lon"), pl.col("lat")
    >>> frame = pl.DataFrame({"lon": [0.5], "lat": [50.5]})
    >>> len(frame.select(rd.geo.cell(lon - 0.5, lat - 0.5, lon + 0.5, lat + 0.5)).item())
    97
    """
    _check_srid(srid)
    sides = {"west": west, "south": south, "east": east, "north": north}
    boxes = pl.struct(
        (_column(side) if isinstance(side, str | pl.Expr) else pl.lit(float(side))).alias(name)
        for name, side in sides.items()
    )
    return _mapped(boxes, Cells(srid), pl.Binary()).alias("cell")


def transform(x: str | pl.Expr, y: str | pl.Expr, from_crs: Any, to_crs: Any) -> pl.Expr:
    """Return each row's point in another CRS.

    Parameters
    ----------
    x, y : str or Expr
        The coordinates; longitude or easting first.
    from_crs, to_crs
        A CRS as pyproj reads it: "EPSG:32633", 4326, WKT, a `pyproj.CRS`.

    Returns
    -------
    Expr
        A struct of ``x`` and ``y`` (Float64), longitude or easting first. Both are null if a coordinate is null, or if
        the projection is not defined there.

    Raises
    ------
    GeometryError
        If pyproj does not know a CRS.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> moved = rd.geo.transform(pl.lit(500000.0), pl.lit(0.0), "EPSG:32633", "EPSG:4326")
    >>> pl.select(moved.struct.field("x").round(6)).item()
    15.0
    """
    points = points_of(_column(x), _column(y))
    dtype = pl.Struct({"x": pl.Float64, "y": pl.Float64})
    return _mapped(points, Transform(crs_text(from_crs), crs_text(to_crs)), dtype).alias("point")


def _bounded(x: pl.Expr, y: pl.Expr, sides: list[pl.Expr], crs: str, kernel: Within | DistanceWithin) -> pl.Expr:
    """Join a test of points with conditions on single coordinates that it implies.

    The conditions prune grids that are too large for planning to test each cell. They pass all rows with a null
    coordinate, for which the result is null.
    """
    absent = [x.is_null(), y.is_null()]
    polygon = kernel.key if isinstance(kernel, Within) else ""
    found = _mapped(points_of(x, y, crs, polygon), kernel, pl.Boolean())
    return reduce(lambda test, side: test & reduce(or_, absent, side), sides, found)


def _mapped(columns: pl.Expr, kernel: Any, dtype: pl.DataType) -> pl.Expr:
    return columns.map_batches(kernel, return_dtype=dtype, is_elementwise=True)


def _between(column: pl.Expr, low: float, high: float) -> pl.Expr:
    number = column.cast(pl.Float64, strict=False)  # a strict cast may fail, and Polars would not push it down
    return (number >= low) & (number <= high)


def _turned(column: pl.Expr, west: float, east: float) -> pl.Expr:
    """Return whether a longitude may lie between two others, modulo 360."""
    width = east - west + 2 * _SLACK
    number = column.cast(pl.Float64, strict=False)
    return (number - (west - _SLACK)) % 360 <= width if width < 360 else pl.lit(value=True)


def _column(value: str | pl.Expr) -> pl.Expr:
    return pl.col(value) if isinstance(value, str) else value


def _is_longitude(value: str | pl.Expr) -> bool:
    """Whether a column is a longitude by its name, for example ``longitude``, ``nav_lon`` or ``XLONG``."""
    name = value if isinstance(value, str) else value.meta.output_name(raise_if_undetermined=False)
    return "lon" in (name or "").lower()


def _check_srid(srid: int) -> None:
    if not 0 <= srid < 2**31:
        raise GeometryError(f"The SRID {srid!r} is no code of a CRS. Pass for example 4326, or 0 for plain WKB.")
