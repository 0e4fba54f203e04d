"""How stores are understood as tables: rows, columns, roles, trees, and contradictions."""

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import StoreFormatError, UnknownColumnError

c = pl.col


def write(group, arrays, attributes=None, **options):
    """Arrays by path: (dims, values) or (dims, values, attributes)."""
    root = zarr.open_group(group, mode="a", zarr_format=options.pop("zarr_format", 3))
    for path, (dims, values, *attrs) in arrays.items():
        array = root.create_array(
            path,
            shape=np.shape(values),
            dtype=np.asarray(values).dtype,
            dimension_names=dims,
            attributes=attrs[0] if attrs else {},
            **options,
        )
        array[...] = values
    for path, attrs in (attributes or {}).items():
        (root[path] if path else root).attrs.update(attrs)
    return group


@pytest.fixture
def store(tmp_path):
    return str(tmp_path / "a.zarr")


def count(n):
    return np.arange(float(n))


def cube(*shape):
    return np.arange(float(np.prod(shape))).reshape(shape)


@pytest.mark.parametrize(
    ("arrays", "rows"),
    [
        ({"d": (("x", "y"), cube(4, 5)), "s": (("x",), count(4)), "r": (("y",), count(5))}, 20),
        ({"p": (("t", "x"), cube(3, 4)), "u": (("t", "y"), cube(3, 5)), "v": (("x", "y"), cube(4, 5))}, 60),
        ({"d": (("x",), count(3)), "s": (("y",), count(4))}, 12),
        ({"x": (("x",), count(3)), "y": (("y",), count(2))}, 6),
        ({"d": (("x",), count(3)), "spatial_ref": ((), 0)}, 3),
        ({"d": ((), 7)}, 1),
        ({"d": (("x", "y"), np.zeros((0, 5)))}, 0),
    ],
)
def test_rows_are_the_product_of_the_dimensions(store, arrays, rows):
    table = rd.scan_zarr(write(store, arrays)).collect()
    assert table.height == rows
    with xr.open_zarr(store, consolidated=False) as ds:
        if ds.data_vars and rows:
            expected = (
                ds.to_dataframe(dim_order=[n for n in table.columns if n in ds.dims] or None) if ds.dims else None
            )
            for name in ds.data_vars if expected is not None else ():
                assert table[name].to_list() == expected[name].to_list()


def test_two_chunk_grids_and_a_variable_of_fewer_dimensions(store):
    write(store, {"d": (("a", "b", "c"), cube(4, 5, 6))}, chunks=(2, 2, 3))
    write(store, {"e": (("a", "b", "c"), -cube(4, 5, 6))}, chunks=(3, 5, 2))
    write(store, {"s": (("b", "c"), cube(5, 6))}, chunks=(2, 5))
    table = rd.scan_zarr(store).collect()
    assert table.height == 120
    assert (table["d"] == -table["e"]).all()
    assert (table["s"] == table["d"] % 30).all()


def test_large_variables_in_two_chunk_grids_add_up(store):
    write(store, {"d": (("y", "x"), cube(400, 400))}, chunks=(100, 100))
    write(store, {"e": (("y", "x"), cube(400, 400))}, chunks=(200, 200))
    totals = rd.scan_zarr(store).select(pl.len(), c.d.sum(), c.e.sum()).collect().row(0)
    assert totals == (160_000, cube(400, 400).sum(), cube(400, 400).sum())


def test_duplicate_coordinate_values_do_not_multiply_rows(store):
    write(store, {"d": (("x",), count(4)), "e": (("x",), -count(4)), "x": (("x",), [1, 1, 2, 2])})
    assert rd.scan_zarr(store).collect().rows() == [(1, 0, 0), (1, 1, -1), (2, 2, -2), (2, 3, -3)]
    assert rd.scan_zarr(store).filter(c.x == 1).collect().height == 2


@pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
def test_columns_are_dimensions_then_coordinates_then_data_in_store_order(store):
    write(
        store,
        {
            "name": (("x",), np.array(["p", "q", "r"])),
            "height": ((), 2.0),
            "area": (("y", "x"), cube(2, 3)),
            "zz": (("y", "x"), cube(2, 3), {"coordinates": "name area"}),
            "aa": (("x",), count(3)),
            "x": (("x",), count(3), {"bounds": "x_bnds"}),
            "x_bnds": (("x", "bnds"), cube(3, 2)),
            "crs": ((), 0, {"grid_mapping_name": "latitude_longitude"}),
        },
        {"": {"coordinates": "height"}},
    )
    assert rd.scan_zarr(store).collect_schema().names() == ["y", "x", "area", "height", "name", "aa", "zz"]
    assert rd.scan_zarr(store).collect().height == 6
    assert rd.scan_zarr(store, variables=["x_bnds"]).collect_schema().names() == [
        "x",
        "bnds",
        "height",
        "name",
        "x_bnds",
    ]


