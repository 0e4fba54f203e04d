"""Make messages fit to show: one line, no secret, and no character that controls a terminal or hides other text.

`RainbearError` and `warn` pass every message through `presentable`, so no caller can forget it.
"""

import base64
import binascii
import inspect
import json
import os
import pickle
import re
import warnings
from collections.abc import Iterator, Mapping, Sequence
from html import escape as html_escape
from typing import Any
from urllib.parse import parse_qsl, quote, quote_plus, unquote, urlsplit

_CONTAINER = r"(?!(?:(?<=\baz://)|(?<=\babfs://)|(?<=\babfss://))[^/@\s:]+@)"  # Azure writes container@account
_USER = re.compile(rf"(?<=://){_CONTAINER}(?:[^/@\s]*@|[^/@\s:]+:(?!\d+/)[^@\s]*@)")
_SAID = re.compile(r'(code: "\w+"), message: "(?:[^"\\]|\\.)*"')  # from an S3 server; it may name the key
_ANSWERED = re.compile(  # the same, in the server's XML response
    r"<(Message|AWSAccessKeyId|StringToSign\w*|SignatureProvided|CanonicalRequest\w*|AuthenticationErrorDetail)>"
    r".*?(?:</\1>|$)",
    re.DOTALL,
)
_CONTEXT = re.compile(r"[|\s]*context:[|\s]*0: \w+::.*?(?=\|->|$)")  # from Icechunk: functions and line numbers
_CAUSE = re.compile(r"\s*[|`]->\s*")
_QUERY = re.compile(r"(://[^\s?#'\"]*)[?#][^\s'\")>]*")
_SCHEME = re.compile(r"(?i)\b(basic|bearer|digest|negotiate|token)\s+(?=[\w+/=~.-]*[\d=])[\w+/=~.-]{8,}")
_HEADER = re.compile(r"(?i)\b((?:proxy-)?authorization|(?:set-)?cookie)(\s*:\s*)[^\s\"'][^\r\n\"']*")
_NAMED = re.compile(  # parts of a request that a server repeats: headers, query, signature
    r"""(?ix) \b (
        (?: x-(?:amz|goog|ms)-[\w-]* (?:signature|credential|token) | x-api-key | (?:proxy-)?authorization | cookie
          | signature | sig | credential | access[_-]?token | refresh[_-]?token | id[_-]?token | session[_-]?token
          | api[_-]?key | account[_-]?key | secret[_-]?access[_-]?key | client[_-]?secret
          | shared[_-]?access[_-]?signature | password | passwd | secret ) ["']? \s* (?: = | :(?!//) ) \s* )
    (?: "(?:[^"\\]|\\.)+" | '(?:[^'\\]|\\.)+' | (?<=:)\ *[^\s"',<>)\]}]{4,} | [^\s"',;&<>)\]}]{4,} )"""
)
_LOGIN = re.compile(r"(?<![\w/.:@-])[^\s/'\"@:]+:[^\s/'\"@]+@(?=[\w\[])")  # without a scheme
_KNOWN = re.compile(r"\b(?:(?:AKIA|ASIA)[A-Z0-9]{12,}|eyJ[\w-]{8,}\.[\w-]{4,}\.[\w-]*|ya29\.[\w.-]{8,})")
_ENVIRONMENT = re.compile(
    "SECRET|PASSW|TOKEN|(?:ACCESS|ACCOUNT|MASTER|API)_KEY|(?:^|_)SAS(?:_|$)|CONNECTION_STRING|CREDENTIALS?$"
)
_HIDDEN = "***"


def escaped(text: str) -> str:
    """Escape unprintable characters as ``repr`` does.

    These are controls, line separators, direction and zero-width marks, and lone surrogates.

    Parameters
    ----------
    text : str
        Any text, for example a name from a store.

    Returns
    -------
    str
        One line; XML allows every character of it, too.
    """
    return text if text.isprintable() else "".join(map(_escaped_character, text))


def _escaped_character(character: str) -> str:
    return character if character.isprintable() else repr(character)[1:-1]


def presentable(text: str, secrets: Sequence[str] = ()) -> str:
    """Return a message without secrets, and escaped."""
    return escaped(without_secrets(text, secrets))


def warn(message: str, category: type[Warning]) -> None:
    """Warn where user code calls this package; all warnings of this package are given here."""
    frame, stacklevel = inspect.currentframe(), 1
    while frame is not None and frame.f_globals.get("__name__", "").partition(".")[0] == _PACKAGE:
        frame, stacklevel = frame.f_back, stacklevel + 1
    warnings.warn(presentable(message), category, stacklevel=stacklevel)


_PACKAGE = __name__.partition(".")[0]


