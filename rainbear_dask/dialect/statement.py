"""An SQL statement, with stores as tables, as a LazyFrame: finds its tables, and lets Polars do the rest."""

import re
from collections import Counter
from collections.abc import Callable, Mapping
from dataclasses import dataclass
from difflib import get_close_matches
from functools import reduce
from pathlib import Path
from typing import Any

import polars as pl
from polars.exceptions import ColumnNotFoundError, PolarsError, SQLInterfaceError, SQLSyntaxError

from rainbear_dask.dialect.arguments import Arguments, check_params
from rainbear_dask.dialect.edits import Edit, EditedText
from rainbear_dask.dialect.frames import frame_of_file, frame_of_object, stores_near
from rainbear_dask.dialect.geometry import geometry_tests, table_of
from rainbear_dask.dialect.references import Reference, end_of_parentheses, outline_of
from rainbear_dask.dialect.tokens import Token, error_at, tokens_of
from rainbear_dask.exceptions import QueryError, RainbearError, SQLError, UnknownTableError
from rainbear_dask.redaction import presentable
from rainbear_dask.storage.sources import is_url
from rainbear_dask.table.model import unknown_column

Scan = Callable[..., pl.LazyFrame]
"""Scans a source, with the options of `rainbear_dask.scan_zarr`."""


@dataclass(frozen=True, slots=True)
class Answer:
    """The rows of a statement.

    Parameters
    ----------
    frame : LazyFrame
        The rows of the query.
    is_explained : bool
        Whether the statement begins with EXPLAIN, which is not part of the query.
    """

    frame: pl.LazyFrame
    is_explained: bool


def answer(
    statement: str,
    params: Mapping[str, Any] | None,
    tables: Mapping[str, Any],
    variable: Callable[[str], Any],
    scan: Scan,
) -> Answer:
    """Return the rows of a statement; only metadata and schemas are read.

    Parameters
    ----------
    statement : str
        One statement in Polars' SQL.
    params : mapping, optional
        Values of ``:name``.
    tables : mapping
        Frames and stores by name.
    variable : callable
        Returns the frame of a name that is neither a table nor a store; None if there is none.
    scan : callable
        Opens stores.

    Raises
    ------
    SQLError
        If Polars does not understand the statement. Places are places in ``statement``.
    UnknownTableError
        If a table does not exist.
    QueryError
        If a parameter has no value, or one without a literal.
    """
    if not isinstance(statement, str):
        raise QueryError(f"A statement is text, and this is a {type(statement).__name__}. Write it in SQL.")
    arguments = Arguments(statement, tokens_of(statement), check_params(params))
    prepared = _Prepared(arguments, {str(name): value for name, value in tables.items()}, variable, scan)
    context = pl.SQLContext(frames=prepared.frames)
    text = EditedText.of(statement, prepared.edits)
    try:
        frame = context.execute(str(text), eager=False)
        frame.collect_schema()  # else Polars reports unknown columns at the end
    except RainbearError:
        raise
    except (SQLInterfaceError, SQLSyntaxError) as err:
        raise SQLError(f"{text.in_original(_first_line(err))}. Correct the statement.") from None
    except ColumnNotFoundError as err:
        if (names := _COLUMN.match(str(err))) is None:
            raise
        raise unknown_column(names["name"], _NAME.findall(names["valid"]), "the tables of the query") from None
    except PolarsError as err:
        raise type(err)(text.in_original(_first_line(err))) from None
    return Answer(frame, prepared.is_explained)


def addresses_in(statement: str) -> list[str]:
    """Return all texts and names in quotes of a statement: each may be an address with a secret."""
    try:
        return [token.value for token in tokens_of(statement) if token.kind in ("text", "name")]
    except SQLError:
        return []


_COLUMN = re.compile(r'unable to find column "(?P<name>[^"]*)"(?:; valid columns: (?P<valid>.*))?')
_NAME = re.compile(r'"([^"]*)"')


def _first_line(err: Exception) -> str:
    """Return the message of Polars without the plan that it shows."""
    return str(err).partition("\n")[0].rstrip(".")


