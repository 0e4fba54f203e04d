"""The whole way from a store to a frame: what is read, in what order, where it runs, and what goes wrong."""

import pickle
import shutil
from datetime import datetime

import numpy as np
import polars as pl
import pytest
import xarray as xr
import zarr
from polars.exceptions import ColumnNotFoundError, ComputeError
from polars.testing import assert_frame_equal
from zarr.storage import LocalStore

import rainbear_dask as rd
from rainbear_dask.exceptions import (
    ChunkReadError,
    PlanTooLargeError,
    RainbearError,
    StoreNotFoundError,
    UnknownColumnError,
)
from tests.support.oracle import expected_frame
from tests.support.stores import CountingStore, write_field

c = pl.col


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("scan") / "field.zarr")
    write_field(path)
    return path


@pytest.fixture
def counted(url) -> CountingStore:
    return CountingStore(LocalStore(url, read_only=True))


@pytest.mark.parametrize(
    ("predicate", "chunks"),
    [
        (c.lat > 45, 8),
        ((c.lat > 45) & (c.lon < 90), 2),
        (c.time >= datetime(2020, 2, 1), 24),
        (c.time >= datetime(2020, 2, 1, 12), 12),
        (c.time.dt.month() == 1, 12),
        (c.time.dt.hour() == 7, 24),
        (((c.lat > 60) & (c.lon < 18)) | ((c.lat < -60) & (c.lon > 340)), 4),
        (~(c.lat < 45), 8),
        (c.lat.is_in([82.5, -82.5]), 16),
        (c.lat.abs() < 10, 8),
        (((c.lon + 180) % 360 - 180).abs() <= 18, 12),
        ((c.lat > 45) & (c.t2m > 280), 8),
        (c.t2m > 1000, 24),
        (c.lat > 100, 0),
        (pl.lit(value=False), 0),
    ],
)
def test_a_filter_reads_only_its_chunks(url, counted, predicate, chunks):
    actual = rd.scan_zarr(counted).filter(predicate).collect()
    assert len(counted.chunks("t2m")) == chunks
    assert_frame_equal(actual, expected_frame(url).filter(predicate), check_row_order=False)
    assert max(counted.requests.values(), default=0) <= 1  # nothing is asked for twice


def test_only_the_columns_asked_for_and_filtered_by_are_read(counted):
    rd.scan_zarr(counted).filter(c.lat > 45).select("t2m").collect()
    assert not counted.chunks("sst")


def test_columns_that_the_filter_does_not_need_are_read_only_where_a_row_survives(counted):
    assert rd.scan_zarr(counted).filter(c.t2m > 1000).collect().is_empty()
    assert len(counted.chunks("t2m")) == 24
    assert not counted.chunks("sst")


def write_diagonal(path, *, length=8, sharded=False, texts=False, compressed=False):
    """Two variables in 4 x 4 chunks, or inner chunks of a shard; the first is zero but at one place in each of the diagonal."""
    size, step = (length, length), length // 4
    places = np.zeros(size, "i1")
    places[::step, ::step] = np.eye(4)
    numbers = np.arange(length**2, dtype="f4").reshape(size)
    group = zarr.open_group(path, mode="w")
    for name, values in {"v": places, "w": numbers.astype(str).astype(object) if texts else numbers}.items():
        array = group.create_array(
            name,
            shape=size,
            chunks=(step, step),
            shards=size if sharded else None,
            dtype=str if values.dtype == object else values.dtype,
            dimension_names=("y", "x"),
            compressors="auto" if compressed else None,
        )
        array[...] = values


DIAGONAL = {(str(i), str(i)) for i in range(4)}


