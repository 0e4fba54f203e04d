"""The public function for points: values of a Zarr store at stations, along tracks, on another grid."""

from collections.abc import Mapping, Sequence
from datetime import timedelta
from typing import TYPE_CHECKING, Literal, TypeAlias

import polars as pl

from rainbear_dask.api.scan import scan_zarr
from rainbear_dask.exceptions import PointsError
from rainbear_dask.options import checks_options
from rainbear_dask.query.scanned_frame import plan_of_filters, reader_of
from rainbear_dask.sampling.request import check_request
from rainbear_dask.sampling.source import lazy_points
from rainbear_dask.sampling.stencils import Method, Outside
from rainbear_dask.typing import StoreLike

if TYPE_CHECKING:
    import numpy as np
    from distributed import Client

Tolerance: TypeAlias = "float | timedelta | np.timedelta64 | None"
Wrap: TypeAlias = "Literal['auto', False] | float | None"


@checks_options
def sample(
    source: "StoreLike | pl.LazyFrame",
    points: pl.DataFrame | pl.LazyFrame,
    on: Mapping[str, str] | Sequence[str] | str | None = None,
    *,
    method: Method | Mapping[str, Method] = "nearest",
    columns: Sequence[str] | str | None = None,
    tolerance: "Tolerance | Mapping[str, Tolerance]" = None,
    outside: Outside = "null",
    wrap: "Wrap | Mapping[str, Wrap]" = "auto",
    distance: str | None = None,
    coordinates: bool = False,
    suffix: str = "_grid",
    client: "Client | None" = None,
) -> pl.LazyFrame:
    """Return points with the values of a table there, from the nearest cells or interpolated.

    Each chunk that points need is read once, with every method. Points of one chunk are finished where it is read. For
    points between chunks, only the cells around them travel.

    Parameters
    ----------
    source : str, path, store, backend or LazyFrame
        As in `scan_zarr`, or a scan that only filters row by row and chooses columns. Labels that a condition on one
        dimension excludes do not exist for points. Cells that any other condition excludes are null.
    points : DataFrame or LazyFrame
        The points; they may be of any number and in any order.
    on : mapping of str to str, sequence of str, or str, optional
        Column of the points for each coordinate, or the coordinates whose columns have equal names. By default, all
        dimensions that have a column of their name. A coordinate has one dimension, or is the longitude or the
        latitude of a curvilinear grid, which need each other.
    method : {"nearest", "exact", "linear", "pchip", "akima", "makima", "cubic"}, or mapping
        One method, or one for each coordinate; coordinates that the mapping lacks have "nearest". If there are
        several, the last dimension is interpolated first. "cubic" and curvilinear grids need SciPy: the extra
        ``sample``.
    columns : sequence of str, or str, optional
        Variables to return. By default all data variables of the source.
    tolerance : number, timedelta, or mapping, optional
        Largest distance to the nearest label, for all coordinates or for each: in the units of the labels, as
        timedelta for times, and in metres for curvilinear grids. Points beyond it have null values.
    outside : {"null", "nearest", "error", "extrapolate"}
        What happens to points beyond the ends of a dimension. "nearest" moves them to the end. For "nearest" and
        "exact", a point is beyond if it is more than half a step away from the end label. For other methods, and only
        they extrapolate, it is beyond the end label.
    wrap : {"auto", None, False}, number, or mapping
        Period of a coordinate. By default 360 for longitudes whose labels go around the Earth, so that points may
        count from -180 or from 0, and points between the last and the first label are interpolated.
    distance : str, optional
        Name of a further column: the great-circle distance in metres between the point and the nearest cell, on a
        sphere of 6,371,008.8 m. It needs a longitude and a latitude in ``on``.
    coordinates : bool
        Whether to return the labels of the nearest cell as well.
    suffix : str
        Appended to the name of a new column if the points have a column of that name.
    client : distributed.Client, optional
        Dask client that runs the tasks, as in `scan_zarr`; by default the client of the scan.

    Returns
    -------
    LazyFrame
        Columns: the ones of the points, then the dimensions that ``on`` leaves out, the labels and the distance if
        asked for, and the variables. Rows: the points in their order. Each has as many rows as the dimensions that
        ``on`` leaves out have cells, in their order. Values of "nearest" and "exact" keep their type. Interpolated
        values are Float32 for Float32, else Float64.

    Raises
    ------
    UnknownColumnError
        If the table or the points lack a column.
    PointsError
        If the types of points and coordinates differ, or if arguments contradict each other.
    UnknownOptionError
        If a keyword is not an option of this function.

    Notes
    -----
    A point whose coordinate is null or NaN has null values. Of two labels at the same distance, the larger one
    counts. If a label repeats, "nearest" and "exact" find its first position; other methods raise PointsError. A null
    among the cells with weight makes the value null; cells without weight do not matter and are not read. The tests
    compare with ``xarray.Dataset.sel`` and ``interp`` for vectorised indexers, and with ``scipy.interpolate``.

    ``collect`` raises PointsError for points outside if ``outside="error"``, and the errors of `scan_zarr`. Points are
    taken in batches that need at most 8 million cells together. Each batch reads its chunks once. The upper bounds of
    the scan (``max_chunks_to_read``, ``max_rows``, ``max_bytes``) hold for each batch.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> ships = pl.DataFrame({"ship": ["Ada", "Bo"], "lat": [52.4, -3.0], "lon": [4.9, 110.2]})
    >>> found = rd.sample("sst.zarr", ships, {"latitude": "lat", "longitude": "lon"}, method="linear")
    >>> found.collect_schema().names()
    ['ship', 'lat', 'lon', 'time', 'sst']
    >>> found.head(2).collect()["sst"].to_list()
    [0.0, 0.0]
    """
    if not isinstance(points, pl.DataFrame | pl.LazyFrame):
        raise PointsError(f"The points are {type(points).__name__}, not a Polars DataFrame or LazyFrame.")
    scan = source if isinstance(source, pl.LazyFrame) else scan_zarr(source)
    plan, reader = plan_of_filters(scan), reader_of(scan)
    request = check_request(
        plan,
        dict(points.lazy().collect_schema()),
        on,
        method=method,
        columns=columns,
        tolerance=tolerance,
        outside=outside,
        wrap=wrap,
        distance=distance,
        coordinates=coordinates,
        suffix=suffix,
    )
    if reader is None:  # Polars skips a scan that can have no rows
        return lazy_points(request, points.lazy(), client)
    return lazy_points(request, points.lazy(), client or reader.client, reader.limits)
