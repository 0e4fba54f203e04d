"""STAC items and assets as sources, by pystac itself and as JSON."""

from datetime import UTC, datetime
from types import SimpleNamespace

import polars as pl
import pystac
import pytest
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import QueryError, StoreFormatError
from rainbear_dask.storage.stac import StacSource, is_stac, source_of_stac
from tests.support.stores import write_tree

ZARR = "application/vnd+zarr"


@pytest.fixture
def path(tmp_path):
    write_tree(tmp_path / "tree.zarr", zarr_format=3, consolidated=False)
    return tmp_path / "tree.zarr"


def item_of(assets):
    item = pystac.Item("scene-1", None, None, datetime(2020, 1, 1, tzinfo=UTC), {})
    for name, asset in assets.items():
        item.add_asset(name, asset)
    return item


def test_items_and_assets_are_sources(path):
    thumbnail = pystac.Asset("thumb.png", media_type="image/png")
    item = item_of({"thumb": thumbnail, "data": pystac.Asset(str(path), media_type=f"{ZARR}; version=3")})
    expected = rd.scan_zarr(path).collect()
    for source in (item, item.to_dict(), item.assets["data"], item.assets["data"].to_dict()):
        assert_frame_equal(rd.scan_zarr(source).collect(), expected)
        assert_frame_equal(rd.plan(source).collect(), expected)
        assert rd.tables(source).keys() == rd.tables(path).keys()
        assert_frame_equal(rd.ZarrBackendSync.from_store(source).scan_zarr_sync(), expected)
    found = rd.sql("SELECT COUNT(*) FROM scene", scene=item).collect()
    assert found.item() == expected.height


def test_a_relative_href_belongs_to_the_file_of_the_item(path, tmp_path):
    item = item_of({"data": pystac.Asset("./tree.zarr", media_type=ZARR)})
    item.set_self_href(str(tmp_path / "item.json"))
    assert rd.scan_zarr(item).collect().height == rd.scan_zarr(path).collect().height


def test_the_group_of_an_asset_is_the_root(path):
    opening = {"group": "model", "consolidated": False, "engine": "zarr"}
    asset = pystac.Asset(str(path), media_type=ZARR, extra_fields={"xarray:open_kwargs": opening})
    for group in (None, "run"):
        expected = rd.scan_zarr(path, group="model/run" if group else "model").collect()
        assert_frame_equal(rd.scan_zarr(asset, group=group).collect(), expected)


def test_storage_options_of_the_asset_and_of_the_caller():
    fields = {
        "xarray:storage_options": {"anon": True, "endpoint_url": "https://a"},
        "xarray:open_kwargs": {
            "storage_options": {"anon": False, "a": 1},
            "backend_kwargs": {"group": "/g/", "storage_options": {"b": 2}},
        },
    }
    expected = StacSource("s3://bucket/a.zarr", "g", {"anon": True, "endpoint_url": "https://a", "a": 1, "b": 2})
    asset = pystac.Asset("s3://bucket/a.zarr", media_type=ZARR, extra_fields=fields)
    assert source_of_stac(asset) == source_of_stac({"href": "s3://bucket/a.zarr"} | fields) == expected
    assert "https" not in repr(expected)  # options may be secrets
    known = pystac.Asset("s3://bucket/a.zarr", extra_fields={"xarray:storage_options": {"anon": True}})
    with pytest.raises(QueryError, match="Did you mean 'anon'"):
        rd.scan_zarr(known, storage_options={"annon": False})


def test_other_libraries_have_the_same_fields(path):
    asset = SimpleNamespace(href=str(path), type=ZARR)
    assert_frame_equal(rd.scan_zarr(SimpleNamespace(assets={"x": asset})).collect(), rd.scan_zarr(path).collect())


@pytest.mark.parametrize(
    ("assets", "message"),
    [
        ({}, "it has no assets"),
        (
            {"thumb": pystac.Asset("a.png", media_type="image/png")},
            r"no asset whose media type is Zarr: thumb \(image/png\)",
        ),
        ({"data": pystac.Asset("a.zarr")}, r"data \(no type\).*item.assets\['name'\]"),
        ({name: pystac.Asset("a.zarr", media_type=ZARR) for name in "ab"}, "2 assets of Zarr: a .*, b "),
    ],
)
def test_items_without_one_asset_of_zarr(assets, message):
    for source in (item_of(assets), item_of(assets).to_dict()):
        with pytest.raises(StoreFormatError, match=message):
            rd.scan_zarr(source)


def test_assets_of_other_engines():
    asset = pystac.Asset("a.nc", extra_fields={"xarray:open_kwargs": {"engine": "h5netcdf"}})
    with pytest.raises(StoreFormatError, match="the engine 'h5netcdf'"):
        rd.scan_zarr(asset)


def test_what_is_no_stac():
    assert not any(map(is_stac, ["a.zarr", {}, {"a": b""}, pl.DataFrame(), None]))
    with pytest.raises(StoreFormatError, match="type dict"):
        rd.scan_zarr({"a": b""})
