"""Expressions of a question as plain data, and their values at the cells of a chunk group, as NumPy arrays."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from functools import lru_cache, partial
from io import BytesIO
from math import isnan
from typing import Any, NamedTuple, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PanicException, PolarsError

from rainbear_dask.execution.groups import ChunkGroup
from rainbear_dask.table.model import Column
from rainbear_dask.table.tidy import CellMask, spread

Array: TypeAlias = npt.NDArray[Any]
Mask: TypeAlias = npt.NDArray[np.bool_]


@dataclass(frozen=True, slots=True)
class Term:
    """An elementwise expression of a scan's columns.

    Parameters
    ----------
    expr : bytes
        The expression, serialized by Polars.
    columns : tuple of str
        Columns that it names, at least one.
    """

    expr: bytes
    columns: tuple[str, ...]

    @classmethod
    def of(cls, expr: pl.Expr) -> "Term":
        """Return the term of an expression."""
        return cls(expr.meta.serialize(), tuple(dict.fromkeys(expr.meta.root_names())))

    def build(self) -> pl.Expr:
        """Return the expression."""
        return pl.Expr.deserialize(BytesIO(self.expr))


class Values(NamedTuple):
    """Values at the cells of a box; an axis of length 1 stands for equal values along it.

    Parameters
    ----------
    values : ndarray or None
        Numbers; None for a type that NumPy lacks.
    valid : ndarray of bool or None
        Cells that are not null; None if all are, but for NaN.
    nan_is_null : bool
        Whether NaN stands for null.
    """

    values: Array | None
    valid: Mask | None = None
    nan_is_null: bool = False

    def settled(self) -> "Values":
        """Return the same values with all nulls in ``valid``."""
        if not self.nan_is_null or self.values is None:
            return self
        known = ~np.isnan(self.values)
        return Values(self.values, known if self.valid is None else known & self.valid)


class TaskColumns:
    """The columns of a task: coordinates as a whole, and how the stored values of the others become values.

    Parameters
    ----------
    columns : sequence of Column
        All columns that the terms of the task name.
    coordinates : mapping of str to Series
        Values of those that are coordinates, flat over their dimensions, at the positions of the task.
    box : mapping of str to int
        Number of positions along each dimension of the table.
    """

    def __init__(self, columns: Sequence[Column], coordinates: Mapping[str, pl.Series], box: Mapping[str, int]) -> None:
        self.columns = {column.name: column for column in columns}
        self.coordinates, self.box = coordinates, dict(box)
        self._constants: dict[Term, Values | None] = {}

    def coordinate_values(self, term: Term) -> Values | None:
        """Return a term of coordinates over the whole task; None if it is none, or fails at a cell of the task."""
        if term not in self._constants:
            self._constants[term] = self._evaluate(term) if set(term.columns) <= set(self.coordinates) else None
        return self._constants[term]

    def _evaluate(self, term: Term) -> Values | None:
        dims = {dim for name in term.columns for dim in self.columns[name].dims}
        box = {dim: length if dim in dims else 1 for dim, length in self.box.items()}
        found = [spread(self.coordinates[name], self.columns[name].dims, box).alias(name) for name in term.columns]
        try:
            return _as_values(pl.DataFrame(found).select(term.build()).to_series(), CellMask(box))
        except (PolarsError, PanicException):
            return None  # perhaps only at cells that a filter drops


class GroupColumns:
    """Values at the cells of one chunk group.

    Parameters
    ----------
    task : TaskColumns
        The columns of the task.
    group : ChunkGroup
        The group; its stored values may be gone afterwards.
    """

    def __init__(self, task: TaskColumns, group: ChunkGroup) -> None:
        self._task, self._group = task, group
        self._dims = list(task.box)
        self._decoded: dict[str, Values] = {}
        self._series: dict[str, pl.Series] = {}

    def values(self, term: Term, mask: Mask | None) -> Values:
        """Return the values of a term.

        Parameters
        ----------
        term : Term
            The term.
        mask : ndarray of bool or None
            Cells that count; broadcasts to the box. Only there is the term certain to be evaluated.
        """
        whole = self._task.coordinate_values(term)
        if whole is not None:
            return _at(whole, self._group.place)
        found = self._plain(term) or self._compared(term)
        return self._evaluated(term, mask) if found is None else found

    def _plain(self, term: Term) -> Values | None:
        """Return the values of a term that is a plain column of numbers."""
        name = _name_of(term)
        if name is None or name not in self._group.stored:
            return None
        if name not in self._decoded:
            column, stored = self._task.columns[name], self._group.stored[name]
            decoding = column.decoding
            if decoding is None or not decoding.holds_numbers:
                return None
            if decoding.keeps_values:
                found = Values(stored.astype(decoding.number.newbyteorder("="), copy=False), None, decoding.nan_is_fill)
            else:
                values, masked = decoding.decode_numbers(stored)
                found = Values(values, None if masked is None else ~masked)
            arranged = [None if each is None else self._arranged(each, column.dims) for each in found[:2]]
            self._decoded[name] = Values(arranged[0], arranged[1], found.nan_is_null)
        return self._decoded[name]

    def _arranged(self, values: Array, dims: tuple[str, ...]) -> Array:
        """Return an array over some dimensions with one axis for each dimension of the table."""
        order = sorted(range(len(dims)), key=lambda axis: self._dims.index(dims[axis]))
        lengths = dict(zip(dims, values.shape, strict=True))
        return values.transpose(order).reshape([lengths.get(dim, 1) for dim in self._dims])

    def _compared(self, term: Term) -> Values | None:
        """Return the values of a comparison of a plain column with a literal."""
        (name, *others) = term.columns
        column = self._task.columns[name]
        if others or column.decoding is None or not column.decoding.keeps_values or name not in self._group.stored:
            return None
        comparison = comparison_of(term, column.dtype)
        if comparison is None:
            return None
        operand = self._plain(Term.of(pl.col(name)))
        if operand is None or operand.values is None:
            return None
        compared = comparison(operand.values)
        if not operand.nan_is_null:
            return Values(compared)
        known = ~np.isnan(operand.values)
        return Values(compared & known, known)

    def _evaluated(self, term: Term, mask: Mask | None) -> Values:
        """Let Polars evaluate a term, at the cells of its own dimensions that count."""
        box = {dim: one.stop - one.start for dim, one in zip(self._dims, self._group.place, strict=True)}
        cells = CellMask(box, None if mask is None else np.broadcast_to(mask, tuple(box.values())))
        own = cells.along({dim for name in term.columns for dim in self._task.columns[name].dims})
        found = [own.lay_out(self._column(name), self._task.columns[name].dims).alias(name) for name in term.columns]
        return _as_values(pl.DataFrame(found).select(term.build()).to_series(), own)

    def _column(self, name: str) -> pl.Series:
        """Return a column at the positions of the group, flat over its own dimensions."""
        if name not in self._series:
            column = self._task.columns[name]
            if name in self._task.coordinates:
                place = tuple(self._group.place[self._dims.index(dim)] for dim in column.dims)
                self._series[name] = _part_of(
                    self._task.coordinates[name], [self._task.box[dim] for dim in column.dims], place
                )
            elif column.decoding is not None:
                # Polars shares the memory of numbers, which is valid as long as the group is
                self._series[name] = column.decoding.decode(self._group.stored[name])
        return self._series[name]


def _part_of(values: pl.Series, shape: Sequence[int], place: tuple[slice, ...]) -> pl.Series:
    """Return a part of an array that is flat over axes of some lengths."""
    if all(one.stop - one.start == length for one, length in zip(place, shape, strict=True)):
        return values
    if len(shape) == 1:
        return values[place[0]]
    return values.gather(pl.Series(np.arange(len(values)).reshape(shape)[place].reshape(-1)))


def _at(whole: Values, place: tuple[slice, ...]) -> Values:
    values, valid = (None if each is None else _slice(each, place) for each in whole[:2])
    return Values(values, valid, whole.nan_is_null)


def _slice(values: Array, place: tuple[slice, ...]) -> Array:
    return values[tuple(one if length > 1 else slice(None) for one, length in zip(place, values.shape, strict=True))]


def _as_values(series: pl.Series, cells: CellMask) -> Values:
    """Return one value per wanted cell as an array over the box; unwanted cells are null."""
    if len(series) != cells.count:
        raise ValueError(f"An expression gave {len(series)} values for {cells.count} cells. Report this as a fault.")
    valid = to_numpy(series.is_not_null()) if series.has_nulls() else None
    numbers = None
    if is_number_like(series.dtype):
        physical = series if series.dtype.is_numeric() or series.dtype == pl.Boolean else series.to_physical()
        filled = physical.fill_null(value=0 if physical.dtype != pl.Boolean else False)
        numbers = to_numpy(filled)
    shape = tuple(cells.box.values())
    if cells.wanted is None:
        return Values(
            None if numbers is None else numbers.reshape(shape), None if valid is None else valid.reshape(shape)
        )
    if numbers is not None:
        laid_out = np.zeros(shape, numbers.dtype)
        laid_out[cells.wanted] = numbers
        numbers = laid_out
    return Values(numbers, cells.wanted if valid is None else cells.where(valid))


def to_numpy(series: pl.Series) -> Array:
    """Return a Series of numbers or Booleans without nulls as an array; Polars unpacks Booleans faster as bytes."""
    return series.cast(pl.UInt8).to_numpy().view(np.bool_) if series.dtype == pl.Boolean else series.to_numpy()


def is_number_like(dtype: pl.DataType) -> bool:
    """Whether the values of a type are numbers of NumPy: numbers, Booleans, and counts of a time unit."""
    return dtype in _NUMBER_LIKE


_NUMBER_LIKE = (
    *(pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64, pl.Date, pl.Time, pl.Datetime, pl.Duration),
)


# ---------------------------------------------------------------------- comparisons in NumPy


@lru_cache(maxsize=2**10)
def _name_of(term: Term) -> str | None:
    """Return the name if a term is a plain column."""
    (name, *others) = term.columns
    return name if not others and term.build().meta.eq(pl.col(name)) else None


Comparison: TypeAlias = Callable[[Array], Mask]

_COMPARISONS: Sequence[tuple[Callable[[pl.Expr, pl.Expr], pl.Expr], Callable[..., Mask]]] = (
    # To Polars, NaN equals NaN and exceeds every number.
    (lambda a, b: a > b, lambda x, value: x > value if x.dtype.kind != "f" else ~(x <= value)),
    (lambda a, b: a >= b, lambda x, value: x >= value if x.dtype.kind != "f" else ~(x < value)),
    (lambda a, b: a < b, lambda x, value: x < value),
    (lambda a, b: a <= b, lambda x, value: x <= value),
    (lambda a, b: a == b, lambda x, value: x == value),
    (lambda a, b: a != b, lambda x, value: x != value),
)


@lru_cache(maxsize=2**10)
def comparison_of(term: Term, dtype: pl.DataType) -> Comparison | None:
    """Return a term as a comparison of its column in NumPy; None if it is no comparison with a number.

    Polars may compare in a wider type. So it is asked about the numbers next to the literal: each comparison changes
    its answer only there.
    """
    expr = term.build()
    match expr.meta.pop()[::-1]:
        case [column, literal] if column.meta.is_column() and literal.meta.is_literal():
            pass
        case _:
            return None
    value = pl.select(literal).item()
    array_type = pl.Series(dtype=dtype).to_numpy().dtype
    if not isinstance(value, int | float) or isinstance(value, bool) or isnan(value) or not _fits(value, array_type):
        return None
    near = array_type.type(value)
    probes = _neighbours(near)
    expected = pl.DataFrame([pl.Series(term.columns[0], probes)]).select(expr).to_series()
    found = (compare for build, compare in _COMPARISONS if build(column, literal).meta.eq(expr))
    compare = next(found, None)
    if compare is None or expected.dtype != pl.Boolean or expected.has_nulls():
        return None
    return partial(compare, value=near) if expected.equals(pl.Series(compare(probes, near))) else None


def _fits(value: float, dtype: np.dtype[Any]) -> bool:
    if dtype.kind == "f":
        return bool(abs(value) < float(np.finfo(dtype).max))
    info = np.iinfo(dtype)
    return isinstance(value, int) and info.min <= value <= info.max


def _neighbours(value: Any) -> Array:
    dtype = np.asarray(value).dtype
    if dtype.kind == "f":
        ends = [np.nextafter(value, dtype.type(-np.inf)), value, np.nextafter(value, dtype.type(np.inf))]
        return np.array([-np.inf, *ends, np.inf, np.nan], dtype)
    info = np.iinfo(dtype)
    near = {info.min, max(int(value) - 1, info.min), int(value), min(int(value) + 1, info.max), info.max}
    return np.array(sorted(near), dtype)
