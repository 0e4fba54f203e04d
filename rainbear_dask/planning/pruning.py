"""Chunks that statistics prove to hold no matching row."""

from dataclasses import dataclass, replace
from datetime import datetime
from functools import cached_property

import numpy as np
import polars as pl

from rainbear_dask.indexing.selection import Selection
from rainbear_dask.planning.intervals import Bounds, Mask, may_hold
from rainbear_dask.statistics.lookup import Known, known_statistics
from rainbear_dask.table.model import Table


@dataclass(frozen=True, slots=True)
class StatisticsUse:
    """Statistics that a plan has used, for its report.

    Parameters
    ----------
    column : str
        The variable.
    made : datetime
        When they were collected, in UTC.
    label : str
        Address of their file.
    """

    column: str
    made: datetime
    label: str


class Pruning:
    """Evaluates conditions on data variables on the statistics of their chunks.

    Parameters
    ----------
    table : Table
        The table of the scan.
    within : Selection
        The rows that other parts of the filter leave. Statistics of other chunks are not compared with the store.
    """

    def __init__(self, table: Table, within: Selection) -> None:
        self._table, self._within = table, within
        self._columns: dict[str, _PrunedColumn | None] = {}

    def select(self, expr: pl.Expr, name: str, *, outcome: bool) -> Selection | None:
        """Return the rows, among those within, at which a condition on one variable may be ``outcome``.

        Parameters
        ----------
        expr : Expr
            The condition.
        name : str
            The only column that it names.
        outcome : bool
            True or false.

        Returns
        -------
        Selection or None
            Whole chunks. None if the statistics of the variable tell nothing about the condition.
        """
        found = self._column(name)
        return None if found is None else found.select(expr, outcome=outcome)

    def knows(self, name: str) -> bool:
        """Whether a column has statistics."""
        return self._column(name) is not None

    def _column(self, name: str) -> "_PrunedColumn | None":
        if name not in self._columns:
            column = self._table.columns.get(name)
            known = known_statistics(self._table, column) if column is not None and column.role == "data" else None
            self._columns[name] = None if known is None else _PrunedColumn(known, self._within)
        return self._columns[name]

    @property
    def uses(self) -> tuple[StatisticsUse, ...]:
        """The statistics that told something."""
        return tuple(
            StatisticsUse(name, one.known.found.made, one.known.label)
            for name, one in self._columns.items()
            if one is not None and one.is_used
        )


class _PrunedColumn:
    def __init__(self, known: Known, within: Selection) -> None:
        self.known, self.is_used = known, False
        self._grid = known.array.grid
        self._compared = np.full(self._grid.num_chunks, -1, dtype=np.int8)  # 1 if unchanged, 0 if not, -1 if not asked
        boxes = [{dim: box[dim] for dim in self._grid.dims if dim in box} for box in within.boxes]
        self._within: Mask = self._grid.touched_by(boxes).reshape(-1)

    def select(self, expr: pl.Expr, *, outcome: bool) -> Selection | None:
        held = may_hold(expr, self._bounds, outcome=outcome)
        if held is None:
            return None
        self.is_used = True
        dropped = np.flatnonzero(self._within & self.known.known & ~held)
        new = dropped[self._compared[dropped] < 0]
        if len(new):  # a bucket is listed for it
            self._compared[new] = self.known.unchanged(new)
        dropped = dropped[self._compared[dropped] == 1]
        if not len(dropped):
            return Selection.everything()
        kept = self._within.copy()
        kept[dropped] = False
        found = self._grid.select_chunks(kept.reshape(self._grid.counts))
        return replace(found, exact=not found.boxes)

    @cached_property
    def _bounds(self) -> Bounds:
        rows = self.known.found.rows
        nans, nulls = (rows[name].fill_null(1).to_numpy() > 0 for name in ("nans", "nulls"))
        return Bounds(rows["min"], rows["max"], nans, nulls)
