"""Geometry in expressions: predicates that prune chunks, points and cells as EWKB, coordinates in another CRS."""

from rainbear_dask.geo.expressions import cell, dwithin, intersects_bbox, point, transform, within
from rainbear_dask.geo.frames import to_geopandas

__all__ = ["cell", "dwithin", "intersects_bbox", "point", "to_geopandas", "transform", "within"]
