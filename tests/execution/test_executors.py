"""One law for both executors: jobs in the order of tasks, a width, and nothing left after closing."""

import threading
from contextlib import closing
from dataclasses import replace

import dask
import pytest
from polars.testing import assert_frame_equal

import rainbear_dask as rd
from rainbear_dask.execution.executors import DaskExecutor, ThreadExecutor, Work
from rainbear_dask.execution.wire import CompactFrame
from rainbear_dask.execution.worker import make_frame, run_task
from tests.execution.test_run import EVERYWHERE, NUM_TASKS, nothing_left
from tests.support.stores import write_field


@pytest.fixture
def tasks(tmp_path):
    write_field(str(tmp_path / "field.zarr"), chunks=(2, 12, 20))
    return list(replace(rd.plan(tmp_path / "field.zarr").read_plan, task_bytes=1).tasks())


@pytest.fixture
def client_or_none(where, request):
    return request.getfixturevalue("client") if where == "cluster" else None


def executor_of(client, work=None):
    work = work or Work(run_task, CompactFrame.to_polars)
    return ThreadExecutor(work, 2) if client is None else DaskExecutor(client, work)


@EVERYWHERE
def test_a_job_for_each_task_in_the_same_order(tasks, client_or_none):
    with closing(executor_of(client_or_none)) as executor:
        assert executor.width() == 2
        jobs = executor.submit(tasks)
        assert len(jobs) == len(tasks) == NUM_TASKS
        for job, task in zip(jobs, tasks, strict=True):
            assert_frame_equal(job.fetch().result(), make_frame(task))
    assert client_or_none is None or nothing_left(client_or_none)


@EVERYWHERE
def test_a_job_says_when_it_is_done(tasks, client_or_none):
    with closing(executor_of(client_or_none)) as executor:
        (job,) = executor.submit(tasks[:1])
        done = threading.Event()
        job.call_when_done(done.set)
        assert done.wait(20)
        assert job.fetch().result(20).height == make_frame(tasks[0]).height
        again = threading.Event()
        job.call_when_done(again.set)
        assert again.wait(20)


@EVERYWHERE
def test_closing_drops_jobs_that_are_not_fetched(tasks, client_or_none):
    executor = executor_of(client_or_none)
    executor.submit(tasks)[0].fetch().result(20)
    executor.close()
    assert client_or_none is None or nothing_left(client_or_none)
    for thread in threading.enumerate():
        if thread.name.startswith(("scan-zarr-task", "scan-zarr-fetch")):
            thread.join(20)
            assert not thread.is_alive()


@pytest.mark.cluster
def test_a_submission_that_a_closing_overtakes_leaves_nothing(tasks, client):
    executor = executor_of(client)
    executor.close()
    executor.submit(tasks)
    assert not executor._unfetched
    assert nothing_left(client)


def test_work_takes_the_annotations_that_are_active_when_it_is_made():
    with dask.annotate(priority=3):
        work = Work(run_task, CompactFrame.to_polars)
    assert dict(work.annotations) == {"priority": 3}
    assert dict(Work(run_task, CompactFrame.to_polars).annotations) == {}
