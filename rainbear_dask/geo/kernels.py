"""Functions that Polars calls on columns: plain data that pickles, with geometries that each process prepares once.

Points are a struct of two fields, x and y. The names of the fields hold the CRS, and the key of the polygon: names are
the only part of an optimized expression that Polars shows. Planning checks the CRS, and reports draw the polygon.
"""

import hashlib
import re
from collections.abc import Callable
from dataclasses import dataclass
from functools import cached_property, lru_cache
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import GeometryError
from rainbear_dask.geo.proj import transformed

Floats = npt.NDArray[np.float64]
Mask = npt.NDArray[np.bool_]

EARTH_RADIUS = 6_371_008.8
"""Mean radius of the Earth, in metres."""

MAX_LONGITUDE = 1080.0
"""Larger numbers are no longitudes, but fill values, and lie in no polygon."""


@dataclass(frozen=True)
class Within:
    """Whether points lie in a polygon.

    Parameters
    ----------
    wkb : bytes
        The polygon.
    wraps : bool
        Whether x is a longitude in degrees, so that x and x + 360 are the same place.
    strict : bool
        Whether points on the boundary lie outside.
    """

    wkb: bytes
    wraps: bool
    strict: bool

    def __reduce__(self) -> "tuple[Callable[..., Within], tuple[bytes, bool, bool]]":
        return within, (self.wkb, self.wraps, self.strict)  # so that another process knows the key

    @cached_property
    def key(self) -> str:
        """A short text that identifies the function."""
        return hashlib.sha256(self.wkb + bytes([self.wraps, self.strict])).hexdigest()[:12]

    def __call__(self, points: pl.Series) -> pl.Series:
        x, y, absent = _coordinates(points)
        return _with_nulls(pl.Series(points.name, self.test(x, y)), absent)

    def test(self, x: Floats, y: Floats) -> Mask:
        """Return whether each point lies in the polygon."""
        geometry = _prepared(self.wkb, wraps=self.wraps, strict=self.strict)
        test = _shapely().contains_xy if self.strict else _shapely().intersects_xy
        west, south, east, north = geometry.bounds
        inside = np.zeros(len(x), dtype=np.bool_)
        some = np.flatnonzero((y >= south) & (y <= north) & (np.abs(x) <= MAX_LONGITUDE if self.wraps else True))
        moved = x[some]
        if self.wraps:
            moved = moved + 360 * np.ceil((west - moved) / 360)  # the first place at or east of the western end
        while len(some):
            near = (moved >= west) & (moved <= east)
            found = some[near]
            inside[found] |= test(geometry, moved[near], y[found])
            if not self.wraps:
                break
            moved = moved + 360
            some, moved = some[moved <= east], moved[moved <= east]
        return inside


_polygons: WeakValueDictionary[str, Within] = WeakValueDictionary()
"""The polygons that expressions of this process hold or held lately, by key."""


@lru_cache(maxsize=256)
def within(wkb: bytes, wraps: bool, strict: bool) -> Within:
    """Return a `Within`, the same object for equal arguments as long as an expression holds it."""
    new = Within(wkb, wraps, strict)
    return _polygons.setdefault(new.key, new)


@dataclass(frozen=True)
class DistanceWithin:
    """Whether points lie within a great-circle distance of a point.

    Parameters
    ----------
    longitude, latitude : float
        The point, in degrees.
    meters : float
        The distance.
    """

    longitude: float
    latitude: float
    meters: float

    def __call__(self, points: pl.Series) -> pl.Series:
        x, y, absent = _coordinates(points)
        near = distances(self.longitude, self.latitude, x, y) <= self.meters
        return _with_nulls(pl.Series(points.name, near), absent)


def distances(longitude: float, latitude: float, x: Floats, y: Floats) -> Floats:
    """Return great-circle distances, in metres, by the haversine formula."""
    here, there = np.radians(latitude), np.radians(y)
    half = np.sin((there - here) / 2) ** 2 + np.cos(here) * np.cos(there) * np.sin(np.radians(x - longitude) / 2) ** 2
    found: Floats = 2 * EARTH_RADIUS * np.arcsin(np.sqrt(np.minimum(half, 1)))
    return found


@dataclass(frozen=True)
class Points:
    """Points as EWKB; ``srid`` 0 gives plain WKB."""

    srid: int

    def __call__(self, points: pl.Series) -> pl.Series:
        x, y, absent = _coordinates(points)
        kind = [("order", "u1"), ("type", "<u4"), *([("srid", "<u4")] if self.srid else []), ("x", "<f8"), ("y", "<f8")]
        records = np.zeros(len(x), dtype=kind)
        records["order"], records["type"] = 1, 0x20000001 if self.srid else 1
        if self.srid:
            records["srid"] = self.srid
        records["x"], records["y"] = x, y
        return _with_nulls(_binary(points.name, records.view(f"V{records.itemsize}").tolist()), absent)


