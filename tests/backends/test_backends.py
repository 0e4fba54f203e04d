"""Backends and sources: the names that users of rainbear know, what is kept between scans, and what is not shown."""

import pickle
import warnings
from datetime import datetime
from pathlib import Path

import fsspec
import numpy as np
import polars as pl
import polars.selectors as cs
import pytest
import xarray as xr
import zarr
from polars.testing import assert_frame_equal
from zarr.codecs.numcodecs import BitRound
from zarr.storage import LocalStore, MemoryStore

import rainbear_dask as rd
from rainbear_dask.api.scan import plan
from rainbear_dask.exceptions import (
    PlanTooLargeError,
    PredicateError,
    QueryError,
    RainbearError,
    StoreError,
    StoreFormatError,
    StoreNotFoundError,
    UnknownColumnError,
)
from rainbear_dask.execution import columns
from rainbear_dask.execution.run import iter_frames
from tests.support.errors import caught
from tests.support.oracle import expected_frame
from tests.support.stores import TREE, CountingStore, write_tree

c = pl.col
SHAPE = {"time": 4, "lat": 8}


@pytest.fixture(scope="module")
def path(tmp_path_factory) -> str:
    """Two variables of 2 x 4 chunks, across the first of January and June 2024."""
    path = str(tmp_path_factory.mktemp("backends") / "dataset.zarr")
    values = {
        name: (tuple(SHAPE), np.random.default_rng(seed).normal(0, 1, tuple(SHAPE.values())))
        for seed, name in enumerate(["pressure", "temp"])
    }
    time = np.array(["2023-12-01", "2024-03-01", "2024-07-01", "2024-08-01"], dtype="M8[ns]")
    ds = xr.Dataset(values, {"time": time, "lat": np.arange(25.0, 65, 5)})
    ds.to_zarr(path, encoding={name: {"chunks": (2, 2)} for name in ds}, zarr_format=3, consolidated=False)
    return path


@pytest.fixture
def counted(path) -> CountingStore:
    return CountingStore(LocalStore(path, read_only=True))


@pytest.fixture
def backend(path) -> rd.ZarrBackendSync:
    return rd.ZarrBackendSync.from_url(path)


# ---------------------------------------------------------------------- the examples of rainbear's README


def test_readme_of_scan_zarr(path):
    lf = rd.scan_zarr(path)
    lf = lf.filter((pl.col("lat") >= 32.0) & (pl.col("lat") <= 52.0))
    df = lf.collect()
    assert_frame_equal(df, expected_frame(path).filter(c.lat.is_between(32, 52)))


def test_readme_of_the_synchronous_backend(path):
    backend = rd.ZarrBackendSync.from_url(path)
    df1 = backend.scan_zarr_sync(
        predicate=pl.col("time") > datetime(2024, 1, 1), with_columns=["temp", "pressure"], n_rows=10
    )
    df2 = backend.scan_zarr_sync(pl.col("time") > datetime(2024, 6, 1))
    stats = backend.cache_stats()
    assert stats["coord_entries"] > 0
    backend.clear_coord_cache()
    assert backend.cache_stats()["coord_entries"] == 0

    table = expected_frame(path)
    assert_frame_equal(df1, table.filter(c.time > datetime(2024, 1, 1)).select("temp", "pressure").head(10))
    assert_frame_equal(df2, table.filter(c.time > datetime(2024, 6, 1)))


def test_readme_of_the_versions():
    assert f"polars {pl.__version__}" in rd.print_extension_info()
    assert "\n" not in rd.print_extension_info()


# ---------------------------------------------------------------------- what a predicate is taken for


def northern(latitude: float) -> bool:
    return latitude > max(40, 0)


