"""GeoParquet 1.1: points from two coordinates, as ISO well-known binary, with the CRS of the grid."""

import json
from collections.abc import Mapping, Sequence
from typing import Any

import numpy as np
import polars as pl

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import MissingDependencyError, QueryError
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.redaction import reason
from rainbear_dask.table.model import unknown_column

GEOMETRY = "geometry"

_POINT = np.dtype([("little_endian", "u1"), ("kind", "<u4"), ("x", "<f8"), ("y", "<f8")])  # 21 bytes, packed


def check_geo(geo: Sequence[str], plan: ReadPlan) -> None:
    """Refuse coordinates that make no points.

    Raises
    ------
    UnknownColumnError
        If the table lacks a column.
    QueryError
        If there are not two columns of numbers, or a column is called ``geometry``.
    """
    schema = plan.table.schema
    if isinstance(geo, str) or len(geo) != 2:
        raise QueryError("The option `geo` is not a pair of columns. Give x and y: geo=('lon', 'lat').")
    for name in geo:
        if name not in schema:
            raise unknown_column(name, schema, plan.table.spec.label)
        if not schema[name].is_numeric():
            raise QueryError(f"The column {name!r} of `geo` holds {schema[name]}, and points need numbers.")
    if GEOMETRY in plan.no_rows().columns:
        raise QueryError(f"The rows have a column {GEOMETRY!r} already. Select other columns, or omit `geo`.")


def points(x: pl.Series, y: pl.Series) -> pl.Series:
    """Return points in well-known binary; null where a coordinate is null or NaN.

    Parameters
    ----------
    x, y : Series
        Coordinates, of equal length.

    Returns
    -------
    Series
        Binary, 21 bytes each: byte order 1, type 1 (point), x and y in float64.
    """
    numbers = [values.cast(pl.Float64).fill_null(float("nan")).to_numpy() for values in (x, y)]
    packed = np.zeros(len(x), dtype=_POINT)
    packed["little_endian"] = packed["kind"] = 1
    packed["x"], packed["y"] = numbers
    rows = pl.Series(GEOMETRY, packed.view(np.uint8).reshape(-1, _POINT.itemsize))
    absent = pl.Series(np.isnan(numbers[0]) | np.isnan(numbers[1]))
    return rows.arr.to_list().cast(pl.Binary).set(absent, None)


def geo_metadata(x: pl.Series, y: pl.Series, crs: Any) -> str:
    """Return the text of the key ``geo`` in the metadata of a file with these points.

    Parameters
    ----------
    x, y : Series
        Coordinates of the points.
    crs : PROJJSON, None or "OGC:CRS84"
        None if the CRS is unknown.
    """
    column: dict[str, Any] = {"encoding": "WKB", "geometry_types": ["Point"]}
    if crs != CRS84:  # the default of the format
        column["crs"] = crs
    known = pl.DataFrame({"x": x.cast(pl.Float64), "y": y.cast(pl.Float64)}).drop_nulls().drop_nans()
    if known.height:
        low, high = known.min().row(0), known.max().row(0)
        column["bbox"] = [*low, *high]
    return json.dumps({"version": "1.1.0", "primary_column": GEOMETRY, "columns": {GEOMETRY: column}})


CRS84 = "OGC:CRS84"


def crs_of(grid_mapping: Mapping[str, Any] | None) -> Any:
    """Return the CRS of a CF grid mapping for GeoParquet.

    Parameters
    ----------
    grid_mapping : mapping or None
        Attributes of the grid mapping; None without one, which means longitude and latitude.

    Returns
    -------
    PROJJSON (dict), "OGC:CRS84" or None
        None if pyproj is missing or does not know the mapping. The format then calls the CRS unknown.
    """
    if grid_mapping is None:
        return CRS84
    try:
        pyproj = require("pyproj", extra="geo")
    except MissingDependencyError:
        return CRS84 if grid_mapping == {"grid_mapping_name": "latitude_longitude"} else None
    try:
        return pyproj.CRS.from_cf(dict(grid_mapping)).to_json_dict()
    except (pyproj.exceptions.CRSError, KeyError, ValueError, TypeError) as err:
        raise QueryError(
            f"pyproj does not understand the grid mapping of the table: {reason(err)}. Correct the attributes, or "
            "omit `geo`."
        ) from err
