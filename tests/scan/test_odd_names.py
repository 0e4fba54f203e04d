"""Stores that declare what nothing holds, or use names that nothing has: errors of ours, in bounded time and memory."""

import json
import subprocess
import sys

import numpy as np
import polars as pl
import pytest

import rainbear_dask as rd
from rainbear_dask.exceptions import StoreFormatError
from tests.metadata.test_hostile_metadata import grid, v3_array
from tests.support.errors import caught

c = pl.col
TRILLION = 10**12
TIME = {"units": "days since 2000-01-01"}


def store(path, arrays, *, text=None):
    """A consolidated store of v3 of arrays without chunks; ``text`` takes the place of the word REPLACED."""
    group = {"zarr_format": 3, "node_type": "group", "attributes": {}}
    consolidated = {"kind": "inline", "must_understand": False, "metadata": arrays}
    document = json.dumps(group | {"consolidated_metadata": consolidated})
    (path / "zarr.json").write_text(document if text is None else document.replace('"REPLACED"', text))
    for name, array in arrays.items():
        if name.isprintable():
            (path / name).mkdir(parents=True, exist_ok=True)
            (path / name / "zarr.json").write_text(json.dumps(array))
    return str(path)


@pytest.mark.parametrize(
    "name", ["v\ud800", "\udfff/v", "a/\ud834/v", "../v", "/v", "v/", "a//v", "a/./v", "..", "a/../v"]
)
def test_an_array_whose_path_is_none_is_left_out(tmp_path, name):
    path = store(tmp_path, {name: v3_array(), "good": v3_array()})
    with pytest.warns(UserWarning, match="is left out: its path") as said:
        assert rd.scan_zarr(path).collect().columns == ["x", "good"]
    assert len(said) == 1
    assert repr(name) in str(said[0].message)
    caught(StoreFormatError, lambda: rd.scan_zarr(path, variables=[name]), "its path")


@pytest.mark.parametrize(
    "name", ["^v.*$", "*", " ", "len", "v\x1b[31m", "\u202ev", "é" * 100, "-", "a.b", "c", "zarr.json.bak"]
)
def test_odd_names_are_columns(tmp_path, name):
    path = store(
        tmp_path, {name: v3_array(dimension_names=[f"{name}~"]), f"{name}~": v3_array(dimension_names=[f"{name}~"])}
    )
    assert rd.scan_zarr(path).collect_schema().names() == [f"{name}~", name]
    assert rd.scan_zarr(path).collect().rows() == [(0.0, 0.0)] * 4
    assert len(rd.tables(path)) == 1


def test_dimensions_without_a_name_have_a_number(tmp_path):
    names = {"dimension_names": ["", None], "shape": [2, 2], **grid([2, 2])}
    assert rd.scan_zarr(store(tmp_path, {"v": v3_array(**names)})).collect().columns == ["dim_0", "dim_1", "v"]


@pytest.mark.parametrize("dim", ["a/b", "/x", "x/", "/", "good/x"])
def test_a_dimension_whose_name_has_a_slash_leaves_its_array_out(tmp_path, dim):
    path = store(tmp_path, {"v": v3_array(dimension_names=[dim]), "good": v3_array()})
    with pytest.warns(UserWarning, match="'v' .* is left out: .*slash"):
        assert rd.scan_zarr(path).collect().columns == ["x", "good"]


@pytest.mark.parametrize(
    ("changes", "reason"),
    [
        ({"shape": [1] * 10_000, **grid([1] * 10_000), "dimension_names": [f"d{i}" for i in range(10_000)]}, "10,000 dimensions"),
        ({"shape": [2**63 - 1]}, "2**48"),
        ({"shape": [2**48 + 1]}, "2**48"),
        ({"data_type": {"name": "null_terminated_bytes", "configuration": {"length_bytes": 2**31 - 1}}, "fill_value": ""}, "bytes"),
    ],
)  # fmt: skip
def test_what_no_array_can_hold_is_left_out(tmp_path, changes, reason):
    path = store(tmp_path, {"v": v3_array(**changes), "good": v3_array()})
    with pytest.warns(UserWarning, match="'v' .* is left out") as said:
        assert rd.scan_zarr(path).collect()["good"].to_list() == [0.0] * 4
    assert reason in str(said[0].message)


