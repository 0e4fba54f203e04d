"""Which Dask client a scan works with, if any, and how it is reached."""

import sys
from typing import TYPE_CHECKING
from weakref import WeakKeyDictionary

from dask.base import get_annotations

from rainbear_dask.configuration import num_bytes
from rainbear_dask.exceptions import QueryError
from rainbear_dask.planner import ReadPlan, ScanTask
from rainbear_dask.storage import check_travels

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
        small = client is not None and not get_annotations() and plan.bytes_kept <= num_bytes("small-plan-bytes")
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


def check_reaches(client: "Client", task: ScanTask) -> None:
    """Refuse to send a task to a cluster of other processes if its store lives in the memory of this one."""
    if not str(client.scheduler.address if client.scheduler else "").startswith("inproc://"):
        check_travels(task.scan.spec)


def is_direct(client: "Client") -> bool:
    """Whether answers come from the workers, not by way of the scheduler: twice as fast, where they can be reached."""
    if client.direct_to_workers is not None:
        return bool(client.direct_to_workers)
    if client not in _reaching:
        _reaching[client] = client.sync(_reaches, client, next(iter(client.nthreads()), None))
    return _reaching[client]


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
