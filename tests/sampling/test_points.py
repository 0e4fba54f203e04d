"""What a user meets: filtered scans, circles, curvilinear grids, units, clusters, counts, and bad input."""

import io
import os
import pickle
import random
import signal
import threading
from datetime import date, datetime, timedelta

import dask
import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from distributed import LocalCluster
from polars.testing import assert_frame_equal
from zarr.storage import LocalStore, MemoryStore

import rainbear_dask as rd
from rainbear_dask.exceptions import PointsError, QueryError, UnknownColumnError
from rainbear_dask.execution.graph import build_graph
from rainbear_dask.sampling import batch, gather, source
from rainbear_dask.sampling.task import run_task
from tests.support.errors import caught
from tests.support.stores import CountingStore, write_field

c = pl.col


@pytest.fixture(scope="module")
def url(tmp_path_factory):
    path = tmp_path_factory.mktemp("points") / "field.zarr"
    write_field(path)
    return str(path)


@pytest.fixture(scope="module")
def ds(url):
    return xr.open_zarr(url, consolidated=False).load()


def track(count, seed=0):
    """Points in the whole field, in no order."""
    rng = np.random.default_rng(seed)
    hours = (rng.uniform(0, 47, count) * 3.6e12).astype("m8[ns]")
    return pl.DataFrame(
        {
            "id": range(count),
            "time": np.datetime64("2020-01-31T12", "ns") + hours,
            "lat": rng.uniform(-82, 82, count),
            "lon": rng.uniform(0, 342, count),
        }
    )


def in_memory(ds):
    store = MemoryStore()
    ds.to_zarr(store, zarr_format=3, consolidated=False)
    return store


# ---------------------------------------------------------------------- reading


@pytest.mark.parametrize("method", ["nearest", "linear", "pchip"])
def test_each_chunk_is_read_once(url, method):
    counted = CountingStore(LocalStore(url, read_only=True))
    points = track(200).filter(c.lat > 0)
    out = rd.sample(counted, points, method=method, columns=["t2m"]).collect()
    assert_frame_equal(out, rd.sample(url, points, method=method, columns="t2m").collect())
    chunks = counted.chunks("t2m")
    assert {counted.requests[key] for key in chunks} == {1}
    assert len(chunks) == 16
    assert not counted.chunks("sst")


def test_points_on_labels_read_no_chunk_beside_them(url, ds):
    """Corners without weight are not read, although the point lies at the edge of a chunk."""
    counted = CountingStore(LocalStore(url, read_only=True))
    points = pl.DataFrame({"time": ds.time.values[23:24], "lat": ds.lat.values[3:4], "lon": ds.lon.values[4:5]})
    for method in ("linear", "pchip", "akima", "makima", "cubic"):
        out = rd.sample(counted, points, method=method, columns="t2m").collect()
        assert out["t2m"].item() == pytest.approx(ds.t2m.values[23, 3, 4])
    assert {counted.requests[key] for key in counted.chunks("t2m")} == {5}
    assert counted.chunks("t2m") == {"t2m/c/0/0/0"}


def test_points_that_have_no_value_read_nothing(url):
    counted = CountingStore(LocalStore(url, read_only=True))
    points = track(3).with_columns(lat=pl.Series([None, 99.0, float("nan")]))
    out = rd.sample(counted, points).collect()
    assert out.select("t2m", "sst").null_count().row(0) == (3, 3)
    assert_frame_equal(out.select(points.columns), points)
    assert rd.sample(counted, points.clear()).collect().shape == (0, 6)
    assert not counted.chunks("t2m")


def test_only_columns_that_the_query_needs_are_read(url):
    counted = CountingStore(LocalStore(url, read_only=True))
    lazy = rd.sample(counted, track(50))
    assert lazy.select("id", "lat").collect().equals(track(50).select("id", "lat"))
    assert not counted.chunks("t2m")
    lazy.filter(c.id < 1).select("t2m").collect()
    assert len(counted.chunks("t2m")) == 1
    lazy.filter(c.sst > 280).select("id").collect()
    assert len(counted.chunks("t2m")) == 1
    assert counted.chunks("sst")


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_shards_and_other_grids_have_the_same_values(url, ds, tmp_path, method):
    encoding = {"t2m": {"chunks": (6, 2, 5), "shards": (24, 4, 20)}, "sst": {"chunks": (48, 12, 20)}}
    ds.to_zarr(tmp_path / "a.zarr", encoding=encoding, zarr_format=3, consolidated=False)
    found = rd.sample(tmp_path / "a.zarr", track(300), method=method).collect()
    assert_frame_equal(found, rd.sample(url, track(300), method=method).collect(), check_exact=True)


