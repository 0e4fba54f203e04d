"""A result in memory that certainly exceeds this machine's memory is refused; one that may is warned of."""

import asyncio
import pickle
import warnings

import dask
import polars as pl
import pytest
import zarr

import rainbear_dask as rd
from rainbear_dask.exceptions import LargeResultWarning, PlanTooLargeError, SettingError
from rainbear_dask.planning.limits import MIN_CHECKED_BYTES, Limits, check_memory
from rainbear_dask.resources.memory import machine_bytes

c = pl.col
N = 2**20
ROW_BYTES = 8 + 8 + 8


@pytest.fixture(scope="module")
def huge(tmp_path_factory) -> str:
    """A table of 24 TiB without a chunk: all values are missing, and have the fill value."""
    path = str(tmp_path_factory.mktemp("memory") / "huge.zarr")
    zarr.open_group(path, mode="w").create_array(
        "v", shape=(N, N), chunks=(2**10, 2**10), dtype="f8", dimension_names=["y", "x"]
    )
    return path


WAYS = {
    "plan.collect": lambda path: rd.plan(path).collect(),
    "plan.to_arrow": lambda path: rd.plan(path).to_arrow(),
    "plan.to_pandas": lambda path: rd.plan(path).to_pandas(),
    "lf.collect": lambda path: rd.scan_zarr(path).collect(),
    "lf.collect, streaming": lambda path: rd.scan_zarr(path).collect(engine="streaming"),
    "lf.collect_async": lambda path: asyncio.run(awaited(rd.scan_zarr(path))),
    "filtered": lambda path: rd.scan_zarr(path).filter(c.x > 5, c.y > 5).select("v").collect(),
    "backend": lambda path: rd.ZarrBackendSync.from_url(path).scan_zarr_sync(),
    "async backend": lambda path: asyncio.run(rd.ZarrBackend.from_url(path).scan_zarr_async(None)),
    "scan_zarr_async": lambda path: asyncio.run(rd.scan_zarr_async(path, c.x > 5)),
}


async def awaited(lf):
    return await lf.collect_async()


@pytest.mark.parametrize("way", WAYS)
def test_a_certain_size_is_refused_before_anything_is_read(huge, way):
    with pytest.raises(PlanTooLargeError) as caught:
        WAYS[way](huge)
    text = str(caught.value)
    assert "rows, which need" in text
    assert "TB" in text
    assert "max_bytes" in text
    assert "memory-share" in text
    assert "sink_parquet" in text
    assert str(pickle.loads(pickle.dumps(caught.value))) == text


def test_an_upper_bound_is_warned_of(huge):
    plan = rd.plan(huge, c.v > 1)
    with pytest.warns(LargeResultWarning, match="rows at most, which need 26.4 TB"):
        check_memory(plan.read_plan, plan.limits)


def test_a_plain_collect_of_an_upper_bound_warns_once(tmp_path):
    zarr.open_group(tmp_path, mode="w").create_array("v", shape=(1000, 100), dtype="f8", dimension_names=["y", "x"])
    with dask.config.set({"rainbear-dask.memory-share": 1e-9}), pytest.warns(LargeResultWarning) as caught:
        assert rd.scan_zarr(tmp_path).filter(c.v > 1).collect().height == 0
    (warning,) = caught
    assert warning.filename == __file__


@pytest.mark.parametrize(
    "query",
    [
        lambda lf: lf.head(5),
        lambda lf: lf.filter(c.x == 5, c.y < 3),
        lambda lf: lf.filter(c.x == 5, c.y < 3).select(c.v.sum()),
        lambda lf: lf.filter(c.y < 2, c.x < 100).group_by("y").agg(c.v.mean()),
    ],
    ids=["head", "box", "sum", "groups"],
)
def test_a_small_result_of_a_huge_table_is_given(huge, query):
    with warnings.catch_warnings():
        warnings.simplefilter("error")
        assert query(rd.scan_zarr(huge)).collect().height <= 5


def test_a_limit_of_the_query_replaces_the_check(tmp_path):
    zarr.open_group(tmp_path, mode="w").create_array("v", shape=(1000, 100), dtype="f8", dimension_names=["y", "x"])
    with dask.config.set({"rainbear-dask.memory-share": 1e-9}):
        with pytest.raises(PlanTooLargeError):
            rd.scan_zarr(tmp_path).collect()
        for limits in ({"max_bytes": 10**6}, {"max_rows": 10**6}, {"max_chunks_to_read": 10}):
            assert rd.scan_zarr(tmp_path, **limits).collect().height == 100_000
            assert rd.plan(tmp_path, **limits).collect().height == 100_000
    assert rd.scan_zarr(tmp_path).collect().height == 100_000
    with dask.config.set({"rainbear-dask.memory-share": None}):
        assert rd.scan_zarr(tmp_path).collect().height == 100_000


def test_the_bound_is_the_share_of_the_memory(huge):
    plan = rd.plan(huge).read_plan
    size = N * N * ROW_BYTES
    for share, is_refused in ((size / machine_bytes() * 0.99, True), (size / machine_bytes() * 1.01, False)):
        with dask.config.set({"rainbear-dask.memory-share": share}):
            if is_refused:
                with pytest.raises(PlanTooLargeError):
                    check_memory(plan, Limits())
            else:
                check_memory(plan, Limits())


@pytest.mark.parametrize("value", [0, -1, "half", True])
def test_a_wrong_share_is_named(huge, value):
    with dask.config.set({"rainbear-dask.memory-share": value}), pytest.raises(SettingError, match="memory-share"):
        rd.scan_zarr(huge).collect()


def test_the_memory_of_the_machine():
    assert MIN_CHECKED_BYTES < machine_bytes() < 2**50
