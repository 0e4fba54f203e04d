"""From scan tasks to a Dask graph whose keys come from content alone, and Dask's way to move what workers answer."""

import pickle
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from typing import Any

import numpy as np
from dask.base import tokenize
from dask.task_spec import Task
from dask.typing import Key
from dask.utils import funcname

from rainbear_dask.planner import ScanTask
from rainbear_dask.wire import Parts, pack, unpack


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
        Dask tasks by key: what the dashboard groups by, and a token. The token covers the functions and all that the task reads (store, version, positions,
        columns, filter) and no credentials: the same question has the same keys in any process.
    """
    name = "-".join(["scan-zarr", *map(funcname, args)])
    graph: dict[Key, Task] = {}
    for task in tasks:
        key = (name, tokenize(run, task, *args, ensure_deterministic=not args))
        graph[key] = Task(key, run, task, *args)
    return graph


def register_serialization() -> None:
    """Tell Dask how `Parts` travel: each buffer a frame of its own. More than once is the same as once."""
    from distributed.protocol.serialize import dask_deserialize, dask_serialize  # noqa: PLC0415  slow to import

    dask_serialize.register(Parts, _serialize)
    dask_deserialize.register(Parts, _deserialize)


def _serialize(parts: Parts) -> tuple[dict[str, Any], list[memoryview]]:
    shape, buffers = pack(parts)
    return {"shape": pickle.dumps(shape)}, [buffer.data for buffer in buffers]


def _deserialize(header: Mapping[str, Any], frames: Sequence[Any]) -> Parts:
    # as Dask itself does with what comes from its cluster
    return unpack(pickle.loads(header["shape"]), [np.frombuffer(frame, np.uint8) for frame in frames])  # noqa: S301


if "distributed" in sys.modules:  # as on every worker, also on those that never make a graph
    register_serialization()
