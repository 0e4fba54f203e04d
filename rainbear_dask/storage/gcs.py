"""Buckets of Google Cloud Storage for obstore, from URLs and from options in the spelling of gcsfs."""

import json
import os
import re
from collections.abc import Mapping
from datetime import UTC
from functools import partial
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.storage import ObjectStore

from rainbear_dask.exceptions import QueryError, StoreAccessError
from rainbear_dask.logs import logger
from rainbear_dask.storage.obstore_settings import (
    NotForObstoreError,
    limits,
    metadata_service_answers,
    sort_options,
)
from rainbear_dask.storage.services import GCS

_LOG = logger("storage")

_ANONYMOUS = {"skip_signature": True, "bearer_token": "anonymous"}  # with a token, obstore looks for no other
_KEYS_OF_OBSTORE = (
    *("GOOGLE_SERVICE_ACCOUNT", "GOOGLE_SERVICE_ACCOUNT_PATH", "GOOGLE_SERVICE_ACCOUNT_KEY"),
    *("GOOGLE_BEARER_TOKEN", "GOOGLE_SKIP_SIGNATURE"),
)
"""Variables that only obstore reads."""

_CREDENTIALS_OF_OBSTORE = GCS.obstore_only - {"client_options", "retry_config", "base_url"}
_METADATA_HOST = "169.254.169.254"
_PROJECTS = ("GOOGLE_CLOUD_PROJECT", "GCSFS_DEFAULT_PROJECT")


def open_gcs(url: str, options: Mapping[str, Any]) -> Store:
    """Open ``gs://bucket/prefix`` with options in the spelling of gcsfs.

    Without a token, credentials come from the environment, from gcloud's file, or from the machine. If there are none,
    requests are anonymous, as with gcsfs.

    Raises
    ------
    NotForObstoreError
        If obstore has no equivalent of an option.
    StoreAccessError
        If the named credentials do not exist.
    QueryError
        If a project has to pay, and none is named.
    """
    from obstore.store import GCSStore  # noqa: PLC0415  an extra

    bucket, _, prefix = url.partition("://")[2].partition("/")
    if re.search("[@?:]", bucket):
        raise NotForObstoreError("the URL has more than a bucket and a path")
    given, settings = sort_options(GCS, options)
    client_options, retry_config = limits(settings)
    emulator = _emulator()
    endpoint = given.get("endpoint_url") or settings.get("base_url") or emulator
    if endpoint:
        settings["base_url"] = endpoint.rstrip("/")
    if (endpoint or os.environ.get("GOOGLE_BASE_URL", "")).startswith("http://"):
        client_options.setdefault("allow_http", True)
    if pays := given.get("requester_pays"):
        payer = {"x-goog-user-project": pays if isinstance(pays, str) else _project(given)}
        client_options["default_headers"] = payer | client_options.get("default_headers", {})
    if not _CREDENTIALS_OF_OBSTORE & settings.keys():
        settings |= _credentials("anon" if given.get("anon") else given.get("token"), url, is_emulator=bool(emulator))
    clients: Any = {"client_options": client_options, "retry_config": retry_config}
    return ObjectStore(GCSStore(bucket, prefix=prefix or None, **clients, **settings), read_only=True)


def _emulator() -> str:
    """Return the address of an emulator in the environment, as Google's own libraries read it."""
    found = os.environ.get("STORAGE_EMULATOR_HOST", "")
    return "" if found == "default" else found if not found or "://" in found else f"http://{found}"


def _project(given: Mapping[str, Any]) -> str:
    found = given.get("project") or next((os.environ[name] for name in _PROJECTS if os.environ.get(name)), None)
    if not found:
        raise QueryError(
            "The option `requester_pays` needs a project that pays. Name it: storage_options={'requester_pays': True, "
            "'project': 'my-project'}."
        )
    return str(found)


