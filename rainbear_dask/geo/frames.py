"""Tables with a geometry as GeoDataFrames."""

from typing import TYPE_CHECKING

import polars as pl

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import GeometryError, UnknownColumnError

if TYPE_CHECKING:
    from geopandas import GeoDataFrame


def to_geopandas(frame: pl.DataFrame, geometry: str | None = None) -> "GeoDataFrame":
    """Return a table as a GeoDataFrame.

    Parameters
    ----------
    frame : DataFrame
        A table with a Binary column of WKB or EWKB, or with longitudes and latitudes, which become points.
    geometry : str, optional
        The column of geometries. By default the only Binary column, else points of the columns ``lon`` and ``lat``, or
        ``longitude`` and ``latitude``.

    Returns
    -------
    geopandas.GeoDataFrame
        The other columns as pandas has them, and the column of geometries, last. Its CRS is that of the SRID of the
        geometries; EPSG:4326 for points.

    Raises
    ------
    GeometryError
        If the table has no geometry, if one cannot be parsed, or if SRIDs differ.
    UnknownColumnError
        If the table has no column ``geometry``.
    MissingDependencyError
        If geopandas is not installed.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> frame = pl.DataFrame({"lon": [5.0], "lat": [50.0], "t2m": [281.5]})
    >>> rd.geo.to_geopandas(frame).geometry.to_wkt().tolist()
    ['POINT (5 50)']
    """
    geopandas, shapely = require("geopandas", extra="geo"), require("shapely", extra="geo")
    if geometry is not None and geometry not in frame.columns:
        raise UnknownColumnError(
            f"Column {geometry!r} is not in the table. Its columns are {', '.join(frame.columns)}."
        )
    binary = [name for name, dtype in frame.schema.items() if dtype == pl.Binary]
    if geometry is None and len(binary) == 1:
        (geometry,) = binary
    if geometry is None:
        pairs = (("lon", "lat"), ("longitude", "latitude"))
        lon, lat = next((pair for pair in pairs if set(pair) <= set(frame.columns)), ("", ""))
        if not lon:
            raise GeometryError(
                "The table has no geometry: neither one Binary column nor longitude and latitude. Add a column "
                "rd.geo.point(...), or name the column in `geometry=`."
            )
        values = shapely.points(frame[lon].cast(pl.Float64).to_numpy(), frame[lat].cast(pl.Float64).to_numpy())
        values[(frame[lon].is_null() | frame[lat].is_null()).to_numpy()] = None
        return geopandas.GeoDataFrame(frame.to_pandas(), geometry=values, crs=4326)
    try:
        values = shapely.from_wkb(frame[geometry].to_list())
    except (shapely.errors.ShapelyError, TypeError) as err:
        text = str(err).partition("\n")[0].rstrip(".")
        raise GeometryError(f"Column {geometry!r} holds no WKB: {text}. Name another column in `geometry=`.") from None
    srids = {int(srid) for srid in shapely.get_srid(values) if srid > 0}
    if len(srids) > 1:
        raise GeometryError(f"Column {geometry!r} has the SRIDs {sorted(srids)}. Transform its geometries to one CRS.")
    crs = srids.pop() if srids else None
    series = geopandas.GeoSeries(shapely.set_srid(values, 0), crs=crs)
    return geopandas.GeoDataFrame(frame.drop(geometry).to_pandas().assign(**{geometry: series}), geometry=geometry)
