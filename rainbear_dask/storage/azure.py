"""Containers of Azure Blob Storage for obstore, from URLs and from options in the spelling of adlfs."""

import inspect
import os
import re
import shutil
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.storage import ObjectStore

from rainbear_dask.exceptions import QueryError, StoreAccessError
from rainbear_dask.storage.obstore_settings import (
    NotForObstoreError,
    limits,
    metadata_service_answers,
    sort_options,
)
from rainbear_dask.storage.services import AZURE

_CREDENTIALS = ("credential", "account_key", "sas_token", "client_secret")
_CREDENTIALS_OF_OBSTORE = AZURE.obstore_only - {
    *("client_options", "retry_config", "endpoint", "use_fabric_endpoint", "authority_host"),
}
_ACCOUNTS = ("AZURE_STORAGE_ACCOUNT_NAME", "AZURE_STORAGE_USE_EMULATOR")
_IN_ENVIRONMENT = (
    *("AZURE_STORAGE_ACCOUNT_KEY", "AZURE_STORAGE_ACCESS_KEY", "AZURE_STORAGE_MASTER_KEY", "AZURE_STORAGE_SAS_KEY"),
    *("AZURE_STORAGE_SAS_TOKEN", "AZURE_STORAGE_TOKEN", "AZURE_STORAGE_CLIENT_SECRET", "AZURE_CLIENT_SECRET"),
    *("AZURE_FEDERATED_TOKEN_FILE", "AZURE_MSI_ENDPOINT", "AZURE_IDENTITY_ENDPOINT", "IDENTITY_ENDPOINT"),
    *("AZURE_USE_AZURE_CLI", "AZURE_SKIP_SIGNATURE", "AZURE_STORAGE_USE_EMULATOR"),
)
"""Variables from which obstore takes credentials."""

_HOST = re.compile(r"(?P<account>[^.]+)\.(?:dfs|blob)\.(?P<suffix>.+)")
_PUBLIC_CLOUD = "core.windows.net"
_METADATA_HOST = "169.254.169.254"
_SCOPE = "https://storage.azure.com/.default"


def open_azure(url: str, options: Mapping[str, Any]) -> Store:
    """Open ``az://container/prefix`` with options in the spelling of adlfs.

    Without credentials among the options, they come from the environment, the machine or the Azure CLI.

    Raises
    ------
    NotForObstoreError
        If obstore has no equivalent of an option.
    StoreAccessError
        If there are no credentials.
    QueryError
        If no account is named.
    """
    from obstore.store import AzureStore  # noqa: PLC0415  an extra

    container, host, prefix = parts_of(url)
    given, own = sort_options(AZURE, options)
    client_options, retry_config = limits(own)
    given |= _from_connection_string(given)
    if host:
        given |= _from_host(host)
    if re.search("[?:]", container):
        raise NotForObstoreError("the URL has more than a container and a path")
    for name, setting in {"connection_timeout": "connect_timeout", "read_timeout": "read_timeout"}.items():
        if name in given:
            client_options[setting] = timedelta(seconds=given[name])
    settings: dict[str, Any] = {
        name: given[name] for name in ("account_name", "client_id", "tenant_id", "endpoint") if name in given
    }
    if "account_host" in given:
        settings["endpoint"] = f"https://{given['account_host']}"
    settings |= own
    if not _CREDENTIALS_OF_OBSTORE & own.keys():
        settings |= _credentials(given, url)
    if "account_name" not in settings and not settings.get("use_emulator") and not _is_set(_ACCOUNTS):
        raise QueryError(
            f"No account is named for {url}. Give storage_options={{'account_name': ...}}, set "
            "AZURE_STORAGE_ACCOUNT_NAME, or write abfs://container@account.dfs.core.windows.net/path."
        )
    endpoint = settings.get("endpoint") or os.environ.get("AZURE_STORAGE_ENDPOINT") or os.environ.get("AZURE_ENDPOINT")
    if (endpoint or "").startswith("http://"):
        client_options.setdefault("allow_http", True)
    clients: Any = {"client_options": client_options, "retry_config": retry_config}
    return ObjectStore(AzureStore(container, prefix=prefix or None, **clients, **settings), read_only=True)


def parts_of(url: str) -> tuple[str, str, str]:
    """Return the container, the host of its account ("" if the URL does not name it) and the prefix of a URL."""
    place, _, prefix = url.partition("://")[2].partition("/")
    container, _, host = place.partition("@")
    return container, host, prefix


def _is_set(names: tuple[str, ...]) -> bool:
    return any(os.environ.get(name) for name in names)


def _from_host(host: str) -> dict[str, Any]:
    """Return account and endpoint of ``account.dfs.core.windows.net``."""
    found = _HOST.fullmatch(host)
    if not found:
        raise NotForObstoreError("the URL does not name an account behind the @")
    account, suffix = found["account"], found["suffix"]
    return {"account_name": account} | (
        {} if suffix == _PUBLIC_CLOUD else {"endpoint": f"https://{account}.blob.{suffix}"}
    )