def test_bounds_of_times_are_times_as_to_xarray(store):
    """Bounds have the unit and calendar of their coordinate, unless they declare their own."""
    time = {"units": "days since 2000-02-28", "calendar": "noleap"}
    write(
        store,
        {
            "g/t": (("t",), count(2), {**time, "bounds": "t_bnds"}),
            "g/t_bnds": (("t", "side"), cube(2, 2)),
            "u": (("u",), count(1), {"units": "hours since 2000-01-01", "bounds": "u_bnds"}),
            "u_bnds": (("u", "side"), cube(1, 2), {"units": "days since 1999-01-01"}),
        },
    )
    for group, name in (("g", "t_bnds"), (None, "u_bnds")):
        expected = xr.open_zarr(store, group=group, consolidated=False)[name].values.astype("M8[ns]").reshape(-1)
        actual = rd.scan_zarr(store, group=group, variables=[name]).collect()[name]
        assert actual.dtype == pl.Datetime("ns")
        assert actual.to_numpy().tolist() == expected.tolist()


def test_chosen_variables_make_the_rows(store):
    write(store, {"d": (("x",), count(3)), "s": (("y",), count(4)), "x": (("x",), count(3))})
    assert rd.scan_zarr(store, variables=["s"]).collect().columns == ["y", "s"]
    assert rd.scan_zarr(store, variables="d").collect().height == 3
    with pytest.raises(UnknownColumnError, match=r"'dd' is not in .*a\.zarr"):
        rd.scan_zarr(store, variables=["dd"])


def test_neither_projection_nor_filter_changes_the_row_set(store):
    write(store, {"d": (("x",), count(3)), "s": (("y",), count(4))})
    lazy, table = rd.scan_zarr(store), rd.scan_zarr(store).collect()
    assert_frame_equal(lazy.select("d").collect(), table.select("d"))
    assert_frame_equal(lazy.filter(c.d > 1).select("y").collect(), table.filter(c.d > 1).select("y"))


def test_a_table_that_repeats_its_variables_many_times_says_so(store):
    write(store, {"d": (("x",), count(30)), "s": (("y",), count(20))})
    with pytest.warns(UserWarning, match=r"600 rows, 20 for each value .*variables=.*tables\(\)"):
        rd.scan_zarr(store)


def test_one_length_for_each_dimension(store):
    write(store, {"d": (("x",), count(3)), "s": (("x",), count(4))})
    with pytest.raises(StoreFormatError, match=r"'x' has more than one length in .*3 in d, 4 in s.*variables="):
        rd.scan_zarr(store)
    assert rd.scan_zarr(store, variables=["s"]).collect().height == 4


def test_a_coordinate_of_another_length_is_an_error(store):
    write(store, {"d": (("x",), count(3)), "x": (("x",), count(4))})
    with pytest.raises(StoreFormatError, match="'x' has more than one length"):
        rd.scan_zarr(store)


def test_an_array_named_like_a_dimension_of_others_is_left_out(store):
    write(store, {"d": (("x",), count(3)), "x": (("x", "y"), cube(3, 2))})
    with pytest.warns(UserWarning, match="'x' .* is left out"):
        table = rd.scan_zarr(store).collect()
    assert table.columns == ["x", "y", "d"]


def test_an_array_with_a_repeated_dimension_is_left_out_and_refused_by_name(store):
    write(store, {"cov": (("x", "x"), cube(3, 3)), "d": (("x",), count(3))})
    with pytest.warns(UserWarning, match=r"'cov' .* is left out: .*repeated"):
        assert rd.scan_zarr(store).collect().columns == ["x", "d"]
    with pytest.raises(StoreFormatError, match=r"'cov' .*repeated.*variables="):
        rd.scan_zarr(store, variables=["cov"])


