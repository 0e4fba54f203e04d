"""Files of untrusted folders: only regular files are read, up to a given number of bytes."""

import os
import stat
from io import FileIO
from pathlib import Path

from rainbear_dask.resources.limits import check_size

_FLAGS = os.O_RDONLY | getattr(os, "O_NONBLOCK", 0) | getattr(os, "O_CLOEXEC", 0) | getattr(os, "O_BINARY", 0)
"""Flags with which opening a pipe does not wait for a writer."""


class SpecialFileError(OSError):
    """The path of a file holds a folder, pipe, socket or device."""


def read_start(path: str, size: int) -> bytes:
    """Read a small file in one step, or raise. It waits for no pipe or device.

    Parameters
    ----------
    path : str
        Path of the file.
    size : int
        Upper bound on the bytes of the file.

    Raises
    ------
    OSError
        If the file has more bytes, or cannot be read.
    """
    descriptor = os.open(path, _FLAGS)
    try:
        found = os.read(descriptor, size + 1)
    finally:
        os.close(descriptor)
    if len(found) > size:
        raise OSError(f"the file has more than {size} bytes")
    return found


def open_regular(path: str | Path) -> tuple[FileIO, int]:
    """Open a regular file.

    Parameters
    ----------
    path : str or Path
        Path of the file.

    Returns
    -------
    file : FileIO
        The open file.
    size : int
        Length of the file in bytes.

    Raises
    ------
    SpecialFileError
        If the path holds a folder, pipe, socket or device.
    """
    descriptor = os.open(path, _FLAGS)
    state = os.fstat(descriptor)
    if not stat.S_ISREG(state.st_mode):
        os.close(descriptor)
        raise SpecialFileError(f"it is {_kind(state.st_mode)} instead of a file")
    return FileIO(descriptor), state.st_size


def _kind(mode: int) -> str:
    kinds = ((stat.S_ISDIR, "a folder"), (stat.S_ISFIFO, "a pipe"), (stat.S_ISSOCK, "a socket"))
    return next((name for test, name in kinds if test(mode)), "a device")


def read_part(path: str | Path, limit: int, start: int | None = None, stop: int | None = None) -> bytes | None:
    """Read a file, or a part of it.

    Parameters
    ----------
    path : str or Path
        Path of the file.
    limit : int
        Upper bound on the bytes to read.
    start, stop : int, optional
        Range of the part in bytes. A negative start without a stop counts from the end.

    Returns
    -------
    bytes or None
        The bytes; None if there is no file.

    Raises
    ------
    TooLargeError
        If the file, or the part, has more bytes.
    SpecialFileError
        If the path holds a folder, pipe, socket or device.
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
        while left > 0 and (part := file.read(left)):  # one call returns at most 2 GiB
            parts.append(part)
            left -= len(part)
        return parts[0] if len(parts) == 1 else b"".join(parts)


def is_regular(path: str | Path) -> bool:
    """Whether a path holds a regular file."""
    try:
        return stat.S_ISREG(os.stat(path).st_mode)  # noqa: PTH116  Path refuses some addresses
    except (OSError, ValueError):
        return False
