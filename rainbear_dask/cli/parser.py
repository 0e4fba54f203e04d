"""The command ``rainbear-dask``: its words, and how it ends. Who asks for help does not wait for Polars, zarr and Dask."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

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
  1  an optional package is missing, the result cannot be written, or an unforeseen error
  2  the command line or the question is wrong
  3  the store is not there, refuses, or is damaged
  4  the question is over a limit
  5  no cluster
  129, 130, 141, 143  stopped by the end of the terminal (SIGHUP), by Ctrl-C, by the end of a pipe, by SIGTERM
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
    try:
        from rainbear_dask.cli.commands import run  # noqa: PLC0415  brings all that is slow to import

        # only now: Polars has a handler too, which would interrupt what Polars does on any thread, as on Dask's event loop
        with _stoppable():
            return run(args)
    except KeyboardInterrupt as stop:
        return 128 + (stop.signal if isinstance(stop, _Stopped) else signal.SIGINT)


def command() -> NoReturn:
    """Run the command of this process, and end the process with its exit code.

    Python's own end is passed over: what Polars has begun and nobody wants any more may still be inside of Python on a
    thread of its own, which Python ends in a way that aborts the process.
    """
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or none
            stream.flush()
    os._exit(code)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Say what is wrong with the command line; an argument that is not understood may be a secret, or hold one."""
        from rainbear_dask.redaction import presentable  # noqa: PLC0415  not needed else

        start, colon, rest = message.partition("unrecognized arguments:")
        if colon:
            names = [word.partition("=")[0] for word in rest.split() if word.startswith("-")]
            message = f"{start}unrecognized arguments: {' '.join(names) or '(not shown)'}"
        super().error(presentable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rainbear-dask",
        description="Ask questions of Zarr stores as if they were tables, on this machine or on a Dask cluster.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="say which versions are in use")
    commands = parser.add_subparsers(title="commands", required=True, dest="command", metavar="COMMAND")
    source = _Parser(add_help=False)
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
    question = _Parser(add_help=False)
    question.add_argument("--where", metavar="SQL", help=_WHERE)
    question.add_argument("--select", metavar="A,B", type=_names, help="columns wanted; by default all")
    question.add_argument("--head", metavar="N", type=_count, help="rows wanted at most, from the first")
    question.add_argument("--max-chunks", metavar="N", type=_count, help="refuse a question that needs more chunks")
    question.add_argument("--max-rows", metavar="N", type=_count, help="refuse one that reads more rows")
    question.add_argument("--max-bytes", metavar="N", type=_count, help="refuse one that decodes more bytes")
    place = _Parser(add_help=False)
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

    def command(name: str, text: str, *parents: _Parser) -> Any:
        return commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            parents=parents,
            epilog=EXAMPLES,
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    command("info", "show the columns and chunks of a store", source)
    # a cluster is not needed for it; its options are taken so that the line of a scan can be planned as it is
    command("plan", "show what a question would read, without reading it", source, question, place)
    scan = command("scan", "answer a question, and write the rows", source, question, place)
    scan.add_argument(
        "--output",
        metavar="FILE",
        default="-",
        help="where to, a local file or a URL of an object store that Polars knows; by default standard output",
    )
    scan.add_argument(
        "--format",
        choices=["parquet", "csv", "ipc"],
        help="by default what the name of FILE ends in, and csv for standard output",
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
    if not equals:  # it may be a secret, so it is not repeated
        raise argparse.ArgumentTypeError("an option is not KEY=VALUE")
    return key, {"true": True, "false": False, "null": None}.get(value.lower(), value)


def _count(text: str) -> int:
    if not text.isdecimal():
        raise argparse.ArgumentTypeError(f"{text!r} is not a number, 0 or more")
    return int(text)


def _workers(text: str) -> int | tuple[int, int]:
    least, colon, most = text.partition(":")
    try:
        return (int(least), int(most)) if colon else int(least)
    except ValueError:
        raise argparse.ArgumentTypeError(f"{text!r} is neither a number nor N:M") from None


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Say which versions are in use, and end."""
        from rainbear_dask.diagnostics.versions import print_extension_info  # noqa: PLC0415  slow to import, and seldom asked for

        print(print_extension_info())
        parser.exit()


# ---------------------------------------------------------------------- signals


class _Stopped(KeyboardInterrupt):
    """A signal asks to stop, whichever it is; as an interrupt, with which Dask ends its own waits."""

    def __init__(self, number: int) -> None:
        self.signal = number


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raise `_Stopped` for Ctrl-C, for SIGTERM, which a batch system sends, and for SIGHUP, when a terminal ends.

    Jobs started for this one are then cancelled, and what is half written goes. Signals that the caller has this process
    ignore, as nohup does, stay ignored.
    """

    def stop(number: int, _: FrameType | None) -> NoReturn:
        for other in _STOPPING - {signal.SIGINT}:
            signal.signal(other, signal.SIG_IGN)  # a second one would interrupt the cleaning up
        raise _Stopped(number)

    def wanted(number: int) -> Any:
        return signal.SIG_IGN if signal.getsignal(number) == signal.SIG_IGN else stop

    handlers = {number: signal.signal(number, wanted(number)) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            if (
                signal.getsignal(number) == stop
            ):  # what is ignored since a first signal stays ignored until the process ends
                signal.signal(number, handler)


_STOPPING = {getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)}
