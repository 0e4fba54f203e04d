"""Coordinate reference systems: of a grid, by CF and GeoZarr conventions, and whether a geometry has the same.

A CRS travels as text that pyproj reads, because expressions and tasks pickle.
"""

import re
from collections.abc import Iterator, Mapping
from typing import Any

from rainbear_dask.exceptions import GeometryError
from rainbear_dask.geo.proj import are_same, crs_of_attributes, crs_text, is_lonlat, names_of
from rainbear_dask.metadata.groups import group_of
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.table.model import Table

LONLAT = "OGC:CRS84"
"""Longitude and latitude on WGS 84, in degrees."""

_PROJECTED = "a projection that the store does not name"

_NAMES = {"x": ("lon", "longitude"), "y": ("lat", "latitude")}
_UNITS = {
    "x": re.compile(r"degrees?_?E(ast)?", re.IGNORECASE),
    "y": re.compile(r"degrees?_?N(orth)?", re.IGNORECASE),
}


def check_crs(crs: str, table: Table, x: str, y: str, what: str) -> None:
    """Raise an error if a geometry is in another CRS than a grid.

    Parameters
    ----------
    crs : str
        CRS of the geometry; empty if it is not known, and then nothing is checked.
    table : Table
        The grid.
    x, y : str
        Columns that the geometry is compared with.
    what : str
        Subject of the message.

    Raises
    ------
    GeometryError
        If the CRSs differ. The message says how to convert.
    """
    grid = crs_of_grid(table, x, y) if crs else ""
    if not grid or (grid != _PROJECTED and are_same(crs, grid)) or (grid == _PROJECTED and not is_lonlat(crs)):
        return
    target = "the CRS of the grid" if grid == _PROJECTED else names_of(grid)[1]
    raise GeometryError(
        f"The CRS of {what} is {_shown(crs)}, but {x!r} and {y!r} of {table.spec.label} are in {_shown(grid)}. "
        f'Convert it first, for example GeoSeries([polygon], crs=...).to_crs("{target}"), or convert the columns with '
        "`rd.geo.transform`."
    )


def counts_degrees(table: Table, x: str, y: str, crs: str) -> bool:
    """Whether two columns are longitude and latitude, by the store, else by the CRS of geometries, else by their name."""
    grid = crs_of_grid(table, x, y)
    if grid == _PROJECTED:
        return False
    return is_lonlat(grid or crs) if grid or crs else "lon" in x.lower()


def _shown(crs: str) -> str:
    return crs if crs == _PROJECTED or len(crs) < 40 else names_of(crs)[0]


def crs_of_grid(table: Table, x: str, y: str) -> str:
    """Return the CRS of two columns of a table, by their attributes and the table's grid mapping.

    Parameters
    ----------
    table : Table
        The table.
    x, y : str
        Names of columns: longitude and latitude, or easting and northing.

    Returns
    -------
    str
        Text that pyproj reads; empty if the store does not tell.

    Notes
    -----
    A column is a longitude by its CF ``standard_name`` or ``units``, or by its name if it has neither. The grid mapping
    is found by the attribute ``grid_mapping`` of the data variables, else it is the only one of the group. Conventions
    of GeoZarr are attributes of the group: ``proj:code``, ``proj:wkt2`` and ``proj:projjson``.
    """
    columns = {axis: table.columns.get(name) for axis, name in (("x", x), ("y", y))}
    if None in columns.values():
        return ""
    attributes = {axis: dict(c.array.attributes) if c and c.array else {} for axis, c in columns.items()}
    if all(_is_degrees(axis, found) for axis, found in attributes.items()):
        return LONLAT
    if mapping := _mapping_of(table):
        return mapping
    if any("projection_" in str(found.get("standard_name")) for found in attributes.values()):
        return _PROJECTED
    units = [found.get("units") for found in attributes.values()]
    if all(unit in ("m", "km", "metre", "meter", "metres", "meters") for unit in units):
        return _PROJECTED
    plain = all(name.rpartition("/")[2].lower() in _NAMES[axis] for axis, name in (("x", x), ("y", y)))
    return LONLAT if plain and not any(units) else ""


def _is_degrees(axis: str, attributes: Mapping[str, Any]) -> bool:
    name, units = attributes.get("standard_name"), str(attributes.get("units", ""))
    return name == _NAMES[axis][1] or (name is None and bool(_UNITS[axis].fullmatch(units)))


def _mapping_of(table: Table) -> str:
    """Return the CRS that all grid mappings of the data variables agree on; empty without one."""
    named = {
        f"{group_of(array.path)}/{name}".lstrip("/")
        for array in table.data_arrays
        for name in _first_words(array.attributes.get("grid_mapping"))
    }
    found = [table.support[name] for name in sorted(named) if name in table.support]
    if not named:
        found = [array for array in table.support.values() if _describes_crs(array)]
    texts = {text for array in found if (text := crs_of_attributes(array.attributes))}
    if not found and (text := _parsed_group(table.attributes)):
        texts = {text}
    return texts.pop() if len(texts) == 1 else ""


def _first_words(attribute: Any) -> Iterator[str]:
    """Yield the grid mappings that an attribute names: ``crs``, or ``crs: x y other: lon lat`` for several."""
    words = attribute.split() if isinstance(attribute, str) else []
    named = [word[:-1] for word in words if word.endswith(":")]
    yield from named or words[:1]


def _describes_crs(array: ArrayMeta) -> bool:
    return any(key in array.attributes for key in ("grid_mapping_name", "crs_wkt", "spatial_ref"))


def _parsed_group(attributes: Mapping[str, Any]) -> str:
    values = [attributes.get(key) for key in ("proj:code", "proj:wkt2", "proj:projjson", "crs_wkt", "spatial_ref")]
    for value in values:
        if value:
            try:
                return crs_text(value)
            except GeometryError:
                continue
    return ""
