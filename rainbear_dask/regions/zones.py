"""Zones that users pass, in any common form, as polygons with an identifier each."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from os import PathLike
from pathlib import Path
from typing import Any

import polars as pl

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import GeometryError, UnknownColumnError
from rainbear_dask.geo.crs import LONLAT
from rainbear_dask.geo.proj import crs_text
from rainbear_dask.geo.shapes import FORMS, check_polygon, read_shape

_FORMS = (
    "a GeoDataFrame, a GeoSeries, a GeoJSON FeatureCollection, a Polars table with a column of WKB, {id: polygon}, a list "
    "of polygons, or the path of a file that geopandas reads"
)


@dataclass(frozen=True)
class Zones:
    """Polygons and their identifiers.

    Parameters
    ----------
    ids : Series
        Identifier of each zone, in the order given; the name of the series is that of the column.
    polygons : tuple of bytes
        WKB of each; empty for a zone without a geometry.
    crs : str
        CRS of all zones; empty if it is not known.
    """

    ids: pl.Series
    polygons: tuple[bytes, ...]
    crs: str


def read_zones(zones: Any, by: str) -> Zones:
    """Return the zones of a value of any supported form.

    Parameters
    ----------
    zones
        See `rainbear_dask.zonal`.
    by : str
        Column or property with the identifiers. If there is no "id", zones have the index of the frame, or are numbered
        from 0.

    Raises
    ------
    GeometryError
        If the zones cannot be read, a zone is no valid polygon, or zones differ in CRS.
    UnknownColumnError
        If the zones have no column ``by``.
    """
    if isinstance(zones, str | PathLike):
        zones = _from_file(Path(zones))
    ids, geometries, crs = _parsed(zones, by)
    polygons, found = [], {crs} if crs else set()
    for name, geometry in zip(ids, geometries, strict=True):
        if geometry is None:
            polygons.append(b"")
            continue
        what = f"The zone {name!r}"
        shape = read_shape(geometry, what)
        if not shape.geometry.is_empty:
            check_polygon(shape.geometry, what)
        polygons.append(b"" if shape.geometry.is_empty else shape.geometry.wkb)
        if shape.crs and not crs:
            found.add(shape.crs)
    if len(found) > 1:
        raise GeometryError(f"The zones are in several CRSs: {', '.join(sorted(found))}. Convert them to one.")
    return Zones(pl.Series(by, ids, strict=False), tuple(polygons), found.pop() if found else "")


def _from_file(path: Path) -> Any:
    geopandas = require("geopandas", extra="geo")
    if not path.exists():
        raise GeometryError(f"There is no file {path}. Zones are {_FORMS}.")
    try:
        return geopandas.read_parquet(path) if path.suffix in (".parquet", ".pq") else geopandas.read_file(path)
    except Exception as err:  # pyogrio and Arrow have errors of their own, for each format others
        text = str(err).partition("\n")[0].rstrip(".")
        raise GeometryError(f"geopandas cannot read the zones of {path}: {text}. Zones are {_FORMS}.") from err


def _parsed(zones: Any, by: str) -> tuple[list[Any], list[Any], str]:
    """Return identifiers, geometries of any form, and their common CRS."""
    if hasattr(zones, "geometry") and hasattr(zones, "crs"):
        columns = list(getattr(zones, "columns", []))
        if by not in columns and (by != "id" or not hasattr(zones, "index")):
            raise _no_column(by, columns)
        ids = (zones[by] if by in columns else zones.index).tolist()
        return ids, list(zones.geometry), crs_text(zones.crs) if zones.crs is not None else ""
    if isinstance(zones, pl.DataFrame):
        return _from_table(zones, by)
    if isinstance(zones, Mapping) and zones.get("type") == "FeatureCollection":
        features = list(zones["features"])
        names = [
            {"id": at} | _own_id(feature) | (feature.get("properties") or {}) for at, feature in enumerate(features)
        ]
        if any(by not in name for name in names):
            raise _no_column(by, dict.fromkeys(key for name in names for key in name))
        return [name[by] for name in names], [feature["geometry"] for feature in features], LONLAT
    if isinstance(zones, Mapping) and "type" not in zones:
        return list(zones), list(zones.values()), ""
    if isinstance(zones, Sequence) and not isinstance(zones, bytes | bytearray):
        return list(range(len(zones))), list(zones), ""
    raise GeometryError(f"Zones of type {type(zones).__name__} cannot be read. Pass {_FORMS}; a polygon is {FORMS}.")


def _own_id(feature: Mapping[str, Any]) -> dict[str, Any]:
    return {"id": feature["id"]} if "id" in feature else {}


def _from_table(zones: pl.DataFrame, by: str) -> tuple[list[Any], list[Any], str]:
    binary = [name for name, dtype in zones.schema.items() if dtype == pl.Binary]
    if len(binary) != 1:
        raise GeometryError(f"The table of zones has {len(binary)} columns of WKB (Binary). It needs exactly one.")
    if by not in zones.columns and by != "id":
        raise _no_column(by, zones.columns)
    ids = zones[by].to_list() if by in zones.columns else list(range(zones.height))
    return ids, zones[binary[0]].to_list(), ""


def _no_column(by: str, columns: Any) -> UnknownColumnError:
    return UnknownColumnError(f"The zones have no column {by!r}. Name one of {', '.join(map(str, columns))} in `by=`.")
