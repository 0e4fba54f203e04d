"""Expressions of the plugin interpolars: the same expressions, with their inputs filtered to the rows that they need.

A filter inside an expression is a form that `expression` plans. So this module only adds filters: for each coordinate,
the labels that the targets need. Interpolars needs a complete grid, so the rows are a product over the coordinates. An
expression of another form stays as it is.
"""

import io
import pickle
from collections.abc import Iterator, Mapping, Sequence
from contextlib import suppress
from dataclasses import dataclass
from functools import reduce
from math import prod
from operator import and_
from typing import Any, NamedTuple, NoReturn, cast

import numpy as np
import polars as pl
from polars.exceptions import PolarsError

from rainbear_dask.exceptions import PlanTooLargeError, QueryError, SuspiciousFilterWarning
from rainbear_dask.indexing.selection import Box
from rainbear_dask.planning.build import plan_scan
from rainbear_dask.query.pieces import WHOLE, Pieces
from rainbear_dask.query.pushdown import elementwise, prepared
from rainbear_dask.query.stencils import Method, as_floats, common_time, needed_labels
from rainbear_dask.query.trees import Tree, expr_of, mapped, tree_of, with_inputs
from rainbear_dask.redaction import escaped, warn
from rainbear_dask.table.columns import prefetch, whole_column
from rainbear_dask.table.model import Column, Table

_ND, _GEOSPATIAL = "interpolate_nd", "interpolate_geospatial"
_LOCAL = {"error", "fill"}
"""Ways to handle missing values that look at no other row. The others look at all rows."""


def interpolates(expr: pl.Expr) -> bool:
    """Whether an expression may hold an interpolation of interpolars."""
    text = str(expr)
    return _ND in text or _GEOSPATIAL in text


def narrowed(expr: pl.Expr, table: Table, filters: Sequence[pl.Expr] = (), *, by_slice: bool = False) -> pl.Expr:
    """Return an expression whose interpolations only take the rows that they need.

    Parameters
    ----------
    expr : Expr
        Any expression.
    table : Table
        Its table.
    filters : sequence of Expr
        Filters of the rows before the expression.
    by_slice : bool
        Whether a column of targets with the name of a dimension selects labels, if that dimension is not among the
        coordinates of the interpolation.

    Returns
    -------
    Expr
        The same expression, or one with filters of coordinates. Filters of interpolated values apply to their
        coordinates too, although interpolars refuses this.

    Raises
    ------
    QueryError
        If a target selects a label that does not exist.

    Warns
    -----
    SuspiciousFilterWarning
        If an interpolation has several rows for each place.
    """
    if not interpolates(expr):
        return expr
    try:
        tree = tree_of(expr)
    except Exception:  # noqa: BLE001  functions of users need not pickle
        return expr
    changed = mapped(tree, lambda node: _narrowed(node, table, filters, by_slice=by_slice))
    return expr if changed == tree else expr_of(changed)


@dataclass(frozen=True, slots=True)
class _Interpolation:
    """An interpolation, taken apart; its inputs are without filters."""

    coordinates: tuple[pl.Expr, ...]
    values: tuple[pl.Expr, ...]
    filters: tuple[pl.Expr, ...]
    targets: pl.DataFrame
    methods: tuple[Method | None, ...]
    """Method along each coordinate; None if it looks at all labels."""
    extrapolate: bool
    finds_units: bool
    """Whether times of targets and labels may differ in unit."""


def _narrowed(node: Tree, table: Table, filters: Sequence[pl.Expr], *, by_slice: bool) -> Tree:
    found = _taken_apart(node)
    if found is None or not _is_row_by_row(found, table):
        return node
    box = _box(table, [*filters, *found.filters])
    columns = _columns(found.coordinates, table)
    conditions = list(found.filters)
    slices = _slices(found, columns, box or {}, table) if by_slice else pl.DataFrame()
    conditions += [pl.col(name).is_in(slices[name].unique().implode()) for name in slices.columns]
    lengths, local = {dim: len(box[dim]) if box and dim in box else size for dim, size in table.sizes.items()}, []
    if box is not None and columns is not None:
        _warn_of_repeats(found, columns, lengths, table, slices.columns)
        for axis in _local_axes(found, columns, box, table):
            if axis.method != "cubic":  # a piece of its targets would need all labels, too
                local.append((axis.name, axis.method))
            lengths[axis.dim] = axis.num_needed
            conditions += axis.conditions
    is_large = bool(local) and len(found.targets) * prod(lengths.values()) > WHOLE
    if not conditions and not is_large:
        return node
    condition = reduce(and_, conditions, pl.lit(value=True))
    coordinates, values = pl.struct(found.coordinates), pl.struct(found.values)
    if not slices.columns and not is_large:
        return with_inputs(
            node, [coordinates.filter(condition), values.filter(condition), pl.lit(found.targets.to_struct("targets"))]
        )
    parts = {"coordinates": coordinates, "values": values}
    if slices.columns:
        parts["slice"] = pl.struct(slices.columns)
    rows = pl.struct(part.alias(name) for name, part in parts.items())
    pieces = Pieces(node, found.targets, tuple(local), found.extrapolate, found.finds_units, slices)
    return tree_of(rows.filter(condition).map_batches(pieces, return_dtype=_answer_type(node, found, table)))


