"""The command ``rainbear-dask``: arguments, signals and exit codes. Imports are lazy, so that ``--help`` is quick."""

import argparse
import os
import re
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from datetime import timedelta
from types import FrameType
from typing import Any, NoReturn

_EXAMPLES = {
    "info": [
        "rainbear-dask info s3://bucket/sst.zarr --option anon=true",
        "rainbear-dask info sst.zarr --json",
    ],
    "plan": [
        "rainbear-dask plan sst.zarr --where \"latitude BETWEEN 30 AND 60 AND time >= '2008-06-01'\"",
    ],
    "scan": [
        'rainbear-dask scan sst.zarr --where "MONTH(time) IN (6, 7, 8) AND sst > 28" --select time,sst --output summer.parquet',
        'rainbear-dask scan sst.zarr --where "sst > 28" --head 10',
        "rainbear-dask scan sst.zarr --cluster slurm --workers 4 --output all.parquet",
        "rainbear-dask scan sst.zarr --cluster tcp://scheduler:8786 --output s3://results/all.parquet",
    ],
    "sample": [
        "rainbear-dask sample sst.zarr ships.parquet --on latitude=lat,longitude=lon,time --method linear --output found.parquet",
    ],
    "zonal": [
        "rainbear-dask zonal sst.zarr counties.geojson --by name --stats mean,max --output counties.parquet",
    ],
}
_EXIT_CODES = """\
exit codes:
  0  done
  1  an optional package is missing, the result cannot be written, or an unforeseen error
  2  the command line or the query is wrong
  3  the store is missing, refuses access, or is damaged
  4  the query exceeds a limit
  5  no cluster
  129, 130, 141, 143  stopped by a closed terminal (SIGHUP), by Ctrl-C, by a closed pipe, by SIGTERM
"""


def examples(*commands: str) -> str:
    """Return the examples of some commands, and the meaning of the exit codes, as the end of a help text."""
    lines = [f"  {line}" for command in commands for line in _EXAMPLES[command]]
    return "\n".join(["examples:", *lines, "", _EXIT_CODES])


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
        The exit code; the help lists their meanings.
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
    def __init__(self, **options: Any) -> None:
        super().__init__(**{"allow_abbrev": False, **options})  # a prefix of an option may be another one tomorrow

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
        epilog=examples(*_EXAMPLES),
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

    head = _Parser(add_help=False)
    head.add_argument("--head", metavar="N", type=_count, help="upper bound on rows, from the first")
    regions, output = _regions(), _output()

    def command(name: str, text: str, *parents: _Parser) -> Any:
        return commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            parents=parents,
            epilog=examples(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    report = _Parser(add_help=False)
    report.add_argument("--json", action="store_true", help="print JSON, for programs")

    command("info", "show the columns and chunks of a store", source, report)
    # It needs no cluster, but accepts the options of one, so that users can plan the command line of a scan unchanged.
    command("plan", "show what a query would read, without reading it", source, query, head, place, report)
    scan = command("scan", "run a query, and write the rows", source, query, head, place, output)
    _add_progress(scan)
    _add_points(command("sample", "write the values at points", source, query, place, output))
    zonal = command("zonal", "compute statistics over polygons, and write the rows", source, regions, place, output)
    zonal.add_argument(
        "zones", metavar="ZONES", help="a file of polygons: GeoJSON, GeoParquet, GeoPackage, shapefile, ..."
    )
    _add_progress(zonal)
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
        help="a local file, or a URL of an object store that Polars knows; by default standard output, where a terminal "
        "shows 1,000 rows at most unless --head is given",
    )
    output.add_argument(
        "--format",
        choices=["parquet", "csv", "ipc"],
        help="by default the suffix of FILE decides, and standard output is csv",
    )
    return output


def _add_progress(parser: Any) -> None:
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar on standard error; by default if that is a terminal",
    )


def _add_points(sample: Any) -> None:
    """Add the arguments of the command that samples points."""
    sample.set_defaults(head=None)
    sample.add_argument("points", metavar="POINTS", help="a file of points: Parquet, CSV or Arrow IPC, by its suffix")
    sample.add_argument(
        "--on",
        metavar="DIM=COLUMN,...",
        type=_pairs,
        help="column of the points for each coordinate; by default columns with the names of dimensions",
    )
    sample.add_argument(
        "--method",
        metavar="NAME or DIM=NAME,...",
        type=_method,
        default="nearest",
        help="exact, nearest, linear, pchip, akima, makima or cubic; by default nearest",
    )
    sample.add_argument(
        "--tolerance",
        metavar="DIM=LIMIT,...",
        type=_tolerance,
        help="largest distance of a label: a number, or a time such as 90min, 6h, 1d",
    )
    sample.add_argument("--outside", default="null", help="null, nearest, error or extrapolate; by default null")
    sample.add_argument("--coordinates", action="store_true", help="also write the labels of the cell")
    sample.add_argument("--distance", metavar="COLUMN", help="also write the distance to the cell, in metres")


def _pairs(text: str) -> dict[str, str]:
    found = dict[str, str]()
    for part in _names(text):
        key, _, value = part.partition("=")
        found[key] = value or key
    return found


def _method(text: str) -> str | dict[str, str]:
    return _pairs(text) if "=" in text else text


def _tolerance(text: str) -> dict[str, float | timedelta]:
    found = dict[str, float | timedelta]()
    for part in _names(text):
        key, _, limit = part.partition("=")
        number = re.fullmatch(r"([0-9.]+(?:e-?[0-9]+)?)\s*([a-z]*)", limit)
        if number is None or number[2] not in _SECONDS:
            raise argparse.ArgumentTypeError(
                f"{part!r} is not DIM=LIMIT, with a number or a time such as 90min, 6h, 1d"
            )
        seconds = _SECONDS[number[2]]
        found[key] = float(number[1]) if seconds is None else timedelta(seconds=float(number[1]) * seconds)
    return found


_SECONDS = {"": None, "s": 1, "min": 60, "h": 3600, "d": 86_400}
"""Units of time of a tolerance; a plain number is in units of the labels."""


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