FILTERS = [
    c.lat > 40,
    (c.lat > 40) & (c.temp > 0),
    c.time.dt.month() == 7,
    pl.any_horizontal(cs.by_name("temp", "pressure") > 1),
    c.lat.map_elements(northern, return_dtype=pl.Boolean),
    c.lat.is_in([]),
    (c.lat > 40) | pl.lit(value=True),
    pl.lit(value=True),
    pl.lit(value=False),
    pl.lit(None),
    c.temp > c.temp.mean(),
    (c.temp.rank() < 4).alias("low"),
]
SELECTED = [
    pl.col(["temp", "lat"]).filter(c.lat > 40),
    c.temp.mean(),
    c.temp.filter(c.lat > 40).sum() + c.pressure.filter(c.lat < 30).max(),
    (c.temp > 0).filter(c.lat > 40),
    c.temp.cum_sum().filter(c.lat > 40),
    c.temp.filter(c.temp > c.temp.mean()),
    c.temp.max() > 3,
    pl.when(c.lat > 40).then(c.temp),
    pl.struct("lat", "temp"),
    cs.by_name("temp", "pressure") > 0,
    c.temp.get(3),
    pl.len(),
    pl.len() > 5,
    pl.lit(1),
    c.temp.filter(c.lat > 100).sum(),
]


@pytest.mark.parametrize("predicate", FILTERS, ids=str)
def test_one_boolean_for_each_row_filters(path, backend, predicate):
    expected = expected_frame(path).filter(predicate.cast(pl.Boolean))
    assert_frame_equal(backend.scan_zarr_sync(predicate), expected, check_row_order=False)
    assert_frame_equal(
        backend.scan_zarr_sync(predicate, ["temp", "time"]), expected.select("temp", "time"), check_row_order=False
    )


@pytest.mark.parametrize("predicate", SELECTED, ids=str)
def test_any_other_expression_is_selected(path, backend, predicate):
    expected = rd.scan_zarr(path).collect().select(predicate)
    assert_frame_equal(backend.scan_zarr_sync(predicate), expected, check_row_order=False)


@pytest.mark.parametrize(
    ("predicate", "temp", "pressure"),
    [
        (c.lat >= 55, 2 * 1, 2 * 1),
        (c.temp.filter(c.lat >= 55).sum(), 2, 0),
        (pl.col(["temp", "pressure"]).filter(c.lat >= 55), 2, 2),
        (c.temp.filter(c.lat >= 55).sum() + c.temp.filter(c.lat < 35).sum(), 4, 0),
        (c.temp.filter(c.lat >= 55).sum() / c.temp.sum(), 8, 0),
        (c.temp.cum_sum().filter(c.lat >= 55), 8, 0),
        (c.temp.filter(c.temp.rank() > 3), 8, 0),
        (c.temp.filter(c.lat >= 55).sum() + pl.len(), 8, 0),
        (c.temp.mean(), 8, 0),
        (c.lat.max(), 0, 0),
        (pl.lit(1), 0, 0),
    ],
    ids=str,
)
def test_only_what_an_expression_can_see_is_read(counted, predicate, temp, pressure):
    rd.ZarrBackendSync.from_store(counted).scan_zarr_sync(predicate)
    assert (len(counted.chunks("temp")), len(counted.chunks("pressure"))) == (temp, pressure)


# ---------------------------------------------------------------------- arguments


def test_no_predicate_gives_all(path, backend):
    assert_frame_equal(backend.scan_zarr_sync(), expected_frame(path))


def test_n_rows_counts_rows_that_pass_and_reads_no_more(tmp_path):
    values = np.arange(8 * 2**19, dtype="f8").reshape(8, -1)  # a chunk of 4 MiB is a task of its own
    xr.Dataset({"v": (("x", "y"), values)}).to_zarr(
        tmp_path / "s.zarr", encoding={"v": {"chunks": (1, 2**19)}}, zarr_format=3, consolidated=False
    )
    counted = CountingStore(LocalStore(tmp_path / "s.zarr"))
    backend = rd.ZarrBackendSync.from_store(counted)
    assert backend.scan_zarr_sync(c.v % 2 == 1, n_rows=3)["v"].to_list() == [1, 3, 5]
    assert len(counted.chunks("v")) < 8
    assert backend.scan_zarr_sync(c.v % 2 == 1, n_rows=0).height == 0
    assert backend.scan_zarr_sync(c.v.filter(c.v < 5), n_rows=2)["v"].to_list() == [0, 1]