def check_diagonal(store, length=8):
    rows = rd.scan_zarr(store).filter(c.v > 0).select(c.w.cast(pl.Float64)).collect()
    assert rows["w"].to_list() == [i * length // 4 * (length + 1) for i in range(4)]


@pytest.mark.parametrize("texts", [False, True])
def test_chunks_between_survivors_are_not_asked_for(tmp_path, texts):
    write_diagonal(tmp_path, texts=texts)
    counted = CountingStore(LocalStore(tmp_path, read_only=True))
    check_diagonal(counted)
    assert counted.chunks("w") == {f"w/c/{i}/{j}" for i, j in DIAGONAL}


def test_chunks_between_survivors_are_not_asked_for_within_a_shard(tmp_path):
    """But where they are so small that one request for all takes less time."""
    # the index and two pairs of chunks, which lie near each other in the shard; or the whole shard
    for length, requests in ((800, 1 + 2), (80, 1)):
        write_diagonal(tmp_path, length=length, sharded=True)
        counted = CountingStore(LocalStore(tmp_path, read_only=True))
        check_diagonal(counted, length)
        assert counted.requests["w/c/0/0"] == requests


@pytest.mark.parametrize("sharded", [False, True])
def test_chunks_between_survivors_are_not_read_from_a_folder(tmp_path, sharded):
    """What lies in them is noise."""
    write_diagonal(tmp_path, length=800, sharded=sharded, compressed=True)
    if sharded:
        shard = tmp_path / "w/c/0/0"
        content = bytearray(shard.read_bytes())
        spans = np.frombuffer(content[-(16 * 16 + 4) : -4], "<u8").reshape(4, 4, 2)
        for start, length in spans[~np.eye(4, dtype=bool)].tolist():
            content[start : start + length] = bytes(length)
        shard.write_bytes(content)
    else:
        for chunk in (tmp_path / "w/c").glob("*/*"):
            if chunk.parts[-2:] not in DIAGONAL:
                chunk.write_bytes(b"not a chunk")
    with pytest.raises(ChunkReadError):
        rd.scan_zarr(tmp_path).collect()
    check_diagonal(tmp_path, 800)


def test_coordinates_alone_read_no_data_variable(counted):
    coordinates = rd.scan_zarr(counted).select("lat", "lon").unique().collect()
    assert coordinates.height == 12 * 20
    assert not counted.chunks("t2m") | counted.chunks("sst")


def test_a_count_reads_no_data_variable(counted):
    assert rd.scan_zarr(counted).select(pl.len()).collect().item() == 48 * 12 * 20
    assert not counted.chunks("t2m") | counted.chunks("sst")


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_head_reads_the_chunks_of_its_rows(url, counted, engine):
    actual = rd.scan_zarr(counted).head(30).collect(engine=engine)
    assert_frame_equal(actual, expected_frame(url).head(30))
    assert len(counted.chunks("t2m")) == 4


def test_explain_reads_coordinates_only(counted):
    report = rd.explain(rd.scan_zarr(counted).filter(c.lat > 45).select("sst"))
    assert "8 of 24" in report
    assert not counted.chunks("t2m") | counted.chunks("sst") | counted.chunks("lon")


def test_explain_of_a_filter_by_value_reads_no_value(counted):
    report = rd.explain(rd.scan_zarr(counted).filter((c.lat > 45) & (c.t2m > 280)))
    assert "16 of 48" in report
    assert not counted.chunks("t2m") | counted.chunks("sst")


def test_explain_of_a_query_over_two_scans_reports_both(url):
    west, east = rd.scan_zarr(url).filter(c.lon < 18), rd.scan_zarr(url).filter(c.lon > 300)
    assert str(rd.explain(pl.concat([west, east]))).count("SCAN ") == 2


def test_rows_are_in_c_order_on_every_run(url):
    assert_frame_equal(rd.scan_zarr(url).collect(), expected_frame(url))


def test_an_exact_filter_gives_rows_in_c_order_of_the_table(url):
    predicate = (c.time.dt.hour() == 7) & (c.lat.abs() > 60)
    assert_frame_equal(rd.scan_zarr(url).filter(predicate).collect(), expected_frame(url).filter(predicate))


@pytest.mark.parametrize("engine", ["in-memory", "streaming"])
def test_queries_that_polars_keeps_to_itself_are_right(url, engine):
    table, lazy = expected_frame(url), rd.scan_zarr(url)
    for ask in (
        lambda t: t.filter(c.lat > c.lat.max() - 20).sort("time", "lat", "lon"),
        lambda t: t.group_by("lat").agg(c.t2m.max(), c.sst.min()).sort("lat"),
        lambda t: t.tail(7),
        lambda t: t.slice(1000, 5),
        lambda t: t.filter(c.lat == 82.5, c.lon == 0).with_columns(change=c.t2m.diff()),
        lambda t: t.select((c.t2m - c.sst).alias("d"), "time").filter(c.d > 25),
        lambda t: t.filter(c.lon > 350).select("time", "lon"),
    ):
        assert_frame_equal(ask(lazy).collect(engine=engine), ask(table.lazy()).collect())


def test_a_scan_reused_in_one_query_is_right(url):
    lazy, table = rd.scan_zarr(url), expected_frame(url)

    def anomaly(t):
        mean = t.group_by("lat", "lon").agg(c.t2m.mean().alias("mean"))
        return (
            t.filter(c.lat > 60).join(mean, on=["lat", "lon"]).select("time", "lat", "lon", (c.t2m - c.mean).alias("a"))
        )

    assert_frame_equal(anomaly(lazy).collect(), anomaly(table.lazy()).collect(), check_row_order=False)


def test_a_rewritten_store_is_seen_by_a_new_scan(tmp_path):
    path = str(tmp_path / "a.zarr")
    for start in (0.0, 100.0):
        xr.Dataset({"v": ("x", np.arange(4.0))}, {"x": np.arange(4.0) + start}).to_zarr(
            path, mode="w", consolidated=False
        )
        assert rd.scan_zarr(path).select("x").collect()["x"].to_list() == [start, start + 1, start + 2, start + 3]


def test_a_scan_pickles(url):
    lazy = rd.scan_zarr(url).filter(c.lat > 45)
    assert_frame_equal(pickle.loads(pickle.dumps(lazy)).collect(), lazy.collect())


# ---------------------------------------------------------------------- what goes wrong


@pytest.fixture
def damaged(url, tmp_path) -> str:
    """A copy of the store in which one chunk is noise."""
    path = tmp_path / "damaged.zarr"
    shutil.copytree(url, path)
    (path / "t2m" / "c" / "1" / "2" / "3").write_bytes(b"not a chunk")
    return str(path)


def test_a_damaged_chunk_is_named(damaged):
    with pytest.raises(ChunkReadError) as caught:
        rd.scan_zarr(damaged).collect()
    for word in ("t2m", "(1, 2, 3)", "damaged.zarr"):
        assert word in str(caught.value)
    assert rd.scan_zarr(damaged).filter(c.lat > 0).collect().height == 48 * 6 * 20  # the others are still there


def test_a_store_that_is_not_there(tmp_path):
    with pytest.raises(StoreNotFoundError, match=r"no-such\.zarr"):
        rd.scan_zarr(str(tmp_path / "no-such.zarr"))


def test_an_unknown_variable_is_named_with_the_nearest(url):
    with pytest.raises(UnknownColumnError, match=r"'t2n'.*Did you mean 't2m'") as caught:
        rd.scan_zarr(url, variables=["t2n"])
    assert isinstance(caught.value, KeyError)


def test_an_unknown_column_in_a_query_is_polars_own_error(url):
    with pytest.raises(ColumnNotFoundError, match="nope"):
        rd.scan_zarr(url).filter(c.nope > 1).collect()


@pytest.mark.parametrize("predicate", [c.lat + 1, c.lat.cast(pl.String)])
def test_a_filter_that_is_not_boolean_is_refused(url, predicate):
    with pytest.raises((ComputeError, RainbearError, pl.exceptions.InvalidOperationError), match=r"(?i)boolean"):
        rd.scan_zarr(url).filter(predicate).collect()


def test_over_the_limit_of_chunks_nothing_is_read(counted):
    with pytest.raises(PlanTooLargeError, match="max_chunks_to_read exceeded: 24 chunks needed, limit is 5"):
        rd.scan_zarr(counted, max_chunks_to_read=5).collect()
    assert not counted.chunks("t2m")
    assert rd.scan_zarr(counted, max_chunks_to_read=5).filter(c.lat == 82.5, c.lon == 0).collect().height == 48


def test_large_frames_are_handed_on_in_pieces(tmp_path):
    """All of it is one task, and so one frame of 160 MiB."""
    zarr.create_array(
        tmp_path / "flat.zarr", name="v", shape=(8, 2**20), chunks=(8, 2**20), dtype="f4", dimension_names=("x", "y")
    )
    assert rd.plan(tmp_path / "flat.zarr").num_tasks == 1
    whole = rd.scan_zarr(tmp_path / "flat.zarr").collect()
    sizes = [len(chunk) * whole.estimated_size() / whole.height for chunk in whole["v"].get_chunks()]
    assert 2**24 < max(sizes) <= 2**25
    assert whole["x"].to_numpy().tobytes() == np.repeat(np.arange(8), 2**20).tobytes()
