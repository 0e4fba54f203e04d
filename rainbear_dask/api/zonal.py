"""The public function for statistics over polygons."""

from collections.abc import Collection, Sequence
from typing import TYPE_CHECKING, Any, Literal

import polars as pl
from polars.io.plugins import register_io_source

from rainbear_dask.api.scan import plan
from rainbear_dask.exceptions import QueryError
from rainbear_dask.geo.crs import check_crs, counts_degrees
from rainbear_dask.options import checks_options
from rainbear_dask.query.scanned_frame import plan_of_filters
from rainbear_dask.regions.axes import find_axis, read_axis
from rainbear_dask.regions.source import ZonalSource
from rainbear_dask.regions.statistics import check_statistics
from rainbear_dask.regions.zones import read_zones
from rainbear_dask.table.model import Column, Table
from rainbear_dask.typing import StoreLike

if TYPE_CHECKING:
    from distributed import Client


@checks_options
def zonal(
    source: "StoreLike | pl.LazyFrame",
    zones: Any,
    columns: str | Collection[str] | None = None,
    *,
    stats: str | Sequence[str] = ("mean",),
    weights: Literal["fraction", "area", "center"] = "fraction",
    by: str = "id",
    lon: str | None = None,
    lat: str | None = None,
    client: "Client | None" = None,
) -> pl.LazyFrame:
    """Compute statistics of variables over polygons, where the chunks are; needs the extra ``geo``.

    The call reads the metadata, the spatial coordinates and the zones. ``collect`` computes the weights of the cells
    once, reads each chunk that holds a cell of a zone once, and joins partial sums.

    Parameters
    ----------
    source : str, path, store, backend or LazyFrame
        As in `scan_zarr`, or an unfiltered scan, for example ``scan_zarr(url, group="daily")``. Filter the result
        instead: a filter on another dimension than the spatial ones prunes chunks.
    zones
        Polygons: a GeoDataFrame, a GeoSeries, a GeoJSON FeatureCollection, a Polars table with one column of WKB,
        ``{id: polygon}``, a list of polygons, or the path of a file that geopandas reads. Zones may overlap.
    columns : str or collection of str, optional
        Variables, numeric or Boolean. By default all that have both spatial dimensions.
    stats : str or sequence of str
        Statistics of the cells with a value, in the order of the columns: "mean", "sum", "variance", "std" (of the
        population), "median", "quantile(q=0.9)" are weighted. "count" is the sum of covered shares, "min" and "max" are
        extremes of all covered cells. "coverage" is the weight of the cells with a value, as a share of all cells.
    weights : {"fraction", "area", "center"}
        Weight of a cell: its covered share, its covered area (on a sphere, in square metres; on a projected grid in its
        squared unit), or 1 if the zone covers its centre.
    by : str
        Column or property of the zones with their identifiers. Without "id", zones have the index of their frame, or
        are numbered from 0.
    lon, lat : str, optional
        The spatial dimensions. By default by CF attributes, else by the names lon, longitude, x and lat, latitude, y.
    client : distributed.Client, optional
        As in `scan_zarr`.

    Returns
    -------
    LazyFrame
        One row for each cell of the other dimensions, in the order of the table, and each zone, in the order given,
        which varies fastest. Columns: the other dimensions, ``by``, then ``<variable>_<stat>`` (Float64). All is null
        for a zone that touches no cell. A zone without a value has count and coverage 0, and null otherwise.

    Raises
    ------
    GeometryError
        If a zone is no valid polygon, the zones are in another CRS than the grid, or the grid has no cells with edges.
    UnknownColumnError
        If ``columns``, ``by``, ``lon`` or ``lat`` names a column that does not exist.
    QueryError
        If a statistic is unknown, a column is not numeric, or the source is a filtered query.
    MissingDependencyError
        If a package of the extra ``geo`` is not installed.

    Notes
    -----
    Edges of cells are the CF bounds, else midpoints, up to the poles and around the globe once. exactextract computes
    the covered shares, and is the oracle of the tests, also for quantiles. Longitudes count modulo 360. Null and NaN are no values.
    Sums are joined in one order, so results have the same bits for any number of threads and workers. A quantile needs
    all values of its zones at once: a task holds them for one chunk of the other dimensions.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> zones = {"tropics": "POLYGON ((-180 -23, 180 -23, 180 23, -180 23, -180 -23))"}
    >>> rd.zonal("sst.zarr", zones, "sst", stats=("mean", "max")).head(2).collect().columns
    ['time', 'id', 'sst_mean', 'sst_max']
    """
    if weights not in ("fraction", "area", "center"):
        raise QueryError(f"There are no weights {weights!r}. Did you mean 'fraction', 'area' or 'center'?")
    names = check_statistics(stats)
    table, scanned = _table_of(source)
    wanted = [columns] if isinstance(columns, str) else columns
    found = _variables(table, scanned if wanted is None else wanted)
    if not found:
        raise QueryError(
            f"There is no variable to compute statistics of: {table.spec.label} has "
            f"{', '.join(name for name, c in table.columns.items() if c.role == 'data') or 'no data variable'}. Name numeric "
            "data variables in `columns=`."
        )
    used = [dim for dim in table.sizes if any(dim in column.dims for column in found)]
    across, down = find_axis(table, used, "x", lon), find_axis(table, used, "y", lat)
    found = _spatial(table, found, {across.name, down.name}, named=wanted is not None)
    areas = read_zones(zones, by)
    check_crs(areas.crs, table, across.name, down.name, "the zones")
    lonlat = counts_degrees(table, across.name, down.name, areas.crs)
    x = read_axis(table, across, turn=lonlat, pole=False)
    y = read_axis(table, down, turn=False, pole=lonlat)
    result = ZonalSource(table, found, x, y, lonlat, areas, names, weights, client)
    if by in {*result.others, *result.outputs}:
        raise QueryError(
            f"The identifiers of the zones and another column are both named {by!r}. Rename the zones' column."
        )
    return register_io_source(
        result, schema=result.schema, is_pure=True, explain_name="ZONAL", explain_detail=table.spec.label
    )


