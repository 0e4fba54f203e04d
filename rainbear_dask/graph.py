"""From scan tasks to a Dask graph whose keys come from content alone, and Dask's way to move what workers answer."""

import pickle
import re
import sys
from collections.abc import Callable, Iterable, Mapping, Sequence
from dataclasses import replace
from typing import Any

import numpy as np
import polars as pl
from dask.base import tokenize
from dask.sizeof import sizeof
from dask.task_spec import Task
from dask.typing import Key
from dask.utils import funcname

from rainbear_dask.credentials import seal
from rainbear_dask.planner import ScanTask
from rainbear_dask.wire import Part, Parts, pack, unpack


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
        graph[key] = Task(key, run, _sealed(task), *args)
    return graph


def _sealed(task: ScanTask) -> ScanTask:
    """The same without credentials, which have a way of their own (`delivery`)."""
    spec = seal(task.scan.spec)
    return task if spec is task.scan.spec else replace(task, scan=replace(task.scan, spec=spec))


def _short_name(task: ScanTask) -> str:
    """Last part of the store's address that says something."""
    words = re.findall(r"[\w.]+", f"{task.scan.spec.label}/{task.scan.spec.group}".replace(".zarr", ""))
    return str(words[-1] if words else "store")[:40]


# ---------------------------------------------------------------------- Dask's serialization


def register_serialization() -> None:
    """Tell Dask how `Parts` and frames travel, each buffer a frame of its own, and how large frames are.

    Without the latter Dask takes a frame of Polars for a few bytes, and would never spill it. More than once is the same
    as once.
    """
    from distributed.protocol.serialize import dask_deserialize, dask_serialize  # noqa: PLC0415  slow to import

    dask_serialize.register(Parts, _serialize)
    dask_deserialize.register(Parts, _deserialize)
    dask_serialize.register(pl.DataFrame, _serialize_frame)
    dask_deserialize.register(pl.DataFrame, _deserialize_frame)
    sizeof.register(pl.DataFrame, _bytes_of_frame)


def _serialize(parts: Parts) -> tuple[dict[str, Any], list[memoryview]]:
    shape, buffers = pack(parts)
    return {"shape": pickle.dumps(shape)}, [buffer.data for buffer in buffers]


def _deserialize(header: Mapping[str, Any], frames: Sequence[Any]) -> Parts:
    # as Dask itself does with what comes from its cluster
    return unpack(pickle.loads(header["shape"]), [np.frombuffer(frame, np.uint8) for frame in frames])  # noqa: S301


def _serialize_frame(frame: pl.DataFrame) -> tuple[dict[str, Any], list[memoryview]]:
    return _serialize(Parts(frame.height, tuple(Part(column) for column in frame.iter_columns())))


def _deserialize_frame(header: Mapping[str, Any], frames: Sequence[Any]) -> pl.DataFrame:
    parts = _deserialize(header, frames)
    return pl.DataFrame([part.values for part in parts.columns] or None, height=parts.height)


def _bytes_of_frame(frame: pl.DataFrame) -> int:
    return int(frame.estimated_size())


if "distributed" in sys.modules:  # as on every worker, also on those that never make a graph
    register_serialization()
