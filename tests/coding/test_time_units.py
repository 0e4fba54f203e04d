"""Times and durations in a chosen unit: the values of Polars' cast, and the same chunks."""

import operator
from datetime import datetime, timedelta

import numpy as np
import polars as pl
import polars.selectors as cs
import pytest
import xarray as xr
import zarr
from hypothesis import given
from hypothesis import strategies as st
from polars.testing import assert_frame_equal, assert_series_equal

import rainbear_dask as rd
from rainbear_dask.coding.time_units import in_time_unit
from rainbear_dask.exceptions import QueryError, StoreFormatError
from tests.coding.test_cf import decoding_of
from tests.support.times import EPOCHS, NANOSECONDS, YEAR

UNITS = pytest.mark.parametrize("unit", ["us", "ms"])


def cast(frame, unit):
    """Cast by Polars, structs included."""
    frame = frame.with_columns(cs.datetime().cast(pl.Datetime(unit)), cs.duration().cast(pl.Duration(unit)))
    structs = [name for name, dtype in frame.schema.items() if isinstance(dtype, pl.Struct)]
    return frame.with_columns(cast(frame[name].struct.unnest(), unit).to_struct(name) for name in structs)


@UNITS
@given(
    data=st.data(),
    time_unit=st.sampled_from(sorted(NANOSECONDS)),
    dtype=st.sampled_from(["int64", "int16", "float64"]),
    epoch=st.sampled_from([*EPOCHS, None]),
)
def test_values_are_those_of_the_cast(unit, data, time_unit, dtype, epoch):
    limit = min(100 * YEAR // NANOSECONDS[time_unit], np.iinfo("int16").max if dtype == "int16" else 2**60)
    number = st.floats(-limit, limit) if dtype == "float64" else st.integers(-limit, limit)
    numbers = np.array(data.draw(st.lists(number, min_size=1, max_size=8)), dtype)
    attributes = {"units": f"{time_unit} since {epoch}" if epoch else time_unit, "_FillValue": 7}
    decoding = decoding_of(numbers, attributes, coordinate=True)
    expected = decoding.decode(numbers)
    actual = in_time_unit(decoding, unit).decode(numbers)
    if isinstance(expected.dtype, pl.Datetime | pl.Duration):
        expected = expected.cast(type(expected.dtype)(unit))
    assert_series_equal(actual, expected)


@UNITS
@pytest.mark.parametrize("kind", ["M", "m"])
@pytest.mark.parametrize("stored", ["ns", "us", "ms", "s", "h", "10us"])
def test_times_of_numpy(unit, kind, stored):
    values = np.array([-(10**15) - 1, -1001, -1, 0, 1, 999, 1001, "NaT"], f"{kind}8[{stored}]")
    values = np.where(np.arange(8) == 0, values if stored == "ns" else values[1:2].repeat(8), values)
    decoding = decoding_of(values)
    expected = decoding.decode(values)
    assert_series_equal(in_time_unit(decoding, unit).decode(values), expected.cast(type(expected.dtype)(unit)))
    assert in_time_unit(decoding, "ns") is decoding


def test_a_finer_unit_that_cannot_hold_a_value_is_an_error():
    values = np.array(["300000-01-01"], "M8[D]").astype("M8[s]")
    decoding = in_time_unit(decoding_of(values), "us")
    assert decoding.dtype == pl.Datetime("us")
    with pytest.raises(StoreFormatError, match="cannot hold"):
        decoding.decode(values + np.timedelta64(10**13, "s"))


@pytest.fixture(scope="module")
def path(tmp_path_factory):
    """Times with nanoseconds, durations, packed values and a child group."""
    path = tmp_path_factory.mktemp("units") / "times.zarr"
    base = np.datetime64("2020-01-01", "ns") + np.arange(8) * np.timedelta64(86_400_000_000_123, "ns")
    coords = {"time": base, "lead": np.arange(3) * np.timedelta64(3_600_000_000_007, "ns")}
    values = {
        "t": (("time", "lead"), np.arange(24.0).reshape(8, 3)),
        "seen": (("time",), base - np.timedelta64(1, "ns")),
    }
    encoding = {
        "t": {"chunks": (2, 3), "scale_factor": 0.5, "dtype": "i2", "_FillValue": -1},
        "time": {"units": "nanoseconds since 2000-01-01", "dtype": "i8"},
        "lead": {"dtype": "i8"},
        "seen": {"units": "nanoseconds since 1970-01-01", "dtype": "i8", "chunks": (2,)},
    }
    data = xr.Dataset(values, coords)
    data.to_zarr(path, zarr_format=3, encoding=encoding, consolidated=False)
    data[["seen"]].to_zarr(path, group="child", zarr_format=3, encoding={"seen": encoding["seen"]}, consolidated=False)
    return str(path)


@UNITS
def test_scans_plans_and_tables(path, unit):
    expected = cast(rd.scan_zarr(path).collect(), unit)
    assert expected.schema["time"] == pl.Datetime(unit)
    assert expected.schema["lead"] == pl.Duration(unit)
    scan = rd.scan_zarr(path, time_unit=unit)
    assert_frame_equal(scan.collect(), expected)
    assert_frame_equal(rd.plan(path, time_unit=unit).collect(), expected)
    assert_frame_equal(rd.scan_zarr(rd.ZarrBackendSync.from_url(path), time_unit=unit).collect(), expected)
    found = rd.tables(path, time_unit=unit)
    assert {lf.collect_schema()["time"] for lf in found.values()} == {pl.Datetime(unit)}
    frame = rd.read_zarr(path, group="child", time_unit=unit).compute()
    assert frame["seen"].dtype == f"datetime64[{unit}]"
    assert_frame_equal(pl.from_pandas(frame), cast(rd.scan_zarr(path, group="child").collect(), unit))


@pytest.fixture(scope="module")
def tables(path):
    """By unit the scan, and its rows by Polars' cast."""
    whole = rd.scan_zarr(path).collect()
    return {unit: (rd.scan_zarr(path, time_unit=unit), cast(whole, unit)) for unit in ("us", "ms")}


@given(
    unit=st.sampled_from(["us", "ms"]),
    day=st.integers(-1, 9),
    shift=st.sampled_from([-1000, -1, 0, 1, 1000]),
    column=st.sampled_from(["time", "seen"]),
    compare=st.sampled_from([operator.ge, operator.lt, operator.eq]),
)
def test_filters_keep_the_rows_of_the_cast_table(tables, unit, day, shift, column, compare):
    scan, whole = tables[unit]
    condition = compare(pl.col(column), datetime(2020, 1, 1) + timedelta(days=day, microseconds=shift))
    assert_frame_equal(scan.filter(condition).collect(), whole.filter(condition))


@UNITS
def test_pruning_is_the_same(path, unit):
    kept = pl.col("time").dt.day() == 3
    lf = rd.scan_zarr(path, time_unit=unit).filter(kept)
    assert rd.explain(lf).chunks_kept == rd.explain(rd.scan_zarr(path).filter(kept)).chunks_kept == 3
    assert rd.explain(lf.select("t")).bytes == rd.explain(rd.scan_zarr(path).filter(kept).select("t")).bytes


@UNITS
def test_aggregates_joins_and_samples(path, unit):
    scan, frame = rd.scan_zarr(path, time_unit=unit), cast(rd.scan_zarr(path).collect(), unit)

    def ask(table):
        return table.group_by("time").agg(pl.col("t").mean(), pl.col("seen").max()).sort("time")

    assert_frame_equal(rd.collect(ask(scan)), ask(frame))
    keys = frame.select("time").unique().head(3)
    assert rd.collect(scan.join(keys.lazy(), on="time")).height == 9
    points = keys.with_columns(lead=pl.duration(hours=1, time_unit=unit))
    found = rd.sample(scan, points, ["time"]).collect()
    assert found.schema["time"] == pl.Datetime(unit)
    assert found.schema["lead_grid"] == pl.Duration(unit)


@pytest.mark.filterwarnings("ignore:In a future version, xarray will not decode timedelta:FutureWarning")
@UNITS
def test_exports(path, unit):
    plan = rd.plan(path, time_unit=unit, variables=["t"])
    assert plan.to_pandas()["time"].dtype == f"datetime64[{unit}]"
    assert plan.to_arrow().schema.field("time").type.unit == unit
    found = plan.to_xarray().time.values.astype(f"M8[{unit}]")  # xarray decodes for itself
    assert found.tolist() == plan.collect()["time"].unique(maintain_order=True).to_numpy().tolist()


def test_a_dataset_and_an_array_have_the_unit(path):
    with xr.open_zarr(path, consolidated=False, decode_timedelta=True) as data:
        scan = rd.scan_zarr(data, time_unit="ms")
        assert scan.collect_schema()["time"] == pl.Datetime("ms")
    array = zarr.open_group(path, mode="r")["t"]
    assert rd.scan_zarr(array, time_unit="us").collect_schema()["time"] == pl.Datetime("us")


def test_times_of_python_join(path):
    """Their unit is microseconds."""
    keys = rd.scan_zarr(path, time_unit="us").select("time").unique().collect().rows()
    frame = pl.DataFrame({"time": [row[0] for row in keys]})
    assert rd.scan_zarr(path, time_unit="us").join(frame.lazy(), on="time").select(pl.len()).collect().item() == 24
    with pytest.raises(pl.exceptions.SchemaError):
        rd.scan_zarr(path).join(frame.lazy(), on="time").collect()


@pytest.mark.parametrize("call", [rd.scan_zarr, rd.plan, rd.tables, rd.read_zarr])
def test_another_unit_is_refused(path, call):
    with pytest.raises(QueryError, match="There is no time unit 's'"):
        call(path, time_unit="s")
