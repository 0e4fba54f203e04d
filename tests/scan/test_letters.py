"""Texts that are stored letter by letter, and bytes whose encoding is declared, are what they are to xarray."""

import base64

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.exceptions import StoreFormatError
from tests.support.errors import caught

c = pl.col
pytestmark = pytest.mark.filterwarnings("ignore::zarr.errors.UnstableSpecificationWarning")
BOTH = pytest.mark.parametrize("zarr_format", [2, 3])


def letters(words, length):
    """An array of letters, one more dimension than the words have."""
    words = (
        np.char.encode(words, "utf-8").astype(f"S{length}")
        if np.array(words).dtype.kind == "U"
        else np.array(words, f"S{length}")
    )
    return words.reshape((*words.shape, 1)).view("S1")


def write(path, arrays, zarr_format, **options):
    """Arrays by path: (dims, values) or (dims, values, attributes)."""
    group = zarr.open_group(path, mode="a", zarr_format=zarr_format)
    for name, (dims, stored, *given) in arrays.items():
        values, attributes = np.asarray(stored), dict(*given)
        named = {"dimension_names": dims} if zarr_format == 3 else {"fill_value": None}
        if zarr_format == 2:
            attributes["_ARRAY_DIMENSIONS"] = list(dims)
        created = named | {"chunks": tuple(max(length, 1) for length in values.shape) or "auto"} | options
        array = group.create_array(name, shape=values.shape, dtype=values.dtype, attributes=attributes, **created)
        array[...] = values
    return str(path)


def by_xarray(path, name):
    """Dimensions and values of an array, bytes as text where they are UTF-8."""
    with xr.open_zarr(path, consolidated=False) as ds:
        array = ds[name].load()
    values = [v.decode() if isinstance(v, bytes) else v for v in array.values.reshape(-1).tolist()]
    return array.dims, values


STATIONS = ["KSEA", "KPDX", "CYVR1", "", "A\0B"]
CASES = {
    "beside a grid": {"name": (("x", "len"), letters(STATIONS, 5)), "t": (("x", "y"), np.arange(15.0).reshape(5, 3))},
    "a coordinate": {"x": (("x", "len"), letters(STATIONS, 5)), "name": (("x",), np.arange(5.0))},
    "a scalar": {"name": (("len",), letters("KSEA", 6)), "t": (("x",), np.arange(5.0))},
    "of many dimensions": {"name": (("x", "y", "len"), letters([["a", "bc"], ["d", ""], ["éf", "g"]], 3))},
    "an auxiliary coordinate": {"name": (("x", "len"), letters(STATIONS, 5)), "t": (("x",), np.arange(5.0), {"coordinates": "name"})},
    "two lengths": {"name": (("x", "l5"), letters(STATIONS, 5)), "other": (("x", "l3"), letters(["a", "bb", "ccc", "", "d"], 3))},
    "two of one length": {"name": (("x", "len"), letters(STATIONS, 5)), "other": (("y", "len"), letters(["a", "b"], 5))},
    "of one letter": {"name": (("x", "len"), letters(list("abcde"), 1)), "t": (("x",), np.arange(5.0))},
    "shared with longer bytes": {"name": (("x", "len"), letters(STATIONS, 5)), "other": (("len",), np.array(STATIONS, "S5"))},
    "shared with numbers": {"name": (("x", "len"), letters(["ab", "cd"], 2)), "t": (("x", "len"), np.arange(4.0).reshape(2, 2))},
    "not the last of another": {"name": (("x", "len"), letters(["ab", "cd"], 2)), "other": (("len", "y"), letters(["ab", "cd"], 2))},
    "with labels": {"name": (("x", "len"), letters(["ab", "cd"], 2)), "len": (("len",), np.arange(2))},
    "with an array of its name": {"name": (("x", "len"), letters(["ab", "cd"], 2)), "len": (("x",), np.arange(2))},
    "labels of letters": {"len": (("len",), letters("ab", 2)), "t": (("len",), np.arange(2.0))},
    "without length": {"name": (("x", "len"), np.zeros((3, 0), "S1")), "t": (("x",), np.arange(3.0))},
    "without texts": {"name": (("x", "len"), np.zeros((0, 4), "S1")), "t": (("x",), np.zeros(0))},
}  # fmt: skip


