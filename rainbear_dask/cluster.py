"""A Dask client by the name of its cluster: of this machine, of a batch system, of Kubernetes, or at an address."""

import asyncio
import time
import uuid
from collections.abc import Callable
from contextlib import suppress
from importlib import import_module
from typing import Any

import dask.config
from dask.utils import parse_timedelta
from distributed import Client, LocalCluster
from distributed.core import Status
from distributed.deploy.cluster import Cluster

from rainbear_dask.configuration import DEFAULTS, SECTION
from rainbear_dask.delivery import register
from rainbear_dask.exceptions import ClusterError
from rainbear_dask.plugin import WorkerSettings
from rainbear_dask.redaction import secrets_of, shown, without_secrets

Workers = int | tuple[int, int]
"""How many workers, or between how many and how many, as the work asks for them."""

BATCH_SYSTEMS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
    "htcondor": "HTCondorCluster",
}
"""Batch systems by name, with what `dask_jobqueue` calls their clusters."""


def connect(
    cluster: str | None = None, *, workers: Workers | None = None, timeout: str | float | None = None
) -> Client:
    """Connect to a Dask cluster by name, starting it where the name is not an address.

    Parameters
    ----------
    cluster : str, optional
        ``local`` for processes of this machine; ``slurm``, ``pbs``, ``lsf``, ``sge``, ``oar``, ``moab`` or ``htcondor``
        for jobs of a batch system; ``kubernetes`` for pods; or the address of a scheduler: ``tcp://host:8786``, ``tls://``,
        ``ws://``, or ``file:`` and the path of a scheduler file. By default ``rainbear-dask.cluster.name`` of Dask's
        configuration, else ``local``.
    workers : int or (int, int), optional
        Workers (jobs of a batch system) to keep running, or the least and the most of them as the work asks for; not
        with an address. By default ``rainbear-dask.cluster.workers``, else what fits this machine for ``local`` and one
        for the others. Jobs that end, are cancelled or preempted are replaced.
    timeout : str or float, optional
        How long to wait for a scheduler and a first worker, in seconds or as Dask writes times. By default
        ``rainbear-dask.cluster.timeout``, else 10 minutes: batch systems have queues. The others are waited for
        10 seconds more.

    Returns
    -------
    distributed.Client
        The active client, which scans find by themselves. Closing it, or leaving its ``with`` block, ends the cluster
        that was started for it.

    Raises
    ------
    ClusterError
        If the name is unknown, a package is missing, or there is no scheduler or no worker in time.

    Notes
    -----
    What a job or pod is (memory, threads, queue, walltime, image, scratch folder) is told to those who start them, in Dask's
    configuration: sections ``jobqueue`` of dask-jobqueue, ``kubernetes`` of dask-kubernetes, ``distributed.worker`` of
    distributed, whose ``distributed.comm.tls`` also holds certificates. A ``kubernetes.custom-cluster-spec`` is used as it
    is.

    Examples
    --------
    >>> from rainbear_dask.cluster import connect
    >>> with connect("slurm", workers=4):  # doctest: +SKIP
    ...     rd.scan_zarr("sst.zarr").filter(pl.col("sst") > 30).collect()
    """
    defaults = dask.config.get(f"{SECTION}.cluster")
    name = cluster or defaults["name"] or "local"
    seconds = _seconds(defaults["timeout"] if timeout is None else timeout)
    wanted = None if _is_address(name) else _range(defaults["workers"] if workers is None else workers)
    client = _reach(name, seconds) if _is_address(name) else _OwningClient(_start(name, wanted, seconds))
    try:
        _await_workers(client, name, seconds, (wanted or (1, 1))[0])
        client.sync(register, client, WorkerSettings(**_own_settings()))
    except BaseException:
        client.close()
        raise
    return client


class _OwningClient(Client):
    """A client whose cluster ends with it."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)  # type: ignore[no-untyped-call]

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close the connection, then the cluster, which a `KubeCluster` would try each time that it is told to."""
        closed: Any = super().close(*args, **kwargs)  # type: ignore[no-untyped-call]
        if self.cluster is not None and self.cluster.status != Status.closed:
            self.cluster.close()
        return closed


def _is_address(name: str) -> bool:
    return "://" in name or name.startswith("file:")


def _range(workers: Any) -> tuple[int, int] | None:
    """Least and most workers, of what a caller or the configuration gives."""
    least, most = workers if isinstance(workers, list | tuple) and len(workers) == 2 else (workers, workers)
    if workers is None:
        return None
    if not (isinstance(least, int) and isinstance(most, int) and 1 <= least <= most):
        raise ClusterError(f"workers is {workers!r}; it has to be a number of workers, at least 1, or (least, most).")
    return least, most


def _seconds(timeout: Any) -> float:
    try:
        return float(parse_timedelta(timeout))
    except (KeyError, TypeError, ValueError):
        raise ClusterError(f"timeout is {timeout!r}; it has to be a time, as 30s, 10 minutes or 2h.") from None


def _own_settings() -> dict[str, Any]:
    """What this process has set in our section of Dask's configuration, for workers that do not read the same files."""
    # one by one, as those of the environment are there under names with underscores
    now = {name: dask.config.get(f"{SECTION}.{name}") for name in DEFAULTS if name != "cluster"}
    return {name.replace("-", "_"): value for name, value in now.items() if value != DEFAULTS[name]}


