"""Settings: their defaults, the places to set them, and the messages about wrong values."""

import os
import subprocess
import sys

import dask
import polars as pl
import pytest
from distributed import LocalCluster

import rainbear_dask as rd
from rainbear_dask.chunks import cache as values_cache
from rainbear_dask.exceptions import SettingError
from rainbear_dask.plugin import WorkerSettings
from rainbear_dask.resources.settings import DEFAULTS, num_bytes, num_threads
from tests.support.stores import write_field

MB = 2**20


@pytest.fixture(scope="module")
def url(tmp_path_factory) -> str:
    path = str(tmp_path_factory.mktemp("configuration") / "field.zarr")
    write_field(path, chunks=(2, 12, 20))
    return path


def test_the_defaults():
    assert dask.config.get("rainbear-dask") == DEFAULTS
    assert {name: num_bytes(name) for name in DEFAULTS if name.endswith("-bytes")} == {
        "cache-bytes": 512 * MB,
        "task-bytes": 64 * MB,
        "in-flight-bytes": 512 * MB,
        "small-plan-bytes": 16 * MB,
        "text-chunk-bytes": 32 * MB,
    }
    assert num_threads() == len(os.sched_getaffinity(0))


@pytest.mark.parametrize(("name", "value"), [("cache-bytes", "a lot"), ("task-bytes", None), ("in-flight-bytes", -1)])
def test_a_wrong_number_of_bytes_is_named(name, value):
    with dask.config.set({f"rainbear-dask.{name}": value}), pytest.raises(SettingError, match=f"{name}.*'64MiB'"):
        num_bytes(name)


@pytest.mark.parametrize("value", [0, -1, "two"])
def test_a_wrong_number_of_threads_is_named(url, value):
    with dask.config.set({"rainbear-dask.threads": value}), pytest.raises(SettingError, match="threads"):
        rd.scan_zarr(url).collect()


def test_task_bytes_cut_a_plan_into_more_tasks(url):
    with dask.config.set({"rainbear-dask.task-bytes": 1}):
        assert rd.plan(url).num_tasks == 24
    assert rd.plan(url).num_tasks == 1


def test_settings_of_a_block_that_began_before_the_first_scan_leave_the_defaults_behind(url):
    code = (
        "import dask, rainbear_dask as rd, sys\n"
        "with dask.config.set({'rainbear-dask.task-bytes': 1}): assert rd.plan(sys.argv[1]).num_tasks == 24\n"
        "assert rd.plan(sys.argv[1]).num_tasks == 1\n"
        "assert rd.scan_zarr(sys.argv[1]).collect().height == 48 * 12 * 20\n"
        "from rainbear_dask.cli.parser import main\n"
        "assert main(['scan', sys.argv[1], '--head', '1']) == 0\n"
        "from rainbear_dask.plugin import WorkerSettings\n"
        "from rainbear_dask.cluster import connect\n"
        "import distributed\n"
        "with distributed.LocalCluster(n_workers=1, processes=False, dashboard_address=None) as cluster:\n"
        "    with connect(cluster.scheduler_address) as client:\n"
        "        client.register_plugin(WorkerSettings(cache_bytes=0))\n"
        "        assert dask.config.get('rainbear-dask.cache-bytes') == 0\n"
    )
    subprocess.run([sys.executable, "-c", code, url], check=True)  # noqa: S603


def test_without_room_nothing_is_kept(url):
    meta = rd.ZarrBackendSync.from_url(url)
    with dask.config.set({"rainbear-dask.cache-bytes": 0}):
        meta.scan_zarr_sync(pl.col("lat") > 0)
        assert meta.cache_stats()["coord_entries"] == 0
    meta.scan_zarr_sync(pl.col("lat") > 0)
    assert meta.cache_stats()["coord_entries"] > 0


def test_the_environment_sets_it():
    environment = os.environ | {"DASK_RAINBEAR_DASK__CACHE_BYTES": "7MiB"}
    code = "from rainbear_dask.resources.settings import num_bytes; print(num_bytes('cache-bytes'))"
    output = subprocess.run([sys.executable, "-c", code], env=environment, capture_output=True, check=True, text=True)  # noqa: S603  our own code
    assert int(output.stdout) == 7 * MB


def test_there_are_no_other_settings():
    with pytest.raises(SettingError, match=r"'cache'.*cache-bytes"):
        WorkerSettings(cache="1GiB")


@pytest.mark.cluster
def test_a_plugin_sets_workers_that_are_there_and_workers_that_come(url):
    """Also to other settings later; and what it bounds is bounded."""
    with (
        LocalCluster(n_workers=1, threads_per_worker=1, dashboard_address=":0", memory_limit=None) as cluster,
        cluster.get_client() as client,
    ):
        client.register_plugin(WorkerSettings(cache_bytes="7MiB"))
        cluster.scale(2)
        client.wait_for_workers(2)
        assert set(client.run(num_bytes, "cache-bytes").values()) == {7 * MB}
        assert set(client.run(num_bytes, "task-bytes").values()) == {64 * MB}
        client.register_plugin(WorkerSettings(cache_bytes=0))
        assert set(client.run(num_bytes, "cache-bytes").values()) == {0}
        backend = rd.ZarrBackendSync.from_url(url)
        with dask.config.set({"rainbear-dask.small-plan-bytes": 0}):
            backend.scan_zarr_sync(pl.col("t2m") > 280)
        kept = client.run(values_cache.usage, backend.cached.opened.openings)
        assert [usage["coord_entries"] for usage in kept.values()] == [0, 0]