def test_variables_of_child_groups_are_structs(tmp_path):
    coords = {"x": [0.0, 1.0, 2.0]}
    xr.Dataset({"a": ("x", [1.0, 2.0, 3.0])}, coords).to_zarr(tmp_path, zarr_format=3, consolidated=False)
    xr.Dataset({"b": ("x", [4.0, 5.0, 6.0])}, coords).to_zarr(
        tmp_path, group="child", zarr_format=3, consolidated=False
    )
    points = pl.DataFrame({"x": [0.5]})
    assert rd.sample(tmp_path, points, method="linear").collect().rows() == [(0.5, 1.5, {"b": 4.5})]
    assert rd.sample(
        rd.scan_zarr(tmp_path).filter(c.child.struct.field("b") > 4), points, method="linear"
    ).collect().rows() == [(0.5, None, {"b": None})]


def test_types_of_all_kinds_have_nearest_values():
    values = {
        "text": np.array(["a", "bb", ""], dtype=object),
        "flag": np.array([True, False, True]),
        "when": np.array(["2020-01-01", "2020-01-02", "NaT"], dtype="M8[ns]"),
    }
    store = in_memory(xr.Dataset({name: ("x", v) for name, v in values.items()}, {"x": [3, 1, 2]}))
    out = rd.sample(store, pl.DataFrame({"x": [1, 2, None, 3]})).collect()
    assert out["text"].to_list() == ["bb", "", None, "a"]
    assert out["flag"].to_list() == [False, True, None, True]
    assert out["when"].to_list() == [datetime(2020, 1, 2), None, None, datetime(2020, 1, 1)]
    caught(
        PointsError,
        lambda: rd.sample(store, pl.DataFrame({"x": [1]}), method="linear"),
        "cannot interpolate",
        "nearest",
    )


# ---------------------------------------------------------------------- filtered scans


def test_labels_that_a_filter_excludes_do_not_exist(url, ds):
    points = track(100)
    scan = (
        rd.scan_zarr(url)
        .filter(c.time.dt.hour().is_in([0, 12]), c.lat.is_between(-40, 40))
        .select("time", "lat", "lon", "t2m")
    )
    part = ds.t2m.sel(time=ds.time.dt.hour.isin([0, 12]), lat=slice(40, -40))
    at = {name: xr.DataArray(points[name].to_numpy(), dims="p") for name in ("time", "lat", "lon")}
    out = rd.sample(scan, points, outside="nearest").collect()
    assert out.columns == [*points.columns, "t2m"]
    assert (out["t2m"].to_numpy() == part.sel(at, method="nearest").values).all()
    linear = rd.sample(scan, points, method="linear").collect()["t2m"].to_numpy()
    expected = part.interp(at)
    np.testing.assert_allclose(linear[~np.isnan(linear)], expected.values[~np.isnan(expected)], rtol=1e-6)
    beside = rd.sample(scan, points.drop("time")).collect()
    assert beside.height == 100 * 4
    assert beside["time"].dt.hour().unique().sort().to_list() == [0, 12]


@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_cells_that_a_filter_excludes_are_null(url, ds, method):
    points = track(200)
    scan = rd.scan_zarr(url).filter((c.t2m > 275) | (c.lat + c.lon < 100))
    out = rd.sample(scan, points, method=method).collect()
    warm = ds.where((ds.t2m > 275) | (ds.lat + ds.lon < 100))
    store = in_memory(warm)
    assert_frame_equal(out, rd.sample(store, points, method=method).collect().select(out.columns), rel_tol=1e-6)
    assert 0 < out["sst"].null_count() < 200
    whole = rd.sample(scan, points.drop("time").head(3), method=method).collect()
    assert_frame_equal(
        whole,
        rd.sample(store, points.drop("time").head(3), method=method).collect().select(whole.columns),
        rel_tol=1e-6,
    )


def test_a_scan_without_rows_gives_nulls(url):
    for condition in (c.lat > 1000, pl.lit(value=False), c.t2m > 1e9):
        out = rd.sample(rd.scan_zarr(url).filter(condition), track(2)).collect()
        assert out["t2m"].to_list() == [None, None]
    assert rd.sample(rd.scan_zarr(url).filter(c.time.is_null()), track(2).drop("time")).collect().height == 0