def _reach(address: str, seconds: float) -> Client:
    # a scheduler that has an address answers soon; it is workers that may have to be waited for
    seconds = min(seconds, parse_timedelta(dask.config.get("distributed.comm.timeouts.connect")))
    try:
        where: dict[str, Any] = {"address": address}
        if address.startswith("file:"):
            where = {"scheduler_file": address.removeprefix("file:")}
        # a client makes itself that of all of Dask before it has reached a scheduler, and stays it if there is none
        _joined(**where, timeout=seconds, set_as_default=False).close()
        return _joined(**where, timeout=seconds)
    except (OSError, TypeError, ValueError) as err:  # TypeError: tls:// without a certificate
        secrets = secrets_of(address, {})
        why = without_secrets(_reason(err), secrets)
        raise ClusterError(f"the Dask scheduler at {address} does not answer: {why}. {_CHECK_ADDRESS}") from shown(
            err, secrets
        )


def _joined(**options: Any) -> Client:
    """A client, which is closed if it reaches no scheduler: it would close itself when the process ends, and wait in vain."""
    client = Client.__new__(Client)
    try:
        client.__init__(**options)  # type: ignore[misc]
    except BaseException:
        with suppress(Exception):
            client.close()
        raise
    return client


def _start(name: str, workers: tuple[int, int] | None, seconds: float) -> Any:
    if name == "local":
        return _start_processes(workers)
    if name == "kubernetes":
        return _start_pods(*(workers or (1, 1)), seconds)
    if name in BATCH_SYSTEMS:
        return _start_jobs(name, *(workers or (1, 1)))
    raise ClusterError(
        f"{name!r} is no cluster. Name local, {', '.join(BATCH_SYSTEMS)} or kubernetes, or give an address like "
        "tcp://host:8786."
    )


def _start_processes(workers: tuple[int, int] | None) -> Cluster:
    # on a port for the dashboard that nobody else on this machine has
    cluster = LocalCluster(n_workers=workers and workers[0], dashboard_address=":0")
    if workers and workers[0] < workers[1]:
        cluster.adapt(minimum=workers[0], maximum=workers[1])
    return cluster


def _start_jobs(system: str, least: int, most: int) -> Any:
    kind = getattr(_import("dask_jobqueue", "jobqueue"), BATCH_SYSTEMS[system])
    refusals: list[str] = []
    job = type(kind.job_cls.__name__, (_Job, kind.job_cls), {"refusals": refusals})
    ours: Any = type(kind.__name__, (kind,), {"job_cls": job})
    cluster: Any = ours.__new__(ours)
    try:
        cluster.__init__()
    except ValueError as err:  # it asks for what a job must say and the configuration does not
        cluster.status = Status.closed  # it never opened; else it would complain of that when it is collected
        raise ClusterError(f"a job of {system} is not described: {_reason(err)}. {_SECTION.format(system)}") from shown(
            err, ()
        )

    async def submitted() -> None:
        await cluster

    cluster.scale(jobs=least)
    cluster.sync(submitted)
    if refusals:
        cluster.close()
        raise ClusterError(f"{system} takes no job: {refusals[0]}. {_SECTION.format(system)}")
    # also where the number is fixed: only an adaptive cluster replaces jobs that have ended
    cluster.adapt(minimum_jobs=least, maximum_jobs=most)
    return cluster


class _Job:
    """What a job of dask-jobqueue does differently: it notes that it is refused, which else only a log would show."""

    refusals: list[str]

    async def start(self) -> None:
        """Submit the job."""
        try:
            await super().start()  # type: ignore[misc]  # of the job that this is mixed into
        except (OSError, RuntimeError, ValueError) as err:
            self.refusals.append(_reason(err))
            self.status = Status.running  # as that of any job that has ended unseen


def _start_pods(least: int, most: int, seconds: float) -> Any:
    operator = _import("dask_kubernetes.operator", "kubernetes")
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
            raise ClusterError(f"Kubernetes starts no cluster: {_reason(err)}. {_CHECK_KUBERNETES}") from shown(err, ())
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


def _import(module: str, extra: str) -> Any:
    try:
        return import_module(module)
    except ImportError as err:
        raise ClusterError(f"{err}. Install it: pip install 'rainbear-dask[{extra}]'.") from err


def _await_workers(client: Client, name: str, seconds: float, wanted: int) -> None:
    """Wait for a first worker, without which a scan would wait for ever, and a little for the others."""
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise ClusterError(f"the cluster {name} has no worker after {seconds:g} s. {_WHY_NO_WORKER}") from None
    # a scan asks for as many tasks as the workers that are there when it starts can have
    with suppress(TimeoutError):
        client.wait_for_workers(wanted, timeout=min(seconds, _GRACE_SECONDS))


_GRACE_SECONDS = 10


def _reason(err: Exception) -> str:
    return " ".join(str(err).split()).rstrip(".") or type(err).__name__


_CHECK_ADDRESS = (
    "Check the address, that this machine reaches it, and for tls:// the certificates in distributed.comm.tls."
)
_SECTION = "Set it in section jobqueue.{} of Dask's configuration."
_CHECK_KUBERNETES = "Check that kubectl reaches it, that the Dask operator runs there, and what `kubectl describe pods` says of its pods."
_WHY_NO_WORKER = (
    "Its jobs or pods may still be waiting (squeue, qstat, bjobs, kubectl get pods), or have failed: see their logs. "
    "Wait longer with timeout=, or rainbear-dask.cluster.timeout in Dask's configuration."
)
