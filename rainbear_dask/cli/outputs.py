"""Open the output of the command line: replace a file as a whole, or write into a pipe, a device or a terminal."""

import codecs
import os
import re
import secrets
import stat
import sys
from collections.abc import Callable, Iterator
from contextlib import contextmanager, suppress
from pathlib import Path
from typing import Any, BinaryIO

from rainbear_dask.exceptions import QueryError
from rainbear_dask.redaction import escaped

_DESCRIPTOR = re.compile(r"/dev/(?:std(?P<name>in|out|err)|fd/(?P<fd>\d+))|/proc/self/fd/(?P<own>\d+)")


@contextmanager
def open_output(path: str, *, text: bool) -> Iterator[BinaryIO]:
    """Open the output for writing.

    Parameters
    ----------
    path : str
        A file, a pipe, a device, or "-" for standard output. A file is replaced once all rows are written, and keeps
        its permissions; a symbolic link keeps its target. Pipes and devices are written into.
    text : bool
        Whether the rows are text. Terminals take text only, and show it escaped.

    Yields
    ------
    binary file
        The file to write to. If an error or a signal ends the writing, the old file is unchanged and no part of the new
        one is left.

    Raises
    ------
    QueryError
        If the path cannot be written to.
    BrokenPipeError
        If the reader of a pipe has closed it.
    """
    if path == "-":
        if sys.stdout is None:
            raise QueryError("Standard output is closed. Name a file in --output.")
        with _stream(sys.stdout.buffer, path, text=text) as file:
            yield file
        return
    if found := _DESCRIPTOR.fullmatch(os.path.normpath(path)):
        number = {"in": 0, "out": 1, "err": 2}.get(found["name"] or "", int(found["fd"] or found["own"] or 0))
        with os.fdopen(os.dup(number), "wb") as file, _stream(file, path, text=text) as stream:
            yield stream
        return
    state = _state(path)
    if state is None or stat.S_ISREG(state.st_mode):
        with _replaced(Path(path).resolve(), state) as file:
            yield file
        return
    with os.fdopen(os.open(path, os.O_WRONLY), "wb") as file, _stream(file, path, text=text) as stream:
        yield stream


def check_output(path: str) -> None:
    """Raise an error for an output that cannot be written to, before anything is read.

    Raises
    ------
    QueryError
        If the path cannot be written to.
    """
    if path != "-" and "://" not in path and not _DESCRIPTOR.fullmatch(os.path.normpath(path)):
        _state(path)


def _state(path: str) -> os.stat_result | None:
    """Return the state of a path, None if nothing is there; raise an error if it cannot or must not be written to."""
    try:
        state = os.stat(path)  # noqa: PTH116  follows links
    except FileNotFoundError:
        folder = Path(path).resolve().parent
        if not folder.is_dir():
            raise QueryError(
                f"The path --output {path} is in a folder that does not exist. Create {folder} first."
            ) from None
        return None
    mode = state.st_mode
    if stat.S_ISDIR(mode):
        raise QueryError(f"The path --output {path} is a folder. Name a file in it.")
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        kind = "a disk" if stat.S_ISBLK(mode) else "a socket"
        raise QueryError(f"The path --output {path} is {kind}. Name a file.")
    if stat.S_ISREG(mode):
        if not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) or not os.access(path, os.W_OK):
            raise QueryError(f"The path --output {path} is read-only. Name another file, or change its permissions.")
        if state.st_nlink > 1:
            raise QueryError(
                f"The path --output {path} is one of {state.st_nlink} names (hard links) of a file. The others would "
                "keep the old rows. Name another file, or remove this name first."
            )
    return state


@contextmanager
def _replaced(path: Path, state: os.stat_result | None) -> Iterator[BinaryIO]:
    """Write under a temporary name first, so that a file with the final name is always complete."""
    half = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.part")
    flags = os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0)
    try:  # opened here and inside of it, because a signal may come at any moment, and Polars would create the file again
        with os.fdopen(os.open(half, flags, 0o666), "wb") as file:
            yield file
            file.flush()
            if state is not None:
                with suppress(PermissionError):  # a file of another user gets a new owner
                    os.chown(half, state.st_uid, state.st_gid)
                half.chmod(stat.S_IMODE(state.st_mode))
            os.fsync(file.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


@contextmanager
def _stream(file: BinaryIO, path: str, *, text: bool) -> Iterator[BinaryIO]:
    """Yield a file for a reader that may stop reading, or for a terminal."""
    at_terminal = file.isatty()
    if at_terminal and not text:
        raise QueryError("This format is not for a terminal. Name a file in --output, or write CSV.")
    terminal: Any = _Terminal(file.write)
    try:
        yield terminal if at_terminal else file
        file.flush()
    except Exception as err:
        if "Broken pipe" in str(err):  # Polars has no class for it
            raise BrokenPipeError(f"The reader of {path} has closed it.") from None
        raise


class _Terminal:
    """Shows text line by line, with control characters escaped."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, content: bytes) -> int:
        """Show text."""
        lines = self._decoder.decode(bytes(content)).split("\n")
        self._write("\n".join(map(escaped, lines)).encode())
        return len(content)

    def flush(self) -> None:
        """Do nothing: `write` passes everything on at once."""