def _answer_type(node: Tree, found: _Interpolation, table: Table) -> pl.Struct:
    """Return the type of an answer: interpolars declares the types of values, and returns Float64."""
    (declared,) = table.blank.select(expr_of(node)).collect_schema().dtypes()
    given = {*found.targets.columns, *(expr.meta.output_name() for expr in found.coordinates)}
    fields = dict(cast(pl.Struct, declared))
    return pl.Struct({name: dtype if name in given else pl.Float64() for name, dtype in fields.items()})


# ---------------------------------------------------------------------- the expression


def _taken_apart(node: Tree) -> _Interpolation | None:
    """Return an interpolation; None for any other expression, and for forms of other releases."""
    with suppress(KeyError, TypeError, ValueError, AttributeError, PolarsError, pickle.UnpicklingError):
        function = node["Function"]
        plugin = function["function"]["FfiPlugin"]
        if plugin["symbol"] not in (_ND, _GEOSPATIAL) or "interpolars" not in plugin["lib"]:
            return None
        coordinates, values, targets = function["input"]
        filters: list[Tree] = []
        parts = [[_without_filters(part, filters) for part in _fields(struct)] for struct in (coordinates, values)]
        options = _Options(io.BytesIO(bytes(plugin["kwargs"]))).load()
        axes, inputs = (tuple(map(expr_of, part)) for part in parts)
        return _Interpolation(
            axes,
            inputs,
            _distinct([expr_of(each) for each in filters]),
            pl.select(expr_of(targets)).to_series().struct.unnest(),
            _methods(plugin["symbol"], options, len(axes)),
            bool(options["extrapolate"]),
            plugin["symbol"] == _ND,
        )
    return None


class _Options(pickle.Unpickler):
    """A reader of the options of a plugin, which are a dict of plain values."""

    def find_class(self, module: str, name: str) -> NoReturn:
        raise pickle.UnpicklingError(f"{module}.{name} is no plain value")


def _methods(symbol: str, options: Mapping[str, Any], num_axes: int) -> tuple[Method | None, ...]:
    local = options["handle_missing"] in _LOCAL
    if symbol == _ND:
        return (cast(Method, options["method"]) if local else None,) * num_axes
    along_latitude = {"tensor_product": options["tensor_method"], "slerp": "linear"}.get(options["method"])
    # The plugin looks at all longitudes to know whether they go around the Earth, and takes their mean at a pole.
    return (cast(Method | None, along_latitude) if local else None, None)


def _fields(struct: Tree) -> list[Tree]:
    function = struct["Function"]
    if function["function"] != "AsStruct":
        raise ValueError
    return list(function["input"])


def _without_filters(tree: Tree, filters: list[Tree]) -> Tree:
    """Return an expression without its filters, and add these to a list."""

    def change(part: Tree) -> Tree:
        if isinstance(part, dict) and set(part) == {"Filter"}:
            filters.append(part["Filter"]["by"])
            return _without_filters(part["Filter"]["input"], filters)
        return part

    return mapped(tree, change)


def _distinct(exprs: Sequence[pl.Expr]) -> tuple[pl.Expr, ...]:
    found: list[pl.Expr] = []
    for expr in exprs:
        if not any(expr.meta.eq(other) for other in found):
            found.append(expr)
    return tuple(found)


def _is_row_by_row(found: _Interpolation, table: Table) -> bool:
    """Whether an interpolation takes its inputs row by row, so that filters of rows may come first."""
    inputs = pl.any_horizontal(pl.struct(each).is_null() for each in (*found.coordinates, *found.values))
    return elementwise(inputs, table.schema) is not None and all(
        prepared(each, table.schema) is not None for each in found.filters
    )


# ---------------------------------------------------------------------- the rows


def _box(table: Table, filters: Sequence[pl.Expr]) -> Box | None:
    """Return the positions that pass some filters, dimension by dimension; None if they are not exactly a product."""
    if not filters:
        return {}
    predicate = prepared(reduce(and_, filters), table.schema)
    if predicate is None:
        return None
    plan = plan_scan(table, columns=[], predicate=predicate)
    boxes = plan.selection.boxes
    return boxes[0] if len(boxes) == 1 and not plan.filters else None


