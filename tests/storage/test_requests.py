"""Requests to a store: documents of large groups, and chunks of several chunk grids."""

import dask
import numpy as np
import pytest
import zarr
from hypothesis import given, settings
from hypothesis import strategies as st
from zarr.storage import MemoryStore

import rainbear_dask as rd
from rainbear_dask.planning import plan as planner
from tests.support.stores import CountingStore

MANY = 1_200


@pytest.fixture(scope="module", params=[2, 3])
def large_group(request):
    """A store with a consolidated group of many arrays, and its format."""
    store = MemoryStore()
    group = zarr.open_group(store, mode="w", zarr_format=request.param)
    names = {"dimension_names": ["x"]} if request.param == 3 else {"attributes": {"_ARRAY_DIMENSIONS": ["x"]}}
    group.create_array("v0", shape=(4,), chunks=(2,), dtype="i4", **names)[:] = [1, 2, 3, 4]
    first = [key for key in store._store_dict if key.startswith("v0/")]
    for number in range(1, MANY):
        for key in first:
            store._store_dict[key.replace("v0", f"v{number}")] = store._store_dict[key]
    zarr.consolidate_metadata(store, zarr_format=request.param)
    return store, request.param


def test_a_consolidated_group_of_many_arrays_is_opened_without_a_request_for_each(large_group):
    store, zarr_format = large_group
    counted = CountingStore(store)
    table = rd.scan_zarr(counted)
    assert len(table.collect_schema()) == 1 + MANY
    assert counted.requests == ({"zarr.json": 1} if zarr_format == 3 else {"zarr.json": 1, ".zmetadata": 1})
    counted.requests.clear()
    assert table.select("v7", "v1199").collect().rows() == [(1, 1), (2, 2), (3, 3), (4, 4)]
    assert set(counted.requests) == counted.chunks("v7") | counted.chunks("v1199")


grids = st.lists(st.tuples(st.integers(2, 12), st.integers(2, 12)), min_size=1, max_size=3)


@given(grids, st.sampled_from([(30, 25), (48, 48), (7, 40)]), st.sampled_from([1, 500, 3_000, planner.TASK_BYTES]))
@settings(max_examples=60)
def test_chunks_are_read_as_often_as_the_plan_says_and_never_many_times(grids, shape, task_bytes):
    """A chunk is asked for once, and once more for each cut through it, of which there is at most one a dimension."""
    store = MemoryStore()
    group = zarr.open_group(store, mode="w")
    for name, chunks in zip("abc", grids, strict=False):
        array = group.create_array(name, shape=shape, chunks=chunks, dtype="i4", dimension_names=("y", "x"))
        array[...] = np.arange(1, 1 + np.prod(shape)).reshape(shape)
    counted = CountingStore(store)
    with dask.config.set({"rainbear-dask.task-bytes": task_bytes}):
        plan = rd.plan(counted)
        counted.requests.clear()
        assert rd.scan_zarr(counted).sum().collect().row(0)[2:] == (array[...].sum(),) * len(grids)
    sizes = {name: np.prod(chunks) for name, chunks in zip("abc", grids, strict=False)}
    times = {key: count for key, count in counted.requests.items() if "/c/" in key}
    read = sum(count * sizes[key[0]] for key, count in times.items())
    assert read / sum(sizes[key[0]] for key in times) == pytest.approx(plan.amplification)
    assert max(times.values()) <= 2 ** len(shape)
    assert plan.amplification < 1.5


@pytest.mark.parametrize("task_bytes", [1, 20_000])
def test_chunks_of_one_grid_or_of_multiples_are_read_once(task_bytes):
    store = MemoryStore()
    group = zarr.open_group(store, mode="w")
    for name, chunks in {"a": (10, 10), "b": (10, 20), "c": (5, 30), "d": (30, 15)}.items():
        group.create_array(name, shape=(90, 60), chunks=chunks, dtype="i4", dimension_names=("y", "x"))[...] = 1
    counted = CountingStore(store)
    with dask.config.set({"rainbear-dask.task-bytes": task_bytes}):
        assert rd.plan(counted).num_tasks > 1
        counted.requests.clear()
        rd.scan_zarr(counted).collect()
    assert {count for key, count in counted.requests.items() if "/c/" in key} == {1}


def test_the_report_names_an_amplification_that_is_worth_saying():
    """Nothing is stored here: a plan needs none of it."""
    group = zarr.open_group(MemoryStore(), mode="w")
    for number in range(10):
        create(group, f"v{number}", 5)
    assert rd.plan(group.store).amplification == 1
    assert "  reads" not in rd.explain(rd.scan_zarr(group.store))
    create(group, "w", 6)
    plan = rd.plan(group.store)
    assert 1.5 < plan.amplification < 2
    assert f"reads    {plan.amplification:.1f} times the bytes of its chunks" in plan.explain()


def create(group, name, chunk):
    """An empty array of four dimensions."""
    group.create_array(name, shape=(600,) * 4, chunks=(chunk,) * 4, dtype="f8", dimension_names=tuple("tzyx"))
