"""Expressions of `rd.geo` against shapely, on every cell, and the chunks that scans keep for them."""

import gc
import io
import json
import pickle
from concurrent.futures import ThreadPoolExecutor
from datetime import datetime

import geopandas
import numpy as np
import polars as pl
import polars_st
import pyproj
import pytest
import shapely
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st

import rainbear_dask as rd
from rainbear_dask.exceptions import GeometryError
from rainbear_dask.geo import kernels
from rainbear_dask.geo.outlines import outlines_of
from rainbear_dask.planning import build, predicate
from tests.support.stores import write_field

ROTATED = {"grid_mapping_name": "rotated_latitude_longitude", "grid_north_pole_latitude": 39.25}
FEWER = settings.default.max_examples // 2
CAPE = shapely.Polygon([(-70, -60), (-40, -60), (-20, 10), (-60, 70)], [[(-55, -40), (-45, -40), (-45, 0)]])


@st.composite
def polygons(draw):
    """Polygons whose corners often lie on cell centres, some with a hole, some of two parts, some across 180 degrees."""
    quarters = st.integers(-80, 80).map(lambda n: n / 4)
    centre = draw(st.tuples(st.sampled_from([-180, -90, 0, 30, 170, 180]), st.sampled_from([-70, 0, 45])))
    corners = draw(st.lists(st.tuples(quarters, quarters), min_size=3, max_size=7, unique=True))
    shape = shapely.MultiPoint([(centre[0] + x, centre[1] + y) for x, y in corners]).convex_hull
    if draw(st.booleans()):
        shape = shape.difference(shape.buffer(-2))
    if draw(st.booleans()):
        shape = shape.union(shapely.box(centre[0] + 25, -5, centre[0] + 30.5, 5))
    return (
        shape if shape.geom_type in ("Polygon", "MultiPolygon") else shapely.box(*centre, centre[0] + 3, centre[1] + 3)
    )


GRIDS = {
    "descending": (np.arange(-180, 180, 2.5), np.arange(90, -90.5, -2.5)),
    "0 to 360": (np.arange(0, 360, 2.5), np.arange(-90, 90.5, 2.5)),
    "two turns": (np.arange(-180, 540, 5.0), np.arange(-90, 90.5, 5)),
}


def expected_of(polygon, lon, lat, *, strict):
    """The oracle: the polygon and each of its turns, by the predicate of its name."""
    test = shapely.contains if strict else shapely.covers
    turns = [shapely.affinity.translate(polygon, turn) for turn in range(-1080, 1081, 360)]
    if strict and polygon.bounds[2] - polygon.bounds[0] >= 360:
        turns = [shapely.union_all(turns)]
    points = shapely.points(lon, lat)
    return np.logical_or.reduce([test(turn, points) for turn in turns])


@settings(max_examples=FEWER)
@given(polygons(), st.sampled_from(sorted(GRIDS)), st.sampled_from(["include", "exclude"]))
def test_within_equals_covers_and_contains_on_every_cell(polygon, grid, boundary):
    lon, lat = (axis.ravel() for axis in np.meshgrid(*GRIDS[grid]))
    expr = rd.geo.within(polygon, boundary=boundary)
    actual = pl.DataFrame({"lon": lon, "lat": lat}).select(expr).to_series().to_numpy()
    np.testing.assert_array_equal(actual, expected_of(polygon, lon, lat, strict=boundary == "exclude"))


def write_grid(path, grid):
    """Write a grid of 5 degrees, or 500 km, in chunks of 4 x 5 cells. Return the names of x and y."""
    y, x = np.arange(87.5, -90, -5.0), np.arange(2.5, 360, 5.0)
    names, dims, coords = ("lon", "lat"), ("lat", "lon"), {"lat": y, "lon": x}
    if grid == "descending":
        coords["lon"] = x - 180
    if grid == "projected":
        names, dims, coords = ("x", "y"), ("y", "x"), {"y": y * 1e5, "x": (x - 180) * 1e5}
    if grid == "curvilinear":
        dims = ("j", "i")
        coords = {"lat": (dims, y[:, None] + x / 100 - 1.8), "lon": (dims, x + y[:, None] / 50)}
    values = np.arange(36 * 72.0).reshape(36, 72)
    ds = xr.Dataset({"t": (dims, values)}, coords)
    ds.to_zarr(path, encoding={"t": {"chunks": (4, 5)}}, zarr_format=2)
    return names


