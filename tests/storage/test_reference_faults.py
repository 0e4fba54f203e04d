"""Queries that are easily answered wrong: the answer is that of Polars on the whole table."""

from datetime import datetime

import numpy as np
import polars as pl
import pytest
import xarray as xr
from zarr.storage import MemoryStore

import rainbear_dask as rd
from tests.support.oracle import assert_same_rows, expected_frame
from tests.support.stores import CountingStore

c = pl.col

X, Y = 12, 10
CHUNKS = (4, 5)  # 3 x 2 = 6 chunks
LARGE = 2**63


def store_of(ds: xr.Dataset, **chunks: tuple[int, ...]) -> CountingStore:
    store = MemoryStore()
    encoding = {name: {"chunks": chunks.get(name, CHUNKS)} for name in ds.data_vars if ds[name].ndim}
    ds.to_zarr(store, encoding=encoding, zarr_format=3, consolidated=False)
    return CountingStore(store)


def field(**coordinates) -> CountingStore:
    """A field of 12 x 10 in 3 x 2 chunks; the given coordinates, and positions where none is given."""
    values = np.arange(X * Y, dtype="f4").reshape(X, Y)
    return store_of(xr.Dataset({"v": (("x", "y"), values)}, coordinates))


def check(store: CountingStore, question: pl.Expr, *, rows: int, chunks: int = 6) -> None:
    """A filter gives the rows that it gives on the whole table, so many, and reads so many of the six chunks."""
    expected = expected_frame(store).filter(question)
    assert expected.height == rows
    store.requests.clear()
    assert_same_rows(rd.scan_zarr(store).filter(question).collect(), expected)
    assert len(store.chunks("v")) == chunks


def large(values: pl.Series) -> pl.Series:
    return values > 100


@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        ((c.x != 3) & (c.y != 5), 11 * 9, 6),
        ((c.x != 3) & (c.v != 7), 12 * 10 - 11, 6),
        ((c.x + 1 > 9) & (c.y * 2 < 8), 3 * 4, 1),
        ((c.x - 1 != 3) & (c.y // 2 != 1) & (c.v % 2 == 0), 11 * 4, 6),
    ],
)
def test_conjuncts_on_different_columns_are_met_together(question, rows, chunks):
    """Rows at which `!=` and arithmetic hold on two columns are all there."""
    check(field(), question, rows=rows, chunks=chunks)


@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        ((c.x < 2) | (c.v > 100), 2 * 10 + 19, 6),
        ((c.v > 100) | (c.x < 2), 2 * 10 + 19, 6),
        ((c.x < 2) | c.v.map_batches(large, return_dtype=pl.Boolean), 2 * 10 + 19, 6),
        ((c.x < 2) | (c.v == c.v.max()), 2 * 10 + 1, 6),
        ((c.x < 2) | (c.x * 10 + c.y > 110), 2 * 10 + 9, 4),
    ],
)
def test_a_disjunction_keeps_the_side_that_no_coordinate_decides(question, rows, chunks):
    """With `|`, rows that only the other side selects are there too."""
    check(field(), question, rows=rows, chunks=chunks)


@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        (c.x < 2.5, 3, 2),
        (c.x <= 2.5, 3, 2),
        (c.x > 3.5, 8, 4),
        (c.x == 2.5, 0, 0),
        (c.x != 2.5, 12, 6),
        (c.x.is_between(3.5, 7.9), 4, 2),
        (pl.lit(2.5) > c.x, 3, 2),
        (c.x < -0.5, 0, 0),
    ],
)
@pytest.mark.parametrize("dtype", ["i4", "i8", "u2"])
def test_an_integer_coordinate_compares_with_a_fraction(dtype, question, rows, chunks):
    """`x < 2.5` selects 0, 1 and 2."""
    check(field(x=np.arange(X, dtype=dtype)), question, rows=rows * Y, chunks=chunks)


