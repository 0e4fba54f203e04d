"""NetCDF files in a bucket, read as a Zarr store by way of references: Icechunk's virtual chunks, and fsspec's files of references."""

import json

import h5py
import icechunk
import netCDF4
import numpy as np
import obstore
import polars as pl
import pytest
import xarray as xr
from obspec_utils.registry import ObjectStoreRegistry
from polars.testing import assert_frame_equal
from virtualizarr import open_virtual_dataset
from virtualizarr.parsers import HDFParser

import rainbear_dask as rd
from rainbear_dask.exceptions import ChunkReadError, StoreAccessError
from tests.services.stores.servers import ADMIN
from tests.support.errors import caught

pytestmark = [
    pytest.mark.stores,
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),  # about codecs that HDF5 has
    pytest.mark.filterwarnings("ignore:Numcodecs codecs:UserWarning"),
]
WHERE = pytest.mark.parametrize("where", ["threads", pytest.param("cluster", marks=pytest.mark.cluster)])
c = pl.col


@pytest.fixture(scope="module")
def netcdf(running, tmp_path_factory):
    """A packed, compressed, masked variable as netCDF-C writes it: the file, and its key in the bucket."""
    path = tmp_path_factory.mktemp("netcdf") / "sst.nc"
    with netCDF4.Dataset(path, "w") as file:
        for name, size in {"time": 6, "lat": 20, "lon": 30}.items():
            file.createDimension(name, size)
        file.createVariable("lat", "f4", ("lat",))[:] = np.linspace(-76, 76, 20)
        time = file.createVariable("time", "i4", ("time",))
        time.units, time[:] = "hours since 2020-01-01", np.arange(6) * 6
        sst = file.createVariable(
            "sst", "i2", ("time", "lat", "lon"), zlib=True, shuffle=True, chunksizes=(2, 10, 15), fill_value=-999
        )
        sst.scale_factor, sst.add_offset = 0.01, 10.0
        values = np.ma.masked_greater(np.random.default_rng(0).normal(12, 3, (6, 20, 30)), 18)
        sst[:] = values
    obstore.put(running.bucket(), "files/sst.nc", path.read_bytes())
    return path


@pytest.fixture
def expected(netcdf):
    """What xarray reads of the file itself."""
    with xr.open_dataset(netcdf) as ds:
        frame = pl.from_pandas(ds["sst"].to_dataframe().reset_index()[["time", "lat", "lon", "sst"]])
    return frame.with_columns(c("sst").fill_nan(None))


def assert_same(table, expected):
    frame = table.filter(c("lat") > 0).select("time", "lat", "lon", "sst").collect()
    wanted = expected.filter(c("lat") > 0)
    assert_frame_equal(frame, wanted, check_dtypes=False, abs_tol=1e-5)
    assert frame["sst"].null_count() == wanted["sst"].null_count() > 0


@pytest.fixture
def repository(services, netcdf, tmp_path):
    """An Icechunk repository in a folder, by VirtualiZarr, whose chunks are in the file in the bucket."""
    registry = ObjectStoreRegistry({"s3://private": services.bucket()})
    prefix = "s3://private/"
    container = icechunk.VirtualChunkContainer(
        prefix,
        icechunk.s3_store(
            region="us-east-1", endpoint_url=services.s3, allow_http=True, force_path_style=True, s3_compatible=True
        ),
    )
    config = icechunk.RepositoryConfig.default()
    config.set_virtual_chunk_container(container)
    storage = icechunk.local_filesystem_storage(str(tmp_path / "repo"))
    repository = icechunk.Repository.create(storage, config)
    with open_virtual_dataset(f"{prefix}files/sst.nc", registry=registry, parser=HDFParser()) as virtual:
        session = repository.writable_session("main")
        virtual.vz.to_icechunk(session.store)
        session.commit("references")

    def opening_id(secret=ADMIN["secret"]):
        keys = icechunk.s3_credentials(access_key_id=ADMIN["key"], secret_access_key=secret)
        allowed = icechunk.containers_credentials({prefix: keys})
        return icechunk.Repository.open(storage, config, authorize_virtual_chunk_access=allowed)

    return opening_id


@WHERE
def test_virtual_chunks_of_icechunk(services, repository, expected, where, request):
    client = request.getfixturevalue("client") if where == "cluster" else None
    table = rd.scan_zarr(repository().readonly_session("main"), client=client)
    services.set()
    assert_same(table, expected)
    ranges = [one.range for one in services.log() if "sst.nc" in one.path]
    assert len([one for one in ranges if one != "-"]) >= 6  # three of each half


def test_virtual_chunks_with_faults_and_without_leave(services, repository, expected):
    table = rd.scan_zarr(repository().readonly_session("main"))
    services.set(fault=503, times=2, match="sst.nc")
    assert_same(table, expected)
    refused = rd.scan_zarr(repository("wrong").readonly_session("main"))
    error = caught((ChunkReadError, StoreAccessError), refused.collect, "Cannot read")
    assert ADMIN["key"] not in str(error)


@WHERE
def test_a_file_of_references(services, netcdf, expected, where, request):
    """As kerchunk has them; here written from what HDF5 itself says of its chunks."""
    client = request.getfixturevalue("client") if where == "cluster" else None
    target = services.bucket()
    obstore.put(target, "files/sst.json", json.dumps(references(netcdf, "s3://private/files/sst.nc")).encode())
    inner = {**ADMIN, "client_kwargs": {"endpoint_url": services.s3}}
    options = {
        "fo": "s3://private/files/sst.json",
        "target_options": inner,
        "remote_protocol": "s3",
        "remote_options": inner,
    }
    table = rd.scan_zarr("reference://", storage_options=options, client=client)
    services.set()
    assert_same(table, expected)
    assert len({one.range for one in services.log() if "sst.nc" in one.path} - {"-"}) >= 6


DIMS = {"sst": ["time", "lat", "lon"], "lat": ["lat"], "time": ["time"]}


def references(path, url):
    """Zarr v2 documents of an HDF5 file, and where its chunks are."""
    found = {".zgroup": json.dumps({"zarr_format": 2})}
    with h5py.File(path) as file:
        for name, data in file.items():
            if name in DIMS:
                attributes = {
                    key: value.decode() if isinstance(value, bytes) else np.asarray(value).reshape(-1)[0].item()
                    for key, value in data.attrs.items()
                    if key in ("scale_factor", "add_offset", "units")
                }
                chunks = data.chunks or data.shape
                found[f"{name}/.zattrs"] = json.dumps(attributes | {"_ARRAY_DIMENSIONS": DIMS[name]})
                found[f"{name}/.zarray"] = json.dumps(
                    {
                        "zarr_format": 2,
                        "shape": data.shape,
                        "chunks": chunks,
                        "dtype": data.dtype.str,
                        "fill_value": -999 if name == "sst" else None,
                        "order": "C",
                        "compressor": {"id": "zlib", "level": 4} if data.compression else None,
                        "filters": [{"id": "shuffle", "elementsize": data.dtype.itemsize}] if data.shuffle else None,
                    }
                )
                if data.chunks is None:
                    found[f"{name}/0"] = [url, data.id.get_offset(), data.id.get_storage_size()]
                for number in range(data.id.get_num_chunks() if data.chunks else 0):
                    chunk = data.id.get_chunk_info(number)
                    key = ".".join(str(at // size) for at, size in zip(chunk.chunk_offset, chunks, strict=True))
                    found[f"{name}/{key}"] = [url, chunk.byte_offset, chunk.size]
    return {"version": 1, "refs": found}
