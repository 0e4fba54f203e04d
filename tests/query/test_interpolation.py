"""Expressions of interpolars: the same answers as on the whole frame, from the chunks of their stencils alone."""

import asyncio
import itertools
import pickle
import sys
import threading
import warnings
from contextlib import contextmanager, nullcontext
from datetime import date, datetime, timedelta
from unittest.mock import patch

import dask.array as da
import numpy as np
import polars as pl
import polars.selectors as cs
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal
from scipy.interpolate import RegularGridInterpolator

import rainbear_dask as rd
from rainbear_dask.query import interpolation, pieces
from tests.support.oracle import expected_frame

if sys.version_info < (3, 12):
    pytest.skip("interpolars needs Python 3.12", allow_module_level=True)

from interpolars import interpolate_geospatial, interpolate_nd

pytestmark = pytest.mark.filterwarnings("ignore:The interpolation has several rows")

c = pl.col
METHODS = ["linear", "nearest", "cubic", "pchip", "akima", "makima"]
CHUNKS = {"time": 2, "lat": 3, "lon": 4}
BESIDE = {"linear": 0, "pchip": 1, "akima": 2, "makima": 2}


def dataset(lat, lon) -> xr.Dataset:
    time = np.datetime64("2020-01-01", "ns") + np.arange(5) * np.timedelta64(1, "D")
    size = (5, len(lat), len(lon))
    rng = np.random.default_rng(len(lon))
    coords = {"time": time, "lat": lat, "lon": lon, "lead": ("time", np.arange(5) * np.timedelta64(6, "h"))}
    return xr.Dataset({name: (tuple(CHUNKS), rng.normal(size=size)) for name in ("v", "w")}, coords)


DATASETS = {
    "up": dataset(np.arange(10.0), np.arange(12.0) * 3),
    "down": dataset(np.arange(10.0)[::-1] ** 2 / 8, np.arange(13, dtype="f4") - 3),
    "circle": dataset(np.linspace(90, -90, 9), np.arange(12) * 30),
    "strewn": dataset(np.array([3.0, 0, 5, 1, 9, 7, 2]), np.array([1.0, 4, 2, 8, 16, 32])),
}


@pytest.fixture(scope="module")
def paths(tmp_path_factory):
    folder = tmp_path_factory.mktemp("interpolation")
    for name, each in DATASETS.items():
        chunks = {variable: {"chunks": tuple(CHUNKS.values())} for variable in each.data_vars}
        each.to_zarr(folder / name, encoding=chunks, zarr_format=2)
    return {name: str(folder / name) for name in DATASETS}


@pytest.fixture(scope="module")
def frames(paths):
    return {name: expected_frame(path) for name, path in paths.items()}


def chunks_of(path, expr) -> set[tuple[int, ...]]:
    found = rd.ZarrBackendSync.from_url(path).selected_chunks_debug(expr)
    return {tuple(chunk["indices"]) for grid in found["grids"] if len(grid["dims"]) == 3 for chunk in grid["chunks"]}


