"""Choose the Dask client of a scan, and find out how to reach its workers."""

import logging
import sys
import time
from collections.abc import Callable, Iterator
from concurrent.futures import CancelledError
from contextlib import contextmanager
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dask.base import get_annotations

from rainbear_dask.diagnostics.explanation import Place
from rainbear_dask.exceptions import ClusterError, QueryError
from rainbear_dask.execution.distributed_internals import can_connect, direct_to_workers
from rainbear_dask.logs import logger
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.redaction import reason
from rainbear_dask.resources.limits import readable_bytes
from rainbear_dask.resources.settings import num_bytes
from rainbear_dask.storage.credentials import secret_of
from rainbear_dask.storage.sources import check_travels
from rainbear_dask.storage.spec import StoreSpec

if TYPE_CHECKING:
    from distributed import Client

_LOG = logger("scan")

_THREADS_SECONDS = 1
"""How long a number of worker threads stays valid: clusters grow and shrink."""


def client_for(plan: ReadPlan, client: "Client | None" = None, *, awaited: bool = False) -> "Client | None":
    """Return the client that runs a plan.

    Parameters
    ----------
    plan : ReadPlan
        The plan to run.
    client : distributed.Client, optional
        The client that the caller asked for.
    awaited : bool
        Whether the caller awaits the results. An asynchronous client requires it.

    Returns
    -------
    distributed.Client or None
        The caller's client, else the active Dask client if there is one. None means threads of this process, which
        finish small plans sooner (setting ``small-plan-bytes``). If the caller named a client, or if Dask annotations
        are active, no plan counts as small: annotations say how a cluster runs the tasks.

    Raises
    ------
    QueryError
        If the caller's client is asynchronous and this is the thread of its event loop, which would wait for itself.
    ClusterError
        If the caller's client is no Dask client, or is closed.
    """
    check_client(client)
    if _LOG.isEnabledFor(logging.INFO):  # counting takes time
        counts = plan.counts
        _LOG.info(
            "scan of %s: %s of %s chunks, %s, %s rows at most, %s tasks, on %s",
            *(plan.table.spec.label, counts.num_chunks_kept, counts.num_chunks, readable_bytes(counts.bytes_kept)),
            *(counts.max_rows, counts.num_tasks, place_of(plan, client)),
        )
    chosen = chosen_client(client, awaited=awaited)
    return None if client is None and chosen is not None and _is_small(plan) else chosen


def chosen_client(client: "Client | None" = None, *, awaited: bool = False) -> "Client | None":
    """Return the caller's client, else the active one, as `client_for` does for a large plan."""
    check_client(client)
    if client is None:
        return active_client(awaited=awaited)
    if client.asynchronous and not awaited:
        raise QueryError(
            "This Dask client is asynchronous, and its event loop would wait for itself. Await the scan: "
            "`await lf.collect_async()`, or a backend's `scan_zarr_async()`."
        )
    return client


def place_of(plan: ReadPlan, client: "Client | None" = None) -> Place:
    """Return where a plan would run now, and why.

    Parameters
    ----------
    plan : ReadPlan
        The plan.
    client : distributed.Client, optional
        The client that the caller named.
    """
    if client is not None:
        return Place("cluster", "the caller named its client")
    if active_client(awaited=True) is None:
        return Place("threads", "no Dask client is active")
    if _is_small(plan):
        limit = readable_bytes(num_bytes("small-plan-bytes"))
        return Place("threads", f"the plan reads {limit} at most; an explicit `client=` takes precedence")
    return Place("cluster", "a Dask client is active")


def _is_small(plan: ReadPlan) -> bool:
    """Whether threads of this process finish a plan before a scheduler could distribute it."""
    return not get_annotations() and plan.counts.bytes_kept <= num_bytes("small-plan-bytes")


def check_client(client: object) -> None:
    """Refuse a client that is no Dask client, or is closed; None passes.

    Raises
    ------
    ClusterError
        If tasks cannot run on it.
    """
    if client is None:
        return
    if not (hasattr(client, "status") and hasattr(client, "asynchronous")):
        address = client if isinstance(client, str) else "tcp://scheduler:8786"
        raise ClusterError(
            f"The client is a {type(client).__name__}, not a Dask client. Connect first: "
            f"client=distributed.Client({address!r}), or `with rainbear_dask.cluster.connect({address!r}):`."
        )
    if client.status in ("closing", "closed"):
        raise ClusterError(
            "The Dask client is closed, so it cannot run tasks. Pass an open client, or collect inside its `with` block."
        )


