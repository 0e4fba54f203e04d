"""Stores that TensorStore, zarrs and netCDF-C write: a scan gives what was written."""

import warnings
from pathlib import Path

import netCDF4
import numpy as np
import polars as pl
import pytest
import tensorstore
import zarr
import zarrs

import rainbear_dask as rd
from rainbear_dask.exceptions import StoreNotFoundError
from tests.support.oracle import assert_same_rows

c = pl.col

SHAPE, CHUNK = (6, 10, 14), (2, 5, 7)
FIELD = np.random.default_rng(7).integers(-900, 900, SHAPE).astype("f4") / 8
FIELD[2:4, 5:, :7] = 0.0  # a chunk like this is not stored: it is all fill value
HOURS = np.arange(6, dtype="i4") * 6
LATITUDES = np.linspace(90, -90, 10)


def cells(names=("time", "lat", "lon"), **coordinates) -> pl.DataFrame:
    """The field as a table, its coordinates by name; positions where none is given."""
    index = np.indices(SHAPE).reshape(3, -1)
    along = [np.asarray(coordinates.get(name, np.arange(n)))[i] for name, n, i in zip(names, SHAPE, index, strict=True)]
    return pl.DataFrame(
        [*(pl.Series(*each) for each in zip(names, along, strict=True)), pl.Series("t2m", FIELD.ravel())]
    )


def check_scan(path: Path, expected: pl.DataFrame) -> None:
    """The whole table, a filter on the middle dimension, and one on the values, with and without other columns."""
    middle = c(expected.columns[1])
    for ask in (
        lambda table: table,
        lambda table: table.filter(middle > middle.max() / 2),
        lambda table: table.filter(middle <= 4, c.t2m > 50),
        lambda table: table.filter(c.t2m.is_between(-1, 1)).select("t2m"),
    ):
        assert_same_rows(ask(rd.scan_zarr(path)).collect(), ask(expected.lazy()).collect())


@pytest.fixture(params=[False, True], ids=["unconsolidated", "consolidated"])
def finish(request):
    """Give a folder of arrays what makes it a group, and consolidated metadata or none."""

    def finished(path: Path, zarr_format: int) -> Path:
        zarr.open_group(path, mode="a", zarr_format=zarr_format)
        if request.param:
            zarr.consolidate_metadata(str(path), zarr_format=zarr_format)
        return path

    return finished


# ---------------------------------------------------------------------- TensorStore


def write_tensorstore(path: Path, driver: str, values: np.ndarray, **metadata) -> None:
    spec = {"driver": driver, "kvstore": {"driver": "file", "path": str(path)}, "metadata": metadata}
    array = tensorstore.open(spec, create=True, dtype=values.dtype.name, shape=values.shape).result()
    array.write(values).result()


V2 = {
    "order F, zstd": {"order": "F", "compressor": {"id": "zstd", "level": 3}},
    "order C, nested, big-endian, blosc": {
        "dtype": ">f4",
        "dimension_separator": "/",
        "compressor": {"id": "blosc", "cname": "lz4", "clevel": 5, "shuffle": 1},
    },
    "order F, zlib, fill value": {"order": "F", "compressor": {"id": "zlib", "level": 1}, "fill_value": -1e6},
    "order C, bz2": {"compressor": {"id": "bz2", "level": 1}},
    "raw": {"compressor": None},
}

INDEX = [{"name": "bytes", "configuration": {"endian": "little"}}, {"name": "crc32c"}]
BLOSC = {"cname": "lz4", "clevel": 5, "shuffle": "shuffle", "typesize": 4}


def sharded(location: str, *codecs: dict) -> dict:
    inner = {"chunk_shape": CHUNK, "index_location": location, "index_codecs": INDEX, "codecs": codecs}
    return {
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [4, 10, 14]}},
        "codecs": [{"name": "sharding_indexed", "configuration": inner}],
    }


