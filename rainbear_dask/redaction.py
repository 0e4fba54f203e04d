"""What a message may show of what other libraries raise: one line, and no secret."""

import re
from collections.abc import Mapping, Sequence
from typing import Any

_USER = re.compile(r"(?<=://)(?:[^/@\s]*@|[^/@\s:]+:(?!\d+/)[^@\s]*@)")
_QUERY = re.compile(r"(://[^\s?#'\"]*)[?#][^\s'\")>]*")


def secrets_of(source: Any, options: Mapping[str, Any]) -> list[str]:
    """Find what no message may show: all texts among the options but addresses, and what a URL carries.

    Parameters
    ----------
    source : str or zarr.abc.store.Store
        An address, or a store; one that fsspec or obstore made holds its own options.
    options : mapping
        Storage options, nested or not.

    Returns
    -------
    list of str
        Longest first, so that none is hidden in part; without those too short to be told from other text.
    """
    of_obstore = getattr(source, "store", None)
    address = source if isinstance(source, str) else getattr(of_obstore, "url", None)
    users = _USER.findall(address) if isinstance(address, str) else []
    found = {text for user in users for text in (user[:-1], *re.split("[:/@]", user))}

    def collect(value: Any) -> None:
        if isinstance(value, Mapping):
            for key, inner in value.items():
                if not re.search("url|endpoint|region|protocol|bucket|container", str(key)):
                    collect(inner)
        elif isinstance(value, list | tuple):
            for inner in value:
                collect(inner)
        elif isinstance(value, str | bytes):
            found.add(value if isinstance(value, str) else value.decode(errors="replace"))

    collect(options)
    collect(getattr(getattr(source, "fs", None), "storage_options", None))
    collect(getattr(of_obstore, "config", None))
    collect(getattr(of_obstore, "client_options", None))
    return sorted((text for text in found if len(text) > 3), key=len, reverse=True)


def without_secrets(text: str, secrets: Sequence[str] = ()) -> str:
    """Take user, query and fragment from the URLs in a text, and other secrets from anywhere."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _QUERY.sub(r"\1", _USER.sub("", text))


def reason(err: Exception, secrets: Sequence[str] = ()) -> str:
    """Say in one line what another library raised."""
    text = " ".join(without_secrets(str(err), secrets).split()).rstrip(".")
    return f"{type(err).__name__}: {text[:300]}" if text else type(err).__name__


def shown(err: Exception, secrets: Sequence[str]) -> Exception | None:
    """Give an error as the cause of ours, unless it would show a secret with the traceback."""
    return err if without_secrets(str(err), secrets) == str(err) else None