def open_client(client: "Client | None") -> "Client | None":
    """Return the caller's client, else the active one, also for small plans; None without one.

    Raises
    ------
    ClusterError
        As `check_client`.
    """
    check_client(client)
    return client or active_client()


def active_client(*, awaited: bool = False) -> "Client | None":
    """Return the active Dask client of this process; None without one, or inside a Dask task, which occupies a thread.

    A client of ``Client(asynchronous=True)`` counts only if the caller awaits the results, because a caller that blocks
    its event loop would wait for ever.
    """
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
        return client if awaited or not client.asynchronous else None
    return None


def check_reaches(client: "Client", spec: StoreSpec) -> None:
    """Raise an error if a store lives in the memory of this process, and the workers are other processes."""
    if not str(client.scheduler.address if client.scheduler else "").startswith("inproc://"):
        check_travels(spec)


def bring_credentials(client: "Client", spec: StoreSpec) -> Any:
    """Bring the workers, once, the secrets of a store that graphs leave out.

    On the event loop of an asynchronous client, await the result.
    """
    if secret_of(spec) is None and not client.asynchronous:
        return None
    return client.sync(_bring_credentials, client, spec)


def bring_at_once(client: "Client", spec: StoreSpec) -> None:
    """Bring the workers the secrets of a store that graphs leave out, if the caller cannot await it.

    Raises
    ------
    QueryError
        If the workers lack the secrets and this is the thread of the client's event loop, which would wait for itself.
    """
    secret = secret_of(spec)
    if secret is None:
        return
    if not client.asynchronous:
        bring_credentials(client, spec)
        return
    from rainbear_dask.execution.plugins import is_delivered  # noqa: PLC0415  distributed is slow to import

    if not is_delivered(client, secret):
        raise QueryError(
            f"The workers have no credentials for {spec.label} yet. This Dask client is asynchronous, so its event "
            "loop would wait for itself to bring them. Compute on a thread: `await asyncio.to_thread(frame.compute)`."
        )


async def _bring_credentials(client: "Client", spec: StoreSpec) -> None:
    secret = secret_of(spec)
    if secret is not None:
        from rainbear_dask.execution.plugins import deliver  # noqa: PLC0415  distributed is slow to import

        await deliver(client, secret)


@contextmanager
def told_of_loss(client: "Client", *errors: type[Exception]) -> Iterator[None]:
    """Raise a `ClusterError` that says how to go on if the scheduler is gone.

    Parameters
    ----------
    client : distributed.Client
        A client that is trying to connect again has lost its tasks.
    *errors : type
        Errors that mean the same here, beside that of a task which the cluster has dropped.
    """
    cause = "the client has lost its connection" if client.status == "connecting" else ""
    if not cause:
        try:
            yield
        except Exception as err:
            if not isinstance(err, (CancelledError, *errors)) and client.status != "connecting":
                raise
            cause = reason(err)
    if cause:
        raise ClusterError(
            f"The Dask scheduler is gone, or has dropped a task of this scan: {cause}. Connect again and repeat the "
            "call; write_parquet() then continues where it stopped."
        )


def count_threads(client: "Client") -> Callable[[], int]:
    """Return a function that counts the threads of a cluster's workers, at least one.

    It asks the scheduler at most once a second, and blocks meanwhile. Do not call it on the client's event loop.
    """
    known, until = 1, -inf

    async def ask_scheduler() -> int:
        return max(int(sum((await client.nthreads()).values())), 1)

    def count() -> int:
        nonlocal known, until
        if time.monotonic() >= until:
            known = client.sync(ask_scheduler)
            until = time.monotonic() + _THREADS_SECONDS
        return known

    return count


def is_direct(client: "Client") -> bool:
    """Whether to fetch results from the workers instead of through the scheduler: twice as fast if they are reachable.

    Blocks until that is known. Do not call it on the client's event loop.
    """
    known = _known_as_direct(client)
    return bool(client.sync(_find_out, client)) if known is None else known


def _known_as_direct(client: "Client") -> bool | None:
    chosen = direct_to_workers(client)
    return _reachable.get(client) if chosen is None else chosen


async def _find_out(client: "Client") -> bool:
    known = _known_as_direct(client)
    if known is None:
        worker = next(iter(await client.nthreads()), None)
        known = _reachable[client] = worker is not None and await can_connect(client, worker)
    return known


_reachable: "WeakKeyDictionary[Client, bool]" = WeakKeyDictionary()
