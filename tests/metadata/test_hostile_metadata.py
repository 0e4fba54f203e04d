"""An array with odd or hostile metadata is skipped by name, or refused; other arrays stay right."""

import json
import warnings

import numpy as np
import polars as pl
import pytest

import rainbear_dask as rd
from rainbear_dask.exceptions import RainbearError

c = pl.col
HUGE = 10**30
DEEP = json.loads("[" * 300 + "]" * 300)


def v3_array(**changes):
    document = {
        "zarr_format": 3,
        "node_type": "array",
        "shape": [4],
        "data_type": "float64",
        "fill_value": 0.0,
        "dimension_names": ["x"],
        "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
        "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
        "attributes": {},
    }
    return document | changes


def v2_array(**changes):
    document = {
        "zarr_format": 2,
        "shape": [4],
        "chunks": [2],
        "dtype": "<f8",
        "fill_value": None,
        "order": "C",
        "filters": None,
        "compressor": None,
    }
    return document | changes


def grid(chunks):
    return {"chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}}}


def sharded(inner):
    codecs = [{"name": "bytes", "configuration": {"endian": "little"}}]
    configuration = {"chunk_shape": inner, "codecs": codecs, "index_codecs": codecs}
    return {"codecs": [{"name": "sharding_indexed", "configuration": configuration}]}


ATTRIBUTES = [  # what they say is nonsense; the array is left out, or they are ignored
    {"scale_factor": "much"},
    {"scale_factor": [1, 2]},
    {"scale_factor": {"a": 1}},
    {"scale_factor": int("9" * 4000)},
    {"add_offset": int("-" + "9" * 400)},
    {"add_offset": True},
    {"_FillValue": int("9" * 4000)},
    {"_FillValue": {"a": []}},
    {"_FillValue": [[1], None, "x", HUGE]},
    {"_FillValue": "not base64!"},
    {"missing_value": "AAAA"},
    {"missing_value": [None, True, -HUGE, "1e400"]},
    {"valid_range": "wide", "flag_values": 3, "flag_meanings": [1]},
    {"units": "days since"},
    {"units": "days since yesterday"},
    {"units": "days since 2000-13-45"},
    {"units": "days since 999999-01-01"},
    {"units": "days since 2000" + " " * 50_000 + "x"},
    {"units": 5, "calendar": 7},
    {"units": ["days since 2000-01-01"]},
    {"units": "days since 2000-01-01", "calendar": "of my own"},
    {"units": "days since 2000-01-01", "calendar": None},
    {"units": "days since 2000-01-01", "scale_factor": "x"},
    {"units": "days since 2000-01-01", "_FillValue": "x" * 10_000},
    {"units": "days since 2000-01-01", "scale_factor": 1e300},
    {"dtype": "timedelta64[parsec]", "units": "hours"},
    {"dtype": {"timedelta64": "s"}, "units": "hours"},
    {"coordinates": ["x"]},
    {"coordinates": 7},
    {"coordinates": "bad nowhere ../x /x"},
    {"bounds": 1, "grid_mapping": {"a": "b"}},
    {"bounds": "bad", "grid_mapping": "bad: bad", "units": "days since 2000-01-01"},
    {"_Unsigned": [1]},
    {"_Encoding": "klingon"},
    {"_ARRAY_DIMENSIONS": "x"},
    {"_ARRAY_DIMENSIONS": {"x": 4}},
    {"_ARRAY_DIMENSIONS": ["x", "y"]},
    {"_ARRAY_DIMENSIONS": [4]},
    {"_ARRAY_DIMENSIONS": ["\ud800"]},
    {"_nczarr_array": "x"},
    {"deep": DEEP},
    {"": "", "\ud800": "\udfff", "\x00": "\x00"},
]
DOCUMENTS = {  # by what is changed; for v3, and for v2 if it is there too
    "shape": [None, 4, "4", [-4], [4.5], [True], [HUGE], [[4]], {"0": 4}, [1] * 10_000, [4, 4]],
    "fill_value": ["nonsense", {"a": 1}, [1, 2], "0x", True],
    "attributes": [["x"], 3, "text"],
    "zarr_format": [None, 4, "3", [3], {}],
    "node_type": ["tree", None, ["array"]],
    "data_type": ["float7", None, 5, ["float64"], {"name": "vegetable"}, {"name": "numpy.datetime64"}, "r99999999999"],
    "dtype": ["<f7", None, 5, "|O", [["a", "<f4"]], [[]], "|S99999999999", "<M8[fortnight]", "|S2000000000", "<U500000000"],
    "dimension_names": ["x", [1], ["x", "y"], {"x": 0}, ["\ud800"], [["x"]]],
    "codecs": [None, [], {}, "bytes", ["mystery"], [{"name": "mystery"}], [{"name": ["bytes"]}], [{}], [7],
               [{"name": "bytes"}] * 50, [{"name": "sharding_indexed"}], [{"name": "numcodecs.pickle"}]],
    "compressor": ["zlib", 7, {}, {"id": "mystery"}, {"id": ["zlib"]}, {"id": "zlib", "level": "high"}],
    "filters": [7, "delta", [7], [{"id": "mystery"}], [{"id": "pickle"}], [{"id": "delta", "dtype": "?!"}], [{"id": "vlen-utf8"}]],
    "chunks": [None, 2, [0], [-2], [HUGE], [2, 2], [[1, 3]], ["2"], [2.5]],
    "chunk_grid": [None, "regular", "voronoi", {"name": "rectilinear", "configuration": {"kind": "inline", "chunk_shapes": [[1, 3]]}},
                   {"name": "variable"}, {"name": "regular"}, grid([[1, 3]])["chunk_grid"], grid([0])["chunk_grid"],
                   grid([2, 2])["chunk_grid"], grid([HUGE])["chunk_grid"], grid("2")["chunk_grid"], {"name": {}}],
    "chunk_key_encoding": [None, 5, {"name": "own"}, {"name": "default", "configuration": {"separator": "?"}}],
    "storage_transformers": [[{"name": "x"}], 7],
    "mystery": [{"must_understand": True}],
}  # fmt: skip
SHARDS = [sharded(inner) for inner in (None, [0], [-1], [3], [2, 2], "2", [HUGE])]


def write(path, bad, zarr_format, *, consolidated, name="bad"):
    """A store of a good array with a coordinate beside a bad one."""
    of = {3: v3_array, 2: v2_array}[zarr_format]
    dims = {} if zarr_format == 3 else {"attributes": {"_ARRAY_DIMENSIONS": ["x"]}}
    arrays = {name: bad, "good": of(**dims), "x": of(**dims)}
    documents = {}
    if zarr_format == 3:
        group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
        if consolidated:
            group["consolidated_metadata"] = {"kind": "inline", "must_understand": False, "metadata": arrays}
        documents = {"zarr.json": group} | {f"{key}/zarr.json": value for key, value in arrays.items()}
    else:
        documents[".zgroup"] = {"zarr_format": 2}
        for key, value in arrays.items():
            documents[f"{key}/.zarray"] = {k: v for k, v in value.items() if k != "attributes"}
            documents[f"{key}/.zattrs"] = value.get("attributes", {})
        if consolidated:
            documents = {".zmetadata": {"zarr_consolidated_format": 1, "metadata": documents}}
    for key, document in documents.items():
        if key.isprintable():
            (path / key).parent.mkdir(parents=True, exist_ok=True)
            (path / key).write_text(json.dumps(document))
    for key, values in (("good", np.arange(4.0)), ("x", np.arange(4.0) * 10)):
        (path / key).mkdir(exist_ok=True)
        for chunk in (0, 1):
            place = path / key / ("c" if zarr_format == 3 else "") / str(chunk)
            place.parent.mkdir(exist_ok=True)
            place.write_bytes(values[2 * chunk : 2 * chunk + 2].tobytes())
    return str(path)


def answer(call):
    """What a call gives; None if it raises an error of ours."""
    try:
        return call()
    except RainbearError:
        return None


def check(path, name="bad"):
    """Ask all that can be asked; gives whether the array was left out."""
    with warnings.catch_warnings(record=True) as caught:
        warnings.simplefilter("always")
        frame = rd.scan_zarr(path).select("x", "good").head(4).collect()
    said = [str(one.message) for one in caught if "is left out" in str(one.message)]
    assert frame["good"].to_list()[:4] == [0.0, 1.0, 2.0, 3.0][: frame.height]
    assert len(said) == len(set(said)) <= 1, said
    assert all(f"array {name!r} of " in one for one in said)
    with warnings.catch_warnings():
        warnings.simplefilter("ignore")
        alone = rd.scan_zarr(path, variables=["good"])
        assert alone.collect()["x"].to_list() == [0.0, 10.0, 20.0, 30.0]
        assert alone.filter(c.x > 15).collect()["good"].to_list() == [2.0, 3.0]
        named = answer(lambda: rd.scan_zarr(path, variables=[name]))
        assert (named is None) or not said
        answer(lambda: named.collect() if named is not None else None)
        answer(lambda: rd.scan_zarr(path).collect())
        answer(lambda: rd.scan_zarr(path).filter(c.x > 15).collect())
        answer(lambda: str(rd.plan(path, c.good > 1).explain()))
        answer(lambda: rd.scan_zarr(path, decode=False).collect())
        tables = rd.tables(path)
        assert any("good" in table.collect_schema() for table in tables.values())
        for table in tables.values():
            answer(table.head(4).collect)
    return said


OF_V2 = ("shape", "fill_value", "attributes", "zarr_format", "dtype", "compressor", "filters", "chunks")
OF_V3 = [key for key in DOCUMENTS if key not in ("dtype", "compressor", "filters", "chunks")]
CHANGES = {
    f"v{zarr_format}-{key}-{number}": (zarr_format, {key: value})
    for zarr_format, keys in ((3, OF_V3), (2, OF_V2))
    for key in keys
    for number, value in enumerate(DOCUMENTS[key])
}
CHANGES |= {f"v3-shards-{number}": (3, shards) for number, shards in enumerate(SHARDS)}
SAYINGS = {
    f"v{zarr_format}-attributes-{number}": (zarr_format, {"attributes": attributes})
    for zarr_format in (2, 3)
    for number, attributes in enumerate(ATTRIBUTES)
}


@pytest.mark.parametrize("consolidated", [True, False], ids=["consolidated", "listed"])
@pytest.mark.parametrize(("zarr_format", "changes"), CHANGES.values(), ids=CHANGES.keys())
def test_an_odd_document_spoils_neither_the_others_nor_the_process(tmp_path, zarr_format, changes, consolidated):
    of = {3: v3_array, 2: v2_array}[zarr_format]
    dims = {"attributes": {"_ARRAY_DIMENSIONS": ["x"]}} if zarr_format == 2 else {}
    check(write(tmp_path, of(**(dims | changes)), zarr_format, consolidated=consolidated))


@pytest.mark.parametrize(("zarr_format", "changes"), SAYINGS.values(), ids=[f"saying-{key}" for key in SAYINGS])
def test_odd_attributes_spoil_neither_the_others_nor_the_process(tmp_path, zarr_format, changes):
    attributes = changes["attributes"] if zarr_format == 3 else {"_ARRAY_DIMENSIONS": ["x"]} | changes["attributes"]
    of = {3: v3_array, 2: v2_array}[zarr_format]
    check(write(tmp_path, of(attributes=attributes), zarr_format, consolidated=True))


@pytest.mark.parametrize(
    ("zarr_format", "changes", "reason"),
    [
        (3, {"chunk_grid": DOCUMENTS["chunk_grid"][3]}, "its chunk grid is 'rectilinear'; only chunks of one shape"),
        (3, {"chunk_grid": {"name": "rectilinear"}}, "its chunk grid is 'rectilinear'"),
        (3, {"chunk_grid": {"name": "variable", "configuration": {}}}, "its chunk grid is 'variable'"),
        (3, grid([[1, 3]]), "its chunks are of unequal lengths"),
        (2, {"chunks": [[1, 3]]}, "its chunks are of unequal lengths"),
        (3, {"data_type": "float7"}, "its type 'float7' is unknown"),
        (2, {"dtype": "<f7"}, "its type '<f7' is unknown"),
        (3, {"fill_value": "nonsense"}, "its fill value 'nonsense' is none of its type"),
        (2, {"fill_value": "nonsense"}, "its fill value 'nonsense' is none of its type"),
        (3, {"codecs": [{"name": "mystery"}]}, "its codec 'mystery' is unknown here"),
        (2, {"compressor": {"id": "mystery"}}, "its codec {'id': 'mystery'} is unknown here"),
        (3, {"mystery": {"must_understand": True}}, "it has the field 'mystery', which has to be understood"),
        (3, {"chunk_key_encoding": {"name": "own"}}, "its chunk key encoding is unknown"),
        (3, {"storage_transformers": [{"name": "x"}]}, "it has storage transformers"),
    ],
)
def test_the_reason_is_in_words_of_ours(tmp_path, zarr_format, changes, reason):
    of = {3: v3_array, 2: v2_array}[zarr_format]
    (said,) = check(write(tmp_path, of(**changes), zarr_format, consolidated=True))
    assert f"is left out: {reason}" in said
    assert not any(word in said for word in ("zarr.config", "read_chunk_sizes", "Error"))
