"""Stores of obstore, by its names: ``store.S3Store("bucket", region="eu-west-1")``. They need the extra ``obstore``."""

from typing import TYPE_CHECKING, Any

from rainbear_dask.exceptions import StoreNotFoundError

if TYPE_CHECKING:
    from obstore.store import AzureStore, GCSStore, HTTPStore, LocalStore, MemoryStore, S3Store, from_url


__all__ = ["AzureStore", "GCSStore", "HTTPStore", "LocalStore", "MemoryStore", "S3Store", "from_url"]


def __getattr__(name: str) -> Any:
    if name not in __all__:
        raise AttributeError(f"module {__name__!r} has no attribute {name!r}")
    try:
        import obstore.store  # noqa: PLC0415  an extra, and only then
    except ImportError as err:
        raise StoreNotFoundError(
            f"rainbear_dask.store.{name} needs the package obstore. Install it: pip install 'rainbear-dask[obstore]'."
        ) from err
    return getattr(obstore.store, name)
