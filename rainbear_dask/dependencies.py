"""Import packages that extras install: a missing one raises an error that names its extra."""

from importlib import import_module
from typing import Any

from rainbear_dask.exceptions import MissingDependencyError


def require(module: str, *, extra: str) -> Any:
    """Import a module of an optional package.

    Parameters
    ----------
    module : str
        Full name of the module.
    extra : str
        The extra of rainbear-dask that installs it.

    Returns
    -------
    module
        As `importlib.import_module` returns it.

    Raises
    ------
    MissingDependencyError
        If the import fails; the message says how to install the package.
    """
    try:
        return import_module(module)
    except ImportError as err:
        raise MissingDependencyError(f"Cannot import {module}: {err}. {how_to_install(extra)}") from err


def how_to_install(extra: str) -> str:
    """Return the sentence that tells users how to install an extra."""
    return f"Install it: pip install 'rainbear-dask[{extra}]'."
