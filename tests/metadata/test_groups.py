"""Coordinates in trees come from the array's own group, then from the groups above it, never from others."""

import warnings

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import StoreFormatError, UnknownColumnError
from tests.support.stores import CountingStore

c = pl.col
pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
ALL_KINDS = pytest.mark.parametrize(
    ("zarr_format", "consolidated"), [(2, True), (2, False), (3, True), (3, False)], ids=str
)


def cube(*shape):
    return np.arange(float(np.prod(shape))).reshape(shape)


def write(path, arrays, zarr_format=3, *, consolidated=False):
    """Arrays by path: (dims, values) or (dims, values, attributes)."""
    group = zarr.open_group(path, mode="w", zarr_format=zarr_format)
    for name, (dims, stored, *given) in arrays.items():
        values, attributes = np.asarray(stored), dict(*given)
        named = {"dimension_names": dims} if zarr_format == 3 else {"fill_value": None}
        if zarr_format == 2:
            attributes["_ARRAY_DIMENSIONS"] = list(dims)
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, attributes=attributes, **named)
        array[...] = values
    if consolidated:
        with warnings.catch_warnings():
            warnings.simplefilter("ignore")
            zarr.consolidate_metadata(path, zarr_format=zarr_format)
    return path if hasattr(path, "list_dir") else str(path)


def bands(size, step):
    grid = {name: (("y", "x"), cube(size, size)) for name in ("b02", "b03")}
    return xr.Dataset(grid, coords={"y": np.arange(size) * step, "x": np.arange(size) * step})


TREES = {
    "other lengths": {"/r10m": bands(8, 10), "/r20m": bands(4, 20)},
    "other labels": {"/r10m": bands(4, 10), "/r20m": bands(4, 20)},
    "deep": {"/a/b/r10m": bands(8, 10), "/a/b/r20m": bands(4, 20), "/a/c": bands(2, 5)},
    "inherited": {"/": bands(4, 10), "/child": bands(4, 10), "/child/below": xr.Dataset({"v": (("y", "x"), cube(4, 4))})},
    "inherited from between": {"/": xr.Dataset(attrs={"a": 1}), "/a": bands(4, 10), "/a/b/c": xr.Dataset({"v": ("y", cube(4))})},
}  # fmt: skip


@ALL_KINDS
@pytest.mark.parametrize("tree", TREES.values(), ids=TREES.keys())
def test_variables_of_one_group_are_labelled_as_in_that_node_of_the_tree(tmp_path, tree, zarr_format, consolidated):
    xr.DataTree.from_dict(tree).to_zarr(tmp_path / "t.zarr", zarr_format=zarr_format, consolidated=consolidated)
    path = str(tmp_path / "t.zarr")
    opening_id = xr.DataTree.from_dict(tree)
    for node in opening_id.subtree:
        for name in node.data_vars:
            expected = node.to_dataset()[[name]].to_dataframe().reset_index()
            below = node.path.strip("/")
            asked = {"variables": [f"{below}/{name}" if below else name]}
            for options in (asked, {"variables": [name], "group": below or None}):
                table = rd.scan_zarr(path, **options).collect()
                for dim in node[name].dims:
                    assert table[dim].to_list() == expected[dim].tolist()
                value = expected[node[name].dims[-1]].max()
                kept = rd.scan_zarr(path, **options).filter(c(node[name].dims[-1]) == value).collect()
                assert_frame_equal(kept, table.filter(c(node[name].dims[-1]) == value))
            assert rd.read_zarr(path, **asked).compute().iloc[:, 0].tolist() == expected.iloc[:, 0].tolist()
    assert sum(t.collect().height for t in rd.tables(path).values()) == sum(
        np.prod(list(node.to_dataset()[name].shape)) for node in opening_id.subtree for name in list(node.data_vars)[:1]
    )