def _columns(coordinates: Sequence[pl.Expr], table: Table) -> list[Column] | None:
    """Return the column of each coordinate; None unless each is a function of one column along a dimension of its own."""
    found = []
    for expr in coordinates:
        names = expr.meta.root_names()
        column = table.columns.get(names[0]) if len(names) == 1 else None
        if column is None or column.role == "data" or len(column.dims) != 1:
            return None
        found.append(column)
    return found if len({column.dims for column in found}) == len(found) else None


class _LocalAxis(NamedTuple):
    """A coordinate, if a target needs only some of its labels; without a condition if all targets together need all."""

    name: str
    dim: str
    method: Method
    num_needed: int
    conditions: list[pl.Expr]


def _local_axes(found: _Interpolation, columns: Sequence[Column], box: Box, table: Table) -> Iterator[_LocalAxis]:
    prefetch(table.spec, columns)
    for expr, column, method in zip(found.coordinates, columns, found.methods, strict=True):
        name = expr.meta.output_name()
        if method is None or name not in found.targets.columns:
            continue
        stored = _labels(column, box, table)
        if stored is None:
            continue
        labels = stored.to_frame().select(expr).to_series()
        axis, targets = as_floats(labels, found.targets[name], finds_units=found.finds_units)
        if not len(axis) or np.isnan(axis).any():
            continue  # interpolars raises an error, or leaves rows out
        distinct, kind = np.unique(axis, return_inverse=True)
        needed = needed_labels(distinct, targets, method, extrapolate=found.extrapolate)[kind]
        condition = pl.col(column.name).is_in(stored.filter(needed).unique().implode())
        yield _LocalAxis(name, column.dims[0], method, int(needed.sum()), [] if needed.all() else [condition])


def _warn_of_repeats(
    found: _Interpolation, columns: Sequence[Column], lengths: Mapping[str, int], table: Table, sliced: Sequence[str]
) -> None:
    """Warn if values differ along a dimension that neither the coordinates nor filters nor slices fix."""
    fixed = {dim for column in columns for dim in column.dims} | {*sliced}
    values = table.leaves(dict.fromkeys(name for expr in found.values for name in expr.meta.root_names()))
    varying = dict.fromkeys(dim for column in values for dim in column.dims if dim not in fixed)
    repeats = [dim for dim in varying if lengths[dim] > 1]
    if repeats:
        names = " and ".join(map(repr, repeats)) + (" is" if len(repeats) == 1 else " are")
        warn(
            f"The interpolation has several rows for each place, because {names} not among its coordinates, and "
            "interpolars takes the last of them. Filter to one label, or add it to the coordinates.",
            SuspiciousFilterWarning,
        )


def _labels(column: Column, box: Box, table: Table) -> pl.Series | None:
    """Return the labels that pass the filters before; None if there are too many."""
    (dim,) = column.dims
    with suppress(PlanTooLargeError):
        labels = whole_column(table.spec, column, table.sizes[dim])
        return labels.gather(box[dim].positions()) if dim in box else labels
    return None


def _slices(found: _Interpolation, columns: Sequence[Column] | None, box: Box, table: Table) -> pl.DataFrame:
    """Return the labels that each target selects along other dimensions than the interpolated ones.

    The columns are these dimensions, the rows are the targets.
    """
    used = {name for expr in found.coordinates for name in (expr.meta.output_name(), *expr.meta.root_names())}
    used |= {dim for column in columns or () for dim in column.dims}
    names = [name for name in found.targets.columns if name in table.sizes and name not in used]
    if found.targets.is_empty():
        return pl.DataFrame()
    chosen = []
    for name in names:
        labels = _labels(table.columns[name], box, table)
        chosen.append(None if labels is None else _equal_labels(labels, found.targets[name], table))
    return pl.DataFrame([each for each in chosen if each is not None] or None)


def _equal_labels(labels: pl.Series, targets: pl.Series, table: Table) -> pl.Series:
    common = common_time(labels.dtype, targets.dtype)
    keys = targets.cast(pl.Float32 if labels.dtype == pl.Float32 else common or targets.dtype, strict=False)
    known = pl.DataFrame({"key": labels.cast(common) if common else labels, "label": labels}).unique(
        "key", keep="first"
    )
    try:
        found = keys.alias("key").to_frame().join(known, "key", "left", maintain_order="left")["label"]
    except PolarsError:  # text for a time, say
        found = pl.Series([None] * len(keys), dtype=labels.dtype)
    if found.null_count():
        missing = targets.filter(found.is_null())[0]
        raise QueryError(
            f"The targets select {labels.name!r} = {escaped(str(missing))}, and {table.spec.label} has no such label. Add "
            f"{labels.name!r} to the coordinates to interpolate along it, or rename the column of the targets."
        )
    return found.alias(labels.name)
