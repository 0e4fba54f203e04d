"""Register plugins on the workers of a cluster, and bring them credentials. Import lazily: ``distributed`` is slow."""

import asyncio
from contextlib import suppress
from weakref import WeakKeyDictionary

from distributed import Client, Scheduler, Worker
from distributed.diagnostics.plugin import SchedulerPlugin, WorkerPlugin

from rainbear_dask.chunks import read as storage
from rainbear_dask.execution.distributed_internals import drop_worker_plugins
from rainbear_dask.storage.credentials import Secret, is_known

_PREFIX = "rainbear-dask-credentials"

_MAX_ATTEMPTS, _PAUSE_SECONDS = 10, 0.2

_MAX_SECRETS = 256
"""Secrets of one client that workers keep although no scan of this process needs them: tasks in flight still may."""


class _SecretKeeper(WorkerPlugin):
    """Keeps a secret on each present and future worker of a cluster; the scheduler holds it as bytes only."""

    idempotent = False  # after a registration that reached some workers only, the next one must reach all

    def __init__(self, secret: Secret, client: str) -> None:
        self.name = _keeper_name(client, secret.token)
        self.secret: Secret | None = secret

    def teardown(self, worker: Worker) -> None:
        """Forget the secret, and close the connections that were opened with it."""
        self.secret = None
        storage.disconnect()


class _SecretRemover(SchedulerPlugin):
    """Removes the secrets of a client from the cluster when the client leaves."""

    idempotent = True

    def __init__(self, client: str) -> None:
        self.name = f"{_PREFIX}-{client}"

    def remove_client(self, scheduler: Scheduler, client: str) -> None:
        """Make present and future workers forget the secrets of the client that leaves."""
        if self.name != f"{_PREFIX}-{client}":
            return
        drop_worker_plugins(scheduler, prefix=f"{self.name}-")
        scheduler.remove_plugin(self.name)


async def register(client: Client, plugin: WorkerPlugin) -> None:
    """Register a plugin on each present and future worker of a cluster; runs on the client's event loop.

    If a worker leaves meanwhile, as preempted and surplus workers do, distributed raises an error for all of them. The
    registration is then retried.
    """
    for _ in range(_MAX_ATTEMPTS):
        with suppress(OSError):
            await client.register_plugin(plugin)
            return
        await asyncio.sleep(_PAUSE_SECONDS)
    await client.register_plugin(plugin)


_deliveries: WeakKeyDictionary[Client, dict[str, asyncio.Task[None]]] = WeakKeyDictionary()


async def deliver(client: Client, secret: Secret) -> None:
    """Bring a secret to all workers, unless they have it; runs on the client's event loop."""
    begun = _deliveries.setdefault(client, {})
    if secret.token not in begun or _failed(begun[secret.token]):
        begun[secret.token] = asyncio.ensure_future(_bring(client, secret))
    await asyncio.shield(begun[secret.token])  # a second caller waits for the first, and cannot cancel it
    await _withdraw_old(client, begun)


async def _withdraw_old(client: Client, begun: dict[str, asyncio.Task[None]]) -> None:
    """Make workers forget the oldest secrets beyond `_MAX_SECRETS` that no scan of this process can use any more."""
    for token in [token for token in list(begun)[:-_MAX_SECRETS] if begun[token].done() and not is_known(token)]:
        del begun[token]
        await client.unregister_worker_plugin(name=_keeper_name(client.id, token))


def is_delivered(client: Client, secret: Secret) -> bool:
    """Whether all workers have a secret."""
    delivery = _deliveries.get(client, {}).get(secret.token)
    return delivery is not None and delivery.done() and not _failed(delivery)


async def _bring(client: Client, secret: Secret) -> None:
    await client.register_plugin(_SecretRemover(client.id))
    await register(client, _SecretKeeper(secret, client.id))


def _keeper_name(client: str, token: str) -> str:
    return f"{_PREFIX}-{client}-{token}"


def _failed(delivery: asyncio.Task[None]) -> bool:
    return delivery.done() and (delivery.cancelled() or delivery.exception() is not None)
