"""Rows of a query to an output, and a message that says what was written."""

import sys
import threading
import time
from collections.abc import Callable
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from rainbear_dask.cli.outputs import check_output, open_output
from rainbear_dask.dialect.frames import SUFFIXES
from rainbear_dask.exceptions import QueryError
from rainbear_dask.redaction import presentable
from rainbear_dask.resources.limits import readable_bytes
from rainbear_dask.storage.local_files import is_regular

TERMINAL_ROWS = 1000
"""Rows that a terminal shows at most, unless the user names a number."""

_SINKS: dict[str, Callable[[pl.LazyFrame, Any], None]] = {
    "parquet": pl.LazyFrame.sink_parquet,
    "csv": pl.LazyFrame.sink_csv,
    "ipc": pl.LazyFrame.sink_ipc,
}


class RowWriter:
    """Writes the rows of one query, and counts them.

    Parameters
    ----------
    output : str
        A file, a URL of an object store, or "-" for standard output.
    form : str or None
        Format; by default the suffix of the output decides.
    head : int or None
        Number of rows that the user asked for.

    Raises
    ------
    QueryError
        If no format is known, or the output cannot be written to.
    """

    def __init__(self, output: str, form: str | None, head: int | None = None) -> None:
        self._output, self._start, self._heights = output, time.perf_counter(), list[int]()
        at_terminal = output == "-" and sys.stdout is not None and sys.stdout.isatty()
        self._is_cut = at_terminal and head is None
        self._sink = _sink(output, form)

    def write(self, query: pl.LazyFrame) -> None:
        """Write the rows of a query, without holding all of them in memory; a terminal gets the first ones only."""
        shown = query.head(TERMINAL_ROWS) if self._is_cut else query
        self._sink(shown.map_batches(partial(_counted, self._heights), streamable=True))

    def tell(self) -> None:
        """Say on standard error what was written into a file: rows, bytes, seconds."""
        rows, seconds = sum(self._heights), time.perf_counter() - self._start
        if self._output != "-":
            tell(f"wrote {rows:,} rows to {presentable(self._output)}{_size(self._output)} in {seconds:.3g} s")
        elif self._is_cut and rows == TERMINAL_ROWS:
            tell(f"a terminal shows {rows:,} rows at most. Add --head N for more, or --output FILE for all.")


def tell(text: str) -> None:
    """Print a message on standard error."""
    print(f"rainbear-dask: {text}", file=sys.stderr)


def on_thread(work: Callable[[], None]) -> None:
    """Work on another thread, so that the main thread, which handles signals, is never inside Polars."""
    failures: list[BaseException] = []

    def run() -> None:
        try:
            work()
        except BaseException as err:  # noqa: BLE001  raised again below
            failures.append(err)

    thread = threading.Thread(target=run, daemon=True)
    thread.start()
    thread.join()
    if failures:
        raise failures[0]


def _counted(heights: list[int], frame: pl.DataFrame) -> pl.DataFrame:
    heights.append(frame.height)
    return frame


def _size(output: str) -> str:
    is_file = "://" not in output and is_regular(output)
    return f" ({readable_bytes(Path(output).stat().st_size)})" if is_file else ""


def _sink(output: str, form: str | None) -> Callable[[pl.LazyFrame], None]:
    form = form or ("csv" if output == "-" else SUFFIXES.get(Path(output).suffix.lower()))
    if form is None:
        raise QueryError(
            f"The suffix of --output {output} names no format. Add --format {', '.join(_SINKS)}, or another suffix."
        )
    check_output(output)
    sink = _SINKS[form]
    if "://" in output:
        return lambda lf: on_thread(lambda: sink(lf, output))

    def write(lf: pl.LazyFrame) -> None:
        with open_output(output, text=form == "csv") as file:
            on_thread(lambda: sink(lf, file))

    return write
