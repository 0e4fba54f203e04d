"""An interpolation in pieces: each piece has some targets, and only the rows that these need."""

from collections.abc import Iterator, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.query.stencils import Method, as_floats, needed_labels
from rainbear_dask.query.trees import Tree, expr_of, with_inputs

Numbers = npt.NDArray[np.int64]

WHOLE = 2**23
"""Rows times targets up to which an interpolation is not divided. Interpolars looks at all rows for each target."""

_TARGETS = 8
"""Targets of a piece, about."""


@dataclass(frozen=True, slots=True, eq=False)
class Pieces:
    """A function of rows that interpolates piece by piece.

    Parameters
    ----------
    interpolation : Tree
        A function of coordinates, values and targets.
    targets : DataFrame
        The targets.
    methods : tuple of (str, Method)
        Names of coordinates, if a target needs only some of their labels, each with its method.
    extrapolate, finds_units : bool
        As in `stencils`.
    slices : DataFrame
        For each target, the labels of its slice along other dimensions; without columns if there are none.
    """

    interpolation: Tree
    targets: pl.DataFrame
    methods: tuple[tuple[str, Method], ...]
    extrapolate: bool
    finds_units: bool
    slices: pl.DataFrame

    def __call__(self, rows: pl.Series) -> pl.Series:
        """Return the interpolation, group by group, in each group in the order of the targets.

        Parameters
        ----------
        rows : Series of Struct
            "coordinates", "values", and "slice" if there are slices. They are a complete grid.
        """
        frame = rows.struct.unnest()
        found, places = [], []
        for numbers, some in self._by_slice(frame):
            for own, needed in self._by_place(numbers, some, self.methods):
                piece = needed.select(self._interpolation_of(self.targets[own])).to_series()
                groups = np.arange(len(piece) // max(len(own), 1))
                found.append(piece)
                places.append((groups[:, None] * len(self.targets) + own).ravel())
        return pl.concat(found).gather(np.argsort(np.concatenate(places), kind="stable"))

    def _by_slice(self, rows: pl.DataFrame) -> Iterator[tuple[Numbers, pl.DataFrame]]:
        """Yield the numbers of the targets of each slice, and its rows."""
        if not self.slices.columns:
            yield np.arange(len(self.targets)), rows
            return
        for part in self.slices.with_row_index(_NUMBER).partition_by(self.slices.columns, maintain_order=True):
            here = rows.filter(
                pl.col("slice").struct.field(name) == pl.lit(part[name]).first() for name in self.slices.columns
            )
            yield part[_NUMBER].to_numpy().astype(np.int64), here

    def _by_place(
        self, numbers: Numbers, rows: pl.DataFrame, methods: Sequence[tuple[str, Method]]
    ) -> Iterator[tuple[Numbers, pl.DataFrame]]:
        """Divide targets by their place along one coordinate after the other: yield their numbers, and their rows."""
        if not methods or len(numbers) * len(rows) <= WHOLE:
            yield numbers, rows
            return
        (name, method), *others = methods
        of_rows = rows["coordinates"].struct.field(name)
        labels = of_rows.unique()
        axis, targets = as_floats(labels, self.targets[name][numbers], finds_units=self.finds_units)
        if len(targets) < len(numbers):  # interpolars raises an error for the others
            yield numbers, rows
            return
        distinct, kind = np.unique(axis, return_inverse=True)
        count = round((len(numbers) / _TARGETS) ** (1 / len(methods)))
        for some in np.array_split(np.argsort(targets, kind="stable"), max(count, 1)):
            needed = needed_labels(distinct, targets[some], method, extrapolate=self.extrapolate)[kind]
            here = rows.filter(of_rows.is_in(labels.filter(needed).implode()))
            yield from self._by_place(numbers[some], here, others)

    def _interpolation_of(self, targets: pl.DataFrame) -> pl.Expr:
        inputs = [pl.col("coordinates"), pl.col("values"), pl.lit(targets.to_struct("targets"))]
        return expr_of(with_inputs(self.interpolation, inputs))


_NUMBER = "number of the target"
