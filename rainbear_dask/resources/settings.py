"""What can be set: the section ``rainbear-dask`` of Dask's configuration. ``rainbear-dask.yaml`` has it all, with defaults."""

import os
from importlib.resources import files
from typing import Any

import dask.config
import yaml
from dask.utils import parse_bytes

from rainbear_dask.exceptions import SettingError

SECTION = "rainbear-dask"
DEFAULTS: dict[str, Any] = yaml.safe_load(files("rainbear_dask").joinpath("rainbear-dask.yaml").read_text())[SECTION]

dask.config.update_defaults({SECTION: DEFAULTS})


def num_bytes(name: str) -> int:
    """A setting that is a number of bytes: 1000000, or "64MiB".

    Raises
    ------
    SettingError
        If it is neither.
    """
    value = _setting(name)
    try:
        count = int(parse_bytes(value)) if isinstance(value, int | float | str) else -1
    except ValueError:
        count = -1
    if count < 0:
        raise _wrong(name, value, "a number of bytes, as 1000000 or '64MiB'")
    return count


def num_threads(*, waiting: bool = False) -> int:
    """Threads of this process on which scans run.

    Parameters
    ----------
    waiting : bool
        Whether they mostly wait for a service, so that more than there are processors are of use.

    Raises
    ------
    SettingError
        If the setting is not a number of threads.
    """
    value = _setting("threads")
    if value is None:
        processors = len(os.sched_getaffinity(0)) if hasattr(os, "sched_getaffinity") else os.cpu_count() or 1
        return max(processors, _WAITING_THREADS) if waiting else processors
    if not isinstance(value, int) or value < 1:
        raise _wrong("threads", value, "a number of threads, or null")
    return value


_WAITING_THREADS = 16


def requests_in_flight() -> int:
    """Requests that this process has in flight at most.

    Raises
    ------
    SettingError
        If the setting is not a number of requests.
    """
    value = _setting("requests-in-flight")
    if not isinstance(value, int) or value < 1:
        raise _wrong("requests-in-flight", value, "a number of requests")
    return value


def _setting(name: str) -> Any:
    # a `dask.config.set` that began before this module was imported takes the whole section along when it ends
    return dask.config.get(f"{SECTION}.{name}", default=DEFAULTS[name])


def _wrong(name: str, value: Any, wanted: str) -> SettingError:
    return SettingError(f"the setting {SECTION}.{name} of Dask's configuration is {value!r}; it has to be {wanted}.")
