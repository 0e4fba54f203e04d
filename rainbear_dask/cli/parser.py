"""The command ``rainbear-dask``: arguments, signals and exit codes. Imports are lazy, so that ``--help`` is quick."""

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
  rainbear-dask zonal sst.zarr counties.geojson --by name --stats mean,max --output counties.parquet

exit codes:
  0  done
  1  an optional package is missing, the result cannot be written, or an unforeseen error
  2  the command line or the query is wrong
  3  the store is missing, refuses access, or is damaged
  4  the query exceeds a limit
  5  no cluster
  129, 130, 141, 143  stopped by a closed terminal (SIGHUP), by Ctrl-C, by a closed pipe, by SIGTERM
"""

_WHERE = """\
an SQL condition on columns, as Polars reads it: unusual names in "double quotes", text and times in 'single quotes'"""


def main(arguments: Sequence[str] | None = None) -> int:
    """Run one command.

    Parameters
    ----------
    arguments : sequence of str, optional
        By default the arguments of the process.

    Returns
    -------
    int
        The exit code; `EXAMPLES` lists their meanings.
    """
    args = _parser().parse_args(arguments)
    try:
        from rainbear_dask.cli.commands import run  # noqa: PLC0415  slow to import

        # Not before this import: Polars installs a handler too, which would interrupt Polars on any thread.
        with _stoppable():
            return run(args)
    except KeyboardInterrupt as stop:
        return 128 + (stop.signal if isinstance(stop, _Stopped) else signal.SIGINT)


def command() -> NoReturn:
    """Run the command of this process, and end the process with its exit code.

    The process skips Python's own shutdown. Abandoned work of Polars may still call Python on another thread, and
    Python's way of ending such threads would abort the process.
    """
    code = main()
    for stream in (sys.stdout, sys.stderr):
        with suppress(OSError, ValueError, AttributeError):  # closed, or absent
            stream.flush()
    os._exit(code)


class _Parser(argparse.ArgumentParser):
    def error(self, message: str) -> NoReturn:
        """Report an error in the command line, without unknown arguments: they may hold a secret."""
        from rainbear_dask.redaction import presentable  # noqa: PLC0415  only errors need it

        start, colon, rest = message.partition("unrecognized arguments:")
        if colon:
            names = [word.partition("=")[0] for word in rest.split() if word.startswith("-")]
            message = f"{start}unrecognized arguments: {' '.join(names) or '(not shown)'}"
        super().error(presentable(message))


def _parser() -> argparse.ArgumentParser:
    parser = _Parser(
        prog="rainbear-dask",
        description="Query Zarr stores as tables, on this machine or on a Dask cluster.",
        epilog=EXAMPLES,
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions in use")
    commands = parser.add_subparsers(title="commands", required=True, dest="command", metavar="COMMAND")
    source = _Parser(add_help=False)
    source.add_argument("url", metavar="URL", help="a folder, or a URL that fsspec knows: s3://, gs://, https://, ...")
    source.add_argument("--group", help="path of a group inside the store")
    source.add_argument(
        "--variables", metavar="A,B", type=_names, help="data variables whose dimensions define the rows"
    )
    source.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_option,
        help="storage option for the URL's file system, for example anon=true; a.b=value sets b inside a; repeatable",
    )
    query = _Parser(add_help=False)
    query.add_argument("--where", metavar="SQL", help=_WHERE)
    query.add_argument("--select", metavar="A,B", type=_names, help="columns of the result; by default all")
    query.add_argument("--head", metavar="N", type=_count, help="upper bound on rows, from the first")
    query.add_argument("--max-chunks", metavar="N", type=_count, help="refuse queries that need more chunks")
    query.add_argument("--max-rows", metavar="N", type=_count, help="refuse queries that read more rows")
    query.add_argument("--max-bytes", metavar="N", type=_count, help="refuse queries that decode more bytes")
    place = _Parser(add_help=False)
    place.add_argument(
        "--cluster",
        help="local, slurm, pbs, lsf, ..., kubernetes, or the address of a Dask scheduler; by default the cluster that "
        "Dask's configuration names, else threads of this process",
    )
    place.add_argument(
        "--workers", metavar="N[:M]", type=_workers, help="workers or jobs to start; N:M adapts between N and M"
    )
    place.add_argument("--wait", metavar="TIME", help="longest wait for a first worker: 30s, 2h; by default 10 minutes")

    regions, output = _regions(), _output()

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
    # It needs no cluster, but accepts the options of one, so that users can plan the command line of a scan unchanged.
    command("plan", "show what a query would read, without reading it", source, query, place)
    command("scan", "run a query, and write the rows", source, query, place, output)
    zonal = command("zonal", "compute statistics over polygons, and write the rows", source, regions, place, output)
    zonal.add_argument(
        "zones", metavar="ZONES", help="a file of polygons: GeoJSON, GeoParquet, GeoPackage, shapefile, ..."
    )
    return parser


def _regions() -> "_Parser":
    """Return the options of zonal statistics."""
    regions = _Parser(add_help=False)
    regions.add_argument("--columns", metavar="A,B", type=_names, help="variables; by default all on the grid")
    regions.add_argument(
        "--stats",
        metavar="A,B",
        type=_names,
        default=["mean"],
        help="mean, sum, count, min, max, variance, std, median, coverage, quantile(q=0.9), ...; by default mean",
    )
    regions.add_argument(
        "--weights",
        choices=["fraction", "area", "center"],
        default="fraction",
        help="weight of a cell: its covered share (default), its covered area, or whether its centre is covered",
    )
    regions.add_argument(
        "--by", metavar="NAME", default="id", help="property of the polygons that names them; default: id"
    )
    regions.add_argument("--lon", metavar="NAME", help="dimension of longitude or x; by default found by attributes")
    regions.add_argument("--lat", metavar="NAME", help="dimension of latitude or y; by default found by attributes")
    regions.add_argument(
        "--where", metavar="SQL", help="a condition on the rows of the result, as of scan; prunes by time"
    )
    return regions


def _output() -> "_Parser":
    """Return the options of an output."""
    output = _Parser(add_help=False)
    output.add_argument(
        "--output",
        metavar="FILE",
        default="-",
        help="a local file, or a URL of an object store that Polars knows; by default standard output",
    )
    output.add_argument(
        "--format",
        choices=["parquet", "csv", "ipc"],
        help="by default the suffix of FILE decides, and standard output is csv",
    )
    output.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar on standard error; by default if that is a terminal",
    )
    return output


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:  # not repeated, because it may be a secret
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
        """Print the versions in use, and exit."""
        from rainbear_dask.diagnostics.versions import print_extension_info  # noqa: PLC0415  slow to import

        print(print_extension_info())
        parser.exit()


# ---------------------------------------------------------------------- signals


class _Stopped(KeyboardInterrupt):
    """Any signal that asks the process to stop, as an interrupt, because interrupts end the waits of Dask."""

    def __init__(self, number: int) -> None:
        self.signal = number


@contextmanager
def _stoppable() -> Iterator[None]:
    """Raise `_Stopped` for Ctrl-C, for SIGTERM (from batch systems) and for SIGHUP (from a closing terminal).

    The process then cancels the jobs that it started, and removes partial output. Signals that it was started to
    ignore, for example by nohup, stay ignored.
    """

    def stop(number: int, _: FrameType | None) -> NoReturn:
        for other in _STOPPING - {signal.SIGINT}:
            signal.signal(other, signal.SIG_IGN)  # a second signal would interrupt the clean-up
        raise _Stopped(number)

    def wanted(number: int) -> Any:
        return signal.SIG_IGN if signal.getsignal(number) == signal.SIG_IGN else stop

    handlers = {number: signal.signal(number, wanted(number)) for number in _STOPPING}
    try:
        yield
    finally:
        for number, handler in handlers.items():
            # signals that are ignored since the first one stay ignored until the process ends
            if signal.getsignal(number) == stop:
                signal.signal(number, handler)


_STOPPING = {getattr(signal, name) for name in ("SIGHUP", "SIGINT", "SIGTERM") if hasattr(signal, name)}
