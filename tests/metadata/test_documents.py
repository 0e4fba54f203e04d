"""Metadata documents of a store, compared with xarray, and the messages about invalid ones."""

import json

import pytest
import xarray as xr
import zarr
from zarr.storage import MemoryStore, WrapperStore

from rainbear_dask.chunks.read import read_regions
from rainbear_dask.exceptions import StoreFormatError, StoreNotFoundError
from rainbear_dask.metadata.opening import open_store
from tests.support.errors import caught
from tests.support.stores import ALL_KINDS, CountingStore, write_tree

pytestmark = [
    pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning"),  # about what the tests write
    pytest.mark.filterwarnings("ignore::zarr.errors.ZarrUserWarning"),
]


def put(store, key, document):
    raw = document if isinstance(document, bytes) else json.dumps(document).encode()
    store._store_dict[key] = zarr.core.buffer.cpu.Buffer.from_bytes(raw)


def v3_array(**changes):
    """The document of an array of 2 x 3 cells."""
    return {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [2, 3],
        "data_type": "float32",
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2, 3]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "fill_value": 0,
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
    } | changes


V3_GROUP = {"zarr_format": 3, "node_type": "group", "attributes": {}}
V2_ARRAY = {"zarr_format": 2, "shape": [2, 3], "chunks": [2, 3], "dtype": "<f4", "fill_value": 0, "order": "C",
            "filters": None, "compressor": None}  # fmt: skip


def memory_store(documents):
    store = MemoryStore()
    for key, document in documents.items():
        put(store, key, document)
    return store


# What a store is understood to hold


@ALL_KINDS
def test_a_tree_is_understood_as_xarray_does(tmp_path, zarr_format, consolidated):
    write_tree(tmp_path, zarr_format=zarr_format, consolidated=consolidated)
    meta = open_store(tmp_path)
    assert set(meta.arrays) == {"name", "scalar", "t", "x", "model/run/scalar", "model/run/t", "model/run/x"}
    assert list(meta.arrays)[:4] == ["name", "scalar", "t", "x"]
    assert list(meta.groups) == ["", "model", "model/run"]
    assert meta.groups[""] == {"title": "test"}
    assert meta.skipped == {}
    expected = xr.open_zarr(tmp_path, consolidated=False, chunks=None)
    requests = [(meta.arrays[name], tuple((0, n) for n in meta.arrays[name].shape)) for name in expected.variables]
    for name, values in zip(expected.variables, read_regions(meta.spec, requests), strict=True):
        assert meta.arrays[name].dims == expected[name].dims
        assert values.tolist() == expected[name].values.tolist()
    assert meta.arrays["t"].attributes["units"] == "K"


@ALL_KINDS
@pytest.mark.parametrize("group", ["model/run", "/model/run/"])
def test_a_group_is_opened_by_name(tmp_path, zarr_format, consolidated, group):
    write_tree(tmp_path, zarr_format=zarr_format, consolidated=consolidated)
    meta = open_store(tmp_path, group=group)
    assert list(meta.arrays) == ["scalar", "t", "x"]
    assert meta.groups == {"": {"title": "test"}}
    (values,) = read_regions(meta.spec, [(meta.arrays["t"], ((1, 2), (0, 3)))])
    assert values.tolist() == [[3, 4, 5]]


@ALL_KINDS
def test_an_address_may_name_a_group(tmp_path, zarr_format, consolidated):
    write_tree(tmp_path, zarr_format=zarr_format, consolidated=consolidated)
    meta = open_store(f"file://{tmp_path}/model")
    assert list(meta.arrays) == ["run/scalar", "run/t", "run/x"]
    (values,) = read_regions(meta.spec, [(meta.arrays["run/t"], ((1, 2), (0, 3)))])
    assert values.tolist() == [[3, 4, 5]]


def test_a_consolidated_group_keeps_its_order():
    store = MemoryStore()
    group = zarr.open_group(store, mode="w")
    for name in ("b", "a", "c"):
        group.create_array(name, shape=(2,), dtype="i4")
    zarr.consolidate_metadata(store)
    document = json.loads(store._store_dict["zarr.json"].to_bytes())
    members = document["consolidated_metadata"]["metadata"]
    document["consolidated_metadata"]["metadata"] = {name: members[name] for name in ("c", "a", "b")}
    put(store, "zarr.json", document)
    assert list(open_store(store).arrays) == ["c", "a", "b"]