@BOTH
@pytest.mark.filterwarnings("ignore:array 'len' .* is left out:UserWarning")  # as others have its name for a dimension
@pytest.mark.parametrize("arrays", CASES.values(), ids=CASES.keys())
def test_rows_and_texts_are_those_of_xarray(tmp_path, arrays, zarr_format):
    path = write(tmp_path, arrays, zarr_format)
    with xr.open_zarr(path, consolidated=False) as ds:
        sizes = dict(ds.sizes)
    table = rd.scan_zarr(path).collect()
    assert table.height == np.prod(list(sizes.values()), dtype=int)
    assert {dim for dim in sizes if dim in table.columns} == set(sizes)
    for name in arrays:
        dims, values = by_xarray(path, name)
        alone = rd.scan_zarr(path, variables=[name]).collect()
        assert alone[name].to_list() == values, name
        assert alone.height == len(values)
        assert set(alone.columns) >= set(dims)


LONG = [f"station {i:03}" + "-" * (i % 7) for i in range(40)]


@pytest.mark.parametrize(
    ("zarr_format", "options"),
    [
        (2, {"chunks": (7, 4)}),
        (3, {"chunks": (7, 4)}),
        (3, {"chunks": (7, 100)}),
        (3, {"chunks": (5, 6), "shards": (20, 18)}),
        (3, {"chunks": (40, 1), "compressors": None}),
    ],
)
def test_letters_in_many_chunks_are_whole_texts_that_filters_prune(tmp_path, zarr_format, options):
    path = write(tmp_path, {"x": (("x", "len"), letters(LONG, 18))}, zarr_format, **options)
    rows = options["chunks"][0]
    write(path, {"t": (("x",), np.arange(40.0))}, zarr_format, chunks=(rows,))
    table = rd.scan_zarr(path).collect()
    assert table["x"].to_list() == LONG
    for predicate in (c.x == LONG[13], c.x.str.ends_with("--"), c.x.is_in(LONG[30:]), c.x > LONG[20], c.t < 3):
        assert_frame_equal(rd.scan_zarr(path).filter(predicate).collect(), table.filter(predicate))
    assert rd.plan(path, c.x == LONG[13]).num_chunks_kept == 1
    assert rd.ZarrBackendSync.from_url(path).selected_chunks_debug(c.x == LONG[13])["grids"][0]["chunks"][0][
        "indices"
    ] == [13 // rows]


def test_letters_as_data_are_filtered_and_read_in_parts(tmp_path):
    words = np.array(LONG).reshape(8, 5)
    path = write(tmp_path, {"name": (("y", "x", "len"), letters(words, 18))}, 3, chunks=(2, 3, 5))
    table = rd.scan_zarr(path).collect()
    assert table.select("y", "x").rows() == [(i // 5, i % 5) for i in range(40)]
    for predicate in (c.name == LONG[13], (c.y == 3) & (c.x > 2), c.name.str.starts_with("station 03")):
        assert_frame_equal(rd.scan_zarr(path).filter(predicate).collect(), table.filter(predicate))
    assert rd.scan_zarr(path).head(7).collect()["name"].to_list() == LONG[:7]


@BOTH
def test_letters_stay_letters_without_decoding(tmp_path, zarr_format):
    path = write(tmp_path, CASES["beside a grid"], zarr_format)
    table = rd.scan_zarr(path, decode=False, variables=["name"]).collect()
    assert table.columns == ["x", "len", "name"]
    assert table.filter(c.x == 0)["name"].to_list() == ["K", "S", "E", "A", ""]


@BOTH
def test_each_group_decides_by_its_own_arrays(tmp_path, zarr_format):
    words = {"a/name": (("x", "len"), letters(["ab", "cd"], 2)), "b/len": (("len",), np.arange(2))}
    path = write(tmp_path, words | {"b/name": (("x", "len"), letters(["ef", "gh"], 2))}, zarr_format)
    assert rd.scan_zarr(path, group="a").collect()["name"].to_list() == ["ab", "cd"]
    assert rd.scan_zarr(path, group="b").collect().height == 4
    joined = rd.scan_zarr(path, variables=["a/name"]).collect()
    assert joined.columns == ["x", "a"]
    assert joined["a"].struct.field("name").to_list() == ["ab", "cd"]
    assert {key.group: table.collect().height for key, table in rd.tables(path).items()} == {"a": 2, "b": 4}


@pytest.mark.parametrize("joined", [True, False])
@pytest.mark.parametrize("encoding", [None, "utf-8"])
@pytest.mark.parametrize("fill", [None, b"", b"-"])
def test_fill_values_of_texts_are_null_where_they_are_to_xarray(tmp_path, joined, encoding, fill):
    attributes = ({"_FillValue": "x"} if fill is None else {}) | ({"_Encoding": encoding} if encoding else {})
    words = ["ab", "", "-", "x"]
    values = letters(words, 3) if joined else np.array(words, "S3")
    path = write(tmp_path, {"v": (("i", "len")[: values.ndim], values, attributes)}, 2, fill_value=fill)
    expected = [word if isinstance(word, str) else None for word in by_xarray(path, "v")[1]]
    if "_FillValue" in attributes:  # which xarray does not compare with bytes
        expected = [None if word == "x" else word for word in expected]
    assert rd.scan_zarr(path).collect()["v"].to_list() == expected
    assert rd.scan_zarr(path, mask=False).collect()["v"].to_list() == words


def test_fill_values_in_base64_as_xarray_writes_them_for_bytes(tmp_path):
    attributes = {"_FillValue": base64.b64encode(b"none").decode()}
    path = write(tmp_path, {"v": (("x", "len"), letters(["ab", "none"], 4), attributes)}, 3)
    assert rd.scan_zarr(path).collect()["v"].to_list() == ["ab", None]


# ---------------------------------------------------------------------- encodings

WORDS = {"utf-8": "Zürich", "UTF8": "東京", "latin-1": "Zürich", "iso-8859-15": "10 €", "cp1252": "“x”", "ascii": "abc",
         "utf-16-le": "Zürich", "utf-16": "naïve", "koi8-r": "Москва", "shift_jis": "東京"}  # fmt: skip


@BOTH
@pytest.mark.parametrize("stored", ["S", "S1", "object"])
@pytest.mark.parametrize("encoding", WORDS)
def test_bytes_become_text_by_their_declared_encoding(tmp_path, encoding, stored, zarr_format):
    words = ["abc" if i != 15 else WORDS[encoding] for i in range(30)]  # neither in the first chunk nor in the last
    raw = [word.encode(encoding) for word in words]
    attributes = {"_Encoding": encoding}
    if stored == "object":
        group = zarr.open_group(tmp_path, mode="w", zarr_format=zarr_format)
        dims = {"dimension_names": ["x"]} if zarr_format == 3 else {}
        attributes |= {"_ARRAY_DIMENSIONS": ["x"]}
        array = group.create_array(
            "v", shape=(30,), chunks=(5,), dtype=zarr.dtype.VariableLengthBytes(), attributes=attributes, **dims
        )
        array[...] = np.array(raw, object)
    else:
        values = np.array(raw, "S16") if stored == "S" else letters(raw, 16)
        write(
            tmp_path,
            {"v": (("x", "len")[: values.ndim], values, attributes)},
            zarr_format,
            chunks=(5, 3)[: values.ndim],
        )
    table = rd.scan_zarr(str(tmp_path)).collect()
    assert table["v"].dtype == pl.String
    assert table["v"].to_list() == words
    assert rd.scan_zarr(str(tmp_path)).filter(c.v == WORDS[encoding]).collect().height == words.count(WORDS[encoding])


@pytest.mark.parametrize("encoding", ["klingon", "zlib", "hex", "rot13", "", 7, ["utf-8"], {"a": 1}, "utf-8\0"])
def test_an_unknown_encoding_leaves_its_array_out(tmp_path, encoding):
    path = write(tmp_path, {"v": (("x",), np.array(["a"], "S1"), {"_Encoding": encoding}), "t": (("x",), [1.0])}, 3)
    with pytest.warns(UserWarning, match=r"'v' .* is left out: .*_Encoding"):
        assert rd.scan_zarr(path).collect().columns == ["x", "t"]
    caught(StoreFormatError, lambda: rd.scan_zarr(path, variables=["v"]), "'v'", "_Encoding")
    assert rd.scan_zarr(path, decode=False).collect()["v"].to_list() in (["a"], [b"a"])


@pytest.mark.parametrize(("encoding", "word"), [("ascii", "Zürich"), ("utf-8", "Zürich"), ("shift_jis", "Zürich")])
def test_bytes_that_are_not_in_their_encoding_are_an_error_that_names_the_array(tmp_path, encoding, word):
    raw = word.encode("latin-1") + b"\xff"
    values = np.array([b"a", raw, b"b"], "S8")
    path = write(
        tmp_path, {"v": (("x",), values, {"_Encoding": encoding}), "t": (("x",), np.arange(3))}, 3, chunks=(1,)
    )
    caught(StoreFormatError, lambda: rd.scan_zarr(path).collect(), "'v'", "_Encoding")
    assert rd.scan_zarr(path).select("t").collect()["t"].to_list() == [0, 1, 2]
    if encoding != "utf-8":
        assert rd.scan_zarr(path, decode=False).collect()["v"].to_list() == [b"a", raw, b"b"]


def test_an_encoding_declared_for_text_or_numbers_changes_nothing(tmp_path):
    arrays = {"u": (("x",), np.array(["é", "b"], "U1")), "n": (("x",), np.arange(2))}
    path = write(tmp_path, {name: (*array, {"_Encoding": "ascii"}) for name, array in arrays.items()}, 2)
    assert rd.scan_zarr(path).collect().select("u", "n").rows() == [("é", 0), ("b", 1)]
