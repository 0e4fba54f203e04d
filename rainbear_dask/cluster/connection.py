"""Connect to a Dask cluster by name or address, starting it if necessary."""

from contextlib import suppress
from typing import Any

import dask.config
from dask.utils import parse_timedelta
from distributed import Client, LocalCluster
from distributed.core import Status
from distributed.deploy.cluster import Cluster

from rainbear_dask.cluster.errors import message_of
from rainbear_dask.cluster.jobqueue import BATCH_SYSTEMS, start_jobs
from rainbear_dask.cluster.kubernetes import start_pods
from rainbear_dask.exceptions import ClusterError
from rainbear_dask.execution.plugins import register
from rainbear_dask.plugin import WorkerSettings
from rainbear_dask.redaction import safe_cause, secrets_of, without_secrets
from rainbear_dask.resources.settings import DEFAULTS, setting

Workers = int | tuple[int, int]
"""A number of workers, or its lower and upper bound for clusters that adapt to the work."""


def connect(
    cluster: str | None = None, *, workers: Workers | None = None, timeout: str | float | None = None
) -> Client:
    """Connect to a Dask cluster: start it by name, or join it at an address.

    Parameters
    ----------
    cluster : str, optional
        One of these names, or the address of a scheduler. ``local`` starts processes on this machine. ``slurm``,
        ``pbs``, ``lsf``, ``sge``, ``oar``, ``moab`` and ``htcondor`` submit jobs to a batch system. ``kubernetes``
        starts pods. An address is ``tcp://host:8786``, ``tls://...``, ``ws://...``, or ``file:`` and the path of a
        scheduler file. By default ``rainbear-dask.cluster.name`` in Dask's configuration, else ``local``.
    workers : int or (int, int), optional
        Number of workers (jobs on a batch system) to keep running, or its lower and upper bound, between which the
        cluster adapts to the work. Ignored with an address. By default ``rainbear-dask.cluster.workers``. Without that
        setting, ``local`` starts as many as suit the machine, and the others start one. Jobs that end, are cancelled or
        are preempted are replaced.
    timeout : str or float, optional
        Longest wait for a scheduler and a first worker, in seconds or in Dask's notation for times. By default
        ``rainbear-dask.cluster.timeout``, else 10 minutes, because batch systems have queues. The wait for the other
        workers takes at most 10 seconds more.

    Returns
    -------
    distributed.Client
        The active client; scans use it without being told. Closing it, or leaving its ``with`` block, also ends the
        cluster if this call started it.

    Raises
    ------
    ClusterError
        If the name is unknown, or no scheduler or worker appears in time.
    MissingDependencyError
        If the package that starts such clusters is not installed.

    Notes
    -----
    Describe jobs and pods (memory, threads, queue, walltime, image, scratch folder) in Dask's configuration: section
    ``jobqueue`` for dask-jobqueue, ``kubernetes`` for dask-kubernetes and ``distributed.worker`` for the workers.
    Section ``distributed.comm.tls`` holds certificates. A ``kubernetes.custom-cluster-spec`` is used unchanged.

    Examples
    --------
    >>> from rainbear_dask.cluster import connect
    >>> with connect("slurm", workers=4):  # doctest: +SKIP
    ...     rd.scan_zarr("sst.zarr").filter(pl.col("sst") > 30).collect()
    """
    defaults = setting("cluster")
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
    """A client that closes its cluster when it closes."""

    def __init__(self, cluster: Cluster) -> None:
        super().__init__(cluster)  # type: ignore[no-untyped-call]

    def close(self, *args: Any, **kwargs: Any) -> Any:
        """Close the connection, then the cluster, but only once: a `KubeCluster` would try it again each time."""
        closed: Any = super().close(*args, **kwargs)  # type: ignore[no-untyped-call]
        if self.cluster is not None and self.cluster.status != Status.closed:
            self.cluster.close()
        return closed