def product(time=range(5), lat=range(10), lon=range(12)) -> set[tuple[int, ...]]:
    """The chunks of a product of positions."""
    sets = [{at // size for at in part} for part, size in zip((time, lat, lon), CHUNKS.values(), strict=True)]
    return set(itertools.product(*sets))


def answers(path, expr) -> list[pl.DataFrame]:
    """The answer of each way to ask."""
    backend = rd.ZarrBackendSync.from_url(path)
    lf = rd.scan_zarr(path).select(expr)
    return [
        backend.scan_zarr_sync(expr),
        asyncio.run(rd.scan_zarr_async(path, expr)),
        lf.collect(),
        rd.collect(lf),
        lf.collect(engine=rd.Engine()),
    ]


def assert_same(found, expected):
    if expected.columns == ["interpolated"]:
        found, expected = found.unnest("interpolated"), expected.unnest("interpolated")
    assert_frame_equal(found, expected, rel_tol=1e-9, abs_tol=1e-9)


def targets(**columns) -> pl.DataFrame:
    return pl.DataFrame(columns)


# ---------------------------------------------------------------------- values


def points(low, high, labels):
    """Targets on labels, between them, outside of them, and NaN."""
    on = st.sampled_from([float(label) for label in labels])
    return st.one_of(
        on, st.floats(low - 3, high + 3, allow_nan=False).map(lambda x: round(x, 3)), st.just(float("nan"))
    )


@contextmanager
def in_pieces():
    """Divide small jobs too."""
    with (
        patch.object(interpolation, "WHOLE", -1),
        patch.object(pieces, "WHOLE", -1),
        patch.object(pieces, "_TARGETS", 1),
    ):
        yield


@settings(max_examples=60 if settings().max_examples == 100 else settings().max_examples)
@given(data=st.data())
def test_law(data, paths, frames):
    name = data.draw(st.sampled_from(list(DATASETS)))
    source, frame = DATASETS[name], frames[name]
    lat, lon = source["lat"].values, source["lon"].values
    number = data.draw(st.integers(1, 6))
    asked = pl.DataFrame(
        {
            dim: data.draw(st.lists(points(labels.min(), labels.max(), labels), min_size=number, max_size=number))
            for dim, labels in (("lat", lat), ("lon", lon))
        },
        schema={"lat": pl.Float64, "lon": pl.Float64},
    ).with_columns(label=pl.int_range(pl.len()).cast(pl.String))
    more = data.draw(st.sampled_from([{}, {"handle_missing": "drop"}, {"handle_missing": "fill", "fill_value": 0.0}]))
    extrapolate = data.draw(st.booleans())
    if data.draw(st.booleans()):
        expr = interpolate_nd(
            ["lat", "lon", *data.draw(st.sampled_from([[], ["time"]]))],
            ["v", "w"],
            asked,
            method=data.draw(st.sampled_from(METHODS)),
            extrapolate=extrapolate,
            **more,
        )
    else:
        expr = interpolate_geospatial(
            "lat",
            "lon",
            ["v"],
            asked,
            method=data.draw(st.sampled_from(["tensor_product", "slerp", "idw", "rbf"])),
            tensor_method=data.draw(st.sampled_from(METHODS)),
            extrapolate=extrapolate,
            **more,
        )
    before = data.draw(
        st.sampled_from(
            [None, c("lat") > 1, (c("lon") < 7) | (c("lon") > 11), (c("time").dt.day() > 2) & (c("lon") > 1)]
        )
    )
    rows = frame if before is None else frame.filter(before)
    expected = rows.select(expr)
    lf = rd.scan_zarr(paths[name])
    with in_pieces() if data.draw(st.booleans()) else nullcontext():
        assert_same((lf if before is None else lf.filter(before)).select(expr).collect(), expected)
        if before is None:
            assert_same(rd.ZarrBackendSync.from_url(paths[name]).scan_zarr_sync(expr), expected)


@pytest.mark.parametrize("method", METHODS)
def test_xarray_and_scipy_agree(method, paths):
    asked = targets(lat=[3.3, 6.0, 1.75], lon=[4.0, 20.25, 30.0])
    source = DATASETS["up"].isel(time=2)
    expr = interpolate_nd(["lat", "lon"], ["v"], asked, method=method).struct.field("v")
    expr_at = interpolate_nd(["lat", "lon"], [c("v").filter(c("time") == datetime(2020, 1, 3))], asked, method=method)
    found = rd.ZarrBackendSync.from_url(paths["up"]).scan_zarr_sync(expr_at.struct.field("v"))["v"].to_numpy()
    at = {dim: xr.DataArray(asked[dim].to_numpy(), dims="point") for dim in ("lat", "lon")}
    if method == "nearest":
        np.testing.assert_array_equal(found, source["v"].sel(at, method="nearest"))
    else:
        kind = {"pchip": "pchip", "cubic": "cubic", "akima": "akima", "makima": "makima"}.get(method, "linear")
        one_by_one = [
            float(source["v"].interp(lon=lon, method=kind).interp(lat=lat, method=kind)) for lat, lon in asked.rows()
        ]
        np.testing.assert_allclose(found, one_by_one, rtol=1e-12, atol=1e-12)
    if method == "linear":
        grid = RegularGridInterpolator((source["lat"].values, source["lon"].values), source["v"].values)
        np.testing.assert_allclose(found, grid(asked.to_numpy()), rtol=1e-12, atol=1e-12)
    last = DATASETS["up"].isel(time=-1)["v"]  # interpolars takes the last row of each place
    assert expr.meta.output_name() == "v"
    assert_same(
        rd.scan_zarr(paths["up"]).filter(c("time") == datetime(2020, 1, 5)).select(expr).collect(),
        rd.scan_zarr(paths["up"]).select(expr).collect(),
    )
    assert last.shape == (10, 12)


# ---------------------------------------------------------------------- chunks


@pytest.mark.parametrize("extrapolate", [False, True])
@pytest.mark.parametrize("method", METHODS)
def test_chunks_are_the_product_of_the_stencils(method, extrapolate, paths):
    asked = targets(lat=[0.5, 4.0, 50.0], lon=[4.0, 6.0, 4.0])
    expr = interpolate_nd(["lat", "lon"], ["v"], asked, method=method, extrapolate=extrapolate)
    beside = BESIDE.get(method, 0)
    if method == "cubic":
        lat = range(10)
    elif method == "nearest":
        lat = [0, 4, 9]
    else:
        lat = [*range(2 + beside), 4, *(range(8 - beside, 10) if extrapolate else [9])]
    lon = {"cubic": range(12), "nearest": [1, 2]}.get(method, [at for at in range(1 - beside, 3 + beside) if at >= 0])
    assert chunks_of(paths["up"], expr) == product(lat=lat, lon=lon)


@pytest.mark.parametrize(
    ("expr", "expected"),
    [
        (interpolate_nd(["lat", "lon", "time"], ["v"], targets(lat=[1.5], lon=[4.0])), {"lat": [1, 2], "lon": [1, 2]}),
        (interpolate_nd([c("lat") * 2, "lon"], ["v"], targets(lat=[3.0], lon=[3.0])), {"lat": [1, 2], "lon": [1]}),
        (interpolate_nd([c("lat").alias("y")], ["v"], targets(y=[3.5])), {"lat": [3, 4]}),
        (interpolate_nd(["lat"], [c("v") * 2 + c("w")], targets(lat=[3.5])), {"lat": [3, 4]}),
        (interpolate_nd(["lat"], [cs.by_name("v")], targets(lat=[3.5])), {"lat": [3, 4]}),
        (interpolate_nd(["lat"], [c(["v", "w"])], targets(lat=[3.5])), {"lat": [3, 4]}),
        (interpolate_nd(["lat"], ["v"], targets(lat=pl.Series([4], dtype=pl.Int8))), {"lat": [4]}),
        (interpolate_nd(["time"], ["v"], targets(time=[date(2020, 1, 2)])), {"time": [1]}),
        (interpolate_nd(["time"], ["v"], targets(time=[datetime(2020, 1, 2, 6)])), {"time": [1, 2]}),
        (interpolate_nd(["lead"], ["v"], targets(lead=[timedelta(hours=13)])), {"time": [2, 3]}),
        (interpolate_nd(["lat"], ["v"], targets(lat=[3.5]), handle_missing="drop"), {}),
        (interpolate_nd(["lat"], ["v"], targets(lat=[3.5]), handle_missing="nearest"), {}),
        (interpolate_nd(["lat"], ["v"], targets(lat=[3.5]), handle_missing="fill", fill_value=0.0), {"lat": [3, 4]}),
        (interpolate_nd(["lat"], [c("v").cum_sum()], targets(lat=[3.5])), {}),
        (interpolate_nd([c("lat") + c("lon") * 0], ["v"], targets(lat=[3.5])), {}),
        (interpolate_geospatial("lat", "lon", ["v"], targets(lat=[3.5], lon=[4.0])), {"lat": [3, 4]}),
        (interpolate_geospatial("lat", "lon", ["v"], targets(lat=[3.5], lon=[4.0]), method="slerp"), {"lat": [3, 4]}),
        (
            interpolate_geospatial("lat", "lon", ["v"], targets(lat=[3.5], lon=[4.0]), tensor_method="pchip"),
            {"lat": [2, 3, 4, 5]},
        ),
        (interpolate_geospatial("lat", "lon", ["v"], targets(lat=[3.5], lon=[4.0]), method="idw"), {}),
        (interpolate_geospatial("lat", "lon", ["v"], targets(lat=[3.5], lon=[4.0]), method="rbf"), {}),
        (  # two interpolations of one expression
            interpolate_nd(["lat"], ["v"], targets(lat=[0.5])).struct.field("v").mean()
            + interpolate_nd(["lon"], ["v"], targets(lon=[3.0])).struct.field("v").mean(),
            None,
        ),
    ],
)
def test_chunks_of_forms(expr, expected, paths, frames):
    wanted = product(lat=[0, 1]) | product(lon=[1]) if expected is None else product(**expected)
    assert chunks_of(paths["up"], expr) == wanted
    report = rd.explain(rd.scan_zarr(paths["up"]).select(expr))
    assert report.chunks_kept in {len(wanted), 2 * len(wanted)}  # of one variable or two
    for found in answers(paths["up"], expr):
        assert_same(found, frames["up"].select(expr))


def test_descending_axes_and_filters_before(paths, frames):
    asked = targets(lat=[4.2], lon=[0.25])
    expr = interpolate_nd(["lat", "lon"], ["v"], asked, method="pchip")
    lf = rd.scan_zarr(paths["down"]).filter(c("lon") >= 0, c("time") == datetime(2020, 1, 4))
    query = lf.select(expr)
    # labels of lat are 10.125, 8, 6.125, 4.5, 3.125, ...; of lon, -3 to -1 are filtered before
    assert {tuple(box) for box in rd.explain(query).plans[0].selection.boxes} == {("lat", "lon", "time")}
    (box,) = rd.explain(query).plans[0].selection.boxes
    assert box["lat"].positions().tolist() == [2, 3, 4, 5]
    assert box["lon"].positions().tolist() == [3, 4, 5]
    expected = frames["down"].filter(c("lon") >= 0, c("time") == datetime(2020, 1, 4)).select(expr)
    assert_same(query.collect(), expected)


def test_rows_that_are_no_product_are_left_to_interpolars(paths):
    expr = interpolate_nd(["lat", "lon"], ["v"], targets(lat=[3.5], lon=[4.0]))
    two_boxes = ((c("lat") < 5) & (c("lon") < 9)) | ((c("lat") > 6) & (c("lon") > 20))
    with pytest.raises(pl.exceptions.ComputeError, match="source grid missing points"):
        rd.scan_zarr(paths["up"]).filter(two_boxes).select(expr).collect()
    twice = interpolate_nd(["time", "lead"], ["v"], targets(time=[DAY], lead=[timedelta(hours=12)]))
    with pytest.raises(pl.exceptions.ComputeError, match="source grid missing points"):
        rd.scan_zarr(paths["up"]).select(twice).collect()
    values = rd.scan_zarr(paths["up"]).filter(c("v") > -9, c("time") == datetime(2020, 1, 4)).select(expr)
    at = rd.scan_zarr(paths["up"]).filter(c("time") == datetime(2020, 1, 4)).select(expr)
    assert rd.explain(values).chunks_kept > rd.explain(at).chunks_kept
    assert_same(values.collect(), at.collect())


def test_other_columns_and_steps_keep_all_rows(paths, frames):
    part = interpolate_nd(["lat"], ["v"], targets(lat=[3.5])).struct.field("v").mean()
    lf, frame = rd.scan_zarr(paths["up"]), frames["up"]
    assert_same(lf.select(part, m=c("w").mean()).collect(), frame.select(part, m=c("w").mean()))
    assert_same(lf.select(part, n=pl.len()).collect(), frame.select(part, n=pl.len()))
    assert_same(lf.head(300).select(part).collect(), frame.head(300).select(part))
    doubled = lf.with_columns(c("lat") * 2).select(part)
    assert_same(doubled.collect(), frame.with_columns(c("lat") * 2).select(part))
    named = lf.select(["lat", "v"]).select(x=part)
    assert rd.explain(named).chunks_kept == len(product(lat=[3, 4]))
    assert_same(named.collect(), frame.select(x=part))


# ---------------------------------------------------------------------- filters of values, and targets with a slice


DAY = datetime(2020, 1, 3)


@pytest.mark.parametrize(
    "values",
    [
        [c("v").filter(c("time") == DAY)],
        [c("v").filter(c("time") == DAY), c("w").filter(c("time") == DAY)],
        [c("v").filter(c("time") == DAY), "w"],
        [c("v").filter(c("time") >= DAY).filter(c("time") < datetime(2020, 1, 4))],
        [c("v").filter(c("time") == DAY).alias("v"), (c("w").filter(c("time") == DAY) * 1).alias("w")],
    ],
)
def test_filters_of_values_come_first(values, paths, frames):
    asked = targets(lat=[3.5, 7.0], lon=[4.0, 6.0], label=["a", "b"])
    expr = interpolate_nd(["lat", "lon"], values, asked)
    names = ["v", "w"][: len(values)]
    expected = frames["up"].filter(c("time") == DAY).select(interpolate_nd(["lat", "lon"], names, asked))
    assert chunks_of(paths["up"], expr) == product(time=[2], lat=[3, 4, 7], lon=[1, 2])
    for found in answers(paths["up"], expr):
        assert_same(found, expected)


def test_several_rows_for_each_place_are_warned_of(paths):
    asked = targets(lat=[3.5], lon=[4.0])
    lf = rd.scan_zarr(paths["up"])
    words = "because 'time' is not among its coordinates.*the last of them"
    with pytest.warns(rd.exceptions.SuspiciousFilterWarning, match=words):
        lf.select(interpolate_nd(["lat", "lon"], ["v"], asked))
    with pytest.warns(rd.exceptions.SuspiciousFilterWarning, match="because 'time' and 'lon' are not"):
        rd.ZarrBackendSync.from_url(paths["up"]).scan_zarr_sync(interpolate_nd(["lat"], ["v"], asked.select("lat")))
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        lf.select(interpolate_nd(["lat", "lon", "time"], ["v"], asked))
        lf.select(interpolate_nd(["lat", "lon", "lead"], ["v"], asked))
        lf.select(interpolate_nd(["lat", "lon"], ["lat"], asked))
        lf.select(interpolate_nd(["lat", "lon"], [c("v").filter(c("time") == DAY)], asked))
        lf.filter(c("time") == DAY).select(interpolate_nd(["lat", "lon"], ["v"], asked))
        sliced = interpolate_nd(["lat", "lon"], ["v"], asked.with_columns(time=pl.lit(DAY)))
        rd.ZarrBackendSync.from_url(paths["up"]).scan_zarr_sync(sliced)


def test_equal_filters_of_coordinates_and_values(paths, frames):
    day = c("time") == DAY
    expr = interpolate_nd([c("lat").filter(day)], [c("v").filter(day)], targets(lat=[3.5]))
    assert chunks_of(paths["up"], expr) == product(time=[2], lat=[3, 4])
    assert_same(rd.scan_zarr(paths["up"]).select(expr).collect(), frames["up"].select(expr))


def test_inputs_that_need_other_rows_are_left_alone(paths, frames):
    day = c("time") == DAY
    expr = interpolate_nd([c("lat").filter(day)], [c("v").filter(day).cum_sum()], targets(lat=[3.5]))
    assert_same(rd.scan_zarr(paths["up"]).select(expr).collect(), frames["up"].select(expr))


@pytest.mark.parametrize("how", [nullcontext, in_pieces])
def test_targets_select_labels_of_other_dimensions(paths, frames, how):
    days = [datetime(2020, 1, 5), DAY, datetime(2020, 1, 5), datetime(2020, 1, 1)]
    asked = targets(lat=[3.5, 7.0, 1.0, 2.0], lon=[4.0, 6.0, 4.0, 9.5], time=days, label=list("abcd"))
    expr = interpolate_nd(["lat", "lon"], ["v"], asked).struct.field("v")
    one_by_one = [
        frames["up"].filter(c("time") == row["time"]).select(interpolate_nd(["lat", "lon"], ["v"], pl.DataFrame([row])))
        for row in asked.iter_rows(named=True)
    ]
    expected = pl.concat(one_by_one).unnest("interpolated")["v"]
    backend = rd.ZarrBackendSync.from_url(paths["up"])
    with how():
        found = backend.scan_zarr_sync(expr)
    assert_same(found, expected.to_frame())
    assert chunks_of(paths["up"], expr) == product(time=[0, 2, 4], lat=[1, 2, 3, 4, 7], lon=[1, 2, 3, 4])
    whole = backend.scan_zarr_sync(interpolate_nd(["lat", "lon"], ["v"], asked)).unnest("interpolated")
    assert whole.columns == ["lat", "lon", "time", "label", "v"]
    assert whole["label"].to_list() == list("abcd")
    # A LazyFrame is what Polars makes of the whole table: the last time.
    assert_same(rd.scan_zarr(paths["up"]).select(expr).collect(), frames["up"].select(expr))


@pytest.mark.parametrize("how", [nullcontext, in_pieces])
def test_slices_and_groups(paths, frames, how):
    asked = targets(lat=[3.5, 7.0, 1.0], time=[DAY, datetime(2020, 1, 1), DAY])
    expr = interpolate_nd(["lat", "lon"], ["v"], asked)  # lon is a group
    with how():
        found = rd.ZarrBackendSync.from_url(paths["up"]).scan_zarr_sync(expr).unnest("interpolated")
    alone = interpolate_nd(["lat", "lon"], ["v"], asked.drop("time"))
    by_day = {day: frames["up"].filter(c("time") == day).select(alone).unnest("interpolated") for day in asked["time"]}
    expected = [by_day[day]["v"][row] for row, day in enumerate(asked["time"].to_list() * 12)]
    np.testing.assert_allclose(found["v"], expected)
    assert found["lon"].to_list() == [lon for lon in range(0, 36, 3) for _ in range(3)]


def test_no_such_slice(paths):
    backend = rd.ZarrBackendSync.from_url(paths["up"])
    for time in (datetime(2020, 1, 3, 1), None):
        asked = pl.DataFrame({"lat": [3.5], "time": [time]}, schema={"lat": pl.Float64, "time": pl.Datetime})
        with pytest.raises(rd.exceptions.QueryError, match=r"select 'time'.*has no such label. Add 'time'"):
            backend.scan_zarr_sync(interpolate_nd(["lat"], ["v"], asked))
    with pytest.raises(rd.exceptions.QueryError, match="select 'time' = noon"):
        backend.scan_zarr_sync(interpolate_nd(["lat"], ["v"], targets(lat=[3.5], time=["noon"])))


# ---------------------------------------------------------------------- odd targets, and faults


@pytest.mark.parametrize("how", [nullcontext, in_pieces])
def test_odd_targets(paths, frames, how):
    with how():
        check_odd_targets(paths, frames)


def check_odd_targets(paths, frames):
    empty = pl.DataFrame(schema={"lat": pl.Float64})
    expr = interpolate_nd(["lat", "time"], ["v"], empty)
    assert_same(rd.scan_zarr(paths["up"]).select(expr).collect(), frames["up"].select(expr))
    for bad in (targets(lat=[1.0, None]), targets(lat=["north"]), targets(y=[1.0])):
        expr = interpolate_nd(["lat"], ["v"], bad)
        with pytest.raises(pl.exceptions.PolarsError) as expected:
            frames["up"].select(expr)
        for ask in (
            rd.ZarrBackendSync.from_url(paths["up"]).scan_zarr_sync,
            lambda e: rd.scan_zarr(paths["up"]).select(e).collect(),
        ):
            with pytest.raises(type(expected.value)) as found:
                ask(expr)
            assert str(found.value).partition("\n")[0] == str(expected.value).partition("\n")[0]


def test_functions_that_do_not_pickle_stay(paths, frames):
    lock = threading.Lock()
    expr = interpolate_nd(["lat"], ["v"], targets(lat=[3.5])).struct.field("v").map_batches(lambda v: (lock, v + 1)[1])
    assert_same(rd.ZarrBackendSync.from_url(paths["up"]).scan_zarr_sync(expr), frames["up"].select(expr))
    assert_same(rd.scan_zarr(paths["up"]).select(expr).collect(), frames["up"].select(expr))
    named = rd.scan_zarr(paths["up"]).select(c("v").alias("interpolate_nd"))
    assert named.select(c("interpolate_nd").max()).collect().height == 1


def test_a_large_job_runs_in_pieces(paths, frames):
    rng, pieces_seen = np.random.default_rng(0), []
    asked = targets(lat=rng.uniform(-1, 11, 300), lon=rng.uniform(-1, 36, 300), label=range(300))
    expr = interpolate_nd(["lat", "lon", "time"], ["v"], asked)

    def seen(self, some, actual=pieces.Pieces._interpolation_of):
        pieces_seen.append(some.height)
        return actual(self, some)

    with (
        patch.object(interpolation, "WHOLE", 100),
        patch.object(pieces, "WHOLE", 100),
        patch.object(pieces.Pieces, "_interpolation_of", seen),
    ):
        found = pickle.loads(pickle.dumps(rd.scan_zarr(paths["up"]).select(expr))).collect()
        assert_same(found, frames["up"].select(expr))
    assert sum(pieces_seen) == 300
    assert max(pieces_seen) <= 16


def test_missing_labels_and_values_are_errors_as_in_interpolars(tmp_path):
    source = DATASETS["up"].copy(deep=True)
    source["v"][2, 3, 4] = np.nan
    source = source.assign_coords(lon=np.where(np.arange(12) == 7, np.nan, np.arange(12.0)))
    source.to_zarr(tmp_path / "a.zarr", zarr_format=2)
    lf = rd.scan_zarr(str(tmp_path / "a.zarr"))
    with pytest.raises(pl.exceptions.ComputeError, match="in source coordinate"):
        lf.select(interpolate_nd(["lon"], ["w"], targets(lon=[1.5]))).collect()
    with pytest.raises(pl.exceptions.ComputeError, match="in source value"):
        lf.select(interpolate_nd(["lat"], ["v"], targets(lat=[2.5]))).collect()
    # Rows that are not read are not examined.
    assert lf.select(interpolate_nd(["lat"], ["v"], targets(lat=[5.5]))).collect().height == 1


def test_explain_and_limits(paths):
    expr = interpolate_nd(["lat", "lon"], ["v"], targets(lat=[3.5], lon=[4.0]))
    report = rd.explain(rd.scan_zarr(paths["up"]).select(expr).unnest("interpolated"))
    assert report.chunks_kept == len(product(lat=[3, 4], lon=[1, 2])) == 3
    assert 'col("lat").is_in' in report
    assert chunks_of(paths["up"], c("v").filter(c("lat") < 3)) == product(lat=range(3))
    with pytest.raises(rd.exceptions.PlanTooLargeError, match="3 chunks needed"):
        rd.scan_zarr(paths["up"], max_chunks_to_read=2).select(expr).collect()


def test_a_job_of_many_targets(tmp_path):
    """The grid of the reference's job: 31 x 3 x 3 chunks, of which the targets of one day touch 9."""
    lat, lon = np.linspace(-90, 90, 181), np.arange(360.0)
    store = {"time": np.arange(744), "lat": lat, "lon": lon}
    values = da.zeros((744, 181, 360), chunks=(24, 61, 120), dtype="f4")
    source = xr.Dataset({"t2m": (("time", "lat", "lon"), values)}, store)
    source.to_zarr(tmp_path / "a.zarr", compute=False, zarr_format=2)
    rng = np.random.default_rng(0)
    asked = targets(lat=rng.uniform(-90, 90, 1000), lon=rng.uniform(0, 359, 1000))
    expr = interpolate_nd(["lat", "lon", "time"], [c("t2m").filter(c("time").is_between(24, 47))], asked)
    assert len(chunks_of(str(tmp_path / "a.zarr"), expr)) == 9
    report = rd.explain(rd.scan_zarr(str(tmp_path / "a.zarr")).select(expr))
    assert (report.chunks_kept, report.chunks_total) == (9, 279)
