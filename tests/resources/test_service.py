"""A long-running service: many small scans of changing stores leave nothing unreachable in memory."""

import base64
import gc
import json
import os
import pickle
import shutil
import subprocess
import sys
import tracemalloc
import zipfile
from pathlib import Path

import dask
import numpy as np
import polars as pl
import pytest
import zarr

import rainbear_dask as rd
from rainbear_dask.chunks import cache as values_cache
from rainbear_dask.chunks import fetch, pipeline, remote
from rainbear_dask.chunks import read as storage
from rainbear_dask.resources import openings
from rainbear_dask.storage import connect, credentials, stores

c = pl.col


def write(path, number):
    """A store of a few rows, whose documents are new each time."""
    shutil.rmtree(path, ignore_errors=True)
    group = zarr.open_group(path, mode="w", zarr_format=3)
    length = 4 + 2 * (number % 3)
    for name in ("v", "y"):
        values = np.arange(length) + float(number)
        group.create_array(
            name, data=values, chunks=(2,), dimension_names=["y"], attributes={"run": number}, shards=(length,)
        )
    names = group.create_array("name", shape=(length,), chunks=(2,), dtype=str, dimension_names=["y"])
    names[:] = np.array([f"{number} {n}" for n in range(length)], dtype=object)
    return length


def write_zip(path, number):
    length = write(f"{path}.d", number)
    with zipfile.ZipFile(path, "w") as archive:
        for each in Path(f"{path}.d").rglob("*"):
            if each.is_file():
                archive.write(each, each.relative_to(f"{path}.d"))
    return length


def write_references(path, number):
    array = {"zarr_format": 2, "shape": [2], "chunks": [2], "dtype": "<f8", "compressor": None, "filters": None}
    array |= {"fill_value": None, "order": "C"}
    chunk = base64.b64encode(np.array([number, number + 1.0]).tobytes()).decode()
    found = {".zgroup": '{"zarr_format": 2}', "y/.zarray": json.dumps(array), "y/0": f"base64:{chunk}"}
    found["y/.zattrs"] = json.dumps({"_ARRAY_DIMENSIONS": ["y"], "run": number})
    Path(path).write_text(json.dumps({"version": 1, "refs": found}))
    return 2


def scan(path, number):
    length = write(path, number)
    return rd.scan_zarr(path).filter(c.y > number).collect(), length


def scan_travelled(path, number):
    length = write(path, number)
    return pickle.loads(pickle.dumps(rd.scan_zarr(path))).filter(c.y > number).collect(), length


def scan_zip(path, number):
    length = write_zip(path, number)
    return rd.scan_zarr(path).filter(c.y > number).collect(), length


def scan_zip_by_fsspec(path, number):
    length = write_zip(path, number)
    return rd.scan_zarr(f"zip://::file://{path}").filter(c.y > number).collect(), length


def scan_references(path, number):
    length = write_references(path, number)
    options = {"fo": path, "remote_protocol": "file"}
    return rd.scan_zarr("reference://", storage_options=options).filter(c.y > number).collect(), length


def ask_backend(path, number):
    length = write(path, number)
    backend = rd.ZarrBackendSync.from_url(path)
    backend.scan_zarr_sync(c.y == number)
    return pickle.loads(pickle.dumps(backend)).scan_zarr_sync(c.y > number), length


def run_plan(path, number):
    length = write(path, number)
    plan = rd.plan(path, c.y > number)
    str(plan.explain())
    return pl.concat(dask.compute(*plan.to_delayed(), scheduler="threads")), length


def run_dask_dataframe(path, number):
    length = write(path, number)
    frame = rd.read_zarr(path, categories=["y"])
    return pl.from_pandas(frame[frame.y > number].compute(scheduler="threads")), length


KINDS = [
    scan,
    scan_travelled,
    scan_zip,
    scan_zip_by_fsspec,
    scan_references,
    ask_backend,
    run_plan,
    run_dask_dataframe,
]


def by_opening() -> int:
    """Bytes, and connections, that are kept for openings."""
    kept = (values_cache.CACHE, stores._stores, pipeline._arrays, connect._indexed_stores, credentials._sealed)
    return sum(each.bytes for each in kept)


