"""Folders of web servers for obstore, from URLs and from options in the spelling of fsspec."""

import base64
from collections.abc import AsyncIterator, Mapping
from typing import Any
from urllib.parse import unquote, urlsplit

from zarr.abc.store import Store
from zarr.storage import FsspecStore, ObjectStore

from rainbear_dask.storage.obstore_settings import NotForObstoreError, flat, limits, refuse_rest


def open_http(url: str, options: Mapping[str, Any]) -> Store:
    """Open a folder of a web server with options in the spelling of fsspec: ``headers``.

    Raises
    ------
    NotForObstoreError
        If obstore has no equivalent of an option.
    """
    from obstore.store import HTTPStore  # noqa: PLC0415  an extra

    parts = urlsplit(url)
    if parts.query or parts.fragment:
        raise NotForObstoreError("the URL has a query")
    given = flat(options, "client_kwargs")
    client_options, retry_config = limits(given)
    headers = {**given.pop("headers", {}), **client_options.get("default_headers", {})}
    refuse_rest(given)
    user, at, host = parts.netloc.rpartition("@")
    if at:
        headers.setdefault("Authorization", f"Basic {base64.b64encode(unquote(user).encode()).decode()}")
    if headers:
        client_options["default_headers"] = headers
    client_options.setdefault("allow_http", parts.scheme == "http")
    clients: Any = {"client_options": client_options, "retry_config": retry_config}
    return _WebStore(HTTPStore.from_url(f"{parts.scheme}://{host}{parts.path}", **clients), url, headers)


class _WebStore(ObjectStore[Any]):
    """A web server: obstore reads, and fsspec lists. `responses` cuts parts out of whole responses."""

    def __init__(self, store: Any, url: str, headers: Mapping[str, str]) -> None:
        super().__init__(store, read_only=True)
        self._url, self._headers, self.knows_ranges = url, dict(headers), True

    async def list_dir(self, prefix: str) -> AsyncIterator[str]:  # type: ignore[override]  # as zarr's own signature
        """Yield the names that the page of a folder links to."""
        listed = FsspecStore.from_url(self._url, storage_options={"headers": self._headers}, read_only=True)
        async for name in listed.list_dir(prefix):
            yield name
