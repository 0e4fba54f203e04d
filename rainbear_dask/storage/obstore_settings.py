"""Settings that all stores of obstore share: time limits, retries, and options as a service's table sorts them."""

import http.client
from collections.abc import Mapping
from datetime import timedelta
from typing import Any

from rainbear_dask.storage.services import Service

CLIENT_OPTIONS: Mapping[str, Any] = {"connect_timeout": "10s", "read_timeout": "20s", "timeout": "120s"}
"""Time-outs: to connect, between two pieces of a response, and for one request as a whole."""

RETRY_CONFIG: Mapping[str, Any] = {"max_retries": 10, "retry_timeout": timedelta(seconds=120)}
"""Retries, with obstore's back-off: random waits from 100 ms, doubled each time, up to 15 s."""

_METADATA_SECONDS = 1.0


class NotForObstoreError(Exception):
    """Only fsspec supports the options."""


def limits(given: dict[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Take time-outs and retries from options, over our own defaults."""
    client_options, retry_config = given.pop("client_options", None) or {}, given.pop("retry_config", None) or {}
    return {**CLIENT_OPTIONS, **client_options}, {**RETRY_CONFIG, **retry_config}


def flat(options: Mapping[str, Any], *nested: str) -> dict[str, Any]:
    """Return nested options as one level, without None."""
    levels = [*({} if options.get(name) is None else options[name] for name in nested), options]
    return {
        name: value for level in levels for name, value in level.items() if name not in nested and value is not None
    }


def sort_options(service: Service, options: Mapping[str, Any]) -> tuple[dict[str, Any], dict[str, Any]]:
    """Return the options to translate, and the settings of obstore among them, by the table of a service.

    Raises
    ------
    NotForObstoreError
        If obstore has no equivalent of an option.
    """
    given = {name: value for name, value in options.items() if value is not None and name not in service.ignored}
    own = {name: given.pop(name) for name in service.obstore_only if name in given}
    refuse_rest(given.keys() - service.translated)
    return given, own


def refuse_rest(given: Any) -> None:
    """Refuse options that are left after the translation.

    Raises
    ------
    NotForObstoreError
        If there are any.
    """
    if given:
        raise NotForObstoreError(f"obstore does not know {', '.join(sorted(given))}")


def metadata_service_answers(host: str, path: str, header: tuple[str, str]) -> bool:
    """Whether this machine is one of a cloud, whose metadata service gives credentials.

    Parameters
    ----------
    host : str
        Address of the service.
    path : str
        Path and query of a document that every machine of the cloud has.
    header : tuple of str
        Name and value of the header that the service demands.
    """
    connection = http.client.HTTPConnection(host, timeout=_METADATA_SECONDS)  # no proxy leads there
    try:
        connection.request("GET", path, headers=dict([header]))
        return connection.getresponse().status == http.HTTPStatus.OK
    except (OSError, http.client.HTTPException):
        return False
    finally:
        connection.close()
