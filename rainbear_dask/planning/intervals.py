"""Conditions on one data variable, evaluated on the bounds of its chunks instead of its values.

Polars orders values totally: NaN is above all numbers and equals itself, and -0.0 equals 0.0. So a comparison with a
constant holds somewhere in an interval exactly if it holds at one of its ends. Polars itself compares these ends, in the
column's type. Null is neither true nor false. A condition of any other form keeps every chunk.
"""

from collections.abc import Callable
from dataclasses import dataclass
from functools import partial
from math import isfinite
from operator import add, eq, ge, gt, le, lt, mul, ne, sub, truediv
from typing import Any, Literal, TypeAlias

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PanicException

from rainbear_dask.planning.literals import is_literal

Mask: TypeAlias = npt.NDArray[np.bool_]
Compare: TypeAlias = Callable[[pl.Expr, pl.Expr], pl.Expr]

_NEGATED: dict[Compare, Compare] = {gt: le, ge: lt, lt: ge, le: gt, eq: ne, ne: eq}
_MIRRORED: dict[Compare, Compare] = {gt: lt, ge: le, lt: gt, le: ge, eq: eq, ne: ne}
_CLOSED: dict[Literal["both", "left", "right", "none"], tuple[Compare, Compare]] = {
    "both": (ge, le),
    "left": (ge, lt),
    "right": (gt, le),
    "none": (gt, lt),
}
least, greatest, number = pl.col("low"), pl.col("high"), pl.col("number")
"""Ends of the values of a chunk, and the greatest of them but NaN."""


@dataclass(frozen=True, slots=True, eq=False)
class Bounds:
    """The values of one column in each chunk.

    Parameters
    ----------
    low, high : Series
        Least and greatest value but NaN, in the column's type; null if a chunk has no such value. Other values of the
        chunk lie between them.
    nans : ndarray of bool
        Whether the chunk holds NaN.
    nulls : ndarray of bool
        Whether the chunk holds null.
    """

    low: pl.Series
    high: pl.Series
    nans: Mask
    nulls: Mask

    @property
    def numbers(self) -> Mask:
        """Whether the chunk holds a value that is neither null nor NaN."""
        return self.low.is_not_null().to_numpy()

    def ends(self) -> pl.DataFrame:
        """Return the ends of the intervals in Polars' order, in which NaN is above all; null for chunks of null."""
        ends = pl.DataFrame([self.low.alias("low"), self.high.alias("high"), self.high.alias("number")])
        if not self.nans.any():
            return ends
        nan, has_nan = pl.lit(float("nan"), dtype=self.low.dtype), pl.lit(pl.Series(self.nans))
        return ends.with_columns(
            pl.when(has_nan & least.is_null()).then(nan).otherwise(least).alias("low"),
            pl.when(has_nan).then(nan).otherwise(greatest).alias("high"),
        )


def may_hold(expr: pl.Expr, bounds: Bounds, *, outcome: bool) -> Mask | None:
    """Return the chunks in which a condition may be true, or false.

    Parameters
    ----------
    expr : Expr
        A condition on one column, without a connective at its top.
    bounds : Bounds
        The bounds of the column.
    outcome : bool
        Which of the two.

    Returns
    -------
    ndarray of bool or None
        A mask that is true for every such chunk, and perhaps for others. None if the condition has another form, so
        that bounds tell nothing.
    """
    try:
        return _may_hold(unnamed(expr), bounds, outcome=outcome)
    except (Exception, PanicException):  # noqa: BLE001  types that do not compare: the workers raise the error
        return None


def _may_hold(expr: pl.Expr, bounds: Bounds, *, outcome: bool) -> Mask | None:
    if _is_column(expr):
        return _holds(bounds, greatest if outcome else ~least) if bounds.low.dtype == pl.Boolean else None
    match expr.meta.pop()[::-1]:  # Polars pops the last operand first
        case [inner] if _is_column(inner):
            return _tested(expr, inner, bounds, outcome=outcome)
        case [left, right]:
            return _compared(expr, left, right, bounds, outcome=outcome)
        case [inner, low, high] if is_literal(low) and is_literal(high):
            return _between(expr, inner, low, high, bounds, outcome=outcome)
    return None


def _tested(expr: pl.Expr, column: pl.Expr, bounds: Bounds, *, outcome: bool) -> Mask | None:
    """Evaluate a test of null or NaN."""
    no_null, no_nan = bounds.nans | bounds.numbers, bounds.numbers
    for test, true, false in (
        (pl.Expr.is_null, bounds.nulls, no_null),
        (pl.Expr.is_not_null, no_null, bounds.nulls),
        (pl.Expr.is_nan, bounds.nans, no_nan),
        (pl.Expr.is_not_nan, no_nan, bounds.nans),
    ):
        if test(column).meta.eq(expr):
            return true if outcome else false
    return None