def test_the_group_comes_before_those_above_it_and_these_nearest_first(tmp_path):
    path = write(
        tmp_path,
        {
            "x": (("x",), cube(3)),
            "a/x": (("x",), cube(3) + 10),
            "a/b/v": (("x",), cube(3)),
            "a/b/c/x": (("x",), cube(3) + 20),
            "a/b/c/v": (("x",), cube(3)),
            "d/v": (("x",), cube(3)),
            "d/e/x": (("x",), cube(3) + 30),
        },
    )
    for name, first in {"a/b/v": 10, "a/b/c/v": 20, "d/v": 0}.items():
        group, _, variable = name.rpartition("/")
        assert rd.scan_zarr(path, variables=[name]).collect()["x"].to_list() == [first, first + 1, first + 2]
        assert rd.scan_zarr(path, group=group, variables=[variable]).collect()["x"][0] == first
    assert rd.scan_zarr(path, group="a", variables=["b/v"]).collect()["x"][0] == 10


def test_neither_siblings_nor_children_label_a_variable(tmp_path):
    path = write(
        tmp_path,
        {"v": (("x",), cube(3)), "a/w": (("x",), cube(3)), "b/x": (("x",), cube(3) * 9), "b/c": (("x",), cube(3))},
    )
    assert rd.scan_zarr(path, variables=["v"]).collect()["x"].to_list() == [0, 1, 2]
    assert rd.scan_zarr(path, variables=["a/w"]).collect()["x"].to_list() == [0, 1, 2]
    assert rd.scan_zarr(path, group="a").collect()["x"].to_list() == [0, 1, 2]
    assert rd.scan_zarr(path, variables=["a/w"]).collect_schema()["x"] == pl.Int64
    assert rd.scan_zarr(path, variables=["b/c"]).collect()["x"].to_list() == [0, 9, 18]


def test_a_coordinate_above_of_another_length_is_passed_over(tmp_path):
    path = write(
        tmp_path,
        {"x": (("x",), cube(3) + 5), "a/x": (("x",), cube(8)), "a/b/v": (("x",), cube(3)), "a/b/w": (("x",), cube(3))},
    )
    assert rd.scan_zarr(path, variables=["a/b/v"]).collect()["x"].to_list() == [5, 6, 7]
    assert rd.scan_zarr(path, group="a/b").collect()["x"].to_list() == [5, 6, 7]


@ALL_KINDS
def test_a_group_between_without_arrays_or_document_hides_nothing(tmp_path, zarr_format, consolidated):
    arrays = {"x": (("x",), cube(3) + 5), "a/b/c/v": (("x",), cube(3))}
    path = write(tmp_path, arrays, zarr_format, consolidated=consolidated)
    assert rd.scan_zarr(path).collect()["x"].to_list() == [5, 6, 7]
    for group in ("a", "a/b", "a/b/c"):
        assert rd.scan_zarr(path, group=group).collect()["x"].to_list() == [5, 6, 7]
    table = rd.scan_zarr(path, group="a/b/c").filter(c.x > 5).collect()
    assert table.rows() == [(6, 1), (7, 2)]
    backend = rd.ZarrBackendSync.from_url(path)
    assert rd.scan_zarr(backend, group="a/b/c").filter(c.x == 7).collect()["v"].to_list() == [2]
    frame = rd.read_zarr(path, group="a/b/c", index="x").compute()
    assert frame.index.tolist() == [5, 6, 7]
    assert rd.plan(path, c.x > 5, group="a/b/c").to_xarray()["x"].values.tolist() == [6, 7]


def test_groups_asked_for_together_contradict_each_other(tmp_path):
    path = write(
        tmp_path,
        {
            "v": (("x",), cube(3)),
            "x": (("x",), cube(3)),
            "a/v": (("x",), cube(3)),
            "a/x": (("x",), cube(3) + 1),
            "b/v": (("x",), cube(4)),
            "b/x": (("x",), cube(4)),
            "c/v": (("x",), cube(3)),
            "c/x": (("x",), np.arange(3)),
        },
    )
    for together in (["v", "a/v"], ["a/v", "b/v"], ["a/v", "c/v"], None):
        with pytest.raises(
            StoreFormatError, match=r"'x' has .*(x, a/x|a/v, 4 in b/v|a/x, c/x|3 in v, ).*variables=.*tables\(\)"
        ):
            rd.scan_zarr(path, variables=together)
    assert rd.scan_zarr(path, variables=["v", "c/v"]).collect()["x"].to_list() == [0, 1, 2]
    assert [rd.scan_zarr(path, variables=[f"{group}/v"]).collect()["x"][0] for group in "abc"] == [1, 0, 0]


