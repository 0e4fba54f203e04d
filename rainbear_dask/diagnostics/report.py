"""`Report`: a source of a query and its counts, as reports show them."""

from dataclasses import dataclass

from rainbear_dask.geo.outlines import Outline, outlines_of
from rainbear_dask.planning.plan import ReadPlan


@dataclass(frozen=True)
class Report:
    """A source of a query.

    Parameters
    ----------
    plan : ReadPlan
        Its chunks, bytes, columns and filters.
    kind : str
        Kind of the source, in capitals.
    own_rows, own_tasks, own_memory : int or None
        Upper bound of its rows, number of its tasks, and upper bound of the bytes of one task; None for a scan, which has
        the counts of the plan.
    zones : tuple of Outline
        Polygons that the source itself has.
    """

    plan: ReadPlan
    kind: str = "SCAN"
    own_rows: int | None = None
    own_tasks: int | None = None
    own_memory: int | None = None
    zones: tuple[Outline, ...] = ()

    @property
    def rows(self) -> int:
        """Upper bound of the rows that Polars receives."""
        return self.plan.counts.max_rows if self.own_rows is None else self.own_rows

    @property
    def tasks(self) -> int:
        """Number of tasks."""
        return self.plan.counts.num_tasks if self.own_tasks is None else self.own_tasks

    @property
    def memory(self) -> int:
        """Upper bound, estimated, of the bytes that a worker needs for one task."""
        return self.plan.counts.task_bytes_at_most if self.own_memory is None else self.own_memory

    @property
    def outlines(self) -> tuple[Outline, ...]:
        """The polygons of its filters, and its own."""
        return (*self.zones, *(one for conjunct in self.plan.conjuncts for one in outlines_of(conjunct.expr)))
