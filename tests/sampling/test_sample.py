"""Sampled points equal xarray's pointwise selection and interpolation, and a search by brute force."""

from datetime import datetime, timedelta

import numpy as np
import polars as pl
import pytest
import xarray as xr
from hypothesis import given, settings
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal
from scipy.interpolate import Akima1DInterpolator, make_interp_spline
from zarr.storage import MemoryStore

import rainbear_dask as rd

FEW = settings(max_examples=max(settings.default.max_examples // 3, 1))
START = np.datetime64("2020-01-01", "ns")
HOUR = np.timedelta64(1, "h").astype("m8[ns]")


def store_of(ds, *, nan_is_fill=False, **chunks):
    """Write a dataset into memory."""
    store = MemoryStore()
    encoding = {
        name: {"chunks": tuple(chunks.get(d, 3) for d in v.dims), "_FillValue": np.nan if nan_is_fill else None}
        for name, v in ds.data_vars.items()
    }
    for name, v in ds.variables.items():
        if v.dtype.kind != "f":
            encoding.get(name, {}).pop("_FillValue", None)
    ds.to_zarr(store, encoding=encoding, zarr_format=3, consolidated=False)
    return store


@st.composite
def axes(draw, size, *, distinct):
    """Labels in steps of a quarter, so that ties and equal labels are frequent: ascending, descending or neither."""
    kind = draw(st.sampled_from(["f8", "f4", "i8", "time"]))
    steps = draw(st.lists(st.integers(1, 3), min_size=size, max_size=size))
    labels = np.cumsum(steps).astype("f8") - draw(st.integers(0, 8))
    order = draw(st.sampled_from(["up", "down", "any"]))
    if order == "any":
        labels = labels[draw(st.permutations(range(size)))]
    if not distinct and size > 1 and draw(st.booleans()):
        labels[draw(st.integers(0, size - 1))] = labels[0]
    labels = labels[::-1] if order == "down" else labels
    if kind == "time":
        return START + labels.astype("i8") * HOUR
    return (labels * (1 if kind == "i8" else 0.25)).astype(kind)


@st.composite
def datasets(draw, *, distinct=False, least=1, kinds=("f8", "f4", "i2"), nan_is_fill=False):
    """A variable of one to three dimensions, and one of some of them in another order."""
    dims = draw(st.sampled_from([("x",), ("y", "x"), ("t", "y", "x")]))
    sizes = {dim: draw(st.integers(least, 6)) for dim in dims}
    rng = np.random.default_rng(draw(st.integers(0, 99)))
    found = {}
    for name, own in {"a": dims, "b": draw(st.permutations(dims))[: draw(st.integers(0, len(dims)))]}.items():
        values = rng.integers(-50, 50, [sizes[d] for d in own]) / 8
        kind = draw(st.sampled_from(kinds))
        values = (values * 8 if kind == "i2" else values).astype(kind)
        if kind != "i2" and values.ndim and draw(st.booleans()):
            values[rng.random(values.shape) < 0.2] = np.nan
        found[name] = (own, values)
    coords = {dim: draw(axes(sizes[dim], distinct=distinct)) for dim in dims}
    ds = xr.Dataset(found, coords)
    return ds, store_of(ds, nan_is_fill=nan_is_fill, **{dim: draw(st.integers(1, 4)) for dim in dims})


@st.composite
def keys(draw, labels, count, *, inside=False, holes=True):
    """On labels, between them, beyond them, and missing."""
    low, high = labels.min(), labels.max()
    step = HOUR // 4 if labels.dtype.kind == "M" else 0.125
    span = max(int((high - low) / step), 0)
    margin = 0 if inside else 12
    ends = [end for end in (-3, -2, -1, 0, span, span + 1, span + 2, span + 3) if -margin <= end <= span + margin]
    place = st.integers(-margin, span + margin) | st.sampled_from(ends)
    places = draw(st.lists(place, min_size=count, max_size=count))
    found = low + np.array(places) * step if labels.dtype.kind == "M" else float(low) + np.array(places) * step
    series = pl.Series(found)
    if holes and draw(st.booleans()) and count:
        series = series.to_frame("k").select(pl.when(pl.int_range(pl.len()) != 0).then("k")).to_series()
    return series


@st.composite
def points_of(draw, ds, dims, **options):
    count = draw(st.integers(1, 12))
    return pl.DataFrame({"id": range(count)} | {d: draw(keys(ds[d].values, count, **options)) for d in dims})


def brute(labels, key, *, exact, outside, tolerance):
    """Return the position of one key's label, by looking at all of them; None for none."""
    if key is None:
        return None
    labels = labels.astype("i8") if labels.dtype.kind == "M" else labels.astype("f8")
    ordered = np.unique(labels)
    if exact:
        found = [label for label in ordered if label == key]
    else:
        distances = [abs(label - key) for label in ordered]
        found = [label for label, far in zip(ordered, distances, strict=True) if far == min(distances)]
        if outside != "nearest" and len(ordered) > 1:
            low, high = ordered[1] - ordered[0], ordered[-1] - ordered[-2]
            if 2 * (ordered[0] - key) > low or 2 * (key - ordered[-1]) > high:
                return None
        if tolerance is not None and min(distances) > tolerance:
            return None
    return int(np.flatnonzero(labels == found[-1])[0]) if found else None


def plain(value):
    return value.values.astype("i8").item() if value.dtype.kind == "M" else value.item()


@given(data=st.data())
def test_nearest_and_exact_equal_a_search_of_all_labels(data):
    nan_is_fill = data.draw(st.booleans())
    ds, store = data.draw(datasets(nan_is_fill=nan_is_fill))
    dims = [dim for dim in ds.a.dims if data.draw(st.booleans())] or list(ds.a.dims)
    points = data.draw(points_of(ds, dims))
    method = {dim: data.draw(st.sampled_from(["nearest", "nearest", "exact"])) for dim in dims}
    outside = data.draw(st.sampled_from(["null", "nearest"]))
    tolerance = {d: data.draw(st.sampled_from([None, 0, 0.25, 1])) for d in dims if method[d] == "nearest"}
    given_tolerance = {
        d: timedelta(hours=t) if t is not None and ds[d].dtype.kind == "M" else t for d, t in tolerance.items()
    }
    out = rd.sample(
        store, points, dims, method=method, outside=outside, tolerance=given_tolerance, wrap=None, coordinates=True
    ).collect()
    kept = [dim for dim in ds.a.dims if dim not in dims]
    expected = {name: [] for name in ("id", *kept, *(f"{d}_grid" for d in dims), "a", "b")}
    for row in points.iter_rows(named=True):
        places = {}
        for dim in dims:
            key = points[dim].to_physical()[row["id"]]
            scale = HOUR.astype("i8").item() if ds[dim].dtype.kind == "M" else 1
            limit = None if tolerance.get(dim) is None else tolerance[dim] * scale
            places[dim] = brute(ds[dim].values, key, exact=method[dim] == "exact", outside=outside, tolerance=limit)
        lost = None in places.values()
        cell = ds.isel({d: 0 if lost else p for d, p in places.items()})
        for index in np.ndindex(*[ds.sizes[d] for d in kept]):
            one = cell.isel(dict(zip(kept, index, strict=True)))
            expected["id"].append(row["id"])
            for dim in kept:
                expected[dim].append(plain(one[dim]))
            for dim in dims:
                expected[f"{dim}_grid"].append(None if lost else plain(one[dim]))
            for name in ("a", "b"):
                expected[name].append(None if lost else plain(one[name]))
    assert out.columns == [*points.columns, *kept, *(f"{dim}_grid" for dim in dims), "a", "b"]
    for name, values in expected.items():
        dtype = out.schema[name]
        series = pl.Series(name, values, dtype=pl.Int64() if dtype.is_temporal() else dtype).cast(dtype)
        is_masked = nan_is_fill and name in {"a", "b"} and dtype.is_float()
        assert_series_equal(out[name], series.fill_nan(None) if is_masked else series, check_exact=True)


def indexers(points, dims):
    return {dim: xr.DataArray(points[dim].to_numpy(), dims="point") for dim in dims}


@FEW
@given(data=st.data())
def test_nearest_equals_sel_bit_for_bit(data):
    ds, store = data.draw(datasets(distinct=True))
    ds = ds.sortby(list(ds.dims))
    points = data.draw(points_of(ds, ds.a.dims, inside=True, holes=False))
    out = rd.sample(store, points, outside="nearest", wrap=None).collect()
    expected = ds.sel(indexers(points, ds.a.dims), method="nearest")
    for name in ("a", "b"):
        values = np.broadcast_to(expected[name].values, points.height)
        assert out[name].to_numpy().tobytes() == np.ascontiguousarray(values).tobytes()


@FEW
@given(data=st.data())
def test_interpolation_equals_interp(data):
    method = data.draw(st.sampled_from(["linear", "pchip", "cubic"]))
    ds, store = data.draw(datasets(distinct=True, least=4, kinds=("f8", "i2")))
    if method != "linear":
        ds = ds.fillna(1.5)
        store = store_of(ds)
    dims = ds.a.dims if data.draw(st.booleans()) else ds.a.dims[-1:]
    points = data.draw(points_of(ds, dims, inside=True, holes=False))
    out = rd.sample(store, points, dims, method=method, columns="a", wrap=None).collect()
    kept = [dim for dim in ds.a.dims if dim not in dims]
    if method == "cubic":  # in several dimensions, xarray's own solution is iterative
        values = np.array([splines(ds, dims, row) for row in points.iter_rows(named=True)]).reshape(-1)
    else:
        expected = ds.a.astype("f8").interp(indexers(points, dims), method=method)
        values = expected.transpose("point", *kept).values.reshape(-1)
    found = out["a"].to_numpy()
    known = ~np.isnan(values)  # the oracle multiplies with weights of zero
    np.testing.assert_allclose(found[known], values[known], rtol=1e-12, atol=1e-12)
    for row in np.flatnonzero(~known & ~np.isnan(found)):
        assert any(points[dim].to_numpy()[row * points.height // len(found)] in ds[dim].values for dim in dims)


def splines(ds, dims, row):
    ordered = ds.a.astype("f8").sortby(list(dims))
    values = ordered.values
    for dim in reversed(dims):
        labels, axis = hours(ordered[dim].values), ds.a.dims.index(dim)
        values = np.expand_dims(make_interp_spline(labels, values, k=3, axis=axis)(hours(row[dim])), axis)
    return values


def hours(values):
    if isinstance(values, datetime):
        values = np.datetime64(values)
    is_time = isinstance(values, np.datetime64 | np.ndarray) and values.dtype.kind == "M"
    return (values - START) / HOUR if is_time else np.asarray(values, "f8")


@FEW
@given(data=st.data())
def test_akima_equals_scipy(data):
    size = data.draw(st.integers(2, 12))
    labels = np.sort(data.draw(st.permutations(range(30)))[:size]).astype("f8")
    values = np.array(data.draw(st.lists(st.integers(-3, 3), min_size=size, max_size=size)), dtype="f8")
    method = data.draw(st.sampled_from(["akima", "makima"]))
    ds = xr.Dataset({"a": ("x", values)}, {"x": labels})
    points = data.draw(points_of(ds, ["x"], holes=False))
    out = rd.sample(store_of(ds), points, method=method, outside="extrapolate").collect()
    oracle = Akima1DInterpolator(labels, values, method=method, extrapolate=True)
    np.testing.assert_allclose(out["a"].to_numpy(), oracle(points["x"].to_numpy()), rtol=1e-12, atol=1e-9)


@FEW
@given(data=st.data())
def test_no_engine_and_no_batch_changes_the_rows(data):
    ds, store = data.draw(datasets(distinct=True, least=2))
    method = data.draw(st.sampled_from(["nearest", "linear"]))
    points = data.draw(points_of(ds, ds.a.dims[-1:]))
    whole = rd.sample(store, points, method=method).collect()
    names = data.draw(st.lists(st.sampled_from(whole.columns), min_size=1, unique=True))
    condition = data.draw(
        st.sampled_from([pl.col("a") > 0, pl.col("id") < 5, (pl.col("id") < 5) & (pl.col("b") > 0), pl.col("x") > 0])
    )
    if data.draw(st.booleans()) and whole.schema["x"] != pl.Datetime("ns"):
        condition &= pl.col("x") < 3
    elif whole.schema["x"] == pl.Datetime("ns"):
        condition = pl.col("id") < 5
    with pytest.MonkeyPatch.context() as patch:
        patch.setattr("rainbear_dask.sampling.source._MAX_CELLS", data.draw(st.integers(1, 40)))
        lazy = rd.sample(store, points.lazy(), method=method)
        head = data.draw(st.integers(0, whole.height + 1))
        engine = data.draw(st.sampled_from(["in-memory", "streaming"]))
        assert_frame_equal(lazy.collect(engine=engine), whole)
        assert_frame_equal(
            lazy.filter(condition).select(names).collect(engine=engine), whole.filter(condition).select(names)
        )
        assert_frame_equal(lazy.head(head).filter(condition).collect(engine=engine), whole.head(head).filter(condition))