@dataclass(frozen=True)
class Cells:
    """Boxes of west, south, east and north as EWKB polygons; ``srid`` 0 gives plain WKB."""

    srid: int

    def __call__(self, boxes: pl.Series) -> pl.Series:
        sides = [boxes.struct.field(name).cast(pl.Float64) for name in ("west", "south", "east", "north")]
        absent = np.logical_or.reduce([side.is_null().to_numpy() for side in sides])
        corners = [side.fill_null(0.0).to_numpy() for side in sides]
        polygons = _shapely().set_srid(_shapely().box(*corners, ccw=True), self.srid)
        written = _shapely().to_wkb(polygons, byte_order=1, include_srid=bool(self.srid))
        return _with_nulls(_binary(boxes.name, written.tolist()), absent)


@dataclass(frozen=True)
class Transform:
    """Coordinates in another CRS, as a struct of x and y; null where the projection is not defined."""

    source: str
    target: str

    def __call__(self, points: pl.Series) -> pl.Series:
        x, y, absent = _coordinates(points)
        moved = transformed(self.source, self.target, x, y)
        absent = absent | ~np.isfinite(moved).all(axis=0)
        fields = [_with_nulls(pl.Series(name, values), absent) for name, values in zip("xy", moved, strict=True)]
        return pl.DataFrame(fields).to_struct(points.name)


def points_of(x: pl.Expr, y: pl.Expr, crs: str = "", polygon: str = "") -> pl.Expr:
    """Return two coordinates as a column of points, with the key of the polygon that they are compared with."""
    note = (f" of {polygon}" if polygon else "") + (f" in {crs}" if crs else "")
    return pl.struct(x.alias(f"x{note}"), y.alias(f"y{note}"))


def crs_of_points(x: pl.Expr, y: pl.Expr) -> str:
    """Return the CRS of the two fields of a struct; empty if they are no points, or their CRS is not known."""
    return _notes(x, y)[1]


def polygon_of_points(x: pl.Expr, y: pl.Expr) -> Within | None:
    """Return the polygon that the two fields of a struct are compared with; None if they are no points, or it is not known."""
    return _polygons.get(_notes(x, y)[0])


def _notes(x: pl.Expr, y: pl.Expr) -> tuple[str, str]:
    """Return the key of a polygon and the CRS that the names of two fields hold; empty if they hold none."""
    names = [each.meta.output_name(raise_if_undetermined=False) or "" for each in (x, y)]
    found = re.fullmatch(r"x(?: of (\w+))?(?: in (.+))?", names[0])
    return (found[1] or "", found[2] or "") if found and names[1] == f"y{names[0][1:]}" else ("", "")


def _shapely() -> Any:
    return require("shapely", extra="geo")


@lru_cache(maxsize=256)
def _prepared(wkb: bytes, *, wraps: bool, strict: bool) -> Any:
    """Return the polygon of a `Within`, prepared."""
    shapely = _shapely()
    polygon = shapely.from_wkb(wkb)
    west, _, east, _ = polygon.bounds
    if wraps and strict and east - west >= 360:  # it meets itself, and has no boundary there
        turns = (shapely.transform(polygon, lambda xy, turn=turn: np.add(xy, (turn, 0))) for turn in (-360, 0, 360))
        polygon = shapely.union_all(list(turns))
    shapely.prepare(polygon)
    inner = shapely.point_on_surface(polygon)
    # These build the index. Several threads must not do so at the same time.
    shapely.contains_xy(polygon, inner.x, inner.y)
    shapely.intersects_xy(polygon, inner.x, inner.y)
    return polygon


def _coordinates(points: pl.Series) -> tuple[Floats, Floats, Mask]:
    """Return x and y of a struct, and where either is null; there the numbers are undefined."""
    fields = []
    for name in points.struct.fields:
        field = points.struct.field(name)
        if not (field.dtype.is_numeric() or field.dtype == pl.Null):
            raise GeometryError(f"A coordinate is of type {field.dtype}, not a number. Name a column of numbers.")
        fields.append(field.cast(pl.Float64))
    absent = np.logical_or(*(field.is_null().to_numpy() for field in fields))
    x, y = (field.fill_null(float("nan")).to_numpy() for field in fields)
    return x, y, absent


def _with_nulls(values: pl.Series, absent: Mask) -> pl.Series:
    if not absent.any():
        return values
    return pl.select(pl.when(~pl.Series(absent)).then(values)).to_series().alias(values.name)


def _binary(name: str, written: list[bytes]) -> pl.Series:
    return pl.Series(name, written, dtype=pl.Binary)
