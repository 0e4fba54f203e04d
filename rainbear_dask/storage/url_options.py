"""Check `storage_options` before anything is opened: a misspelt option is an error that names the nearest one."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import fsspec

from rainbear_dask.exceptions import QueryError, UnknownOptionError
from rainbear_dask.storage.sources import is_url

_OWN = {"library", "client_options", "retry_config"}
_FSSPEC = {
    *("asynchronous", "loop", "batch_size", "skip_instance_cache"),
    *("use_listings_cache", "listings_expiry_time", "max_paths"),
}
_S3 = {
    *("anon", "key", "secret", "token", "profile", "endpoint_url", "region", "region_name", "requester_pays", "verify"),
    *("client_kwargs", "config_kwargs", "s3_additional_kwargs", "session", "username", "password", "use_ssl"),
    *("aws_access_key_id", "aws_secret_access_key", "aws_session_token", "connect_timeout", "read_timeout", "retries"),
    *("s3", "max_pool_connections", "default_block_size", "default_fill_cache", "default_cache_type", "version_aware"),
    *("cache_regions", "max_concurrency", "fixed_upload_size", "local_expiry_check", "session_vars", "event_hooks"),
}
_HTTP = {
    *("headers", "auth", "cookies", "params", "timeout", "proxy", "proxy_auth", "ssl", "trust_env", "allow_redirects"),
    *("client_kwargs", "get_client", "encoded", "simple_links", "same_scheme", "size_policy", "verify"),
    *("block_size", "cache_type", "cache_options", "verify_ssl", "max_redirects", "server_hostname", "ssl_context"),
}
_KNOWN = {"s3": _S3, "s3a": _S3, "http": _HTTP, "https": _HTTP}
"""Options by scheme of the URL. Other file systems of fsspec check their own."""


def check_options(source: Any, options: Any) -> None:
    """Refuse storage options that the source does not have.

    Parameters
    ----------
    source : str, store or other address
        The source, as `rainbear_dask.storage.sources.address_of` returns it.
    options : mapping or None
        The options.

    Raises
    ------
    QueryError
        If they are not a mapping, or the source is not a URL.
    UnknownOptionError
        If a URL of S3 or HTTP has no such option.
    """
    if options is None:
        return
    if not isinstance(options, Mapping):
        raise QueryError(
            f"The storage_options are a {type(options).__name__}, not a mapping. Write them as {{'anon': True}}."
        )
    if not options:
        return
    names = ", ".join(f"`{name}`" for name in options)
    if not isinstance(source, str):
        raise QueryError(
            f"The storage_options {names} need a URL, but the source is an object. Give them to the object."
        )
    if not is_url(source):
        raise QueryError(f"The storage_options {names} need a URL, but the source is a path. Leave them out.")
    scheme = source.partition("://")[0]
    known = _KNOWN.get(scheme)
    if known is None or "::" in source:
        return
    known = known | _OWN | _FSSPEC
    for name in options:
        if name not in known and name not in _parameters(scheme):
            near = get_close_matches(str(name), known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "Correct it, or leave it out."
            raise UnknownOptionError(f"A URL of {scheme}:// has no storage option {name!r}. {hint}")


def _parameters(scheme: str) -> set[str]:
    """Return the parameters of the file system of fsspec; a newer release may have further ones."""
    try:
        return set(inspect.signature(fsspec.get_filesystem_class(scheme)).parameters)
    except ImportError:
        return set()