def test_a_query_that_does_more_than_filter_is_refused(url):
    caught(
        QueryError, lambda: rd.sample(rd.scan_zarr(url).with_columns(a=c.lat + 1), track(1)), "does more than filter"
    )
    caught(QueryError, lambda: rd.sample(rd.scan_zarr(url).head(3), track(1)))
    caught(QueryError, lambda: rd.to_dask_dataframe(rd.sample(url, track(1))), "does more than filter")


def test_a_dimension_without_coordinate_has_its_index():
    store = in_memory(xr.Dataset({"a": (("y", "x"), np.arange(6.0).reshape(2, 3))}))
    points = pl.DataFrame({"x": [0, 1, 2, 3], "y": [1, 0, 1, 0]})
    assert rd.sample(store, points).collect()["a"].to_list() == [3.0, 1.0, 5.0, None]
    scan = rd.scan_zarr(store).filter(c.x + c.a < 7)
    assert rd.sample(scan, points).collect()["a"].to_list() == [3.0, 1.0, None, None]


# ---------------------------------------------------------------------- circles and curvilinear grids


@pytest.mark.parametrize("start", [0.0, -180.0])
def test_longitudes_of_a_whole_circle_wrap(start):
    lon = start + np.arange(0, 360, 10.0)
    store = in_memory(xr.Dataset({"a": ("lon", np.cos(np.radians(lon)))}, {"lon": lon}))
    points = pl.DataFrame({"lon": [-5.0, 355.0, 715.0, 175.0, -185.0]})
    for method in ("nearest", "linear", "cubic"):
        found = rd.sample(store, points, method=method).collect()["a"].to_numpy()
        if method != "nearest":
            np.testing.assert_allclose(found, [found[0]] * 3 + [found[3]] * 2)
            assert abs(found[0] - np.cos(np.radians(5))) < (4e-3 if method == "linear" else 1e-4)
        assert np.isfinite(found).all()
    assert rd.sample(store, points, method="linear", wrap=None).collect()["a"].null_count() > 0


def test_keys_are_shifted_before_they_are_rounded():
    """The labels have 24 bits, and the same labels minus a period have others."""
    labels = np.arange(0, 3600, 3) / 10
    store = in_memory(xr.Dataset({"a": ("lon", np.arange(1200.0))}, {"lon": labels.astype("f4")}))
    points = pl.DataFrame({"lon": (labels - 360).round(1)})
    assert rd.sample(store, points, method="exact").collect()["a"].to_list() == list(range(1200))


def test_a_circle_that_repeats_its_first_label_and_one_of_another_period():
    lon = np.arange(0, 361, 10.0)
    store = in_memory(xr.Dataset({"a": ("lon", np.arange(37.0))}, {"lon": lon}))
    points = pl.DataFrame({"lon": [0.0, 360.0, 365.0, -10.0]})
    assert rd.sample(store, points).collect()["a"].to_list() == [0.0, 0.0, 1.0, 35.0]
    day = in_memory(xr.Dataset({"a": ("hour", np.arange(24.0))}, {"hour": np.arange(24)}))
    points = pl.DataFrame({"hour": [-1, 24, 25]})
    assert rd.sample(day, points, wrap={"hour": 24}).collect()["a"].to_list() == [23.0, 0.0, 1.0]
    assert rd.sample(day, pl.DataFrame({"hour": [23.5]}), wrap=24, method="linear").collect()["a"].to_list() == [11.5]


def curved():
    y, x = np.meshgrid(np.arange(20.0), np.arange(30.0), indexing="ij")
    coords = {"lat": (("y", "x"), 40 + y * 0.3 + x * 0.05), "lon": (("y", "x"), 170 + x * 0.7 - y * 0.1)}
    return xr.Dataset({"a": (("t", "y", "x"), np.arange(1200.0).reshape(2, 20, 30))}, coords | {"t": [0, 1]})


