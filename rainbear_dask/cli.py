"""The command ``rainbear-dask``: what a store holds, what a question would read, and its answer in a file."""

import argparse
import logging
import os
import signal
import sys
import threading
import warnings
from collections.abc import Callable, Iterator, Sequence
from contextlib import contextmanager, nullcontext
from pathlib import Path
from types import FrameType
from typing import TYPE_CHECKING, Any, NoReturn

import dask.config
import polars as pl
from polars.exceptions import ColumnNotFoundError, PolarsError

import rainbear_dask as rd
from rainbear_dask.exceptions import ClusterError, PlanTooLargeError, PredicateError, QueryError, StoreError
from rainbear_dask.redaction import without_secrets
from rainbear_dask.table import Table, unknown_column

if TYPE_CHECKING:
    from distributed import Client

FAILURE, USAGE, STORE, TOO_LARGE, CLUSTER = 1, 2, 3, 4, 5

EXAMPLES = """\
examples:
  rainbear-dask info s3://bucket/sst.zarr --option anon=true
  rainbear-dask plan sst.zarr --where "latitude BETWEEN 30 AND 60 AND time >= '2008-06-01'"
  rainbear-dask scan sst.zarr --where "MONTH(time) IN (6, 7, 8) AND sst > 300" --select time,sst --output summer.parquet
  rainbear-dask scan sst.zarr --where "sst > 303" --head 10
  rainbear-dask scan sst.zarr --cluster slurm --workers 4 --output all.parquet
  rainbear-dask scan sst.zarr --cluster tcp://scheduler:8786 --output s3://results/all.parquet

exit codes:
  0  done
  1  the result cannot be written, or what nobody foresaw
  2  the command line or the question is wrong
  3  the store is not there, refuses, or is damaged
  4  the question is over a limit
  5  no cluster
  130, 141, 143  stopped by Ctrl-C, by the end of a pipe, by SIGTERM
"""

_WHERE = """\
an SQL condition on columns, as Polars reads it: names with other characters in "double quotes", text and times in
'single quotes'"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default those of the process.

    Returns
    -------
    int
        The exit code; `EXAMPLES` says what it means.
    """
    args = _parser().parse_args(arguments)
    warnings.showwarning = _say_warning  # type: ignore[assignment]  # of what it is given, the message is enough
    try:
        with _stoppable():
            args.run(args)
    except _Stopped as stop:
        return 128 + stop.signal
    except Exception as err:  # noqa: BLE001  whatever it is, a line says it better than a traceback
        if "Broken pipe" in str(err):  # the reader of a pipe has seen enough; Polars has no class for it
            os.dup2(os.open(os.devnull, os.O_WRONLY), sys.stdout.fileno())  # for what is flushed at exit
            return 128 + signal.SIGPIPE
        print(f"rainbear-dask: {_told(err)}", file=sys.stderr)
        return _code(err)
    return 0


def _parser() -> argparse.ArgumentParser:
    parser = argparse.ArgumentParser(
        prog="rainbear-dask",
        description="Ask questions of Zarr stores as if they were tables, on this machine or on a Dask cluster.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    commands = parser.add_subparsers(title="commands", required=True, metavar="COMMAND")
    source = argparse.ArgumentParser(add_help=False)
    source.add_argument("url", metavar="URL", help="a folder, or a URL that fsspec knows: s3://, gs://, https://, ...")
    source.add_argument("--group", help="path of a group inside the store")
    source.add_argument("--variables", metavar="A,B", type=_names, help="data variables whose dimensions make the rows")
    source.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_option,
        help="storage option for the URL's file system, as anon=true; a.b=value sets b inside a; more than once",
    )
    question = argparse.ArgumentParser(add_help=False)
    question.add_argument("--where", metavar="SQL", help=_WHERE)
    question.add_argument("--select", metavar="A,B", type=_names, help="columns wanted; by default all")
    question.add_argument("--head", metavar="N", type=int, help="rows wanted at most, from the first")
    question.add_argument("--max-chunks", metavar="N", type=int, help="refuse a question that needs more chunks")
    question.add_argument("--max-rows", metavar="N", type=int, help="refuse one that reads more rows")
    question.add_argument("--max-bytes", metavar="N", type=int, help="refuse one that decodes more bytes")
    place = argparse.ArgumentParser(add_help=False)
    place.add_argument(
        "--cluster",
        help="local, slurm, pbs, lsf, ..., kubernetes, or the address of a Dask scheduler; by default what Dask's "
        "configuration names, else threads of this process",
    )
    place.add_argument(
        "--workers", metavar="N[:M]", type=_workers, help="workers or jobs to start; N:M between N and M, as needed"
    )
    place.add_argument(
        "--wait", metavar="TIME", help="how long to wait for a first worker: 30s, 2h; by default 10 minutes"
    )

    def command(
        name: str, run: Callable[[argparse.Namespace], None], text: str, *parents: argparse.ArgumentParser
    ) -> Any:
        added = commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            parents=parents,
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )
        added.set_defaults(run=run)
        return added

    command("info", _info, "show the columns and chunks of a store", source)
    # a cluster is not needed for it; its options are taken so that the line of a scan can be planned as it is
    command("plan", _plan, "show what a question would read, without reading it", source, question, place)
    scan = command("scan", _scan, "answer a question, and write the rows", source, question, place)
    scan.add_argument(
        "--output",
        metavar="FILE",
        default="-",
        help="where to, a local file or a URL of an object store that Polars knows; by default standard output",
    )
    scan.add_argument(
        "--format", choices=SINKS, help="by default what the name of FILE ends in, and csv for standard output"
    )
    scan.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="a bar on standard error; by default where that is a terminal",
    )
    return parser


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:
        raise argparse.ArgumentTypeError(f"{text!r} is not KEY=VALUE")
    return key, {"true": True, "false": False, "null": None}.get(value.lower(), value)