def test_labels_are_compared_as_they_are_decoded(tmp_path):
    hours, days = {"units": "hours since 2000-01-01"}, {"units": "days since 2000-01-01"}
    path = write(
        tmp_path,
        {
            "a/v": (("t",), cube(3)),
            "a/t": (("t",), cube(3) * 24, hours),
            "b/v": (("t",), cube(3)),
            "b/t": (("t",), cube(3), days),
            "c/v": (("t",), cube(3)),
            "c/t": (("t",), cube(3), hours),
            "d/v": (("t",), cube(3)),
            "d/t": (("t",), np.array(["a", "b", "c"])),
        },
    )  # fmt: skip
    same = rd.scan_zarr(path, variables=["a/v", "b/v"]).collect()
    assert same["t"].dt.day().to_list() == [1, 2, 3]
    for other in ("c/v", "d/v"):
        with pytest.raises(StoreFormatError, match="different coordinates"):
            rd.scan_zarr(path, variables=["b/v", other])


def test_auxiliary_coordinates_of_another_grid_stay_away(tmp_path):
    path = write(
        tmp_path,
        {
            "v": (("y", "x"), cube(2, 3), {"coordinates": "lon name"}),
            "lon": (("y", "x"), cube(2, 3) + 1),
            "name": (("x",), np.arange(3)),
            "x": (("x",), cube(3)),
            "a/w": (("y", "x"), cube(4, 6)),
            "b/w": (("y", "x"), cube(2, 3)),
            "b/x": (("x",), cube(3) * 2),
            "c/w": (("y", "x"), cube(2, 3)),
        },
    )
    assert rd.scan_zarr(path, variables=["v"]).collect().columns == ["y", "x", "lon", "name", "v"]
    assert rd.scan_zarr(path, variables=["a/w"]).collect().columns == ["y", "x", "a"]
    assert rd.scan_zarr(path, variables=["b/w"]).collect().columns == ["y", "x", "b"]
    assert rd.scan_zarr(path, variables=["c/w"]).collect().columns == ["y", "x", "lon", "name", "c"]


def test_bounds_and_named_coordinates_of_a_child(tmp_path):
    time = {"units": "days since 2000-01-01"}
    path = write(
        tmp_path,
        {
            "t": (("t",), cube(5), time),
            "a/t": (("t",), cube(2), {**time, "bounds": "t_bnds"}),
            "a/t_bnds": (("t", "side"), cube(2, 2)),
            "a/v": (("t",), cube(2), {"coordinates": "lat"}),
            "a/lat": ((), 52.0),
        },
    )
    assert rd.scan_zarr(path, variables=["a/t_bnds"]).collect()["t"].dt.day().to_list() == [1, 1, 2, 2]
    assert rd.scan_zarr(path, variables=["a/v", "a/lat"]).collect()["a"].to_list() == [
        {"v": 0, "lat": 52},
        {"v": 1, "lat": 52},
    ]
    assert rd.scan_zarr(path, variables=["a/t"]).collect()["t"].len() == 2


@ALL_KINDS
def test_chunks_of_a_tree_whose_child_has_its_own_coordinate_are_listed(tmp_path, zarr_format, consolidated):
    arrays = {
        "v": (("x",), cube(3)),
        "x": (("x",), cube(3)),
        "a/w": (("x", "y"), cube(3, 2)),
        "a/y": (("y",), cube(2) + 5),
    }
    path = write(tmp_path, arrays, zarr_format, consolidated=consolidated)
    backend = rd.ZarrBackendSync.from_url(path)
    for expr in (c.x > 0, c.y == 6, (c.y == 6) & (c.x == 1), pl.col("y")):
        grids = backend.selected_chunks_debug(expr)["grids"]
        assert [grid["chunks"][0]["indices"] for grid in grids] == [[0] * len(grid["dims"]) for grid in grids]
        assert len(grids) >= 1
    listed = backend.selected_chunks_debug(c.y == 6)["grids"]
    assert [(grid["dims"], grid["variables"]) for grid in listed] == [(["x"], ["v", "x"]), (["x", "y"], ["a/w"])]