def on_sphere(lon, lat):
    lon, lat = np.radians(lon), np.radians(lat)
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def test_curvilinear_grids_have_the_nearest_cell_on_the_sphere():
    ds, rng = curved(), np.random.default_rng(3)
    points = pl.DataFrame(
        {"t": rng.integers(0, 2, 200), "lon": rng.uniform(171, 187, 200), "lat": rng.uniform(41, 46, 200)}
    )
    points = points.with_columns(lon=pl.when(c.lon > 180).then(c.lon - 360).otherwise(c.lon))
    out = rd.sample(in_memory(ds), points, distance="far", coordinates=True, outside="nearest").collect()
    cells = on_sphere(ds.lon.values.ravel(), ds.lat.values.ravel())
    angles = np.arccos(np.clip(on_sphere(points["lon"].to_numpy(), points["lat"].to_numpy()) @ cells.T, -1, 1))
    best = angles.argmin(axis=1)
    assert (out["a"].to_numpy() == ds.a.values.reshape(2, -1)[points["t"].to_numpy(), best]).all()
    np.testing.assert_allclose(out["far"].to_numpy(), angles.min(axis=1) * 6_371_008.8, rtol=1e-6)
    assert (out["lat_grid"].to_numpy() == ds.lat.values.ravel()[best]).all()
    near = rd.sample(in_memory(ds), points, tolerance={"lat": 10_000}, outside="nearest").collect()
    assert (near["a"].is_null() == (out["far"] > 10_000)).all()


def test_points_outside_of_a_curvilinear_grid_are_null():
    store = in_memory(curved())
    inside = pl.DataFrame({"t": [0, 0], "lon": [180.0, 171.0], "lat": [44.0, 41.5]})
    beyond = pl.DataFrame({"t": [0, 0], "lon": [180.0, None], "lat": [60.0, 44.0]})
    assert rd.sample(store, inside).collect()["a"].null_count() == 0
    assert rd.sample(store, beyond).collect()["a"].null_count() == 2
    caught(PointsError, lambda: rd.sample(store, beyond, outside="error").collect(), "outside")
    exact = pl.DataFrame({"t": [1, 1], "lon": [170.6, 170.61], "lat": [40.35, 40.35]})
    assert rd.sample(store, exact, method="exact").collect()["a"].to_list() == [631.0, None]
    caught(PointsError, lambda: rd.sample(store, inside, method="linear"), "two dimensions", "nearest")
    caught(PointsError, lambda: rd.sample(store, inside, ["lat", "t"]), "longitude and a latitude")


def test_the_distance_to_a_regular_cell(url):
    points = pl.DataFrame({"lat": [82.5, 82.5], "lon": [0.0, 9.5]})
    out = rd.sample(url, points, distance="far", columns="t2m").head(96).collect()
    assert out["far"].unique().sort().to_list() == pytest.approx(
        [0.0, 6_371_008.8 * np.radians(8.5) * np.cos(np.radians(82.5))], rel=1e-2
    )
    caught(PointsError, lambda: rd.sample(url, points, "lat", distance="far"), "longitude and a latitude")


# ---------------------------------------------------------------------- types of keys


@pytest.mark.parametrize("unit", ["ms", "us", "ns"])
def test_keys_of_another_unit_of_time(url, ds, unit):
    points = pl.DataFrame({"time": pl.Series(ds.time.values[[0, 7]]).cast(pl.Datetime(unit)), "lat": 82.5, "lon": 0.0})
    out = rd.sample(url, points, method="exact").collect()
    assert out["t2m"].to_list() == ds.t2m.values[[0, 7], 0, 0].tolist()
    assert out.schema["time"] == pl.Datetime(unit)


@pytest.mark.parametrize("last", ["2020-01-02", "3000-01-01"])
def test_a_finer_key_is_not_rounded_to_a_label(last):
    """Nanoseconds cannot count to the year 3000."""
    store = MemoryStore()
    group = zarr.open_group(store, mode="w", zarr_format=2)
    times = np.array(["2020-01-01", last], dtype="M8[us]")
    for name, values in {"time": times, "a": np.array([1.0, 2.0])}.items():
        group.create_array(name, data=values, chunks=(2,), attributes={"_ARRAY_DIMENSIONS": ["time"]})
    assert rd.scan_zarr(store).collect_schema()["time"] == pl.Datetime("us")
    keys = pl.DataFrame({"time": pl.Series([1577836800000000001, 1577836800000000000]).cast(pl.Datetime("ns"))})
    assert rd.sample(store, keys, method="exact").collect()["a"].to_list() == [None, 1.0]
    days = pl.DataFrame({"time": [date.fromisoformat(last)]})
    assert rd.sample(store, days, method="exact").collect()["a"].to_list() == [2.0]
    late = pl.DataFrame({"time": pl.Series([datetime(9999, 1, 1)]).cast(pl.Datetime("us"))})
    assert rd.sample(store, late, outside="nearest").collect()["a"].to_list() == [2.0]