def _compared(expr: pl.Expr, left: pl.Expr, right: pl.Expr, bounds: Bounds, *, outcome: bool) -> Mask | None:
    found = next((compare for compare in _NEGATED if compare(left, right).meta.eq(expr)), None)
    if found is not None:
        if is_literal(left):
            found, left, right = _MIRRORED[found], right, left
        image = image_of(left, bounds) if is_literal(right) else None
        return None if image is None else _somewhere(image, found if outcome else _NEGATED[found], right)
    if is_literal(right) and left.is_in(right).meta.eq(expr):
        image = image_of(left, bounds)
        return None if image is None else _is_in(image, right, outcome=outcome)
    return None


def _somewhere(bounds: Bounds, compare: Compare, constant: pl.Expr) -> Mask:
    """Return the chunks in which a comparison may hold for some value."""
    if compare in (gt, ge):
        return _holds(bounds, compare(greatest, constant))
    if compare in (lt, le):
        return _holds(bounds, compare(least, constant))
    if compare is eq:
        return _holds(bounds, ((least <= constant) & (number >= constant)) | (greatest == constant))
    return _holds(bounds, (least != constant) | (greatest != constant))


def _holds(bounds: Bounds, condition: pl.Expr) -> Mask:
    found: Mask = bounds.ends().select(condition.fill_null(value=False)).to_series().to_numpy()
    return found


def _between(
    expr: pl.Expr, inner: pl.Expr, low: pl.Expr, high: pl.Expr, bounds: Bounds, *, outcome: bool
) -> Mask | None:
    for closed, (above, below) in _CLOSED.items():
        if inner.is_between(low, high, closed=closed).meta.eq(expr):
            image = image_of(inner, bounds)
            if image is not None and _type_of(low) != _type_of(high):  # Polars may compare both in another type
                image = _widened(image) if image.low.dtype.is_float() else None
            if image is None:
                return None
            if outcome:
                return _somewhere(image, above, low) & _somewhere(image, below, high)
            return _somewhere(image, _NEGATED[above], low) | _somewhere(image, _NEGATED[below], high)
    return None


def _type_of(constant: pl.Expr) -> pl.DataType:
    return pl.select(constant).to_series().dtype


MAX_MEMBERS = 64
"""Members of `is_in` that are compared one by one, if they are no numbers; of more, only the range counts."""


def _is_in(bounds: Bounds, members: pl.Expr, *, outcome: bool) -> Mask | None:
    found = pl.select(members).to_series()
    if not isinstance(found.dtype, pl.List) or len(found) != 1:
        return None
    values = found[0]
    if not outcome:  # true for any value between the members
        return None if values.has_nulls() else bounds.numbers | bounds.nans
    values = values.drop_nulls()
    if values.dtype.is_numeric() and bounds.low.dtype.is_numeric():
        return _is_number_in(bounds, values.cast(pl.Float64))
    if values.dtype != bounds.low.dtype:
        return None
    if len(values) > MAX_MEMBERS:
        return _holds(bounds, (greatest >= pl.lit(values.min())) & (least <= pl.lit(values.max())))
    held = np.zeros(len(bounds.low), dtype=np.bool_)
    for number in range(len(values)):
        one = pl.lit(values[number : number + 1]).first()
        held |= _holds(bounds, (least <= one) & (greatest >= one))
    return held


def _is_number_in(bounds: Bounds, members: pl.Series) -> Mask:
    """Compare numbers in float64. Bounds are widened, because Polars may compare them in another type."""
    wide = _widened(bounds)
    low, high = (series.cast(pl.Float64).fill_null(float("nan")).to_numpy() for series in (wide.low, wide.high))
    if bounds.low.dtype.is_integer():
        low, high = np.nextafter(low, -np.inf), np.nextafter(high, np.inf)
    numbers = members.filter(members.is_not_nan()).sort().to_numpy()
    following = np.searchsorted(numbers, low)
    held: Mask = np.append(numbers, np.nan)[following] <= high
    return held | bounds.nans if len(numbers) < len(members) else held


_ULPS = 4
"""Steps to the next float by which an image is widened, because Polars may round vectors and scalars differently."""

_MIN_FACTOR, _MAX_FACTOR = 1e-30, 1e30
"""Absolute values of constants in arithmetic, or 0: their reciprocals are finite in float32, too."""


def image_of(expr: pl.Expr, bounds: Bounds) -> Bounds | None:
    """Return the bounds of a monotone function of a column; None if the function is not known to be monotone.

    Parameters
    ----------
    expr : Expr
        The column itself, or sums, differences, products and quotients of floats with constants, negated and absolute
        floats, and casts of numbers to floats.
    bounds : Bounds
        Bounds of the column.
    """
    expr = unnamed(expr)
    if _is_column(expr):
        return bounds
    match expr.meta.pop()[::-1]:
        case [inner]:
            return _image_of_unary(expr, inner, bounds)
        case [left, right] if is_literal(right):
            return _image_of_binary(expr, left, right, bounds, (add, sub, mul, truediv))
        case [left, right] if is_literal(left):
            return _image_of_binary(expr, right, left, bounds, (add, sub, mul), mirrored=True)
    return None


