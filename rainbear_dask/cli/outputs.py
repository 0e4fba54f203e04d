"""Where the command line writes rows: a new file in place of an old one, or into what is no plain file; never half."""

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
def opened_output(path: str, *, text: bool) -> Iterator[BinaryIO]:
    """Open what rows are written to.

    Parameters
    ----------
    path : str
        A file, which is replaced when all is written, with its permissions; what a symbolic link leads to; a pipe or a device,
        which is written into; or "-" for standard output.
    text : bool
        Whether text is written. A terminal shows it escaped, and takes nothing else.

    Yields
    ------
    binary file
        To write to. If an error or a signal ends the writing, a file is what it was before, and nothing is left beside it.

    Raises
    ------
    QueryError
        If nothing may be written there.
    BrokenPipeError
        If the reader of a pipe has gone.
    """
    if path == "-":
        if sys.stdout is None:
            raise QueryError("standard output is closed. Name a file in --output.")
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
    """Refuse a path that nothing may be written to, before anything is read.

    Raises
    ------
    QueryError
        If it is one.
    """
    if path != "-" and "://" not in path and not _DESCRIPTOR.fullmatch(os.path.normpath(path)):
        _state(path)


def _state(path: str) -> os.stat_result | None:
    """What is there, if anything; refused if it is neither a file of one name that may be written, nor a pipe or a device."""
    try:
        state = os.stat(path)  # noqa: PTH116  of what links lead to
    except FileNotFoundError:
        return None
    mode = state.st_mode
    if stat.S_ISDIR(mode):
        raise QueryError(f"--output {path} is a folder. Name a file in it.")
    if stat.S_ISBLK(mode) or stat.S_ISSOCK(mode):
        kind = "a disk" if stat.S_ISBLK(mode) else "a socket"
        raise QueryError(f"--output {path} is {kind}, which rows are not written to. Name a file.")
    if stat.S_ISREG(mode):
        if not mode & (stat.S_IWUSR | stat.S_IWGRP | stat.S_IWOTH) or not os.access(path, os.W_OK):
            raise QueryError(f"--output {path} is read-only. Name another file, or change its permissions.")
        if state.st_nlink > 1:
            raise QueryError(
                f"--output {path} is one of {state.st_nlink} names (hard links) of a file, and writing would leave the "
                "others with the old rows. Name another file, or remove this name first."
            )
    return state


@contextmanager
def _replaced(path: Path, state: os.stat_result | None) -> Iterator[BinaryIO]:
    """Write under another name first: a file that is there is whole."""
    half = path.with_name(f".{path.name[:40]}.{os.getpid()}.{secrets.token_hex(4)}.part")
    number = os.open(half, os.O_WRONLY | os.O_CREAT | os.O_EXCL | getattr(os, "O_NOFOLLOW", 0), 0o666)
    try:
        with os.fdopen(number, "wb") as file:  # opened here: Polars might make it after a signal had it deleted
            yield file
            file.flush()
            if state is not None:
                with suppress(PermissionError):  # a file of another user's becomes one's own
                    os.chown(half, state.st_uid, state.st_gid)
                half.chmod(stat.S_IMODE(state.st_mode))
            os.fsync(file.fileno())
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


@contextmanager
def _stream(file: BinaryIO, path: str, *, text: bool) -> Iterator[BinaryIO]:
    """What goes to a reader that may leave, or to a terminal."""
    at_terminal = file.isatty()
    if at_terminal and not text:
        raise QueryError("this format is not for a terminal. Name a file in --output, or write CSV.")
    terminal: Any = _Terminal(file.write)
    try:
        yield terminal if at_terminal else file
        file.flush()
    except Exception as err:
        if "Broken pipe" in str(err):  # Polars has no class for it
            raise BrokenPipeError(f"the reader of {path} has gone") from None
        raise


class _Terminal:
    """Shows text with whatever commands a terminal escaped, line by line."""

    def __init__(self, write: Callable[[bytes], Any]) -> None:
        self._write = write
        self._decoder = codecs.getincrementaldecoder("utf-8")("backslashreplace")

    def write(self, content: bytes) -> int:
        """Show some."""
        lines = self._decoder.decode(bytes(content)).split("\n")
        self._write("\n".join(map(escaped, lines)).encode())
        return len(content)

    def flush(self) -> None:
        """Do nothing: what is written is handed on."""
