"""Arguments of the commands: options that commands share, arguments of single commands, and types of values."""

import argparse
import re
from collections.abc import Callable
from contextlib import suppress
from datetime import timedelta
from typing import Any, NoReturn

_WHERE = """\
an SQL condition on columns, as Polars reads it: unusual names in "double quotes", text and times in 'single quotes'"""


class Parser(argparse.ArgumentParser):
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


def source_options() -> Parser:
    """Return the arguments of a source."""
    source = Parser(add_help=False)
    source.add_argument("url", metavar="URL", help="a folder, or a URL: s3://, gs://, az://, https://, ...")
    source.add_argument("--group", help="path of a group inside the store")
    source.add_argument(
        "--variables", metavar="A,B", type=_names, help="data variables whose dimensions define the rows"
    )
    _add_option(source)
    return source


def query_options() -> Parser:
    """Return the options of a query."""
    query = Parser(add_help=False)
    query.add_argument("--where", metavar="SQL", help=_WHERE)
    query.add_argument("--select", metavar="A,B", type=_names, help="columns of the result; by default all")
    _add_limits(query)
    return query


def _add_option(parser: Parser) -> None:
    parser.add_argument(
        "--option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_option,
        help="storage option for the URL's file system, for example anon=true; a.b=value sets b inside a; repeatable",
    )


def _add_limits(parser: Parser) -> None:
    parser.add_argument("--max-chunks", metavar="N", type=_count, help="refuse queries that need more chunks")
    parser.add_argument("--max-rows", metavar="N", type=_count, help="refuse queries that read more rows")
    parser.add_argument("--max-bytes", metavar="N", type=_count, help="refuse queries that decode more bytes")


def statement_options() -> Parser:
    """Return the arguments of an SQL statement."""
    statement = Parser(add_help=False)
    statement.add_argument(
        "query", metavar="SQL", help="one statement in Polars' SQL; stores and files of rows are tables, in quotes"
    )
    statement.add_argument(
        "--param",
        metavar="NAME=VALUE",
        action="append",
        default=[],
        type=_param,
        help="value of :NAME in the statement: a number, true, false, null, else text; repeatable",
    )
    _add_option(statement)
    _add_limits(statement)
    return statement


def place_options() -> Parser:
    """Return the options that say where a query runs."""
    place = Parser(add_help=False)
    place.add_argument(
        "--cluster",
        help="local, slurm, pbs, lsf, ..., kubernetes, or the address of a Dask scheduler; by default the cluster that "
        "Dask's configuration names, else threads of this process",
    )
    place.add_argument(
        "--workers", metavar="N[:M]", type=_workers, help="workers or jobs to start; N:M adapts between N and M"
    )
    place.add_argument("--wait", metavar="TIME", help="longest wait for a first worker: 30s, 2h; by default 10 minutes")
    return place


def head_option() -> Parser:
    """Return the option for the first rows."""
    head = Parser(add_help=False)
    head.add_argument("--head", metavar="N", type=_count, help="upper bound on rows, from the first")
    return head


def report_option() -> Parser:
    """Return the option for reports to programs."""
    report = Parser(add_help=False)
    report.add_argument("--json", action="store_true", help="print JSON, for programs")
    return report


def region_options() -> Parser:
    """Return the arguments of zonal statistics."""
    regions = Parser(add_help=False)
    regions.add_argument(
        "zones", metavar="ZONES", help="a file of polygons: GeoJSON, GeoParquet, GeoPackage, shapefile, ..."
    )
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


def output_options() -> Parser:
    """Return the options of an output."""
    output = Parser(add_help=False)
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


def add_progress(parser: Any) -> None:
    """Add the option of a progress bar."""
    parser.add_argument(
        "--progress",
        action=argparse.BooleanOptionalAction,
        help="show a progress bar on standard error; by default if that is a terminal",
    )


def add_place(analyze: Any) -> None:
    """Add the place of statistics."""
    analyze.add_argument(
        "--place",
        metavar="PLACE",
        default="store",
        help="store (default), cache for your cache folder, or a folder; scans find the first two by themselves",
    )


