"""Store constructors of obstore, by its names: ``store.S3Store("bucket", region="eu-west-1")``. Extra: ``obstore``."""

from typing import TYPE_CHECKING, Any

from rainbear_dask.dependencies import require

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, HTTPStore, LocalStore, MemoryStore, S3Store, from_url


__all__ = ["AzureStore", "GCSStore", "HTTPStore", "LocalStore", "MemoryStore", "S3Store", "from_url"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    return getattr(require("obstore.store", extra="obstore"), name)
