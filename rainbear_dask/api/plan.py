"""`ScanPlan`: a plan that users inspect, run here or on a cluster, or hand to Dask and other libraries."""

from collections.abc import Callable, Iterator, Mapping
from dataclasses import dataclass
from typing import TYPE_CHECKING, TypeVar

import polars as pl
from dask.base import persist, tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from rainbear_dask.api.rows import PlanRows
from rainbear_dask.diagnostics.explanation import Explanation
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.diagnostics.report import Report
from rainbear_dask.exceptions import NoClientError
from rainbear_dask.execution.clients import bring_credentials, chosen_client, place_of
from rainbear_dask.execution.graph import build_graph
from rainbear_dask.execution.run import map_frames
from rainbear_dask.execution.worker import make_frame
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.table.model import Column, Table

if TYPE_CHECKING:
    import distributed
    from distributed import Client


T = TypeVar("T")


@dataclass(frozen=True)
class ScanPlan(PlanRows):
    """The plan of a scan, with the ways to run it; `rainbear_dask.plan` returns one.

    A method that takes a ``client`` runs on it. By default it runs on the active Dask client, or on threads of this
    process if the plan is small or no client is active. Tasks carry the Dask annotations (priority, retries, resources)
    that are active when the method is called.

    Parameters
    ----------
    read_plan : ReadPlan
        Tasks and counts; not part of the public interface.
    limits : Limits
        Upper bounds that the caller has set.
    """

    def __repr__(self) -> str:
        counts = self.read_plan.counts
        return (
            f"ScanPlan({self.table.spec.label}: {counts.num_chunks_kept:,} of {counts.num_chunks:,} chunks, "
            f"{counts.max_rows:,} rows at most, {counts.num_tasks:,} tasks)"
        )

    @property
    def table(self) -> Table:
        """The whole table: all rows and columns before filter and projection."""
        return self.read_plan.table

    @property
    def columns(self) -> tuple[Column, ...]:
        """Columns of the result, in order."""
        return self.read_plan.columns

    @property
    def limit(self) -> int | None:
        """Upper bound of the rows of the result, as ``n_rows`` of `plan` set it."""
        return self.read_plan.limit

    @property
    def num_tasks(self) -> int:
        """Number of tasks of the whole plan; a ``limit`` may stop earlier."""
        return self.read_plan.counts.num_tasks

    @property
    def task_bytes_at_most(self) -> int:
        """Memory that a worker needs for one task, in bytes; an estimated upper bound."""
        return self.read_plan.counts.task_bytes_at_most

    @property
    def max_rows(self) -> int:
        """Upper bound of the rows of the result."""
        return self.read_plan.counts.max_rows

    @property
    def num_chunks(self) -> int:
        """Chunks of the data variables that the plan reads, before pruning."""
        return self.read_plan.counts.num_chunks

    @property
    def num_chunks_kept(self) -> int:
        """Chunks that the plan reads, over all data variables."""
        return self.read_plan.counts.num_chunks_kept

    @property
    def chunks_kept(self) -> Mapping[str, int]:
        """Chunks that the plan reads, by path of the array."""
        return self.read_plan.counts.chunks_kept

    @property
    def bytes_total(self) -> int:
        """Decoded bytes of the data variables that the plan reads, before pruning."""
        return self.read_plan.counts.bytes_total

    @property
    def bytes_kept(self) -> int:
        """Decoded bytes that the plan reads."""
        return self.read_plan.counts.bytes_kept

    @property
    def amplification(self) -> float:
        """Bytes read per byte of the selected chunks; above 1 if tasks share chunks."""
        return self.read_plan.counts.amplification

    def tasks(self) -> Iterator[ScanTask]:
        """Yield the tasks in row order, lazily."""
        return self.read_plan.tasks()

    def explain(self) -> Explanation:
        """Report which chunks the plan reads, and which of them each condition of the filter keeps.

        Returns
        -------
        Explanation
            As `rainbear_dask.explain` returns it.
        """
        return Explanation((Report(self.read_plan),), (place_of(self.read_plan),))

    def _repr_html_(self) -> str:
        return self.explain()._repr_html_()

    def map_partitions(
        self, func: Callable[[pl.DataFrame], T], client: "Client | None" = None, *, ordered: bool = True
    ) -> Iterator[T]:
        """Apply a function to each frame in the process that reads the frame.

        Parameters
        ----------
        func : callable
            Takes one frame. On a cluster, Dask must be able to pickle the function and its result.
        client : distributed.Client, optional
            Client that runs the tasks. By default the active client, for small plans too.
        ordered : bool
            Whether results come in task order. False yields each result on completion.

        Returns
        -------
        iterator
            Results of the function. Read-ahead is bounded, and closing the iterator stops the tasks, as in `frames`.
            The function receives whole tasks: with a filter and a ``limit``, more rows than the limit.
        """
        values = map_frames(self.tasks(), func, chosen_client(client), ordered=ordered)
        return shown(values, self.read_plan)

    def to_delayed(self, client: "Client | None" = None) -> list[Delayed]:
        """Return the frames as Dask values for other graphs; nothing is read.

        Parameters
        ----------
        client : distributed.Client, optional
            Client whose workers will read. The values hold no credentials: this call sends them to the workers, which
            drop them when the client closes.

        Returns
        -------
        list of Delayed
            A `polars.DataFrame` for each task, in task order. With a filter and a ``limit``, the frames together may
            hold more rows than the limit.
        """
        client = chosen_client(client)
        if client is not None:
            bring_credentials(client, self.table.spec)
        graph = build_graph(self.tasks(), make_frame)
        layer = f"scan-zarr-{tokenize(*graph)}"
        layers = HighLevelGraph.from_collections(layer, graph)
        return [Delayed(key, layers, layer=layer) for key in graph]

    def persist(self, client: "Client | None" = None) -> list[Delayed]:
        """Start reading the frames and keep them in memory.

        Parameters
        ----------
        client : distributed.Client, optional
            Client whose workers keep the frames. Without a client, this process reads them before the call returns.

        Returns
        -------
        list of Delayed
            As in `to_delayed`. Workers read each frame once and keep it as long as its Delayed exists.
        """
        frames = self.to_delayed(client)
        return list(persist(*frames) if client is None else client.persist(frames))

    def to_futures(self, client: "Client | None" = None) -> "list[distributed.Future[pl.DataFrame]]":
        """Start reading the frames on a cluster and keep them there.

        Parameters
        ----------
        client : distributed.Client, optional
            Client whose workers keep the frames; by default the active client.

        Returns
        -------
        list of distributed.Future
            The future of a `polars.DataFrame` for each task, in task order.

        Raises
        ------
        NoClientError
            If no Dask client is given or active.
        """
        client = chosen_client(client)
        if client is None:
            raise NoClientError(
                "to_futures() needs a Dask client, and none is active. Pass `client=`, or call persist()."
            )
        return list(client.compute(self.to_delayed(client)))
