"""The memory of this machine, as far as this process may use it."""

import os
from contextlib import suppress
from functools import cache
from pathlib import Path

_CGROUP_LIMITS = (Path("/sys/fs/cgroup/memory.max"), Path("/sys/fs/cgroup/memory/memory.limit_in_bytes"))
"""Files of Linux that bound the memory of a container or a job, of version 2 and 1."""


@cache
def machine_bytes() -> int | None:
    """Return the bytes of memory of this machine, or of its container; None if the system does not tell."""
    found = []
    with suppress(AttributeError, ValueError, OSError):  # Windows has no sysconf
        found.append(os.sysconf("SC_PHYS_PAGES") * os.sysconf("SC_PAGE_SIZE"))
    for path in _CGROUP_LIMITS:
        with suppress(OSError, ValueError):  # no such file, or "max"
            found.append(int(path.read_text()))
    return min((count for count in found if count > 0), default=None)
