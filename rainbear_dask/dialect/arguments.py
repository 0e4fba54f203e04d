"""Arguments of table functions and of geometry in SQL, as values of Python."""

from collections.abc import Mapping, Sequence
from typing import Any

from rainbear_dask.dialect.literals import is_list, items, literal
from rainbear_dask.dialect.references import split_arguments
from rainbear_dask.dialect.tokens import Token, error_at
from rainbear_dask.exceptions import QueryError

_CONSTANTS = {"TRUE": True, "FALSE": False, "NULL": None}


class Arguments:
    """Reads values from tokens.

    Parameters
    ----------
    statement : str
        The SQL text, for messages.
    tokens : sequence of Token
        Its tokens.
    params : mapping
        The values of parameters.
    """

    def __init__(self, statement: str, tokens: Sequence[Token], params: Mapping[str, Any]) -> None:
        self.statement = statement
        self.tokens = tokens
        self.params = params

    def parameter(self, token: Token) -> Any:
        """Return the value of a parameter.

        Raises
        ------
        QueryError
            If it has no value.
        """
        if token.value not in self.params:
            given = ", ".join(map(str, self.params)) or "none"
            raise QueryError(
                f"The parameter :{token.value} has no value. Pass it in `params={{{token.value!r}: ...}}`. Given: {given}."
            )
        return self.params[token.value]

    def literal(self, number: int) -> str:
        """Return the SQL literal of the parameter at an index. A list after IN becomes a list in parentheses."""
        token, value = self.tokens[number], self.parameter(self.tokens[number])
        if is_list(value):
            before, after = self._before(number), self.tokens[number + 1 : number + 2]
            if before.upper() == "IN":
                return f"({', '.join(items(token.value, value))})"
            if before == "(" and self._before(number - 1).upper() == "IN" and [each.text for each in after] == [")"]:
                return ", ".join(items(token.value, value))
        return literal(token.value, value)

    def _before(self, number: int) -> str:
        return self.tokens[number - 1].text if number > 0 else ""

    def options(self, opening: int) -> tuple[list[Any], dict[str, Any]]:
        """Return the values of a call: without a name, and with one (``group => 'x'``)."""
        plain, named = list[Any](), dict[str, Any]()
        for first, last in split_arguments(self.tokens, opening):
            start = self.tokens[first]
            if start.kind in ("word", "name") and first < last and self.tokens[first + 1].text in ("=>", "="):
                named[start.value] = self.value(first + 2, last)
            else:
                plain.append(self.value(first, last))
        return plain, named

    def value(self, first: int, last: int) -> Any:
        """Return the value that some tokens denote: a constant, a parameter, a list, or ``{'key': value}``.

        Raises
        ------
        SQLError
            If they denote no value.
        """
        if first > last:
            raise error_at(
                self.statement, self.tokens[min(first, len(self.tokens) - 1)].start, "A value is missing here."
            )
        token = self.tokens[first]
        if first == last:
            return self._constant(token)
        if token.text == "-" and first + 1 == last and self.tokens[last].kind == "number":
            return -self._number(self.tokens[last])
        if token.keyword == "ARRAY":
            first, token = first + 1, self.tokens[first + 1]
        if (token.text, self.tokens[last].text) in (("[", "]"), ("(", ")")):
            return [self.value(*each) for each in split_arguments(self.tokens, first)]
        if (token.text, self.tokens[last].text) == ("{", "}"):
            return dict(self._entry(*each) for each in split_arguments(self.tokens, first))
        raise error_at(self.statement, token.start, "This is no constant, parameter or list of them.")

    def _constant(self, token: Token) -> Any:
        if token.kind == "parameter":
            return self.parameter(token)
        if token.kind == "text":
            return token.value
        if token.kind == "number":
            return self._number(token)
        if token.keyword in _CONSTANTS:
            return _CONSTANTS[token.keyword]
        raise error_at(self.statement, token.start, "This is no constant and no parameter.")

    def _entry(self, first: int, last: int) -> tuple[str, Any]:
        if first + 1 >= last or self.tokens[first + 1].text != ":":
            raise error_at(self.statement, self.tokens[first].start, "This is no entry 'key': value.")
        return self.tokens[first].value, self.value(first + 2, last)

    def _number(self, token: Token) -> int | float:
        try:
            return int(token.text) if token.text.isdecimal() else float(token.text)
        except ValueError:
            raise error_at(self.statement, token.start, "This is no number.") from None


def check_params(params: Any) -> Mapping[str, Any]:
    """Return parameters, an empty mapping for None; raise QueryError for anything else."""
    if params is None:
        return {}
    if not isinstance(params, Mapping) or not all(isinstance(name, str) for name in params):
        raise QueryError('`params` is no mapping of names to values. Pass {"start": ...} for :start in the query.')
    return params
