"""Clusters whose workers are pods of Kubernetes, by dask-kubernetes."""

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from typing import Any

import dask.config
from distributed.core import Status

from rainbear_dask.cluster.errors import reason
from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import ClusterError
from rainbear_dask.redaction import shown


def start_pods(least: int, most: int, seconds: float) -> Any:
    operator = require("dask_kubernetes.operator", extra="kubernetes")
    options: dict[str, Any] = {"quiet": True}
    if dask.config.get("kubernetes.custom-cluster-spec", None) is None:
        options["custom_cluster_spec"] = _pods(operator.make_cluster_spec, least)
    ours: Any = type("KubeCluster", (_KubeCluster, operator.KubeCluster), {"seconds": seconds})
    cluster: Any = ours.__new__(ours)
    try:
        cluster.__init__(**options)
    except BaseException as err:
        with suppress(Exception):  # Kubernetes may not be there at all
            cluster.close(timeout=_DELETION_SECONDS)
        cluster.status = Status.closed  # else it is closed again, and fails again, when the process ends
        if isinstance(err, Exception):  # kr8s, httpx and the operator have no common base
            raise ClusterError(f"Kubernetes starts no cluster: {reason(err)}. {_CHECK_KUBERNETES}") from shown(err, ())
        raise
    if least == most:
        cluster.scale(least)
    else:
        cluster.adapt(minimum=least, maximum=most)
    return cluster


_DELETION_SECONDS = 60


class _KubeCluster:
    """What a `KubeCluster` of dask-kubernetes does differently: its waits end, and a cluster that runs is not given up."""

    seconds: float
    _resource_timeout: float
    _startup_component_status: dict[str, str]  # "cluster" is there once the operator has seen it

    async def _start(self) -> None:
        try:
            async with asyncio.timeout(self.seconds):
                await super()._start()  # type: ignore[misc]  # of the cluster that this is mixed into
        except TimeoutError as err:
            found = ", ".join(f"{part}: {state}" for part, state in self._startup_component_status.items())
            reason = str(err) or f"there is no scheduler after {self.seconds:g} s"
            raise TimeoutError(f"{reason} ({found or 'nothing was made'})") from err

    async def _wait_for_controller(self) -> None:
        # Not for it to say "Running": the operator, up to 2026.3, may say "Pending" of a cluster that runs. What is waited
        # for next is the scheduler itself.
        deadline = time.monotonic() + self._resource_timeout
        while "cluster" not in self._startup_component_status:
            if time.monotonic() > deadline:
                raise TimeoutError(f"no operator has taken it up after {self._resource_timeout:g} s")
            await asyncio.sleep(0.1)


def _pods(make_spec: Callable[..., dict[str, Any]], workers: int) -> dict[str, Any]:
    """What dask-kubernetes would make by itself, with commands that `distributed` still has: ``dask worker``."""
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


_CHECK_KUBERNETES = "Check that kubectl reaches it, that the Dask operator runs there, and what `kubectl describe pods` says of its pods."
