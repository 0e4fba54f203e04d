"""CF decoding against xarray, and its times against cftime."""

import base64
import json
import pickle
import struct
import warnings

import hypothesis.extra.numpy as hnp
import hypothesis.strategies as st
import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from hypothesis import assume, given
from polars.testing import assert_series_equal

from rainbear_dask.coding import cf
from rainbear_dask.exceptions import StoreFormatError
from rainbear_dask.metadata.model import ArrayMeta
from tests.support.times import CALENDARS, EPOCHS, GREGORIAN, NANOSECONDS, SPELLINGS, YEAR, labels_by_cftime

NAT = np.iinfo("int64").min
INTEGERS = ["int8", "int16", "int32", "int64", "uint8", "uint16", "uint32", "uint64"]


def array_of(values, attributes=None, *, fill_value=None, zarr_format=3):
    return ArrayMeta(
        path="group/v",
        dims=tuple(f"d{i}" for i in range(values.ndim)),
        shape=values.shape,
        chunks=values.shape,
        shards=None,
        dtype=values.dtype,
        fill_value=fill_value,
        attributes=attributes or {},
        document="{}",
        zarr_format=zarr_format,
    )


def decoding_of(values, attributes=None, *, coordinate=False, sampled=True, decode=True, mask=True, **array):
    return cf.decoding_of(
        array_of(values, attributes, **array),
        coordinate=coordinate,
        decode=decode,
        mask=mask,
        sample=values if sampled else None,
    )


def column(values, attributes=None, **options):
    decoding = decoding_of(values, attributes, **options)
    series = decoding.decode(values)
    assert series.dtype == decoding.dtype
    return series


def by_xarray(values, attributes, **options):
    variable = xr.Variable(tuple(f"d{i}" for i in range(values.ndim)), values, attributes)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")  # it says which fills it masks, and when it turns to cftime
        return xr.conventions.decode_cf_variable("v", variable, **options).values


def labels(series):
    """Times as the calendar writes them, to the microsecond."""
    if series.dtype == pl.String:
        return [text if "." in text else text + ".000000" for text in series]
    return series.dt.to_string("%Y-%m-%dT%H:%M:%S%.6f").to_list()


# Stored types


@pytest.mark.parametrize("dtype", [*INTEGERS, "bool", "float32", "float64"])
def test_plain_numbers_keep_type_and_value(dtype):
    values = np.array([0, 1, 100]).astype(dtype)

    assert_series_equal(column(values), pl.Series(values))


def test_half_precision_becomes_float32():
    values = np.array([0.1, np.nan, 65504, np.inf], dtype="float16")

    actual = column(values, {"missing_value": 0.1})  # a fill in the precision of the file, not in float32's

    expected = pl.Series([None, float("nan"), 65504, float("inf")], dtype=pl.Float32)
    assert_series_equal(actual, expected)


@pytest.mark.parametrize("dtype", ["complex64", "complex128", "V8", [("a", "i4"), ("b", "f4")], "m8[Y]", "M8[ps]"])
def test_a_type_without_a_column_is_refused_by_name(dtype):
    with pytest.raises(StoreFormatError, match="group/v"):
        decoding_of(np.zeros(2, dtype=dtype), sampled=False)


@pytest.mark.parametrize("order", ["C", "F"])
def test_cells_come_in_c_order_of_any_layout_and_byte_order(order):
    values = np.asarray(np.arange(24.0).reshape(2, 3, 4), order=order)

    assert column(values).to_list() == list(range(24))
    assert column(values.transpose(2, 0, 1)).to_list() == values.transpose(2, 0, 1).ravel().tolist()
    assert decoding_of(values).decode(values.astype(">f8")).to_list() == list(range(24))
    assert column(np.array(5)).to_list() == [5]
    assert column(np.zeros((0, 3))).to_list() == []


@pytest.mark.parametrize("attributes", [{}, {"_FillValue": -1.0}, {"missing_value": [float("nan"), 7.0]}])
def test_numbers_without_masked_values_are_adopted_without_a_copy(attributes):
    values = np.linspace(0, 1, 1000, dtype="float32")

    series = column(values, attributes)

    assert np.shares_memory(series.to_numpy(allow_copy=False), values)


def test_masking_leaves_the_stored_values_as_they_were():
    values = np.array([1.0, 2.0, 1.0])

    assert column(values, {"_FillValue": 1.0}).to_list() == [None, 2, None]
    assert values.tolist() == [1, 2, 1]