@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        (c.x.cast(pl.Float64) / 2 < 1.5, 3, 2),
        (c.x.cast(pl.Float32) > 8.5, 3, 2),
        (c.x.cast(pl.String) == "11", 1, 2),
        (c.x.cast(pl.String).str.starts_with("1"), 3, 4),
        (c.x.cast(pl.Int8) == 5, 1, 2),
        (c.x.cast(pl.Boolean), 11, 6),
    ],
)
def test_a_cast_coordinate_selects_what_the_cast_values_say(question, rows, chunks):
    """A comparison is made after the cast, not before it."""
    check(field(x=np.arange(X)), question, rows=rows * Y, chunks=chunks)


@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        (c.x < 10.15, 2, 2),
        (c.x == 10.3, 1, 2),
        (c.x > 10.85, 2, 2),
        (c.x < 8, 0, 0),
        (c.x.is_null(), 1, 2),
        (c.x.is_not_null(), 11, 6),
    ],
)
def test_a_packed_coordinate_compares_by_its_decoded_values(question, rows, chunks):
    """With scale and offset, a literal is a decoded value; a masked coordinate is null."""
    packed = np.append(np.arange(X - 1, dtype="i2"), np.int16(-1))
    attributes = {"scale_factor": 0.1, "add_offset": 10.0, "_FillValue": np.int16(-1)}
    check(field(x=xr.Variable("x", packed, attributes)), question, rows=rows * Y, chunks=chunks)


@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        (c.x > -5, 12, 6),
        (c.x >= -5, 12, 6),
        (c.x != -5, 12, 6),
        (c.x < -5, 0, 0),
        (c.x == -5, 0, 0),
        (c.x.is_between(-5, 2), 3, 2),
        (c.x.is_in([-5, 11]), 1, 2),
        (pl.lit(-5) < c.x, 12, 6),
        (c.x > -5.5, 12, 6),
        (c.x < 100, 12, 6),
        (c.x > 100, 0, 0),
        (c.x >= 2**70, 0, 0),
    ],
)
def test_an_index_dimension_compares_with_numbers_outside_it(question, rows, chunks):
    """`x > -5` selects every position."""
    check(field(), question, rows=rows * Y, chunks=chunks)


@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        (c.x >= LARGE, 6, 4),
        (c.x < LARGE, 6, 4),
        (c.x == LARGE + 5, 1, 2),
        (c.x > LARGE + 2, 3, 2),
        (c.x != LARGE, 11, 6),
        (c.x.is_in(pl.Series([LARGE - 6, LARGE + 1], dtype=pl.UInt64).implode()), 2, 4),
        (c.x.is_between(LARGE - 2, LARGE + 1), 4, 2),
        (c.x > -1, 12, 6),
        (c.x < -1, 0, 0),
    ],
)
def test_an_unsigned_coordinate_compares_beyond_the_signed_range(question, rows, chunks):
    """Numbers of 2**63 and more are neither negative nor rounded to a float."""
    check(field(x=np.arange(X, dtype="u8") + np.uint64(LARGE - 6)), question, rows=rows * Y, chunks=chunks)


def test_an_unsigned_variable_compares_beyond_the_signed_range():
    """As for coordinates."""
    values = (np.arange(X * Y, dtype="u8") + np.uint64(LARGE - 60)).reshape(X, Y)
    store = store_of(xr.Dataset({"v": (("x", "y"), values)}))
    check(store, c.v >= LARGE, rows=60)
    check(store, c.v == LARGE + 1, rows=1)


@pytest.mark.parametrize("dtype", ["f4", "f8"])
@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        (c.x == datetime(2000, 1, 1, 18), 1, 2),
        (c.x < datetime(2000, 1, 2), 4, 2),
        (c.x >= datetime(2000, 1, 3, 12), 2, 2),
        (c.x.dt.hour() == 6, 3, 6),
        (c.x.dt.date() == datetime(2000, 1, 2).date(), 4, 2),
        (c.x.is_between(datetime(2000, 1, 1, 6), datetime(2000, 1, 1, 12)), 2, 2),
    ],
)
def test_time_stored_as_float_is_time(dtype, question, rows, chunks):
    """Quarters of days since an epoch are times to the hour, whatever the width of the float."""
    time = xr.Variable("x", (np.arange(X) / 4).astype(dtype), {"units": "days since 2000-01-01"})
    time.encoding["_FillValue"] = None
    store = field(x=time)
    assert rd.scan_zarr(store).collect_schema()["x"] == pl.Datetime("ns")
    check(store, question, rows=rows * Y, chunks=chunks)


