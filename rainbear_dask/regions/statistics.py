"""Statistics by name, the sums from which they follow, and how sums of parts of a zone are joined."""

import re
from collections.abc import Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from typing import Any

import numpy as np
import numpy.typing as npt

from rainbear_dask.exceptions import QueryError

Floats = npt.NDArray[np.float64]

NAMES = ("mean", "sum", "count", "min", "max", "variance", "std", "median", "coverage")

_QUANTILE = re.compile(r"quantile\(\s*(?:q\s*=\s*)?([0-9.eE+-]+)\s*\)")

_SLAB_VALUES = 2**19
"""Values that are computed at once, so that they stay in the processor's cache."""


def check_statistics(stats: Sequence[str]) -> tuple[str, ...]:
    """Return the names of statistics.

    Raises
    ------
    QueryError
        If there is none, or one is unknown or named twice.
    """
    names = (stats,) if isinstance(stats, str) else tuple(stats)
    for name in names:
        if name not in NAMES and not 0 <= _quantile(str(name)) <= 1:
            near = get_close_matches(str(name), NAMES, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(NAMES)} and 'quantile(q=0.9)'."
            raise QueryError(f"There is no statistic {name!r}. {hint}")
    if not names or len(set(names)) < len(names):
        raise QueryError(
            f"The statistics {list(names)} are {'repeated' if names else 'empty'}. Name each in `stats=` once."
        )
    return names


def _quantile(name: str) -> float:
    """Return the share of a quantile; NaN for any other statistic."""
    if name == "median":
        return 0.5
    found = _QUANTILE.fullmatch(name)
    try:
        return float(found[1]) if found else np.nan
    except ValueError:
        return np.nan


@dataclass(frozen=True, slots=True)
class Needs:
    """The parts of `Sums` that some statistics need beside weights and sums.

    Parameters
    ----------
    spread, extremes : bool
        Squared deviations; lowest and highest value.
    quantiles : tuple of float
        Shares of quantiles. They need all values of a zone at once.
    """

    spread: bool
    extremes: bool
    quantiles: tuple[float, ...]

    @classmethod
    def of(cls, stats: Sequence[str]) -> "Needs":
        """Return the needs of some statistics."""
        shares = tuple(dict.fromkeys(share for name in stats if not np.isnan(share := _quantile(name))))
        return cls(bool({"variance", "std"} & set(stats)), bool({"min", "max"} & set(stats)), shares)


@dataclass(frozen=True, slots=True)
class Sums:
    """Sums over the cells of zones that have a value; all arrays have one shape, with zones along the last axis.

    Parameters
    ----------
    count, weight, total : ndarray of float64
        Sums of covered shares, of weights, and of weights times values.
    squares : ndarray or None
        Weighted sum of squared deviations from the zone's mean.
    low, high : ndarray or None
        Lowest and highest value; infinite without a value.
    quantiles : tuple of ndarray
        Weighted quantiles; NaN without a value.
    """

    count: Floats
    weight: Floats
    total: Floats
    squares: Floats | None
    low: Floats | None
    high: Floats | None
    quantiles: tuple[Floats, ...]

    @classmethod
    def empty(cls, shape: tuple[int, ...], needs: Needs) -> "Sums":
        """Return the sums of no cell."""
        return cls(
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(shape),
            np.zeros(shape) if needs.spread else None,
            np.full(shape, np.inf) if needs.extremes else None,
            np.full(shape, -np.inf) if needs.extremes else None,
            tuple(np.full(shape, np.nan) for _ in needs.quantiles),
        )

    def add(self, place: Any, other: "Sums") -> None:
        """Add the sums of other cells in place, at an index of the arrays, by the rule of Chan, Golub and LeVeque."""
        if self.squares is not None and other.squares is not None:
            mine, theirs = self.weight[place], other.weight
            with np.errstate(invalid="ignore", divide="ignore"):
                step = other.total / theirs - self.total[place] / mine
                between = np.where((mine > 0) & (theirs > 0), step * step * (mine * theirs / (mine + theirs)), 0)
            self.squares[place] += other.squares + between
        self.count[place] += other.count
        self.weight[place] += other.weight
        self.total[place] += other.total
        if self.low is not None and other.low is not None:
            self.low[place] = np.minimum(self.low[place], other.low)
        if self.high is not None and other.high is not None:
            self.high[place] = np.maximum(self.high[place], other.high)
        for mine, theirs in zip(self.quantiles, other.quantiles, strict=True):
            mine[place] = theirs  # a task holds whole zones

    def reshaped(self, shape: tuple[int, ...]) -> "Sums":
        """Return the same sums in another shape."""
        return Sums(
            self.count.reshape(shape),
            self.weight.reshape(shape),
            self.total.reshape(shape),
            None if self.squares is None else self.squares.reshape(shape),
            None if self.low is None else self.low.reshape(shape),
            None if self.high is None else self.high.reshape(shape),
            tuple(each.reshape(shape) for each in self.quantiles),
        )

    def statistic(self, name: str, needs: Needs, whole: Floats) -> Floats:
        """Return a statistic; NaN where it is not defined. ``whole`` is the weight of all cells of each zone."""
        with np.errstate(invalid="ignore", divide="ignore"):
            some = self.weight > 0
            if name == "count":
                return self.count
            if name == "coverage":
                share = self.weight / whole
                return np.where(np.abs(share - 1) < 1e-12, 1, share)  # the two sums have different orders
            if name in ("min", "max"):
                extreme = self.low if name == "min" else self.high
                return np.where(some, extreme, np.nan)  # type: ignore[arg-type]  # `needs` has asked for it
            if name in ("variance", "std"):
                variance = np.where(some, self.squares / self.weight, np.nan)  # type: ignore[operator]
                return variance if name == "variance" else np.sqrt(variance)
            if name in ("mean", "sum"):
                return np.where(some, self.total / self.weight if name == "mean" else self.total, np.nan)
        return self.quantiles[needs.quantiles.index(_quantile(name))]


