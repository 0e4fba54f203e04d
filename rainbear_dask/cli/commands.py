"""The subcommands of ``rainbear-dask``: describe a store, plan a query, write its rows or values at points to a file."""

import argparse
import logging
import os
import signal
import sys
import warnings
from collections.abc import Iterator, Sequence
from contextlib import AbstractContextManager, contextmanager, nullcontext
from functools import partial
from pathlib import Path
from typing import TYPE_CHECKING, Any

import polars as pl
from polars.exceptions import ColumnNotFoundError, PolarsError

from rainbear_dask.api.analyze import analyze
from rainbear_dask.api.export import write_parquet
from rainbear_dask.api.sample import sample
from rainbear_dask.api.scan import explain, plan, scan_zarr
from rainbear_dask.api.write import write_icechunk, write_zarr
from rainbear_dask.api.zonal import zonal
from rainbear_dask.cli.reports import json_of_explanation, json_of_table, text_of_table
from rainbear_dask.cli.rows import RowWriter, on_thread
from rainbear_dask.diagnostics.progress import progress
from rainbear_dask.dialect.frames import SUFFIXES, frame_of_file
from rainbear_dask.dialect.statement import addresses_in, answer
from rainbear_dask.exceptions import (
    ClusterError,
    PlanTooLargeError,
    PredicateError,
    QueryError,
    RainbearError,
    StoreError,
)
from rainbear_dask.export.run import ExportReport
from rainbear_dask.redaction import escaped, presentable, secrets_of
from rainbear_dask.resources.settings import setting
from rainbear_dask.storage.repositories import repository_at
from rainbear_dask.storage.sources import is_url
from rainbear_dask.table.model import unknown_column

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
    secrets = secrets_of("", _nested(args.option))
    for text in addresses_in(args.query) if args.command == "sql" else []:
        secrets += secrets_of(text, {})
    for name in ("url", "output", "cluster", "points", "folder", "target", "place"):
        secrets += secrets_of(getattr(args, name, None) or "", {})
    secrets += secrets_of("", _nested(getattr(args, "target_option", [])))
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
    if args.json:
        _show(json_of_table(table))
    else:
        _show(text_of_table(table))


def _plan(args: argparse.Namespace) -> None:
    found = explain(_query(args))
    _show(json_of_explanation(found) if args.json else str(found))


def _show(text: str) -> None:
    """Print text that is escaped already; characters that the terminal lacks appear as their numbers."""
    encoding = sys.stdout.encoding or "utf-8"
    print(text.encode(encoding, "backslashreplace").decode(encoding))


def _scan(args: argparse.Namespace) -> None:
    with _writer(args) as writer, _cluster(args) as client, _bar(args):
        writer.write(_query(args, client))


def _sql(args: argparse.Namespace) -> None:
    with _writer(args) as writer, _cluster(args) as client, _bar(args):
        found = answer(args.query, dict(args.param), {}, lambda _: None, partial(_opened, args, client))
        if found.is_explained:
            _show(str(explain(found.frame)))
        else:
            writer.write(found.frame if args.head is None else found.frame.head(args.head))


def _opened(args: argparse.Namespace, client: "Client | None", source: Any, **options: Any) -> pl.LazyFrame:
    """Scan a store of a statement; options of the command line are for URLs."""
    given = {"storage_options": _nested(args.option)} if args.option and is_url(str(source)) else {}
    return scan_zarr(source, client=client, **_limits(args) | given | options)


@contextmanager
def _writer(args: argparse.Namespace) -> Iterator[RowWriter]:
    writer = RowWriter(args.output, args.format, args.head)
    yield writer
    writer.tell()


def _zonal(args: argparse.Namespace) -> None:
    with _writer(args) as writer, _cluster(args) as client, _bar(args):
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
        writer.write(
            lf if args.where is None else _filtered(lf, args.where, lf.collect_schema(), presentable(args.url))
        )


def _sample(args: argparse.Namespace) -> None:
    options = {name: getattr(args, name) for name in ("method", "tolerance", "outside", "coordinates", "distance")}
    with _writer(args) as writer:
        points = _points(args.points)
        with _cluster(args) as client, _bar(args):
            writer.write(sample(_query(args, client), points, args.on, client=client, **options))


