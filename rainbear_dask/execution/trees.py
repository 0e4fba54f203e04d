"""Merge the results of many tasks in a fixed tree: on the workers of a cluster, so that the client receives few.

The tree depends on the number of tasks alone. Threads merge in the same tree, so results have the same bits everywhere.
"""

from collections import deque
from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import closing
from dataclasses import dataclass
from itertools import chain, islice
from typing import TYPE_CHECKING, Any, TypeVar

from dask.base import annotate, tokenize

from rainbear_dask.execution.clients import told_of_loss
from rainbear_dask.execution.executors import DaskExecutor, Work
from rainbear_dask.execution.run import run_tasks
from rainbear_dask.execution.stream import Job
from rainbear_dask.planning.task import Scan, Task

if TYPE_CHECKING:
    from distributed import Client

T = TypeVar("T")

MAX_UNMERGED = 64
"""Results that the client merges itself, at most."""

ARITY = 8
"""Results that one merge takes, at most."""

Merge = Callable[[Sequence[T]], T]


@dataclass(frozen=True)
class Bunch:
    """Tasks whose results are merged where they are made.

    Parameters
    ----------
    tasks : tuple of Task
        The tasks, at least one.
    """

    tasks: tuple[Task, ...]

    @property
    def scan(self) -> Scan:
        """The part that its tasks share."""
        return self.tasks[0].scan

    @property
    def frame_bytes(self) -> int:
        """Estimated upper bound of the bytes of all results."""
        return sum(task.frame_bytes for task in self.tasks)

    @property
    def sent_bytes(self) -> int:
        """Estimated bytes of the tasks."""
        return sum(task.sent_bytes for task in self.tasks)


def bunched(tasks: Iterable[Task], num_tasks: int) -> Iterator[Bunch]:
    """Yield tasks in at most `MAX_UNMERGED` bunches; if there are no more tasks than that, each is alone."""
    size, todo = 1, iter(tasks)
    while num_tasks > size * MAX_UNMERGED:
        size *= ARITY
    while some := tuple(islice(todo, size)):
        yield Bunch(some)


def folded(results: Sequence[T], merge: Merge[T]) -> T:
    """Return the root of the tree of some results: neighbours are merged, level by level."""
    while len(results) > 1:
        results = [merge(results[start : start + ARITY]) for start in range(0, len(results), ARITY)]
    return results[0]


def run_bunches(bunches: Iterable[Bunch], client: "Client | None", work: Work[T], merge: Merge[T]) -> Iterator[T]:
    """Do some work for each task of some bunches, and merge the results of each bunch.

    Parameters
    ----------
    bunches : iterable of Bunch
        Consumed lazily.
    client : distributed.Client, optional
        Client of the cluster that runs the tasks and merges their results; by default this process does.
    work : Work
        What to do with each task.
    merge : callable
        Top-level function of several results of the work, in their order.

    Returns
    -------
    iterator
        One result for each bunch, in order. Tasks in flight are bounded as by `run.run_tasks`.
    """
    todo = iter(bunches)
    first = next(todo, None)
    if first is None:
        return
    todo = chain([first], todo)
    if client is not None:
        executor = _TreeExecutor(client, work, merge, len(first.tasks))
        yield from run_tasks(todo, client, work, executor=executor)
        return
    sizes = deque[int]()

    def tasks() -> Iterator[Task]:
        for bunch in todo:
            sizes.append(len(bunch.tasks))
            yield from bunch.tasks

    with closing(run_tasks(tasks(), None, work)) as results:  # type: ignore[type-var]  # a generator
        for result in results:
            yield folded([result, *islice(results, sizes.popleft() - 1)], merge)


class _TreeExecutor(DaskExecutor[T]):
    """Runs bunches: each task on a worker, and merges of their results on workers."""

    def __init__(self, client: "Client", work: Work[T], merge: Merge[T], size: int) -> None:
        super().__init__(client, work)
        self._merge, self._size = merge, size

    def submit(self, tasks: Sequence[Any]) -> list[Job[T]]:
        """Submit the tasks and the merges of some bunches."""
        leaves = iter(self._start([task for bunch in tasks for task in bunch.tasks]))
        roots = [self._root(list(islice(leaves, len(bunch.tasks)))) for bunch in tasks]
        return [self._job(root) for root in roots]

    def _root(self, futures: list[Any]) -> Any:
        with told_of_loss(self._client, OSError), annotate(**self._work.annotations):
            return folded(futures, self._merged)

    def _merged(self, futures: Sequence[Any]) -> Any:
        name = futures[0].key[0]
        key = (f"merge-{name}", tokenize(self._merge, [future.key for future in futures]))
        merged = self._client.submit(self._merge, list(futures), key=key, pure=False, fifo_timeout="0s")
        self._unfetched.add(merged)
        for future in futures:
            self._release(future)  # the scheduler keeps it for the merge
        if self._is_closed:
            self._release_all()
        return merged

    def width(self) -> int:
        """Return how many bunches can run at the same time."""
        return -(-super().width() // self._size)
