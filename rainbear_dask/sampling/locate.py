"""From points to positions: the coordinates of a request, read once, and the stencils of each batch of points."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import and_

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.exceptions import PointsError
from rainbear_dask.indexing.index_set import Positions
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.predicate import Conjunct
from rainbear_dask.sampling.axes import Axis, Valid, are_whole, axis_of, fitting_type, numbers_of, period_of
from rainbear_dask.sampling.request import Match, Request, check_request, dim_of, sphere_pair
from rainbear_dask.sampling.sphere import SphereIndex, metres, sphere_index, unit_vectors
from rainbear_dask.sampling.stencils import LOOKUPS, Stencil, interpolation, lookup
from rainbear_dask.sampling.task import only_where
from rainbear_dask.table.columns import prefetch, whole_column
from rainbear_dask.table.model import Column, Table

_SAME_PLACE_METRES = 1e-5
"""Distance within which a cell has the coordinates of a point: the rounding of vectors."""


@dataclass(frozen=True)
class Coordinates:
    """The coordinates of a request, and the conditions of its scan.

    Parameters
    ----------
    request : Request
        The request.
    labels : mapping of str to Series
        All values of each coordinate by name, flat in C order.
    wanted : mapping of str to ndarray of int64
        Positions along each dimension whose labels pass the conditions on that dimension alone, ascending.
    axes : mapping of str to (Axis, DataType)
        For each matched coordinate of one dimension by name: its axis, and the type of its labels.
    sphere : SphereIndex or None
        Cells of the matched coordinates of two dimensions.
    conditions : tuple of Expr
        All other conditions of the scan: a cell that fails one is null.
    """

    request: Request
    labels: Mapping[str, pl.Series]
    wanted: Mapping[str, Positions]
    axes: Mapping[str, tuple[Axis, pl.DataType]]
    sphere: SphereIndex | None
    conditions: tuple[pl.Expr, ...]

    @property
    def rows_per_point(self) -> int:
        """Rows that each point gives: the cells of the dimensions that points do not have."""
        return prod(len(self.wanted[dim]) for dim in self.request.kept)


@dataclass(frozen=True)
class Located:
    """Where points lie.

    Parameters
    ----------
    stencils : mapping of str to Stencil
        For each dimension of the points, in the order of the table; of the points in ``rows`` alone.
    rows : ndarray of int64
        Numbers of the points that have values.
    cells : mapping of str to Series
        Labels of the cell of each point, for the coordinates that the request names.
    distances : Series or None
        In metres, for each point.
    """

    stencils: Mapping[str, Stencil]
    rows: npt.NDArray[np.int64]
    cells: Mapping[str, pl.Series]
    distances: pl.Series | None


def read_coordinates(request: Request) -> Coordinates:
    """Read the coordinates of a request, through the cache.

    Raises
    ------
    PointsError
        If a label repeats along a dimension that is interpolated.
    """
    table = request.table
    alone = {id(c): dim_of(table.leaves(c.expr.meta.root_names())) for c in request.plan.conjuncts}
    of_conditions = [
        column
        for conjunct in request.plan.conjuncts
        if alone[id(conjunct)] is not None
        for column in table.leaves(conjunct.expr.meta.root_names())
    ]
    columns = {c.name: c for c in (*(m.coordinate for m in request.matches), *of_conditions)}
    columns |= {name: table.columns[name] for name in request.kept}
    prefetch(table.spec, list(columns.values()))
    labels = {name: whole_column(table.spec, c, _size(table, c)) for name, c in columns.items()}
    wanted = {dim: np.arange(size) for dim, size in table.sizes.items()}
    for dim in table.sizes:
        conditions = [c for c in request.plan.conjuncts if alone[id(c)] == dim]
        if conditions:
            wanted[dim] = np.flatnonzero(_passed(conditions, labels))
    axes, flat = {}, [match for match in request.matches if not match.is_line]
    for match in request.matches:
        if match not in flat:
            axes[match.coordinate.name] = _axis(match, labels[match.coordinate.name], wanted[match.coordinate.dims[0]])
    rest = tuple(conjunct.expr for conjunct in request.plan.conjuncts if alone[id(conjunct)] is None)
    return Coordinates(request, labels, wanted, axes, _sphere(table, flat, labels, wanted) if flat else None, rest)


def _size(table: Table, column: Column) -> int:
    return prod(table.sizes[dim] for dim in column.dims)


def _passed(conditions: Sequence[Conjunct], labels: Mapping[str, pl.Series]) -> Valid:
    expr = reduce(and_, [conjunct.expr for conjunct in conditions])
    frame = pl.DataFrame([labels[name] for name in dict.fromkeys(expr.meta.root_names())])
    passed: Valid = frame.select(expr).to_series().fill_null(value=False).to_numpy()
    return passed


def _axis(match: Match, values: pl.Series, wanted: Positions) -> tuple[Axis, pl.DataType]:
    values = values if len(wanted) == len(values) else values.gather(pl.Series(wanted))
    dtype = fitting_type(values, match.dtype)
    period = period_of(match.coordinate, values) if match.period is True else match.period or None
    axis = axis_of(match.coordinate.dims[0], values, wanted, dtype, period)
    if axis.has_repeats and match.method not in LOOKUPS:
        raise PointsError(
            f"Labels of {match.coordinate.name!r} repeat, so method={match.method!r} has no curve. "
            "Use method='nearest' or 'exact', which take the first of equal labels."
        )
    return axis, dtype


def _sphere(
    table: Table, flat: Sequence[Match], labels: Mapping[str, pl.Series], wanted: Mapping[str, Positions]
) -> SphereIndex:
    dims = flat[0].coordinate.dims
    shape = [table.sizes[dim] for dim in dims]
    inside = np.zeros(shape, np.bool_)
    inside[np.ix_(*[wanted[dim] for dim in dims])] = True
    lon, lat = (
        np.where(inside, labels[m.coordinate.name].cast(pl.Float64).fill_null(np.nan).to_numpy().reshape(shape), np.nan)
        for m in sphere_pair(flat) or ()
    )
    return sphere_index(lon, lat)


def locate(found: Coordinates, points: pl.DataFrame) -> Located:
    """Find the positions that points need.

    Parameters
    ----------
    found : Coordinates
        From `read_coordinates`.
    points : DataFrame
        Some points.

    Raises
    ------
    PointsError
        If a point is beyond an end and the request forbids it.
    """
    request, valid = found.request, np.ones(points.height, np.bool_)
    stencils: dict[str, Stencil] = {}
    nearest: dict[str, Positions] = {}  # position of the nearest label, by coordinate
    for match in request.matches:
        if match.is_line:
            stencil, at, good = _along(found, match, points[match.key])
            stencils[stencil.dim], nearest[match.coordinate.name] = stencil, at
            valid &= good
    distances = None
    if found.sphere is not None:
        flat = [match for match in request.matches if not match.is_line]
        rows, columns, distances, good = _on_sphere(found.sphere, flat, points, request.outside)
        dims = flat[0].coordinate.dims
        for dim, places in zip(dims, (rows, columns), strict=True):
            stencils[dim] = Stencil(dim, flat[0].method, places[:, None])
        for match in flat:
            nearest[match.coordinate.name] = rows * request.table.sizes[dims[1]] + columns
        valid &= good
    elif request.distance is not None:
        distances = _distances(found, nearest, points, valid)
    cells = {name: _taken(found.labels[name], nearest[name], valid) for name in request.cells}
    kept = np.flatnonzero(valid)
    ordered = {
        dim: stencils[dim] if len(kept) == len(valid) else stencils[dim].take(kept) for dim in request.point_dims
    }
    shown = None if distances is None else only_where(pl.Series(distances, dtype=pl.Float64), valid)
    return Located(ordered, kept, cells, shown)


def _taken(labels: pl.Series, at: Positions, valid: Valid) -> pl.Series:
    if not len(labels):
        return pl.Series(labels.name, [None] * len(at), dtype=labels.dtype)
    return only_where(labels.gather(pl.Series(at)), valid)


def _along(found: Coordinates, match: Match, points: pl.Series) -> tuple[Stencil, Positions, Valid]:
    """Return the stencil of all points, the nearest positions, and which points have a value."""
    axis, dtype = found.axes[match.coordinate.name]
    outside, interpolates = found.request.outside, match.method not in LOOKUPS
    keys, valid = axis.keys_of(points, dtype)
    if match.method == "exact":
        valid = valid & are_whole(points, dtype)
    if not len(axis.labels):
        zeros = np.zeros(len(keys), np.int64)
        return Stencil(axis.dim, "exact", zeros[:, None]), zeros, zeros > 0
    keys = np.where(valid, keys, axis.labels[0]) if not valid.all() else keys
    if interpolates:
        stencil, has_value, beyond = interpolation(axis, keys, match.method, outside)
        near, labels = stencil, keys
        if match.tolerance is not None or found.request.cells or found.request.distance is not None:
            near, labels, *_ = lookup(axis, keys, exact=False, outside="nearest")
    else:
        near, labels, has_value, beyond = lookup(axis, keys, exact=match.method == "exact", outside=outside)
        stencil = near
    if outside == "error" and (bad := beyond & valid).any():
        raise _outside_error(match, points, bad, f"the labels from {axis.labels[0]} to {axis.labels[-1]}")
    valid = valid & has_value
    if match.tolerance is not None:
        valid &= ~(np.abs(labels - keys) > match.tolerance)
    return stencil, near.places[:, 0], valid


def _outside_error(match: Match, points: pl.Series, bad: Valid, where: str) -> PointsError:
    first = int(bad.argmax())
    return PointsError(
        f"{int(bad.sum()):,} of {len(bad):,} points are outside of {match.coordinate.name!r}; "
        f"the first one has {points[first]} in {match.key!r}. "
        f"Filter the points to {where}, or use outside='null' or 'nearest'."
    )


def _on_sphere(
    index: SphereIndex, flat: Sequence[Match], points: pl.DataFrame, outside: str
) -> tuple[Positions, Positions, npt.NDArray[np.float64], Valid]:
    keys, valid = list[npt.NDArray[np.float64]](), np.ones(points.height, np.bool_)
    for match in sphere_pair(flat) or ():
        numbers, good = numbers_of(points[match.key], match.dtype)
        floats = numbers.astype(np.float64)
        valid &= good & np.isfinite(floats)
        keys.append(np.where(valid, floats, 0))
    if not len(index.cells):
        zeros = np.zeros(points.height, np.int64)
        return zeros, zeros, np.zeros(points.height), zeros > 0
    rows, columns, distances, beyond = index.nearest(unit_vectors(*keys))
    if flat[0].method == "exact":
        beyond = distances > _SAME_PLACE_METRES
    if outside == "error" and (bad := beyond & valid).any():
        raise _outside_error(flat[0], points[flat[0].key], bad, "the grid")
    if outside != "nearest" or flat[0].method == "exact":
        valid &= ~beyond
    limit = next((match.tolerance for match in flat if match.tolerance is not None), None)
    return rows, columns, distances, valid if limit is None else valid & (distances <= limit)


def _distances(
    found: Coordinates, nearest: Mapping[str, Positions], points: pl.DataFrame, valid: Valid
) -> npt.NDArray[np.float64]:
    """Return the distances between points and the nearest labels of longitude and latitude."""
    ends = []
    pair = sphere_pair(found.request.matches) or ()
    for match in pair:
        own = points[match.key].cast(pl.Float64, strict=False).fill_null(np.nan).to_numpy()
        cell = _taken(found.labels[match.coordinate.name], nearest[match.coordinate.name], valid)
        ends.append((own, cell.cast(pl.Float64).fill_null(np.nan).to_numpy()))
    (lon, cell_lon), (lat, cell_lat) = ends
    return metres(np.linalg.norm(unit_vectors(lon, lat) - unit_vectors(cell_lon, cell_lat), axis=-1))


def nearest_labels(plan: ReadPlan, name: str, values: pl.Series) -> pl.Series:
    """Return the distinct labels of a coordinate that are nearest to some values.

    Parameters
    ----------
    plan : ReadPlan
        A scan; labels that its conditions on one dimension exclude do not exist.
    name : str
        A coordinate of one dimension.
    values : Series
        The values.

    Raises
    ------
    PointsError
        If a value is outside of the labels, null, or of another type.
    UnknownColumnError
        If the table has no such coordinate.
    """
    points = pl.DataFrame([values.alias(name)])
    request = check_request(
        plan,
        dict(points.schema),
        name,
        method="nearest",
        columns=(),
        tolerance=None,
        outside="error",
        wrap="auto",
        distance=None,
        coordinates=True,
        suffix=" label",
    )
    found = locate(read_coordinates(request), points)
    if len(found.rows) < len(values):
        missing = set(range(len(values))).difference(found.rows.tolist())
        raise PointsError(f"Value {values[min(missing)]!r} of {name!r} has no nearest label. Give a number or a time.")
    return found.cells[name].unique(maintain_order=True)