def secrets_of(source: Any, options: Mapping[str, Any]) -> list[str]:
    """Find the secrets of a store: all texts among its options except addresses, and user and query of a URL.

    Parameters
    ----------
    source : str or zarr.abc.store.Store
        An address, or a store. Stores of fsspec and obstore hold options of their own.
    options : mapping
        Storage options, nested or not.

    Returns
    -------
    list of str
        Longest first, so that each is hidden as a whole; without secrets too short to tell from other text.
        `without_secrets` looks for their encoded forms as well.
    """
    addresses = _addresses(source, options)
    users = [user[:-1] for text in addresses for user in _USER.findall(text)]
    found = {text for user in users for text in (user, user.partition(":")[2], *re.split("[:/@]", user))}
    found |= {value for text in addresses for value in _query_values(text)}
    texts = [value for value in _settings(source, options, references=False) if isinstance(value, str | bytes)]
    for text in (text if isinstance(text, str) else text.decode(errors="replace") for text in texts):
        found |= {text, text.rpartition(" ")[2]}  # "abc" in "Bearer abc" too
        found |= set(_values(text))
        found |= _basic(text)
    return sorted((text for text in found if len(text) > 3), key=len, reverse=True)


def _values(text: str) -> Iterator[str]:
    """Yield the values in cookies, signatures and connection strings, without accounts and parts of addresses."""
    for part in re.split("[;&]", text):
        name, _, value = part.partition("=")
        if name.strip() not in _PLACES_IN_CONNECTION_STRINGS:
            yield value


_PLACES_IN_CONNECTION_STRINGS = {"AccountName", "BlobEndpoint", "DefaultEndpointsProtocol", "EndpointSuffix"}


def _query_values(address: str) -> Iterator[str]:
    for link in address.split("::"):
        try:
            parts = urlsplit(link)
        except ValueError:
            continue
        if parts.scheme and "://" in link:
            yield from (text for text in (parts.query, parts.fragment) if text)
            for _, value in parse_qsl(parts.query):
                yield from (value, quote(value, safe=""))


def _basic(header: str) -> set[str]:
    """Return user and password in the value of a header for basic authentication."""
    kind, _, content = header.partition(" ")
    if kind.lower() != "basic":
        return set()
    try:
        user = base64.b64decode(content, validate=True).decode()
    except (binascii.Error, UnicodeDecodeError):
        return set()
    return {user, *user.partition(":")}


def holds_secrets(source: Any, options: Mapping[str, Any]) -> bool:
    """Whether a store holds secrets, or cannot be inspected.

    Parameters
    ----------
    source, options
        As in `secrets_of`.

    Returns
    -------
    bool
        False for paths, addresses and stores of zarr, fsspec and obstore whose options are only numbers and addresses.
        True for all other stores, because an Icechunk session or a store of the user cannot be inspected.
    """
    kind = type(source)
    if not isinstance(source, str) and (kind.__module__.partition(".")[0], kind.__name__) not in _OPEN_STORES:
        return True
    addresses = _addresses(source, options)
    return any(without_secrets(text) != text for text in addresses) or any(
        not isinstance(value, bool | int | float | None) for value in _settings(source, options)
    )


# stores whose settings can be inspected; the last one holds obstore's store in memory
_OPEN_STORES = {("zarr", name) for name in ("LocalStore", "ZipStore", "MemoryStore", "FsspecStore", "ObjectStore")}
_OPEN_STORES.add(("rainbear_dask", "_MemoryObjectStore"))
_ADDRESS = re.compile("url|endpoint|region|protocol|bucket|container")  # and everything inside such an option
_PLACE = re.compile(f"{_ADDRESS.pattern}|^(?:fo|path|cache_storage|library|profile|project|account_name|account_host)$")
_WORDS = ("true", "false", "anon", "browser", "cache", "cloud", "google_default")  # the last ones are tokens of gcsfs


def _settings(source: Any, options: Mapping[str, Any], *, references: bool = True) -> list[Any]:
    """Return all values among the options, including those that a store of fsspec or obstore holds, except addresses.

    Without ``references``, the many values of a reference file are left out.
    """
    found = [options, *_held(source)]
    if not references:
        found = [
            {key: value for key, value in each.items() if key != "fo"} if isinstance(each, Mapping) else each
            for each in found
        ]
    return [value for key, value in _leaves(found) if not _PLACE.search(key) and value not in _WORDS]


def _held(source: Any, depth: int = 4) -> Iterator[Any]:
    """Yield the options of a store, and of the stores and file systems inside it."""
    if isinstance(source, str) or depth == 0:
        return
    for name in ("storage_options", "config", "client_options", "credential_provider"):
        yield getattr(source, name, None)
    yield {"url": getattr(source, "url", None), "path": getattr(source, "path", None)}
    for name in ("store", "_store", "fs", "sync_fs"):
        inner = getattr(source, name, None)
        if inner is not None:
            yield from _held(inner, depth - 1)


def _addresses(source: Any, options: Mapping[str, Any]) -> list[str]:
    """Return the address of a store, and the addresses among its options."""
    inner = [value for key, value in _leaves([options, *_held(source)]) if _PLACE.search(key)]
    return [text for text in (source, *inner) if isinstance(text, str)]


