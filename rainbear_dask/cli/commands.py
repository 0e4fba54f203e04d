"""The subcommands of ``rainbear-dask``: describe a store, plan a query, and write its rows to a file."""

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import dask.config
import polars as pl
from polars.exceptions import ColumnNotFoundError, PolarsError

from rainbear_dask.api.scan import explain, plan, scan_zarr
from rainbear_dask.api.zonal import zonal
from rainbear_dask.cli.outputs import check_output, open_output
from rainbear_dask.diagnostics.progress import progress
from rainbear_dask.exceptions import (
    ClusterError,
    PlanTooLargeError,
    PredicateError,
    QueryError,
    RainbearError,
    StoreError,
)
from rainbear_dask.redaction import escaped, presentable, secrets_of
from rainbear_dask.table.model import Table, unknown_column

if TYPE_CHECKING:
    from distributed import Client


FAILURE, USAGE, STORE, TOO_LARGE, CLUSTER = 1, 2, 3, 4, 5


def run(args: argparse.Namespace) -> int:
    """Run one command.

    Parameters
    ----------
    args : Namespace
        The parsed command line.

    Returns
    -------
    int
        The exit code. An error is one line on standard error.
    """
    secrets = secrets_of(args.url, _source(args)["storage_options"])
    for name in ("output", "cluster"):
        secrets += secrets_of(getattr(args, name, None) or "", {})
    # users need the message only, not the line of code
    warnings.showwarning = partial(_print_warning, secrets)
    try:
        _COMMANDS[args.command](args)
        if sys.stdout is not None:
            sys.stdout.flush()
    except BrokenPipeError:  # the reader of the pipe has stopped reading
        if sys.stdout is not None:
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for the flush at exit
        return 128 + signal.SIGPIPE
    except Exception as err:  # noqa: BLE001  one line tells users more than a traceback
        print(f"rainbear-dask: {_one_line(err, secrets)}", file=sys.stderr)
        return _code(err)
    return 0


def _info(args: argparse.Namespace) -> None:
    table = plan(args.url, **_source(args)).table
    _show(f"{table.spec.label}: {table.num_rows:,} rows")
    _show("\n".join(_aligned(_described(table))))


def _described(table: Table) -> Iterator[tuple[str, ...]]:
    yield ("column", "type", "role", "dimensions", "chunks", "shards")
    for name, column in table.columns.items():
        array = column.array
        sizes = dict(zip(array.dims, array.shape, strict=True)) if array else {name: table.sizes[name]}
        yield (
            name,
            str(column.dtype),
            column.role if array else "index",
            ", ".join(f"{dim}: {size:,}" for dim, size in sizes.items()),
            " x ".join(map(str, array.chunks)) if array else "",
            " x ".join(map(str, array.shards)) if array and array.shards else "",
        )


