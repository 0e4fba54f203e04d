"""From scan tasks to a Dask graph whose keys come from content alone."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from dask.base import normalize_token, tokenize
from dask.sizeof import sizeof
from dask.task_spec import Task
from dask.typing import Key
from dask.utils import funcname

from rainbear_dask.planning.task import Scan, ScanTask
from rainbear_dask.storage.credentials import seal

if TYPE_CHECKING:
    from distributed import Client, Future


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
    return {(key := _key(task, run, args)): Task(key, _run, run, _sealed(task), *args) for task in tasks}


def submit(
    client: "Client", tasks: Sequence[ScanTask], run: Callable[..., Any], *args: Callable[..., Any]
) -> "list[Future[Any]]":
    """Ask a cluster for some tasks at once, which are begun in their order: those of `build_graph`, by the same keys.

    Parameters
    ----------
    client : distributed.Client
        Whose cluster. It has credentials already, as for `build_graph`.
    tasks, run, *args
        As there.

    Returns
    -------
    list of distributed.Future
        One for each task.
    """
    keys = [_key(task, run, args) for task in tasks]
    many = [[value] * len(keys) for value in args]
    # not pure, as Dask would look for a key of its own; a graph would be begun in the order of its keys
    return client.map(
        _run, [run] * len(keys), list(map(_sealed, tasks)), *many, key=keys, pure=False, fifo_timeout="0s"
    )


def _key(task: ScanTask, run: Callable[..., Any], args: Sequence[Callable[..., Any]]) -> Key:
    name = "-".join(["scan-zarr", _short_name(task), *map(funcname, args)])
    return (name, tokenize(run, task, *args, ensure_deterministic=not args))


def _run(run: Callable[..., Any], task: ScanTask, *args: Callable[..., Any]) -> Any:
    """Run a task; as a function of this module, so that a worker knows the size of frames before it has one."""
    return run(task, *args)


def _bytes_of_frame(frame: pl.DataFrame) -> int:
    """Without it Dask takes a frame of Polars for a few bytes, and would never spill it."""
    return int(frame.estimated_size())


sizeof.register(pl.DataFrame, _bytes_of_frame)


def _sealed(task: ScanTask) -> ScanTask:
    """The same without credentials, which have a way of their own (`delivery`)."""
    scan = _sealed_scan(task.scan)
    return task if scan is task.scan else replace(task, scan=scan)


def _content(task: ScanTask) -> tuple[str, str]:
    """What Dask makes tokens of a task from; by itself it would walk through all that the tasks of a scan have in common."""
    positions = [one for product in (task.index, *task.boxes) for one in product]
    lengths = np.array([len(one.starts) for one in positions])
    ends = [ends.tobytes() for one in positions for ends in (one.starts, one.stops)]  # of hundreds of boxes, at times
    return _token(task.scan), tokenize(lengths.tobytes(), b"".join(ends))


normalize_token.register(ScanTask, _content)


def _token(scan: Scan) -> str:
    found = _tokens.get(scan)
    if found is None:
        found = _tokens[scan] = str(tokenize(scan, ensure_deterministic=True))
    return found


def _sealed_scan(scan: Scan) -> Scan:
    found = _sealed_scans.get(scan)
    if found is None:
        spec = seal(scan.spec)
        found = _sealed_scans[scan] = () if spec is scan.spec else (replace(scan, spec=spec),)
    return found[0] if found else scan


_tokens: WeakKeyDictionary[Scan, str] = WeakKeyDictionary()
_sealed_scans: WeakKeyDictionary[Scan, tuple[Scan, ...]] = WeakKeyDictionary()  # empty, where that is the scan itself


def _short_name(task: ScanTask) -> str:
    """Last part of the store's address that says something."""
    words = re.findall(r"[\w.]+", f"{task.scan.spec.label}/{task.scan.spec.group}".replace(".zarr", ""))
    return str(words[-1] if words else "store")[:40]
