"""Icechunk repositories by address, to write to."""

import os
from typing import Any

from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import QueryError, StoreError
from rainbear_dask.redaction import reason
from rainbear_dask.storage.azure import parts_of
from rainbear_dask.storage.services import AZURE, GCS
from rainbear_dask.storage.sources import address_of, is_url


def repository_at(address: str) -> Any:
    """Open an Icechunk repository, or create it.

    Parameters
    ----------
    address : str
        A local folder, or ``s3://``, ``gs://`` or ``az://`` with credentials from the environment. The account of Azure
        is in AZURE_STORAGE_ACCOUNT_NAME, or in ``abfs://container@account.dfs.core.windows.net/path``.

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
    scheme = place.partition("://")[0]
    bucket, host, prefix = parts_of(place)
    if not is_url(place):
        storage = icechunk.local_filesystem_storage(place)
    elif scheme == "s3":
        storage = icechunk.s3_storage(bucket=bucket, prefix=prefix, from_env=True)
    elif scheme in GCS.schemes:
        storage = icechunk.gcs_storage(bucket=bucket, prefix=prefix, from_env=True)
    elif scheme in AZURE.schemes:
        account = host.partition(".")[0] or os.environ.get("AZURE_STORAGE_ACCOUNT_NAME")
        if not account:
            raise QueryError(f"No account is named for {place}. Set AZURE_STORAGE_ACCOUNT_NAME.")
        storage = icechunk.azure_storage(account=account, container=bucket, prefix=prefix, from_env=True)
    else:
        raise QueryError(
            f"{scheme}:// is not an address of an Icechunk repository. Give a folder, s3://, gs:// or az://."
        )
    try:
        return icechunk.Repository.open_or_create(storage)
    except icechunk.IcechunkError as err:
        raise StoreError(f"Cannot open the Icechunk repository {place}: {reason(err)}. Check its address.") from err