def _credentials(token: Any, url: str, *, is_emulator: bool) -> dict[str, Any]:
    """Return the settings of obstore for a token of gcsfs."""
    if token == "anon" or type(token).__name__ == "AnonymousCredentials":  # noqa: S105
        return _ANONYMOUS
    if token in (None, "google_default"):
        return _ANONYMOUS if is_emulator and token is None else _found_credentials(url, may_be_none=token is None)
    if token in ("cache", "browser") or (token == "cloud" and _named_credentials()):  # noqa: S105
        raise NotForObstoreError(f"obstore does not know the token {token!r}")
    if token == "cloud":  # noqa: S105
        return {}
    if isinstance(token, Mapping):
        return _account(dict(token), None)
    if hasattr(token, "refresh") and hasattr(token, "token"):  # from google-auth
        return {"credential_provider": partial(_current_token, token), "skip_signature": False}
    if isinstance(token, str | os.PathLike) and _is_path(os.fspath(token)):
        return _file(os.fspath(token), "the option `token`")
    if isinstance(token, str):
        return {"credential_provider": partial(dict, token=token, expires_at=None), "skip_signature": False}
    raise NotForObstoreError(f"obstore does not know a token of the type {type(token).__name__}")


def _is_path(token: str) -> bool:
    return "/" in token or os.sep in token or token.endswith(".json") or Path(token).is_file()


def _found_credentials(url: str, *, may_be_none: bool) -> dict[str, Any]:
    """Return the credentials of this machine, in the order of Google's libraries."""
    if any(name in os.environ for name in _KEYS_OF_OBSTORE):
        return {}
    if path := _named_credentials():
        return _file(path, "GOOGLE_APPLICATION_CREDENTIALS")
    host = os.environ.get("GCE_METADATA_HOST") or os.environ.get("GCE_METADATA_IP") or _METADATA_HOST
    if os.environ.get("NO_GCE_CHECK") != "true" and metadata_service_answers(
        host, "/computeMetadata/v1/", ("Metadata-Flavor", "Google")
    ):
        return {}
    if may_be_none:
        _LOG.info("there are no credentials for %s, so requests are anonymous", url)
        return _ANONYMOUS
    raise StoreAccessError(
        f"There are no credentials for {url}. Give a token in storage_options, set GOOGLE_APPLICATION_CREDENTIALS, or "
        "run `gcloud auth application-default login`. A public bucket needs storage_options={'token': 'anon'}."
    )


def _named_credentials() -> str | None:
    """Return the path of the file that the environment or gcloud names."""
    if named := os.environ.get("GOOGLE_APPLICATION_CREDENTIALS"):
        return named
    folder = os.environ.get("CLOUDSDK_CONFIG") or Path.home() / ".config" / "gcloud"
    path = Path(folder) / "application_default_credentials.json"
    return str(path) if path.is_file() else None


def _file(path: str, named_by: str) -> dict[str, Any]:
    try:
        account = json.loads(Path(path).read_text())
    except OSError as err:
        raise StoreAccessError(
            f"Cannot read the file of credentials that {named_by} names ({type(err).__name__}). Correct its path."
        ) from None
    except ValueError:
        account = None
    if not isinstance(account, dict):
        raise StoreAccessError(f"The file of credentials that {named_by} names is not JSON. Name another file.")
    return _account(account, path)


def _account(account: dict[str, Any], path: str | None) -> dict[str, Any]:
    """Return the settings for the content of a file of credentials."""
    kind = account.get("type")
    if kind != "service_account" and (kind != "authorized_user" or path is None):
        raise NotForObstoreError(f"obstore does not know credentials of the type {kind!r}")
    if any(name in os.environ for name in _KEYS_OF_OBSTORE):
        raise NotForObstoreError("obstore would prefer the credentials in the environment")
    if kind == "service_account":
        return {"service_account_key": json.dumps(account)}
    return {"application_credentials": path}


def _current_token(credentials: Any) -> dict[str, Any]:
    """Return the current token of credentials of google-auth, which renew it."""
    if not credentials.valid:
        from google.auth.transport.requests import Request  # noqa: PLC0415  it comes with the credentials

        credentials.refresh(Request())
    expiry = credentials.expiry
    return {"token": credentials.token, "expires_at": expiry and expiry.replace(tzinfo=UTC)}