def test_float_keys_are_rounded_to_float32_labels():
    """As xarray does: 0.1 finds the label that was written as 0.1."""
    store = in_memory(xr.Dataset({"a": ("x", [1.0, 2.0])}, {"x": np.array([0.1, 0.2], "f4")}))
    assert rd.sample(store, pl.DataFrame({"x": [0.1, 0.15]}), method="exact").collect()["a"].to_list() == [1.0, None]


def test_large_integers_and_texts_are_compared_exactly():
    for labels, keys in (
        (np.array([2**63, 2**63 + 1], "u8"), pl.Series([2**63 + 1, 5], dtype=pl.UInt64)),
        (np.array([2**60, 2**60 + 1]), pl.Series([2**60 + 1, 5])),
        (np.array(["oslo", "bern"], dtype=object), pl.Series(["bern", "rome"])),
        (np.array(["oslo", "bern"], dtype=object), pl.Series(["bern", "rome"], dtype=pl.Categorical)),
    ):
        store = in_memory(xr.Dataset({"a": ("x", [1.0, 2.0])}, {"x": labels}))
        assert rd.sample(store, pl.DataFrame({"x": keys}), method="exact").collect()["a"].to_list() == [2.0, None]
    caught(PointsError, lambda: rd.sample(store, pl.DataFrame({"x": ["bern"]})), "no distances", "exact")


@pytest.mark.parametrize("labels", [np.array([0.0, 1.0, 3.0]), np.array([0, 2, 6]), np.array([3.0, 1.0, 0.0], "f4")])
def test_half_a_step_beyond_the_ends_is_inside(labels):
    store = in_memory(xr.Dataset({"a": ("x", labels.astype("f8"))}, {"x": labels}))
    low, high = float(labels.min()) - (1 if labels.dtype.kind == "i" else 0.5), float(labels.max()) * 4 / 3
    keys = pl.DataFrame({"x": [low, low - 0.001, high, high + 0.001]})
    ends = [float(labels.min()), None, float(labels.max()), None]
    assert rd.sample(store, keys).collect()["a"].to_list() == ends
    whole = pl.DataFrame({"x": [-1, -2, 8, 9]})
    if labels.dtype.kind == "i":
        assert rd.sample(store, whole).collect()["a"].to_list() == ends


def test_a_single_label_is_near_everything_but_only_within_a_tolerance():
    store = in_memory(xr.Dataset({"a": ("time", [1.0])}, {"time": np.array(["2020-01-01"], "M8[ns]")}))
    points = pl.DataFrame({"time": [datetime(2020, 1, 1, 5), datetime(2021, 1, 1)]})
    assert rd.sample(store, points).collect()["a"].to_list() == [1.0, 1.0]
    assert rd.sample(store, points, tolerance=timedelta(hours=5)).collect()["a"].to_list() == [1.0, None]
    assert rd.sample(store, points, method="linear", outside="nearest").collect()["a"].to_list() == [1.0, 1.0]


def test_infinity_without_weight_does_not_spoil_a_value():
    store = in_memory(xr.Dataset({"a": ("x", [1.0, np.inf, np.nan])}, {"x": [0.0, 1.0, 2.0]}))
    out = rd.sample(store, pl.DataFrame({"x": [0.0, 1.0, 0.5, 1.5]}), method="linear").collect()["a"].to_list()
    assert out[:3] == [1.0, np.inf, np.inf]
    assert out[3] is None or np.isnan(out[3])


# ---------------------------------------------------------------------- clusters


@pytest.mark.cluster
@pytest.mark.parametrize("method", ["nearest", "linear"])
def test_workers_give_the_rows_of_threads(url, client, method):
    points = track(500).with_columns(lat=pl.when(c.id != 7).then("lat"))
    kept = points.drop("time").head(20)
    with dask.config.set({"rainbear-dask.task-bytes": 8192}):
        there = [rd.sample(url, some, method=method).collect() for some in (points, kept)]
        with dask.config.set({"rainbear-dask.small-plan-bytes": 2**40}):
            here = [rd.sample(url, some, method=method).collect() for some in (points, kept)]
    for found, expected in zip(there, here, strict=True):
        assert_frame_equal(found, expected, check_exact=True)
    lazy = rd.sample(url, points.lazy(), method=method, client=client)
    assert_frame_equal(lazy.collect(engine="streaming"), here[0], check_exact=True)
    assert_frame_equal(pickle.loads(pickle.dumps(lazy)).collect(), here[0], check_exact=True)


