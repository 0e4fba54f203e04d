"""Laws of `write_zarr`: the store has the rows, and xarray reads the values from it."""

import os
import shutil
import warnings
from datetime import date, datetime, timedelta
from math import prod

import dask
import hypothesis.strategies as st
import numpy as np
import pandas as pd
import polars as pl
import pytest
import xarray as xr
from hypothesis import assume, given, settings
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import RainbearError
from tests.support.strategies import Tree, layouts, trees

LONG = os.environ.get("HYPOTHESIS_PROFILE") == "long"
pytestmark = [
    pytest.mark.filterwarnings("ignore::xarray.SerializationWarning"),
    pytest.mark.filterwarnings("ignore:array .* is left out:UserWarning"),
    pytest.mark.filterwarnings("ignore:The table of .* has .* rows:UserWarning"),
    pytest.mark.filterwarnings("ignore::RuntimeWarning"),
    pytest.mark.filterwarnings("ignore:The data type:UserWarning"),
]


@pytest.fixture(scope="module")
def folder(tmp_path_factory):
    return tmp_path_factory.mktemp("round")


def flat(tree: Tree) -> Tree:
    """Return the arrays of the root that a column can hold."""
    kept = {p: a for p, a in tree.arrays.items() if "/" not in p and a.kind != "complex"}
    return Tree(kept, {"": {n: v for n, v in tree.groups[""].items() if n != "coordinates"}})


def chunk_options(draw, dims):
    """Draw chunks and shards by dimension."""
    chunks = {dim: draw(st.integers(1, 5)) for dim in dims if draw(st.booleans())}
    shards = {dim: n * draw(st.integers(1, 3)) for dim, n in chunks.items() if draw(st.booleans())}
    return chunks, shards if len(chunks) == len(dims) else {}


def read(path, **options) -> xr.Dataset:
    """Read a store with xarray."""
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        return xr.open_zarr(path, chunks=None, **options).load()


@settings(max_examples=1000 if LONG else 25)
@given(st.data())
def test_a_scan_is_written_and_read_back(folder, data):
    tree = flat(data.draw(trees(), label="tree"))
    layout = data.draw(layouts(tree), label="layout")
    for name in ("source", "target"):
        shutil.rmtree(folder / name, ignore_errors=True)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        layout.write(tree, str(folder / "source"))
    lf = rd.scan_zarr(folder / "source")
    schema = lf.collect_schema()
    assume(not any(dtype == pl.Binary for dtype in schema.values()))
    table = rd.plan(folder / "source").table
    assume(any(column.role == "data" for column in table.columns.values()))
    order = data.draw(st.permutations(list(table.sizes)), label="dims")
    chunks, shards = chunk_options(data.draw, order)
    with dask.config.set({"rainbear-dask.task-bytes": data.draw(st.sampled_from([1, 200, 10**6]), label="bytes")}):
        rd.write_zarr(lf, folder / "target", order, chunks=chunks, shards=shards)
    written = rd.scan_zarr(folder / "target").collect()
    expected = lf.collect()
    # rows are in C order of dimensions, which another order of dimensions changes
    sizes = [table.sizes[dim] for dim in table.sizes]
    there = np.arange(prod(sizes)).reshape(sizes).transpose([list(table.sizes).index(dim) for dim in order])
    if list(rd.plan(folder / "target").table.sizes) == list(order):
        expected = expected[pl.Series(there.reshape(-1), dtype=pl.Int64)]
        # times of NumPy's own types become CF times, which are read in nanoseconds if these hold them
        assert_frame_equal(written.select(expected.columns).cast(expected.schema), expected)
    options = {"decode_times": False, "decode_timedelta": False}
    source, target = read(folder / "source", consolidated=False, **options), read(folder / "target", **options)
    for name, variable in target.variables.items():
        if name in tree.arrays and tree.arrays[name].kind == "float32 with a fill that is rounded":
            continue  # xarray compares it with the unrounded fill, and so masks nothing
        if variable.dtype.kind in "OUSTMm" or name in ("crs", *{"x", "y", "z"} - set(source.variables)):
            continue
        values = source[name].transpose(*variable.dims)
        if values.dtype.kind in "OUSTMm" or variable.attrs.get("calendar") != values.attrs.get("calendar"):
            continue
        # arrays of a form that cannot be encoded hold the decoded values, which xarray rounds otherwise
        np.testing.assert_allclose(variable.values, values.values, rtol=1e-5, atol=1e-9)
        left, right = (
            {n: v for n, v in each.attrs.items() if n not in ("coordinates", "bounds", "valid_range", "valid_max")}
            for each in (variable, values)
        )
        assert left == right