def add_points(sample: Any) -> None:
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


def add_writers(command: Callable[..., Any], *parents: Parser) -> None:
    """Add the commands that write folders, stores and repositories."""
    export = command("export", "write a query as a folder of Parquet files, or continue to", *parents)
    export.add_argument("folder", metavar="FOLDER", help="a folder that all workers share, or a URL of an object store")
    export.add_argument(
        "--by",
        metavar="KEY[=SQL]",
        action="append",
        default=[],
        help='partition by a column, or by an expression: --by "year=YEAR(time)"; repeatable',
    )
    export.add_argument("--geo", metavar="X,Y", type=_names, help="add points of two columns, as GeoParquet")
    export.add_argument("--row-group-rows", metavar="N", type=_count, help="upper bound on the rows of a row group")
    export.add_argument(
        "--compression", metavar="CODEC", help="zstd (default), lz4, snappy, gzip, brotli, uncompressed"
    )
    export.add_argument("--no-resume", action="store_true", help="refuse a folder in which an export was begun")
    _add_target_option(export)
    zarr = command("write-zarr", "write a query as a Zarr store, or into one", *parents)
    zarr.add_argument("target", metavar="TARGET", help="a local folder, or a URL of an object store")
    _add_target_option(zarr)
    icechunk = command("write-icechunk", "commit a query to an Icechunk repository", *parents)
    icechunk.add_argument(
        "target", metavar="REPOSITORY", help="a local folder, s3://, gs:// or az://; made if it is absent"
    )
    icechunk.add_argument("--message", metavar="TEXT", required=True, help="message of the commit")
    icechunk.add_argument(
        "--branch", metavar="NAME", default="main", help="branch that gets the commit; main by default"
    )
    for each in (zarr, icechunk):
        _add_writing_options(each)
    for each in (export, zarr, icechunk):
        add_progress(each)


def _add_target_option(parser: argparse.ArgumentParser) -> None:
    parser.add_argument(
        "--target-option",
        metavar="KEY=VALUE",
        action="append",
        default=[],
        type=_option,
        help="storage option of the target, as --option; repeatable",
    )


def _add_writing_options(parser: argparse.ArgumentParser) -> None:
    parser.add_argument("--dims", metavar="A,B", type=_names, help="dimensions in order; by default as in the source")
    parser.add_argument(
        "--mode",
        choices=["w-", "w", "a", "r+"],
        default="w-",
        help="w-: new, w: replace, r+: into cells, a: and new arrays",
    )
    parser.add_argument("--append-dim", metavar="DIM", help="dimension that becomes longer")
    parser.add_argument("--chunks", metavar="DIM=N,...", type=_lengths, help="lengths of chunks by dimension")
    parser.add_argument("--shards", metavar="DIM=N,...", type=_lengths, help="lengths of shards by dimension")
    parser.add_argument("--missing", choices=["fill", "error"], default="fill", help="cells without a row")
    parser.add_argument("--duplicates", choices=["error", "last"], default="error", help="several rows of one cell")


def _lengths(text: str) -> dict[str, int]:
    pairs = [part.partition("=") for part in text.split(",")]
    if not all(equals and number.isdecimal() for _, equals, number in pairs):
        raise argparse.ArgumentTypeError(f"{text!r} is not DIM=N,DIM=N")
    return {name.strip(): int(number) for name, _, number in pairs}


def _names(text: str) -> list[str]:
    return [name.strip() for name in text.split(",")]


def _option(text: str) -> tuple[str, Any]:
    key, equals, value = text.partition("=")
    if not equals:  # not repeated, because it may be a secret
        raise argparse.ArgumentTypeError("an option is not KEY=VALUE")
    return key, {"true": True, "false": False, "null": None}.get(value.lower(), value)


def _param(text: str) -> tuple[str, Any]:
    name, value = _option(text)
    if isinstance(value, str):
        for number in (int, float):
            with suppress(ValueError):
                return name, number(value)
    return name, value


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
