"""The rows of a plan: as Polars frames, and for Arrow, pandas, Dask DataFrames and xarray."""

from collections.abc import Collection, Iterator
from dataclasses import dataclass, field
from functools import partial
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.dependencies import require
from rainbear_dask.diagnostics.progress import shown
from rainbear_dask.execution.clients import client_for
from rainbear_dask.execution.run import iter_frames
from rainbear_dask.planning.limits import Limits, check_memory
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.typing import DtypeBackend

if TYPE_CHECKING:
    import dask.dataframe as dd
    import pandas as pd
    import pyarrow as pa
    import xarray as xr
    from distributed import Client


@dataclass(frozen=True)
class PlanRows:
    """The plan of a scan, and the ways to get its rows.

    Parameters
    ----------
    read_plan : ReadPlan
        Tasks and counts; not part of the public interface.
    limits : Limits
        Upper bounds that the caller has set.
    """

    read_plan: ReadPlan
    limits: Limits = field(default_factory=Limits)

    def no_rows(self) -> pl.DataFrame:
        """Return an empty frame with the schema of the result."""
        return self.read_plan.no_rows()

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
        PlanTooLargeError
            If the result certainly exceeds the setting ``memory-share`` of this machine's memory. An upper bound of
            the plan (``max_rows``, ``max_bytes``, ``max_chunks_to_read``) replaces this check.

        Warns
        -----
        LargeResultWarning
            If the result may exceed it, because workers filter rows.
        """
        check_memory(self.read_plan, self.limits)
        return pl.concat([self.no_rows(), *self.frames(client)])

    def to_arrow(self, client: "Client | None" = None) -> "pa.Table":
        """Run the plan and return an Arrow table; needs pyarrow.

        Parameters
        ----------
        client : distributed.Client, optional
            Client that runs the tasks.

        Returns
        -------
        pyarrow.Table
            Columns and rows of `collect`. Fields have ``units``, ``long_name`` and ``standard_name`` as metadata.
        """
        require("pyarrow", extra="dataframe")
        from rainbear_dask.convert.arrow import arrow_schema  # noqa: PLC0415  pyarrow is an extra

        return self.collect(client).to_arrow().cast(arrow_schema(self.no_rows(), self.read_plan.columns))

    def to_arrow_reader(self, client: "Client | None" = None) -> "pa.RecordBatchReader":
        """Run the plan and stream Arrow record batches; needs pyarrow.

        Parameters
        ----------
        client : distributed.Client, optional
            Client that runs the tasks.

        Returns
        -------
        pyarrow.RecordBatchReader
            Columns and rows of `collect`, with metadata as of `to_arrow`. Tasks start with the first batch, and
            read-ahead is bounded.

        Notes
        -----
        The plan is an Arrow stream (``__arrow_c_stream__``), which DuckDB, DataFusion and others accept directly.
        """
        from rainbear_dask.convert.arrow import arrow_reader, arrow_schema  # noqa: PLC0415  pyarrow is an extra

        return arrow_reader(arrow_schema(self.no_rows(), self.read_plan.columns), partial(self.frames, client))

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
        check_memory(self.read_plan, self.limits)
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
