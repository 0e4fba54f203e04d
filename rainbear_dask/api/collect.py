"""The public functions that answer a Polars query where the chunks are."""

from collections.abc import Iterable
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.engine import rewriting

if TYPE_CHECKING:
    from distributed import Client


def collect(lf: pl.LazyFrame, *, client: "Client | None" = None, **options: Any) -> pl.DataFrame:
    """Collect a query: aggregates are computed where the chunks are decoded, and keys of joins prune scans.

    Parameters
    ----------
    lf : LazyFrame
        Any query. Aggregations of scans that `scan_zarr` made are split, see `rewrite`. Polars runs all else.
    client : distributed.Client, optional
        Dask client that runs the parts; by default the client of each scan. Without one, threads of this process.
    **options
        Options of `polars.LazyFrame.collect`.

    Returns
    -------
    DataFrame
        What ``lf.collect(**options)`` returns: the same columns, types, nulls and groups. Sums of floats are added in
        float64, so they are nearer to the exact sum than Polars' own. They have the same bits for any number of threads
        and workers.

    Raises
    ------
    PlanTooLargeError
        If a part exceeds a limit of its scan. ``max_rows`` counts the rows of the answer.
    ChunkReadError
        If a chunk cannot be read.

    See Also
    --------
    rewrite : The same, without collecting.
    Engine : The same for plain ``lf.collect()``.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> lf = rd.scan_zarr("sst.zarr")
    >>> by_latitude = rd.collect(lf.group_by("latitude").agg(pl.col("sst").mean()))
    """
    frame: pl.DataFrame = rewrite(lf, client=client).collect(**options)
    return frame


def rewrite(lf: pl.LazyFrame, *, client: "Client | None" = None) -> pl.LazyFrame:
    """Return the same query, with aggregations computed where the chunks are decoded, and scans pruned by keys of joins.

    Parameters
    ----------
    lf : LazyFrame
        Any query; it stays as it is.
    client : distributed.Client, optional
        Dask client that runs the parts; by default the client of each scan.

    Returns
    -------
    LazyFrame
        A query with the same result. In the place of each aggregation that can be split stands a scan whose rows are the
        groups. If there is none, it is ``lf`` itself. `explain` names the split parts, and the reason for the others.
        Planning reads the coordinates that keys and filters name, and evaluates small tables that are joined with a scan.

    Notes
    -----
    Split are ``select``, ``group_by().agg()``, ``group_by_dynamic`` with windows that do not overlap, ``unique()``, and
    ``sum()``, ``mean()`` and their like of a whole table. Below may stand ``filter``, ``with_columns``, ``select``, ``drop``,
    ``rename``, ``cast``, ``sort``, and joins with small tables of unique keys. The aggregates are ``len``, ``count``,
    ``null_count``, ``sum``, ``mean``, ``min``, ``max``, ``std``, ``var``, ``any`` and ``all``, also of filtered values, and
    arithmetic over them. Keys are functions of coordinates. Each step is compared with the step that Polars itself builds.
    A step that differs in any field stays with Polars.

    A scan that is joined with a table of up to a million rows reads the chunks of its keys, if these are coordinates or
    functions of them. This holds for inner and semi joins, for the right side of left and anti joins and of
    ``join_asof``, and for the left side of right joins. Polars joins, so rows and types are its own.

    Of ``sort().head()``, ``sort().slice()`` from the first rows, ``top_k`` and ``bottom_k``, each task returns its first
    rows. Rows that are equal are in the order of the table.

    ``x.mean().over(keys)`` and its like, with keys of coordinates, are joins with the groups: the table is read twice, and
    its rows stream. Queries in SQL are planned by Polars, and then as any.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> warm = rd.scan_zarr("sst.zarr").filter(pl.col("sst") > 28).group_by("time").agg(pl.len())
    >>> rd.rewrite(warm).sink_parquet("warm.parquet")  # doctest: +SKIP
    """
    return rewriting.rewrite(lf, client).query


class Engine(pl.Engine):
    """An engine of Polars that rewrites queries, see `rewrite`, and leaves all else to Polars' own engines.

    Parameters
    ----------
    client : distributed.Client, optional
        Dask client that runs the parts; by default the client of each scan.

    Notes
    -----
    Polars' in-memory engine collects, and its streaming engine writes files and batches. `polars.Engine` is unstable in
    Polars 2.1; `collect` does not depend on it.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> lf = rd.scan_zarr("sst.zarr")
    >>> lf.select(pl.col("sst").mean()).collect(engine=rd.Engine()).height
    1
    >>> with pl.Config(engine_affinity=rd.Engine()):  # doctest: +SKIP
    ...     lf.select(pl.col("sst").mean()).collect()
    """

    def __init__(self, client: "Client | None" = None) -> None:
        self._client = client
        self._collects, self._streams = pl.InMemoryEngine(), pl.StreamingEngine()

    @property
    def name(self) -> str:
        """The engine that computes the rest."""
        return self._collects.name

    def _rewritten(self, lf: pl.LazyFrame) -> pl.LazyFrame:
        return rewrite(lf, client=self._client)

    def collect(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """Collect a query."""
        return self._collects.collect(self._rewritten(lf), **options)

    def execute(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """Run a query, and return a handle of its result."""
        return self._collects.execute(self._rewritten(lf), **options)

    def collect_async(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """Collect a query on a thread."""
        return self._collects.collect_async(self._rewritten(lf), **options)

    def collect_batches(self, lf: pl.LazyFrame, **options: Any) -> Any:
        """Return the batches of a query."""
        return self._streams.collect_batches(self._rewritten(lf), **options)

    def collect_all(self, lfs: Iterable[pl.LazyFrame], **options: Any) -> Any:
        """Collect several queries."""
        return self._collects.collect_all(map(self._rewritten, lfs), **options)

    def collect_all_async(self, lfs: Iterable[pl.LazyFrame], **options: Any) -> Any:
        """Collect several queries on a thread."""
        return self._collects.collect_all_async(map(self._rewritten, lfs), **options)

    def sink_parquet(self, lf: pl.LazyFrame, *args: Any, **options: Any) -> None:
        """Write the result to Parquet files."""
        self._streams.sink_parquet(self._rewritten(lf), *args, **options)

    def sink_ipc(self, lf: pl.LazyFrame, *args: Any, **options: Any) -> None:
        """Write the result to Arrow files."""
        self._streams.sink_ipc(self._rewritten(lf), *args, **options)

    def sink_csv(self, lf: pl.LazyFrame, *args: Any, **options: Any) -> None:
        """Write the result to CSV files."""
        self._streams.sink_csv(self._rewritten(lf), *args, **options)

    def sink_ndjson(self, lf: pl.LazyFrame, *args: Any, **options: Any) -> None:
        """Write the result to JSON files."""
        self._streams.sink_ndjson(self._rewritten(lf), *args, **options)

    def sink_batches(self, lf: pl.LazyFrame, *args: Any, **options: Any) -> None:
        """Call a function with each batch of the result."""
        self._streams.sink_batches(self._rewritten(lf), *args, **options)