def _table_of(source: "StoreLike | pl.LazyFrame") -> tuple[Table, list[str] | None]:
    """Return the table of a source, and the columns that a scan has chosen."""
    if not isinstance(source, pl.LazyFrame):
        return plan(source).table, None
    scan = plan_of_filters(source)
    if scan.conjuncts:
        raise QueryError(
            "The scan is filtered, and zonal statistics are of whole zones. Filter the result by its other dimensions: "
            "rd.zonal(scan, zones).filter(pl.col('time') > ...)."
        )
    return scan.table, [column.name for column in scan.columns if column.role == "data"]


def _variables(table: Table, names: Collection[str] | None) -> tuple[Column, ...]:
    """Return the variables of some names; by default all numeric ones."""
    if names is None:
        return tuple(c for c in table.columns.values() if c.role == "data" and _is_number(c))
    found = table.leaves(dict.fromkeys(names))
    for column in found:
        if column.role != "data" or not _is_number(column):
            raise QueryError(
                f"Column {column.name!r} of {table.spec.label} is {column.dtype} and a {column.role} column. Zonal "
                "statistics need data variables of numbers or Booleans in `columns=`."
            )
    return found


def _is_number(column: Column) -> bool:
    return column.dtype.is_numeric() or column.dtype == pl.Boolean


def _spatial(table: Table, columns: Sequence[Column], dims: set[str], *, named: bool) -> tuple[Column, ...]:
    """Return the variables that have both spatial dimensions."""
    found = tuple(column for column in columns if dims <= set(column.dims))
    if not found or (named and len(found) < len(columns)):
        misfit = next((column.name for column in columns if column not in found), None)
        raise QueryError(
            f"{'No variable' if misfit is None else f'Variable {misfit!r}'} of {table.spec.label} "
            f"{'has' if misfit is None else 'lacks one of'} the spatial dimensions {', '.join(sorted(dims))}. Name variables "
            "that have both in `columns=`, or name the dimensions in `lon=` and `lat=`."
        )
    return found
