"""Canaries: what `cluster.jobqueue` relies on in dask-jobqueue beyond its documented API."""

import inspect

import dask_jobqueue
import pytest
from dask_jobqueue.core import Job, JobQueueCluster
from distributed.core import Status
from distributed.deploy.spec import ProcessInterface, SpecCluster

from rainbear_dask.cluster.jobqueue import BATCH_SYSTEMS, _Job

CHANGED = f"dask-jobqueue {dask_jobqueue.__version__} changed what cluster/jobqueue.py relies on: "


@pytest.mark.parametrize("system", BATCH_SYSTEMS)
def test_a_cluster_has_a_class_for_its_jobs_and_takes_another(system):
    kind = getattr(dask_jobqueue, BATCH_SYSTEMS[system], None)
    assert kind is not None, CHANGED + BATCH_SYSTEMS[system]
    assert issubclass(kind, JobQueueCluster), CHANGED + "JobQueueCluster"
    assert issubclass(kind.job_cls, Job), CHANGED + f"{kind.__name__}.job_cls"
    assert 'getattr(type(self), "job_cls"' in inspect.getsource(JobQueueCluster.__init__), CHANGED + "job_cls is read"


def test_a_job_starts_by_submitting_itself():
    assert inspect.iscoroutinefunction(Job.start), CHANGED + "Job.start"
    assert inspect.iscoroutinefunction(_Job.start)
    assert list(inspect.signature(Job.start).parameters) == ["self"], CHANGED + "Job.start"
    assert "_submit_job" in inspect.getsource(Job.start), CHANGED + "a refused job raises in Job.start"
    assert issubclass(Job, ProcessInterface), CHANGED + "Job.status"


def test_a_cluster_starts_scales_and_adapts_by_jobs():
    assert "jobs" in inspect.signature(JobQueueCluster.scale).parameters, CHANGED + "scale(jobs=)"
    adapt = inspect.signature(JobQueueCluster.adapt).parameters
    assert {"minimum_jobs", "maximum_jobs"} <= adapt.keys(), CHANGED + "adapt(minimum_jobs=, maximum_jobs=)"
    assert issubclass(JobQueueCluster, SpecCluster), CHANGED + "a cluster is awaited until its jobs are submitted"
    assert {Status.closed, Status.running} <= set(Status), CHANGED + "distributed.core.Status"


def test_a_missing_property_of_a_job_is_a_value_error():
    with pytest.raises(ValueError, match="cores"):
        dask_jobqueue.SLURMCluster.job_cls("tcp://scheduler:8786", name="worker", memory="1GiB")
