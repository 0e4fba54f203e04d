"""SQL text to tokens with their places, without comments and spaces.

Quotes and comments follow the parser in Polars (sqlparser's generic dialect). Any other text becomes
symbols, and Polars judges them later.
"""

import re
from collections.abc import Iterator
from dataclasses import dataclass
from typing import Literal, cast

from rainbear_dask.exceptions import SQLError

Kind = Literal["word", "name", "text", "number", "parameter", "symbol"]


@dataclass(frozen=True, slots=True)
class Token:
    """A piece of SQL text.

    Parameters
    ----------
    kind : str
        A keyword or plain name (``word``), a name in double quotes or backticks (``name``), text in single quotes, a
        number, a parameter ``:name``, or a symbol.
    text : str
        As written.
    start, end : int
        Its place in the text.
    """

    kind: Kind
    text: str
    start: int
    end: int

    @property
    def keyword(self) -> str:
        """The word in capitals; "" for anything that is no word."""
        return self.text.upper() if self.kind == "word" else ""

    @property
    def value(self) -> str:
        """The text without quotes, or the parameter without its colon."""
        if self.text.startswith("$"):  # $$text$$, $tag$text$tag$
            mark = self.text.index("$", 1) + 1
            return self.text[mark:-mark]
        if self.kind in ("name", "text"):
            quote = self.text[0]
            return self.text[1:-1].replace(quote * 2, quote)
        return self.text.removeprefix(":") if self.kind == "parameter" else self.text


_TOKEN = re.compile(
    r"""
      (?P<space>\s+|--[^\n]*)
    | (?P<comment>/\*)
    | (?P<text>'(?:[^']|'')*'|\$(?P<tag>\w*)\$.*?\$(?P=tag)\$)
    | (?P<name>"(?:[^"]|"")*"|`(?:[^`]|``)*`)
    | (?P<open>['"`])
    | (?P<parameter>(?<![:\w\]'"`]):[^\W\d]\w*)
    | (?P<number>\d[\w.]*|\.\d\w*)
    | (?P<word>[^\W\d][\w$]*)
    | (?P<symbol>=>|::|.)
    """,
    re.VERBOSE | re.DOTALL,
)
_COMMENT_MARK = re.compile(r"/\*|\*/")


def tokens_of(statement: str) -> list[Token]:
    """Return the tokens of SQL text.

    Raises
    ------
    SQLError
        If a quote or a comment has no end.
    """
    return list(_tokens(statement))


def _tokens(statement: str) -> Iterator[Token]:
    place = 0
    while found := _TOKEN.match(statement, place):
        kind, start, place = found.lastgroup, found.start(), found.end()
        if kind == "tag":
            kind = "text"
        if kind == "comment":
            place = _end_of_comment(statement, start)
        elif kind == "open":
            raise error_at(statement, start, "This quote has no end.")
        elif kind != "space":
            yield Token(cast(Kind, kind), found[0], start, place)


def _end_of_comment(statement: str, start: int) -> int:
    """Return the end of a comment; comments nest."""
    depth = 0
    for mark in _COMMENT_MARK.finditer(statement, start):
        depth += 1 if mark[0] == "/*" else -1
        if depth == 0:
            return mark.end()
    raise error_at(statement, start, "This comment has no end.")


def place_of(statement: str, offset: int) -> str:
    """Return a place in the text in words, as Polars names places."""
    before = statement[:offset]
    return f"Line: {before.count(chr(10)) + 1}, Column: {offset - before.rfind(chr(10))}"


def error_at(statement: str, offset: int, problem: str) -> SQLError:
    """Return an error that names a place in the text."""
    found = _BEGINNING.match(statement, offset)  # no more, because quoted text may be a secret
    return SQLError(f"{problem} It begins with {found[0] if found else ''!r}, at {place_of(statement, offset)}.")


_BEGINNING = re.compile(r"\w+|/\*|.", re.DOTALL)