def test_batch_size_bounds_streamed_frames(path, backend):
    frames = list(backend.scan_zarr_streaming_sync(c.lat > 40, ["temp", "lat"], None, 11, 4))
    assert max(frame.height for frame in frames) == 4
    assert sum(frame.height for frame in frames) == 11
    assert_frame_equal(pl.concat(frames), backend.scan_zarr_sync(c.lat > 40, ["temp", "lat"]).head(11))


def test_a_stream_of_something_selected_and_of_nothing(backend):
    assert [frame.item() for frame in backend.scan_zarr_streaming_sync(pl.len())] == [32]
    assert list(backend.scan_zarr_streaming_sync(c.lat > 100)) == []


def test_a_variable_of_a_child_group_is_named_by_its_path(tmp_path):
    write_tree(tmp_path, zarr_format=3, consolidated=False)
    backend = rd.ZarrBackendSync.from_url(tmp_path)
    actual = backend.scan_zarr_sync(c.x > 10, with_columns=["model/run/t", "x"])
    assert actual.columns == ["model", "x"]
    assert actual["model"].struct.field("run").struct.field("t").to_list() == TREE.t.values[:, 1:].ravel().tolist()


def test_over_the_limit_of_chunks_nothing_is_read(counted):
    backend = rd.ZarrBackendSync.from_store(counted)
    for ask in (backend.scan_zarr_sync, backend.scan_zarr_streaming_sync):
        with pytest.raises(PlanTooLargeError, match="max_chunks_to_read exceeded: 8 chunks needed, limit is 5"):
            ask(c.temp > 0, max_chunks_to_read=5)
    assert not counted.chunks("temp")
    assert backend.scan_zarr_sync(c.lat > 55, max_chunks_to_read=5).height == 4


def test_questions_that_cannot_be_asked(backend):
    caught(PredicateError, lambda: backend.scan_zarr_sync("lat > 3"), "str", "pl.col")
    caught(UnknownColumnError, lambda: backend.scan_zarr_sync(c.lta > 3), "'lta'", "Did you mean 'lat'")
    caught(KeyError, lambda: backend.scan_zarr_sync(c.lat > 3, ["tmep"]), "'tmep'", "'temp'?")
    caught(QueryError, lambda: backend.scan_zarr_sync(c.temp.mean(), ["temp"]), "with_columns")


def test_schema(path, backend):
    assert backend.schema() == dict(expected_frame(path).schema)
    assert list(backend.schema(["temp"])) == ["time", "lat", "temp"]


def test_root(path):
    assert rd.ZarrBackend.from_url(path).root() == "/"
    assert rd.ZarrBackend.from_store(MemoryStore(), prefix="/a/b").root() == "/a/b"


def test_selected_chunks_debug(backend):
    chosen = backend.selected_chunks_debug((c.lat == 40) & (c.time > datetime(2024, 6, 1)))
    assert chosen["grids"] == [
        {
            "dims": ["time", "lat"],
            "variables": ["pressure", "temp"],
            "chunks": [{"indices": [1, 1], "origin": [2, 2], "shape": [2, 2], "shards": []}],
        }
    ]
    (grid,) = backend.selected_chunks_debug(pl.when(c.lat >= 55).then(c.temp))["grids"]
    assert (grid["variables"], len(grid["chunks"])) == (["temp"], 2)
    assert backend.selected_chunks_debug(pl.lit(value=False))["grids"] == []


def test_options_are_shown_and_cannot_be_changed():
    options = rd.BackendOptions(coord_cache_max_entries=7, assume_sorted=True)
    assert (options.coord_cache_max_entries, options.var_cache_max_entries, options.assume_sorted) == (7, 4096, True)
    assert "coord_cache_max_entries=7" in repr(options)
    with pytest.raises(AttributeError):
        options.coord_cache_max_entries = 8
    with pytest.raises(TypeError):
        rd.BackendOptions(7)


# ---------------------------------------------------------------------- what is kept


