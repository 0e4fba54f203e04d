"""An interpolation in which each target has a slice of the grid of its own."""

from dataclasses import dataclass

import numpy as np
import polars as pl

from rainbear_dask.query.trees import Tree, expr_of, with_inputs


@dataclass(frozen=True, slots=True, eq=False)
class BySlice:
    """A function of rows that interpolates each target in its slice.

    Parameters
    ----------
    interpolation : Tree
        A function of coordinates, values and targets.
    targets : DataFrame
        The targets; at least one.
    labels : DataFrame
        The slice of each target: a label for each dimension of the slices.
    """

    interpolation: Tree
    targets: pl.DataFrame
    labels: pl.DataFrame

    def __call__(self, rows: pl.Series) -> pl.Series:
        """Return the interpolation, group by group, in each group in the order of the targets.

        Parameters
        ----------
        rows : Series of Struct
            "coordinates", "values", and "slice": the labels of the row.
        """
        frame = rows.struct.unnest()
        numbered = self.labels.with_row_index(_NUMBER)
        pieces, places = [], []
        for part in numbered.partition_by(self.labels.columns, maintain_order=True):
            numbers = part[_NUMBER].to_numpy().astype(np.int64)
            here = frame.filter(
                pl.col("slice").struct.field(name) == pl.lit(part[name]).first() for name in self.labels.columns
            )
            piece = here.select(self._interpolation_of(self.targets[numbers])).to_series()
            groups = np.arange(len(piece) // len(numbers))
            pieces.append(piece)
            places.append((groups[:, None] * len(self.targets) + numbers).ravel())
        return pl.concat(pieces).gather(np.argsort(np.concatenate(places), kind="stable"))

    def _interpolation_of(self, targets: pl.DataFrame) -> pl.Expr:
        inputs = [pl.col("coordinates"), pl.col("values"), pl.lit(targets.to_struct("targets"))]
        return expr_of(with_inputs(self.interpolation, inputs))


_NUMBER = "number of the target"
