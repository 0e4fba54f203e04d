"""Which arrays can have statistics, and where scans look for them."""

import numpy as np
import pytest
import zarr

import rainbear_dask as rd
from rainbear_dask.query.io_source import plans_of
from rainbear_dask.statistics import lookup
from rainbear_dask.statistics.lookup import can_have_statistics, known_statistics
from rainbear_dask.statistics.places import places_for


@pytest.mark.parametrize(
    ("shape", "chunks", "expected"),
    [((4,), (2,), True), ((0,), (2,), False), ((), (), False), ((2**25,), (1,), False), ((2**25,), (2,), True)],
    ids=str,
)
def test_arrays_with_chunks_can_have_statistics(tmp_path, shape, chunks, expected):
    group = zarr.create_group(tmp_path / "a.zarr")
    names = ["x"][: len(shape)]
    group.create_array("a", shape=shape, chunks=chunks or "auto", dtype="f4", dimension_names=names)
    (plan,) = plans_of(rd.scan_zarr(tmp_path / "a.zarr"))
    assert can_have_statistics(plan.table.columns["a"]) is expected
    assert not any(can_have_statistics(c) for name, c in plan.table.columns.items() if name == "x" and c.array is None)


@pytest.mark.parametrize(
    ("option", "in_store", "expected"),
    [
        ("auto", True, ["store", "cache"]),
        ("auto", False, ["cache"]),
        (False, True, []),
        ("/folder", True, ["/folder"]),
    ],
)
def test_scans_look_in_the_store_first(option, in_store, expected):
    assert places_for(option, in_store=in_store) == expected


def test_statistics_are_looked_up_once_for_each_opening(tmp_path, monkeypatch):
    group = zarr.create_group(tmp_path / "a.zarr")
    group.create_array("a", data=np.arange(4.0), chunks=(1,), dimension_names=["x"])
    looked = []
    original = lookup.find
    monkeypatch.setattr(lookup, "find", lambda *arguments: looked.append(arguments[0].name) or original(*arguments))
    (plan,) = plans_of(rd.scan_zarr(tmp_path / "a.zarr"))
    for _ in range(3):
        assert known_statistics(plan.table, plan.table.columns["a"]) is None
    assert looked == [".rainbear/statistics.parquet", "a.parquet"]
    rd.analyze(tmp_path / "a.zarr")  # in this process, its scans learn of it
    looked.clear()
    known = known_statistics(plan.table, plan.table.columns["a"])
    assert known.unchanged(np.array([0, 3])).tolist() == [True, True]
    assert known_statistics(plan.table, plan.table.columns["a"]) is known
    assert looked == [".rainbear/statistics.parquet"]
