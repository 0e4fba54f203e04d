"""Icechunk repositories by address, to write to."""

from typing import Any
from urllib.parse import urlsplit

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import QueryError, StoreError
from rainbear_dask.redaction import reason
from rainbear_dask.storage.sources import address_of, is_url


def repository_at(address: str) -> Any:
    """Open an Icechunk repository, or create it.

    Parameters
    ----------
    address : str
        A local folder, or ``s3://`` or ``gs://`` with credentials from the environment.

    Returns
    -------
    icechunk.Repository
        The repository.

    Raises
    ------
    QueryError
        If the address is of another kind.
    StoreError
        If the storage fails.
    """
    icechunk = require("icechunk", extra="icechunk")
    place = str(address_of(address))
    parts = urlsplit(place)
    if not is_url(place):
        storage = icechunk.local_filesystem_storage(place)
    elif parts.scheme == "s3":
        storage = icechunk.s3_storage(bucket=parts.netloc, prefix=parts.path.strip("/"), from_env=True)
    elif parts.scheme == "gs":
        storage = icechunk.gcs_storage(bucket=parts.netloc, prefix=parts.path.strip("/"), from_env=True)
    else:
        raise QueryError(
            f"{parts.scheme}:// is not an address of an Icechunk repository. Give a folder, s3:// or gs://."
        )
    try:
        return icechunk.Repository.open_or_create(storage)
    except icechunk.IcechunkError as err:
        raise StoreError(f"Cannot open the Icechunk repository {place}: {reason(err)}. Check its address.") from err