# xarray reads no times that are further than 292 years from the epoch of their units, if some are missing
COLUMNS = {
    "f8": (pl.Float64, st.sampled_from([0.5, -1e300, 3.0])),
    "f4": (pl.Float32, st.none() | st.sampled_from([0.5, -1.0, 7.25])),
    "i1": (pl.Int8, st.integers(-128, 126)),
    "u8": (pl.UInt64, st.sampled_from([0, 1, 2**64 - 2])),
    "b": (pl.Boolean, st.booleans()),
    "s": (pl.String, st.sampled_from(["", "a", "é\0b", "long" * 9])),
    "t": (pl.Datetime("us"), st.none() | st.datetimes(datetime(1800, 1, 1), datetime(2150, 1, 1))),
    "n": (pl.Datetime("ns"), st.datetimes(datetime(1800, 1, 1), datetime(2150, 1, 1))),
    "d": (pl.Duration("ms"), st.none() | st.timedeltas(timedelta(-9), timedelta(9))),
    "day": (pl.Date, st.none() | st.dates(date(1800, 1, 1), date(2150, 1, 1))),
}
ENCODINGS = {
    "f8": [
        {},
        {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -9},
        {"dtype": "f4", "_FillValue": 1e20},
        {"_FillValue": None},
    ],
    "f4": [
        {},
        {"dtype": "f8"},
        {"_FillValue": -1e9},
        {"dtype": "i4", "scale_factor": 0.25, "add_offset": 1, "_FillValue": 77},
    ],
    "i1": [{"_FillValue": 127}, {"dtype": "i8", "_FillValue": -999}, {"dtype": "f4"}, {"missing_value": 127}],
    "u8": [{"_FillValue": 2**64 - 1}],
    "b": [{}],
    "s": [{"_FillValue": "none"}],
    "t": [
        {},
        {"units": "microseconds since 2000-01-01"},
        {"units": "nanoseconds since 1970-01-01", "calendar": "standard"},
    ],
    "n": [{}, {"units": "microseconds since 1999-12-31 22:00"}],
    "d": [{}],
    "day": [{}, {"dtype": "i4", "_FillValue": -(10**9)}, {"units": "hours since 1900-01-01", "dtype": "f8"}],
}


@st.composite
def frames(draw):
    """Draw rows on cells of a grid, with columns and encodings."""
    sizes = {dim: draw(st.integers(1, 4)) for dim in "xyz"[: draw(st.integers(1, 3))]}
    labels = {dim: draw(st.permutations([10 * k for k in range(size)])) for dim, size in sizes.items()}
    cells = list(np.ndindex(*sizes.values()))
    names = draw(st.lists(st.sampled_from(sorted(COLUMNS)), unique=True, min_size=1))
    whole = "b" in names or draw(st.booleans())
    kept = (
        list(draw(st.permutations(cells))) if whole else draw(st.lists(st.sampled_from(cells), unique=True, min_size=1))
    )
    frame = {
        dim: pl.Series([labels[dim][cell[axis]] for cell in kept], dtype=pl.Int32) for axis, dim in enumerate(sizes)
    }
    encoding = {}
    for name in names:
        dtype, values = COLUMNS[name]
        encoding[name] = draw(st.sampled_from(ENCODINGS[name]))
        drawn = draw(st.lists(values, min_size=len(kept), max_size=len(kept)))
        frame[name] = pl.Series(drawn, dtype=dtype)
    return pl.DataFrame(frame), list(sizes), encoding


