"""Start clusters whose workers are pods of Kubernetes, through dask-kubernetes.

This module relies on internals of dask-kubernetes, as read in version 2026.3.0. ``tests/cluster/test_manifests.py``
fails if a release changes them.
"""

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dask.config
from distributed.core import Status

from rainbear_dask.cluster.errors import message_of
from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import ClusterError
from rainbear_dask.redaction import safe_cause


def start_pods(least: int, most: int, seconds: float) -> Any:
    """Start a cluster and keep between ``least`` and ``most`` worker pods running.

    Parameters
    ----------
    least, most : int
        Bounds on the number of workers.
    seconds : float
        Longest wait for the scheduler.

    Returns
    -------
    dask_kubernetes.operator.KubeCluster
        The cluster; its scheduler runs.

    Raises
    ------
    ClusterError
        If Kubernetes or the Dask operator does not start it in time.
    MissingDependencyError
        If dask-kubernetes is not installed.
    """
    operator = require("dask_kubernetes.operator", extra="kubernetes")
    options: dict[str, Any] = {"quiet": True}
    if dask.config.get("kubernetes.custom-cluster-spec", None) is None:
        options["custom_cluster_spec"] = _pods(operator.make_cluster_spec, least)
    ours: Any = type("KubeCluster", (_KubeCluster, operator.KubeCluster), {"seconds": seconds})
    cluster: Any = ours.__new__(ours)
    try:
        cluster.__init__(**options)
    except BaseException as err:
        with suppress(Exception):  # Kubernetes may be out of reach
            cluster.close(timeout=_DELETION_SECONDS)
        cluster.status = Status.closed  # else it closes again, and fails again, when the process ends
        if isinstance(err, Exception):  # kr8s, httpx and the operator have no common base
            raise ClusterError(f"Kubernetes starts no cluster: {message_of(err)}. {_CHECK_KUBERNETES}") from safe_cause(
                err, ()
            )
        raise
    if least == most:
        cluster.scale(least)
    else:
        cluster.adapt(minimum=least, maximum=most)
    return cluster


_DELETION_SECONDS = 60


class _KubeCluster:
    """A mixin for `KubeCluster` of dask-kubernetes whose waits end, and which never abandons a running cluster."""

    seconds: float
    _resource_timeout: float
    _startup_component_status: dict[str, str]  # has the key "cluster" once the operator has seen it

    async def _start(self) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                await super()._start()  # type: ignore[misc]  # the class of dask-kubernetes
        except TimeoutError as err:
            found = ", ".join(f"{part}: {state}" for part, state in self._startup_component_status.items())
            reason = str(err) or f"there is no scheduler after {self.seconds:g} s"
            raise TimeoutError(f"{reason} ({found or 'no part of it exists'})") from err

    async def _wait_for_controller(self) -> None:
        # Do not wait for "Running": operators up to 2026.3 may report "Pending" for a cluster that runs. The next wait
        # is for the scheduler itself.
        deadline = time.monotonic() + self._resource_timeout
        while "cluster" not in self._startup_component_status:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no operator has noticed the cluster after {self._resource_timeout:g} s")
            await asyncio.sleep(0.1)


def _pods(make_spec: Callable[..., dict[str, Any]], workers: int) -> dict[str, Any]:
    """Return the default cluster of dask-kubernetes, with commands that distributed still has: ``dask worker``."""
    section = dask.config.get("kubernetes")
    spec = make_spec(
        name=f"rainbear-{uuid.uuid4().hex[:8]}",
        image=section["image"],
        n_workers=workers,
        resources=section["resources"],
        env=section["env"],
        worker_command="dask worker",
        scheduler_service_type=section["scheduler-service-type"],
    )
    (scheduler,) = spec["spec"]["scheduler"]["spec"]["containers"]
    scheduler["args"] = ["dask", "scheduler", *scheduler["args"][1:]]
    return spec


_CHECK_KUBERNETES = (
    "Check that kubectl reaches Kubernetes and that the Dask operator runs there. `kubectl describe pods` tells the "
    "state of its pods."
)