LITTLE = {"name": "bytes", "configuration": {"endian": "little"}}
BIG = {"name": "bytes", "configuration": {"endian": "big"}}
TRANSPOSE = {"name": "transpose", "configuration": {"order": [2, 0, 1]}}
REGULAR = {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": CHUNK}}}
V3 = {
    "transpose, big-endian, gzip": REGULAR
    | {"codecs": [TRANSPOSE, BIG, {"name": "gzip", "configuration": {"level": 5}}]},
    "v2 keys, zstd": REGULAR
    | {
        "chunk_key_encoding": {"name": "v2", "configuration": {"separator": "."}},
        "codecs": [LITTLE, {"name": "zstd", "configuration": {"level": 3}}],
    },
    "sharded, index at start, blosc, crc32c": sharded(
        "start", LITTLE, {"name": "blosc", "configuration": BLOSC}, {"name": "crc32c"}
    ),
    "sharded, index at end, transpose, raw": sharded("end", TRANSPOSE, LITTLE),
}


@pytest.mark.parametrize("layout", V2.values(), ids=V2.keys())
def test_tensorstore_v2(layout, tmp_path, finish):
    write_tensorstore(tmp_path / "t2m", "zarr", FIELD, **{"dtype": "<f4", "chunks": CHUNK} | layout)
    check_scan(finish(tmp_path, 2), cells(("dim_0", "dim_1", "dim_2")))


@pytest.mark.parametrize("layout", V3.values(), ids=V3.keys())
def test_tensorstore_v3(layout, tmp_path, finish):
    names = ("time", "lat", "lon")
    write_tensorstore(tmp_path / "t2m", "zarr3", FIELD, dimension_names=names, **layout)
    write_tensorstore(tmp_path / "lat", "zarr3", LATITUDES, dimension_names=["lat"])
    check_scan(finish(tmp_path, 3), cells(names, lat=LATITUDES))


def test_tensorstore_types_that_no_column_can_hold_are_left_out(tmp_path):
    write_tensorstore(tmp_path / "t2m", "zarr3", FIELD, dimension_names=["time", "lat", "lon"])
    for name, values in {
        "spectrum": FIELD.astype("c8"),
        "half": FIELD.astype(tensorstore.bfloat16.numpy_dtype),
    }.items():
        write_tensorstore(tmp_path / name, "zarr3", values, dimension_names=["time", "lat", "lon"])
    zarr.open_group(tmp_path, mode="a", zarr_format=3)
    with (
        pytest.warns(UserWarning, match="'spectrum' .* is left out"),
        pytest.warns(UserWarning, match="'half' .* is left out"),
    ):
        table = rd.scan_zarr(tmp_path)
    assert_same_rows(table.collect(), cells())


@pytest.mark.parametrize("driver", ["zarr", "zarr3"])
def test_arrays_without_the_document_of_a_group_are_scanned_together(driver, tmp_path):
    for name in ("t2m", "sst"):
        write_tensorstore(tmp_path / name, driver, FIELD)
    table = rd.scan_zarr(tmp_path).collect()
    assert table.columns == ["dim_0", "dim_1", "dim_2", "sst", "t2m"]
    assert table["t2m"].to_numpy().tolist() == FIELD.reshape(-1).tolist()


def test_a_folder_of_stores_is_no_store(tmp_path):
    zarr.open_group(tmp_path / "a.zarr", mode="w").create_array("v", shape=(2,), dtype="f4")
    with pytest.raises(StoreNotFoundError, match=r"'a\.zarr'"):
        rd.scan_zarr(tmp_path)


# ---------------------------------------------------------------------- zarrs


@pytest.mark.parametrize(
    "layout",
    [
        {"shards": (4, 10, 14)},
        {"shards": (2, 5, 14), "compressors": [zarr.codecs.GzipCodec(level=1), zarr.codecs.Crc32cCodec()]},
        {"filters": [zarr.codecs.TransposeCodec(order=(1, 2, 0))], "compressors": zarr.codecs.BloscCodec(cname="zstd")},
    ],
    ids=["sharded", "small shards, gzip, crc32c", "transpose, blosc"],
)
def test_zarrs(layout, tmp_path, finish):
    with zarr.config.set({"codec_pipeline.path": "zarrs.ZarrsCodecPipeline"}):
        group = zarr.create_group(tmp_path, zarr_format=3)
        array = group.create_array(
            "t2m", shape=SHAPE, chunks=CHUNK, dtype="f4", dimension_names=["time", "lat", "lon"], **layout
        )
        assert isinstance(array.async_array.codec_pipeline, zarrs.ZarrsCodecPipeline)
        array[:] = FIELD
    check_scan(finish(tmp_path, 3), cells())


# ---------------------------------------------------------------------- netCDF-C


def write_netcdf(path: Path, mode: str, **options) -> netCDF4.Dataset:
    """Write the field with coordinates, and leave the file open for more."""
    file = netCDF4.Dataset(f"file://{path}#mode={mode},file", "w")
    for name, length in zip(("time", "lat", "lon"), SHAPE, strict=True):
        file.createDimension(name, length)
    time = file.createVariable("time", "i4", ("time",), shuffle=False)
    time.units = "hours since 2000-01-01"
    time[:] = HOURS
    file.createVariable("lat", "f8", ("lat",), shuffle=False)[:] = LATITUDES
    field = file.createVariable("t2m", "f4", ("time", "lat", "lon"), chunksizes=CHUNK, **options)
    field[:] = FIELD
    return file


def netcdf_table() -> pl.DataFrame:
    times = np.datetime64("2000-01-01T00", "ns") + HOURS.astype("m8[h]")
    return cells(time=times, lat=LATITUDES)


modes = pytest.mark.parametrize("mode", ["zarr", "nczarr"])


@modes
@pytest.mark.parametrize("compression", [None, "zlib", "zstd", "blosc_lz4"])
def test_netcdf(mode, compression, tmp_path, finish):
    path = tmp_path / "a.zarr"
    write_netcdf(path, mode, compression=compression, shuffle=False).close()
    check_scan(finish(path, 2), netcdf_table())


@modes
def test_netcdf_with_its_own_shuffle(mode, tmp_path):
    path = tmp_path / "a.zarr"
    write_netcdf(path, mode, compression="zlib", shuffle=True).close()
    check_scan(path, netcdf_table())


@modes
def test_netcdf_masked_values_are_null(mode, tmp_path, finish):
    path = tmp_path / "a.zarr"
    with write_netcdf(path, mode, shuffle=False, fill_value=np.float32(50.0)) as file:
        file["t2m"][0] = np.ma.masked
    expected = netcdf_table().with_columns(pl.when((c.time > c.time.min()) & (c.t2m != 50)).then(c.t2m).alias("t2m"))
    check_scan(finish(path, 2), expected)


@modes
def test_netcdf_packed_and_text_and_unsigned_values(mode, tmp_path, finish):
    path = tmp_path / "a.zarr"
    large, text = HOURS.astype("u8") + np.uint64(2**63), ["a", "bé", "ccc", "d", "e", "f"]
    with write_netcdf(path, mode, shuffle=False) as file:
        packed = file.createVariable("packed", "i2", ("time",), shuffle=False, fill_value=np.int16(-99))
        packed.scale_factor, packed.add_offset = 0.5, 10.0
        packed[:] = np.ma.masked_equal(10.0 + HOURS, 22.0)
        file.createVariable("large", "u8", ("time",), shuffle=False)[:] = large
        file.createVariable("text", str, ("time",))[:] = np.array(text, dtype=object)
    actual = rd.scan_zarr(finish(path, 2), variables=["packed", "large", "text"]).drop("time").collect()
    packed = [None if value == 22 else value for value in 10.0 + HOURS]
    expected = pl.DataFrame({"large": large, "packed": packed, "text": text})
    assert_same_rows(actual, expected)


@modes
def test_netcdf_groups_are_columns(mode, tmp_path, finish):
    path = tmp_path / "a.zarr"
    with write_netcdf(path, mode, shuffle=False) as file:
        file.createGroup("child").createVariable("w", "f4", ("time", "lat"), shuffle=False)[:] = FIELD[:, :, 0]
    finish(path, 2)
    below = pl.Series("w", np.broadcast_to(FIELD[:, :, :1], SHAPE).ravel())
    assert_same_rows(rd.scan_zarr(path).collect(), netcdf_table().with_columns(child=pl.struct(below)))


@modes
def test_netcdf_bytes_are_right_or_left_out(mode, tmp_path):
    """It gives single bytes a byte order, which only some versions of zarr accept."""
    path = tmp_path / "a.zarr"
    with write_netcdf(path, mode, shuffle=False) as file:
        file.createVariable("flags", "i1", ("time",), shuffle=False)[:] = HOURS
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        table = rd.scan_zarr(path, variables=["t2m"]).collect()
    assert_same_rows(table, netcdf_table())
    if caught:
        assert ["'flags'" in str(warning.message) for warning in caught] == [True]
    else:
        assert rd.scan_zarr(path, variables=["flags"]).collect()["flags"].to_list() == HOURS.tolist()