def _leaves(value: Any, key: str = "") -> Iterator[tuple[str, Any]]:
    """Yield the values in mappings and sequences, each with its outermost address key, or else its innermost key."""
    if isinstance(value, Mapping):
        for name, inner in value.items():
            yield from _leaves(inner, key if _ADDRESS.search(key) else str(name))
    elif isinstance(value, list | tuple | set | frozenset):
        for inner in value:
            yield from _leaves(inner, key)
    else:
        yield key, value


def without_secrets(text: str, secrets: Sequence[str] = ()) -> str:
    """Remove secrets from a text: user, query and fragment of URLs, repeated parts of requests, and given secrets.

    Secrets are found in plain form, quoted for a URL, escaped, in base64 (at any alignment) and in hexadecimal digits.
    Secrets from the environment of this process are always removed.
    """
    if not text:
        return text
    for secret in (*secrets, *_in_environment()):
        for form in _forms(secret):
            text = text.replace(form, _HIDDEN)
        for core in _base64_cores(secret):
            if core in text:
                text = re.sub(rf"[\w+/-]*{re.escape(core)}[\w+/=-]*", _HIDDEN, text)
    text = _QUERY.sub(r"\1", _USER.sub("", _ANSWERED.sub("", _SAID.sub(r"\1", text))))
    text = _LOGIN.sub("", _HEADER.sub(rf"\1\2{_HIDDEN}", text))
    text = _SCHEME.sub(rf"\1 {_HIDDEN}", _NAMED.sub(rf"\1{_HIDDEN}", text))
    return _KNOWN.sub(_HIDDEN, text)


def _in_environment() -> list[str]:
    found = [value for name, value in os.environ.items() if _ENVIRONMENT.search(name.upper())]
    found += [part for value in found if "AccountKey=" in value for part in _values(value)]
    return sorted(
        (value for value in found if len(value) >= 8 and not value.startswith(("/", "~"))), key=len, reverse=True
    )


def _forms(secret: str) -> list[str]:
    """Return the forms in which libraries and servers write a secret, longest first."""
    plain = {secret, unquote(secret)}
    found = set(plain)
    for text in plain:
        quoted = {quote(text, safe=""), quote(text), quote_plus(text)}
        found |= quoted | {re.sub("%..", lambda code: code[0].lower(), each) for each in quoted}
        found |= {repr(text)[1:-1], json.dumps(text)[1:-1], html_escape(text), escaped(text)}
        found |= {text.encode(errors="replace").hex()} if len(text) >= _LONG else set()
    return sorted((each for each in found if len(each) > 3), key=len, reverse=True)


_LONG = 6
"""Bytes of a secret from which on its encoded form does not occur by chance."""


def _base64_cores(secret: str) -> set[str]:
    """Return the parts that base64 forms of a text with the secret have in common, one for each of three alignments."""
    found = set()
    for text in {secret, unquote(secret)}:
        content = text.encode(errors="replace")
        if len(content) < _LONG:
            continue
        for skipped in range(3):
            encoded = base64.b64encode(b"\0" * skipped + content).decode().rstrip("=")
            core = encoded[(0, 2, 3)[skipped] : len(encoded) - ((skipped + len(content)) % 3 != 0)]
            found |= {core, core.replace("+", "-").replace("/", "_")}
    return found


def reason(err: Exception, secrets: Sequence[str] = ()) -> str:
    """Return an error of another library as one line, without secrets."""
    text = " ".join(without_secrets(str(err), secrets).split())
    text = escaped(_CAUSE.sub(": ", _CONTEXT.sub(" ", text))).strip(" .")
    return f"{type(err).__name__}: {text[:300]}" if text else type(err).__name__


def safe_cause(err: BaseException | None, secrets: Sequence[str]) -> BaseException | None:
    """Return an error for ``raise ... from``; None if it does not pickle, or its traceback would show too much.

    Too much is a secret or a control character, in its own text or in the text of one of its causes.
    """
    return err if all(_is_safe(each, secrets) for each in _chain(err)) else None


def _chain(err: BaseException | None) -> Iterator[BaseException]:
    """Yield an error and every other error that its traceback shows."""
    todo, seen = [err], set[int]()
    while todo:
        one = todo.pop()
        if one is None or id(one) in seen:
            continue
        seen.add(id(one))
        yield one
        todo += [one.__cause__, one.__context__, *getattr(one, "exceptions", ())]


def _is_safe(err: BaseException, secrets: Sequence[str]) -> bool:
    lines = [line for text in (str(err), *getattr(err, "__notes__", ())) for line in text.split("\n")]
    if any(presentable(line.replace("\t", " "), secrets) != line.replace("\t", " ") for line in lines):
        return False
    try:
        content = pickle.dumps(err)
        pickle.loads(content)  # noqa: S301  pickled in the line above
    except Exception:  # noqa: BLE001  errors of other libraries fail to pickle in many ways
        return False
    hidden = (form.encode(errors="replace") for secret in (*secrets, *_in_environment()) for form in _forms(secret))
    return not any(form in content for form in hidden)
