"""Bring the results of Dask tasks to this process: those that are ready together, in one call."""

from collections import deque
from collections.abc import Callable, Sequence
from concurrent.futures import Future, ThreadPoolExecutor
from threading import Lock
from typing import TYPE_CHECKING, Any, Generic, TypeVar

from rainbear_dask.execution.clients import is_direct, told_of_loss

if TYPE_CHECKING:
    import distributed
    from distributed import Client

T = TypeVar("T")

_NUM_THREADS = 4
"""Threads per scan that fetch results from a cluster."""


class Fetcher(Generic[T]):
    """Fetches the results of Dask futures on a few threads, and releases each future as soon as its result is here.

    A call for one result takes the client and its event loop some milliseconds, hardly less than a call for many.

    Parameters
    ----------
    client : distributed.Client
        A client of either kind. The threads block on its event loop.
    receive : callable
        Turns a result into the value for the caller.
    release : callable
        Called with each future after its result is here, or after its error is known.
    """

    def __init__(
        self, client: "Client", receive: Callable[[Any], T], release: "Callable[[distributed.Future[Any]], None]"
    ) -> None:
        self._client, self._receive, self._release = client, receive, release
        self._pool = ThreadPoolExecutor(_NUM_THREADS, thread_name_prefix="scan-zarr-fetch")
        self._wanted: deque[tuple[distributed.Future[Any], Future[T]]] = deque()
        self._lock = Lock()

    def fetch(self, future: "distributed.Future[Any]") -> Future[T]:
        """Start to fetch a result, which may not be ready yet."""
        answer = Future[T]()
        with self._lock:
            self._wanted.append((future, answer))
        self._pool.submit(self._fetch_some)
        return answer

    def close(self) -> None:
        """Begin no further call."""
        self._pool.shutdown(wait=False, cancel_futures=True)

    def _fetch_some(self) -> None:
        """Fetch this thread's share of the results that are ready; if none is, wait for the first one."""
        with self._lock:
            ready = [one for one in self._wanted if one[0].done()]
            some = ready[: -(-len(ready) // _NUM_THREADS)] or list(self._wanted)[:1]
            for one in some:
                self._wanted.remove(one)
        if not some:  # another thread has fetched them
            return
        for (future, answer), result in zip(some, self._gather([future for future, _ in some]), strict=True):
            self._release(future)
            if answer.set_running_or_notify_cancel():
                self._answer(answer, result)

    def _answer(self, answer: Future[T], result: Any) -> None:
        try:
            answer.set_result(self._receive(_checked(result)))
        except BaseException as err:  # noqa: BLE001  raised where the caller waits
            answer.set_exception(err)

    def _gather(self, futures: "Sequence[distributed.Future[Any]]") -> list[Any]:
        """Return the results, with a `_Failed` in place of each error."""
        try:
            with told_of_loss(self._client):
                return list(self._client.gather(list(futures), direct=is_direct(self._client)))
        except BaseException as err:  # noqa: BLE001  raised where the caller waits
            if len(futures) == 1:
                return [_Failed(err)]
        return [result for future in futures for result in self._gather([future])]


class _Failed:
    """The error of a task, in place of its result."""

    def __init__(self, error: BaseException) -> None:
        self.error = error


def _checked(result: Any) -> Any:
    if isinstance(result, _Failed):
        raise result.error
    return result
