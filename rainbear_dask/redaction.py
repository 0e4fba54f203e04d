"""What a message may show of what other libraries raise: one line, and no secret."""

import pickle
import re
from collections.abc import Iterator, Mapping, Sequence
from typing import Any

_USER = re.compile(r"(?<=://)(?:[^/@\s]*@|[^/@\s:]+:(?!\d+/)[^@\s]*@)")
_SAID = re.compile(r'(code: "\w+"), message: "(?:[^"\\]|\\.)*"')  # by a server of S3, which may name the key
_ANSWERED = re.compile(  # the same, in the document that it answers with
    r"<(Message|AWSAccessKeyId|StringToSign\w*|SignatureProvided|CanonicalRequest\w*)>.*?(?:</\1>|$)", re.DOTALL
)
_CONTEXT = re.compile(r"[|\s]*context:[|\s]*0: \w+::.*?(?=\|->|$)")  # of Icechunk: functions and line numbers
_CAUSE = re.compile(r"\s*[|`]->\s*")
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
    users = [user for text in _addresses(source, options) for user in _USER.findall(text)]
    found = {text for user in users for text in (user[:-1], *re.split("[:/@]", user))}
    texts = [value for value in _settings(source, options) if isinstance(value, str | bytes)]
    words = [text if isinstance(text, str) else text.decode(errors="replace") for text in texts]
    found |= {part for text in words for part in (text, text.rpartition(" ")[2])}  # of "Bearer abc" the latter too
    return sorted((text for text in found if len(text) > 3), key=len, reverse=True)


def holds_secrets(source: Any, options: Mapping[str, Any]) -> bool:
    """Whether what a store is opened with is not for others to see, or cannot be looked into.

    Parameters
    ----------
    source, options
        As in `secrets_of`.

    Returns
    -------
    bool
        False for paths, addresses and stores of zarr, fsspec and obstore that nothing but numbers and addresses go with.
        True for all other stores: what a session of Icechunk or a store of a user's own holds, nobody tells.
    """
    kind = type(source)
    if not isinstance(source, str) and (kind.__module__.partition(".")[0], kind.__name__) not in _OPEN_STORES:
        return True
    addresses = _addresses(source, options)
    return any(without_secrets(text) != text for text in addresses) or any(
        not isinstance(value, bool | int | float | None) for value in _settings(source, options)
    )


# stores whose settings can be looked at; the last is of obstore's store in memory
_OPEN_STORES = {("zarr", name) for name in ("LocalStore", "ZipStore", "MemoryStore", "FsspecStore", "ObjectStore")}
_OPEN_STORES.add(("rainbear_dask", "_MemoryObjectStore"))
_ADDRESS = re.compile("url|endpoint|region|protocol|bucket|container")


def _settings(source: Any, options: Mapping[str, Any]) -> list[Any]:
    """All single values among the options, also those that a store of fsspec or obstore holds, but addresses."""
    of_obstore = getattr(source, "store", None)
    held = [
        options,
        getattr(getattr(source, "fs", None), "storage_options", None),
        *(getattr(of_obstore, name, None) for name in ("config", "client_options", "credential_provider")),
    ]
    return [value for key, value in _leaves(held) if not _ADDRESS.search(key) and value not in ("true", "false")]


def _addresses(source: Any, options: Mapping[str, Any]) -> list[str]:
    """What says where a store is: its own address, and those among its options."""
    address = source if isinstance(source, str) else getattr(getattr(source, "store", None), "url", None)
    inner = [value for key, value in _leaves(options) if _ADDRESS.search(key)]
    return [text for text in (address, *inner) if isinstance(text, str)]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Values in mappings and sequences, each with the innermost key that is an address's, or else any."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, key if _ADDRESS.search(key) else str(name))
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


def without_secrets(text: str, secrets: Sequence[str] = ()) -> str:
    """Take user, query and fragment from the URLs in a text, what a server says of a key, and other secrets anywhere."""
    for secret in secrets:
        text = text.replace(secret, "***")
    return _QUERY.sub(r"\1", _USER.sub("", _ANSWERED.sub("", _SAID.sub(r"\1", text))))


def reason(err: Exception, secrets: Sequence[str] = ()) -> str:
    """Say in one line what another library raised."""
    text = " ".join(without_secrets(str(err), secrets).split())
    text = _CAUSE.sub(": ", _CONTEXT.sub(" ", text)).strip(" .")
    return f"{type(err).__name__}: {text[:300]}" if text else type(err).__name__


def shown(err: Exception, secrets: Sequence[str]) -> Exception | None:
    """Give an error as the cause of ours, unless it would show a secret with the traceback, or keep ours from travelling."""
    return err if without_secrets(str(err), secrets) == str(err) and _travels(err) else None


def _travels(err: BaseException | None) -> bool:
    """Whether an error, with its own causes, can be sent from a worker."""
    while err is not None:
        try:
            pickle.loads(pickle.dumps(err))  # noqa: S301  what was just pickled
        except Exception:  # noqa: BLE001  other libraries' errors fail at this in many ways
            return False
        err = err.__cause__ or err.__context__
    return True