def coordinate_requests(counted: CountingStore) -> int:
    return sum(count for key, count in counted.requests.items() if key.startswith(("lat/", "time/")))


def test_the_second_scan_asks_for_no_metadata_and_for_no_coordinate(counted):
    backend = rd.ZarrBackendSync.from_store(counted)
    backend.scan_zarr_sync((c.lat > 40) & (c.time > datetime(2024, 1, 1)))
    assert coordinate_requests(counted) > 0
    counted.requests.clear()
    backend.scan_zarr_sync((c.lat > 55) & (c.time < datetime(2024, 6, 1)))
    rd.scan_zarr(backend).filter(c.lat < 30).collect()
    pickle.loads(pickle.dumps(rd.ZarrBackendSync.from_url("/nowhere")))
    assert set(counted.requests) == counted.chunks("temp") | counted.chunks("pressure")
    stats = backend.cache_stats()
    assert (stats["coord_entries"], stats["var_entries"], stats["has_metadata"]) == (2, 0, True)
    assert stats["bytes"] > 8 * 12
    assert stats["misses"] == 2 < stats["hits"]


def test_variables_of_fewer_dimensions_are_kept_too(tmp_path):
    write_tree(tmp_path, zarr_format=3, consolidated=False)
    backend = rd.ZarrBackendSync.from_url(tmp_path)
    assert not backend.cache_stats()["has_metadata"]
    backend.scan_zarr_sync()
    assert backend.cache_stats()["var_entries"] > 0


@pytest.fixture
def wide(tmp_path) -> CountingStore:
    """Two variables of 2 x 3 chunks of 8 x 8."""
    values = np.random.default_rng(0).normal(0, 1, (16, 24))
    coords = {"y": np.arange(16), "x": np.arange(24)}
    ds = xr.Dataset({name: (("y", "x"), values + number) for number, name in enumerate("ab")}, coords)
    ds.to_zarr(tmp_path / "wide.zarr", encoding={n: {"chunks": (8, 8)} for n in "ab"}, zarr_format=3)
    return CountingStore(LocalStore(tmp_path / "wide.zarr", read_only=True))


def test_another_point_of_a_chunk_is_answered_from_what_is_kept(wide):
    backend = rd.ZarrBackendSync.from_store(wide)
    table = rd.scan_zarr(wide).collect()
    backend.scan_zarr_sync((c.y == 3) & (c.x == 4))
    wide.requests.clear()
    for ask in (backend.scan_zarr_sync, lambda p: rd.scan_zarr(backend).filter(p).collect()):
        assert_frame_equal(ask((c.y == 7) & (c.x < 2)), table.filter((c.y == 7) & (c.x < 2)))
    assert not wide.requests
    backend.scan_zarr_sync((c.y == 3) & (c.x == 12))
    assert wide.requests == {"a/c/0/1": 1, "b/c/0/1": 1}
    assert backend.cache_stats()["var_entries"] == 4
    backend.clear_coord_cache()
    assert backend.cache_stats()["var_entries"] == 0


@pytest.mark.parametrize("question", [c.y < 3, None, (c.y == 3) & (c.x < 8)], ids=str)
def test_chunks_of_which_much_is_wanted_are_not_kept(wide, question):
    backend = rd.ZarrBackendSync.from_store(wide)
    backend.scan_zarr_sync(question)
    assert backend.cache_stats()["var_entries"] == 0


def test_chunks_of_a_large_task_are_not_kept(wide, monkeypatch):
    monkeypatch.setattr(columns, "MAX_CACHED_CHUNK_BYTES", 2 * 8 * 8 * 8 - 1)
    backend = rd.ZarrBackendSync.from_store(wide)
    backend.scan_zarr_sync((c.y == 3) & (c.x == 4))
    assert backend.cache_stats()["var_entries"] == 0
    backend.scan_zarr_sync((c.y == 3) & (c.x == 4), ["a"])
    assert backend.cache_stats()["var_entries"] == 1


