"""Tokens to the tables that a statement reads: their names, or calls of table functions, and where they stand."""

from collections.abc import Sequence
from dataclasses import dataclass

from rainbear_dask.dialect.tokens import Token


@dataclass(frozen=True, slots=True)
class Reference:
    """A table after FROM or JOIN.

    Parameters
    ----------
    first, last : int
        The first and the last token of its name.
    name : tuple of str
        The parts of its name, which dots separate.
    scope : int
        The number of its query, as in `Outline.scopes`.
    arguments : int or None
        The opening parenthesis, if it is a call of a table function.
    alias : str
        The other name that follows; "" if none does.
    """

    first: int
    last: int
    name: tuple[str, ...]
    scope: int
    arguments: int | None = None
    alias: str = ""


@dataclass(frozen=True, slots=True)
class Outline:
    """A statement in outline.

    Parameters
    ----------
    references : tuple of Reference
        The tables that it reads, in order.
    ctes : frozenset of str
        Names of its common table expressions, in lower case.
    scopes : tuple of int
        For each token the number of the query or the pair of parentheses that holds it.
    """

    references: tuple[Reference, ...]
    ctes: frozenset[str]
    scopes: tuple[int, ...]


@dataclass(slots=True)
class _Scope:
    """A query, or an expression in parentheses.

    Parameters
    ----------
    number : int
        Counts scopes by their beginnings.
    is_query : bool
        Whether FROM names tables here. In ``EXTRACT(YEAR FROM time)`` it does not.
    wants_table, wants_cte : bool
        Whether the next token is the name of a table, or of a common table expression.
    in_from, in_with : bool
        Whether a comma separates tables, or common table expressions.
    """

    number: int
    is_query: bool
    wants_table: bool = False
    wants_cte: bool = False
    in_from: bool = False
    in_with: bool = False


_BEGINNINGS = {"SELECT", "WITH", "VALUES", "FROM"}
"""Words that begin a query."""

CLAUSES = {"SELECT", "VALUES", "WHERE", "GROUP", "HAVING", "QUALIFY", "WINDOW", "ORDER", "LIMIT", "OFFSET", "FETCH"}
CLAUSES |= {"UNION", "EXCEPT", "INTERSECT"}
"""Words that end the clauses FROM and WHERE."""

_AFTER_A_TABLE = {"NATURAL", "INNER", "LEFT", "RIGHT", "FULL", "OUTER", "CROSS", "SEMI", "ANTI", "ASOF", "JOIN", "ON"}
_AFTER_A_TABLE |= {"USING", "MATCH_CONDITION", "FOR", "TABLESAMPLE", "PIVOT", "UNPIVOT"} | CLAUSES
"""Words after a table that are not another name of it."""


def outline_of(tokens: Sequence[Token]) -> Outline:
    """Return the tables that a statement reads, and the queries that hold them."""
    references, ctes, numbers = list[Reference](), set[str](), list[int]()
    open_scopes = [_Scope(0, is_query=True)]
    num_scopes = 1
    skipped_to = 0
    for number, token in enumerate(tokens):
        scope = open_scopes[-1]
        numbers.append(scope.number)
        if number < skipped_to:
            continue
        if scope.wants_table and _is_name(token) and token.keyword not in _BEGINNINGS | {"LATERAL", "ONLY"}:
            references.append(_reference(tokens, number, scope.number))
            skipped_to = references[-1].last + 1
            scope.wants_table = False
        elif scope.wants_cte and _is_name(token) and token.keyword != "RECURSIVE":
            ctes.add(token.value.lower())
            scope.wants_cte = False
        elif token.text == "(":
            begins_query = scope.wants_table or _keyword(tokens, number + 1) in _BEGINNINGS
            open_scopes.append(_Scope(num_scopes, begins_query, scope.wants_table, in_from=scope.wants_table))
            num_scopes += 1
            scope.wants_table = False
        elif token.text == ")":
            if len(open_scopes) > 1:
                open_scopes.pop()
                numbers[-1] = open_scopes[-1].number
        elif scope.is_query:
            _advance(scope, tokens, number)
    return Outline(tuple(references), frozenset(ctes), tuple(numbers))


def _advance(scope: _Scope, tokens: Sequence[Token], number: int) -> None:
    word = tokens[number].keyword
    if word == "FROM":
        # `a IS DISTINCT FROM b` compares
        scope.wants_table = not (_keyword(tokens, number - 1) == "DISTINCT" and _keyword(tokens, number - 2) in _IS)
        scope.in_from = scope.in_from or scope.wants_table
        scope.in_with = False
    elif word == "JOIN":
        scope.wants_table = True
    elif word == "WITH":
        before = tokens[number - 1] if number else None
        # elsewhere it belongs to a type: TIMESTAMP WITH TIME ZONE
        scope.in_with = scope.wants_cte = (
            before is None or before.text in ("(", ";") or before.keyword in ("AS", "EXPLAIN")
        )
    elif word in CLAUSES:
        scope.in_from = scope.in_with = scope.wants_table = False
    elif tokens[number].text == ",":
        scope.wants_table, scope.wants_cte = scope.in_from, scope.in_with


_IS = ("IS", "NOT")


def _reference(tokens: Sequence[Token], first: int, scope: int) -> Reference:
    last = first
    while _text(tokens, last + 1) == "." and last + 2 < len(tokens) and _is_name(tokens[last + 2]):
        last += 2
    arguments = last + 1 if _text(tokens, last + 1) == "(" else None
    after = last + 1 if arguments is None else end_of_parentheses(tokens, arguments) + 1
    if _keyword(tokens, after) == "AS":
        after += 1
    follower = tokens[after] if after < len(tokens) else None
    has_alias = follower is not None and _is_name(follower) and follower.keyword not in _AFTER_A_TABLE
    alias = follower.value if follower is not None and has_alias else ""
    return Reference(first, last, tuple(each.value for each in tokens[first : last + 1 : 2]), scope, arguments, alias)


def end_of_parentheses(tokens: Sequence[Token], opening: int) -> int:
    """Return the index of the parenthesis that closes another; the last index if none does."""
    depth = 0
    for number in range(opening, len(tokens)):
        depth += (tokens[number].text in _OPENING) - (tokens[number].text in _CLOSING)
        if depth == 0:
            return number
    return len(tokens) - 1


def split_arguments(tokens: Sequence[Token], opening: int) -> list[tuple[int, int]]:
    """Return the first and the last index of each argument of a call, whose parenthesis opens at an index."""
    closing, depth, first = end_of_parentheses(tokens, opening), 0, opening + 1
    found = []
    for number in range(opening + 1, closing):
        depth += (tokens[number].text in _OPENING) - (tokens[number].text in _CLOSING)
        if depth == 0 and tokens[number].text == ",":
            found.append((first, number - 1))
            first = number + 1
    return [*found, (first, closing - 1)] if closing > opening + 1 else []


_OPENING, _CLOSING = ("(", "[", "{"), (")", "]", "}")


def _is_name(token: Token) -> bool:
    return token.kind in ("word", "name", "text")


def _text(tokens: Sequence[Token], number: int) -> str:
    return tokens[number].text if 0 <= number < len(tokens) else ""


def _keyword(tokens: Sequence[Token], number: int) -> str:
    return tokens[number].keyword if 0 <= number < len(tokens) else ""