@pytest.mark.cluster
def test_many_points_travel_in_several_messages(url, client, monkeypatch):
    """Dask warns of large messages."""
    monkeypatch.setattr("rainbear_dask.sampling.gather._MAX_TASK_ENTRIES", 500)
    monkeypatch.setattr("rainbear_dask.execution.executors.MAX_MESSAGE_BYTES", 10_000)
    with dask.config.set({"distributed.admin.large-graph-warning-threshold": "40 kB"}):
        found = rd.sample(url, track(20_000), method="linear").collect()
    assert_frame_equal(found, rd.sample(url, track(20_000), method="linear").filter(c.id >= 0).collect())


@pytest.mark.cluster
@pytest.mark.filterwarnings("default")  # a killed worker leaves its sockets to the garbage collector
def test_a_worker_that_is_killed_changes_no_value(url, monkeypatch):
    monkeypatch.setattr("rainbear_dask.sampling.gather.MIN_TASK_BYTES", 2000)
    points = track(2000)
    expected = rd.sample(url, points, method="linear").collect()
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as cluster,
        cluster.get_client() as client,
    ):
        processes = list(client.run(os.getpid).values())
        kill = threading.Timer(0.05, os.kill, (random.Random(1).choice(processes), signal.SIGKILL))
        kill.start()
        for _ in range(2):
            assert_frame_equal(
                rd.sample(url, points, method="linear", client=client).collect(), expected, check_exact=True
            )
        kill.join()


@pytest.mark.cluster
def test_a_damaged_chunk_is_named_from_a_worker(url, tmp_path, client):
    ds = xr.open_zarr(url, consolidated=False)
    ds.to_zarr(tmp_path / "a.zarr", zarr_format=3, consolidated=False)
    (tmp_path / "a.zarr" / "t2m" / "c" / "0" / "0" / "0").write_bytes(b"damaged")
    points = pl.DataFrame({"time": ds.time.values, "lat": 82.5, "lon": 0.0})
    caught(
        rd.exceptions.ChunkReadError,
        lambda: rd.sample(tmp_path / "a.zarr", points, columns="t2m", client=client).collect(),
        "t2m",
    )


def test_keys_of_tasks_follow_from_their_content(url):

    def keys(points):
        tasks = []
        with pytest.MonkeyPatch.context() as patch:
            patch.setattr("rainbear_dask.sampling.batch.run_task", lambda task: tasks.append(task) or run_task(task))
            rd.sample(url, points, method="linear").collect()
        return set(build_graph(tasks, run_task))

    first = keys(track(9))
    assert len(first) == 1
    assert first == keys(track(9))
    assert first.isdisjoint(keys(track(9, seed=1)))


# ---------------------------------------------------------------------- lf.zarr


def test_nearest_labels_become_a_filter_that_prunes(url, ds):
    counted = CountingStore(LocalStore(url, read_only=True))
    lazy = rd.scan_zarr(counted).zarr.nearest(lat=51.0, lon=[-19.0, 341, 40], time=datetime(2020, 2, 1, 0, 20))
    at = ds.sel(lat=51.0, lon=[36, 342], time="2020-02-01T00:00", method="nearest")
    out = lazy.collect()
    assert out.select("lat", "lon").rows() == [(at.lat.item(), 36.0), (at.lat.item(), 342.0)]
    assert out["t2m"].to_list() == at.t2m.values.ravel().tolist()
    assert len(counted.chunks("t2m")) == 2
    several = rd.scan_zarr(url).filter(c.time.dt.hour() == 0).with_columns(a=c.t2m * 2)
    assert several.zarr.nearest(time=datetime(2020, 2, 1, 9)).select(c.time.unique()).collect().rows() == [
        (datetime(2020, 2, 1),)
    ]


def test_points_by_the_namespace(url):
    scan = rd.scan_zarr(url).filter(c.lat > 0)
    assert_frame_equal(
        scan.zarr.sample(track(9), method="linear").collect(), rd.sample(scan, track(9), method="linear").collect()
    )