@pytest.mark.parametrize("unit", ["Y", "M", "W", "D", "h", "m", "s", "ms", "us", "ns", "25s", "10ns"])
def test_numpy_times_keep_their_instant(unit):
    times = np.array(["1969-07-20", "NaT", "2020-02-29"], dtype="M8[D]").astype(f"M8[{unit}]")

    actual = column(times)

    assert actual.dtype.time_unit == (unit[-2:] if unit[-2:] in ("ms", "us", "ns") else "ms")
    assert actual.to_list() == times.astype("M8[us]").tolist()


@pytest.mark.parametrize("unit", ["W", "D", "h", "m", "s", "ms", "us", "ns"])
def test_numpy_durations_keep_their_length(unit):
    lengths = np.array([-3000, 0, NAT, 7000], dtype=f"m8[{unit}]")

    actual = column(lengths)

    assert actual.dtype == pl.Duration(unit if unit in ("ms", "us", "ns") else "ms")
    assert actual.to_list() == lengths.astype("m8[us]").tolist()


@pytest.mark.parametrize("dtype", ["M8[D]", "M8[s]", "m8[h]"])
def test_a_numpy_time_that_milliseconds_cannot_hold_is_an_error(dtype):
    with pytest.raises(StoreFormatError, match="group/v"):
        column(np.array([0, 2**62]).astype(dtype))


# Strings

TEXTS = ["", "a", "Ωmega", "null", "a b", "a"]


@pytest.mark.parametrize("dtype", [object, "U8", np.dtypes.StringDType()])
@pytest.mark.parametrize(
    ("fills", "expected"), [({}, TEXTS), ({"missing_value": ["a", ""]}, [None, None, *TEXTS[2:5], None])]
)
def test_text_of_any_storage_becomes_string(dtype, fills, expected):
    assert column(np.array(TEXTS, dtype=dtype), fills).to_list() == expected


@pytest.mark.parametrize("dtype", [object, "S8"])
@pytest.mark.parametrize("shape", [(6,), (2, 3)])
def test_bytes_in_utf8_become_string(dtype, shape):
    values = np.array([text.encode() for text in TEXTS], dtype=dtype).reshape(shape)

    assert_series_equal(column(values), pl.Series(TEXTS))
    assert_series_equal(column(values, sampled=False), pl.Series(TEXTS))


@pytest.mark.parametrize("dtype", [object, "S2"])
def test_bytes_that_the_sample_shows_not_to_be_text_become_binary(dtype):
    values = np.array([b"a", b"\xff", b""], dtype=dtype)

    assert_series_equal(column(values), pl.Series([b"a", b"\xff", b""]))
    assert_series_equal(column(values, {"missing_value": "a"}), pl.Series([None, b"\xff", b""]))


@pytest.mark.parametrize("fill", [b"b", b"\xffb"])
def test_fills_of_bytes_mask_whether_they_are_text_or_not(fill):
    values = np.array([b"a", b"\xff", b"b", b"\xffb"])

    actual = column(values, {"missing_value": "a"}, fill_value=fill, zarr_format=2)

    expected = [None if value in (b"a", fill) else value for value in values.tolist()]
    assert_series_equal(actual, pl.Series(expected, dtype=pl.Binary))


def test_a_fill_of_text_may_be_declared_twice():
    actual = column(np.array(["a", "b"]), {"missing_value": ["b", "b"]}, fill_value="b", zarr_format=2)

    assert_series_equal(actual, pl.Series(["a", None]))


def test_bytes_that_turn_out_not_to_be_text_are_an_error():
    decoding = decoding_of(np.array([b"a"]))

    with pytest.raises(StoreFormatError, match=r"group/v.*UTF-8"):
        decoding.decode(np.array([b"\xff"]))


# Masks


def fills_of(dtype):
    return st.lists(st.integers(0, 5).map(lambda n: np.dtype(dtype).type(n).item()), min_size=1, max_size=3)


@pytest.mark.parametrize("zarr_format", [2, 3])
@given(data=st.data(), dtype=st.sampled_from([*INTEGERS, "float32", "float64"]))
def test_masks_what_xarray_masks_and_changes_no_other_value(zarr_format, data, dtype):
    values = data.draw(hnp.arrays(dtype, st.integers(1, 20), elements=st.integers(0, 6)))
    missing = data.draw(st.one_of(st.none(), fills_of(dtype), fills_of(dtype).map(lambda fills: fills[0])))
    fill = data.draw(st.one_of(st.none(), fills_of(dtype).map(lambda fills: np.dtype(dtype).type(fills[0]))))
    attributes = {} if missing is None else {"missing_value": missing}
    declared = attributes if fill is None else attributes | {"_FillValue": fill.item()}

    if zarr_format == 2:  # there xarray takes the array's own fill value for CF's
        actual = column(values, attributes, fill_value=fill, zarr_format=2)
    else:
        actual = column(values, declared, fill_value=values.dtype.type(0))

    masked = np.isnan(by_xarray(values, declared).astype("float64"))
    assert_series_equal(actual, pl.Series(values).set(pl.Series(masked), None))