@pytest.fixture(scope="module")
def grids(tmp_path_factory):
    """Path, names of x and y, and x and y of each cell, by name of the grid."""
    found = {}
    for grid in ("descending", "0 to 360", "projected", "curvilinear"):
        path = str(tmp_path_factory.mktemp("grids") / "a.zarr")
        names = write_grid(path, grid)
        with xr.open_zarr(path) as ds:
            y, x = ds[names[1]].values, ds[names[0]].values
        across, down = (x, y) if x.ndim == 2 else np.meshgrid(x, y)
        found[grid] = path, names, across, down
    return found


@settings(max_examples=FEWER)
@given(polygons(), st.sampled_from(["descending", "0 to 360", "projected", "curvilinear"]), st.booleans())
def test_chunks_kept_are_those_that_hold_a_cell(grids, polygon, grid, strict):
    path, names, x, y = grids[grid]
    if grid == "projected":
        polygon = shapely.transform(polygon, lambda xy: xy * 1e5)
        inside = (shapely.contains if strict else shapely.covers)(polygon, shapely.points(x, y))
    else:
        inside = expected_of(polygon, x, y, strict=strict)
    expr = rd.geo.within(polygon, *names, boundary="exclude" if strict else "include")
    plan = rd.plan(path, expr, columns=["t"])
    assert plan.num_chunks_kept == len({(int(j) // 4, int(i) // 5) for j, i in np.argwhere(inside)})
    assert plan.collect()["t"].to_list() == np.flatnonzero(inside).tolist()


def test_large_grids_prune_by_single_coordinates(tmp_path, monkeypatch):
    """Planning does not test each cell of a large grid, but each coordinate by itself."""
    write_field(tmp_path / "a.zarr")
    for module in (predicate, build):
        monkeypatch.setattr(module, "MAX_CELLS", 10)
    for expr in (rd.geo.within(CAPE), rd.geo.intersects_bbox(-70, -60, -20, 70)):
        plan = rd.plan(str(tmp_path / "a.zarr"), expr, columns=["t2m"])
        assert plan.num_chunks_kept == 2 * 3 * 1
        monkeypatch.setattr(predicate, "MAX_CELLS", 2**23)
        assert plan.collect().equals(rd.plan(str(tmp_path / "a.zarr"), expr, columns=["t2m"]).collect())
        monkeypatch.setattr(predicate, "MAX_CELLS", 10)
    assert rd.plan(str(tmp_path / "a.zarr"), ~rd.geo.within(CAPE), columns=["t2m"]).num_chunks_kept == 24
    circle = rd.geo.dwithin((3, 75), meters=2e6)
    assert rd.plan(str(tmp_path / "a.zarr"), circle, columns=["t2m"]).num_chunks_kept == 2 * 1 * 4
    assert (
        rd.plan(str(tmp_path / "a.zarr"), rd.geo.dwithin((359, 0), 2e6), columns=["t2m"]).num_chunks_kept == 2 * 1 * 2
    )


FORMS = {
    "shapely": lambda p: p,
    "frame": lambda p: geopandas.GeoDataFrame(geometry=[p], crs=4326),
    "series": lambda p: geopandas.GeoSeries([p]),
    "two rows": lambda p: geopandas.GeoSeries([p.intersection(shapely.box(-90, -90, 0, b)) for b in (0, 90)]),
    "WKT": shapely.to_wkt,
    "EWKT": lambda p: f"SRID=4326;{shapely.to_wkt(p)}",
    "WKB": shapely.to_wkb,
    "EWKB": lambda p: shapely.to_wkb(shapely.set_srid(p, 4326), include_srid=True),
    "GeoJSON": shapely.to_geojson,
    "feature": lambda p: {"type": "Feature", "properties": {}, "geometry": json.loads(shapely.to_geojson(p))},
    "collection": lambda p: {"type": "FeatureCollection", "features": [FORMS["feature"](p)]},
    "interface": lambda p: type("Shape", (), {"__geo_interface__": p.__geo_interface__})(),
    "three dimensions": lambda p: shapely.force_3d(p, 7),
}


@pytest.mark.parametrize("form", FORMS)
def test_a_polygon_comes_in_any_form(form):
    lon, lat = (axis.ravel() for axis in np.meshgrid(*GRIDS["0 to 360"]))
    frame = pl.DataFrame({"lon": lon, "lat": lat})
    expected = frame.select(rd.geo.within(CAPE))
    assert frame.select(rd.geo.within(FORMS[form](CAPE))).equals(expected)
    assert expected.to_series().sum() == expected_of(CAPE, lon, lat, strict=False).sum() > 100


@pytest.mark.parametrize(
    ("value", "message"),
    [
        ("POLYGON ((0 0", "The polygon cannot be read"),
        (b"\x00", "The polygon cannot be read"),
        (7, "it is a int"),
        ({"type": "Nothing"}, "The polygon cannot be read"),
        ("POINT (1 2)", "is a Point, which has no inside"),
        ("LINESTRING (0 0, 1 1)", "is a LineString"),
        ("POLYGON EMPTY", "is empty"),
        ("POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))", "make_valid"),
        ("SRID=99999999;POLYGON ((0 0, 1 1, 1 0, 0 0))", "pyproj does not know"),
    ],
)
def test_what_is_no_polygon_is_refused(value, message):
    with pytest.raises(GeometryError, match=message) as caught:
        rd.geo.within(value)
    assert isinstance(caught.value, ValueError)
    assert isinstance(pickle.loads(pickle.dumps(caught.value)), GeometryError)


BAD = {
    "boundary": lambda: rd.geo.within(CAPE, boundary="inside"),
    "flat box": lambda: rd.geo.intersects_bbox(0, 5, 10, 5),
    "turned box in a plane": lambda: rd.geo.intersects_bbox(5, 0, 4, 1, "x", "y"),
    "NaN in a box": lambda: rd.geo.intersects_bbox(0, 0, float("nan"), 5),
    "latitude": lambda: rd.geo.dwithin((0, 91), 5),
    "distance": lambda: rd.geo.dwithin((0, 0), -1),
    "polygon for a point": lambda: rd.geo.dwithin(CAPE, 5),
    "point in metres": lambda: rd.geo.dwithin("SRID=3857;POINT (1 1)", 5),
    "srid": lambda: rd.geo.point(srid=-1),
    "crs": lambda: rd.geo.transform("x", "y", "EPSG:4326", "nowhere"),
}


@pytest.mark.parametrize("call", BAD)
def test_bad_arguments_are_refused(call):
    with pytest.raises(GeometryError):
        BAD[call]()


def test_null_coordinates_give_null():
    frame = pl.DataFrame({"lon": [-50.0, None, 170.0, None], "lat": [-50.0, -50.0, None, None]})
    exprs = {
        "within": rd.geo.within(CAPE),
        "near": rd.geo.dwithin((-50, -50), meters=1),
        "point": rd.geo.point(),
        "cell": rd.geo.cell("lon", "lat", "lon", "lat"),
        "moved": rd.geo.transform("lon", "lat", 4326, 3857).struct.field("x"),
    }
    found = frame.select(**exprs)
    for name in exprs:
        assert found[name].is_null().to_list() == [False, True, True, True], name
    nan = pl.DataFrame({"lon": [float("nan"), 1e36], "lat": [0.0, 0.0]})
    assert nan.select(rd.geo.within(shapely.box(-180, -90, 180, 90))).to_series().to_list() == [False, False]


def test_integers_and_narrow_floats_are_coordinates():
    frame = pl.DataFrame({"lon": [-50, 100], "lat": [-50, 0]})
    for dtype in (pl.Int8, pl.Float32, pl.Int64):
        assert frame.cast(dtype).select(rd.geo.within(CAPE)).to_series().to_list() == [True, False]
    with pytest.raises(Exception, match="not a number"):
        frame.cast(pl.String).select(rd.geo.within(CAPE))


@settings(max_examples=FEWER)
@given(
    st.tuples(st.floats(-180, 180), st.sampled_from([-90.0, -89.5, -45.0, 0.0, 60.0, 90.0])),
    st.floats(0, 2.1e7),
    st.sampled_from(sorted(GRIDS)),
)
def test_dwithin_equals_the_distance_on_a_sphere(point, meters, grid):
    lon, lat = (axis.ravel() for axis in np.meshgrid(*GRIDS[grid]))
    frame = pl.DataFrame({"lon": lon, "lat": lat})
    _, _, distance = pyproj.Geod(a=6_371_008.8, f=0).inv(*(np.full(len(lon), each) for each in point), lon, lat)
    actual = frame.select(rd.geo.dwithin(point, meters)).to_series().to_numpy()
    sure = np.abs(distance - meters) > 0.5  # metres by which the formulas may differ, near the antipode
    np.testing.assert_array_equal(actual[sure], (distance <= meters)[sure])


def test_a_box_may_cross_the_antimeridian_but_not_in_a_plane():
    frame = pl.DataFrame({"lon": [175.0, 185, -175, 0], "lat": [0.0, 0, 0, 0]})
    assert frame.select(rd.geo.intersects_bbox(170, -5, -170, 5)).to_series().to_list() == [True, True, True, False]
    plane = frame.rename({"lon": "x", "lat": "y"})
    assert plane.select(rd.geo.intersects_bbox(0, -5, 180, 5, "x", "y")).to_series().to_list() == [
        True,
        False,
        False,
        True,
    ]


def test_a_polygon_that_meets_itself_has_no_boundary_there():
    halves = shapely.MultiPolygon([shapely.box(170, -10, 180, 10), shapely.box(-180, -10, -170, 10)])
    frame = pl.DataFrame({"lon": [180.0, -180, 540, 170], "lat": [0.0, 0, 0, 0]})
    found = frame.select(rd.geo.within(halves, boundary="exclude")).to_series().to_list()
    assert found == [True, True, True, False]


def test_a_plane_has_no_turns():
    frame = pl.DataFrame({"x": [5.0, 365.0], "y": [5.0, 5.0]})
    assert frame.select(rd.geo.within(shapely.box(0, 0, 10, 10), "x", "y")).to_series().to_list() == [True, False]


def write_utm(path, **mapping):
    x, y = np.arange(3e5, 7e5, 2e4), np.arange(5.6e6, 5.2e6, -2e4)
    ds = xr.Dataset({"t": (("y", "x"), np.arange(400.0).reshape(20, 20))}, {"x": x, "y": y})
    ds.x.attrs["standard_name"], ds.y.attrs["standard_name"] = "projection_x_coordinate", "projection_y_coordinate"
    if mapping:
        ds["crs"] = ((), 0, mapping)
        ds.t.attrs["grid_mapping"] = "crs"
    ds.to_zarr(path, encoding={"t": {"chunks": (5, 5)}}, zarr_format=2)
    return str(path)


UTM, AREA = pyproj.CRS(32633), shapely.Point(14.2, 48.9).buffer(0.7)


@pytest.mark.parametrize("mapping", [{"crs_wkt": UTM.to_wkt()}, UTM.to_cf(), {"spatial_ref": UTM.to_wkt()}])
def test_a_polygon_in_another_crs_is_refused_with_a_way_to_convert(tmp_path, mapping):
    mapping = {key: value for key, value in mapping.items() if "crs_wkt" in mapping or key != "crs_wkt"}
    path = write_utm(tmp_path / "a.zarr", **mapping)
    series = geopandas.GeoSeries([AREA], crs=4326)
    with pytest.raises(GeometryError, match=r"to_crs\(.EPSG:32633.\)"):
        rd.plan(path, rd.geo.within(series, "x", "y"))
    with pytest.raises(GeometryError, match="is EPSG:4326, but"):
        rd.scan_zarr(path).filter(pl.col("t") > 3, ~rd.geo.within(series, "x", pl.col("y"))).collect()
    projected = rd.plan(path, rd.geo.within(series.to_crs(32633), "x", "y"))
    moved = rd.geo.transform("x", "y", 32633, 4326).struct
    computed = rd.plan(path, rd.geo.within(AREA, moved.field("x").alias("lon"), moved.field("y")))
    bare = rd.plan(path, rd.geo.within(series.to_crs(32633).iloc[0], "x", "y"))
    assert 0 < projected.num_chunks_kept < 16
    assert projected.collect().equals(bare.collect())
    assert (
        abs(computed.collect().height - projected.collect().height) <= 1
    )  # an edge straight in one CRS is not in another


def test_a_projection_without_a_name_is_no_longitude_and_latitude(tmp_path):
    path = write_utm(tmp_path / "a.zarr")
    series = geopandas.GeoSeries([AREA], crs=4326)
    with pytest.raises(GeometryError, match="does not name"):
        rd.plan(path, rd.geo.within(series, "x", "y"))
    assert rd.plan(path, rd.geo.within(series.to_crs(32633), "x", "y")).num_chunks_kept > 0


def test_geozarr_attributes_of_the_group_name_the_crs(tmp_path):
    ds = xr.Dataset(
        {"t": (("y", "x"), np.zeros((2, 2)))}, {"x": [0.0, 1.0], "y": [0.0, 1.0]}, {"proj:code": "EPSG:3035"}
    )
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    with pytest.raises(GeometryError, match="EPSG:3035"):
        rd.plan(str(tmp_path / "a.zarr"), rd.geo.within(geopandas.GeoSeries([AREA], crs=4326), "x", "y"))


def test_two_dimensional_longitudes_are_lonlat_on_a_projected_grid(tmp_path):
    dims, (lat, lon) = ("y", "x"), np.meshgrid(np.linspace(47, 50, 8), np.linspace(12, 16, 8), indexing="ij")
    ds = xr.Dataset({"t": (dims, lat + lon)}, {"x": np.arange(8.0), "y": np.arange(8.0)})
    ds = ds.assign_coords(lat=(dims, lat, {"units": "degrees_north"}), lon=(dims, lon, {"units": "degrees_east"}))
    ds["crs"] = ((), 0, UTM.to_cf())
    ds.t.attrs["grid_mapping"] = "crs: x y"
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    plan = rd.plan(str(tmp_path / "a.zarr"), rd.geo.within(geopandas.GeoSeries([AREA], crs=4258)))
    assert plan.collect().height == shapely.covers(AREA, shapely.points(lon, lat)).sum() > 0


def test_rotated_poles_are_no_longitudes(tmp_path):
    ds = xr.Dataset({"t": (("rlat", "rlon"), np.zeros((2, 2)))}, {"rlon": [0.0, 1.0], "rlat": [0.0, 1.0]})
    ds.rlon.attrs |= {"standard_name": "grid_longitude", "units": "degrees"}
    ds.rlat.attrs |= {"standard_name": "grid_latitude", "units": "degrees"}
    ds["pole"] = ((), 0, ROTATED | {"grid_north_pole_longitude": -162.0})
    ds.t.attrs["grid_mapping"] = "pole"
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    with pytest.raises(GeometryError, match="Convert it first"):
        rd.plan(str(tmp_path / "a.zarr"), rd.geo.within(AREA, "rlon", "rlat"))


@given(st.lists(st.tuples(*[st.floats(allow_nan=False)] * 2), max_size=5), st.sampled_from([0, 4326, 3857]))
def test_points_are_those_of_polars_st_bit_for_bit(points, srid):
    frame = pl.DataFrame(points, schema={"lon": pl.Float64, "lat": pl.Float64}, orient="row")
    theirs = polars_st.point(pl.concat_arr("lon", "lat"))
    theirs = theirs.st.set_srid(srid) if srid else theirs
    assert frame.select(rd.geo.point(srid=srid)).to_series().to_list() == frame.select(theirs).to_series().to_list()


def test_cells_are_boxes():
    frame = pl.DataFrame({"w": [0.0, 5], "s": [1.0, 6], "e": [2.0, 9]})
    found = frame.select(rd.geo.cell("w", "s", pl.col("e"), 10)).to_series().to_list()
    boxes = shapely.set_srid(shapely.box([0, 5], [1, 6], [2, 9], 10), 4326)
    assert found == shapely.to_wkb(boxes, include_srid=True).tolist()


def test_transformed_points_are_those_of_pyproj():
    lon, lat = np.array([15.0, 3, 0]), np.array([48.0, 52, 90])
    found = pl.DataFrame({"a": lon, "b": lat}).select(rd.geo.transform("a", "b", 4326, "EPSG:3857")).unnest("point")
    expected = pyproj.Transformer.from_crs(4326, 3857, always_xy=True).transform(lon[:2], lat[:2])
    np.testing.assert_array_equal(found.head(2).to_numpy().T, expected)
    assert found.row(2) == (None, None) or np.isfinite(found.row(2)).all()


def test_polars_st_prunes_as_before(tmp_path):
    write_field(tmp_path / "a.zarr")
    ewkb = shapely.to_wkb(CAPE.exterior.convex_hull)
    theirs = polars_st.point(pl.concat_arr("lon", "lat")).st.intersects(pl.lit(ewkb))
    ours = rd.geo.within(ewkb)
    turned = rd.plan(str(tmp_path / "a.zarr"), ours)
    path = str(tmp_path / "b.zarr")
    ds = xr.open_zarr(tmp_path / "a.zarr", consolidated=False)
    ds.assign_coords(lon=ds.lon - 360).to_zarr(path, zarr_format=3, consolidated=False)
    plans = [rd.plan(path, expr) for expr in (theirs, ours)]
    assert plans[0].num_chunks_kept == plans[1].num_chunks_kept == turned.num_chunks_kept < turned.num_chunks
    frames = [plan.collect() for plan in plans]
    assert frames[0].equals(frames[1])
    assert frames[0].height == turned.collect().height > 0


def test_expressions_work_in_every_kind_of_scan(tmp_path, client):
    path = str(tmp_path / "a.zarr")
    write_field(path)
    expr = rd.geo.within(CAPE) & (pl.col("time") < datetime(2000, 1, 1)).not_()
    whole = rd.scan_zarr(path).collect()
    expected = whole.filter(expr)
    assert 0 < expected.height < whole.height
    lf = rd.scan_zarr(path).filter(expr)
    assert lf.collect().equals(expected)
    assert pickle.loads(pickle.dumps(lf)).collect().equals(expected)
    assert lf.filter(pl.col("t2m") > 280).collect().equals(expected.filter(pl.col("t2m") > 280))
    assert rd.plan(path, expr).collect(client).equals(expected)
    assert rd.ZarrBackendSync.from_url(path).scan_zarr_sync(expr).equals(expected)
    assert len(rd.read_zarr(path, predicate=expr).compute()) == expected.height
    assert len(rd.to_dask_dataframe(lf).compute()) == expected.height


def test_threads_share_a_polygon():
    lon, lat = (axis.ravel() for axis in np.meshgrid(*GRIDS["0 to 360"]))
    frame, expr = pl.DataFrame({"lon": lon, "lat": lat}), rd.geo.within(CAPE.buffer(0.123))
    with ThreadPoolExecutor(8) as pool:
        sums = set(pool.map(lambda _: frame.select(expr).to_series().sum(), range(32)))
    assert len(sums) == 1


def test_to_geopandas():
    frame = pl.DataFrame({"lon": [5.0, None], "lat": [50.0, 1.0], "t": [1, 2]})
    points = rd.geo.to_geopandas(frame)
    assert points.crs == 4326
    assert points.geometry.tolist() == [shapely.Point(5, 50), None]
    assert points.columns.tolist() == ["lon", "lat", "t", "geometry"]
    cells = rd.geo.to_geopandas(frame.select("t", rd.geo.cell("lon", "lat", 7, 60, srid=3857)))
    assert cells.crs == 3857
    assert cells.geometry.tolist() == [shapely.box(5, 50, 7, 60), None]
    with pytest.raises(GeometryError, match="has no geometry"):
        rd.geo.to_geopandas(frame.select("t"))
    with pytest.raises(GeometryError, match="holds no WKB"):
        rd.geo.to_geopandas(frame, geometry="t")
    with pytest.raises(KeyError, match="no_such"):
        rd.geo.to_geopandas(frame, geometry="no_such")
    mixed = pl.concat([frame.head(1).select(rd.geo.point(srid=srid)) for srid in (4326, 3857)])
    with pytest.raises(GeometryError, match="one CRS"):
        rd.geo.to_geopandas(mixed)


@settings(max_examples=20)
@given(polygons())
def test_boxes_of_polygons_agree(polygon):
    lon, lat = (axis.ravel() for axis in np.meshgrid(*GRIDS["descending"]))
    frame = pl.DataFrame({"lon": lon, "lat": lat})
    expected = frame.select(rd.geo.within(shapely.box(*polygon.bounds)).alias("intersects_bbox"))
    assert frame.select(rd.geo.intersects_bbox(*polygon.bounds)).equals(expected)


def test_the_polygon_of_an_expression_is_known_while_it_exists():
    def polygons(expr):
        return [
            (outline.x, outline.y, shapely.from_wkb(outline.polygons[0]), outline.wraps)
            for outline in outlines_of(expr)
        ]

    box = shapely.box(0, 0, 3, 4)
    expr = rd.geo.within(box, boundary="exclude") & ~rd.geo.within(box) & (pl.col("t") > 3)
    expected = [("lon", "lat", box, True)] * 2
    assert polygons(expr) == expected
    assert polygons(pl.Expr.deserialize(io.BytesIO(expr.meta.serialize()))) == expected
    assert polygons(rd.geo.within(box, "x", "y")) == [("x", "y", box, False)]
    copied = pickle.dumps(expr)
    del expr
    kernels.within.cache_clear()
    gc.collect()
    expr = pickle.loads(copied)
    assert polygons(expr) == []
    pl.DataFrame({"lon": [1.0], "lat": [1.0], "t": [4]}).select(expr)  # as planning evaluates it
    assert polygons(expr) == expected
