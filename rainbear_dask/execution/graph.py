"""Turn tasks into Dask tasks whose keys depend on content alone."""

import re
from collections.abc import Callable, Iterable, Sequence
from dataclasses import replace
from typing import TYPE_CHECKING, Any, TypeVar
from weakref import WeakKeyDictionary

import numpy as np
import polars as pl
from dask.base import normalize_token, tokenize
from dask.sizeof import sizeof
from dask.task_spec import Task
from dask.typing import Key
from dask.utils import funcname

from rainbear_dask.planning.task import Scan, ScanTask
from rainbear_dask.planning.task import Task as AnyTask
from rainbear_dask.storage.credentials import seal

if TYPE_CHECKING:
    from distributed import Client, Future

T = TypeVar("T", bound=AnyTask)


def build_graph(tasks: Iterable[AnyTask], run: Callable[..., Any], *args: Callable[..., Any]) -> dict[Key, Task]:
    """Build a graph of one independent Dask task per task, in the same order.

    Parameters
    ----------
    tasks : iterable of Task
        The tasks to run.
    run : callable
        A top-level function of a task and of ``args``.
    *args : callable
        Functions of the user. If Dask cannot tokenize one of them by content, its keys differ each time.

    Returns
    -------
    dict
        Dask tasks by key. A key is the name on the dashboard, for example ``scan-zarr-era5``, and a token. The token
        covers the functions and everything that the task reads: store, version, positions, columns and filter. So one
        query has the same keys in every process. Neither keys nor tasks hold credentials: call
        `clients.bring_credentials` for them.
    """
    return {(key := _key(task, run, args)): Task(key, _run, run, _sealed(task), *args) for task in tasks}


def submit(
    client: "Client", tasks: Sequence[AnyTask], run: Callable[..., Any], *args: Callable[..., Any]
) -> "list[Future[Any]]":
    """Submit several tasks together, with the keys of `build_graph`; the cluster starts them in order.

    Parameters
    ----------
    client : distributed.Client
        Client of the cluster, whose workers have the credentials already.
    tasks, run, *args
        As in `build_graph`.

    Returns
    -------
    list of distributed.Future
        One per task.
    """
    keys = [_key(task, run, args) for task in tasks]
    many = [[value] * len(keys) for value in args]
    # Not pure, because Dask would choose other keys. A graph would start in the order of its keys.
    return client.map(
        _run, [run] * len(keys), list(map(_sealed, tasks)), *many, key=keys, pure=False, fifo_timeout="0s"
    )


def _key(task: AnyTask, run: Callable[..., Any], args: Sequence[Callable[..., Any]]) -> Key:
    name = "-".join(["scan-zarr", _short_name(task), *map(funcname, args)])
    return (name, tokenize(run, task, *args, ensure_deterministic=not args))


def _run(run: Callable[..., Any], task: AnyTask, *args: Callable[..., Any]) -> Any:
    """Run a task. Workers import this module for it, which registers the size of frames before the first one exists."""
    return run(task, *args)


def _bytes_of_frame(frame: pl.DataFrame) -> int:
    """Return the size of a Polars frame. Dask would take it for a few bytes, and never spill it."""
    return int(frame.estimated_size())


sizeof.register(pl.DataFrame, _bytes_of_frame)


def _sealed(task: T) -> T:
    """Return the task without credentials, which `execution.plugins` brings to the workers."""
    scan = _sealed_scan(task.scan)
    return task if scan is task.scan else replace(task, scan=scan)


def content_of(task: ScanTask) -> tuple[str, str]:
    """Return what identifies a task for Dask. By itself, Dask would walk through the shared `Scan` for every task."""
    positions = [one for product in (task.index, *task.boxes) for one in product]
    lengths = np.array([len(one.starts) for one in positions])
    ends = [ends.tobytes() for one in positions for ends in (one.starts, one.stops)]  # sometimes hundreds of boxes
    cells = [(some.axes, some.numbers.tobytes()) for some in task.cells]
    return token_of(task.scan), tokenize(lengths.tobytes(), b"".join(ends), *cells)


normalize_token.register(ScanTask, content_of)


def token_of(scan: Scan) -> str:
    """Return the token of the part that tasks share, which is computed once."""
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
_sealed_scans: WeakKeyDictionary[Scan, tuple[Scan, ...]] = WeakKeyDictionary()  # empty if a scan holds no credentials


def _short_name(task: AnyTask) -> str:
    """Return the last word of the store's address and group."""
    words = re.findall(r"[\w.]+", f"{task.scan.spec.label}/{task.scan.spec.group}".replace(".zarr", ""))
    return str(words[-1] if words else "store")[:40]
