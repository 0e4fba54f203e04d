"""`rd.zonal` against exactextract, against own tests of centres and areas, and the chunks that it reads."""

import io
import json
import pickle
from dataclasses import replace
from math import prod
from unittest.mock import patch

import cloudpickle
import dask
import geopandas
import numpy as np
import polars as pl
import pytest
import shapely
import xarray as xr
import zarr
from exactextract import exact_extract
from exactextract.raster import NumPyRasterSource
from hypothesis import given, settings
from hypothesis import strategies as st

import rainbear_dask as rd
from rainbear_dask.exceptions import GeometryError, QueryError
from rainbear_dask.execution.graph import build_graph
from rainbear_dask.query.pushdown import optimized_steps
from rainbear_dask.regions import layout, source
from rainbear_dask.regions.axes import read_axis
from rainbear_dask.regions.coverage import cover
from rainbear_dask.regions.source import ZonalSource
from tests.support.stores import CountingStore

THEIRS = {
    "mean": "mean",
    "sum": "sum",
    "count": "count",
    "min": "min",
    "max": "max",
    "variance": "variance",
    "std": "stdev",
    "median": "median",
    "quantile(q=0.9)": "quantile_90",
}
OPERATIONS = [*list(THEIRS.values())[:-1], "quantile(q=0.9)"]
NOWHERE = shapely.box(500, 93, 510, 95)


@st.composite
def zones(draw):
    """Polygons that overlap, have holes or two parts, miss the grid, or lie inside one cell."""
    found = []
    for _ in range(draw(st.integers(1, 5))):
        x, y = draw(st.tuples(st.floats(25, 335), st.floats(-60, 60)))
        shape = shapely.Point(x, y).buffer(draw(st.sampled_from([0.3, 4, 17.3, 24])), quad_segs=3)
        if draw(st.booleans()):
            shape = shape.difference(shapely.box(x - 1, y - 0.2, x + 1, y + 0.3))
        if draw(st.booleans()):
            shape = shape.union(shapely.box(5, 70, 9.5, 75.5))
        found.append(shape)
    return geopandas.GeoDataFrame({"id": [f"zone {i}" for i in range(len(found))]}, geometry=found, crs=4326)


@st.composite
def fields(draw):
    """A grid, its extent as exactextract wants it, and values from the north-western corner on, some of them missing."""
    sizes = {"time": draw(st.integers(1, 4)), "lat": 18, "lon": draw(st.sampled_from([36, 24]))}
    rng = np.random.default_rng(draw(st.integers(0, 2**32)))
    values = rng.normal(280, 10, tuple(sizes.values()))
    values[rng.random(values.shape) < draw(st.sampled_from([0, 0.1, 0.9]))] = np.nan
    step = 360 / sizes["lon"]
    lat, lon = np.arange(85, -90, -10.0), np.arange(sizes["lon"]) * step + step / 2
    ds = xr.Dataset({"t": (tuple(sizes), values)}, {"time": np.arange(sizes["time"]), "lat": lat, "lon": lon})
    if draw(st.booleans()):
        ds = ds.isel(lat=slice(None, None, -1))
    if draw(st.booleans()):
        ds = ds.isel(lon=slice(None, None, -1))
    chunks = dict(zip(sizes, draw(st.sampled_from([(1, 18, 36), (2, 5, 7), (3, 4, 36), (4, 18, 5)])), strict=True))
    ds = ds.transpose(*draw(st.permutations(list(sizes))))
    return ds, values, {"t": {"chunks": tuple(chunks[dim] for dim in ds.t.dims)}}


def reference(values, frame, **extent):
    """What exactextract makes of each step, by statistic, shape (steps, zones)."""
    bounds = {"xmin": 0, "xmax": 360, "ymin": -90, "ymax": 90} | extent
    rasters = [NumPyRasterSource(each, name=f"band{i}", **bounds) for i, each in enumerate(values)]
    found = exact_extract(rasters, frame, OPERATIONS, output="pandas")
    bands = [f"band{i}_" for i in range(len(values))] if len(values) > 1 else [""]
    return {
        ours: np.stack([found[f"{band}{theirs}"].to_numpy(dtype=float) for band in bands])
        for ours, theirs in THEIRS.items()
    }


