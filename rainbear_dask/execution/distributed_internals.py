"""Everything that this package uses of distributed beyond its documented API, as read in distributed 2026.8.0.

``tests/execution/test_distributed_internals.py`` fails if a release changes any of it.
"""

from typing import TYPE_CHECKING

if TYPE_CHECKING:
    from distributed import Client, Scheduler, Worker

_CONNECT_SECONDS = 2


def direct_to_workers(client: "Client") -> bool | None:
    """Return the argument of that name that a client was made with; None if the client may choose."""
    chosen: bool | None = client.direct_to_workers
    return None if chosen is None else bool(chosen)


async def can_connect(client: "Client", address: str) -> bool:
    """Try to reach a worker from this process; a connection that opens is kept in the client's pool."""
    try:
        comm = await client.rpc.connect(address, timeout=_CONNECT_SECONDS)
    except OSError:
        return False
    client.rpc.reuse(address, comm)
    return True


def num_worker_threads(worker: "Worker") -> int:
    """Return how many tasks a worker runs at the same time."""
    return int(worker.state.nthreads)


def drop_worker_plugins(scheduler: "Scheduler", prefix: str) -> None:
    """Unregister the worker plugins whose names begin with a prefix, on the scheduler's event loop."""
    for name in [name for name in scheduler.worker_plugins if name.startswith(prefix)]:
        scheduler.loop.add_callback(scheduler.unregister_worker_plugin, comm=None, name=name)