def _image_of_unary(expr: pl.Expr, inner: pl.Expr, bounds: Bounds) -> Bounds | None:
    below = image_of(inner, bounds)
    if below is None or not below.low.dtype.is_numeric() or isinstance(below.low.dtype, pl.Decimal):
        return None
    for kind in (pl.Float32, pl.Float64):
        for strict in (True, False):
            if inner.cast(kind, strict=strict).meta.eq(expr):
                return _mapped(below, partial(pl.Expr.cast, dtype=kind))
    if not below.low.dtype.is_float():
        return None
    if (-inner).meta.eq(expr):
        return _mapped(below, pl.Expr.neg)
    if inner.abs().meta.eq(expr):
        return _mapped(below, pl.Expr.abs, valley=True)
    return None


def _image_of_binary(
    expr: pl.Expr,
    inner: pl.Expr,
    constant: pl.Expr,
    bounds: Bounds,
    operations: tuple[Callable[[Any, Any], Any], ...],
    *,
    mirrored: bool = False,
) -> Bounds | None:
    for operation in operations:
        function = partial(operation, constant) if mirrored else partial(_reversed, operation, constant)
        if function(inner).meta.eq(expr):
            below, value = image_of(inner, bounds), pl.select(constant).to_series().to_list()[0]
            if below is None or not below.low.dtype.is_float() or not _is_plain(value, zero=operation is not truediv):
                return None
            return _mapped(below, function)
    return None


def _reversed(operation: Callable[[Any, Any], Any], right: pl.Expr, left: pl.Expr) -> pl.Expr:
    found: pl.Expr = operation(left, right)
    return found


def _is_plain(value: object, *, zero: bool) -> bool:
    """Whether a constant of arithmetic turns no number into NaN, but infinity, which is an end of its interval."""
    if isinstance(value, bool) or not isinstance(value, int | float) or not isfinite(value):
        return False
    return zero if value == 0 else _MIN_FACTOR <= abs(value) <= _MAX_FACTOR


def _mapped(bounds: Bounds, function: Callable[[pl.Expr], pl.Expr], *, valley: bool = False) -> Bounds | None:
    """Return the image under a monotone function; with ``valley`` it falls up to 0 and rises from there."""
    own = pl.DataFrame([bounds.low.alias("low"), bounds.high.alias("high")])
    ends = own.select(function(least).alias("low"), function(greatest).alias("high"))
    dtype = ends.schema["low"]
    if not dtype.is_float() or ends.schema["high"] != dtype:
        return None
    a, b = (ends[name].fill_null(0.0).to_numpy() for name in ("low", "high"))
    low, high = np.minimum(a, b), np.maximum(a, b)
    if valley:
        through_0 = own.select(((least <= 0) & (greatest >= 0)).fill_null(value=True)).to_series().to_numpy()
        low = np.where(through_0, np.zeros_like(low), low)
    lost = np.isnan(low) | np.isnan(high)  # an infinity became NaN
    low, high = np.where(lost, low.dtype.type(-np.inf), low), np.where(lost, high.dtype.type(np.inf), high)
    image = Bounds(
        _series(low, bounds, dtype), _series(high, bounds, dtype), bounds.nans | (lost & bounds.numbers), bounds.nulls
    )
    return _widened(image)


def _widened(bounds: Bounds) -> Bounds:
    """Return float bounds that are a few steps wider; others as they are."""
    if not bounds.low.dtype.is_float():
        return bounds
    low, high = (series.fill_null(0.0).to_numpy() for series in (bounds.low, bounds.high))
    for _ in range(_ULPS):
        low, high = (np.nextafter(end, end.dtype.type(to)) for end, to in ((low, -np.inf), (high, np.inf)))
    dtype = bounds.low.dtype
    return Bounds(_series(low, bounds, dtype), _series(high, bounds, dtype), bounds.nans, bounds.nulls)


def _series(values: npt.NDArray[Any], bounds: Bounds, dtype: pl.DataType) -> pl.Series:
    """Return values as a column that is null where the bounds are."""
    found = pl.Series(values, dtype=dtype)
    return found if not bounds.low.has_nulls() else found.set(bounds.low.is_null(), None)


def _is_column(expr: pl.Expr) -> bool:
    return expr.meta.is_column() and expr.meta.eq(pl.col(expr.meta.output_name()))


def unnamed(expr: pl.Expr) -> pl.Expr:
    """Return the expression without aliases at its top, which would hide its form."""
    match expr.meta.pop():
        case [named] if named.alias(expr.meta.output_name(raise_if_undetermined=False) or "").meta.eq(expr):
            return unnamed(named)
    return expr
