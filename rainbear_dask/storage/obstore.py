"""Stores of obstore by the scheme of their URL, and its errors."""

import re
from collections.abc import Callable, Mapping
from typing import Any

from zarr.abc.store import Store
from zarr.storage import ObjectStore

from rainbear_dask.storage.azure import open_azure
from rainbear_dask.storage.gcs import open_gcs
from rainbear_dask.storage.obstore_settings import NotForObstoreError, limits
from rainbear_dask.storage.s3 import open_s3
from rainbear_dask.storage.web import open_http


def plain(err: Exception) -> Exception:
    """Return an error of obstore with a short text: without its page of details, but with the telling word of it."""
    text, _, below = str(err).partition("Debug source:")
    if not below:
        return err
    found = _TELLING.search(" ".join(below.split()))
    return type(err)(text.strip() + (f" ({found[0].replace('( ', ' ')})" if found else ""))


_TELLING = re.compile(r'InvalidCertificate\( \w+|TimedOut|(?<=message: ")[^"]+|(?<=error: ")[^"]+')


def open_any(url: str, options: Mapping[str, Any]) -> Store:
    """Open other URLs that obstore knows (file, memory), with its own options.

    Raises
    ------
    NotForObstoreError
        If obstore does not know the URL, or an option.
    """
    from obstore.exceptions import BaseError  # noqa: PLC0415  an extra
    from obstore.store import from_url  # noqa: PLC0415  an extra

    given: Any = dict(options)
    client_options, retry_config = limits(given)
    clients: Any = {"client_options": client_options, "retry_config": retry_config}
    try:
        return ObjectStore(from_url(url, **clients, **given), read_only=True)
    except (BaseError, TypeError, ValueError) as err:
        raise NotForObstoreError(str(err)) from err


OPENERS: Mapping[str, Callable[[str, Mapping[str, Any]], Store]] = {
    "s3": open_s3,
    "s3a": open_s3,
    "http": open_http,
    "https": open_http,
    "gs": open_gcs,
    "gcs": open_gcs,
    "az": open_azure,
    "abfs": open_azure,
    "abfss": open_azure,
}
"""Functions by scheme of the URL, for which obstore is the default library."""