@pytest.mark.parametrize("most", [0, 3])
def test_no_more_chunks_are_kept_than_the_options_say(wide, most):
    backend = rd.ZarrBackendSync.from_store(wide, options=rd.BackendOptions(var_cache_max_entries=most))
    for x in (0, 8, 16):
        backend.scan_zarr_sync((c.y == 3) & (c.x == x))
    assert backend.cache_stats()["var_entries"] == most


def test_a_scan_without_a_backend_keeps_no_chunk(wide):
    lf = rd.scan_zarr(wide).filter((c.y == 3) & (c.x == 4))
    for _ in range(2):
        wide.requests.clear()
        lf.collect()
        assert wide.chunks("a") | wide.chunks("b") == {"a/c/0/0", "b/c/0/0"}


def test_no_more_pieces_are_kept_than_the_options_say(tmp_path):
    xr.Dataset({"v": ("x", np.zeros(4))}, {name: ("x", np.arange(4)) for name in "abcde"}).to_zarr(
        tmp_path, zarr_format=3, consolidated=False
    )
    for most in (0, 2):
        backend = rd.ZarrBackendSync.from_url(tmp_path, rd.BackendOptions(coord_cache_max_entries=most))
        assert backend.scan_zarr_sync((c.a > 0) & (c.b > 0) & (c.e < 3)).height == 2
        assert backend.cache_stats()["coord_entries"] == most


def test_cleared_coordinates_are_read_again_and_metadata_is_not(counted):
    backend = rd.ZarrBackendSync.from_store(counted)
    backend.scan_zarr_sync(c.lat > 40)
    other = rd.ZarrBackendSync.from_store(counted)
    other.scan_zarr_sync(c.lat > 40)
    backend.clear_coord_cache()
    stats = backend.cache_stats()
    assert (stats["coord_entries"], stats["bytes"], stats["has_metadata"]) == (0, 0, True)
    assert other.cache_stats()["coord_entries"] > 0
    counted.requests.clear()
    backend.scan_zarr_sync(c.lat > 40)
    assert coordinate_requests(counted) > 0
    assert not any(key.endswith("zarr.json") for key in counted.requests)


def test_after_all_caches_are_cleared_a_changed_store_is_seen(tmp_path):
    def write(start):
        xr.Dataset({"v": ("x", np.arange(3.0))}, {"x": np.arange(3) + start}).to_zarr(
            tmp_path, mode="w", consolidated=False
        )

    write(0)
    backend = rd.ZarrBackendSync.from_url(tmp_path)
    assert backend.scan_zarr_sync()["x"].to_list() == [0, 1, 2]
    write(10)
    backend.clear_all_caches()
    assert not backend.cache_stats()["has_metadata"]
    assert backend.scan_zarr_sync()["x"].to_list() == [10, 11, 12]


@pytest.mark.cluster
def test_workers_keep_coordinates_and_clear_them(path, client):
    backend = rd.ZarrBackendSync.from_url(path)
    for _ in range(2):
        assert_frame_equal(
            backend.scan_zarr_sync(c.lat > 40), expected_frame(path).filter(c.lat > 40), check_row_order=False
        )
    workers = backend.cache_stats()["workers"]
    assert set(workers) == set(client.nthreads())
    assert sum(worker["coord_entries"] for worker in workers.values()) > 0
    backend.clear_all_caches()
    assert all(worker["coord_entries"] == 0 for worker in backend.cache_stats()["workers"].values())


# ---------------------------------------------------------------------- sources


