"""Running tasks, on threads of this process or on a Dask cluster: in order, bounded, and leaving nothing behind."""

import os
import sys
from collections import deque
from collections.abc import Callable, Iterable, Iterator
from concurrent.futures import ThreadPoolExecutor
from contextlib import contextmanager
from itertools import islice
from typing import TYPE_CHECKING, Protocol

import polars as pl

from rainbear_dask.graph import build_graph
from rainbear_dask.planner import ScanTask
from rainbear_dask.worker import run_task

if TYPE_CHECKING:
    from distributed import Client, Future


class Pending(Protocol):
    """A frame that was asked for."""

    def result(self) -> pl.DataFrame:
        """Wait for the frame."""


Submit = Callable[[ScanTask], Pending]


def iter_frames(
    tasks: Iterable[ScanTask], client: "Client | None" = None, *, limit: int | None = None
) -> Iterator[pl.DataFrame]:
    """Run tasks and yield their frames in task order.

    Parameters
    ----------
    tasks : iterable of ScanTask
        Taken one by one, as they are asked for.
    client : distributed.Client, optional
        Where to run them; by default on threads of this process.
    limit : int, optional
        Rows wanted at most. One task is then asked for first; else as many as can run at the same time. Each time that
        it was not enough, twice as many are.

    Yields
    ------
    DataFrame
        One for each task. However slow the caller, at most twice as many are held as can be made at the same time.
        Closing the iterator drops what was asked for.
    """
    with _threads() if client is None else _cluster(client) as (submit, width):
        most = 2 * width
        ahead = width if limit is None else 1
        todo, pending = iter(tasks), deque[Pending]()
        left = limit
        while left is None or left > 0:
            pending += map(submit, islice(todo, max(ahead - len(pending), 0)))
            if not pending:
                return
            frame = pending.popleft().result()
            if left is not None:
                frame = frame.head(left)
                left -= frame.height
            yield frame
            ahead = min(2 * ahead, most)


def active_client() -> "Client | None":
    """The Dask client that this process works with, if there is one; never inside a Dask task, which has a thread."""
    distributed = sys.modules.get("distributed")
    if distributed is None:
        return None
    try:
        distributed.get_worker()
    except ValueError:  # not in a task
        try:
            client: Client = distributed.default_client()
        except ValueError:
            return None
        return client
    return None


@contextmanager
def _threads() -> Iterator[tuple[Submit, int]]:
    """Threads of this process, as many as it has processors."""
    width = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
    pool = ThreadPoolExecutor(width, thread_name_prefix="scan-zarr")
    try:
        yield lambda task: pool.submit(run_task, task), width
    finally:
        # not waiting: Polars may drop a half-read stream on one of these very threads
        pool.shutdown(wait=False, cancel_futures=True)


@contextmanager
def _cluster(client: "Client") -> Iterator[tuple[Submit, int]]:
    """Workers of a Dask cluster."""
    asked: set[_Asked] = set()

    def submit(task: ScanTask) -> Pending:
        graph = build_graph([task], run_task)
        pending = _Asked(client.get(graph, next(iter(graph)), sync=False), asked)
        asked.add(pending)
        return pending

    try:
        yield submit, max(sum(client.nthreads().values()), 1)
    finally:
        for pending in list(asked):
            pending.release()


class _Asked:
    """A frame on the cluster, given up as soon as it was fetched or is not wanted any more.

    Released, not cancelled: another scan of this client that asked for the same task still gets it.
    """

    def __init__(self, future: "Future[pl.DataFrame]", asked: "set[_Asked]") -> None:
        self._future, self._asked = future, asked

    def result(self) -> pl.DataFrame:
        try:
            return self._future.result()
        finally:
            self.release()

    def release(self) -> None:
        self._asked.discard(self)
        self._future.release()
