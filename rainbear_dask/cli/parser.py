"""The command ``rainbear-dask``: arguments, signals and exit codes. Imports are lazy, so that ``--help`` is quick."""

import argparse
import os
import signal
import sys
from collections.abc import Iterator, Sequence
from contextlib import contextmanager, suppress
from types import FrameType
from typing import Any, NoReturn

from rainbear_dask.cli.arguments import (
    Parser,
    add_place,
    add_points,
    add_progress,
    add_writers,
    head_option,
    output_options,
    place_options,
    query_options,
    region_options,
    report_option,
    source_options,
    statement_options,
)

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
    "analyze": [
        "rainbear-dask analyze sst.zarr",
        "rainbear-dask analyze s3://bucket/sst.zarr --place cache --cluster slurm --workers 4",
    ],
    "sql": [
        "rainbear-dask sql \"SELECT MONTH(time) AS month, AVG(sst) FROM 'sst.zarr' GROUP BY month ORDER BY month\"",
        "rainbear-dask sql \"SELECT s.name, e.* FROM 'sst.zarr' e JOIN 'stations.csv' s USING (latitude, longitude) "
        'WHERE e.time >= :start" --param start=2008-06-01 --output stations.parquet',
        "rainbear-dask sql \"EXPLAIN SELECT * FROM 'sst.zarr' WHERE latitude > 80\"",
    ],
    "sample": [
        "rainbear-dask sample sst.zarr ships.parquet --on latitude=lat,longitude=lon,time --method linear --output found.parquet",
    ],
    "zonal": [
        "rainbear-dask zonal sst.zarr counties.geojson --by name --stats mean,max --output counties.parquet",
    ],
    "export": [
        'rainbear-dask export sst.zarr sst-by-year --by "year=YEAR(time)" --cluster slurm --workers 8',
    ],
    "write-zarr": [
        'rainbear-dask write-zarr sst.zarr north.zarr --where "latitude > 40" --chunks time=12',
    ],
    "write-icechunk": [
        'rainbear-dask write-icechunk sst.zarr repository --message "sea surface temperature"',
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


def _parser() -> argparse.ArgumentParser:
    parser = Parser(
        prog="rainbear-dask",
        description="Query Zarr stores as tables, on this machine or on a Dask cluster.",
        epilog=examples(*_EXAMPLES),
        formatter_class=argparse.RawDescriptionHelpFormatter,
    )
    parser.add_argument("--version", action=_Version, nargs=0, help="print the versions in use")
    parser.add_argument(
        "--print-completion",
        action=_Completion,
        choices=["bash", "zsh", "tcsh"],
        metavar="SHELL",
        help="print a script that completes commands and options in bash, zsh or tcsh",
    )
    commands = parser.add_subparsers(title="commands", required=True, dest="command", metavar="COMMAND")
    source, query, head, place = source_options(), query_options(), head_option(), place_options()
    report, output = report_option(), output_options()

    def command(name: str, text: str, *parents: Parser) -> Any:
        return commands.add_parser(
            name,
            help=text,
            description=f"{text[0].upper()}{text[1:]}.",
            parents=parents,
            epilog=examples(name),
            formatter_class=argparse.RawDescriptionHelpFormatter,
        )

    command("info", "show the columns and chunks of a store", source, report)
    # It needs no cluster, but accepts the options of one, so that users can plan the command line of a scan unchanged.
    command("plan", "show what a query would read, without reading it", source, query, head, place, report)
    scan = command("scan", "run a query, and write the rows", source, query, head, place, output)
    add_progress(scan)
    add_place(command("analyze", "collect least and greatest values of chunks, for filters on values", source, place))
    add_progress(command("sql", "run an SQL statement, and write the rows", statement_options(), head, place, output))
    sample = command("sample", "write the values at points", source, query, place, output)
    add_points(sample)
    add_progress(sample)
    zonal = command(
        "zonal", "compute statistics over polygons, and write the rows", source, region_options(), place, output
    )
    zonal.set_defaults(head=None)
    add_progress(zonal)
    add_writers(command, source, query, head, place)
    return parser


class _Version(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, *_: Any) -> NoReturn:
        """Print the versions in use, and exit."""
        from rainbear_dask.diagnostics.versions import print_extension_info  # noqa: PLC0415  slow to import

        print(print_extension_info())
        parser.exit()


class _Completion(argparse.Action):
    def __call__(self, parser: argparse.ArgumentParser, _: Any, shell: Any, *__: Any) -> NoReturn:
        """Print the completion script of a shell, and exit."""
        from rainbear_dask.cli.completion import completion_script  # noqa: PLC0415  an extra
        from rainbear_dask.exceptions import MissingDependencyError  # noqa: PLC0415  slow to import

        try:
            print(completion_script(parser, shell))
        except MissingDependencyError as err:
            print(f"{parser.prog}: {err}", file=sys.stderr)
            parser.exit(1)
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
