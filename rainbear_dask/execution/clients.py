"""Which Dask client a scan works with, if any, and how it is reached."""

import sys
import time
from collections.abc import Callable
from math import inf
from typing import TYPE_CHECKING, Any
from weakref import WeakKeyDictionary

from dask.base import get_annotations

from rainbear_dask.exceptions import QueryError
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.resources.settings import num_bytes
from rainbear_dask.storage.credentials import secret_of
from rainbear_dask.storage.sources import check_travels
from rainbear_dask.storage.spec import StoreSpec

if TYPE_CHECKING:
    from distributed import Client


def client_for(plan: ReadPlan, client: "Client | None" = None, *, awaited: bool = False) -> "Client | None":
    """Where to run a plan.

    Parameters
    ----------
    plan : ReadPlan
        What is to be read.
    client : distributed.Client, optional
        Where the caller wants it to be run.
    awaited : bool
        Whether the caller awaits the answers, as he has to where a client is asynchronous.

    Returns
    -------
    distributed.Client or None
        The caller's; else the active Dask client, where there is one, unless the plan is so small that threads of this
        process are sooner done with it (the setting ``small-plan-bytes``) and no Dask annotations are active, which
        would say how a cluster is to run it. None for threads of this process.

    Raises
    ------
    QueryError
        If the caller's client is asynchronous and this is the thread of its event loop, which would wait for itself.
    """
    if client is None:
        client = active_client(awaited=awaited)
        small = client is not None and not get_annotations() and plan.counts.bytes_kept <= num_bytes("small-plan-bytes")
        return None if small else client
    if client.asynchronous and not awaited:
        raise QueryError(
            "this Dask client is asynchronous, and its event loop would wait for itself here. Await the scan: "
            "await lf.collect_async(), or a backend's scan_zarr_async()."
        )
    return client


def active_client(*, awaited: bool = False) -> "Client | None":
    """The Dask client that this process works with, if there is one; never inside a Dask task, which has a thread.

    One of ``Client(asynchronous=True)`` only where its answers are awaited: who waits for them otherwise waits for ever.
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
    """Refuse to have a cluster of other processes read a store that lives in the memory of this one."""
    if not str(client.scheduler.address if client.scheduler else "").startswith("inproc://"):
        check_travels(spec)


def bring_credentials(client: "Client", spec: StoreSpec) -> Any:
    """Bring the workers what graphs leave out of a recipe, once; to be awaited where the client is asynchronous."""
    if secret_of(spec) is None and not client.asynchronous:
        return None
    return client.sync(_bring_credentials, client, spec)


def bring_at_once(client: "Client", spec: StoreSpec) -> None:
    """Bring the workers what graphs leave out of a recipe, where nobody can await it.

    Raises
    ------
    QueryError
        If it is not there yet, and this is the thread of the client's event loop, which would wait for itself.
    """
    secret = secret_of(spec)
    if secret is None:
        return
    if not client.asynchronous:
        bring_credentials(client, spec)
        return
    from rainbear_dask.execution.plugins import is_delivered  # noqa: PLC0415  needs distributed, which is slow to import

    if not is_delivered(client, secret):
        raise QueryError(
            f"the workers have no credentials for {spec.label} yet, and this Dask client is asynchronous: its event loop "
            "would wait for itself here. Compute on a thread: await asyncio.to_thread(frame.compute)."
        )


async def _bring_credentials(client: "Client", spec: StoreSpec) -> None:
    secret = secret_of(spec)
    if secret is not None:
        from rainbear_dask.execution.plugins import deliver  # noqa: PLC0415  needs distributed, which is slow to import

        await deliver(client, secret)


def threads_of(client: "Client") -> Callable[[], Any]:
    """How many threads a cluster's workers have, at least one: asked again after a second, as clusters grow and shrink.

    To be awaited where the client is asynchronous.
    """
    known, until = 1, -inf

    async def look() -> int:
        nonlocal known, until
        if time.monotonic() >= until:
            known = max(sum((await client.nthreads()).values()), 1)
            until = time.monotonic() + 1
        return known

    return lambda: known if time.monotonic() < until and not client.asynchronous else client.sync(look)


def is_direct(client: "Client") -> Any:
    """Whether answers come from the workers, not by way of the scheduler: twice as fast, where they can be reached.

    To be awaited where the client is asynchronous.
    """
    known = _known_as_direct(client)
    return client.sync(_is_direct, client) if known is None or client.asynchronous else known


def _known_as_direct(client: "Client") -> bool | None:
    return _reaching.get(client) if client.direct_to_workers is None else bool(client.direct_to_workers)


async def _is_direct(client: "Client") -> bool:
    known = _known_as_direct(client)
    if known is None:
        known = _reaching[client] = await _reaches(client, next(iter(await client.nthreads()), None))
    return known


_reaching: "WeakKeyDictionary[Client, bool]" = WeakKeyDictionary()


async def _reaches(client: "Client", worker: str | None) -> bool:
    if worker is None:
        return False
    try:
        comm = await client.rpc.connect(worker, timeout=_REACH_SECONDS)
    except OSError:
        return False
    client.rpc.reuse(worker, comm)
    return True


_REACH_SECONDS = 2
