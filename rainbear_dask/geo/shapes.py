"""Geometries that users pass, in any common form, as shapely geometries with their CRS."""

import json
import re
from typing import Any, NamedTuple

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import GeometryError
from rainbear_dask.geo.crs import LONLAT
from rainbear_dask.geo.proj import crs_text

FORMS = "a shapely geometry, a GeoDataFrame, a GeoSeries, WKT, WKB, EWKB, GeoJSON, or an object with __geo_interface__"

POLYGONS = frozenset({"Polygon", "MultiPolygon"})


class Shape(NamedTuple):
    """A geometry.

    Parameters
    ----------
    geometry : shapely.Geometry
        In two dimensions, without SRID.
    crs : str
        Its CRS, in a form that pyproj reads; empty if it is not known.
    """

    geometry: Any
    crs: str


def read_shape(value: Any, what: str) -> Shape:
    """Return the geometry of a value of any supported form; several geometries become their union.

    Parameters
    ----------
    value
        One of `FORMS`. GeoJSON is in longitude and latitude, as its specification says.
    what : str
        Subject of error messages, for example "The polygon".

    Raises
    ------
    GeometryError
        If the value is of another form, or cannot be parsed.
    """
    shapely = require("shapely", extra="geo")
    try:
        geometry, crs = _parsed(shapely, value)
    except (shapely.errors.ShapelyError, ValueError, KeyError, TypeError, AttributeError) as err:
        text = str(err).partition("\n")[0].rstrip(".")
        raise GeometryError(f"{what} cannot be read: {text or type(err).__name__}. Pass {FORMS}.") from None
    srid = int(shapely.get_srid(geometry))
    return Shape(shapely.set_srid(shapely.force_2d(geometry), 0), crs or (crs_text(srid) if srid else ""))


def read_polygon(value: Any, what: str) -> Shape:
    """Return the polygon or multipolygon of a value of any supported form.

    Raises
    ------
    GeometryError
        If the value cannot be parsed, or is no valid polygon.
    """
    shape = read_shape(value, what)
    check_polygon(shape.geometry, what)
    return shape


def check_polygon(geometry: Any, what: str) -> None:
    """Raise a `GeometryError` unless a geometry is a polygon or multipolygon, not empty and valid."""
    shapely = require("shapely", extra="geo")
    if geometry.geom_type not in POLYGONS:
        raise GeometryError(
            f"{what} is a {geometry.geom_type}, which has no inside. Pass a Polygon or a MultiPolygon, for example "
            "`geometry.buffer(distance)`."
        )
    if geometry.is_empty:
        raise GeometryError(f"{what} is empty. Check the query that selects it.")
    if not geometry.is_valid:
        raise GeometryError(
            f"{what} is invalid: {shapely.is_valid_reason(geometry)}. Repair it with `shapely.make_valid`."
        )


def _parsed(shapely: Any, value: Any) -> tuple[Any, str]:
    if isinstance(value, shapely.Geometry):
        return value, ""
    if isinstance(value, bytes | bytearray | memoryview):
        return shapely.from_wkb(bytes(value)), ""
    if isinstance(value, str):
        return _from_text(shapely, value)
    if isinstance(value, dict):
        return _from_geojson(shapely, value), LONLAT
    if hasattr(value, "geometry") and hasattr(value, "crs"):  # a GeoDataFrame or GeoSeries
        return _union(shapely, list(value.geometry)), crs_text(value.crs) if value.crs is not None else ""
    if hasattr(value, "__geo_interface__"):
        return _from_geojson(shapely, value.__geo_interface__), ""
    raise TypeError(f"it is a {type(value).__name__}")


def _from_text(shapely: Any, text: str) -> tuple[Any, str]:
    if text.lstrip().startswith("{"):
        return _from_geojson(shapely, json.loads(text)), LONLAT
    srid = re.match(r"\s*SRID\s*=\s*(\d+)\s*;", text, flags=re.IGNORECASE)
    geometry = shapely.from_wkt(text[srid.end() :] if srid else text)
    return geometry, crs_text(int(srid[1])) if srid else ""


def _from_geojson(shapely: Any, data: dict[str, Any]) -> Any:
    if data["type"] == "FeatureCollection":
        return _union(shapely, [_from_geojson(shapely, feature) for feature in data["features"]])
    if data["type"] == "Feature":
        return _from_geojson(shapely, data["geometry"])
    return shapely.geometry.shape(data)


def _union(shapely: Any, geometries: list[Any]) -> Any:
    some = [geometry for geometry in geometries if geometry is not None]
    return some[0] if len(some) == 1 else shapely.union_all(some)
