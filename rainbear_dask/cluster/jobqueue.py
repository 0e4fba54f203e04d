"""Clusters whose workers are jobs of a batch system, by dask-jobqueue."""

from typing import Any

from distributed.core import Status

from rainbear_dask.cluster.errors import WHERE_TO_SET, reason
from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import ClusterError
from rainbear_dask.redaction import shown

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


def start_jobs(system: str, least: int, most: int) -> Any:
    kind = getattr(require("dask_jobqueue", extra="jobqueue"), BATCH_SYSTEMS[system])
    refusals: list[str] = []
    job = type(kind.job_cls.__name__, (_Job, kind.job_cls), {"refusals": refusals})
    ours: Any = type(kind.__name__, (kind,), {"job_cls": job})
    cluster: Any = ours.__new__(ours)
    try:
        cluster.__init__()
    except ValueError as err:  # it asks for what a job must say and the configuration does not
        cluster.status = Status.closed  # it never opened; else it would complain of that when it is collected
        raise ClusterError(
            f"a job of {system} is not described: {reason(err)}. {WHERE_TO_SET.format(system)}"
        ) from shown(err, ())

    async def submitted() -> None:
        await cluster

    cluster.scale(jobs=least)
    cluster.sync(submitted)
    if refusals:
        cluster.close()
        raise ClusterError(f"{system} takes no job: {refusals[0]}. {WHERE_TO_SET.format(system)}")
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
            self.refusals.append(reason(err))
            self.status = Status.running  # as that of any job that has ended unseen