@pytest.fixture
def quiet(monkeypatch):
    """A process in which nothing is kept yet, and to which nothing has come."""
    monkeypatch.setattr(openings, "_arrived", openings.OrderedDict())
    gc.collect()
    storage.disconnect()
    values_cache.CACHE.clear()


@pytest.mark.usefixtures("quiet")
@pytest.mark.parametrize("ask", KINDS)
def test_nothing_is_kept_of_openings_that_nobody_can_reach(ask, tmp_path):
    before = by_opening()  # other tests may hold what they opened
    for number in range(3):
        frame, length = ask(str(tmp_path / "store"), number)
        assert frame.height == length - 1
    openings._arrived.clear()  # what came by pickle stays until others have come
    gc.collect()
    assert by_opening() <= before


@pytest.mark.usefixtures("quiet")
def test_what_can_still_be_asked_for_is_kept(tmp_path):
    write(str(tmp_path / "store"), 0)
    holders = {
        "scan": rd.scan_zarr(str(tmp_path / "store")).filter(c.y > 0),
        "backend": rd.ZarrBackendSync.from_url(str(tmp_path / "store")),
        "plan": rd.plan(str(tmp_path / "store"), c.y > 0),
    }
    holders["scan"].collect()
    holders["backend"].scan_zarr_sync(c.y > 0)
    holders["plan"].collect()
    for name in list(holders):
        gc.collect()
        before = values_cache.CACHE.bytes
        assert before > 0
        del holders[name]
        gc.collect()
        assert values_cache.CACHE.bytes < before
    assert values_cache.CACHE.bytes == 0


def bytes_of_a_scan(folder: str) -> float:
    """What each of many scans leaves behind in this process, when the first few are over."""
    openings.MAX_ARRIVED = 4

    def work(first, count):
        for number in range(first, first + count):
            frame, length = KINDS[number % 6](f"{folder}/store{number % 6}", number)
            assert frame.height == length - 1

    def left():
        storage.disconnect()
        gc.collect()
        return tracemalloc.get_traced_memory()[0]

    work(0, 36)
    tracemalloc.start()
    work(36, 48)
    before = left()
    work(84, 120)
    return (left() - before) / 120


def test_many_scans_of_changing_stores_take_no_more_memory(tmp_path):
    """Less than a kilobyte for each, in a process without the threads of other tests; what is kept by content is bounded."""
    script = f"from tests.resources.test_service import bytes_of_a_scan; print(bytes_of_a_scan({str(tmp_path)!r}))"
    environment = os.environ | {"PYTHONPATH": str(Path(__file__).parents[2])}
    done = subprocess.run(  # noqa: S603  our own script
        [sys.executable, "-W", "ignore", "-c", script], check=True, capture_output=True, text=True, env=environment
    )
    assert float(done.stdout) < 1000


def test_caches_that_are_kept_by_content_are_bounded_by_bytes(tmp_path, monkeypatch):
    from rainbear_dask.chunks import array as chunks  # noqa: PLC0415
    from rainbear_dask.metadata import zarr_arrays as documents  # noqa: PLC0415

    kept = [documents.array_metadata.answers, chunks.chunked_array.answers]
    for each in kept:
        monkeypatch.setattr(each, "_max_bytes", lambda: 100_000)
        each.clear()
    for number in range(10):
        scan(str(tmp_path / "store"), number)
    assert all(0 < each.bytes <= 100_000 for each in kept)


def test_shard_indexes_are_bounded_by_bytes_and_go_with_their_opening(monkeypatch):
    store = zarr.storage.ObjectStore(rd.store.MemoryStore())
    group = zarr.open_group(store, mode="w", zarr_format=3)
    group.create_array("v", data=np.arange(400.0), chunks=(2,), shards=(20,), dimension_names=["x"])
    monkeypatch.setattr(fetch, "MAX_CACHED_INDEX_BYTES", 50_000)
    monkeypatch.setattr(remote, "_SMALL_SHARD_BYTES", 0)  # else they would be read whole
    lf = rd.scan_zarr(store)
    for first in range(0, 400, 20):
        assert lf.filter(c.x == first).collect()["v"].to_list() == [float(first)]
    assert 0 < fetch._indexes.bytes <= 50_000
    opening_id = {key[0] for key in fetch._indexes._kept}
    del lf
    gc.collect()
    rd.scan_zarr(store).filter(c.x == 3).collect()
    assert not opening_id & {key[0] for key in fetch._indexes._kept}
