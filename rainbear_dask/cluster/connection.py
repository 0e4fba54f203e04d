"""A Dask client by the name of its cluster: of this machine, of a batch system, of Kubernetes, or at an address."""

from contextlib import suppress
from typing import Any

import dask.config
from dask.utils import parse_timedelta
from distributed import Client, LocalCluster
from distributed.core import Status
from distributed.deploy.cluster import Cluster

from rainbear_dask.cluster.errors import reason
from rainbear_dask.cluster.jobqueue import BATCH_SYSTEMS, start_jobs
from rainbear_dask.cluster.kubernetes import start_pods
from rainbear_dask.exceptions import ClusterError
from rainbear_dask.execution.plugins import register
from rainbear_dask.plugin import WorkerSettings
from rainbear_dask.redaction import secrets_of, shown, without_secrets
from rainbear_dask.resources.settings import DEFAULTS, SECTION

Workers = int | tuple[int, int]
"""How many workers, or between how many and how many, as the work asks for them."""


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
        If the name is unknown, or there is no scheduler or no worker in time.
    MissingDependencyError
        If the package that starts such clusters is not installed.

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
        why = without_secrets(reason(err), secrets)
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
        return start_pods(*(workers or (1, 1)), seconds)
    if name in BATCH_SYSTEMS:
        return start_jobs(name, *(workers or (1, 1)))
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


_CHECK_ADDRESS = (
    "Check the address, that this machine reaches it, and for tls:// the certificates in distributed.comm.tls."
)
_WHY_NO_WORKER = (
    "Its jobs or pods may still be waiting (squeue, qstat, bjobs, kubectl get pods), or have failed: see their logs. "
    "Wait longer with timeout=, or rainbear-dask.cluster.timeout in Dask's configuration."
)