def test_labels_that_do_not_exist(url):
    lazy = rd.scan_zarr(url)
    caught(PointsError, lambda: lazy.zarr.nearest(lat=99.0), "'lat'", "99.0")
    caught(PointsError, lambda: lazy.zarr.nearest(lat=[1.0, None]), "None", "'lat'")
    caught(PointsError, lambda: lazy.zarr.nearest(time="2020-02-01"), "to_datetime")
    caught(PointsError, lazy.zarr.nearest, "at least one dimension")
    caught(UnknownColumnError, lambda: lazy.zarr.nearest(latt=1.0), "'lat'")
    caught(QueryError, lambda: pl.LazyFrame({"lat": [1.0]}).zarr.nearest(lat=1.0), "one Zarr scan")


# ---------------------------------------------------------------------- limits


def test_the_limits_of_a_scan_hold_for_points(url):
    scan = rd.scan_zarr(url, max_chunks_to_read=5)
    assert rd.sample(scan, track(3)).collect().height == 3
    for limit in ({"max_chunks_to_read": 5}, {"max_rows": 99}, {"max_bytes": 5000}):
        counted = CountingStore(LocalStore(url, read_only=True))
        lazy = rd.sample(rd.scan_zarr(counted, **limit), track(100))
        caught(rd.exceptions.PlanTooLargeError, lazy.collect, f"{next(iter(limit))} exceeded")
        assert not counted.chunks("t2m")


# ---------------------------------------------------------------------- reports


def test_the_report_shows_the_chunks_that_points_need(url):
    text = rd.explain(rd.sample(url, track(3), method="linear").select("t2m"))
    assert "of 24" in text
    assert "3 points, linear" in text
    counted = CountingStore(LocalStore(url, read_only=True))
    rd.explain(rd.sample(counted, track(3)))
    assert not counted.chunks("t2m")


@pytest.mark.parametrize(
    ("options", "ask"),
    [
        ({"method": "linear"}, lambda lf: lf),
        ({"method": "nearest"}, lambda lf: lf.select("t2m")),
        ({"method": "linear", "columns": ["sst", "t2m"]}, lambda lf: lf.head(7)),
        ({"method": "linear"}, lambda lf: lf.filter(c.t2m > 0)),
        ({"method": "nearest"}, lambda lf: lf.filter(c.t2m.is_null() & c.t2m.is_not_null())),
    ],
)
@pytest.mark.parametrize("small", [False, True])
def test_the_report_counts_the_tasks_and_rows_of_the_sample(url, options, ask, small, monkeypatch):
    run = []
    monkeypatch.setattr(gather, "MIN_TASK_BYTES", 1)
    monkeypatch.setattr(source, "_MAX_CELLS", 64 if small else 2**23)
    monkeypatch.setattr(batch, "run_task", lambda task, actual=batch.run_task: run.append(task) or actual(task))
    query = ask(rd.sample(url, track(40), **options))
    report = rd.explain(query)
    with rd.progress(file=io.StringIO()):
        rows = query.collect().height
    assert report.tasks == len(run) > 0
    assert rows <= report.rows <= 40
    assert report.memory >= max(task.frame_bytes for task in run)
    assert str(report).startswith(f"SAMPLE {url}")


def test_a_bar_shows_the_tasks(url):
    shown = io.StringIO()
    with rd.progress(file=shown):
        rd.sample(url, track(9)).collect()
    assert f"sample {url}"[-50:] in shown.getvalue()
    assert "100%" in shown.getvalue()


# ---------------------------------------------------------------------- bad input


def test_names_that_do_not_exist(url):
    points = track(2)
    caught(UnknownColumnError, lambda: rd.sample(url, points, {"latt": "lat"}), "'latt'", "Did you mean 'lat'?")
    caught(UnknownColumnError, lambda: rd.sample(url, points, {"lat": "latt"}), "the points", "'lat'")
    caught(UnknownColumnError, lambda: rd.sample(url, points, columns="t2mm"), "Did you mean 't2m'?")
    caught(
        UnknownColumnError, lambda: rd.sample(url, points.select("id")), "No column of the points", "on={'time': 'id'}"
    )
    scan = rd.scan_zarr(url).select("lat", "t2m")
    caught(UnknownColumnError, lambda: rd.sample(scan, points, columns="sst"), "'sst'")