class _Prepared:
    """The tables of a statement, and the edits after which Polars understands it.

    Parameters
    ----------
    arguments : Arguments
        The tokens.
    tables, variable, scan
        As in `answer`.
    """

    def __init__(
        self, arguments: Arguments, tables: Mapping[str, Any], variable: Callable[[str], Any], scan: Scan
    ) -> None:
        self.arguments, self.tables, self.variable, self.scan = arguments, tables, variable, scan
        self.frames = dict[str, pl.LazyFrame]()
        self.edits = list[Edit]()
        self._found = dict[tuple[tuple[str, ...], str], tuple[pl.LazyFrame, str] | None]()
        tokens = arguments.tokens
        for token in tokens:
            if token.kind == "parameter":  # before a store is opened
                arguments.parameter(token)
        self.is_explained = bool(tokens) and tokens[0].keyword == "EXPLAIN"
        if self.is_explained:
            self.edits.append(Edit(tokens[0].start, tokens[1].start if len(tokens) > 1 else tokens[0].end, ""))
        self._add_tables()
        self._add_parameters()

    def _add_tables(self) -> None:
        tokens, outline = self.arguments.tokens, outline_of(self.arguments.tokens)
        opened = dict[Reference, tuple[pl.LazyFrame, str]]()
        for each in outline.references:
            if (found := self._opened(each, outline.ctes)) is not None:
                opened[each] = found
        known_as = self._names(opened)
        frames = {each: frame for each, (frame, _) in opened.items()}
        filters = dict[Reference, list[pl.Expr]]()
        for test in geometry_tests(self.arguments, outline):
            table = table_of(test, self.arguments.statement, known_as, frames)
            filters.setdefault(table, []).append(test.expr)
            self.edits.append(test.edit)
        for number, (each, frame) in enumerate(frames.items()):
            name = ".".join(each.name)
            is_plain = each.arguments is None and len(each.name) == 1 and tokens[each.first].kind != "text"
            if not is_plain or each in filters:
                name = f"{name} {number}"  # a name that no other table has
                alias = "" if each.alias else f" AS {_quoted(known_as[each])}"
                end = tokens[each.last if each.arguments is None else end_of_parentheses(tokens, each.arguments)].end
                self.edits.append(Edit(tokens[each.first].start, end, f"{_quoted(name)}{alias}"))
            self.frames[name] = reduce(pl.LazyFrame.filter, filters.get(each, []), frame)

    def _names(self, opened: Mapping[Reference, tuple[pl.LazyFrame, str]]) -> dict[Reference, str]:
        """Return the name by which the query of each table knows it."""
        names = {each: each.alias or name for each, (_, name) in opened.items()}
        often = Counter((each.scope, name) for each, name in names.items())
        # two stores of one name in two folders
        return {
            each: name if each.alias or often[each.scope, name] == 1 else ".".join(each.name)
            for each, name in names.items()
        }

    def _add_parameters(self) -> None:
        taken = [(edit.start, edit.end) for edit in self.edits]
        for number, token in enumerate(self.arguments.tokens):
            if token.kind == "parameter" and not any(start <= token.start < end for start, end in taken):
                self.edits.append(Edit(token.start, token.end, self.arguments.literal(number)))

    def _opened(self, reference: Reference, ctes: frozenset[str]) -> tuple[pl.LazyFrame, str] | None:
        """Return the rows of a table, and its name without an alias; None if Polars knows the table."""
        first = self.arguments.tokens[reference.first]
        name = ".".join(reference.name)
        if reference.arguments is not None:
            return self._called(reference, first) if name.upper() == "READ_ZARR" else None
        key = (reference.name, first.kind)
        if key not in self._found:
            self._found[key] = self._passed(reference.name) or (
                self._stored(reference) if first.kind != "word" else None
            )
            if self._found[key] is None and (variable := self.variable(name)) is not None:
                self._found[key] = variable, name
        found = self._found[key]
        if first.kind != "text" and name.lower() in ctes:  # inside of its own text, the name means a table
            if found is not None:
                self.frames[name] = found[0]
            return None
        if found is None:
            raise self._unknown(name)
        return found

    def _passed(self, names: tuple[str, ...]) -> tuple[pl.LazyFrame, str] | None:
        """Return a table of ``tables``, or a group of one."""
        for name, group in ((".".join(names), ""), (names[0], "/".join(names[1:]))):
            if (key := self._key(name)) is not None:
                return self._frame(self.tables[key], group, key), names[-1]
        return None

    def _key(self, name: str) -> str | None:
        """Return the name of a table that was passed; Polars ignores case."""
        if name in self.tables:
            return name
        return next((key for key in self.tables if key.lower() == name.lower()), None)

    def _frame(self, value: Any, group: str, name: str) -> pl.LazyFrame:
        frame = frame_of_object(value)
        if frame is None:
            return self.scan(value, group=group or None)
        if group:
            raise UnknownTableError(f"The table {name!r} is a frame, which has no group {group!r}. Pass a store.")
        return frame

    def _stored(self, reference: Reference) -> tuple[pl.LazyFrame, str] | None:
        """Return the rows at an address; None if a name in quotes is no address."""
        address, group = reference.name[0], "/".join(reference.name[1:])
        is_path = "/" in address or "\\" in address or Path(address).suffix or Path(address).exists()
        if not (is_url(address) or is_path):
            return None
        rows = None if group else frame_of_file(address)
        known_as = reference.name[-1] if group else _stem(address)
        if self.arguments.tokens[reference.first].kind == "name" and not group:
            known_as = address  # as in SQL
        return (self.scan(address, group=group or None) if rows is None else rows), known_as

    def _called(self, reference: Reference, name: Token) -> tuple[pl.LazyFrame, str]:
        plain, named = self.arguments.options(reference.arguments or 0)
        if len(plain) != 1:
            raise error_at(self.arguments.statement, name.start, "Write read_zarr('store.zarr', group => 'x').")
        source = plain[0]
        return self.scan(source, **named), _stem(source) if isinstance(source, str) else "read_zarr"

    def _unknown(self, name: str) -> UnknownTableError:
        stores, tables = stores_near(name), list(self.tables)
        near = get_close_matches(name, [*tables, *stores, *(_stem(each) for each in stores)], n=1)
        told = [f"Did you mean {near[0]!r}?"] if near else []
        told.append(f"Tables that were passed: {', '.join(tables) or 'none'}.")
        told += (
            [f"Stores near: {', '.join(map(repr, map(presentable, stores)))}, to be written in quotes."]
            if stores
            else []
        )
        return UnknownTableError(f"There is no table {name!r}. {' '.join(told)}")


def _stem(address: str) -> str:
    """Return the name of a store without its folder and suffix."""
    return Path(address.rstrip("/")).stem or address


def _quoted(name: str) -> str:
    return '"' + name.replace('"', '""') + '"'