def test_a_group_of_the_name_of_a_column_leaves_its_variables_out(tmp_path):
    path = write(tmp_path, {"v": (("x",), cube(3)), "x/w": (("x",), cube(3)), "v2/w": (("x",), cube(3))})
    with pytest.warns(UserWarning, match=r"'x/w' .* is left out: its group has the name of the column 'x'"):
        assert rd.scan_zarr(path).collect().columns == ["x", "v", "v2"]
    assert rd.scan_zarr(path, group="x").collect()["w"].to_list() == [0, 1, 2]


@pytest.mark.parametrize("consolidated", [True, False])
def test_coordinates_above_a_group_cost_no_request_where_the_root_is_consolidated(consolidated):
    store = CountingStore(zarr.storage.MemoryStore())
    arrays = {"x": (("x",), cube(3)), "a/b/v": (("x", "y"), cube(3, 2)), "a/y": (("y",), cube(2))}
    write(store, arrays, consolidated=consolidated)
    store.requests.clear()
    schema = rd.scan_zarr(store, group="a/b").collect_schema()
    assert schema == {"x": pl.Float64, "y": pl.Float64, "v": pl.Float64}
    documents = {key for key in store.requests if key.endswith(("x/zarr.json", "y/zarr.json"))}
    assert documents == (set() if consolidated else {"x/zarr.json", "y/zarr.json", "a/x/zarr.json", "a/y/zarr.json"})


def test_names_that_no_group_has_are_unknown(tmp_path):
    path = write(tmp_path, {"x": (("x",), cube(3)), "a/v": (("x",), cube(3))})
    for name in ("../x", "b/v", "v", "a/x"):
        with pytest.raises(UnknownColumnError):
            rd.scan_zarr(path, variables=[name])
    with pytest.raises(UnknownColumnError):
        rd.scan_zarr(path, group="a", variables=["../x"])


@ALL_KINDS
def test_labels_above_that_are_stored_letter_by_letter(tmp_path, zarr_format, consolidated):
    words = np.array(["KSEA", "KPDX", "EHAM"], "S4")
    arrays = {"x": (("x", "len"), words.reshape(3, 1).view("S1")), "a/v": (("x",), cube(3))}
    path = write(tmp_path, arrays, zarr_format, consolidated=consolidated)
    for options in ({"variables": ["a/v"]}, {"group": "a"}):
        assert rd.scan_zarr(path, **options).collect()["x"].to_list() == ["KSEA", "KPDX", "EHAM"]
        assert rd.scan_zarr(path, **options, decode=False).collect()["x"].to_list() == [0, 1, 2]
        assert rd.scan_zarr(path, **options).filter(c.x == "EHAM").collect().height == 1


class Unlisted(zarr.storage.WrapperStore):
    """As S3 answers who may read and not list: what is not there is forbidden."""

    async def get(self, key, prototype, byte_range=None):
        """Refuse what is not there."""
        found = await super().get(key, prototype, byte_range)
        if found is None and key.startswith(("x/", "y/")):
            raise PermissionError(key)
        return found


def test_a_coordinate_above_that_may_not_be_asked_for_is_not_there():
    store = zarr.storage.MemoryStore()
    write(store, {"x": (("x",), cube(3) + 5), "a/v": (("x", "y"), cube(3, 2))})
    table = rd.scan_zarr(Unlisted(store), group="a").collect()
    assert table.columns == ["x", "y", "v"]
    assert table["x"].unique(maintain_order=True).to_list() == [5, 6, 7]
    assert table["y"].to_list() == [0, 1] * 3