@pytest.mark.parametrize(
    ("options", "words"),
    [
        ({"method": "lineer"}, ["'lineer'", "'linear'"]),
        ({"outside": "nul"}, ["outside", "'null'"]),
        ({"method": {"latt": "linear"}}, ["`method`", "'latt'", "'lat'"]),
        ({"tolerance": {"lat": timedelta(hours=1)}}, ["'lat'", "a number"]),
        ({"tolerance": 5}, ["'time'", "a timedelta", "each dimension"]),
        ({"tolerance": {"lat": -1}}, ["'lat'", "0 or more"]),
        ({"tolerance": {"lat": float("nan")}}, ["0 or more"]),
        ({"tolerance": {"lat": 1}, "method": "exact"}, ["contradicts"]),
        ({"outside": "extrapolate"}, ["interpolates"]),
        ({"wrap": {"time": 5}}, ["wrap=5", "'time'"]),
        ({"wrap": "atuo"}, ["wrap='atuo'"]),
        ({"wrap": {"lon": True}}, ["wrap=True"]),
        ({"on": []}, ["`on` is empty"]),
    ],
)
def test_arguments_that_contradict_are_refused(url, options, words):
    caught(PointsError, lambda: rd.sample(url, track(2), **options), *words)


@pytest.mark.parametrize(
    ("key", "words"),
    [
        (c.time.dt.to_string(), ["String", "to_datetime"]),
        (c.time.dt.replace_time_zone("Europe/Oslo"), ["Europe/Oslo", "convert_time_zone"]),
        (c.lat, ["Float64", "Datetime"]),
    ],
)
def test_points_of_another_type_are_refused(url, key, words):
    points = track(2).with_columns(time=key)
    caught(PointsError, lambda: rd.sample(url, points), "'time'", *words)


def test_points_that_are_no_frame_and_names_that_clash(url):
    caught(PointsError, lambda: rd.sample(url, [1, 2]), "list")
    clash = track(1).with_columns(t2m=1, t2m_grid=2)
    caught(PointsError, lambda: rd.sample(url, clash), "t2m_grid", "suffix")
    assert rd.sample(url, clash, suffix="_zarr").collect().columns[-2:] == ["sst", "t2m_zarr"]
    caught(rd.exceptions.UnknownOptionError, lambda: rd.sample(url, clash, metod="linear"), "`method`")


def test_points_outside_are_an_error_if_the_caller_says_so(url):
    points = track(3).with_columns(lat=pl.Series([0.0, 99.0, None]))
    caught(
        PointsError,
        lambda: rd.sample(url, points, outside="error").collect(),
        "1 of 3 points",
        "99.0",
        "'lat'",
    )
    caught(PointsError, lambda: rd.sample(url, points, method="linear", outside="error").collect(), "99.0")


def test_repeated_labels_have_no_curve():
    store = in_memory(xr.Dataset({"a": ("x", [1.0, 2.0, 3.0])}, {"x": [0.0, 0.0, 1.0]}))
    points = pl.DataFrame({"x": [0.0, 0.6]})
    assert rd.sample(store, points).collect()["a"].to_list() == [1.0, 3.0]
    caught(PointsError, lambda: rd.sample(store, points, method="linear").collect(), "repeat", "'nearest'")


def test_cubic_needs_four_labels():
    store = in_memory(xr.Dataset({"a": ("x", [1.0, 2.0, 3.0])}, {"x": [0.0, 1.0, 2.0]}))
    caught(PointsError, lambda: rd.sample(store, pl.DataFrame({"x": [0.5]}), method="cubic").collect(), "four labels")


def test_an_axis_without_labels_gives_nulls():
    store = in_memory(xr.Dataset({"a": ("x", np.zeros(0))}, {"x": np.zeros(0)}))
    assert rd.sample(store, pl.DataFrame({"x": [0.5]})).collect()["a"].to_list() == [None]


def test_an_array_of_more_than_two_to_the_31_cells():
    store = MemoryStore()
    group = zarr.open_group(store, mode="w")
    array = group.create_array(
        "a", shape=(2**17, 2**17), chunks=(2**10, 2**10), dtype="i1", fill_value=3, dimension_names=["y", "x"]
    )
    array[2**17 - 1, 2**17 - 2 :] = 7
    points = pl.DataFrame({"y": [2**17 - 1, 0], "x": [2**17 - 1, 2**17 - 1]})
    assert rd.sample(store, points).collect()["a"].to_list() == [7, 3]
