"""One table for each group and grid: what belongs together, which coordinates go along, and what a misfit spoils."""

import warnings

import numpy as np
import polars as pl
import pytest
import zarr

import rainbear_dask as rd
from rainbear_dask import TableKey

c = pl.col
pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
BOTH = pytest.mark.parametrize("zarr_format", [2, 3])


def cube(*shape):
    return np.arange(float(np.prod(shape))).reshape(shape)


def write(path, arrays, zarr_format=3):
    """Arrays by path: (dims or None, values) or (dims, values, attributes)."""
    group = zarr.open_group(path, mode="a", zarr_format=zarr_format)
    for name, (dims, stored, *given) in arrays.items():
        values, attributes = np.asarray(stored), dict(*given)
        named = {"fill_value": None} if zarr_format == 2 else {"dimension_names": dims} if dims else {}
        if zarr_format == 2 and dims:
            attributes["_ARRAY_DIMENSIONS"] = list(dims)
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, attributes=attributes, **named)
        array[...] = values
    return str(path)


def columns(found):
    return {tuple(key): table.collect_schema().names() for key, table in found.items()}


def test_variables_of_one_grid_share_a_table(tmp_path):
    path = write(
        tmp_path,
        {
            "t2m": (("t", "x"), cube(3, 4)),
            "sst": (("x", "t"), cube(4, 3)),
            "z": (("t", "l", "x"), cube(3, 2, 4)),
            "orog": (("x",), cube(4)),
            "x": (("x",), cube(4)),
            "scalar": ((), 7.0),
        },
    )
    found = rd.tables(path)
    assert columns(found) == {
        ("", ("x",), (4,)): ["x", "orog"],
        ("", (), ()): ["scalar"],
        ("", ("x", "t"), (4, 3)): ["x", "t", "sst", "t2m"],
        ("", ("t", "l", "x"), (3, 2, 4)): ["t", "l", "x", "z"],
    }
    assert all(isinstance(key, TableKey) for key in found)
    assert [table.collect().height for table in found.values()] == [np.prod(key.shape, dtype=int) for key in found]
    both = found[TableKey("", ("x", "t"), (4, 3))].collect()
    assert both["sst"].to_list() == cube(12).tolist()
    assert both["t2m"].to_list() == cube(3, 4).T.reshape(-1).tolist()


@BOTH
@pytest.mark.parametrize("dims", [None, ("y", "x")])
def test_the_levels_of_a_pyramid_are_tables(tmp_path, zarr_format, dims):
    path = write(tmp_path, {str(level): (dims, cube(size, size)) for level, size in enumerate((16, 8, 4))}, zarr_format)
    found = rd.tables(path)
    assert [(key.dims, key.shape) for key in found] == [(dims or ("dim_0", "dim_1"), (n, n)) for n in (16, 8, 4)]
    for level, (key, table) in enumerate(found.items()):
        assert table.collect()[str(level)].to_list() == cube(*key.shape).reshape(-1).tolist()
        assert table.filter(c(key.dims[0]) == 1).collect().height == key.shape[1]


def test_a_table_has_the_coordinates_whose_lengths_fit(tmp_path):
    path = write(
        tmp_path,
        {
            "0": (("y", "x"), cube(4, 6), {"coordinates": "lon"}),
            "1": (("y", "x"), cube(2, 3)),
            "x": (("x",), cube(6) * 10),
            "y": (("y",), cube(2) * 100),
            "lon": (("y", "x"), cube(4, 6) / 2),
        },
    )
    found = rd.tables(path)
    large, small = found[TableKey("", ("y", "x"), (4, 6))].collect(), found[TableKey("", ("y", "x"), (2, 3))].collect()
    assert (large.columns, small.columns) == (["y", "x", "lon", "0"], ["y", "x", "1"])
    assert (large["y"].unique(maintain_order=True).to_list(), large["x"][:6].to_list()) == (
        [0, 1, 2, 3],
        [0, 10, 20, 30, 40, 50],
    )
    assert (small["y"].unique(maintain_order=True).to_list(), small["x"][:3].to_list()) == ([0, 100], [0, 1, 2])


@BOTH
def test_a_sparse_matrix_opens(tmp_path, zarr_format):
    path = write(
        tmp_path,
        {
            "X/data": (None, cube(7)),
            "X/indices": (None, np.arange(7)),
            "X/indptr": (None, np.arange(4)),
            "obs/cell": (None, np.arange(3)),
            "obs/type/codes": (None, np.arange(3)),
            "obs/type/categories": (None, np.arange(2)),
            "uns/number": (None, 5),
        },
        zarr_format,
    )
    found = rd.tables(path)
    assert {(key.group, key.shape): table.collect().height for key, table in found.items()} == {
        ("X", (7,)): 7,
        ("X", (4,)): 4,
        ("obs", (3,)): 3,
        ("obs/type", (3,)): 3,
        ("obs/type", (2,)): 2,
        ("uns", ()): 1,
    }
    entries = found[TableKey("X", ("dim_0",), (7,))].collect()
    assert entries["X"].struct.field("data").to_list() == cube(7).tolist()
    assert entries["X"].struct.field("indices").to_list() == list(range(7))
    assert [key.group for key in rd.tables(path, group="obs")] == ["", "type", "type"]