@settings(max_examples=1000 if LONG else 25)
@given(st.data())
def test_frames_are_written_and_read_back(folder, data):
    frame, dims, encoding = data.draw(frames(), label="frame")
    if "f8" in frame.columns and encoding["f8"].get("dtype") == "i2":
        frame = frame.with_columns(pl.col("f8").clip(-4, 4))
    if "f8" in frame.columns and encoding["f8"].get("dtype") == "f4":
        frame = frame.with_columns(pl.col("f8").clip(-1e30, 1e30).cast(pl.Float32).cast(pl.Float64))
    chunks, shards = chunk_options(data.draw, dims)
    target = folder / "frame.zarr"
    shutil.rmtree(target, ignore_errors=True)
    as_frames = data.draw(st.booleans(), label="as frames")
    if as_frames:
        cut = data.draw(st.integers(0, frame.height), label="cut")
        rows, axes = iter([frame[:cut], frame[cut:]]), {dim: frame[dim].unique(maintain_order=True) for dim in dims}
    else:
        rows, axes = frame, dims
    rd.write_zarr(rows, target, axes, encoding=encoding, chunks=chunks, shards=shards)
    check_cells(target, frame, dims, encoding)


def check_cells(target, frame, dims, encoding):
    """Compare each cell, as Polars and as xarray read it, with the row of its labels."""
    rows = {tuple(row[dim] for dim in dims): row for row in frame.iter_rows(named=True)}
    found, ds = rd.scan_zarr(target).collect(), read(target)
    names = [name for name in frame.columns if name not in dims]
    places = {dim: {label: at for at, label in enumerate(frame[dim].unique(maintain_order=True))} for dim in dims}
    for dim in dims:
        assert ds[dim].to_numpy().tolist() == frame[dim].unique(maintain_order=True).to_list()
    assert found.height == prod(ds.sizes[dim] for dim in dims)
    for row in found.iter_rows(named=True):
        labels = tuple(row[dim] for dim in dims)
        expected = rows.get(labels, dict.fromkeys(names))
        cell = tuple(places[dim][label] for dim, label in zip(dims, labels, strict=True))
        for name in names:
            value = expected[name]
            if name == "day" and value is not None:
                value = datetime(value.year, value.month, value.day)
            if pd.isna(row[name]):
                assert value is None or pd.isna(value), (name, labels)
            else:
                assert row[name] == value, (name, labels)
            if name in ("u8", "d"):  # with a fill value, xarray makes uint64 a float64
                continue
            seen = ds[name].to_numpy()[cell]
            if value is None:
                assert pd.isna(seen), (name, labels)
            elif isinstance(value, datetime):
                # xarray passes int64 with a fill value through float64, which loses microseconds before 1715
                off = (
                    datetime.fromisoformat(seen.isoformat()) if hasattr(seen, "calendar") else pd.Timestamp(seen)
                ) - value
                assert abs(off) <= timedelta(microseconds=2), (name, labels)
            else:
                assert seen == value, (name, labels)


@settings(max_examples=1000 if LONG else 12)
@given(st.data())
def test_appended_parts_are_the_whole(folder, data):
    frame, dims, encoding = data.draw(frames(), label="frame")
    if "f8" in frame.columns:
        frame = frame.drop("f8")
        encoding.pop("f8")
    assume(len(frame.columns) > len(dims))
    dim = data.draw(st.sampled_from(dims))
    frame = frame.sort(dim)
    labels = frame[dim].unique(maintain_order=True)
    cut = data.draw(st.integers(1, len(labels)), label="cut")
    axes = {d: frame[d].unique(maintain_order=True) for d in dims}
    chunks, shards = chunk_options(data.draw, dims)
    target = folder / "append.zarr"
    shutil.rmtree(target, ignore_errors=True)
    parts = [frame.filter(pl.col(dim).is_in(part.implode())) for part in (labels[:cut], labels[cut:]) if len(part)]
    rd.write_zarr([parts[0]], target, axes | {dim: labels[:cut]}, encoding=encoding, chunks=chunks, shards=shards)
    for part in parts[1:]:
        try:
            rd.write_zarr(part, target, append_dim=dim)
        except RainbearError as err:
            assume("no row, and the array" not in str(err))
            raise
    check_cells(target, frame, dims, encoding)
