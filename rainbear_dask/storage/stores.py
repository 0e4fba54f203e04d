"""Connected stores of recipes, which a process keeps and shares."""

import threading
from collections.abc import Callable

from zarr.abc.store import Store
from zarr.storage import LocalStore, MemoryStore, ZipStore

from rainbear_dask.exceptions import StoreNotFoundError
from rainbear_dask.logs import logger
from rainbear_dask.redaction import secrets_of
from rainbear_dask.resources.cache import ByteLRU
from rainbear_dask.resources.openings import when_gone
from rainbear_dask.storage.connect import connect, disconnect_all, forget_connection
from rainbear_dask.storage.credentials import unseal
from rainbear_dask.storage.errors import translate_errors
from rainbear_dask.storage.sources import is_icechunk, is_url
from rainbear_dask.storage.spec import CacheKey, StoreSpec
from rainbear_dask.storage.zarr_internals import sync

_LOG = logger("storage")

MAX_CACHED_STORES = 64
"""Connected stores that a process keeps."""

_stores: ByteLRU[CacheKey, Store] = ByteLRU(lambda: MAX_CACHED_STORES, lambda *_: 1, lambda key: key[0], overhead=0)
when_gone(_stores.forget_soon)
_renewing = threading.Lock()


def connected_store(spec: StoreSpec) -> Store:
    """Return the store of a recipe, for other libraries that read Zarr.

    Raises
    ------
    StoreError
        If the store cannot be reached.
    """
    with translate_errors(spec.label, lambda: secrets_in(spec)):
        return store_of(spec)


def store_of(spec: StoreSpec) -> Store:
    """Return the store of a recipe; its library's errors pass through."""
    (store,) = _stores.get_all([spec.cache_key()], lambda _: [_connected(spec)])
    return store


def _connected(spec: StoreSpec) -> Store:
    """Connect, perhaps in another process than the one that read the metadata."""
    source, options = unseal(spec)
    store = connect(source, options, spec.opening_id)
    # A repository in memory is empty in another process, and each of its chunks would count as missing. The snapshot
    # answers; its storage is not asked.
    if is_icechunk(store) and not sync(store.exists(f"{spec.group}/zarr.json".lstrip("/"))):
        raise StoreNotFoundError(
            f"The process that reads {spec.label} finds nothing there. Give an address that all workers reach."
        )
    return store


def renew_store(spec: StoreSpec, refused: Store, forget: Callable[[], None]) -> None:
    """Connect with the current credentials, unless another thread has done so.

    Parameters
    ----------
    spec : StoreSpec
        The store's recipe.
    refused : zarr.abc.store.Store
        The store that refused access.
    forget : callable
        Drop what else holds that store.
    """
    source, options = unseal(spec)
    with _renewing:
        if isinstance(source, str) and store_of(spec) is refused:
            _LOG.info("%s refuses access; the credentials are read again", spec.label)
            forget_connection(source, options)
            _stores.clear()
            forget()
            store_of(spec)


def forget_stores() -> None:
    """Drop all connections; the next read connects again."""
    _stores.clear()
    disconnect_all()


def secrets_in(spec: StoreSpec) -> list[str]:
    """Return the texts that no message about a store may show."""
    return secrets_of(*unseal(spec))


def is_local(store: Store) -> bool:
    """Whether reading from a store makes no request to a service."""
    return isinstance(store, LocalStore | ZipStore | MemoryStore)


def is_remote(spec: StoreSpec) -> bool:
    """Whether reads are latency-bound, so that running more of them than there are CPUs pays off."""
    source, _ = unseal(spec)
    return is_url(source) if isinstance(source, str) else not is_local(source)