def _aligned(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    cells = [tuple(map(escaped, row)) for row in rows]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _plan(args: argparse.Namespace) -> None:
    _show(explain(_query(args)))


def _show(text: str) -> None:
    """Print text that is escaped already; characters that the terminal lacks appear as their numbers."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _scan(args: argparse.Namespace) -> None:
    write = _sink(args.output, args.format)
    wanted = sys.stderr.isatty() if args.progress is None else args.progress
    with _cluster(args) as client, progress() if wanted else nullcontext():
        write(_query(args, client))


def _zonal(args: argparse.Namespace) -> None:
    write = _sink(args.output, args.format)
    wanted = sys.stderr.isatty() if args.progress is None else args.progress
    with _cluster(args) as client, progress() if wanted else nullcontext():
        lf = zonal(
            scan_zarr(args.url, **_source(args)),
            Path(args.zones),
            args.columns,
            stats=args.stats,
            weights=args.weights,
            by=args.by,
            lon=args.lon,
            lat=args.lat,
            client=client,
        )
        write(lf if args.where is None else _filtered(lf, args.where, lf.collect_schema(), presentable(args.url)))


_COMMANDS = {"info": _info, "plan": _plan, "scan": _scan, "zonal": _zonal}


def _source(args: argparse.Namespace) -> dict[str, Any]:
    options: dict[str, Any] = {}
    for key, value in args.option:
        *outer, last = key.split(".")
        inner = options
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return {"group": args.group, "variables": args.variables, "storage_options": options}


def _query(args: argparse.Namespace, client: "Client | None" = None) -> pl.LazyFrame:
    limits = {"max_chunks_to_read": args.max_chunks, "max_rows": args.max_rows, "max_bytes": args.max_bytes}
    lf = scan_zarr(args.url, client=client, **_source(args), **limits)
    known, label = lf.collect_schema(), presentable(args.url)
    if args.where is not None:
        lf = _filtered(lf, args.where, known, label)
    if args.select is not None:
        for name in args.select:
            if name not in known:
                raise unknown_column(name, known, label)
        lf = lf.select(args.select)
    return lf if args.head is None else lf.head(args.head)


def _filtered(lf: pl.LazyFrame, where: str, known: pl.Schema, label: str) -> pl.LazyFrame:
    try:
        named = pl.sql_expr(where).meta.root_names()  # raises unless the text is one condition
        # A whole query, so that Polars knows the types of the columns and compares times with text.
        query = f"SELECT * FROM self WHERE ({where}\n)"  # noqa: S608  the user's own query
        # run without rows first, so that type errors appear before anything is read
        pl.LazyFrame(schema=known).sql(query).collect()
    except ColumnNotFoundError:
        for name in named:
            if name not in known:
                raise unknown_column(name, known, label) from None
        raise
    except PolarsError as err:
        text = str(err).partition("\n")[0].rstrip(".")
        raise PredicateError(
            f"Polars does not understand the condition --where {where!r}: {text}. Write it in SQL: "
            "latitude > 45 AND time < '2020-01-01'."
        ) from err
    return lf.sql(query)


@contextmanager
def _cluster(args: argparse.Namespace) -> "Iterator[Client | None]":
    if args.cluster is None and dask.config.get("rainbear-dask.cluster.name") is None:
        if args.workers is not None:
            raise QueryError(
                "--workers needs a cluster, and none is named. Add --cluster, for example --cluster local."
            )
        yield None
        return
    from rainbear_dask.cluster.connection import connect  # noqa: PLC0415  distributed takes half a second to import

    with connect(args.cluster, workers=args.workers, timeout=args.wait) as client:
        try:
            yield client
        except KeyboardInterrupt:  # other signals raise a subclass
            # Without readers for their results, our workers and our client would log errors on our standard error.
            _silence_logs()
            if client.cluster is not None:
                client.run(_silence_logs, on_error="ignore")
            raise


def _silence_logs() -> None:
    """Silence the logs of Dask in this process; the workers are about to end."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)


# ---------------------------------------------------------------------- output

_SINKS: dict[str, Callable[[pl.LazyFrame, Any], None]] = {
    "parquet": pl.LazyFrame.sink_parquet,
    "csv": pl.LazyFrame.sink_csv,
    "ipc": pl.LazyFrame.sink_ipc,
}
_SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".ipc": "ipc", ".arrow": "ipc", ".feather": "ipc"}


def _sink(output: str, form: str | None) -> Callable[[pl.LazyFrame], None]:
    """Return a function that runs a query and writes its rows, without holding all of them in memory."""
    form = form or ("csv" if output == "-" else _SUFFIXES.get(Path(output).suffix.lower()))
    if form is None:
        raise QueryError(
            f"The suffix of --output {output} names no format. Add --format {', '.join(_SINKS)}, or another suffix."
        )
    check_output(output)
    sink = _SINKS[form]
    if "://" in output:
        return lambda lf: _on_thread(lambda: sink(lf, output))

    def write(lf: pl.LazyFrame) -> None:
        with open_output(output, text=form == "csv") as file:
            _on_thread(lambda: sink(lf, file))

    return write


# ---------------------------------------------------------------------- errors


def _code(err: Exception) -> int:
    if isinstance(err, ClusterError):
        return CLUSTER
    if isinstance(err, PlanTooLargeError):
        return TOO_LARGE
    if isinstance(err, StoreError):
        return STORE
    return USAGE if isinstance(err, QueryError) else FAILURE


def _one_line(err: Exception, secrets: Sequence[str]) -> str:
    """Return an error as one line; an error of Polars without the query plan that it shows."""
    text = str(err).partition("\n")[0] if isinstance(err, PolarsError) else str(err)
    return presentable(text if isinstance(err, RainbearError) else f"{type(err).__name__}: {text}", secrets)


def _print_warning(secrets: Sequence[str], message: Warning | str, *_: Any) -> None:
    print(f"rainbear-dask: warning: {presentable(str(message), secrets)}", file=sys.stderr)


def _on_thread(work: Callable[[], None]) -> None:
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