@pytest.mark.parametrize(
    ("changes", "dims"),
    [
        ({"dimension_names": ["y", "x"]}, ("y", "x")),
        ({"dimension_names": [None, "x"]}, ("dim_0", "x")),
        ({"attributes": {"_ARRAY_DIMENSIONS": ["y", "x"]}}, ("y", "x")),
        ({"dimension_names": ["p", "q"], "attributes": {"_ARRAY_DIMENSIONS": ["y", "x"]}}, ("p", "q")),
        ({}, ("dim_0", "dim_1")),
    ],
)
def test_names_of_dimensions(changes, dims):
    meta = open_store(memory_store({"zarr.json": V3_GROUP, "a/zarr.json": v3_array(**changes)}))
    assert meta.arrays["a"].dims == dims


@pytest.mark.parametrize("where", ["array", "attributes"])
def test_names_of_dimensions_that_netcdf_wrote(where):
    documents = {".zgroup": {"zarr_format": 2}, "a/.zarray": V2_ARRAY}
    if where == "array":
        documents["a/.zarray"] = V2_ARRAY | {"_NCZARR_ARRAY": {"dimrefs": ["/lat", "/sub/lon"]}}
    else:
        documents["a/.zattrs"] = {"_nczarr_array": {"dimension_references": ["/lat", "/sub/lon"]}}
    assert open_store(memory_store(documents)).arrays["a"].dims == ("lat", "lon")


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"codecs": [{"name": "bytes"}, {"name": "mystery"}]}, "mystery"),
        ({"data_type": "float7"}, "float7"),
        ({"data_type": {"name": "vegetable", "configuration": {}}}, "vegetable"),
        ({"dimension_names": ["x", "x"]}, "repeated"),
        ({"attributes": {"_ARRAY_DIMENSIONS": ["x"]}}, "2 dimensions and 1 names"),
        ({"attributes": {"_ARRAY_DIMENSIONS": [1, 2]}}, "not a list of names"),
        ({"attributes": ["x"]}, "attributes"),
        ({"shape": [2, 10**30]}, "2**63"),
        ({"shape": [2, -3]}, "-3|negative"),
        ({"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [0, 3]}}}, "0"),
        ({"chunk_grid": {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": [[1, 1], [3]]}}}, "grid|rectilinear"),
        ({"storage_transformers": [{"name": "x"}]}, "storage transformers"),
        ({"node_type": "tree"}, "node_type"),
        ({"zarr_format": 4}, "4"),
    ],
)  # fmt: skip
@pytest.mark.parametrize("consolidated", [True, False])
def test_one_unreadable_array_is_left_out_with_the_reason(changes, reason, consolidated):
    bad, good = v3_array(**changes), v3_array()
    if consolidated:
        members = {"kind": "inline", "must_understand": False, "metadata": {"bad": bad, "good": good}}
        meta = open_store(memory_store({"zarr.json": V3_GROUP | {"consolidated_metadata": members}}))
    else:
        meta = open_store(memory_store({"zarr.json": V3_GROUP, "bad/zarr.json": bad, "good/zarr.json": good}))
    assert list(meta.arrays) == ["good"]
    assert list(meta.skipped) == ["bad"]
    assert any(word in meta.skipped["bad"] for word in reason.split("|")), meta.skipped["bad"]
    assert "\n" not in meta.skipped["bad"]


@pytest.mark.parametrize("raw", [b"", b"{", b"\xff\xfe", b"[1]", b"[" * 100_000, b"null"])
def test_a_document_that_is_not_json_leaves_only_its_array_out(raw):
    meta = open_store(memory_store({"zarr.json": V3_GROUP, "bad/zarr.json": raw, "good/zarr.json": v3_array()}))
    assert (list(meta.arrays), list(meta.skipped)) == (["good"], ["bad"])
    meta = open_store(memory_store({".zgroup": {"zarr_format": 2}, "bad/.zarray": V2_ARRAY, "bad/.zattrs": raw}))
    assert (list(meta.arrays), list(meta.skipped)) == ([], ["bad"])


def test_paths_that_lead_out_of_the_store_are_left_out():
    members = dict.fromkeys(["../up", "a//b", "./c", "d/../../e", "/abs", "good", "good/inside"], v3_array())
    meta = open_store(memory_store({"zarr.json": V3_GROUP | {"consolidated_metadata": {"metadata": members}}}))
    assert list(meta.arrays) == ["good"]
    assert set(meta.skipped) == set(members) - {"good"}


def test_links_that_lead_back_end_in_an_error(tmp_path):
    zarr.open_group(tmp_path, mode="w")
    (tmp_path / "loop").symlink_to(tmp_path, target_is_directory=True)
    with pytest.raises(StoreFormatError, match="deep"):
        open_store(tmp_path)


def test_an_array_of_pickles_is_left_out():
    filters = {"dtype": "|O", "filters": [{"id": "pickle", "protocol": 4}]}
    meta = open_store(memory_store({".zgroup": {"zarr_format": 2}, "a/.zarray": V2_ARRAY | filters}))
    assert "pickle" in meta.skipped["a"]


# How much is asked for


def test_a_consolidated_v3_store_is_opened_with_one_request():
    memory = MemoryStore()
    write_tree(memory, zarr_format=3, consolidated=True)
    store = CountingStore(memory)
    open_store(store)
    open_store(store, group="model/run")
    assert store.requests == {"zarr.json": 2}


def test_a_consolidated_v2_store_is_opened_with_one_document():
    memory = MemoryStore()
    write_tree(memory, zarr_format=2, consolidated=True)
    store = CountingStore(memory)
    open_store(store)
    assert store.requests == {"zarr.json": 1, ".zmetadata": 1}  # it is not v3, that has to be asked


@pytest.mark.parametrize("zarr_format", [2, 3])
def test_no_document_is_asked_for_twice(zarr_format):
    memory = MemoryStore()
    write_tree(memory, zarr_format=zarr_format, consolidated=False)
    store = CountingStore(memory)
    open_store(store)
    assert set(store.requests.values()) == {1}


# Errors


def test_nothing_there(tmp_path):
    caught(StoreNotFoundError, lambda: open_store(tmp_path / "none"), "No Zarr store at", "none", "Check the path")
    caught(
        FileNotFoundError, lambda: open_store("memory://nothing_there"), "No Zarr store at", "memory://nothing_there"
    )


def test_a_folder_that_holds_something_else(tmp_path):
    (tmp_path / "era5.zarr").mkdir()
    caught(StoreNotFoundError, lambda: open_store(tmp_path), "No Zarr store", "'era5.zarr'", "zarr.json")
    caught(StoreNotFoundError, lambda: open_store(tmp_path / "era5.zarr"), "Nothing is there")


def test_a_plain_file(tmp_path):
    (tmp_path / "x.nc").write_text("CDF")
    caught(StoreNotFoundError, lambda: open_store(tmp_path / "x.nc"), "is a file, not a Zarr store")


@ALL_KINDS
def test_an_array_in_place_of_a_group(tmp_path, zarr_format, consolidated):
    write_tree(tmp_path, zarr_format=zarr_format, consolidated=consolidated)
    advice = ("is an array, not a group", "variables=['t']")
    caught(StoreFormatError, lambda: open_store(tmp_path, group="t"), *advice, str(tmp_path))
    caught(StoreFormatError, lambda: open_store(tmp_path / "t"), *advice, f"{tmp_path}, and")
    caught(StoreFormatError, lambda: open_store(tmp_path, group="model/run/t"), *advice, "group='model/run'")


@ALL_KINDS
def test_a_group_that_is_not_there(tmp_path, zarr_format, consolidated):
    write_tree(tmp_path, zarr_format=zarr_format, consolidated=consolidated)
    caught(StoreNotFoundError, lambda: open_store(tmp_path, group="modle"), "'modle'", "'model'", "'model/run'")


def test_metadata_that_is_none():
    for raw in (b"<html>", b"[]", b"\xff"):
        caught(StoreFormatError, lambda raw=raw: open_store(memory_store({"zarr.json": raw})), "zarr.json")
        caught(StoreFormatError, lambda raw=raw: open_store(memory_store({".zmetadata": raw})), ".zmetadata")
    caught(StoreFormatError, lambda: open_store(memory_store({"zarr.json": {"zarr_format": 3}})), "node_type")
    caught(StoreFormatError, lambda: open_store(memory_store({".zmetadata": {"metadata": 3}})), ".zmetadata")


def test_the_draft_of_v3():
    document = {"zarr_format": "https://purl.org/zarr/spec/protocol/core/3.0", "metadata_encoding": "x"}
    caught(StoreFormatError, lambda: open_store(memory_store({"zarr.json": document})), "draft", "2020")


def test_a_store_that_nobody_can_list():
    class Unlisted(WrapperStore):
        supports_listing = False

    store = memory_store({"zarr.json": V3_GROUP, "a/zarr.json": v3_array()})
    caught(StoreFormatError, lambda: open_store(Unlisted(store)), "cannot be listed", "onsolidate")