@pytest.mark.parametrize("dtype", ["float16", "float32", "float64"])
@pytest.mark.parametrize("fill", [9.969209968386869e36, -32767.0, 0.1, float("inf"), float("-inf"), float("nan")])
@pytest.mark.parametrize("spelling", ["number", "text", "base64"])
def test_float_fills_are_understood_in_every_spelling(dtype, fill, spelling):
    with np.errstate(over="ignore"):
        stored = np.dtype(dtype).type(fill)
    representable = np.isinf(stored) == np.isinf(fill)
    values = np.array([1.5, stored, 2.5], dtype=dtype)
    spelled = {
        "number": fill,
        "text": json.dumps(fill).strip("-") if fill > 0 else json.dumps(fill),
        "base64": base64.standard_b64encode(struct.pack("<d", float(stored))).decode(),
    }[spelling]

    actual = column(values, {"_FillValue": spelled})

    masked = None if representable or spelling == "base64" else float(stored)
    assert actual.to_list() == [1.5, masked, 2.5]


@pytest.mark.parametrize("fill", [1e20, 44.5, 300, -129, float("nan"), "NaN", "none", None, [], {"a": 1}])
def test_a_fill_that_the_stored_type_cannot_hold_masks_nothing(fill):
    values = np.array([-128, 0, 44, 127], dtype="int8")

    assert_series_equal(column(values, {"_FillValue": fill}), pl.Series(values))


def test_nan_is_null_only_where_declared():
    values = np.array([1.0, np.nan, -9.0])

    assert column(values, {"_FillValue": -9.0}).is_nan().to_list() == [False, True, None]
    assert column(values, {"_FillValue": -9.0, "missing_value": "NaN"}).to_list() == [1, None, None]
    packed = column(values, {"_FillValue": -9.0, "scale_factor": 2.0})
    assert packed.is_nan().to_list() == [False, True, None]


def test_zarr_fill_value_masks_in_v2_alone_and_never_a_stored_bool():
    values = np.array([0, 1], dtype="int32")

    assert column(values, fill_value=np.int32(0), zarr_format=2).to_list() == [None, 1]
    assert column(values, fill_value=np.int32(0), zarr_format=3).to_list() == [0, 1]
    assert column(values > 0, fill_value=np.bool_(False), zarr_format=2).to_list() == [False, True]


def test_valid_range_masks_nothing():
    values = np.array([1, 50, 200], dtype="int16")

    assert column(values, {"valid_min": 10, "valid_max": 100, "valid_range": [10, 100]}).to_list() == [1, 50, 200]


def test_without_mask_stored_fills_are_values():
    values = np.array([1, -9], dtype="int16")

    assert_series_equal(column(values, {"_FillValue": -9}, mask=False), pl.Series(values))
    assert column(values, {"_FillValue": -9, "add_offset": 1.0}, mask=False).to_list() == [2, -8]
    assert column(np.array(["a"]), {"missing_value": "a"}, mask=False).to_list() == ["a"]


@pytest.mark.parametrize(
    "attributes",
    [
        {"units": "days since 2000-01-01"},
        {"units": "hours", "dtype": "timedelta64[s]"},
        {"scale_factor": 0.1},
        {"_Unsigned": "true"},
        {"dtype": "bool"},
    ],
)
def test_without_decoding_the_stored_type_and_values_stay(attributes):
    values = np.array([1, -9], dtype="int8")

    actual = column(values, attributes | {"_FillValue": -9}, coordinate=True, decode=False)

    assert_series_equal(actual, pl.Series(values))


# Packing, signedness, flags


@given(
    data=st.data(),
    dtype=st.sampled_from([*INTEGERS, "float32", "float64"]),
    scale=st.none() | st.floats(1e-6, 1e6),
    offset=st.none() | st.floats(-1e6, 1e6),
    fill=st.none() | st.integers(0, 5),
)
def test_unpacks_as_xarray_does_in_float64(data, dtype, scale, offset, fill):
    assume(scale is not None or offset is not None)
    values = data.draw(hnp.arrays(dtype, st.integers(1, 20), elements=st.integers(0, 100)))
    given_ = {"scale_factor": scale, "add_offset": offset, "_FillValue": fill}
    attributes = {name: value for name, value in given_.items() if value is not None}

    actual = column(values, attributes)

    expected = by_xarray(values, attributes).astype("float64")
    assert_series_equal(actual, pl.Series(expected).fill_nan(None), check_exact=True)