@pytest.mark.parametrize("count", [4096, 4097, 20_000])
@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        (c.x.is_in, 20, 4),
        (lambda values: ~c.x.is_in(values), 100, 6),
        (lambda values: c.x.is_in(values) & (c.y < 5), 10, 2),
        (lambda values: c.v.cast(pl.Int64).is_in(values), 2, 6),
    ],
    ids=["in", "not in", "in, and another", "variable"],
)
def test_membership_in_a_long_list_loses_no_value(count, question, rows, chunks):
    """The first and the last of many values count as any other."""
    values = [1, *range(100_000, 100_000 + count - 2), 11]
    check(field(), question(values), rows=rows, chunks=chunks)


@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        (c.x.is_finite(), 10, 6),
        (c.x.is_infinite(), 1, 2),
        (c.x.is_nan(), 1, 2),
        (c.x.is_not_nan(), 11, 6),
        (~c.x.is_finite(), 2, 4),
        (c.v.is_finite() & (c.x < 3.5), 4, 2),
        (c.x > 1e300, 2, 4),  # NaN is the largest number to Polars
    ],
)
def test_finite_and_nan_are_asked_of_coordinates(question, rows, chunks):
    """`is_finite` and its like answer, and prune."""
    x = np.arange(X, dtype="f8")
    x[4], x[11] = np.inf, np.nan
    coordinate = xr.Variable("x", x)
    coordinate.encoding["_FillValue"] = None
    check(field(x=coordinate), question, rows=rows * Y, chunks=chunks)


@pytest.mark.parametrize(
    ("question", "rows", "chunks"),
    [
        (pl.lit(value=True), 12 * 10, 6),
        (c.x == 1, 4 * 10, 6),
        (c.x < 2, 8 * 10, 6),
        ((c.x == 1) & (c.y == 0), 4 * 5, 3),
    ],
)
def test_repeated_coordinates_do_not_repeat_rows(question, rows, chunks):
    """One row for each cell, whatever its coordinates; alignment is by position."""
    check(field(x=np.arange(X) % 3, y=np.repeat([0, 1], 5)), question, rows=rows, chunks=chunks)


@pytest.mark.parametrize("chunks", [(12, 10), (5, 3), (1, 10)])
def test_variables_of_two_chunk_grids_share_rows(chunks):
    """Two variables on one grid of cells give one row for each cell and no null, however each is chunked."""
    values = np.arange(X * Y, dtype="f4").reshape(X, Y)
    store = store_of(xr.Dataset({"v": (("x", "y"), values), "w": (("x", "y"), -values)}), w=chunks)
    table = rd.scan_zarr(store)
    assert_same_rows(table.collect(), expected_frame(store))
    for question in (c.x == 7, (c.v > 50) & (c.w > -60), (c.y > 7) | (c.w == 0)):
        assert_same_rows(table.filter(question).collect(), expected_frame(store).filter(question))
    assert table.select((c.v == -c.w).all(), pl.len()).collect().row(0) == (True, X * Y)
    assert table.null_count().collect().sum_horizontal().item() == 0


@pytest.mark.parametrize("question", [pl.lit(value=True), c.x > 8, c.v > 50, c.s == 7.5, (c.s > 8) | (c.x == 0)])
def test_a_scalar_array_repeats_along_the_rows(question):
    """An array without dimensions, data or coordinate, is a column like others."""
    values = np.arange(X * Y, dtype="f4").reshape(X, Y)
    scalars = {"s": ((), 7.5), "crs": ((), np.int32(4))}
    store = store_of(xr.Dataset({"v": (("x", "y"), values), **scalars}, {"height": ((), 2.0)}))
    table = rd.scan_zarr(store)
    assert_same_rows(table.filter(question).collect(), expected_frame(store).filter(question))
    assert table.select("height", "s").unique().collect().rows() == [(2.0, 7.5)]
    assert rd.scan_zarr(store, variables=["s"]).collect().rows() == [(2.0, 7.5)]
