"""From scan tasks to a Dask graph whose keys come from content alone."""

from collections.abc import Callable, Iterable
from typing import Any

from dask.base import tokenize
from dask.task_spec import Task

from rainbear_dask.planner import ScanTask

Key = tuple[str, str]
"""Name of the function (what the dashboard groups by) and token of the task."""


def build_graph(tasks: Iterable[ScanTask], run: Callable[[ScanTask], Any]) -> dict[Key, Task]:
    """One independent Dask task for each scan task, in the same order.

    Parameters
    ----------
    tasks : iterable of ScanTask
        What to run.
    run : callable
        A top-level function of a scan task.

    Returns
    -------
    dict
        Dask tasks by key. The key's token covers the function and all that the task reads (store, version, positions,
        columns, filter) and no credentials: the same question has the same keys in any process.
    """
    graph: dict[Key, Task] = {}
    for task in tasks:
        key = ("scan-zarr", tokenize(run, task, ensure_deterministic=True))
        graph[key] = Task(key, run, task)
    return graph