def test_texts_of_endless_letters_are_left_out(tmp_path):
    shape = {"shape": [4, TRILLION], **grid([4, TRILLION]), "dimension_names": ["x", "len"]}
    letter = {"data_type": {"name": "null_terminated_bytes", "configuration": {"length_bytes": 1}}, "fill_value": ""}
    path = store(tmp_path, {"v": v3_array(**shape, **letter, codecs=[{"name": "bytes"}]), "good": v3_array()})
    with pytest.warns(UserWarning, match="'v' .* is left out: its texts have 1,000,000,000,000 letters"):
        assert rd.scan_zarr(path).collect().height == 4


@pytest.mark.filterwarnings("ignore:array 'v' .* is left out:UserWarning")
@pytest.mark.parametrize("text", ["9" * 5_000, "-" + "9" * 5_000, "[" * 900 + "]" * 900, "1e999", "NaN"])
@pytest.mark.parametrize(
    "key", ["scale_factor", "_FillValue", "units", "coordinates", "bounds", "_ARRAY_DIMENSIONS", "other"]
)
def test_a_value_that_python_does_not_convert_spoils_no_other_array(tmp_path, key, text):
    path = store(tmp_path, {"v": v3_array(attributes={key: "REPLACED"}), "good": v3_array()}, text=text)
    assert rd.scan_zarr(path, variables=["good"]).collect()["good"].to_list() == [0.0] * 4


def test_a_document_of_a_hundred_thousand_levels_leaves_its_array_out(tmp_path):
    root = store(tmp_path, {"good": v3_array()})
    group = json.loads((tmp_path / "zarr.json").read_text())
    (tmp_path / "zarr.json").write_text(json.dumps({k: v for k, v in group.items() if k != "consolidated_metadata"}))
    (tmp_path / "v").mkdir()
    (tmp_path / "v" / "zarr.json").write_text('{"a":' * 100_000 + "1" + "}" * 100_000)
    with pytest.warns(UserWarning, match="'v' .* is left out: .*nests too deep"):
        assert rd.scan_zarr(root).collect().columns == ["x", "good"]
    (tmp_path / "zarr.json").write_text("[" * 100_000)
    caught(StoreFormatError, lambda: rd.scan_zarr(root), "zarr.json")


def test_a_group_whose_attributes_nest_deeply_opens(tmp_path):
    document = {"zarr_format": 3, "node_type": "group", "attributes": {"a": "REPLACED", "coordinates": "good"}}
    (tmp_path / "zarr.json").write_text(json.dumps(document).replace('"REPLACED"', "[" * 500 + "]" * 500))
    (tmp_path / "good").mkdir()
    (tmp_path / "good" / "zarr.json").write_text(json.dumps(v3_array()))
    backend = rd.ZarrBackendSync.from_url(str(tmp_path))
    assert backend.scan_zarr_sync()["good"].to_list() == [0.0] * 4


HUGE = """
import resource, sys
import polars as pl
import rainbear_dask as rd

resource.setrlimit(resource.RLIMIT_AS, (5 * 2**30, 5 * 2**30))
scan = rd.scan_zarr(sys.argv[1])
assert scan.head(3).collect().height == 3
try:
    plan = rd.plan(sys.argv[1], pl.col("x").is_null())
    assert plan.num_chunks_kept == plan.num_chunks
except rd.exceptions.PlanTooLargeError:
    assert sys.argv[2] == "True"
"""


@pytest.mark.parametrize(
    ("length", "chunk", "attributes"), [(10**10, TRILLION, TIME), (10**10, 2**20, {}), (TRILLION, TRILLION, {})]
)
def test_a_coordinate_of_endless_labels_takes_bounded_memory(tmp_path, length, chunk, attributes):
    shape = {"shape": [length]}
    arrays = {"x": v3_array(**shape, **grid([chunk]), attributes=attributes), "v": v3_array(**shape, **grid([2**20]))}
    command = [sys.executable, "-W", "ignore", "-c", HUGE, store(tmp_path, arrays), str(length > 2**36)]
    done = subprocess.run(command, capture_output=True, text=True, check=False)
    assert done.returncode == 0, done.stderr[-2000:]


def test_a_coordinate_longer_than_its_dimension_is_an_error_only_where_it_is_used(tmp_path):
    path = store(tmp_path, {"x": v3_array(shape=[5]), "v": v3_array(), "w": v3_array(dimension_names=["y"])})
    caught(StoreFormatError, lambda: rd.scan_zarr(path), "4 in v, 5 in x", "tables()")
    assert rd.scan_zarr(path, variables=["w"]).collect().height == 4
    assert [table.collect().height for table in rd.tables(path).values()] == [4, 4]
    assert np.array_equal(rd.tables(path)[rd.TableKey("", ("x",), (4,))].collect()["x"], range(4))
