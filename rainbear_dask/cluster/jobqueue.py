"""Start clusters whose workers are jobs of a batch system, through dask-jobqueue.

This module relies on internals of dask-jobqueue, as read in version 0.9.0. ``tests/cluster/test_jobqueue.py`` fails if
a release changes them.
"""

from typing import Any

from distributed.core import Status

from rainbear_dask.cluster.errors import WHERE_TO_SET, message_of
from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import ClusterError
from rainbear_dask.redaction import safe_cause

BATCH_SYSTEMS = {
    "slurm": "SLURMCluster",
    "pbs": "PBSCluster",
    "lsf": "LSFCluster",
    "sge": "SGECluster",
    "oar": "OARCluster",
    "moab": "MoabCluster",
    "htcondor": "HTCondorCluster",
}
"""Classes of `dask_jobqueue` by the name of the batch system."""


def start_jobs(system: str, least: int, most: int) -> Any:
    """Start a cluster and keep between ``least`` and ``most`` jobs running.

    Parameters
    ----------
    system : str
        A name in `BATCH_SYSTEMS`.
    least, most : int
        Bounds on the number of jobs.

    Returns
    -------
    dask_jobqueue.JobQueueCluster
        The cluster; its first jobs are submitted.

    Raises
    ------
    ClusterError
        If the configuration does not describe a job, or the batch system refuses it.
    MissingDependencyError
        If dask-jobqueue is not installed.
    """
    kind = getattr(require("dask_jobqueue", extra="jobqueue"), BATCH_SYSTEMS[system])
    refusals: list[str] = []
    job = type(kind.job_cls.__name__, (_Job, kind.job_cls), {"refusals": refusals})
    ours: Any = type(kind.__name__, (kind,), {"job_cls": job})
    cluster: Any = ours.__new__(ours)
    try:
        cluster.__init__()
    except ValueError as err:  # the configuration lacks a property that jobs must have
        cluster.status = Status.closed  # it never opened, and would warn about that when it is garbage-collected
        raise ClusterError(
            f"The configuration of {system} jobs is incomplete: {message_of(err)}. {WHERE_TO_SET.format(system)}"
        ) from safe_cause(err, ())

    async def submitted() -> None:
        await cluster

    cluster.scale(jobs=least)
    cluster.sync(submitted)
    if refusals:
        cluster.close()
        raise ClusterError(f"The batch system {system} refuses the job: {refusals[0]}. {WHERE_TO_SET.format(system)}")
    # Also for a fixed number of jobs, because only an adaptive cluster replaces jobs that have ended.
    cluster.adapt(minimum_jobs=least, maximum_jobs=most)
    return cluster


class _Job:
    """A mixin for jobs of dask-jobqueue that records why the batch system refused one; else only a log says so."""

    refusals: list[str]

    async def start(self) -> None:
        """Submit the job."""
        try:
            await super().start()  # type: ignore[misc]  # the class of dask-jobqueue
        except (OSError, RuntimeError, ValueError) as err:
            self.refusals.append(message_of(err))
            self.status = Status.running  # the status of every job that has ended unnoticed
