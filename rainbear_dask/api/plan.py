"""What can be done with a plan: look at it, run it here or on a cluster, or leave its frames there for other work."""

from collections.abc import Callable, Collection, Iterator
from dataclasses import fields
from functools import partial
from operator import attrgetter
from typing import TYPE_CHECKING, Any, Literal, Self, TypeVar

import polars as pl
from dask.base import persist, tokenize
from dask.delayed import Delayed
from dask.highlevelgraph import HighLevelGraph

from rainbear_dask.diagnostics.explain import as_html, as_text
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.execution.clients import active_client, bring_credentials, client_for
from rainbear_dask.execution.graph import build_graph
from rainbear_dask.execution.run import iter_frames, map_frames
from rainbear_dask.execution.worker import make_frame
from rainbear_dask.planning.plan import ReadPlan

if TYPE_CHECKING:
    import dask.dataframe as dd
    import distributed
    import pandas as pd
    import pyarrow as pa
    import xarray as xr
    from distributed import Client


T = TypeVar("T")


class ScanPlan(ReadPlan):
    """A plan that can be run; `rainbear_dask.plan` gives one.

    Where a method takes a ``client`` and none is given, it is the active Dask client, except that small plans are read
    by threads of this process, as all are without one. Tasks take the Dask annotations (priority, retries, resources) that are active when the
    method is called.
    """

    @classmethod
    def of(cls, plan: ReadPlan) -> Self:
        """The same plan, to be run."""
        return cls(**{field.name: getattr(plan, field.name) for field in fields(plan)})

    num_tasks = property(attrgetter("counts.num_tasks"))
    task_bytes_at_most = property(attrgetter("counts.task_bytes_at_most"))
    max_rows = property(attrgetter("counts.max_rows"))
    num_chunks = property(attrgetter("counts.num_chunks"))
    num_chunks_kept = property(attrgetter("counts.num_chunks_kept"))
    chunks_kept = property(attrgetter("counts.chunks_kept"))
    bytes_total = property(attrgetter("counts.bytes_total"))
    bytes_kept = property(attrgetter("counts.bytes_kept"))
    amplification = property(attrgetter("counts.amplification"))

    def explain(self) -> str:
        """Report of what will be read, and of what each part of the filter does for it."""
        return as_text(self)

    def _repr_html_(self) -> str:
        return as_html(self)

    def frames(self, client: "Client | None" = None, *, ordered: bool = True) -> Iterator[pl.DataFrame]:
        """Run the plan and take its rows piece by piece.

        Parameters
        ----------
        client : distributed.Client, optional
            Where to run it.
        ordered : bool
            Whether frames come in task order; else as they are made, so that none waits for a slower one.

        Returns
        -------
        iterator of DataFrame
            One for each task, as many as ``limit`` needs. However slow the caller, few are in memory.
            Closing the iterator stops the reading.
        """
        frames = iter_frames(self.tasks(), client_for(self, client), limit=self.limit, ordered=ordered)
        return shown(frames, self)

    def collect(self, client: "Client | None" = None) -> pl.DataFrame:
        """Run the plan.

        Parameters
        ----------
        client : distributed.Client, optional
            Where to run it.

        Returns
        -------
        DataFrame
            The plan's columns; the rows that pass its filter, in task order.

        Raises
        ------
        ChunkReadError
            If a chunk cannot be fetched or decoded.
        """
        return pl.concat([self.no_rows(), *self.frames(client)])

    def map_partitions(
        self, func: Callable[[pl.DataFrame], T], client: "Client | None" = None, *, ordered: bool = True
    ) -> Iterator[T]:
        """Call a function of each frame where the frame is made.

        Parameters
        ----------
        func : callable
            Of one frame. On a cluster it has to pickle, as Dask pickles functions, and so has what it returns.
        client : distributed.Client, optional
            Where to run it; the active one is taken for small plans too.
        ordered : bool
            Whether values come in task order; else as they are there.

        Returns
        -------
        iterator
            What the function returns; bounded, and to be closed, as that of `frames` is. The function
            sees whole tasks: with a filter and ``limit`` together, more rows than the limit.
        """
        return shown(map_frames(self.tasks(), func, client or active_client(), ordered=ordered), self)

    def to_delayed(self, client: "Client | None" = None) -> list[Delayed]:
        """Give the frames as Dask values, for work of one's own; nothing is read for it.

        Parameters
        ----------
        client : distributed.Client, optional
            Whose workers will make them. Credentials are no part of what it returns: they are brought to these workers
            now, and forgotten there when the client is closed.

        Returns
        -------
        list of Delayed
            A `polars.DataFrame` for each task, in task order. With a filter and ``limit`` together, all of them may have
            more rows than the limit.
        """
        client = client or active_client()
        if client is not None:
            bring_credentials(client, self.table.spec)
        graph = build_graph(self.tasks(), make_frame)
        layer = f"scan-zarr-{tokenize(*graph)}"
        layers = HighLevelGraph.from_collections(layer, graph)
        return [Delayed(key, layers, layer=layer) for key in graph]

    def persist(self, client: "Client | None" = None) -> list[Delayed]:
        """Start making the frames and keep them where they are made.

        Parameters
        ----------
        client : distributed.Client, optional
            Where. In this process it returns when they are made.

        Returns
        -------
        list of Delayed
            As `to_delayed` gives, of frames that are made once. They are kept as long as these are.
        """
        frames = self.to_delayed(client)
        return list(persist(*frames) if client is None else client.persist(frames))

    def to_futures(self, client: "Client | None" = None) -> "list[distributed.Future[pl.DataFrame]]":
        """Start making the frames on a cluster and keep them there.

        Parameters
        ----------
        client : distributed.Client, optional
            Where; there has to be one.

        Returns
        -------
        list of distributed.Future
            Of a `polars.DataFrame` for each task, in task order.

        Raises
        ------
        ValueError
            If there is no Dask client.
        """
        client = client or active_client()
        if client is None:
            raise ValueError("futures are of a cluster, and no Dask client is active. Give client=, or call persist().")
        return list(client.compute(self.to_delayed(client)))

    def to_arrow(self, client: "Client | None" = None) -> "pa.Table":
        """Run the plan for an Arrow table; takes pyarrow.

        Parameters
        ----------
        client : distributed.Client, optional
            Where to run it.

        Returns
        -------
        pyarrow.Table
            Columns and rows of `collect`.
        """
        return self.collect(client).to_arrow()

    def to_arrow_reader(self, client: "Client | None" = None) -> "pa.RecordBatchReader":
        """Run the plan for Arrow, piece by piece; takes pyarrow.

        Parameters
        ----------
        client : distributed.Client, optional
            Where to run it.

        Returns
        -------
        pyarrow.RecordBatchReader
            Columns and rows of `collect`, in batches. Reading begins with the first batch, and few are in memory.

        Notes
        -----
        The plan itself is an Arrow stream (``__arrow_c_stream__``), which DuckDB, DataFusion and others take as it is.
        """
        from rainbear_dask.convert.arrow import arrow_reader  # noqa: PLC0415  as pyarrow is an extra

        return arrow_reader(self.no_rows(), partial(self.frames, client))

    def __arrow_c_stream__(self, requested_schema: object = None) -> object:
        return self.to_arrow_reader().__arrow_c_stream__(requested_schema)

    def to_pandas(
        self,
        client: "Client | None" = None,
        *,
        dtype_backend: Literal["numpy", "pyarrow"] = "numpy",
        categories: Collection[str] = (),
    ) -> "pd.DataFrame":
        """Run the plan for a pandas DataFrame; takes pandas and pyarrow.

        Parameters
        ----------
        client : distributed.Client, optional
            Where to run it.
        dtype_backend, categories
            As in `rainbear_dask.read_zarr`.

        Returns
        -------
        pandas.DataFrame
            The plan's columns, a variable of a child group as ``child/variable``; the rows of `collect`, numbered from 0.
        """
        from rainbear_dask.convert.pandas import pandas_frame  # noqa: PLC0415  as pandas is an extra

        return pandas_frame(self, client_for(self, client), dtype_backend, categories)

    def to_dask_dataframe(
        self,
        *,
        index: str | None = None,
        dtype_backend: Literal["numpy", "pyarrow"] = "numpy",
        categories: Collection[str] = (),
    ) -> "dd.DataFrame":
        """Make the plan a Dask DataFrame, whose filters and columns go on planning; takes ``dask[dataframe]``.

        Parameters
        ----------
        index, dtype_backend, categories
            As in `rainbear_dask.read_zarr`.

        Returns
        -------
        dask.dataframe.DataFrame
            As `rainbear_dask.read_zarr` gives, of the plan's columns and of the rows that pass its filter.

        Raises
        ------
        QueryError
            If the plan has a ``limit``, or the index is no coordinate of one dimension.
        """
        from rainbear_dask.dataframe.frame import dask_dataframe  # noqa: PLC0415  as dask.dataframe is an extra

        return dask_dataframe(self, index=index, dtype_backend=dtype_backend, categories=categories)

    def to_xarray(self, chunks: Any = None) -> "xr.Dataset":
        """Give the plan's box of the store as xarray has it; takes xarray.

        Parameters
        ----------
        chunks
            As in `xarray.open_zarr`. By default arrays are read when they are used, without Dask; ``{}`` gives Dask
            arrays of the store's chunks.

        Returns
        -------
        xarray.Dataset
            The plan's data variables with their coordinates, at the positions that the filter selects; nothing of the
            variables is read. Values, types and missing values are xarray's. A dimension without coordinate has its
            positions in the store, where the plan has that column.

        Raises
        ------
        QueryError
            If the filter is not settled by positions along each dimension, the plan has a ``limit``, or its variables are
            of child groups.

        Notes
        -----
        The tests compare ``to_xarray().to_dataframe()`` with the rows of the plan.
        """
        from rainbear_dask.convert.xarray import lazy_dataset  # noqa: PLC0415  as xarray is an extra

        return lazy_dataset(self, chunks)