def _is_address(name: str) -> bool:
    return "://" in name or name.startswith("file:")


def _range(workers: Any) -> tuple[int, int] | None:
    """Return the lower and the upper bound of a number of workers, as a caller or the configuration states it."""
    least, most = workers if isinstance(workers, list | tuple) and len(workers) == 2 else (workers, workers)
    if workers is None:
        return None
    if not (isinstance(least, int) and isinstance(most, int) and 1 <= least <= most):
        raise ClusterError(
            f"The number of workers is {workers!r}. Set `workers` to a number that is at least 1, or to (least, most)."
        )
    return least, most


def _seconds(timeout: Any) -> float:
    try:
        return float(parse_timedelta(timeout))
    except (KeyError, TypeError, ValueError):
        raise ClusterError(f"The timeout is {timeout!r}. Set `timeout` to a time: 30s, 10 minutes or 2h.") from None


def _own_settings() -> dict[str, Any]:
    """Return the settings of this process that differ from the defaults; workers may not read the same files."""
    # One by one, because settings from the environment have underscores in their names.
    now = {name: setting(name) for name in DEFAULTS if name != "cluster"}
    return {name.replace("-", "_"): value for name, value in now.items() if value != DEFAULTS[name]}


def _reach(address: str, seconds: float) -> Client:
    # A running scheduler answers soon; only workers may take long to appear.
    seconds = min(seconds, parse_timedelta(dask.config.get("distributed.comm.timeouts.connect")))
    try:
        where: dict[str, Any] = {"address": address}
        if address.startswith("file:"):
            where = {"scheduler_file": address.removeprefix("file:")}
        # A client becomes Dask's default before it reaches a scheduler, and stays so if it reaches none. So try first.
        _join(**where, timeout=seconds, set_as_default=False).close()
        return _join(**where, timeout=seconds)
    except (OSError, TypeError, ValueError) as err:  # TypeError: tls:// without a certificate
        secrets = secrets_of(address, {})
        why = without_secrets(message_of(err), secrets)
        raise ClusterError(f"The Dask scheduler at {address} does not answer: {why}. {_CHECK_ADDRESS}") from safe_cause(
            err, secrets
        )


def _join(**options: Any) -> Client:
    """Make a client, and close it if it reaches no scheduler; else it would wait in vain when the process ends."""
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
        f"There is no kind of cluster named {name!r}. Use local, {', '.join(BATCH_SYSTEMS)} or kubernetes, or an "
        "address such as tcp://host:8786."
    )


def _start_processes(workers: tuple[int, int] | None) -> Cluster:
    # with a dashboard on any free port of this machine
    cluster = LocalCluster(n_workers=workers and workers[0], dashboard_address=":0")
    if workers and workers[0] < workers[1]:
        cluster.adapt(minimum=workers[0], maximum=workers[1])
    return cluster


def _await_workers(client: Client, name: str, seconds: float, wanted: int) -> None:
    """Wait for a first worker, because a scan without workers never ends, and a little longer for the others."""
    try:
        client.wait_for_workers(1, timeout=seconds)
    except TimeoutError:
        raise ClusterError(f"The cluster {name} has no worker after {seconds:g} s. {_WHY_NO_WORKER}") from None
    # The first batch of a scan has as many tasks as the workers present can run.
    with suppress(TimeoutError):
        client.wait_for_workers(wanted, timeout=min(seconds, _GRACE_SECONDS))


_GRACE_SECONDS = 10


_CHECK_ADDRESS = (
    "Check the address and whether this machine can reach it. For tls://, check the certificates in "
    "`distributed.comm.tls`."
)
_WHY_NO_WORKER = (
    "Its jobs or pods may still wait in a queue (squeue, qstat, bjobs, kubectl get pods), or they failed: see their "
    "logs. To wait longer, set `timeout`, or `rainbear-dask.cluster.timeout` in Dask's configuration."
)