@pytest.mark.parametrize("scale", [0.5, "5e-1", [0.5], ["0.5"], np.float32(0.5)])
def test_packing_attributes_may_be_text_or_lists_of_one(scale):
    assert column(np.array([3, 4], dtype="int8"), {"scale_factor": scale, "add_offset": [1]}).to_list() == [2.5, 3.0]


@pytest.mark.parametrize("scale", ["much", [1.0, 2.0], {"by": 2}])
def test_a_packing_attribute_that_is_no_number_is_an_error(scale):
    with pytest.raises(StoreFormatError, match=r"group/v.*scale_factor.*decode=False"):
        decoding_of(np.array([3], dtype="int8"), {"scale_factor": scale})


@pytest.mark.parametrize(
    ("stored", "unsigned"), [("int8", "true"), ("int16", "true"), ("uint8", "false"), ("int8", "false")]
)
@given(data=st.data())
def test_signedness_is_reinterpreted_as_by_xarray(stored, unsigned, data):
    values = data.draw(hnp.arrays(stored, 10))
    fill = values[0].item()
    attributes = {"_Unsigned": unsigned, "_FillValue": fill}
    assume(not (stored == "uint8" and fill > 127))  # where xarray raises OverflowError

    actual = column(values, attributes)

    masked = values == values[0]
    expected = by_xarray(values, {"_Unsigned": unsigned})
    assert_series_equal(actual, pl.Series(expected).set(pl.Series(masked), None))
    assert np.array_equal(np.isnan(by_xarray(values, attributes)), masked)


def test_an_unsigned_fill_may_be_written_either_way():
    values = np.array([1, -1], dtype="int8")

    for fill in (-1, 255):
        assert column(values, {"_Unsigned": "true", "_FillValue": fill}).to_list() == [1, None]


def test_bytes_declared_bool_are_boolean():
    values = np.array([1, 0, -9], dtype="int8")

    assert_series_equal(column(values, {"dtype": "bool", "_FillValue": -9}), pl.Series([True, False, None]))


# Times


