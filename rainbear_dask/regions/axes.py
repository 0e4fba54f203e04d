"""The two spatial axes of a grid: which dimensions they are, and the edges of their cells."""

from collections.abc import Iterable
from dataclasses import dataclass
from typing import Any, Literal

import numpy as np
import numpy.typing as npt

from rainbear_dask.chunks import cache
from rainbear_dask.coding.cf import decoding_of
from rainbear_dask.exceptions import GeometryError
from rainbear_dask.metadata.groups import group_of
from rainbear_dask.table.columns import whole_column
from rainbear_dask.table.model import Column, Table, unknown_column

Floats = npt.NDArray[np.float64]

_STANDARD = {
    "x": ("longitude", "projection_x_coordinate", "grid_longitude"),
    "y": ("latitude", "projection_y_coordinate", "grid_latitude"),
}
_NAMES = {"x": ("lon", "longitude", "x"), "y": ("lat", "latitude", "y")}

_UNIFORM = 1e-3
"""Share of a cell by which an edge may miss its place in a regular grid; longitudes in float32 miss it by less."""


@dataclass(frozen=True)
class CellAxis:
    """The cells along one dimension.

    Parameters
    ----------
    dim : str
        The dimension.
    centers : ndarray of float64, shape (n,)
        Coordinates in array order. Longitudes are continuous: one that starts again at -180 goes on with 180.
    edges : ndarray of float64, shape (n + 1,)
        Edges of the cells, in array order, up to the poles and around the globe once at most.
    nominal : ndarray of float64, shape (n + 1,)
        The same edges, as if the first and last cell were not cut off at a pole.
    uniform : bool
        Whether all nominal cells have the same length.
    """

    dim: str
    centers: Floats
    edges: Floats
    nominal: Floats
    uniform: bool

    @property
    def lengths(self) -> Floats:
        """Length of each cell."""
        return np.abs(np.diff(self.edges))

    @property
    def stretch(self) -> Floats:
        """Nominal length of each cell, in its true lengths."""
        return np.asarray(np.abs(np.diff(self.nominal)) / self.lengths)

    @property
    def extent(self) -> tuple[float, float]:
        """Lowest and highest edge."""
        return float(self.edges.min()), float(self.edges.max())


def find_axis(table: Table, dims: Iterable[str], which: Literal["x", "y"], name: str | None) -> Column:
    """Return the column of a spatial axis.

    Parameters
    ----------
    table : Table
        The table.
    dims : iterable of str
        Dimensions of the variables.
    which : {"x", "y"}
        Longitude or easting, or latitude or northing.
    name : str or None
        The name that the caller gave.

    Raises
    ------
    UnknownColumnError
        If the table has no such column.
    GeometryError
        If no dimension, or several, can be the axis, or the column is not the coordinate of a dimension.
    """
    option = "lon" if which == "x" else "lat"
    if name is not None:
        if name not in table.columns:
            raise unknown_column(name, table.columns, table.spec.label)
        column = table.columns[name]
        if column.dims != (name,) or name not in dims:
            raise GeometryError(
                f"Column {name!r} of {table.spec.label} is not the coordinate of a dimension of the variables. Zonal "
                f"statistics need a grid with one coordinate along each axis. Name a dimension in `{option}=`: "
                f"{', '.join(dims)}."
            )
        return column
    columns = [table.columns[dim] for dim in dims]
    for test in (_has_attributes, _has_name):
        found = [column for column in columns if test(column, which)]
        if len(found) == 1:
            return found[0]
        if found:
            break
    raise GeometryError(
        f"{'No' if not found else 'More than one'} dimension of {table.spec.label} looks like the "
        f"{'longitude' if which == 'x' else 'latitude'} of its grid. Name it in `{option}=`: {', '.join(dims)}."
    )


def _has_attributes(column: Column, which: str) -> bool:
    attributes = column.array.attributes if column.array else {}
    degrees = "degrees_east" if which == "x" else "degrees_north"
    return (
        str(attributes.get("axis")).lower() == which
        or attributes.get("standard_name") in _STANDARD[which]
        or attributes.get("units") == degrees
    )


