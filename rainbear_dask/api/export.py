"""The public function that writes Parquet from a store or a query."""

from collections.abc import Mapping
from os import PathLike
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.api.scan import plan
from rainbear_dask.exceptions import QueryError
from rainbear_dask.export.parquet import Compression
from rainbear_dask.export.partitions import PartitionBy
from rainbear_dask.export.run import ExportReport, export, file_form
from rainbear_dask.options import checks_options
from rainbear_dask.planning.limits import Limits, check_limits
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.query.scanned_frame import limits_of, plan_of_filters
from rainbear_dask.storage.targets import Target, target_of
from rainbear_dask.typing import StoreLike

if TYPE_CHECKING:
    from distributed import Client


@checks_options
def write_parquet(
    source: "StoreLike | pl.LazyFrame | ScanPlan",
    folder: str | PathLike[str],
    *,
    partition_by: PartitionBy = None,
    geo: tuple[str, str] | None = None,
    row_group_rows: int = 1_000_000,
    compression: Compression = "zstd",
    resume: bool = True,
    client: "Client | None" = None,
    storage_options: Mapping[str, Any] | None = None,
) -> ExportReport:
    """Write a store, or a query that filters and selects, as a folder of Parquet files.

    Each task writes its own files where it reads its chunks, so memory is bounded by tasks, and no row passes through
    this process. A file appears as a whole. If the export dies, the same call continues it: each row is written once.

    Parameters
    ----------
    source : LazyFrame, ScanPlan, or as in `scan_zarr`
        A query over one scan that filters row by row and selects columns, a plan, or a whole store.
    folder : str or path
        A local folder that all workers share, or a URL of an object store. It is empty or does not exist, or holds an
        earlier part of this export.
    partition_by : str, sequence of str, or mapping of str to Expr, optional
        Hive partitions: columns, or expressions by name, for example ``{"year": pl.col("time").dt.year()}``. The
        folders hold the keys, and the files do not.
    geo : tuple of str, optional
        Columns of x and y, for example ``("lon", "lat")``. Files then are GeoParquet with a column ``geometry`` of
        points and the CRS of the grid mapping, which needs pyproj. Without a grid mapping the CRS is OGC:CRS84.
    row_group_rows : int
        Upper bound on the rows of a row group. Row groups end at whole steps of an outer dimension if that is possible.
    compression : {"zstd", "lz4", "snappy", "gzip", "brotli", "uncompressed"}
        Codec of the pages.
    resume : bool
        Whether to continue an export that was begun. Otherwise that is an error.
    client : distributed.Client, optional
        Client that runs the tasks; by default as in `scan_zarr`.
    storage_options : mapping, optional
        Options of a URL in ``folder``, in the spelling of `scan_zarr`.

    Returns
    -------
    ExportReport
        Rows, files, bytes and tasks; ``print`` shows them.

    Raises
    ------
    TargetExistsError
        If the folder holds something else, or an export of another source, state of the source, or plan.
    QueryError
        If the query does more than filter and select, or an option is wrong.
    PlanTooLargeError
        If there are more than 20,000 partitions, or the query exceeds a bound of `scan_zarr`.
    WriteError
        If a file cannot be written: the disk is full, say. No part of a file is left under its name.
    UnknownOptionError
        If a keyword is not an option of this function.

    Notes
    -----
    Files are named by the number of their first row and a token of the task, so that readers that sort names read rows
    in the order of `scan_zarr`. ``<folder>.manifest.jsonl`` beside the folder lists finished tasks, and an empty file
    ``_SUCCESS`` marks a complete export. Each file has the attributes of columns and group as JSON under the key
    ``rainbear_dask`` of its metadata. The version of a plain Zarr store does not cover chunks that are overwritten in
    place: remove the folder and its manifest after such a change.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> lf = rd.scan_zarr("sst.zarr").filter(pl.col("latitude") > 40)
    >>> report = rd.write_parquet(lf, "north", partition_by={"month": pl.col("time").dt.month()})
    >>> pl.scan_parquet("north", hive_partitioning=True).filter(month=6).collect()  # doctest: +SKIP
    """
    found, target = _plan_of(source), target_of(folder, storage_options)
    check_limits(found, limits_of(source) if isinstance(source, pl.LazyFrame) else Limits())
    _check_outside(target, found)
    wide, form = file_form(found, partition_by, geo, row_group_rows, compression)
    return export(wide, target, form, resume=resume, client=client)


def _plan_of(source: Any) -> ReadPlan:
    if isinstance(source, ScanPlan):
        return source.read_plan
    if isinstance(source, pl.DataFrame):
        raise QueryError("A DataFrame is in memory already. Write it with Polars: frame.write_parquet('rows.parquet').")
    if not isinstance(source, pl.LazyFrame):
        return plan(source).read_plan
    try:
        return plan_of_filters(source)
    except QueryError as err:
        step = str(err).partition(". ")[0].removeprefix("This query does more than ")
        raise QueryError(
            f"Tasks cannot write this query on their own, because it does more than {step}. Write it in one process: "
            "lf.sink_parquet('rows.parquet'). Or export its scan, and do the rest in pl.scan_parquet(folder)."
        ) from err


def _check_outside(target: Target, found: ReadPlan) -> None:
    source, path = found.table.spec.source, target.path
    if path is not None and isinstance(source, str) and path.is_relative_to(Path(source)):
        raise QueryError(f"The folder {target.label} lies inside the store that is read. Name a folder outside of it.")
