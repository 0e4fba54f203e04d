"""Documents that declare too much: an error, or a skipped array, and never an attempt to read."""

import json
from contextlib import nullcontext

import polars as pl
import pytest

import rainbear_dask as rd
from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.planning import predicate
from tests.support.errors import caught

c = pl.col
N = 10**12


def store(root, **arrays):
    """Arrays without a chunk, each of a shape, its chunks and its dimensions."""
    root.mkdir(exist_ok=True)
    (root / "zarr.json").write_text('{"zarr_format": 3, "node_type": "group", "attributes": {}}')
    for name, (shape, chunks, dims) in arrays.items():
        (root / name).mkdir()
        document = {
            "zarr_format": 3, "node_type": "array", "shape": shape, "data_type": "float64", "fill_value": 0,
            "attributes": {}, "dimension_names": dims, "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
            "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": chunks}},
            "chunk_key_encoding": {"name": "default", "configuration": {"separator": "/"}},
        }  # fmt: skip
        (root / name / "zarr.json").write_text(json.dumps(document))
    return root


@pytest.mark.parametrize("coordinate", [{"x": ([N], [2**10], ["x"])}, {}], ids=["coordinate", "index"])
def test_a_filter_on_a_coordinate_that_nobody_can_read_is_an_error(tmp_path, coordinate):
    with pytest.warns(UserWarning, match="'x'.* is left out: it declares") if coordinate else nullcontext():
        lf = rd.scan_zarr(store(tmp_path, v=([N], [2**10], ["x"]), **coordinate))
    assert lf.head(2).collect()["v"].to_list() == [0, 0]
    for question in (c.x == 5, (c.x > 5) & (c.v > 1), (c.x < 2) | (c.v > 1), ~(c.x > 7)):
        caught(PlanTooLargeError, lambda q=question: lf.filter(q).collect(), "x", f"{N:,}", "filter")
        caught(PlanTooLargeError, lambda q=question: rd.explain(lf.filter(q)), "x")


def test_a_long_coordinate_is_filtered_chunk_by_chunk(tmp_path, monkeypatch):
    lf = rd.scan_zarr(store(tmp_path, v=([100], [10], ["x"])))
    expected = lf.filter(c.x < 25).collect()
    monkeypatch.setattr(predicate, "WHOLE_VALUES", 50)
    assert lf.filter(c.x < 25).collect().equals(expected)
    assert "100 values, and planning evaluates at most 50" in rd.explain(lf.filter(c.x < 25))


@pytest.mark.parametrize("count", [65, 100, 10_000])
def test_an_array_of_more_dimensions_than_numpy_knows_is_left_out(tmp_path, count):
    root = store(tmp_path, many=([1] * count, [1] * count, [f"d{i}" for i in range(count)]), good=([2], [2], ["x"]))
    with pytest.warns(UserWarning, match=f"'many'.*{count:,} dimensions"):
        lf = rd.scan_zarr(root)
    assert lf.collect().to_dict(as_series=False) == {"x": [0, 1], "good": [0.0, 0.0]}


def test_an_array_of_as_many_dimensions_as_numpy_knows_is_read(tmp_path):
    root = store(tmp_path, many=([1] * 64, [1] * 64, [f"d{i}" for i in range(64)]))
    assert rd.scan_zarr(root).collect().shape == (1, 65)


def test_a_chunk_that_nobody_can_hold_is_an_error(tmp_path):
    path = store(tmp_path, v=([2**48], [2**48], ["x"]))
    caught(PlanTooLargeError, rd.scan_zarr(path).collect, "memory-share")
    caught(rd.exceptions.ChunkReadError, rd.scan_zarr(path, max_rows=2**48).collect, "'v'")