def _has_name(column: Column, which: str) -> bool:
    return column.name.rpartition("/")[2].lower() in _NAMES[which]


def read_axis(table: Table, column: Column, *, turn: bool, pole: bool) -> CellAxis:
    """Read the coordinate of a spatial axis, and find the edges of its cells.

    Parameters
    ----------
    table : Table
        The table.
    column : Column
        The coordinate of a dimension.
    turn, pole : bool
        Whether it is a longitude, or a latitude, in degrees.

    Returns
    -------
    CellAxis
        Edges are the CF bounds of the coordinate, else the midpoints between cells.

    Raises
    ------
    GeometryError
        If the coordinate is not strictly monotonic, or edges cannot be found.
    """
    where = f"Coordinate {column.name!r} of {table.spec.label}"
    series = whole_column(table.spec, column, table.sizes[column.name])
    if not series.dtype.is_numeric() or series.has_nulls():
        raise GeometryError(f"{where} is not a complete list of numbers. Name another dimension in `lon=` or `lat=`.")
    centers = series.to_numpy().astype(np.float64)
    shift = np.round((np.unwrap(centers, period=360) - centers) / 360) * 360 if turn else np.zeros_like(centers)
    centers = centers + shift
    steps = np.diff(centers)
    if not (np.isfinite(centers).all() and ((steps > 0).all() or (steps < 0).all())):
        raise GeometryError(f"{where} is not strictly monotonic. Sort the grid along it first.")
    nominal = _bounds(table, column, shift, where)
    if nominal is None:
        nominal = _midpoints(centers, where)
    edges = nominal
    if pole:
        edges = np.clip(edges, -90, 90)
    excess = abs(edges[-1] - edges[0]) - 360
    if turn and excess > 1e-6:  # the first and the last cell are the same place
        edges = edges.copy()
        edges[[0, -1]] += np.array([excess, -excess]) / 2 * np.sign(edges[-1] - edges[0])
    lengths = np.diff(edges)
    if not ((lengths > 0).all() or (lengths < 0).all()):
        raise GeometryError(f"{where} has cells without extent. Check its values and its bounds.")
    regular = np.linspace(nominal[0], nominal[-1], len(nominal))
    step = abs(nominal[-1] - nominal[0]) / len(centers)
    uniform = bool((np.abs(nominal - regular) <= _UNIFORM * step).all())
    return CellAxis(column.name, centers, edges, nominal, uniform)


def _midpoints(centers: Floats, where: str) -> Floats:
    if len(centers) < 2:
        raise GeometryError(
            f"{where} has {len(centers)} cells and no bounds, so their extent is unknown. Add CF bounds."
        )
    middle = (centers[:-1] + centers[1:]) / 2
    return np.concatenate([[2 * centers[0] - middle[0]], middle, [2 * centers[-1] - middle[-1]]])


def _bounds(table: Table, column: Column, shift: Floats, where: str) -> Floats | None:
    """Return edges by the CF bounds of a coordinate; None if it has none."""
    name: Any = column.array.attributes.get("bounds") if column.array else None
    array = table.support.get(f"{group_of(column.array.path)}/{name}".lstrip("/")) if column.array else None
    if array is None or array.shape != (table.sizes[column.name], 2):
        return None
    decoded = decoding_of(array, coordinate=True).decode(cache.whole(table.spec, array))
    pairs = decoded.to_numpy().astype(np.float64).reshape(-1, 2) + shift[:, None]
    if len(pairs) > 1 and not np.isclose(pairs[:-1], pairs[1:, [0]], atol=0).any(axis=1).all():
        pairs = pairs[:, ::-1]  # bounds may ascend although the coordinate descends
    edges = np.concatenate([pairs[:, 0], pairs[-1:, 1]])
    sides = np.abs(pairs[:, 1] - pairs[:, 0])
    if not (np.abs(pairs[:-1, 1] - pairs[1:, 0]) <= _UNIFORM * sides[1:]).all():
        raise GeometryError(
            f"{where} has bounds {name!r} that leave gaps between cells. Zonal statistics need all edges."
        )
    return edges
