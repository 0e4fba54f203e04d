"""`ScanPlan`: a plan that users inspect, run here or on a cluster, or hand to Dask and other libraries."""

from collections.abc import Callable, Collection, Iterator, Mapping
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any, TypeVar

import polars as pl
from dask.base import persist, tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from rainbear_dask.dependencies import require
from rainbear_dask.diagnostics.explain import as_html, as_text
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.exceptions import NoClientError
from rainbear_dask.execution.clients import bring_credentials, chosen_client, client_for
from rainbear_dask.execution.graph import build_graph
from rainbear_dask.execution.run import iter_frames, map_frames
from rainbear_dask.execution.worker import make_frame
from rainbear_dask.planning.limits import Limits
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.table.model import Column, Table
from rainbear_dask.typing import DtypeBackend

if TYPE_CHECKING:
    import dask.dataframe as dd
    import distributed
    import pandas as pd
    import pyarrow as pa
    import xarray as xr
    from distributed import Client


T = TypeVar("T")


@dataclass(frozen=True)
class ScanPlan:
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

    read_plan: ReadPlan
    limits: Limits = field(default_factory=Limits)

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

    def no_rows(self) -> pl.DataFrame:
        """Return an empty frame with the schema of the result."""
        return self.read_plan.no_rows()

    def tasks(self) -> Iterator[ScanTask]:
        """Yield the tasks in row order, lazily."""
        return self.read_plan.tasks()

    def explain(self) -> str:
        """Report which chunks the plan reads, and which of them each condition of the filter keeps."""
        return as_text(self.read_plan)

    def _repr_html_(self) -> str:
        return as_html(self.read_plan)

    def frames(self, client: "Client | None" = None, *, ordered: bool = True) -> Iterator[pl.DataFrame]:
        """Run the plan and stream its rows.

        Parameters
        ----------
        client : distributed.Client, optional
            Client that runs the tasks.
        ordered : bool
            Whether frames come in task order. False yields each frame on completion, so that none waits for a slower
            one.

        Returns
        -------
        iterator of DataFrame
            One frame for each task, as many as ``limit`` needs. Read-ahead is bounded, even if the caller is slow.
            Closing the iterator stops the tasks.
        """
        plan = self.read_plan
        frames = iter_frames(plan.tasks(), client_for(plan, client), limit=plan.limit, ordered=ordered)
        return shown(frames, plan)

    def collect(self, client: "Client | None" = None) -> pl.DataFrame:
        """Run the plan and return its rows.

        Parameters
        ----------
        client : distributed.Client, optional
            Client that runs the tasks.

        Returns
        -------
        DataFrame
            The plan's columns; the rows that pass its filter, in task order.

        Raises
        ------
        ChunkReadError
            If a task cannot fetch or decode a chunk.
        """
        return pl.concat([self.no_rows(), *self.frames(client)])

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

    def to_arrow(self, client: "Client | None" = None) -> "pa.Table":
        """Run the plan and return an Arrow table; needs pyarrow.

        Parameters
        ----------
        client : distributed.Client, optional
            Client that runs the tasks.

        Returns
        -------
        pyarrow.Table
            Columns and rows of `collect`.
        """
        require("pyarrow", extra="dataframe")
        return self.collect(client).to_arrow()

    def to_arrow_reader(self, client: "Client | None" = None) -> "pa.RecordBatchReader":
        """Run the plan and stream Arrow record batches; needs pyarrow.

        Parameters
        ----------
        client : distributed.Client, optional
            Client that runs the tasks.

        Returns
        -------
        pyarrow.RecordBatchReader
            Columns and rows of `collect`. Tasks start with the first batch, and read-ahead is bounded.

        Notes
        -----
        The plan is an Arrow stream (``__arrow_c_stream__``), which DuckDB, DataFusion and others accept directly.
        """
        from rainbear_dask.convert.arrow import arrow_reader  # noqa: PLC0415  pyarrow is an extra

        return arrow_reader(self.no_rows(), partial(self.frames, client))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_arrow_reader().__arrow_c_stream__(requested_schema)

    def to_pandas(
        self,
        client: "Client | None" = None,
        *,
        dtype_backend: DtypeBackend = "numpy",
        categories: Collection[str] = (),
    ) -> "pd.DataFrame":
        """Run the plan and return a pandas DataFrame; needs pandas and pyarrow.

        Parameters
        ----------
        client : distributed.Client, optional
            Client that runs the tasks.
        dtype_backend, categories
            As in `rainbear_dask.read_zarr`.

        Returns
        -------
        pandas.DataFrame
            Columns of the plan, with ``child/variable`` for a variable of a child group. Rows of `collect`, numbered
            from 0.
        """
        require("pandas", extra="dataframe")
        require("pyarrow", extra="dataframe")
        from rainbear_dask.convert.pandas import pandas_frame  # noqa: PLC0415  as pandas is an extra

        return pandas_frame(self.read_plan, client_for(self.read_plan, client), dtype_backend, categories)

    def to_dask_dataframe(
        self,
        *,
        index: str | None = None,
        dtype_backend: DtypeBackend = "numpy",
        categories: Collection[str] = (),
    ) -> "dd.DataFrame":
        """Convert the plan to a Dask DataFrame that accepts further pushdown; needs ``dask[dataframe]``.

        Parameters
        ----------
        index, dtype_backend, categories
            As in `rainbear_dask.read_zarr`.

        Returns
        -------
        dask.dataframe.DataFrame
            As in `rainbear_dask.read_zarr`, with the plan's columns and the rows that pass its filter.

        Raises
        ------
        QueryError
            If the plan has a ``limit``, or the index is not a coordinate of one dimension.
        """
        require("dask.dataframe", extra="dataframe")
        from rainbear_dask.dataframe.frame import dask_dataframe  # noqa: PLC0415  as dask.dataframe is an extra

        return dask_dataframe(self.read_plan, index=index, dtype_backend=dtype_backend, categories=categories)

    def to_xarray(self, chunks: Any = None) -> "xr.Dataset":
        """Return the selected box of the store as an xarray Dataset; needs xarray.

        Parameters
        ----------
        chunks
            As in `xarray.open_zarr`. By default xarray reads each array on first use, without Dask. ``{}`` gives Dask
            arrays with the store's chunks.

        Returns
        -------
        xarray.Dataset
            Data variables of the plan with their coordinates, at the positions that the filter selects. The call reads
            no data variable. Values, dtypes and missing values equal xarray's. If the plan has the index column
            of a dimension without coordinate, the Dataset labels that dimension with its positions in the store.

        Raises
        ------
        QueryError
            If the filter does not select positions of each dimension independently, the plan has a ``limit``, or it
            has variables of child groups.

        Notes
        -----
        Tests compare ``to_xarray().to_dataframe()`` with the rows of the plan.
        """
        from rainbear_dask.convert.xarray import lazy_dataset  # noqa: PLC0415  xarray is an extra

        return lazy_dataset(self.read_plan, chunks)