def compare(actual, expected, *, tolerance=1e-12):
    """Compare columns ``<name>_<stat>``; exactextract gives 0 for sums and counts without a value."""
    missing = np.isnan(expected["mean"])
    for stat, theirs in expected.items():
        ours = actual[f"t_{stat}"].to_numpy().reshape(theirs.shape)
        scale = 280**2 if stat == "variance" else 280 if stat == "std" else 0  # a zone of one cell has none
        if stat == "count":
            ours = np.nan_to_num(ours)
        elif stat == "sum":
            assert np.isnan(ours[missing]).all()
            ours = np.nan_to_num(ours)
        np.testing.assert_allclose(ours, theirs, rtol=tolerance, atol=tolerance * scale, err_msg=stat)


@settings(max_examples=settings.default.max_examples // 5)
@given(fields(), zones(), st.sampled_from([1, 3000, layout._MIN_TASK_BYTES]))
def test_statistics_equal_those_of_exactextract(tmp_path_factory, field, frame, task_bytes):
    ds, values, encoding = field
    path = tmp_path_factory.mktemp("stores") / "a.zarr"
    ds.to_zarr(path, encoding=encoding, zarr_format=2, consolidated=False)
    with patch.object(layout, "_MIN_TASK_BYTES", task_bytes):  # zones lie in several tasks, but not for quantiles
        sums, quantiles = list(THEIRS)[:-2], list(THEIRS)[-2:]
        found = [rd.zonal(str(path), frame, stats=stats).collect() for stats in (sums, quantiles)]
        all_at_once = rd.zonal(str(path), frame, stats=tuple(THEIRS)).collect()
    actual = pl.concat([found[0], found[1].drop("time", "id")], how="horizontal")
    assert actual.columns == all_at_once.columns == ["time", "id", *[f"t_{stat}" for stat in THEIRS]]
    compare(all_at_once, reference(values, frame))
    if not np.isnan(values).any():
        whole = rd.zonal(str(path), frame, stats="coverage").collect()["t_coverage"]
        assert set(whole.drop_nulls()) <= {1.0}
    assert actual["id"].to_list() == frame["id"].tolist() * len(values)
    assert actual["time"].to_list() == np.repeat(np.arange(len(values)), len(frame)).tolist()
    compare(actual, reference(values, frame))


@settings(max_examples=20)
@given(fields(), zones())
def test_centers_and_areas_equal_own_sums(tmp_path_factory, field, frame):
    ds, values, encoding = field
    path = tmp_path_factory.mktemp("stores") / "a.zarr"
    ds.to_zarr(path, encoding=encoding, zarr_format=2, consolidated=False)
    ds = ds.transpose("time", "lat", "lon").sortby("lat", ascending=False).sortby("lon")
    lon, lat = np.meshgrid(ds.lon, ds.lat)
    inside = np.stack([shapely.covers(shape, shapely.points(lon, lat)) for shape in frame.geometry])
    actual = rd.zonal(str(path), frame, stats=("count", "sum", "max"), weights="center").collect()
    held = inside[None] & ~np.isnan(values)[:, None]
    touched = inside.any(axis=(1, 2))
    expected = np.where(touched, held.sum(axis=(2, 3)), np.nan)
    np.testing.assert_array_equal(actual["t_count"].to_numpy().reshape(expected.shape), expected)
    sums = np.where(held.any(axis=(2, 3)), np.where(held, values[:, None], 0).sum(axis=(2, 3)), np.nan)
    np.testing.assert_allclose(actual["t_sum"].to_numpy().reshape(sums.shape), sums, rtol=1e-12)

    edges = np.radians(np.arange(90, -91, -10.0))
    area = -np.diff(np.sin(edges)) * 6_371_008.8**2 * np.radians(360 / values.shape[2])
    weights = NumPyRasterSource(np.broadcast_to(area[:, None], values.shape[1:]), 0, -90, 360, 90)
    rasters = [NumPyRasterSource(each, 0, -90, 360, 90) for each in values]
    theirs = [
        exact_extract(raster, frame, ["weighted_mean", "weighted_sum"], weights=weights, output="pandas")
        for raster in rasters
    ]
    actual = rd.zonal(str(path), frame, stats=("mean", "sum"), weights="area").collect()
    for stat in ("mean", "sum"):
        expected = np.stack([each[f"weighted_{stat}"].to_numpy(dtype=float) for each in theirs])
        ours = actual[f"t_{stat}"].to_numpy().reshape(expected.shape)
        np.testing.assert_allclose(np.nan_to_num(ours), np.nan_to_num(expected), rtol=1e-12)


def write(path, lat, lon, values=None, *, chunks=None, other=None, **attributes):
    """Write a field ``t`` of lat and lon, and of other dimensions before them, by name and length."""
    sizes = {**(other or {}), "lat": len(lat), "lon": len(lon)}
    values = np.arange(float(prod(sizes.values()))).reshape(tuple(sizes.values())) if values is None else values
    ds = xr.Dataset({"t": (tuple(sizes), values)}, {"lat": lat, "lon": lon}, attributes)
    ds.to_zarr(path, encoding={"t": {"chunks": chunks or values.shape}}, zarr_format=2, consolidated=False)
    return str(path)


def fractions(source: ZonalSource):
    """Covered share of each cell, for each zone."""
    found = source.coverage
    shares = np.zeros((len(source.zones.ids), len(source.y.centers), len(source.x.centers)))
    shares[found.zone, found.row, found.column] = found.fraction
    return shares


def source_of(monkeypatch, *args, **kwargs):
    """The source of a query."""
    seen = []
    monkeypatch.setattr("rainbear_dask.api.zonal.register_io_source", lambda source, **_: seen.append(source))
    rd.zonal(*args, **kwargs)
    return seen[0]


GAUSSIAN = np.degrees(np.arcsin(np.polynomial.legendre.leggauss(16)[0]))


@pytest.mark.parametrize("turned", [False, True])
@pytest.mark.parametrize(
    ("lat", "lon"),
    [
        (GAUSSIAN, np.arange(0, 360, 12.0)),
        (np.array([-30, -10, 0, 5, 45.0]), np.array([0.0, 1, 4, 30, 31, 100])),
        (np.arange(-90, 91, 15.0), np.arange(0, 361, 24.0)),
        (np.arange(-90, 91, 15.0), np.arange(-180, 181, 24.0)),
    ],
    ids=["Gaussian", "irregular", "to the poles", "closed"],
)
def test_shares_equal_areas_of_intersections(tmp_path, monkeypatch, lat, lon, turned):
    lat = lat[::-1] if turned else lat
    polygons = [
        shapely.Point(20, 5).buffer(19.7),
        shapely.Point(200, -40).buffer(30).difference(shapely.box(190, -45, 210, -41)),
        shapely.box(-30.5, 60, 40.25, 90),
        shapely.box(-180, -90, 180, 90),
        shapely.box(170, -3, 191, 14),
    ]
    source = source_of(monkeypatch, write(tmp_path / "a.zarr", lat, lon), polygons)
    y, x = source.y.edges, source.x.edges
    assert np.ptp(x) <= 360
    assert np.abs(y).max() <= 90
    cells = [[shapely.box(x[i], y[j], x[i + 1], y[j + 1]) for i in range(len(lon))] for j in range(len(lat))]
    turns = [[shapely.affinity.translate(polygon, by) for by in (-360, 0, 360)] for polygon in polygons]
    expected = [
        sum(shapely.area(shapely.intersection(turn, cells)) for turn in each) / shapely.area(cells) for each in turns
    ]
    np.testing.assert_allclose(fractions(source), np.minimum(expected, 1), atol=2e-6)  # exactextract keeps float32


def test_bounds_are_the_edges(tmp_path):
    ds = xr.Dataset({"t": (("lat", "lon"), [[1.0, 2.0, 3.0]])}, {"lat": [5.0], "lon": [20.0, 12.0, 5.0]})
    ds["lat"].attrs["bounds"], ds["lon"].attrs["bounds"] = "lat_bnds", "lon_bnds"
    ds["lat_bnds"] = (("lat", "two"), [[0.0, 10.0]])
    ds["lon_bnds"] = (("lon", "two"), [[15.0, 30.0], [10.0, 15.0], [0.0, 10.0]])
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    found = rd.zonal(str(tmp_path / "a.zarr"), [shapely.box(0, 0, 15, 10)], stats=("sum", "count")).collect()
    assert found["t_count"].item() == pytest.approx(2)
    assert found["t_sum"].item() == pytest.approx(5)
    ds["lon_bnds"][1, 1] = 14.0
    ds.to_zarr(tmp_path / "b.zarr", zarr_format=2)
    with pytest.raises(GeometryError, match="leave gaps"):
        rd.zonal(str(tmp_path / "b.zarr"), [shapely.box(0, 0, 15, 10)])


@pytest.mark.parametrize(
    "lon", [np.arange(5.0, 360, 10), np.arange(-175.0, 180, 10), (np.arange(5, 360, 10) + 190) % 360 - 180]
)
def test_a_zone_across_the_antimeridian_is_one_zone_on_any_axis(tmp_path, lon):
    lat = np.arange(-85, 90, 10.0)
    values = np.cos(np.radians(lon)) + lat[:, None]
    path = write(tmp_path / "a.zarr", lat, lon, values, chunks=(5, 7))
    whole = shapely.box(171, -12, 196, 33)
    split = shapely.MultiPolygon([shapely.box(171, -12, 180, 33), shapely.box(-180, -12, -164, 33)])
    means = rd.zonal(path, [whole, split, shapely.affinity.translate(whole, -360)], stats="mean").collect()["t_mean"]
    weight = np.array(
        [
            shapely.area(shapely.intersection(whole, shapely.box(x - 5, y - 5, x + 5, y + 5)))
            for y in lat
            for x in lon % 360
        ]
    )
    np.testing.assert_allclose(means.to_numpy(), (weight * values.ravel()).sum() / weight.sum(), rtol=1e-6)


LAT, LON = np.arange(85, -90, -10.0), np.arange(5, 360, 10.0)
AREAS = {
    "west": shapely.box(20, -20, 60, 30),
    "nowhere": NOWHERE,
    "east": shapely.Point(180, 10).buffer(30),
    "both": shapely.MultiPolygon([shapely.box(22, -3, 30, 3), shapely.box(300, 60, 310, 70)]),
}


def written(path, **kwargs):
    return write(path, LAT, LON, other={"time": 12, "level": 3}, chunks=(5, 2, 6, 9), **kwargs)


def test_each_chunk_with_a_cell_is_read_once_and_no_other(tmp_path):
    written(tmp_path / "a.zarr")
    store = CountingStore(zarr.storage.LocalStore(tmp_path / "a.zarr", read_only=True))
    query = rd.zonal(store, AREAS, stats=("mean", "max", "median"))
    assert not [key for key in store.requests if key.startswith("t/") and key[-1].isdigit()]
    query.collect()
    data = {key: count for key, count in store.requests.items() if key.startswith("t/") and key[-1].isdigit()}
    shares = np.zeros((18, 36))
    for shape in AREAS.values():
        for j, i in np.ndindex(18, 36):
            x, y = LON[i], LAT[j]
            shares[j, i] += shape.intersection(shapely.box(x - 5, y - 5, x + 5, y + 5)).area
    tiles = {(j // 6, i // 9) for j, i in np.argwhere(shares)}
    assert data == {f"t/{t}.{level}.{j}.{i}": 1 for t in range(3) for level in range(2) for j, i in tiles}
    assert len(tiles) == 6


def test_filters_columns_and_limits_reach_the_chunks(tmp_path):
    path = tmp_path / "a.zarr"
    written(path)
    xr.open_zarr(path, consolidated=False).rename(t="u").drop_vars(["lat", "lon"]).drop_encoding().to_zarr(
        path, mode="a", consolidated=False
    )
    whole = rd.zonal(str(path), AREAS, stats=("mean", "max")).collect()

    def counted(step):
        store = CountingStore(zarr.storage.LocalStore(path, read_only=True))
        found = step(rd.zonal(store, AREAS, stats=("mean", "max"))).collect()
        keys = [key for key in store.requests if key[:2] in ("t/", "u/") and key[-1].isdigit()]
        return found, {key[0] for key in keys}, len(keys)

    late = pl.col("time") >= 10
    found, variables, chunks = counted(lambda lf: lf.filter(late, pl.col("level") == 2).select("id", "t_max"))
    assert found.equals(whole.filter(late, pl.col("level") == 2).select("id", "t_max"))
    assert (variables, chunks) == ({"t"}, 6)
    found, _, chunks = counted(lambda lf: lf.filter(pl.col("t_mean") > 5000).select("id"))
    assert found.equals(whole.filter(pl.col("t_mean") > 5000).select("id"))
    found, variables, _ = counted(lambda lf: lf.select("time", "id"))
    assert (variables, found.equals(whole.select("time", "id"))) == (set(), True)
    for rows in (0, 5, 4 * 3 * 5, 100, 144, 999):
        assert rd.zonal(str(path), AREAS, stats=("mean", "max")).head(rows).collect().equals(whole.head(rows))
    assert rd.zonal(str(path), AREAS).head(7).filter(late).collect().is_empty()
    found, _, _ = counted(lambda lf: lf.filter((pl.col("id") == "east") & (pl.col("level") > 0)))
    assert found.equals(whole.filter((pl.col("id") == "east") & (pl.col("level") > 0)))
    assert not found.is_empty()


@pytest.mark.parametrize("stats", [("mean", "sum", "variance", "min", "coverage"), ("median", "mean", "std")])
def test_bits_do_not_depend_on_threads_or_workers(tmp_path, monkeypatch, client, stats):
    rng = np.random.default_rng(5)
    path = write(tmp_path / "a.zarr", LAT, LON, rng.normal(size=(12, 18, 36)), other={"time": 12}, chunks=(2, 4, 9))
    monkeypatch.setattr(layout, "_MIN_TASK_BYTES", 2000)  # several tasks, also along the spatial axes
    query = rd.zonal(path, AREAS, stats=stats)
    frames = []
    for threads in (1, 2, 5):
        with dask.config.set({"rainbear-dask.threads": threads}):
            frames.append(rd.zonal(path, AREAS, stats=stats, client=None).collect())
    there = rd.zonal(path, AREAS, stats=stats, client=client).collect()
    assert all(frame.equals(there) for frame in frames)
    assert pickle.loads(pickle.dumps(query)).collect().equals(there)


def tasks_of(monkeypatch, path, areas, stats):
    """The tasks of a query."""
    source, needs = source_of(monkeypatch, path, areas, stats=stats), layout.Needs.of(stats)
    groups = layout.groups_of(
        source.table, source.columns, source.coverage, y="lat", x="lon", needs=needs, task_bytes=2**26
    )
    whole = {"time": (0, 12), "level": (0, 3)}
    return [task for group in groups for _, task in group.tasks(whole, [{}])]


def test_tasks_have_keys_from_their_content(tmp_path, monkeypatch):
    path = written(tmp_path / "a.zarr")

    def keys(stats, areas):
        return list(build_graph(tasks_of(monkeypatch, path, areas, stats), layout.ZonalTask))

    first = keys(("mean",), AREAS)
    assert first == keys(("sum",), AREAS)  # the same sums
    assert len(set(first)) == len(first) >= 1
    assert not set(first) & set(keys(("std",), AREAS))
    whole, less = shapely.box(20, -20, 60, 30), shapely.box(21, -19, 59, 29)  # the same cells
    assert not set(keys(("mean",), [whole])) & set(keys(("mean",), [less]))


def test_no_task_holds_a_secret(tmp_path, monkeypatch):
    (task,) = tasks_of(monkeypatch, written(tmp_path / "a.zarr"), AREAS, ("mean",))
    assert task.frame_bytes > 0
    spec = replace(task.scan.spec, source="s3://bucket/a.zarr", options={"key": "me", "secret": "hunter2"})
    held = replace(task, scan=replace(task.scan, spec=spec))
    assert b"hunter2" in cloudpickle.dumps(held)
    assert b"hunter2" not in cloudpickle.dumps(build_graph([held], layout.ZonalTask))


def test_zones_without_a_cell_and_zones_without_a_value(tmp_path):
    values = np.full((18, 36), np.nan)
    values[:, 30:] = 7
    stats = ("mean", "sum", "count", "min", "std", "median", "coverage")
    found = rd.zonal(write(tmp_path / "a.zarr", LAT, LON, values), AREAS, stats=stats).collect()
    rows = dict(zip(found["id"], found.drop("id").rows(), strict=True))
    assert rows["nowhere"] == (None,) * 7
    assert rows["west"] == (None, None, 0.0, None, None, None, 0.0)
    assert rows["both"] == pytest.approx((7, 7 * 1, 1, 7, 0, 7, 1 / 1.48))
    empty = rd.zonal(str(tmp_path / "a.zarr"), {"none": shapely.Polygon(), "null": None}, stats=stats).collect()
    assert empty.drop("id").null_count().row(0) == (2,) * 7
    nothing = rd.zonal(str(tmp_path / "a.zarr"), [], stats=stats).collect()
    assert nothing.shape == (0, 8)


def test_packed_integers_and_booleans_are_decoded(tmp_path):
    packed = {"dtype": "int16", "scale_factor": 0.5, "add_offset": 10.0, "_FillValue": -1}
    values = np.arange(12.0).reshape(3, 4) / 2 + 10
    values[0, 0] = np.nan
    ds = xr.Dataset(
        {"t": (("lat", "lon"), values), "wet": (("lat", "lon"), values > 12)},
        {"lat": [20.0, 10, 0], "lon": [0.0, 10, 20, 30]},
    )
    ds["wet"].attrs["grid"] = "same"
    ds.to_zarr(tmp_path / "a.zarr", encoding={"t": packed}, zarr_format=2)
    found = rd.zonal(str(tmp_path / "a.zarr"), [shapely.box(-5, -5, 35, 25)]).collect()
    assert found["t_mean"].item() == pytest.approx(np.nanmean(values))
    assert found["wet_mean"].item() == pytest.approx((values > 12).mean())


def test_variables_of_fewer_dimensions_repeat(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "_MIN_TASK_BYTES", 1)  # a band of rows for each time
    t = np.arange(2 * 3 * 18 * 36.0).reshape(2, 3, 18, 36)
    ds = xr.Dataset(
        {
            "t": (("time", "level", "lat", "lon"), t),
            "h": (("lat", "lon"), t[0, 0]),
            "p": (("lat", "level", "lon"), t[0].swapaxes(0, 1)),
        },
        {"lat": LAT, "lon": LON, "level": [1000, 500, 200]},
    )
    ds["scalar"] = 5.0
    ds.to_zarr(tmp_path / "a.zarr", encoding={"t": {"chunks": (1, 2, 18, 36)}}, zarr_format=2)
    found = rd.zonal(str(tmp_path / "a.zarr"), AREAS).collect()
    assert found.columns == ["time", "level", "id", "h_mean", "p_mean", "t_mean"]
    for name, key in (("h", []), ("p", ["level"])):
        alone = rd.zonal(str(tmp_path / "a.zarr"), AREAS, name).collect()
        assert alone.columns == [*key, "id", f"{name}_mean"]
        assert found.select(*key, "id", f"{name}_mean").equals(pl.concat([alone] * (6 // max(3 * len(key), 1))))
    last = found.filter(time=1).select("level", "id", "t_mean")
    only = rd.zonal(str(tmp_path / "a.zarr"), AREAS, ["t"]).filter(pl.col("time") == 1).collect()
    assert last.equals(only.select("level", "id", "t_mean"))


FORMS = {
    "frame": lambda: geopandas.GeoDataFrame({"name": list(AREAS)}, geometry=list(AREAS.values()), crs=4326),
    "mapping": lambda: AREAS,
    "WKT": lambda: {name: shapely.to_wkt(shape) for name, shape in AREAS.items()},
    "collection": lambda: json.loads(FORMS["frame"]().to_json()),
    "table": lambda: pl.DataFrame({"name": list(AREAS), "shape": [shapely.to_wkb(shape) for shape in AREAS.values()]}),
}


@pytest.mark.parametrize("form", FORMS)
def test_zones_come_in_many_forms(tmp_path, form):
    path = written(tmp_path / "a.zarr")
    expected = rd.zonal(path, AREAS, by="name").collect()
    assert rd.zonal(path, FORMS[form](), by="name").collect().equals(expected)
    if form in ("frame", "collection", "table"):
        numbered = rd.zonal(path, FORMS[form]()).collect()
        assert [str(name) for name in numbered["id"].unique(maintain_order=True)] == ["0", "1", "2", "3"]
        with pytest.raises(KeyError, match="no column 'names'"):
            rd.zonal(path, FORMS[form](), by="names")


@pytest.mark.parametrize("suffix", ["geojson", "parquet"])
def test_zones_come_from_a_file(tmp_path, suffix):
    path, file = written(tmp_path / "a.zarr"), tmp_path / f"zones.{suffix}"
    frame = FORMS["frame"]()
    frame.to_parquet(file) if suffix == "parquet" else frame.to_file(file)
    assert rd.zonal(path, file, by="name").collect().equals(rd.zonal(path, AREAS, by="name").collect())
    with pytest.raises(GeometryError, match="There is no file"):
        rd.zonal(path, "no-such.geojson")
    (tmp_path / "text.geojson").write_text("text")
    with pytest.raises(GeometryError, match="cannot read the zones"):
        rd.zonal(path, str(tmp_path / "text.geojson"))


def test_a_scan_is_a_source(tmp_path):
    path = written(tmp_path / "a.zarr")
    scan = rd.scan_zarr(path, variables=["t"])
    expected = rd.zonal(path, AREAS).collect()
    assert rd.zonal(scan, AREAS).collect().equals(expected)
    assert rd.zonal(scan.select("t"), AREAS).collect().equals(expected)
    assert rd.zonal(rd.ZarrBackendSync.from_url(path), AREAS).collect().equals(expected)
    with pytest.raises(QueryError, match="Filter the result"):
        rd.zonal(scan.filter(pl.col("time") > 3), AREAS)


PLANE = (
    {"standard_name": "projection_x_coordinate", "units": "m"},
    {"standard_name": "projection_y_coordinate", "units": "m"},
)


def test_projected_grids(tmp_path):
    x, y = np.arange(4e5, 5e5, 1e4), np.arange(5.5e6, 5.4e6, -1e4)
    ds = xr.Dataset(
        {"t": (("y", "x"), np.arange(100.0).reshape(10, 10))}, {"x": ("x", x, PLANE[0]), "y": ("y", y, PLANE[1])}
    )
    ds["crs"] = ((), 0, {"spatial_ref": "EPSG:32633"})
    ds.t.attrs["grid_mapping"] = "crs"
    ds.to_zarr(tmp_path / "a.zarr", encoding={"t": {"chunks": (3, 4)}}, zarr_format=2)
    frame = geopandas.GeoDataFrame({"id": ["a"]}, geometry=[shapely.Point(4.4e5, 5.45e6).buffer(2.7e4)], crs=32633)
    actual = rd.zonal(str(tmp_path / "a.zarr"), frame, stats=tuple(THEIRS)).collect()
    extent = {"xmin": 3.95e5, "xmax": 4.95e5, "ymin": 5.405e6, "ymax": 5.505e6}
    compare(actual, reference(ds.t.values[None], frame, **extent))
    area = rd.zonal(str(tmp_path / "a.zarr"), frame, stats="sum", weights="area").collect()
    assert area["t_sum"].item() == pytest.approx(actual["t_sum"].item() * 1e8)
    with pytest.raises(GeometryError, match="The CRS of the zones is EPSG:4326"):
        rd.zonal(str(tmp_path / "a.zarr"), frame.to_crs(4326))
    with pytest.raises(GeometryError, match="EPSG:32633"):
        rd.zonal(str(tmp_path / "a.zarr"), json.loads(frame.to_crs(4326).to_json()))


BAD = {
    "line": (GeometryError, "no inside", lambda path: rd.zonal(path, [shapely.LineString([(0, 0), (1, 1)])])),
    "point": (GeometryError, "zone 'a' is a Point", lambda path: rd.zonal(path, {"a": shapely.Point(0, 0)})),
    "bow tie": (GeometryError, "make_valid", lambda path: rd.zonal(path, ["POLYGON ((0 0, 1 1, 1 0, 0 1, 0 0))"])),
    "no zones": (GeometryError, "cannot be read", lambda path: rd.zonal(path, 7)),
    "two columns": (GeometryError, "exactly one", lambda path: rd.zonal(path, pl.DataFrame({"a": [b""], "b": [b""]}))),
    "two CRSs": (
        GeometryError,
        "several CRSs",
        lambda path: rd.zonal(path, [f"SRID={s};{AREAS['west']}" for s in (4326, 3857)]),
    ),
    "statistic": (QueryError, "Did you mean 'mean'", lambda path: rd.zonal(path, AREAS, stats=("maen",))),
    "quantile": (QueryError, "There is no statistic", lambda path: rd.zonal(path, AREAS, stats=("quantile(q=1.5)",))),
    "no statistic": (QueryError, "empty", lambda path: rd.zonal(path, AREAS, stats=())),
    "repeated": (QueryError, "repeated", lambda path: rd.zonal(path, AREAS, stats=("mean", "mean"))),
    "weights": (QueryError, "There are no weights", lambda path: rd.zonal(path, AREAS, weights="centre")),
    "column": (KeyError, "Did you mean", lambda path: rd.zonal(path, AREAS, "tt")),
    "no column": (QueryError, "There is no variable", lambda path: rd.zonal(path, AREAS, [])),
    "coordinate": (QueryError, "data variables", lambda path: rd.zonal(path, AREAS, "lat")),
    "lon": (KeyError, "Did you mean", lambda path: rd.zonal(path, AREAS, lon="lom")),
    "other lon": (GeometryError, "not the coordinate", lambda path: rd.zonal(path, AREAS, lon="t")),
    "by": (QueryError, "both named 'time'", lambda path: rd.zonal(path, AREAS, by="time")),
    "option": (TypeError, "Did you mean", lambda path: rd.zonal(path, AREAS, stat="mean")),
}


@pytest.mark.parametrize("call", BAD)
def test_bad_input_is_refused_before_a_chunk_is_read(tmp_path, call):
    error, message, ask = BAD[call]
    store = CountingStore(zarr.storage.LocalStore(written(tmp_path / "a.zarr"), read_only=True))
    with pytest.raises(error, match=message):
        ask(store)
    assert not [key for key in store.requests if key.startswith("t/") and key[-1].isdigit()]


def test_grids_without_two_axes_of_cells_are_refused(tmp_path):
    xr.Dataset({"t": (("a", "b"), np.zeros((3, 3)))}).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    with pytest.raises(GeometryError, match="looks like the longitude"):
        rd.zonal(str(tmp_path / "a.zarr"), AREAS)
    found = rd.zonal(str(tmp_path / "a.zarr"), [shapely.box(0, 0, 1, 1)], lon="b", lat="a", stats="count").collect()
    assert found["t_count"].item() == pytest.approx(1)
    with pytest.raises(GeometryError, match="not strictly monotonic"):
        rd.zonal(write(tmp_path / "b.zarr", np.array([0.0, 10, 5]), LON), AREAS)
    with pytest.raises(GeometryError, match="extent is unknown"):
        rd.zonal(write(tmp_path / "c.zarr", np.array([0.0]), LON), AREAS)


def test_the_query_is_lazy_and_explained(tmp_path):
    path = written(tmp_path / "a.zarr")
    query = rd.zonal(path, AREAS, stats=("mean",))
    assert "ZONAL" in optimized_steps(query)[0].upper() or "PYTHON" in optimized_steps(query)[0]
    text = rd.explain(query.filter(pl.col("time") < 5))
    assert "chunks   12 of 72" in text
    assert "cells of zones (4)" in text
    monthly = query.group_by(pl.col("time") // 6, "id").agg(pl.col("t_mean").mean())
    assert monthly.collect().shape == (8, 3)


def test_a_variable_without_time_is_read_once_for_all_bands(tmp_path, monkeypatch):
    monkeypatch.setattr(layout, "_MIN_TASK_BYTES", 1)
    path = written(tmp_path / "a.zarr")
    height = xr.Dataset({"m": (("lat", "lon"), np.arange(18.0 * 36).reshape(18, 36))})
    height.to_zarr(path, mode="a", consolidated=False, encoding={"m": {"chunks": (6, 9)}})
    store = CountingStore(zarr.storage.LocalStore(path, read_only=True))
    query = rd.zonal(store, AREAS, stats=("sum",))
    found, alone = query.collect(), rd.zonal(path, AREAS, "m", stats=("sum",)).collect()
    assert {count for key, count in store.requests.items() if key.startswith("m/") and key[-1].isdigit()} == {1}
    assert found["m_sum"].to_list() == alone["m_sum"].to_list() * 36
    assert rd.explain(query).tasks > len({*found["time"]})


ASKED = {
    "all": lambda lf: lf,
    "first": lambda lf: lf.filter(pl.col("time") < 5),
    "some": lambda lf: lf.filter(pl.col("time").is_in([1, 17])),
    "no statistic": lambda lf: lf.select("id"),
    "by statistic": lambda lf: lf.filter(pl.col("t_mean") > 0),
}


@pytest.mark.parametrize("ask", ASKED.values(), ids=ASKED)
def test_the_report_counts_the_tasks_and_rows_of_the_statistics(tmp_path, ask, monkeypatch):
    run = []
    monkeypatch.setattr(layout, "_MIN_TASK_BYTES", 1)
    monkeypatch.setattr(
        source, "run_zonal_task", lambda task, actual=source.run_zonal_task: run.append(task) or actual(task)
    )
    path = written(tmp_path / "a.zarr")
    query, shown = ask(rd.zonal(path, AREAS, stats=("mean",))), io.StringIO()
    report = rd.explain(query)
    with rd.progress(file=shown):
        rows = query.collect().height
    assert report.tasks == len(run)
    assert not run or f"zonal {path}"[-50:] in shown.getvalue()
    assert not run or f"{len(run)}/{len(run)}" in shown.getvalue()
    assert rows <= report.rows <= rd.zonal(path, AREAS).collect().height
    assert str(report).startswith(f"ZONAL {path}")
    assert "outline" in report._repr_html_() or not report.chunks_kept


def test_axes_of_float32_are_regular(tmp_path):
    lon = np.arange(0, 360, 0.7, dtype="f4")
    plan = rd.plan(write(tmp_path / "a.zarr", np.arange(-89, 90, 2, dtype="f4"), lon))
    axis = read_axis(plan.table, plan.table.columns["lon"], turn=True, pole=False)
    assert axis.uniform
    found = cover(
        [shapely.box(10, 10, 20, 20).wkb],
        axis,
        read_axis(plan.table, plan.table.columns["lat"], turn=False, pole=True),
        "fraction",
        lonlat=True,
    )
    assert found.fraction.sum() == pytest.approx(100 / 1.4, rel=1e-4)
