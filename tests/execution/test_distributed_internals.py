"""Canaries: what this package uses of distributed beyond its documented API is still there, and does what it did."""

import asyncio

import distributed
import pytest
from distributed import Client, LocalCluster
from distributed.diagnostics.plugin import WorkerPlugin

from rainbear_dask.execution.distributed_internals import (
    can_connect,
    direct_to_workers,
    drop_worker_plugins,
    num_worker_threads,
)

CHANGED = f"distributed {distributed.__version__} changed what execution/distributed_internals.py relies on: "


@pytest.mark.cluster
def test_a_client_says_how_it_was_made(cluster):
    for chosen in (True, False, None):
        with Client(cluster.scheduler_address, direct_to_workers=chosen) as client:
            assert direct_to_workers(client) is chosen, CHANGED + "Client.direct_to_workers"


@pytest.mark.cluster
def test_a_client_reaches_workers_through_its_pool_of_connections(client):
    (worker, *_) = client.nthreads()
    changed = CHANGED + "Client.rpc, a ConnectionPool with connect() and reuse()"
    assert client.sync(can_connect, client, worker), changed
    assert not client.sync(can_connect, client, "tcp://127.0.0.1:1"), changed
    assert client.rpc.active == 0, changed


def count_threads(dask_worker):
    return num_worker_threads(dask_worker)


@pytest.mark.cluster
def test_a_worker_knows_its_threads(client):
    counts = client.run(count_threads)
    assert counts == client.nthreads(), CHANGED + "Worker.state.nthreads"


class Noted(WorkerPlugin):
    idempotent = False

    def __init__(self, name):
        self.name = name


def test_the_scheduler_drops_worker_plugins():
    async def plugins_left():
        options = {"n_workers": 1, "processes": False, "dashboard_address": ":0", "asynchronous": True}
        async with LocalCluster(**options) as cluster, Client(cluster, asynchronous=True) as client:
            for name in ("ours-1", "ours-2", "theirs"):
                await client.register_plugin(Noted(name))
            (worker,) = cluster.workers.values()
            drop_worker_plugins(cluster.scheduler, "ours-")
            for _ in range(100):
                if {"ours-1", "ours-2"}.isdisjoint(worker.plugins):
                    break
                await asyncio.sleep(0.05)
            return [name for name in worker.plugins if name in ("ours-1", "ours-2", "theirs")]

    changed = CHANGED + "Scheduler.worker_plugins and Scheduler.unregister_worker_plugin(comm, name)"
    assert asyncio.run(plugins_left()) == ["theirs"], changed