def test_groups_of_a_tree_have_tables_with_their_own_coordinates_or_those_above(tmp_path):
    path = write(
        tmp_path,
        {
            "time": (("time",), cube(2) + 5),
            "a/b/v": (("time", "x"), cube(2, 3)),
            "a/x": (("x",), cube(3) * 10),
            "c/v": (("time", "x"), cube(2, 3)),
            "c/x": (("x",), cube(3) * 7),
        },
    )
    found = {key.group: table.collect() for key, table in rd.tables(path).items()}
    assert {
        group: (table["time"].unique(maintain_order=True).to_list(), table["x"][:3].to_list())
        for group, table in found.items()
    } == {
        "a/b": ([5, 6], [0, 10, 20]),
        "c": ([5, 6], [0, 7, 14]),
    }


def test_a_misfit_removes_no_table_but_its_own_and_is_named_once(tmp_path):
    path = write(
        tmp_path,
        {
            "good": (("x", "y"), cube(2, 3)),
            "other": (("x",), cube(5)),
            "cov": (("x", "x"), cube(2, 2)),
            "z": (("x", "y"), cube(2, 3) * 1j),
            "zz": (("x",), cube(9) * 1j),
            "w": (("x",), cube(5), {"scale_factor": "much"}),
            "y": (("y",), cube(3) * 1j),
            "aux": (("x",), cube(5) * 1j),
            "both": (("x",), cube(2), {"coordinates": "aux"}),
        },
    )
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        found = rd.tables(path)
    assert columns(found) == {
        ("", ("x",), (2,)): ["x", "both"],
        ("", ("x", "y"), (2, 3)): ["x", "y", "good"],
        ("", ("x",), (5,)): ["x", "other"],
    }
    assert sorted(str(one.message).split("'")[1] for one in caught) == ["aux", "cov", "w", "y", "z", "zz"]
    assert {one.filename for one in caught} == {__file__}
    assert [table.collect().height for table in found.values()] == [2, 6, 5]


def test_many_variables_that_no_one_table_could_hold(tmp_path):
    path = write(tmp_path, {f"v{i}": ((f"d{i}",), cube(3)) for i in range(70)})
    with pytest.raises(rd.exceptions.StoreFormatError, match=r"70 dimensions.*variables=.*tables\(\)"):
        rd.scan_zarr(path)
    assert [table.collect().height for table in rd.tables(path).values()] == [3] * 70
    with pytest.raises(rd.exceptions.StoreFormatError, match=r"4\.24e\+28 rows"):
        rd.scan_zarr(path, variables=[f"v{i}" for i in range(60)])


def test_a_store_without_data_has_no_table(tmp_path):
    assert rd.tables(write(tmp_path, {"x": (("x",), cube(4))})) == {}


def test_tables_pass_on_how_to_decode_and_what_to_allow(tmp_path):
    path = write(tmp_path, {"v": (("x",), np.arange(4), {"_FillValue": 2, "scale_factor": 0.5})})
    (key,) = rd.tables(path)
    assert rd.tables(path)[key].collect()["v"].to_list() == [0, 0.5, None, 1.5]
    assert rd.tables(path, mask=False)[key].collect()["v"].to_list() == [0, 0.5, 1, 1.5]
    assert rd.tables(path, decode=False)[key].collect()["v"].to_list() == [0, 1, 2, 3]
    with pytest.raises(rd.exceptions.PlanTooLargeError):
        rd.tables(path, max_rows=2)[key].collect()


@BOTH
def test_a_damaged_chunk_spoils_only_its_own_column(tmp_path, zarr_format):
    """Also where the type of a column depends on values, as that of times and bytes does."""
    time = {"units": "days since 2000-01-01"}
    arrays = {"t": (("t",), cube(3), time), "name": (("t",), np.array(["a", "b", "c"], "S1")), "v": (("t",), cube(3))}
    path = write(tmp_path, arrays | {"when": (("y",), cube(3), time), "w": (("x",), cube(2))}, zarr_format)
    for name in ("t", "name", "when"):
        (tmp_path / name / ("c/0" if zarr_format == 3 else "0")).write_bytes(b"damaged")
    assert rd.scan_zarr(path, variables=["v", "name"]).select("v").collect()["v"].to_list() == [0, 1, 2]
    assert rd.scan_zarr(path).collect_schema()["t"] == pl.Datetime("ns")
    found = rd.tables(path)
    assert {key.dims for key in found} == {("t",), ("x",), ("y",)}
    assert found[TableKey("", ("x",), (2,))].collect()["w"].to_list() == [0, 1]
    for dim, name in (("t", "name"), ("t", "t"), ("y", "when")):
        with pytest.raises(rd.exceptions.ChunkReadError, match=f"'{name}'"):
            found[TableKey("", (dim,), (3,))].select(name).collect()
