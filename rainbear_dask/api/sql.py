"""The public function for SQL."""

from collections.abc import Mapping
from functools import partial
from inspect import currentframe
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.api.scan import explain, scan_zarr
from rainbear_dask.dialect.frames import frame_of_object
from rainbear_dask.dialect.statement import Scan, answer
from rainbear_dask.execution.clients import check_client

if TYPE_CHECKING:
    from distributed import Client


def sql(
    query: str, *, params: Mapping[str, Any] | None = None, client: "Client | None" = None, **tables: Any
) -> pl.LazyFrame:
    """Query stores and frames in SQL.

    Parameters
    ----------
    query : str
        One statement in the SQL of Polars. A table is, in this order: one of ``tables``; a path or a URL of a store or
        of a Parquet, CSV or Arrow file in quotes (``'era5.zarr'``); a frame among the caller's variables.
        ``'era5.zarr'.forecast`` is a group of a store. ``read_zarr('era5.zarr', group => 'forecast', variables =>
        ['t2m'])`` takes the options of `scan_zarr`.
    params : mapping, optional
        Values of ``:name`` in the query: numbers, text, dates, times, or lists of these for ``IN :name``. They become
        literals of their type, and never a part of the statement.
    client : distributed.Client, optional
        Dask client that reads the stores which the query opens; by default as in `scan_zarr`.
    **tables
        Frames of Polars, pandas or Arrow, and sources of `scan_zarr`, by the names in the query.

    Returns
    -------
    LazyFrame
        The rows. Polars pushes conditions and columns down to the stores. ``EXPLAIN SELECT ...`` has the lines of
        `explain` in a column ``plan``.

    Raises
    ------
    SQLError
        If Polars does not understand the query. The message names the place in ``query``.
    UnknownTableError
        If a table does not exist. The message names the tables, and the stores near.
    QueryError
        If a parameter has no value, or no literal has its type.
    StoreNotFoundError
        If there is no store at an address.

    Notes
    -----
    A store without an alias has the name of its file: ``SELECT era5.time FROM 'data/era5.zarr'``. Its columns are as in
    `scan_zarr`.

    `collect` and `Engine` split the aggregates of statements as they split other queries. Polars computes the ones of
    set operations and of functions that this package does not know. `explain` tells which.

    In WHERE, ``ST_Within(ST_Point(lon, lat), ST_GeomFromText('POLYGON ...'))``, ``ST_Intersects`` and
    ``ST_DWithin(ST_Point(lon, lat), ST_Point(4.9, 52.4), metres)`` prune chunks, by the expressions of
    `rainbear_dask.geo`. Points of the boundary intersect a polygon, and are not within it. A parameter may be the
    geometry.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> stations = pl.DataFrame({"latitude": [50.0, -50.0], "longitude": [30.0, 60.0], "name": ["a", "b"]})
    >>> found = rd.sql(
    ...     "SELECT name, time, sst FROM 'sst.zarr' JOIN stations USING (latitude, longitude) WHERE time < :end",
    ...     params={"end": "2000-01-03"},
    ... )
    >>> found.collect().shape
    (4, 3)
    """
    check_client(client)
    return run(query, params, partial(scan_zarr, client=client), tables)


def run(query: str, params: Mapping[str, Any] | None, scan: Scan, tables: Mapping[str, Any]) -> pl.LazyFrame:
    """Return the rows of a statement, whose stores a function scans; otherwise as `sql`."""
    found = answer(query, params, tables, _variable, scan)
    if not found.is_explained:
        return found.frame
    return pl.LazyFrame({"plan": str(explain(found.frame)).splitlines()}, schema={"plan": pl.String})


def _variable(name: str) -> pl.LazyFrame | None:
    """Return the nearest variable of the callers that is a frame, as `polars.sql` does; None if there is none."""
    frame = currentframe()
    while frame is not None:
        if not frame.f_globals.get("__name__", "").startswith("rainbear_dask."):
            for variables in (frame.f_locals, frame.f_globals):
                if (found := frame_of_object(variables.get(name))) is not None:
                    return found
        frame = frame.f_back
    return None
