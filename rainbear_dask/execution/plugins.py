"""Brings plugins to the workers of a cluster, and credentials, once for each client. Imported when asked for, as it needs ``distributed``."""

import asyncio
from contextlib import suppress
from weakref import WeakKeyDictionary

from distributed import Client, Scheduler, Worker
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

from rainbear_dask.chunks import read as storage
from rainbear_dask.storage.credentials import Secret, is_known

_PREFIX = "rainbear-dask-credentials"


class _Keeper(WorkerPlugin):
    """Keeps a secret on each worker that a cluster has or will have; the scheduler has it as bytes only."""

    idempotent = False  # what was registered, but did not reach all, is registered again

    def __init__(self, secret: Secret, client: str) -> None:
        self.name = _keeper_name(client, secret.token)
        self.secret: Secret | None = secret

    def teardown(self, worker: Worker) -> None:
        """Forget it, and what was opened with it."""
        self.secret = None
        storage.disconnect()


class _Leaver(SchedulerPlugin):
    """Takes a client's secrets from the cluster when the client goes."""

    idempotent = True

    def __init__(self, client: str) -> None:
        self.name = f"{_PREFIX}-{client}"

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Have workers, present and future, forget them."""
        if self.name != f"{_PREFIX}-{client}":
            return
        for name in [name for name in scheduler.worker_plugins if name.startswith(f"{self.name}-")]:
            scheduler.loop.add_callback(scheduler.unregister_worker_plugin, comm=None, name=name)
        scheduler.remove_plugin(self.name)


async def register(client: Client, plugin: WorkerPlugin) -> None:
    """Register a plugin on all workers that a cluster has or will have; runs on the client's event loop.

    Where a worker goes meanwhile, as preempted and surplus ones do, `distributed` makes it an error for all.
    """
    for _ in range(_TRIES):
        with suppress(OSError):
            await client.register_plugin(plugin)
            return
        await asyncio.sleep(_PAUSE_SECONDS)
    await client.register_plugin(plugin)


_TRIES, _PAUSE_SECONDS = 10, 0.2

_deliveries: WeakKeyDictionary[Client, dict[str, asyncio.Task[None]]] = WeakKeyDictionary()


async def deliver(client: Client, secret: Secret) -> None:
    """Bring a secret to all workers, unless that is done; runs on the client's event loop."""
    begun = _deliveries.setdefault(client, {})
    if secret.token not in begun or _failed(begun[secret.token]):
        begun[secret.token] = asyncio.ensure_future(_bring(client, secret))
    await asyncio.shield(begun[secret.token])  # whoever comes second waits for the first, and is not in its way
    await _withdraw_old(client, begun)


async def _withdraw_old(client: Client, begun: dict[str, asyncio.Task[None]]) -> None:
    """Have workers forget the oldest secrets of many, if no scan of this process can ask with them any more."""
    for token in [token for token in list(begun)[:-_MAX_SECRETS] if begun[token].done() and not is_known(token)]:
        del begun[token]
        await client.unregister_worker_plugin(name=_keeper_name(client.id, token))


_MAX_SECRETS = 256  # of a client; tasks that are under way may need those that nothing in the client holds


def _keeper_name(client: str, token: str) -> str:
    return f"{_PREFIX}-{client}-{token}"


def is_delivered(client: Client, secret: Secret) -> bool:
    """Whether all workers have it."""
    delivery = _deliveries.get(client, {}).get(secret.token)
    return delivery is not None and delivery.done() and not _failed(delivery)


async def _bring(client: Client, secret: Secret) -> None:
    await client.register_plugin(_Leaver(client.id))
    await register(client, _Keeper(secret, client.id))


def _failed(delivery: asyncio.Task[None]) -> bool:
    return delivery.done() and (delivery.cancelled() or delivery.exception() is not None)
