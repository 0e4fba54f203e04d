"""Files of a folder that may hold anything: only regular ones are read, and no more of them than is allowed for."""

import os
import stat
from io import FileIO
from pathlib import Path

from rainbear_dask.resources.limits import check_size

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""With them, to open a pipe does not wait for a writer."""


class SpecialFileError(OSError):
    """A folder, pipe, socket or device is where a file should be."""


def read_start(path: str, size: int) -> bytes:
    """Read a small file in one step, or else raise; also what is no file is not waited for.

    Parameters
    ----------
    path : str
        Where it is.
    size : int
        Most bytes that it may have.

    Raises
    ------
    OSError
        If it has more, or cannot be read.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        found = os.read(descriptor, size + 1)
    finally:
        os.close(descriptor)
    if len(found) > size:
        raise OSError(f"it has more than {size} bytes")
    return found


def open_regular(path: str | Path) -> tuple[FileIO, int]:
    """Open a file, and nothing else.

    Parameters
    ----------
    path : str or Path
        Where it is.

    Returns
    -------
    file : FileIO
        To read from.
    size : int
        Its length in bytes.

    Raises
    ------
    SpecialFileError
        If a folder, pipe, socket or device is there.
    """
    descriptor = os.open(path, _FLAGS)
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        os.close(descriptor)
        raise SpecialFileError(f"it is {_kind(state.st_mode)}, and not a file")
    return FileIO(descriptor), state.st_size


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")


def read_part(path: str | Path, limit: int, start: int | None = None, stop: int | None = None) -> bytes | None:
    """Read a file, or a part of it.

    Parameters
    ----------
    path : str or Path
        Where it is.
    limit : int
        Most bytes that may be read.
    start, stop : int, optional
        Which part; from the end, if only a negative start is given.

    Returns
    -------
    bytes or None
        None if there is no file.

    Raises
    ------
    TooLargeError
        If the file, or the part, has more bytes.
    SpecialFileError
        If a folder, pipe, socket or device is there.
    """
    try:
        file, size = open_regular(path)
    except (FileNotFoundError, NotADirectoryError):
        return None
    with file:
        first = 0 if start is None else max(size + start, 0) if start < 0 else min(start, size)
        last = size if stop is None else min(stop, size)
        check_size(last - first, limit)
        file.seek(first)
        parts = list[bytes]()
        left = last - first
        while left > 0 and (part := file.read(left)):  # one call gives 2 GiB at most
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def is_regular(path: str | Path) -> bool:
    """Whether a file is there, and neither a folder nor what waits for a writer."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  an address may hold what no path can
    except (OSError, ValueError):
        return False