def test_an_array_without_a_column_type_is_left_out_with_one_warning(store):
    write(store, {"z": (("x",), count(3) * 1j), "d": (("x",), count(3))})
    with pytest.warns(UserWarning, match=r"array 'z' of .* is left out: .*complex") as caught:
        table = rd.scan_zarr(store).collect()
    assert len(caught) == 1
    assert table.columns == ["x", "d"]
    with pytest.raises(StoreFormatError, match="'z'"):
        rd.scan_zarr(store, variables=["z"])


def test_a_group_without_a_readable_array_has_no_row(store):
    with pytest.warns(UserWarning, match="'z'"):
        table = rd.scan_zarr(write(store, {"z": (("x",), count(3) * 1j)}))
    assert table.collect().shape == (0, 0)


def test_decode_and_mask_can_be_turned_off(store):
    attrs = {"units": "hours since 2000-01-01", "_FillValue": 2}
    write(store, {"d": (("x",), np.arange(3), attrs)})
    assert str(rd.scan_zarr(store).collect()["d"].to_list()[2]) == "None"
    assert rd.scan_zarr(store, mask=False).collect()["d"].null_count() == 0
    assert rd.scan_zarr(store, decode=False).collect()["d"].to_list() == [0, 1, 2]


# ---------------------------------------------------------------------- trees


@pytest.fixture
def tree(store):
    """Two groups beside data of the root, one with a group inside, and an empty one."""
    return write(
        store,
        {
            "d": (("x",), count(3)),
            "x": (("x",), count(3) * 10),
            "a/u": (("x",), count(3) + 1),
            "a/v": (("y",), count(2) + 5),
            "a/y": (("y",), [7.0, 8.0]),
            "b/w": (("x", "y"), cube(3, 2)),
            "e/f/g": ((), 4.0),
        },
        {"a": {"title": "child"}},
    )


def test_child_groups_are_structs_of_their_variables(tree):
    table = rd.scan_zarr(tree).collect()
    assert table.schema == {
        "x": pl.Float64,
        "y": pl.Float64,
        "d": pl.Float64,
        "a": pl.Struct({"u": pl.Float64, "v": pl.Float64}),
        "b": pl.Struct({"w": pl.Float64}),
        "e": pl.Struct({"f": pl.Struct({"g": pl.Float64})}),
    }
    assert table.row(3, named=True) == {
        "x": 10.0, "y": 8.0, "d": 1.0, "a": {"u": 2.0, "v": 6.0}, "b": {"w": 3.0}, "e": {"f": {"g": 4.0}},
    }  # fmt: skip


def test_questions_about_structs_are_answered_as_in_memory(tree):
    for ask in (
        lambda t: t.select("a"),
        lambda t: t.select("e", "x"),
        lambda t: t.filter(c.a.struct.field("u") > 1.5),
        lambda t: t.filter(c.b.struct.field("w") > 2, c.x < 20).select("b", "d"),
        lambda t: t.select(c.a.struct.field("v") + c.d),
        lambda t: t.filter(c.y == 8.0).select(pl.len()),
    ):
        assert_frame_equal(ask(rd.scan_zarr(tree)).collect(), ask(rd.scan_zarr(tree).collect().lazy()).collect())


def test_a_group_of_a_tree_can_be_scanned_alone(tree):
    assert rd.scan_zarr(tree, group="a", variables=["v"]).collect().columns == ["y", "v"]
    assert rd.scan_zarr(tree, group="e").collect().to_dicts() == [{"f": {"g": 4.0}}]
    assert rd.scan_zarr(tree, variables=["b/w"]).collect().columns == ["x", "y", "b"]


def test_groups_that_disagree_on_a_dimension_are_refused(store):
    write(store, {"a/u": (("x",), count(3)), "b/u": (("x",), count(4))})
    with pytest.raises(StoreFormatError, match=r"3 in a/u, 4 in b/u.*group="):
        rd.scan_zarr(store)


def test_groups_that_disagree_on_a_coordinate_are_refused(store):
    write(
        store,
        {f"{g}/{n}": (("x",), v) for g, k in (("a", 1), ("b", 2)) for n, v in (("u", count(3)), ("x", count(3) * k))},
    )
    with pytest.raises(StoreFormatError, match=r"'x' has different coordinates .*a/x, b/x.*group="):
        rd.scan_zarr(store)
    assert rd.scan_zarr(store, group="b").collect()["x"].to_list() == [0.0, 2.0, 4.0]
