"""A client by the name of its cluster: processes of this machine, addresses, and what is said where there is none."""

import asyncio
import json
import os
import signal

import dask
import polars as pl
import pytest
from distributed import LocalCluster, Scheduler

import rainbear_dask as rd
from rainbear_dask.cluster import connect
from rainbear_dask.exceptions import ClusterError
from rainbear_dask.execution.plugins import register
from rainbear_dask.plugin import WorkerSettings
from tests.support.errors import caught
from tests.support.stores import write_field

LOCAL = pytest.mark.cluster


@LOCAL
def test_a_cluster_of_this_machine_is_the_active_one_and_ends_with_its_client(tmp_path):
    write_field(str(tmp_path / "field.zarr"))
    with (
        dask.config.set({"rainbear-dask.cache-bytes": "1MiB", "rainbear-dask.small-plan-bytes": 0}),
        connect("local", workers=2) as client,
    ):
        warm = rd.scan_zarr(tmp_path / "field.zarr").filter(pl.col("t2m") > 290).collect()
        assert client.run_on_scheduler(
            lambda dask_scheduler: any("scan-zarr" in p for p in dask_scheduler.task_prefixes)
        )
        settings = client.run(lambda: dask.config.get("rainbear-dask.cache-bytes"))
        assert list(settings.values()) == ["1MiB"] * 2
        address = client.scheduler.address
    assert warm.height > 0
    caught(ClusterError, lambda: connect(address, timeout="1s"), address)


@LOCAL
def test_an_address_and_a_scheduler_file_reach_a_cluster_that_stays(cluster, tmp_path):
    file = tmp_path / "scheduler.json"
    file.write_text(json.dumps(cluster.scheduler.identity()))
    for address in (cluster.scheduler_address, f"file:{file}"):
        with connect(address) as client:
            assert len(client.nthreads()) == 2
    with connect(cluster.scheduler_address) as client:
        assert client.submit(sum, (1, 2)).result() == 3


@LOCAL
def test_settings_reach_the_others_where_a_worker_dies_meanwhile():
    with (
        LocalCluster(n_workers=2, threads_per_worker=1, dashboard_address=":0") as cluster,
        cluster.get_client() as client,
    ):
        client.sync(register, client, WorkerSettings(cache_bytes="2MiB"))
        dead, other = client.run(os.getpid).items()
        os.kill(dead[1], signal.SIGKILL)
        client.sync(register, client, WorkerSettings(cache_bytes="3MiB"))
        settings = client.run(lambda: dask.config.get("rainbear-dask.cache-bytes"), workers=[other[0]])
    assert settings == {other[0]: "3MiB"}


@LOCAL
def test_the_configuration_names_the_cluster_its_workers_and_the_patience():
    section = {"name": "local", "workers": [1, 1], "timeout": "30s"}
    with dask.config.set({"rainbear-dask.cluster": section}), connect() as client:
        assert len(client.nthreads()) == 1


@pytest.mark.parametrize(
    ("name", "workers", "words"),
    [
        ("nowhere", None, ["'nowhere'", "local", "slurm", "kubernetes", "tcp://"]),
        ("local", 0, ["workers is 0", "at least 1"]),
        ("local", (3, 1), ["workers is (3, 1)"]),
        ("local", "two", ["workers is 'two'"]),
        ("tcp://127.0.0.1:1", None, ["tcp://127.0.0.1:1", "Check the address"]),
        ("slurm", 1, ["cores", "jobqueue.slurm"]),
    ],
)
def test_what_is_no_cluster_is_an_error_that_says_what_to_do(name, workers, words):
    caught(ClusterError, lambda: connect(name, workers=workers, timeout="1s"), *words)


def test_a_batch_system_that_is_not_there_is_an_error_at_once(monkeypatch, tmp_path):
    monkeypatch.setenv("PATH", str(tmp_path))
    job = {"cores": 1, "memory": "1GiB", "interface": "lo"}
    import dask_jobqueue  # noqa: F401, PLC0415  its defaults

    with dask.config.set({f"jobqueue.slurm.{name}": value for name, value in job.items()}):
        caught(ClusterError, lambda: connect("slurm", timeout="60s"), "sbatch", "jobqueue.slurm")


def test_a_scheduler_without_workers_is_an_error_in_time():
    async def ask():
        async with Scheduler(host="127.0.0.1", port=0, dashboard_address=":0") as scheduler:
            return await asyncio.to_thread(
                caught, ClusterError, lambda: connect(scheduler.address, timeout="1s"), "no worker after 1 s"
            )

    asyncio.run(ask())


@pytest.mark.parametrize("before", [None, "synchronous"])
def test_a_scheduler_that_does_not_answer_leaves_dask_as_it_was(before):
    with dask.config.set({"distributed.comm.timeouts.connect": "200ms"} | ({"scheduler": before} if before else {})):
        caught(ClusterError, lambda: connect("tcp://127.0.0.1:9"), "does not answer")
        assert dask.config.get("scheduler", None) == before
        assert dask.delayed(sum)([1, 2]).compute() == 3