def sums_of(values: Floats, starts: npt.NDArray[np.int64], fraction: Floats, weight: Floats, needs: Needs) -> Sums:
    """Return the sums over runs of cells.

    Parameters
    ----------
    values : ndarray of float64, shape (m, n)
        Values of n cells, for each of m rows; NaN for none.
    starts : ndarray of int64, shape (k,)
        First cell of each zone; its cells are adjacent.
    fraction, weight : ndarray of float64, shape (n,)
        Covered share and weight of each cell.
    needs : Needs
        The sums to compute.

    Returns
    -------
    Sums
        Of shape (m, k).
    """
    found = Sums.empty((len(values), len(starts)), needs)
    rows = max(_SLAB_VALUES // max(values.shape[1], 1), 1)
    for first in range(0, len(values), rows):
        slab = slice(first, first + rows)
        found.add(slab, _sums_of_slab(values[slab], starts, fraction, weight, needs))
    return found


def _sums_of_slab(
    values: Floats, starts: npt.NDArray[np.int64], fraction: Floats, weight: Floats, needs: Needs
) -> Sums:
    absent = np.isnan(values)
    some_absent = bool(absent.any())
    shares, weights = (np.broadcast_to(each, values.shape) for each in (fraction, weight))
    if some_absent:
        shares, weights, filled = np.where(absent, 0, shares), np.where(absent, 0, weights), np.where(absent, 0, values)
        count, total_weight = (np.add.reduceat(each, starts, axis=1) for each in (shares, weights))
    else:
        filled = values
        runs = (np.add.reduceat(each, starts) for each in (fraction, weight))
        count, total_weight = (np.broadcast_to(each, (len(values), len(starts))) for each in runs)
    total = np.add.reduceat(filled * weights, starts, axis=1)
    squares = low = high = None
    if needs.spread:
        with np.errstate(invalid="ignore", divide="ignore"):
            mean = np.nan_to_num(total / total_weight)
        lengths = np.diff(starts, append=values.shape[1])
        squares = np.add.reduceat(weights * (filled - np.repeat(mean, lengths, axis=1)) ** 2, starts, axis=1)
    if needs.extremes:
        low = np.minimum.reduceat(np.where(absent, np.inf, values) if some_absent else values, starts, axis=1)
        high = np.maximum.reduceat(np.where(absent, -np.inf, values) if some_absent else values, starts, axis=1)
    quantiles = tuple(np.empty(count.shape) for _ in needs.quantiles)
    if quantiles:
        for run, (start, stop) in enumerate(zip(starts, [*starts[1:], values.shape[1]], strict=True)):
            found = weighted_quantiles(values[:, start:stop], weight[start:stop], needs.quantiles)
            for quantile, each in zip(quantiles, found, strict=True):
                quantile[:, run] = each
    return Sums(count, total_weight, total, squares, low, high, quantiles)


def weighted_quantiles(values: Floats, weight: Floats, shares: Sequence[float]) -> list[Floats]:
    """Return weighted quantiles of each row.

    Parameters
    ----------
    values : ndarray of float64, shape (m, n)
        Values; NaN for none.
    weight : ndarray of float64, shape (n,)
        Weight of each column, above 0.
    shares : sequence of float
        Between 0 (the lowest value) and 1 (the highest).

    Returns
    -------
    list of ndarray of float64, shape (m,)
        One array for each share; NaN for a row without a value.

    Notes
    -----
    The values are interpolated as exactextract does, the oracle of the tests: with n values, sorted, the place of value
    i is ``i * w[i] + (n - 1) * (w[0] + ... + w[i - 1])``, and the quantile lies at ``share * (n - 1) * sum(w)``.
    """
    order = np.argsort(values, axis=1)  # NaN comes last
    ranked = np.take_along_axis(values, order, axis=1)
    weights = np.where(np.isnan(ranked), 0, weight[order])
    number = np.count_nonzero(~np.isnan(ranked), axis=1)
    before = np.cumsum(weights, axis=1) - weights
    gaps = np.maximum(number - 1, 0)[:, None]
    places = np.where(np.isnan(ranked), np.inf, np.arange(values.shape[1]) * weights + gaps * before)
    rows, last = np.arange(len(values)), np.maximum(number - 1, 0)
    found = []
    for share in shares:
        at = share * gaps[:, 0] * weights.sum(axis=1)
        right = np.minimum(np.count_nonzero(places <= at[:, None], axis=1), last)
        left = np.maximum(right - 1, 0)
        low, high = ranked[rows, left], ranked[rows, right]
        with np.errstate(invalid="ignore", divide="ignore"):
            step = (at - places[rows, left]) / (places[rows, right] - places[rows, left])
        between = low + np.clip(np.nan_to_num(step), 0, 1) * (high - low)
        found.append(np.where(number > 0, between, np.nan))
    return found
