"""Settings: the section ``rainbear-dask`` of Dask's configuration. ``rainbear-dask.yaml`` lists all with defaults."""

import os
from difflib import get_close_matches
from importlib.resources import files
from typing import Any

import dask.config
import yaml
from dask.utils import parse_bytes

from rainbear_dask.exceptions import SettingError, UnknownSettingWarning
from rainbear_dask.redaction import warn

SECTION = "rainbear-dask"
DEFAULTS: dict[str, Any] = yaml.safe_load(files("rainbear_dask").joinpath("rainbear-dask.yaml").read_text())[SECTION]

MIN_REMOTE_THREADS = 16
"""Threads of a process whose reads are latency-bound, even if it has fewer CPUs."""

dask.config.update_defaults({SECTION: DEFAULTS})


def num_bytes(name: str) -> int:
    """Return a setting that is a number of bytes, such as 1000000 or "64MiB".

    Raises
    ------
    SettingError
        If its value is not a number of bytes.
    """
    value = setting(name)
    try:
        count = int(parse_bytes(value)) if isinstance(value, int | float | str) else -1
    except ValueError:
        count = -1
    if count < 0:
        raise _error(name, value, "a number of bytes, such as 1000000 or '64MiB'")
    return count


def num_threads(*, waiting: bool = False) -> int:
    """Return the number of threads of this process that run scans.

    Parameters
    ----------
    waiting : bool
        Whether the reads are latency-bound, so that more threads than CPUs pay off.

    Raises
    ------
    SettingError
        If the setting is not a number of threads.
    """
    value = setting("threads")
    if value is None:
        cpus = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(cpus, MIN_REMOTE_THREADS) if waiting else cpus
    if not isinstance(value, int) or value < 1:
        raise _error("threads", value, "a number of threads, or null")
    return value


def requests_in_flight() -> int:
    """Return the number of requests that this process may have in flight.

    Raises
    ------
    SettingError
        If the setting is not a number of requests.
    """
    value = setting("requests-in-flight")
    if not isinstance(value, int) or value < 1:
        raise _error("requests-in-flight", value, "a number of requests")
    return value


def memory_share() -> float | None:
    """Return the share of this machine's memory that a result may take; None for any.

    Raises
    ------
    SettingError
        If the setting is not a number above 0.
    """
    value = setting("memory-share")
    if value is not None and (isinstance(value, bool) or not isinstance(value, int | float) or not value > 0):
        raise _error("memory-share", value, "a number above 0, such as 0.8, or null")
    return value


def check_settings() -> None:
    """Warn of settings in our section that this package does not have; they are misspelt, and without effect."""
    _check_names(dask.config.get(SECTION, default={}), DEFAULTS, SECTION)


def _check_names(given: Any, known: dict[str, Any], section: str) -> None:
    for name, value in given.items() if isinstance(given, dict) else ():
        spelt = str(name).replace("_", "-")
        if spelt not in known:
            near = get_close_matches(spelt, known, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"The settings are {', '.join(known)}."
            warn(f"There is no setting `{section}.{name}`, so it has no effect. {hint}", UnknownSettingWarning)
        elif isinstance(known[spelt], dict):
            _check_names(value, known[spelt], f"{section}.{spelt}")


def setting(name: str) -> Any:
    """Return the value of a setting; of a section, the values of all its settings."""
    # a `dask.config.set` that began before this module was imported removes the whole section when it ends
    default = DEFAULTS[name]
    value = dask.config.get(f"{SECTION}.{name}", default=default)
    return {**default, **value} if isinstance(default, dict) and isinstance(value, dict) else value


def _error(name: str, value: Any, wanted: str) -> SettingError:
    return SettingError(f"The setting `{SECTION}.{name}` of Dask's configuration is {value!r}. Set it to {wanted}.")
