"""`Explanation`: what a query would read, for people and for programs."""

from collections.abc import Sequence
from dataclasses import dataclass
from typing import Literal

from rainbear_dask.diagnostics.explain import as_html, as_text
from rainbear_dask.diagnostics.report import Report
from rainbear_dask.diagnostics.svg import draw_report
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.redaction import escaped

NO_SCAN = "This query reads no row of a Zarr store: it has no scan of scan_zarr(), or Polars needs no row of one."


@dataclass(frozen=True, slots=True)
class Place:
    """Where the tasks of a scan run.

    Parameters
    ----------
    kind : {"threads", "cluster"}
        Threads of this process, or the workers of a Dask cluster.
    reason : str
        Why there.
    """

    kind: Literal["threads", "cluster"]
    reason: str

    def __str__(self) -> str:
        where = "threads of this process" if self.kind == "threads" else "the workers of a Dask cluster"
        return f"{where}, because {self.reason}"


@dataclass(frozen=True, repr=False)
class Explanation:
    """The report on a query; `rainbear_dask.explain` and ``ScanPlan.explain`` return one.

    ``str()`` is the report as text, a notebook shows it with a picture of the chunks, and attributes hold its numbers.

    Parameters
    ----------
    reports : tuple of Report
        The sources; not part of the public interface.
    places : tuple of Place
        Where each scan runs.
    kept_by_polars : tuple of str
        Filters directly above a scan that Polars applies itself.
    split : tuple of str or None
        For each aggregation of a scan, "array" or "rows" if tasks compute parts of it, of chunks or of rows; else None.
        For the first rows of a sorted scan, "rows" if tasks choose them.
    aggregations : tuple of str
        The same in words, with the reason for None.
    """

    reports: tuple[Report, ...]
    places: tuple[Place, ...]
    kept_by_polars: tuple[str, ...] = ()
    split: tuple[str | None, ...] = ()
    aggregations: tuple[str, ...] = ()

    @property
    def plans(self) -> tuple[ReadPlan, ...]:
        """The plans of all scans; not part of the public interface."""
        return tuple(report.plan for report in self.reports)

    @property
    def chunks_kept(self) -> int:
        """Chunks of data variables that all scans read."""
        return sum(plan.counts.num_chunks_kept for plan in self.plans)

    @property
    def chunks_total(self) -> int:
        """Chunks of the same data variables before pruning."""
        return sum(plan.counts.num_chunks for plan in self.plans)

    @property
    def bytes(self) -> int:
        """Decoded bytes of the chunks that all scans read."""
        return sum(plan.counts.bytes_kept for plan in self.plans)

    @property
    def rows(self) -> int:
        """Upper bound of the rows that all scans give to Polars."""
        return sum(report.rows for report in self.reports)

    @property
    def tasks(self) -> int:
        """Number of tasks of all scans."""
        return sum(report.tasks for report in self.reports)

    @property
    def memory(self) -> int:
        """Upper bound, estimated, of the bytes that a worker needs for one task."""
        return max((report.memory for report in self.reports), default=0)

    @property
    def runs_on(self) -> str:
        """Where the tasks run: "threads", "cluster", "threads and cluster", or "" without a scan."""
        return " and ".join(sorted({place.kind for place in self.places}, reverse=True))

    def __str__(self) -> str:
        reports = [as_text(report, str(place)) for report, place in zip(self.reports, self.places, strict=True)]
        return "\n".join([*(reports or [NO_SCAN]), *(escaped(f"  {name:8} {text}") for name, text in self._notes())])

    def __repr__(self) -> str:
        return str(self)

    def __contains__(self, text: str) -> bool:
        """Whether the report contains a text."""
        return text in str(self)

    def _repr_html_(self) -> str:
        reports = [as_html(report, str(place)) for report, place in zip(self.reports, self.places, strict=True)]
        if not reports:
            return draw_report(NO_SCAN, self._notes(), "")
        return "".join(reports) + (draw_report("THE QUERY ABOVE", notes, "") if (notes := self._notes()) else "")

    def _notes(self) -> Sequence[tuple[str, str]]:
        """Return what Polars and the engine do above the scans, each with its label."""
        return [("split", text) for text in self.aggregations] + [
            (
                "kept",
                f"{text if len(text) <= 100 else f'{text[:97]}...'}: Polars applies this filter itself"
                + (". Declare is_elementwise=True in map_batches, and it prunes" if "python_udf" in text else ""),
            )
            for text in self.kept_by_polars
        ]
