"""Buckets of S3 for obstore, from URLs and from options in the spelling of s3fs."""

import os
import re
import urllib.error
import urllib.request
from collections.abc import Callable, Mapping
from datetime import UTC, datetime, timedelta
from functools import partial
from pathlib import Path
from typing import Any

from zarr.abc.store import Store
from zarr.storage import ObjectStore

from rainbear_dask.exceptions import StoreAccessError
from rainbear_dask.storage.obstore_settings import NotForObstoreError, flat, limits, refuse_rest
from rainbear_dask.storage.services import S3


def open_s3(url: str, options: Mapping[str, Any]) -> Store:
    """Open ``s3://bucket/prefix`` with options in the spelling of s3fs.

    Missing credentials, region and endpoint come from botocore: the environment, profile files and the machine's role.
    Without botocore they come from the environment, through obstore.

    Raises
    ------
    NotForObstoreError
        If obstore has no equivalent of an option.
    StoreAccessError
        If there are no credentials.
    """
    from obstore.store import S3Store  # noqa: PLC0415  an extra

    bucket, _, prefix = url.partition("://")[2].partition("/")
    if re.search("[@?:]", bucket):
        raise NotForObstoreError("the URL has more than a bucket and a path")
    given = {n: v for n, v in flat(options, "config_kwargs", "client_kwargs").items() if n not in S3.ignored}
    client_options, retry_config = limits(given)
    take = partial(_take, given)
    endpoint, region, profile = take("endpoint_url"), take("region", "region_name"), take("profile")
    keys = {
        "access_key_id": take("key", "aws_access_key_id"),
        "secret_access_key": take("secret", "aws_secret_access_key"),
        "token": take("token", "aws_session_token"),
    }
    anonymous, pays, verify = take("anon"), take("requester_pays"), take("verify")
    _take_botocore_config(given, client_options, retry_config)
    refuse_rest(given)

    settings: dict[str, Any] = {}
    session = _session(profile)
    if session is not None:
        endpoint = endpoint or _configured_endpoint(session)
        region = region or _found_region(session, bucket, endpoint) or "us-east-1"
        verify = session.get_config_variable("ca_bundle") if verify is None else verify
    if endpoint:
        settings["endpoint"] = endpoint
        client_options.setdefault("allow_http", endpoint.startswith("http://"))
    if region:
        settings["region"] = region
    if verify is False:
        client_options.setdefault("allow_invalid_certificates", True)
    elif isinstance(verify, str | os.PathLike):
        client_options.setdefault("root_certificate", Path(verify).read_bytes())
    if anonymous:
        settings["skip_signature"] = True
    elif provider := _credentials(session, keys, url):
        settings["credential_provider"] = provider
    if pays:
        settings["request_payer"] = True
    clients: Any = {"client_options": client_options, "retry_config": retry_config}
    return ObjectStore(S3Store(bucket, prefix=prefix or None, **clients, **settings), read_only=True)


def _take(given: dict[str, Any], *names: str) -> Any:
    """Take an option that has several names."""
    found = [given.pop(name) for name in names if name in given]
    return found[0] if found else None


def _take_botocore_config(given: dict[str, Any], client_options: dict[str, Any], retry_config: dict[str, Any]) -> None:
    """Take time-outs, retries and addressing style in the spelling of botocore's ``Config``."""
    for name in ("connect_timeout", "read_timeout"):
        if name in given:
            client_options[name] = timedelta(seconds=given.pop(name))
    retries = dict(given.pop("retries", {}))
    retries.pop("mode", None)
    if (attempts := retries.pop("total_max_attempts", None)) is not None:
        retry_config["max_retries"] = attempts - 1
    elif (again := retries.pop("max_attempts", None)) is not None:
        retry_config["max_retries"] = again
    style = dict(given.pop("s3", {}))
    if style.pop("addressing_style", "path") not in ("auto", "path"):
        raise NotForObstoreError("the options put the name of the bucket into the host name")
    refuse_rest(retries | style)


def _session(profile: str | None) -> Any:
    """Return botocore's session, which knows credentials and settings; None if botocore is not installed."""
    try:
        import botocore.exceptions  # noqa: PLC0415  it comes with s3fs
        import botocore.session  # noqa: PLC0415
    except ImportError:
        if profile:
            raise NotForObstoreError("a profile needs botocore, which comes with s3fs") from None
        return None
    session = botocore.session.Session(profile=profile)
    try:
        session.get_scoped_config()
    except botocore.exceptions.ProfileNotFound as err:
        raise StoreAccessError(
            f"There is no AWS profile {session.profile!r}. Correct its name, or the profile files."
        ) from err
    return session


def _configured_endpoint(session: Any) -> str | None:
    """Return the endpoint of S3 in the environment or the profile."""
    from botocore.configprovider import ConfiguredEndpointProvider  # noqa: PLC0415  it comes with s3fs

    endpoint: str | None = ConfiguredEndpointProvider(session.full_config, session.get_scoped_config(), "s3").provide()
    return endpoint


_BUCKET_URL = "https://{}.s3.amazonaws.com"


def _found_region(session: Any, bucket: str, endpoint: str | None) -> str | None:
    """Return the region in the settings; on AWS the bucket's own, which may be another one."""
    configured: str | None = session.get_config_variable("region") or os.environ.get("AWS_REGION")
    if endpoint:
        return configured
    try:
        asked = urllib.request.Request(_BUCKET_URL.format(bucket), method="HEAD")  # noqa: S310  https
        with urllib.request.urlopen(asked, timeout=10) as answer:  # noqa: S310
            headers = answer.headers
    except urllib.error.HTTPError as refused:  # a refusal names the region, too
        headers = refused.headers
    except OSError:
        return configured
    found: str | None = headers.get("x-amz-bucket-region", configured)
    return found


def _credentials(session: Any, keys: dict[str, Any], url: str) -> Callable[[], dict[str, Any]] | None:
    """Return a provider of keys for obstore; None if obstore reads the environment itself."""
    if keys["access_key_id"] and keys["secret_access_key"]:
        return partial(dict, keys, expires_at=None)
    if session is None:
        return None
    found = session.get_credentials()
    if found is None:
        raise StoreAccessError(
            f"There are no credentials for {url}. Give key and secret, or a profile, in storage_options, or set them "
            "in the environment (AWS_ACCESS_KEY_ID and AWS_SECRET_ACCESS_KEY, or AWS_PROFILE). A public bucket needs "
            "storage_options={'anon': True}."
        )
    return partial(_keys_of_now, found)


def _keys_of_now(credentials: Any) -> dict[str, Any]:
    """Return the current keys. botocore renews them before they expire, so obstore has to ask every few minutes."""
    keys = credentials.get_frozen_credentials()
    return {
        "access_key_id": keys.access_key,
        "secret_access_key": keys.secret_key,
        "token": keys.token,
        "expires_at": datetime.now(UTC) + timedelta(minutes=10),
    }