def test_every_kind_of_source(path, tmp_path):
    folder, name = str(Path(path).parent), Path(path).name
    memory = fsspec.filesystem("memory")
    memory.put(path, "/test_backends", recursive=True)
    expected = expected_frame(path)
    for source, prefix in [
        (path, None),
        (Path(path), None),
        (folder, name),
        (f"file://{path}", None),
        ("memory://test_backends", None),
        (fsspec.get_mapper("memory://test_backends"), None),
        (LocalStore(path), None),
        (LocalStore(folder), name),
        (rd.store.LocalStore(), path),
        (rd.store.LocalStore(path), None),
        (rd.store.LocalStore(folder), name),
        (rd.store.from_url(f"file://{path}"), None),
        (rd.ZarrBackend.from_url(path), None),
        (rd.ZarrBackendSync.from_store(folder, name), None),
    ]:
        assert_frame_equal(rd.scan_zarr(source, prefix=prefix).collect(), expected)
        if not isinstance(source, rd.ZarrBackend | rd.ZarrBackendSync):
            for kind in (rd.ZarrBackend, rd.ZarrBackendSync):
                backend = pickle.loads(pickle.dumps(kind.from_store(source, prefix)))
                assert_frame_equal(rd.scan_zarr(backend).collect(), expected)
    memory.rm("/test_backends", recursive=True)


def test_an_obstore_store_in_memory(path):
    store = rd.store.MemoryStore()
    for file in Path(path).rglob("*"):
        if file.is_file():
            store.put(f"in/side/{file.relative_to(path)}", file.read_bytes())
    backend = rd.ZarrBackendSync.from_store(store, prefix="in/side")
    assert_frame_equal(backend.scan_zarr_sync(), expected_frame(path))
    assert "chunks" in rd.explain(rd.scan_zarr(backend))
    caught(StoreError, lambda: pickle.dumps(backend), "memory of this process")


@pytest.mark.cluster
def test_what_lives_in_memory_does_not_travel_and_says_so(client):
    memory = fsspec.filesystem("memory")
    for store in (zarr_in(MemoryStore()), zarr_in("memory://test_travel"), zarr_in(rd.store.MemoryStore())):
        caught(StoreError, lambda store=store: rd.scan_zarr(store).collect(), "memory of this process", "cluster")
    memory.rm("/test_travel", recursive=True)


def zarr_in(store):
    inside = zarr.storage.ObjectStore(store) if isinstance(store, rd.store.MemoryStore) else store
    zarr.open_group(inside, mode="w").create_array("a", shape=(2,), dtype="i4")[:] = 1
    return store


@pytest.mark.cluster
def test_a_store_that_a_worker_does_not_find_is_an_error_and_no_fill_value(path, tmp_path, client):
    here_only = tmp_path / "here.zarr"
    here_only.symlink_to(path)
    tasks = list(plan(str(here_only)).tasks())
    here_only.unlink()
    with pytest.raises(StoreNotFoundError, match=r"here\.zarr"):
        list(iter_frames(tasks, client))


def test_what_is_no_source():
    for kind in (rd.ZarrBackend, rd.ZarrBackendSync):
        caught(StoreFormatError, lambda kind=kind: kind.from_store(3), "int", "obstore")


def test_obstores_constructors():
    for name in rd.store.__all__:
        assert callable(getattr(rd.store, name))
    with pytest.raises(AttributeError, match="NoStore"):
        _ = rd.store.NoStore


def test_without_obstore_the_error_names_the_extra(monkeypatch):
    monkeypatch.setitem(__import__("sys").modules, "obstore.store", None)
    caught(RainbearError, lambda: rd.store.S3Store, "rainbear-dask[obstore]")


def test_codecs_under_other_names(tmp_path):
    group = zarr.open_group(tmp_path, mode="w")
    with warnings.catch_warnings(action="ignore"):
        group.create_array("a", shape=(4,), dtype="f4", filters=[BitRound(keepbits=10)])[:] = [1, 2, 3, 4]
    document = tmp_path / "a" / "zarr.json"
    document.write_text(document.read_text().replace("numcodecs.bitround", "my_rounding"))
    try:
        for name in ("bitround", "numcodecs.bitround"):
            rd.configure_zarr_codecs(aliases={"my_rounding": name})
            assert rd.scan_zarr(tmp_path).collect()["a"].to_list() == [1, 2, 3, 4]
        caught(QueryError, lambda: rd.configure_zarr_codecs(aliases={"my_rounding": "nothing"}), "'nothing'")
    finally:
        rd.configure_zarr_codecs()
    with pytest.warns(UserWarning, match="my_rounding"):
        assert "a" not in rd.scan_zarr(tmp_path).collect_schema()