@given(
    data=st.data(),
    unit=st.sampled_from(sorted(SPELLINGS)),
    epoch=st.sampled_from(EPOCHS),
    calendar=st.sampled_from(CALENDARS),
    dtype=st.sampled_from(INTEGERS),
)
def test_integer_times_have_the_labels_that_cftime_gives(data, unit, epoch, calendar, dtype):
    info, tick = np.iinfo(dtype), NANOSECONDS[SPELLINGS[unit]]
    low = max(info.min + 1, 0 if int(epoch.split("-")[0]) < 1000 else -900 * YEAR // tick)
    high = min(info.max, 4000 * YEAR // tick)
    values = np.array(data.draw(st.lists(st.integers(low, high), min_size=1, max_size=8)), dtype=dtype)
    units = f"{unit} since {epoch}"

    actual = column(values, {"units": units, "calendar": calendar})

    expected = labels_by_cftime(values.astype("int64"), units, calendar)
    assert labels(actual) == expected
    # text is for dates without a place in Polars' calendar, and for no others
    reform = calendar in ("standard", "gregorian") and min(expected) < "1582-10-15"
    assert (actual.dtype == pl.String) == (reform or calendar in ("360_day", "julian", "all_leap", "366_day"))


@given(
    data=st.data(),
    unit=st.sampled_from(sorted(NANOSECONDS)),
    epoch=st.sampled_from(["1700-01-01", *EPOCHS[5:9]]),
    calendar=st.sampled_from(GREGORIAN),
    dtype=st.sampled_from(INTEGERS),
)
def test_integer_times_equal_xarray_to_the_nanosecond(data, unit, epoch, calendar, dtype):
    info, reach = np.iinfo(dtype), 200 * YEAR // NANOSECONDS[unit]
    low, high = max(info.min + 1, 0 if epoch.startswith("1700") else -reach), min(info.max, reach)
    values = np.array(data.draw(st.lists(st.integers(low, high), min_size=1, max_size=8)), dtype=dtype)
    attributes = {"units": f"{unit} since {epoch}", "calendar": calendar}

    expected = by_xarray(values, attributes)
    assume(expected.dtype == "M8[ns]")

    assert_series_equal(column(values, attributes), pl.Series(expected))


@given(
    data=st.data(),
    unit=st.sampled_from(["seconds", "minutes", "hours", "days"]),
    epoch=st.sampled_from(EPOCHS[5:]),
    dtype=st.sampled_from(["float16", "float32", "float64"]),
)
def test_float_times_equal_xarray_within_a_microsecond(data, unit, epoch, dtype):
    reach = min(float(np.finfo(dtype).max), 80 * YEAR / NANOSECONDS[unit])
    values = (np.array(data.draw(st.lists(st.floats(0, 1), min_size=1, max_size=8))) * reach).astype(dtype)

    actual = column(values, {"units": f"{unit} since {epoch}"})

    expected = by_xarray(values.astype("float64"), {"units": f"{unit} since {epoch}"})
    assume(expected.dtype == "M8[ns]")
    assert actual.dtype == pl.Datetime("ns")
    assert np.abs(actual.to_physical().to_numpy() - expected.astype("int64")).max() <= 1000


@given(
    data=st.data(),
    calendar=st.sampled_from(CALENDARS),
    unit=st.sampled_from(["hours", "days"]),
    epoch=st.sampled_from(EPOCHS[4:]),
)
def test_float_times_of_every_calendar_have_the_labels_that_cftime_gives(data, calendar, unit, epoch):
    quarters = data.draw(st.lists(st.integers(0, 4_000_000), min_size=1, max_size=8))
    values = np.array(quarters) / 16  # exact in binary, so that no rounding is in doubt

    actual = column(values, {"units": f"{unit} since {epoch}", "calendar": calendar})

    assert labels(actual) == labels_by_cftime(values, f"{unit} since {epoch}", calendar)


@pytest.mark.parametrize("dtype", ["int16", "int8", "float32", "float16"])
def test_times_are_computed_in_a_wide_type(dtype):
    values = np.array([0, 100], dtype=dtype)

    actual = column(values, {"units": "days since 2000-01-01 00:00:00.5"})

    assert labels(actual) == ["2000-01-01T00:00:00.500000", "2000-04-10T00:00:00.500000"]


@pytest.mark.parametrize("dtype", ["int8", "int16", "float32", "float64"])
def test_packed_times_are_unpacked_first(dtype):
    values = np.array([0, 3, 100, -9], dtype=dtype)
    attributes = {"units": "hours since 2000-01-01", "scale_factor": 0.25, "add_offset": 1.5, "_FillValue": -9}

    assert_series_equal(column(values, attributes), pl.Series(by_xarray(values, attributes)))


@pytest.mark.parametrize("dtype", ["int64", "float64"])
def test_masked_times_are_null_and_never_out_of_range(dtype):
    fill = 2**62 if dtype == "int64" else 9.969209968386869e36
    missing = NAT if dtype == "int64" else np.nan
    values = np.array([fill, 730_000, missing, 730_001], dtype=dtype)
    attributes = {"units": "days since 0001-01-01", "_FillValue": fill}

    actual = column(values, attributes)

    assert actual.dtype == pl.Datetime("ns")
    assert actual.null_count() == 2
    assert labels(actual.drop_nulls()) == labels_by_cftime(values[[1, 3]], attributes["units"], "standard")
    assert column(values[:1], attributes).to_list() == [None]
    assert column(values[:1], attributes | {"calendar": "360_day"}).to_list() == [None]


@pytest.mark.parametrize(
    "attributes",
    [
        {"units": "months since 2000-01-01"},
        {"units": "years since 2000-01-01"},
        {"units": "days since 0000-01-01"},
        {"units": "days since 1582-10-10"},
        {"units": "days since 2001-02-29"},
        {"units": "days since 2001-13-01"},
        {"units": "days since 2001-01-00"},
        {"units": "days since 2001-01-01 25:00"},
        {"units": "days since the flood"},
        {"units": "kelvin since 2000-01-01"},
        {"units": "days since 2000-01-01", "calendar": "mayan"},
        {"units": "days since 2000-02-31", "calendar": "360_day"},
        {"units": ["days since 2000-01-01"]},
        {"units": 7},
    ],
)
def test_what_cannot_be_a_time_stays_a_number(attributes):
    values = np.array([1, 2, -9])

    actual = column(values, attributes | {"_FillValue": -9})

    assert_series_equal(actual, pl.Series([1, 2, None]))


def test_every_noleap_date_keeps_its_label():
    values, units = np.arange(-400, 365 * 9), "days since 2000-01-01"

    actual = column(values, {"units": units, "calendar": "noleap"})

    assert actual.dtype == pl.Datetime("ns")
    assert labels(actual) == labels_by_cftime(values, units, "noleap")
    assert not ((actual.dt.month() == 2) & (actual.dt.day() == 29)).any()


@pytest.mark.parametrize("calendar", ["360_day", "julian", "all_leap", "standard"])
@pytest.mark.parametrize("step", [1, 0.25, 1e-6])
def test_times_as_text_sort_like_the_times(calendar, step):
    values = np.arange(-500, 1500) * step

    actual = column(values, {"units": "days since 1500-02-28", "calendar": calendar})

    assert actual.dtype == pl.String
    assert actual.str.len_bytes().n_unique() == 1
    assert actual.is_sorted()
    assert actual.n_unique() == len(values)


def test_text_shows_fractions_always_or_never():
    units = {"units": "days since 2000-01-01", "calendar": "360_day"}
    whole, broken = np.array([0.0, 0.5]), np.array([0.0, 2.0**-20])

    assert column(whole, units)[1] == "2000-01-01T12:00:00"
    assert column(broken, units).to_list() == ["2000-01-01T00:00:00.000000", "2000-01-01T00:00:00.082397"]
    assert column(whole, units, sampled=False)[1] == "2000-01-01T12:00:00.000000"
    assert column(whole.astype("int32"), units, sampled=False)[0] == "2000-01-01T00:00:00"
    with pytest.raises(StoreFormatError, match="group/v"):
        decoding_of(whole, units).decode(broken)


def test_years_that_text_cannot_sort_stay_numbers():
    values = np.array([0, 10_000 * 360])

    assert_series_equal(column(values, {"units": "days since 2000-01-01", "calendar": "360_day"}), pl.Series(values))


@pytest.mark.parametrize("calendar", ["proleptic_gregorian", "noleap"])
def test_microseconds_where_nanoseconds_cannot_hold_the_sample(calendar):
    attributes = {"units": "days since 2000-01-01", "calendar": calendar}
    near, far = np.array([0, 90_000]), np.array([0, 110_000])

    assert column(near, attributes).dtype == pl.Datetime("ns")
    assert column(far, attributes).dtype == pl.Datetime("us")
    assert labels(column(far, attributes)) == labels_by_cftime(far, attributes["units"], calendar)
    assert_series_equal(column(far * 10**9, attributes), pl.Series(far * 10**9))


@pytest.mark.parametrize(
    ("units", "calendar", "dtype"),
    [
        ("days since 3000-01-01", "standard", pl.Datetime("us")),
        ("days since 2000-01-01", "noleap", pl.Datetime("ns")),
        ("days since 2000-01-01", "360_day", pl.String()),
    ],
)
def test_a_sample_in_which_all_is_masked_decides_as_none_does(units, calendar, dtype):
    attributes = {"units": units, "calendar": calendar, "_FillValue": -1}
    decoding = decoding_of(np.full(4, -1), attributes)

    assert decoding == decoding_of(np.full(4, -1), attributes, sampled=False)
    assert decoding.dtype == dtype
    assert labels(decoding.decode(np.array([40]))) == labels_by_cftime([40], units, calendar)


def test_without_a_sample_the_epoch_decides():
    values = np.array([0, 1])

    for epoch, unit in [("1678-01-01", "ns"), ("2262-01-01", "ns"), ("1600-01-01", "us"), ("2300-01-01", "us")]:
        assert column(values, {"units": f"days since {epoch}"}, sampled=False).dtype == pl.Datetime(unit)
    modern = column(np.array([730_000]), {"units": "days since 0001-01-01"}, sampled=False)
    assert labels(modern) == labels_by_cftime([730_000], "days since 0001-01-01", "standard")


@pytest.mark.parametrize("calendar", [*GREGORIAN, "noleap", "360_day", "julian", "all_leap"])
@pytest.mark.parametrize("unit", ["microseconds", "seconds", "days"])
@pytest.mark.parametrize("extreme", [np.int64(2**63 - 1), np.int64(-(2**63) + 1), np.uint64(2**64 - 1), 1e300, -1e300])
def test_a_time_out_of_range_is_an_error_that_names_the_array_and_never_wraps(calendar, unit, extreme):
    values = np.array([0, extreme], dtype=np.asarray(extreme).dtype)
    decoding = decoding_of(values[:1], {"units": f"{unit} since 2200-01-01", "calendar": calendar})

    with pytest.raises(StoreFormatError, match=r"group/v.*decode=False"):
        decoding.decode(values)


@pytest.mark.parametrize("value", [np.inf, -np.inf])
def test_infinite_times_are_an_error(value):
    decoding = decoding_of(np.array([0.0]), {"units": "days since 2000-01-01"})

    with pytest.raises(StoreFormatError, match="group/v"):
        decoding.decode(np.array([value]))


def test_the_edges_of_nanoseconds_are_held_and_one_more_is_not():
    attributes = {"units": "nanoseconds since 1970-01-01"}
    edges = np.array([-(2**63) + 1, 2**63 - 1])
    decoding = decoding_of(np.array([0]), attributes)

    assert decoding.decode(edges).to_physical().to_list() == edges.tolist()
    beyond = decoding_of(np.array([0]), {"units": "nanoseconds since 1970-01-01 00:00:00.000000001"})
    assert beyond.decode(edges[:1]).to_physical().to_list() == [edges[0] + 1]
    with pytest.raises(StoreFormatError):
        beyond.decode(edges[1:])
    before = decoding_of(np.array([0]), {"units": "nanoseconds since 1969-12-31 23:59:59.999999999"})
    with pytest.raises(StoreFormatError):  # the number that stands for NaT elsewhere
        before.decode(edges[:1])


def test_noleap_labels_past_the_edge_of_nanoseconds_are_in_microseconds():
    values, units = np.array([262 * 365 + 99, 262 * 365 + 120]), "days since 2000-01-01"  # 10 April and 1 May 2262

    assert column(values[:1], {"units": units, "calendar": "noleap"}).dtype == pl.Datetime("ns")
    actual = column(values, {"units": units, "calendar": "noleap"})

    assert actual.dtype == pl.Datetime("us")
    assert labels(actual) == labels_by_cftime(values, units, "noleap")


@pytest.mark.parametrize(
    ("values", "attributes", "expected"),
    [
        (np.array([0]), {"units": "days since 2000-01-01"}, True),
        (np.array([0.0]), {"units": "days since 2000-01-01", "calendar": "360_day"}, True),
        (np.array([b"a"]), {}, True),
        (np.array([b"a"], dtype=object), {}, True),
        (np.array(["a"]), {}, False),
        (np.array([0]), {"units": "months since 2000-01-01"}, False),
        (np.array([0]), {"units": "days"}, False),
        (np.array([0], dtype="M8[s]"), {}, False),
        (np.array([0.0]), {}, False),
    ],
)
def test_a_sample_is_asked_for_only_where_values_decide(values, attributes, expected):
    assert cf.needs_sample(array_of(values, attributes)) is expected


# Durations


@pytest.mark.parametrize("unit", ["days", "hours", "minutes", "seconds", "milliseconds", "microseconds", "nanoseconds"])
@pytest.mark.parametrize("resolution", ["s", "ms", "us", "ns"])
@pytest.mark.parametrize("dtype", ["int16", "int64", "float64"])
def test_declared_durations_equal_xarray(unit, resolution, dtype):
    values = np.array([0, 1, -9, 300], dtype=dtype) * (10**6 if unit.startswith("n") and dtype != "int16" else 1)
    if resolution == "s" and unit[:2] in ("mi", "na") and unit != "minutes":
        values = values * 0  # xarray refines the type to hold the others
    attributes = {"units": unit, "dtype": f"timedelta64[{resolution}]", "_FillValue": -9}

    actual = column(values, attributes)

    expected = by_xarray(values, attributes)
    assert actual.dtype == pl.Duration("ms" if resolution == "s" else resolution)
    assert_series_equal(actual, pl.Series(expected.astype(f"m8[{actual.dtype.time_unit}]")))


@pytest.mark.parametrize("unit", ["hours", "hour", "hr", "days", "Days", "seconds", "min", "ms", "nanoseconds"])
def test_a_plain_unit_of_time_makes_a_coordinate_a_duration_and_no_data_variable(unit):
    values = np.array([1, 2])

    assert column(values, {"units": unit}, coordinate=True).dtype == pl.Duration("ns")
    assert_series_equal(column(values, {"units": unit}), pl.Series(values))


@pytest.mark.parametrize("unit", ["m", "s", "d", "h", "D", "metres", "degree_days", "days accumulated", "1", ""])
def test_other_units_make_no_duration(unit):
    values = np.array([1, 2])

    assert_series_equal(column(values, {"units": unit}, coordinate=True), pl.Series(values))


def test_a_declared_duration_without_unit_counts_its_own():
    assert (
        column(np.array([2]), {"dtype": "timedelta64[h]"}).to_list() == np.array([2], "m8[h]").astype("m8[us]").tolist()
    )


def test_a_duration_out_of_range_is_an_error():
    decoding = decoding_of(np.array([0]), {"units": "days"}, coordinate=True)

    with pytest.raises(StoreFormatError, match="group/v"):
        decoding.decode(np.array([106_752]))


# Whole stores, and the value itself


@pytest.mark.filterwarnings("ignore:The data type .* does not have a Zarr V3 specification")
@pytest.mark.parametrize("zarr_format", [2, 3])
def test_what_xarray_writes_is_read_as_xarray_reads_it(tmp_path, zarr_format):
    dataset = xr.Dataset(
        {
            "bool": ("x", [True, False, True]),
            "float": ("x", np.array([1, np.nan, 3], dtype="f4")),
            "filled": ("x", np.array([1, np.nan, 3], dtype="f4"), {}, {"_FillValue": np.float32(1e20)}),
            "packed": ("x", [1.5, np.nan, -2.0], {}, {"dtype": "i2", "scale_factor": 0.5, "_FillValue": -9}),
            "unsigned": ("x", [1, np.nan, 200], {}, {"dtype": "i1", "_Unsigned": "true", "_FillValue": -1}),
            "time": ("x", np.array(["2000-01-01T01", "NaT", "2001-02-03"], dtype="M8[ns]")),
            "float time": ("x", np.array(["2000-01-01T01", "NaT", "2001-02-03"], dtype="M8[ns]"), {},
                           {"dtype": "f8", "units": "days since 1999-12-31 06:00"}),
            "duration": ("x", np.array([1, NAT, 3], dtype="m8[s]")),
            "text": ("x", np.array(["a", "", "Ω"], dtype=object)),
            "fixed": ("x", np.array(["a", "", "Ω"])),
        }
    )  # fmt: skip
    dataset.to_zarr(tmp_path, zarr_format=zarr_format, consolidated=False)
    expected = xr.open_zarr(tmp_path, consolidated=False).load()

    for name, stored in zarr.open_group(tmp_path, mode="r").arrays():
        actual = column(
            stored[:], dict(stored.attrs), fill_value=stored.fill_value, zarr_format=stored.metadata.zarr_format
        )

        values = expected[name].values
        missing = [value is None or value != value for value in values.tolist()]  # noqa: PLR0124
        missing = np.isnat(values).tolist() if values.dtype.kind in "mM" else missing
        assert actual.is_null().to_list() == missing, name
        if values.dtype.kind in "mM":
            values = values.astype("M8[us]" if values.dtype.kind == "M" else "m8[us]")
        present = [value for value, gone in zip(values.tolist(), missing, strict=True) if not gone]
        assert actual.drop_nulls().to_list() == present, name


@pytest.mark.parametrize(
    ("values", "attributes"),
    [
        (np.array([1.0, np.nan]), {"_FillValue": float("nan"), "missing_value": [1e20, -9.0], "scale_factor": 2}),
        (np.array([1, 2]), {"units": "days since 2000-01-01", "calendar": "noleap"}),
        (np.array([1, 2]), {"units": "days since 2000-01-01", "calendar": "360_day"}),
        (np.array([b"a", b"\xff"]), {"missing_value": "a"}),
        (np.array(["a"], dtype=np.dtypes.StringDType()), {}),
        (np.array([1, 2], dtype="M8[D]"), {}),
    ],
)
def test_a_decoding_pickles_compares_and_hashes(values, attributes):
    decoding = decoding_of(values, attributes)

    again = pickle.loads(pickle.dumps(decoding))

    assert again == decoding
    assert hash(again) == hash(decoding)
    assert again != decoding_of(np.zeros(1, dtype="int8"))
    assert_series_equal(again.decode(values), decoding.decode(values))


@pytest.mark.parametrize("stored", ["i2", "u1", "f4", "f8", "f2", "?"])
@pytest.mark.parametrize(
    "attributes",
    [
        {},
        {"_FillValue": 1},
        {"_FillValue": 0, "scale_factor": 0.5, "add_offset": 3.0},
        {"missing_value": [0, 1]},
        {"dtype": "bool"},
    ],
)
def test_numbers_are_decoded_without_polars_as_with_it(stored, attributes):
    if stored == "?":
        attributes = {}
    values = np.array([[0, 1, 2], [1, 1, 3]]).astype(stored)
    if stored[0] == "f":
        values[0, 2] = np.nan
    decoding = decoding_of(values, attributes)
    assert decoding.holds_numbers
    numbers, masked = decoding.decode_numbers(values)
    known = pl.Series(np.ones(6, bool) if masked is None else ~masked.reshape(-1))
    actual = pl.Series(numbers.reshape(-1)).to_frame("x").select(pl.when(known).then("x")).to_series()
    assert_series_equal(actual, decoding.decode(values), check_names=False)
    if decoding.keeps_values:
        np.testing.assert_array_equal(numbers, values)