def _workers(text: str) -> int | tuple[int, int]:
    least, colon, most = text.partition(":")
    try:
        return (int(least), int(most)) if colon else int(least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor N:M") from None


# ---------------------------------------------------------------------- commands


def _info(args: argparse.Namespace) -> None:
    table = rd.plan(args.url, **_source(args)).table
    print(f"{table.spec.label}: {table.num_rows:,} rows")
    print("\n".join(_aligned(_described(table))))


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
    cells = list(rows)
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()


def _plan(args: argparse.Namespace) -> None:
    print(rd.explain(_query(args)))


def _scan(args: argparse.Namespace) -> None:
    write = _sink(args.output, args.format)
    wanted = sys.stderr.isatty() if args.progress is None else args.progress
    with _cluster(args) as client, rd.progress() if wanted else nullcontext():
        write(_query(args, client))


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
    lf = rd.scan_zarr(args.url, client=client, **_source(args), **limits)
    known, label = lf.collect_schema(), without_secrets(args.url)
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
        named = pl.sql_expr(where).meta.root_names()  # one condition, and nothing after it
        # as a whole query, in which Polars knows the types of columns: a time may be compared with text
        lf = lf.sql(f"SELECT * FROM self WHERE ({where}\n)")  # noqa: S608  the user's own question
        lf.collect_schema()
    except ColumnNotFoundError:
        for name in named:
            if name not in known:
                raise unknown_column(name, known, label) from None
        raise
    except PolarsError as err:
        text = str(err).partition("\n")[0].rstrip(".")
        raise PredicateError(
            f"--where {where!r} is not a condition that Polars understands: {text}. Write it as in SQL: "
            "latitude > 45 AND time < '2020-01-01'."
        ) from err
    return lf


@contextmanager
def _cluster(args: argparse.Namespace) -> "Iterator[Client | None]":
    if args.cluster is None and dask.config.get("rainbear-dask.cluster.name") is None:
        yield None
        return
    from rainbear_dask.cluster import connect  # noqa: PLC0415  brings `distributed`, which takes half a second

    with connect(args.cluster, workers=args.workers, timeout=args.wait) as client:
        try:
            yield client
        except _Stopped:
            # workers of ours would write to our standard error that nobody takes their answers, and so would our own client
            _say_no_more()
            if client.cluster is not None:
                client.run(_say_no_more, on_error="ignore")
            raise


def _say_no_more() -> None:
    """Have the logs of Dask in this process be silent; workers are about to be ended."""
    logging.getLogger("distributed").setLevel(logging.CRITICAL + 1)


# ---------------------------------------------------------------------- output

SINKS: dict[str, Callable[[pl.LazyFrame, Any], None]] = {
    "parquet": pl.LazyFrame.sink_parquet,
    "csv": pl.LazyFrame.sink_csv,
    "ipc": pl.LazyFrame.sink_ipc,
}
_SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".ipc": "ipc", ".arrow": "ipc", ".feather": "ipc"}


def _sink(output: str, form: str | None) -> Callable[[pl.LazyFrame], None]:
    """What writes a query there as it runs, never all of it in memory."""
    form = form or ("csv" if output == "-" else _SUFFIXES.get(Path(output).suffix.lower()))
    if form is None:
        raise QueryError(f"--output {output} does not say what to write. Add --format {', '.join(SINKS)}, or a suffix.")
    sink = SINKS[form]
    if output == "-":
        return lambda lf: _on_thread(lambda: sink(lf, sys.stdout.buffer))
    if "://" in output:
        return lambda lf: _on_thread(lambda: sink(lf, output))
    return lambda lf: _write_file(lambda half: sink(lf, half), Path(output))


def _write_file(write: Callable[[Path], None], path: Path) -> None:
    """Write under another name first: a file that is there is whole."""
    half = path.with_name(f".{path.name}.{os.getpid()}.part")
    try:
        _on_thread(lambda: write(half))
        half.replace(path)
    finally:
        half.unlink(missing_ok=True)


# ---------------------------------------------------------------------- errors and signals


def _code(err: Exception) -> int:
    if isinstance(err, ClusterError):
        return CLUSTER
    if isinstance(err, PlanTooLargeError):
        return TOO_LARGE
    if isinstance(err, StoreError):
        return STORE
    return USAGE if isinstance(err, QueryError) else FAILURE


def _told(err: Exception) -> str:
    """An error in one line; of Polars' only what comes before the plan that it shows."""
    text = str(err).partition("\n")[0] if isinstance(err, PolarsError) else str(err)
    return text if isinstance(err, rd.exceptions.RainbearError) else f"{type(err).__name__}: {text}"


def _say_warning(message: Warning | str, *_: Any) -> None:
    print(f"rainbear-dask: warning: {message}", file=sys.stderr)


class _Stopped(KeyboardInterrupt):
    """A signal asks to stop, whichever it is; as an interrupt, with which Dask ends its own waits."""

    def __init__(self, number: int) -> None:
        self.signal = number


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raise `_Stopped` for Ctrl-C and SIGTERM, which a batch system sends: jobs started for this one are then cancelled."""

    def stop(number: int, _: FrameType | None) -> NoReturn:
        raise _Stopped(number)

    handlers = {number: signal.signal(number, stop) for number in (signal.SIGINT, signal.SIGTERM)}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            signal.signal(number, handler)


def _on_thread(work: Callable[[], None]) -> None:
    """Do work on a thread of its own, so that this one, which takes the signals, is not held up inside Polars."""
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


if __name__ == "__main__":
    sys.exit(main())
