"""Hypothesis profiles, and what several test modules start."""

import os

import dask
import pytest
from distributed import LocalCluster
from hypothesis import HealthCheck, Phase, settings

# Explaining a failure runs it many more times, and most of these tests write a store each time.
WRITES_STORES = {
    "deadline": None,
    "phases": [phase for phase in Phase if phase is not Phase.explain],
    "suppress_health_check": [HealthCheck.too_slow, HealthCheck.data_too_large],
}
settings.register_profile("dev", max_examples=100, **WRITES_STORES)
# The same examples each time, so that what fails is the change; "dev" and "long" draw new ones.
settings.register_profile("ci", max_examples=400, derandomize=True, print_blob=True, **WRITES_STORES)
settings.register_profile("long", max_examples=5000, print_blob=True, **WRITES_STORES)
settings.load_profile(os.environ.get("HYPOTHESIS_PROFILE", "dev"))


@pytest.fixture(scope="session")
def cluster():
    """A scheduler and two worker processes, each of one thread, on this machine."""
    with LocalCluster(
        n_workers=2, threads_per_worker=1, processes=True, dashboard_address=":0", memory_limit=None
    ) as cluster:
        yield cluster


@pytest.fixture
def client(cluster):
    """A client of the cluster, which any scan finds by itself, however small, as long as the test runs."""
    with cluster.get_client() as client, dask.config.set({"rainbear-dask.small-plan-bytes": 0}):
        yield client
