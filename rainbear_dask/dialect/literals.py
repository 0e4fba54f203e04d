"""Values of Python as SQL literals of the same type.

A literal stands in the text, so that Polars sees its type when it builds the query, and the planner sees a constant. Text
is quoted, and numbers have parentheses, so no value can become another part of the statement.
"""

import math
from collections.abc import Callable, Sequence
from datetime import date, datetime, time, timedelta
from decimal import Decimal
from typing import Any

import numpy as np
import polars as pl

from rainbear_dask.exceptions import QueryError


def literal(name: str, value: Any) -> str:
    """Return a value as an SQL literal.

    Parameters
    ----------
    name : str
        The parameter's name, for messages.
    value
        None, a Boolean, number, text, bytes, date, time, datetime or timedelta, a scalar of NumPy, or a list of these,
        which becomes an array.

    Returns
    -------
    str
        The literal. NumPy's float32 stays Float32; nanoseconds of a datetime64 stay.

    Raises
    ------
    QueryError
        If SQL has no literal for the value, or the literal would differ from it.
    """
    if is_list(value):
        return f"[{', '.join(items(name, value))}]"
    found = _bare(name, value)
    return f"({found})" if found[0] in "-0123456789" else found  # 5 -:x must not become a comment, 5 --3


def _bare(name: str, value: Any) -> str:
    for kind, write in _WRITERS:
        if isinstance(value, kind):
            return write(name, value)
    raise QueryError(
        f"The parameter :{name} is of type {type(value).__name__}, which has no SQL literal. Pass a number, text, a date or "
        "time, or a list of these."
    )


def is_list(value: Any) -> bool:
    """Whether a value becomes a list."""
    return isinstance(value, list | tuple | set | frozenset | range | pl.Series | np.ndarray)


def items(name: str, values: Any) -> list[str]:
    """Return the literals of a list.

    Raises
    ------
    QueryError
        If the list is empty, or an item has no literal.
    """
    found = [_bare(name, each) for each in values]
    if not found:
        raise QueryError(f"The parameter :{name} is an empty list, which SQL does not have. Leave its condition out.")
    return found


def _quoted(_: str, value: str) -> str:
    return "'" + value.replace("'", "''") + "'"


def _integer(name: str, value: int) -> str:
    if -(2**63) < value < 2**63:
        return str(value)
    if -(2**63) <= value < 2**64:  # Polars would make it a decimal
        return f"CAST('{value}' AS {'BIGINT' if value < 0 else 'BIGINT UNSIGNED'})"
    raise QueryError(f"The parameter :{name}, {value}, does not fit into 64 bits. Pass a float or a Decimal.")


def _float(_: str, value: float) -> str:
    if not math.isfinite(value):
        return f"CAST('{value}' AS DOUBLE)"
    shown = repr(float(value))
    return shown if "e" in shown else f"{shown}e0"  # without an exponent it would be a decimal


def _small_float(name: str, value: np.float32 | np.float16) -> str:
    return f"CAST({_float(name, float(value))} AS REAL)"


def _decimal(name: str, value: Decimal) -> str:
    return f"{value:f}" if value.is_finite() else _float(name, float(value))


def _time(name: str, value: datetime | time) -> str:
    if value.tzinfo is not None:
        raise QueryError(
            f"The parameter :{name} has a time zone, and times of stores have none. Pass it in UTC without a zone: "
            "value.astimezone(timezone.utc).replace(tzinfo=None)."
        )
    if isinstance(value, datetime):
        return f"TIMESTAMP '{value.isoformat(' ')}'"
    return f"TIME '{value.isoformat()}'"


def _numpy_time(name: str, value: np.datetime64 | np.timedelta64) -> str:
    if np.isnat(value):
        return "NULL"
    unit, _ = np.datetime_data(value.dtype)
    if unit in ("Y", "M") and isinstance(value, np.timedelta64):
        raise QueryError(f"The parameter :{name}, {value!r}, counts months, which have no fixed length. Pass days.")
    finest = "ns" if unit in _BELOW_MICROSECONDS else "us"
    series = pl.Series(np.array([value]).astype(f"{value.dtype.kind}8[{finest}]"))
    if series.dtype == pl.Datetime("ns"):
        return f"CAST('{series.dt.to_string('%Y-%m-%d %H:%M:%S%.9f').item()}' AS TIMESTAMP(9))"
    if series.dtype == pl.Duration("ns") and series.dt.total_nanoseconds().item() % 1000:
        raise QueryError(f"The parameter :{name}, {value!r}, is no whole number of microseconds.")
    return _bare(name, series.item())


_BELOW_MICROSECONDS = ("ns", "ps", "fs", "as")

_WRITERS: Sequence[tuple[type, Callable[[str, Any], str]]] = (
    (type(None), lambda _, value: "NULL"),
    (bool, lambda _, value: str(value).upper()),
    (int, _integer),
    (float, _float),
    (Decimal, _decimal),
    (str, _quoted),
    (bytes, lambda _, value: f"X'{value.hex()}'"),
    (datetime, _time),
    (date, lambda _, value: f"DATE '{value.isoformat()}'"),
    (time, _time),
    (timedelta, lambda _, value: f"CAST({value // timedelta(microseconds=1)} AS INTERVAL)"),
    (np.datetime64, _numpy_time),
    (np.timedelta64, _numpy_time),
    (np.float32, _small_float),
    (np.float16, _small_float),
    (np.generic, lambda name, value: _bare(name, value.item())),
)
"""The first type that fits counts."""
