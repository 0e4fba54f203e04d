"""Check `storage_options` before anything is opened: a misspelt option is an error that names the nearest one."""

import inspect
from collections.abc import Mapping
from difflib import get_close_matches
from typing import Any

import fsspec

from rainbear_dask.exceptions import QueryError, UnknownOptionError
from rainbear_dask.storage.services import scheme_of, service_of
from rainbear_dask.storage.sources import is_url


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
        If the service of the URL has no such option.
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
    scheme, service = scheme_of(source), service_of(source)
    if service is None:
        return
    for name in options:
        if name not in service.options and name not in _parameters(scheme):
            near = get_close_matches(str(name), service.options, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else "Correct it, or leave it out."
            raise UnknownOptionError(f"A URL of {scheme}:// has no storage option {name!r}. {hint}")


def _parameters(scheme: str) -> set[str]:
    """Return the parameters of the file system of fsspec; a newer release may have further ones."""
    try:
        parameters = inspect.signature(fsspec.get_filesystem_class(scheme).__init__).parameters.values()
    except (ImportError, ValueError):  # not installed, or unknown until it is
        return set()
    # the class itself has the signature of fsspec's metaclass
    return {each.name for each in parameters if each.kind in (each.POSITIONAL_OR_KEYWORD, each.KEYWORD_ONLY)} - {"self"}
