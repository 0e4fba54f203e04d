"""From scan tasks to a Dask graph whose keys come from content alone."""

import re
from collections.abc import Callable, Iterable
from dataclasses import replace
from typing import Any

import polars as pl
from dask.base import tokenize
from dask.sizeof import sizeof
from dask.task_spec import Task
from dask.typing import Key
from dask.utils import funcname

from rainbear_dask.credentials import seal
from rainbear_dask.planner import ScanTask


def build_graph(tasks: Iterable[ScanTask], run: Callable[..., Any], *args: Callable[..., Any]) -> dict[Key, Task]:
    """One independent Dask task for each scan task, in the same order.

    Parameters
    ----------
    tasks : iterable of ScanTask
        What to run.
    run : callable
        A top-level function of a scan task, and of ``args``.
    *args : callable
        Functions of a user's. One that Dask cannot tell from all others gives keys that are new each time.

    Returns
    -------
    dict
        Dask tasks by key: the name that the dashboard shows, as ``scan-zarr-era5``, and a token. The token covers the
        functions and all that the task reads (store, version, positions, columns, filter) and no credentials: the same
        question has the same keys in any process. Nor are there credentials in the tasks: `clients.bring_credentials`
        has to be called for them.
    """
    graph: dict[Key, Task] = {}
    for task in tasks:
        name = "-".join(["scan-zarr", _short_name(task), *map(funcname, args)])
        key = (name, tokenize(run, task, *args, ensure_deterministic=not args))
        graph[key] = Task(key, _run, run, _sealed(task), *args)
    return graph


def _run(run: Callable[..., Any], task: ScanTask, *args: Callable[..., Any]) -> Any:
    """Run a task; as a function of this module, so that a worker knows the size of frames before it has one."""
    return run(task, *args)


def _bytes_of_frame(frame: pl.DataFrame) -> int:
    """Without it Dask takes a frame of Polars for a few bytes, and would never spill it."""
    return int(frame.estimated_size())


sizeof.register(pl.DataFrame, _bytes_of_frame)


def _sealed(task: ScanTask) -> ScanTask:
    """The same without credentials, which have a way of their own (`delivery`)."""
    spec = seal(task.scan.spec)
    return task if spec is task.scan.spec else replace(task, scan=replace(task.scan, spec=spec))


def _short_name(task: ScanTask) -> str:
    """Last part of the store's address that says something."""
    words = re.findall(r"[\w.]+", f"{task.scan.spec.label}/{task.scan.spec.group}".replace(".zarr", ""))
    return str(words[-1] if words else "store")[:40]
