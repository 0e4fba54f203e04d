"""What a graph must not hold: where a store is opened with secrets, it holds a token, and a process knows what that means.

A graph passes the scheduler, its log and its dashboard; what goes with the token travels past them (`delivery`).
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
from rainbear_dask.resources.cache import ByteLRU, when_gone
from rainbear_dask.storage.spec import CacheKey, StoreSpec


class Secret:
    """What a store is opened with; it is the same object wherever its token is known in a process.

    Parameters
    ----------
    token : str
        Names it, and tells nothing of it.
    source : object
        A store, or an address with a user in it. None where the options alone are secret.
    options : mapping
        Storage options that go with an address.
    """

    def __init__(self, token: str, source: Any, options: Mapping[str, Any]) -> None:
        self.token, self.source, self.options = token, source, options

    def __reduce__(self) -> tuple[Any, ...]:
        content = cloudpickle.dumps((self.source, self.options))
        # this hides nothing from who looks for it, but from who reads a log of messages that pass
        return _unpacked, (self.token, base64.b64encode(content))


_secrets: WeakValueDictionary[str, Secret] = WeakValueDictionary()
_SALT = secrets.token_bytes(32)  # without it, whoever sees a token could try which password it is of


@dataclass(frozen=True, slots=True)
class Sealed:
    """Takes the place of a store's source, and of its options, in a graph.

    Parameters
    ----------
    token : str
        Names the secret.
    address : str or None
        The source, where only the options are secret.
    secret : Secret or None
        The secret itself, where it was sealed; it stays there.
    """

    token: str
    address: str | None
    secret: Secret | None = field(default=None, repr=False, compare=False)

    def __reduce__(self) -> tuple[Any, ...]:
        return Sealed, (self.token, self.address)


_sealed: ByteLRU[CacheKey, Sealed | None] = ByteLRU(lambda: 64, lambda *_: 1, lambda key: key[0], overhead=0)
when_gone(_sealed.forget_soon)


def seal(spec: StoreSpec) -> StoreSpec:
    """The recipe that a graph may hold: one with a token for what is secret, or the same if nothing is."""
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
        token = hmac.digest(_SALT, content, "sha256").hex()  # stores with the same credentials have one
    except Exception:  # noqa: BLE001  whatever a store raises that does not pickle; it can be read in this process
        token = uuid.uuid4().hex
    return Sealed(token, address, _known(token, source, spec.options))


def secret_of(spec: StoreSpec) -> Secret | None:
    """What a graph leaves out of a recipe, if anything."""
    sealed = seal(spec).source
    return sealed.secret if isinstance(sealed, Sealed) else None


def unseal(spec: StoreSpec) -> tuple[Any, Mapping[str, Any]]:
    """Source and options of a recipe, sealed or not.

    Raises
    ------
    StoreAccessError
        If this process was not given what the token stands for.
    """
    sealed = spec.source
    if not isinstance(sealed, Sealed):
        return sealed, spec.options
    secret = sealed.secret or _secrets.get(sealed.token)
    if secret is None:
        raise StoreAccessError(
            f"this process has no credentials for {spec.label}: they are no part of a Dask graph, and the client that "
            "brings them to workers is another one, or is closed. Make the graph for the client that runs it: "
            "plan.to_delayed(client)."
        )
    return sealed.address if secret.source is None else secret.source, secret.options


def is_known(token: str) -> bool:
    """Whether this process has what a token stands for."""
    return token in _secrets


def _unpacked(token: str, content: bytes) -> Secret:
    return _secrets.get(token) or _known(token, *pickle.loads(base64.b64decode(content)))  # noqa: S301  as Dask does


def _known(token: str, source: Any, options: Mapping[str, Any]) -> Secret:
    return _secrets.setdefault(token, Secret(token, source, options))
