"""Packages of extras that are not installed: one kind of error, which names the extra to install."""

import asyncio
import pickle
import sys
import tomllib
from pathlib import Path

import numpy as np
import polars as pl
import pytest
import xarray as xr
from fsspec.registry import _registry as file_systems

import rainbear_dask as rd
from rainbear_dask.cli.completion import completion_script
from rainbear_dask.cli.parser import _parser
from rainbear_dask.cluster import connect
from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import MissingDependencyError, RainbearError
from tests.support.errors import caught

EXTRAS = tomllib.loads((Path(__file__).parents[1] / "pyproject.toml").read_text())["project"]["optional-dependencies"]
NOT_IMPORTED = {"all"}


@pytest.fixture
def url(tmp_path) -> str:
    xr.Dataset({"v": ("x", np.arange(4.0))}, {"x": np.arange(4)}).to_zarr(tmp_path / "a.zarr", zarr_format=2)
    return str(tmp_path / "a.zarr")


def from_filesystem(url):
    return asyncio.run(rd.IcechunkBackend.from_filesystem(url))


def from_session(_):
    return asyncio.run(rd.IcechunkBackend.from_session(b"session"))


def with_library(address, library):
    return rd.scan_zarr(address, storage_options={"library": library})


POINTS = pl.DataFrame({"x": [0.5]})
USES = [
    ("completion", ["shtab"], lambda _: completion_script(_parser(), "bash")),
    ("dataframe", ["dask.dataframe"], rd.read_zarr),
    ("dataframe", ["dask.dataframe"], lambda url: rd.to_dask_dataframe(rd.scan_zarr(url))),
    ("dataframe", ["dask.dataframe"], lambda url: rd.plan(url).to_dask_dataframe()),
    ("dataframe", ["pandas"], lambda url: rd.plan(url).to_pandas()),
    ("dataframe", ["pyarrow"], lambda url: rd.plan(url).to_pandas()),
    ("dataframe", ["pyarrow"], lambda url: rd.plan(url).to_arrow_reader()),
    ("azure", ["obstore", "adlfs"], lambda _: rd.scan_zarr("az://box/a.zarr")),
    ("azure", ["obstore", "adlfs"], lambda _: rd.scan_zarr("abfss://box@acc.dfs.core.windows.net/a.zarr")),
    ("gcs", ["obstore", "gcsfs"], lambda _: rd.scan_zarr("gs://bucket/a.zarr")),
    ("geo", ["shapely"], lambda _: rd.geo.within("POLYGON ((0 0, 1 1, 1 0, 0 0))")),
    ("geo", ["geopandas"], lambda _: rd.geo.to_geopandas(POINTS)),
    ("http", ["obstore", "aiohttp", "requests"], lambda _: rd.scan_zarr("http://127.0.0.1:9/a.zarr")),
    ("icechunk", ["icechunk"], from_filesystem),
    ("icechunk", ["icechunk"], from_session),
    ("jobqueue", ["dask_jobqueue"], lambda _: connect("slurm", timeout="1s")),
    ("kubernetes", ["dask_kubernetes"], lambda _: connect("kubernetes", timeout="1s")),
    ("obstore", ["obstore"], lambda _: rd.store.MemoryStore()),
    ("obstore", ["obstore"], lambda _: with_library("gs://bucket/a.zarr", "obstore")),
    ("obstore", ["obstore"], lambda _: with_library("s3://bucket/a.zarr", "obstore")),
    ("s3", ["obstore", "s3fs"], lambda _: rd.scan_zarr("s3://bucket/a.zarr")),
    ("sample", ["scipy.interpolate"], lambda url: rd.sample(url, POINTS, method="cubic").collect()),
    ("xarray", ["xarray"], lambda url: rd.plan(url).to_xarray()),
]


@pytest.mark.parametrize(
    ("extra", "packages", "use"), USES, ids=[f"{number}-{extra}" for number, (extra, *_) in enumerate(USES)]
)
def test_a_missing_package_is_an_error_that_names_its_extra(url, monkeypatch, extra, packages, use):
    for name in list(sys.modules):
        if any(name == package or name.startswith(f"{package}.") for package in packages):
            monkeypatch.delitem(sys.modules, name)
    for package in packages:
        monkeypatch.setitem(sys.modules, package, None)  # an import of it then fails
    for scheme, module in [
        ("http", "http"),
        ("s3", "s3fs"),
        ("gs", ""),
        ("az", ""),
        ("abfss", ""),
    ]:  # fsspec may have imported them for another test
        monkeypatch.delitem(file_systems, scheme, raising=False)
        monkeypatch.delitem(sys.modules, f"fsspec.implementations.{module}", raising=False)
    caught(MissingDependencyError, lambda: use(url), f"pip install 'rainbear-dask[{extra}]'")


def test_each_extra_is_tried_and_each_that_is_named_exists():
    assert {extra for extra, *_ in USES} == EXTRAS.keys() - NOT_IMPORTED


def test_all_installs_every_extra_that_is_tried():
    (all_of,) = EXTRAS["all"]
    assert set(all_of.removeprefix("rainbear-dask[").removesuffix("]").split(",")) == {extra for extra, *_ in USES}


@pytest.mark.parametrize(
    ("url", "package", "options", "reason"),
    [
        ("oci://bucket/a.zarr", "ocifs", {}, "Install the package that it names"),
        ("gs://bucket/a.zarr", "gcsfs", {"token": "cache"}, "obstore does not know the token 'cache'"),
        ("abfss://bucket/a.zarr", "adlfs", {"timeout": 5}, "obstore does not know timeout"),
        ("s3://bucket/a.zarr", "s3fs", {"version_aware": True}, "obstore does not know version_aware"),
    ],
)
def test_a_package_of_no_extra_is_named_itself(monkeypatch, url, package, options, reason):
    monkeypatch.delitem(file_systems, url.partition(":")[0], raising=False)
    monkeypatch.setitem(sys.modules, package, None)
    error = caught(MissingDependencyError, lambda: rd.scan_zarr(url, storage_options=options), package, reason)
    assert "rainbear-dask[" not in str(error)


def test_the_error_is_an_import_error_of_this_package_that_pickles():
    with pytest.raises(MissingDependencyError) as caught_error:
        require("no_such_package", extra="xarray")
    error = pickle.loads(pickle.dumps(caught_error.value))
    assert isinstance(error, ImportError)
    assert isinstance(error, RainbearError)
    assert str(error) == str(caught_error.value)
    assert "no_such_package" in str(error)
