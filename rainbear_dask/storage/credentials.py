"""Credentials outside of Dask graphs: a graph holds a token, and each process knows the secret behind it.

The scheduler, its log and its dashboard see the graph. The secret of a token travels past them, in messages to the
workers.
"""

import base64
import hmac
import pickle
import secrets
import uuid
from collections.abc import Mapping
from dataclasses import dataclass, field, replace
from typing import Any
from weakref import WeakValueDictionary

import cloudpickle

from rainbear_dask.exceptions import StoreAccessError
from rainbear_dask.redaction import holds_secrets
from rainbear_dask.resources.cache import ByteLRU
from rainbear_dask.resources.openings import when_gone
from rainbear_dask.storage.spec import CacheKey, StoreSpec


class Secret:
    """Source and options that open a store. A process has one object for each token.

    Parameters
    ----------
    token : str
        Name of the secret, which reveals nothing about it.
    source : object
        A store, or an address that contains a user. None where the options alone are secret.
    options : mapping
        Storage options of an address.
    """

    def __init__(self, token: str, source: Any, options: Mapping[str, Any]) -> None:
        self.token, self.source, self.options = token, source, options

    def __reduce__(self) -> tuple[Any, ...]:
        content = cloudpickle.dumps((self.source, self.options))
        # no protection from an attacker, but a log of messages then shows no plain secret
        return _unpacked, (self.token, base64.b64encode(content))


_secrets: WeakValueDictionary[str, Secret] = WeakValueDictionary()
_SALT = secrets.token_bytes(32)  # without it, a token would confirm a guessed password


@dataclass(frozen=True, slots=True)
class Sealed:
    """Stands for a store's source and options in a graph.

    Parameters
    ----------
    token : str
        Name of the secret.
    address : str or None
        The source, if only the options are secret.
    secret : Secret or None
        The secret itself in the process that sealed it. It does not pickle.
    """

    token: str
    address: str | None
    secret: Secret | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Sealed, (self.token, self.address)


_sealed: ByteLRU[CacheKey, Sealed | None] = ByteLRU(lambda: 64, lambda *_: 1, lambda key: key[0], overhead=0)
when_gone(_sealed.forget_soon)


def seal(spec: StoreSpec) -> StoreSpec:
    """Return a recipe for a graph: with a token in place of secrets, or unchanged without secrets."""
    if isinstance(spec.source, Sealed):
        return spec
    (sealed,) = _sealed.get_all([spec.cache_key()], lambda _: [_new_seal(spec)])
    return spec if sealed is None else replace(spec, source=sealed, options={})


def _new_seal(spec: StoreSpec) -> Sealed | None:
    if not holds_secrets(spec.source, spec.options):
        return None
    address = spec.source if isinstance(spec.source, str) and not holds_secrets(spec.source, {}) else None
    source = spec.source if address is None else None
    try:
        content = cloudpickle.dumps((source, spec.options))
        token = hmac.digest(_SALT, content, "sha256").hex()  # one for all stores with the same credentials
    except Exception:  # noqa: BLE001  a store that does not pickle may raise anything, and can be read here
        token = uuid.uuid4().hex
    return Sealed(token, address, _known(token, source, spec.options))


def secret_of(spec: StoreSpec) -> Secret | None:
    """Return the secret that a graph leaves out of a recipe, if there is one."""
    sealed = seal(spec).source
    return sealed.secret if isinstance(sealed, Sealed) else None


def unseal(spec: StoreSpec) -> tuple[Any, Mapping[str, Any]]:
    """Return the source and the options of a recipe, sealed or not.

    Raises
    ------
    StoreAccessError
        If this process does not know the secret of the token.
    """
    sealed = spec.source
    if not isinstance(sealed, Sealed):
        return sealed, spec.options
    secret = sealed.secret or _secrets.get(sealed.token)
    if secret is None:
        raise StoreAccessError(
            f"This process has no credentials for {spec.label}. Dask graphs do not contain them, and the client that "
            "brings them to workers is another one, or is closed. Make the graph for the client that runs it: "
            "plan.to_delayed(client)."
        )
    return sealed.address if secret.source is None else secret.source, secret.options


def is_known(token: str) -> bool:
    """Whether this process knows the secret of a token."""
    return token in _secrets


def _unpacked(token: str, content: bytes) -> Secret:
    return _secrets.get(token) or _known(token, *pickle.loads(base64.b64decode(content)))  # noqa: S301  as Dask does


def _known(token: str, source: Any, options: Mapping[str, Any]) -> Secret:
    return _secrets.setdefault(token, Secret(token, source, options))