def _points(path: str) -> pl.LazyFrame:
    """Open a file of points, whose suffix names its format."""
    if "://" not in path and Path(path).suffix.lower() in SUFFIXES and not Path(path).is_file():
        raise QueryError(f"There is no file of points {path}.")
    points = frame_of_file(path)
    if points is None:
        raise QueryError(f"The suffix of {path} names no format of points. Use one of {', '.join(SUFFIXES)}.")
    return points


def _analyze(args: argparse.Namespace) -> None:
    reports: list[str] = []
    with _cluster(args) as client:
        on_thread(lambda: reports.append(str(analyze(args.url, **_source(args), where=args.place, client=client))))
    _show(reports[0])


def _bar(args: argparse.Namespace) -> AbstractContextManager[None]:
    return progress() if (sys.stderr.isatty() if args.progress is None else args.progress) else nullcontext()


def _export(args: argparse.Namespace) -> None:
    options: dict[str, Any] = {
        "compression": args.compression,
        "row_group_rows": args.row_group_rows,
        "geo": args.geo or None,
    }
    given = {name: value for name, value in options.items() if value is not None}
    keys = dict(_key(text, args.url) for text in args.by) or None
    given |= {"partition_by": keys, "resume": not args.no_resume, "storage_options": _nested(args.target_option)}
    reports: list[ExportReport] = []
    with _cluster(args) as client, _bar(args):
        query = _query(args, client)
        on_thread(lambda: reports.append(write_parquet(query, args.folder, client=client, **given)))
    _show(escaped(str(reports[0])))


def _key(text: str, url: str) -> tuple[str, pl.Expr]:
    """Return the name and the expression of a partition key."""
    name, equals, expression = text.partition("=")
    try:
        return name.strip(), pl.sql_expr(expression) if equals else pl.col(name.strip())
    except PolarsError as err:
        raise PredicateError(
            f"Polars does not understand the partition key --by {text!r} of {presentable(url)}: "
            f"{str(err).partition(chr(10))[0].rstrip('.')}. Write it as NAME=SQL: year=YEAR(time)."
        ) from err


def _write_zarr(args: argparse.Namespace) -> None:
    given = _writing_options(args) | {"storage_options": _nested(args.target_option)}
    with _cluster(args) as client, _bar(args):
        query = _query(args, client)
        on_thread(lambda: write_zarr(query, args.target, client=client, **given))


def _write_icechunk(args: argparse.Namespace) -> None:
    given = _writing_options(args) | {"message": args.message, "branch": args.branch}
    snapshots: list[str] = []
    with _cluster(args) as client, _bar(args):
        query, repository = _query(args, client), repository_at(args.target)
        on_thread(lambda: snapshots.append(write_icechunk(query, repository, client=client, **given)))
    _show(escaped(snapshots[0]))


def _writing_options(args: argparse.Namespace) -> dict[str, Any]:
    names = ("dims", "mode", "append_dim", "chunks", "shards", "missing", "duplicates")
    return {name: getattr(args, name) for name in names}


_COMMANDS = {
    "analyze": _analyze,
    "info": _info,
    "plan": _plan,
    "sample": _sample,
    "scan": _scan,
    "sql": _sql,
    "zonal": _zonal,
    "export": _export,
    "write-zarr": _write_zarr,
    "write-icechunk": _write_icechunk,
}


def _source(args: argparse.Namespace) -> dict[str, Any]:
    return {"group": args.group, "variables": args.variables, "storage_options": _nested(args.option)}


def _nested(given: Sequence[tuple[str, Any]]) -> dict[str, Any]:
    """Return storage options as nested dicts; ``a.b`` is the option ``b`` inside ``a``."""
    options: dict[str, Any] = {}
    for key, value in given:
        *outer, last = key.split(".")
        inner = options
        for name in outer:
            inner = inner.setdefault(name, {})
        inner[last] = value
    return options


def _limits(args: argparse.Namespace) -> dict[str, Any]:
    return {"max_chunks_to_read": args.max_chunks, "max_rows": args.max_rows, "max_bytes": args.max_bytes}


def _query(args: argparse.Namespace, client: "Client | None" = None) -> pl.LazyFrame:
    lf = scan_zarr(args.url, client=client, **_source(args), **_limits(args))
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
    if args.cluster is None and setting("cluster")["name"] is None:
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