def _from_connection_string(given: dict[str, Any]) -> dict[str, Any]:
    """Return the options in a connection string, which replaces all others, as in adlfs."""
    text, named = given.pop("connection_string", None), given.get("account_name")
    if text:
        for name in _CREDENTIALS:
            given.pop(name, None)
        return _fields_of(text)
    if given.get("anon") or any(name in given for name in _CREDENTIALS):
        return {}
    found = _fields_of(os.environ.get("AZURE_STORAGE_CONNECTION_STRING", ""))
    return found if named in (None, found.get("account_name")) else {}


def _fields_of(text: str) -> dict[str, Any]:
    if not text:
        return {}
    pairs = (part.partition("=") for part in text.split(";") if part.strip())
    fields = {name.strip().lower(): value for name, _, value in pairs}
    if fields.get("usedevelopmentstorage", "").lower() == "true":
        return {"use_emulator": True}
    endpoint, account = fields.get("blobendpoint", "").rstrip("/"), fields.get("accountname", "")
    if not account:
        account = (_HOST.search(endpoint.partition("://")[2]) or {"account": ""})["account"]
    if not account:
        raise QueryError("The connection string names no account. Copy it from the access keys of the storage account.")
    suffix = fields.get("endpointsuffix", _PUBLIC_CLOUD)
    if not endpoint and suffix != _PUBLIC_CLOUD:
        endpoint = f"{fields.get('defaultendpointsprotocol', 'https')}://{account}.blob.{suffix}"
    found = {"account_name": account, "endpoint": endpoint, "account_key": fields.get("accountkey")}
    found["sas_token"] = fields.get("sharedaccesssignature")
    return {name: value for name, value in found.items() if value}


def _credentials(given: Mapping[str, Any], url: str) -> dict[str, Any]:
    """Return the settings of obstore for the credentials among the options, or for the machine's."""
    if given.get("use_emulator"):
        return {"use_emulator": True}
    if provider := _provider(given):
        return {"credential_provider": provider, "skip_signature": False}
    if "client_secret" in given:
        # the type keeps obstore from keys in the environment
        return {
            "client_secret": given["client_secret"],
            "credential_type": "client_secret",
            "skip_signature": False,
        }
    is_anonymous = given.get("anon")
    if is_anonymous is None:
        is_anonymous = os.environ.get("AZURE_STORAGE_ANON", "").lower() not in ("", "0", "f", "false")
    if is_anonymous:
        return {"skip_signature": True}
    if _is_set(_IN_ENVIRONMENT) or metadata_service_answers(
        _METADATA_HOST, "/metadata/instance?api-version=2021-02-01", ("Metadata", "true")
    ):
        return {}
    if shutil.which("az") and (_cli_folder() / "azureProfile.json").is_file():
        return {"use_azure_cli": True}
    raise StoreAccessError(
        f"There are no credentials for {url}. Give account_key, sas_token, connection_string, or client_id, "
        "client_secret and tenant_id in storage_options, or set them in the environment (AZURE_STORAGE_ACCOUNT_KEY, "
        "AZURE_STORAGE_SAS_TOKEN, AZURE_STORAGE_CONNECTION_STRING), or run `az login`. A public container needs "
        "storage_options={'anon': True}."
    )


def _cli_folder() -> Path:
    return Path(os.environ.get("AZURE_CONFIG_DIR") or Path.home() / ".azure")


def _provider(given: Mapping[str, Any]) -> Callable[[], Any] | None:
    """Return a provider for obstore, which no variable of the environment overrides."""
    credential, key, sas = (given.get(name) for name in ("credential", "account_key", "sas_token"))
    if isinstance(credential, str):
        key, sas = (key, credential) if "sig=" in credential else (credential, sas)
    elif inspect.iscoroutinefunction(getattr(credential, "get_token", None)):
        return partial(_awaited_token, credential)
    elif hasattr(credential, "get_token"):
        return partial(_current_token, credential)
    elif credential is not None:
        raise NotForObstoreError(f"obstore does not know a credential of the type {type(credential).__name__}")
    if key:
        return partial(dict, access_key=key, expires_at=None)
    return partial(dict, sas_token=sas.lstrip("?"), expires_at=None) if sas else None


def _current_token(credential: Any) -> dict[str, Any]:
    """Return the current token of a credential of azure-identity, which renews it."""
    return _with_expiry(credential.get_token(_SCOPE))


async def _awaited_token(credential: Any) -> dict[str, Any]:
    return _with_expiry(await credential.get_token(_SCOPE))


def _with_expiry(token: Any) -> dict[str, Any]:
    return {"token": token.token, "expires_at": datetime.fromtimestamp(token.expires_on, UTC)}
