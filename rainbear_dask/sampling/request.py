"""`Request`: what to sample, as checked plain data; `check_request` refuses bad arguments before anything is read."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from datetime import timedelta
from difflib import get_close_matches
from typing import Any

import numpy as np
import polars as pl

from rainbear_dask.exceptions import PointsError, UnknownColumnError
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.sampling.axes import is_sphere, is_time, key_type
from rainbear_dask.sampling.stencils import LOOKUPS, METHODS, Method, Outside
from rainbear_dask.sampling.task import float_type
from rainbear_dask.table.model import Column, Table, unknown_column
from rainbear_dask.table.tidy import nest


@dataclass(frozen=True)
class Match:
    """How one column of the points finds labels of one coordinate.

    Parameters
    ----------
    coordinate : Column
        The coordinate, of one dimension or of two.
    key : str
        Column of the points.
    dtype : DataType
        Type in which both are compared.
    method : Method
        The method along the coordinate's dimension.
    tolerance : float, int or None
        Largest distance of a label, in units of ``dtype``; for a coordinate of two dimensions, in metres.
    period : float, bool or None
        Length of a circle; True finds it out; None for a line.
    """

    coordinate: Column
    key: str
    dtype: pl.DataType
    method: Method
    tolerance: float | None
    period: float | bool | None

    @property
    def is_line(self) -> bool:
        """Whether the coordinate has one dimension."""
        return len(self.coordinate.dims) == 1


@dataclass(frozen=True)
class Request:
    """What to sample.

    Parameters
    ----------
    plan : ReadPlan
        The scan: its table and its filter.
    columns : tuple of Column
        Columns to return at each point.
    matches : tuple of Match
        How points find labels.
    outside : Outside
        What happens beyond the ends.
    kept : tuple of str
        Dimensions that points do not have, in the order of the table.
    cells : tuple of str
        Names of coordinates of the cell to return.
    distance : str or None
        Name of the column of distances.
    schema : mapping of str to DataType
        Columns of the points.
    names : mapping of str to str
        Name of each further column of the result that a column of the points has already.
    """

    plan: ReadPlan
    columns: tuple[Column, ...]
    matches: tuple[Match, ...]
    outside: Outside
    kept: tuple[str, ...]
    cells: tuple[str, ...]
    distance: str | None
    schema: Mapping[str, pl.DataType]
    names: Mapping[str, str]

    @property
    def table(self) -> Table:
        """The table of the scan."""
        return self.plan.table

    @property
    def point_dims(self) -> tuple[str, ...]:
        """Dimensions of the points, in the order of the table."""
        dims = {dim for match in self.matches for dim in match.coordinate.dims}
        return tuple(dim for dim in self.table.sizes if dim in dims)

    @property
    def new_columns(self) -> dict[str, pl.DataType]:
        """Name and type of the columns that points get, before clashes are resolved."""
        found: dict[str, pl.DataType] = {dim: self.table.columns[dim].dtype for dim in self.kept}
        found |= {name: self.table.columns[name].dtype for name in self.cells}
        if self.distance is not None:
            found[self.distance] = pl.Float64()
        return found | nest(pl.DataFrame(schema=self.value_types)).schema

    @property
    def value_types(self) -> dict[str, pl.DataType]:
        """Type of each value column of the result, by the name that it has in the table."""
        curved = {match.coordinate.dims[0] for match in self.matches if match.method not in LOOKUPS}
        return {c.name: float_type(c.dtype) if curved & {*c.dims} else c.dtype for c in self.columns}

    @property
    def result_schema(self) -> dict[str, pl.DataType]:
        """Name and type of all columns of the result."""
        return {**self.schema, **{self.names.get(name, name): kind for name, kind in self.new_columns.items()}}


def check_request(
    plan: ReadPlan,
    schema: Mapping[str, pl.DataType],
    on: Mapping[str, str] | Sequence[str] | str | None,
    *,
    method: Method | Mapping[str, Method],
    columns: Sequence[str] | str | None,
    tolerance: Any,
    outside: Outside,
    wrap: Any,
    distance: str | None,
    coordinates: bool,
    suffix: str,
) -> Request:
    """Check the arguments of `rainbear_dask.sample`, which documents them.

    Raises
    ------
    UnknownColumnError
        If the table or the points lack a column.
    PointsError
        If arguments contradict each other, the table, or the points.
    """
    table = plan.table
    if plan.head is not None or plan.limit is not None:
        raise PointsError("The scan has a limit on rows, and points need whole labels. Filter the points instead.")
    _check_word("outside", outside, ("null", "nearest", "error", "extrapolate"))
    pairs = _pairs(table, schema, on)
    methods = _by_name("method", method, pairs, "nearest")
    for word in methods.values():
        _check_word("method", word, METHODS)
    if outside == "extrapolate" and not any(word not in LOOKUPS for word in methods.values()):
        raise PointsError("outside='extrapolate' needs a method that interpolates, for example method='linear'.")
    tolerances = _by_name("tolerance", tolerance, pairs, None)
    periods = _by_name("wrap", wrap, pairs, "auto" if isinstance(wrap, Mapping) else wrap)
    matches = tuple(
        _match(table.columns[name], key, schema[key], methods[name], tolerance=tolerances[name], wrap=periods[name])
        for name, key in pairs.items()
    )
    _check_grid(table, matches)
    chosen = _chosen(plan, columns)
    point_dims = {dim for match in matches for dim in match.coordinate.dims}
    of_cells = [c for conjunct in plan.conjuncts for c in table.leaves(conjunct.expr.meta.root_names())]
    used = {dim for column in (*chosen, *_beyond_one_dimension(plan, of_cells)) for dim in column.dims}
    kept = tuple(dim for dim in table.sizes if dim in used - point_dims)
    curved = {match.coordinate.dims[0]: match for match in matches if match.method not in LOOKUPS}
    for column in chosen:
        dim = next((dim for dim in column.dims if dim in curved), None)
        if dim is not None and not (column.dtype.is_numeric() and not column.dtype.is_decimal()):
            raise PointsError(
                f"Column {column.name!r} is {column.dtype}, which method={curved[dim].method!r} cannot interpolate. "
                "Leave it out of `columns`, or use method='nearest'."
            )
    names = tuple(match.coordinate.name for match in matches) if coordinates else ()
    if distance is not None and sphere_pair(matches) is None:
        raise PointsError(
            f"distance={distance!r} needs points with a longitude and a latitude. `on` names {', '.join(pairs)}."
        )
    request = Request(
        plan,
        tuple(c for c in chosen if c.name not in {*kept, *names}),
        matches,
        outside,
        kept,
        names,
        distance,
        schema,
        {},
    )
    return _with_names(request, suffix)


def _with_names(request: Request, suffix: str) -> Request:
    taken, names = {*request.schema}, dict[str, str]()
    for name in request.new_columns:
        if name in taken:
            names[name] = f"{name}{suffix}"
        if (final := names.get(name, name)) in taken:
            raise PointsError(f"The points already have a column {final!r}. Choose another `suffix`.")
        taken.add(final)
    return replace(request, names=names)


def _beyond_one_dimension(plan: ReadPlan, columns: Iterable[Column]) -> Iterable[Column]:
    """Return the columns of conditions that do not just choose labels of one dimension."""
    for conjunct in plan.conjuncts:
        leaves = plan.table.leaves(conjunct.expr.meta.root_names())
        if dim_of(leaves) is None:
            yield from leaves


def dim_of(columns: Sequence[Column]) -> str | None:
    """Return the dimension if columns are coordinates along a single one, else None."""
    dims = {column.dims for column in columns}
    alone = len(dims) == 1 and all(column.role != "data" for column in columns)
    (along,) = dims if alone else ((),)
    return along[0] if len(along) == 1 else None


def _chosen(plan: ReadPlan, columns: Sequence[str] | str | None) -> tuple[Column, ...]:
    if columns is None:
        return tuple(column for column in plan.columns if column.role == "data")
    names = [columns] if isinstance(columns, str) else list(columns)
    known = {column.name for column in plan.columns}
    chosen = plan.table.leaves(names)
    for column in chosen:
        if column.name not in known:
            raise unknown_column(column.name, known, f"the scan of {plan.table.spec.label}")
    return chosen


def _pairs(
    table: Table, schema: Mapping[str, pl.DataType], on: Mapping[str, str] | Sequence[str] | str | None
) -> dict[str, str]:
    """Return the column of the points for each coordinate."""
    coordinates = [c.name for c in table.columns.values() if c.role != "data"]
    if on is None:
        names = [dim for dim in table.sizes if dim in schema]
        flat = [
            c.name for c in table.columns.values() if c.role == "auxiliary" and len(c.dims) == 2 and c.name in schema
        ]
        free = [name for name in flat if not {*table.columns[name].dims} & {*names}]
        if not names and not free:
            raise UnknownColumnError(
                f"No column of the points is named like a dimension of {table.spec.label} ({', '.join(table.sizes)}). "
                f"Name them: on={{{next(iter(table.sizes), 'dim')!r}: {next(iter(schema), 'column')!r}}}."
            )
        return {name: name for name in (*names, *free)}
    pairs = dict(on) if isinstance(on, Mapping) else {name: name for name in ([on] if isinstance(on, str) else on)}
    if not pairs:
        raise PointsError("`on` is empty. Name at least one dimension.")
    for name, key in pairs.items():
        if name not in coordinates:
            raise unknown_column(name, coordinates, f"the coordinates of {table.spec.label}")
        if key not in schema:
            raise unknown_column(key, schema, "the points")
    return pairs


def _by_name(option: str, given: Any, names: Iterable[str], default: Any) -> dict[str, Any]:
    """Return an option for each coordinate, from one value for all or from a mapping."""
    if not isinstance(given, Mapping):
        return dict.fromkeys(names, given)
    known = list(names)
    for name in given:
        if name not in known:
            near = get_close_matches(name, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"`on` names {', '.join(known)}."
            raise PointsError(f"`{option}` names {name!r}, which `on` does not. {hint}")
    return {name: given.get(name, default) for name in known}


def _check_word(option: str, word: Any, known: Sequence[str]) -> None:
    if word not in known:
        near = get_close_matches(str(word), known, n=1)
        hint = f"Did you mean {near[0]!r}?" if near else f"Use one of {', '.join(map(repr, known))}."
        raise PointsError(f"There is no {option}={word!r}. {hint}")


def _match(coordinate: Column, key: str, keys: pl.DataType, method: Method, *, tolerance: Any, wrap: Any) -> Match:
    name, where = coordinate.name, f"{coordinate.name!r} and the points' column {key!r}"
    if len(coordinate.dims) not in {1, 2}:
        raise PointsError(f"{name!r} has {len(coordinate.dims)} dimensions, and a coordinate of points has one or two.")
    flat = len(coordinate.dims) == 2
    # points between the cells of a curvilinear grid are not rounded
    dtype = key_type(coordinate.dtype, keys, where, interpolates=method not in LOOKUPS or (flat and method != "exact"))
    if method != "exact" and not (dtype.is_numeric() or is_time(dtype)):
        raise PointsError(f"{name!r} is {coordinate.dtype}, which has no distances. Use method='exact'.")
    if flat and method not in LOOKUPS:
        raise PointsError(f"{name!r} has two dimensions, and method={method!r} needs one. Use 'nearest' or 'exact'.")
    if flat and not any(is_sphere(coordinate, kind) for kind in ("longitude", "latitude")):
        raise PointsError(f"{name!r} has two dimensions, but is neither a longitude nor a latitude in degrees.")
    if tolerance is not None and method == "exact":
        raise PointsError(f"tolerance={tolerance!r} contradicts method='exact' of {name!r}. Use method='nearest'.")
    known = (None, False, "auto")
    is_period = isinstance(wrap, int | float) and wrap is not True and wrap > 0 and dtype.is_numeric()
    if wrap not in known and not is_period:
        raise PointsError(f"wrap={wrap!r} of {name!r} is neither 'auto', nor None, nor the period of numbers.")
    period = None if wrap in (None, False) else True if wrap == "auto" else float(wrap)
    limit = _limit(tolerance, pl.Float64() if flat else dtype, name)
    return Match(coordinate, key, dtype, method, limit, period)


def _limit(tolerance: Any, dtype: pl.DataType, name: str) -> float | None:
    """Return a tolerance in units of a type."""
    if tolerance is None:
        return None
    found: float | None = None
    if is_time(dtype):
        if isinstance(tolerance, np.timedelta64 | timedelta) and not np.isnat(span := np.timedelta64(tolerance)):
            found = float(span / np.timedelta64(1, dtype.time_unit))
    elif isinstance(tolerance, int | float | np.integer | np.floating) and not isinstance(tolerance, bool):
        found = float(tolerance)
    if found is None:
        wanted = "a timedelta" if is_time(dtype) else "a number"
        raise PointsError(
            f"The tolerance of {name!r} is {tolerance!r}, not {wanted}. "
            f"Give a tolerance for each dimension: tolerance={{{name!r}: ...}}."
        )
    if not found >= 0:
        raise PointsError(f"The tolerance of {name!r} is {tolerance!r}. Give 0 or more.")
    return found


def _check_grid(table: Table, matches: Sequence[Match]) -> None:
    """Refuse coordinates that share a dimension, except a longitude and a latitude of two dimensions."""
    owner: dict[str, Match] = {}
    for match in matches:
        for dim in match.coordinate.dims:
            other = owner.setdefault(dim, match)
            if other is not match and (match.is_line or match.coordinate.dims != other.coordinate.dims):
                raise PointsError(
                    f"{other.coordinate.name!r} and {match.coordinate.name!r} both give a position along {dim!r}. "
                    "Name one of them in `on`."
                )
    flat = [match for match in matches if not match.is_line]
    if flat and (len(flat) != 2 or sphere_pair(flat) is None or flat[0].method != flat[1].method):
        raise PointsError(
            f"{flat[0].coordinate.name!r} has two dimensions. Name a longitude and a latitude of them in `on`, "
            "with one method."
        )
    if flat and flat[0].tolerance is not None and flat[1].tolerance not in (None, flat[0].tolerance):
        raise PointsError("Both coordinates of two dimensions have a tolerance, in metres. Give one of them.")


def sphere_pair(matches: Sequence[Match]) -> tuple[Match, Match] | None:
    """Return the matches of longitude and latitude, if there is one of each."""
    found = [[m for m in matches if is_sphere(m.coordinate, kind)] for kind in ("longitude", "latitude")]
    return (found[0][0], found[1][0]) if [len(each) for each in found] == [1, 1] else None
