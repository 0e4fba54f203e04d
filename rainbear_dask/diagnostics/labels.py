"""Coordinate labels for people: dates, degrees and numbers with their units, ranges and steps."""

from contextlib import suppress
from datetime import datetime
from typing import Any

import polars as pl

from rainbear_dask.exceptions import RainbearError
from rainbear_dask.table.columns import whole_column
from rainbear_dask.table.model import Column, Table

MAX_SHOWN = 2**20
"""Labels of the longest coordinate that a report reads."""


def labels_of(table: Table, name: str) -> pl.Series | None:
    """Return the labels of a coordinate of one dimension; None if it has none, is too long, or cannot be read."""
    column = table.columns.get(name)
    if column is None or column.array is None or column.dims != (name,) or table.sizes[name] > MAX_SHOWN:
        return None
    with suppress(RainbearError):
        return whole_column(table.spec, column, table.sizes[name])
    return None


def range_of(table: Table, name: str) -> str:
    """Return the range of a coordinate, such as "-89.5° to 89.5°, step 1°"; "" without labels."""
    labels = labels_of(table, name)
    known = None if labels is None else labels.drop_nulls()
    if known is None or known.is_empty():
        return ""
    unit = unit_of(table, name)
    low, high = known.min(), known.max()
    text = f"{shown(low, unit)} to {shown(high, unit)}" if low != high else shown(low, unit)
    step = _step(known)
    return text if step is None else f"{text}, step {shown(step, unit)}"


def unit_of(table: Table, name: str) -> str:
    """Return the unit of a coordinate as it follows a number: "°" for degrees, else the unit after a space."""
    array = table.columns[name].array
    unit = "" if array is None else str(array.attributes.get("units", ""))
    if unit.startswith("degree"):
        return "°"
    is_number = not table.columns[name].dtype.is_temporal() and " since " not in unit
    return f" {unit}" if unit and is_number else ""


def attribute_of(column: Column, name: str) -> str:
    """Return an attribute of a column's array that is text; "" if it has none."""
    value = column.array.attributes.get(name) if column.array else None
    return value if isinstance(value, str) else ""


def shown(value: Any, unit: str = "") -> str:
    """Return a label as text: a date without its time at midnight, a number with up to six digits."""
    if isinstance(value, datetime):
        is_date = (value.hour, value.minute, value.second, value.microsecond) == (0, 0, 0, 0)
        return str(value.date()) if is_date else str(value)
    if isinstance(value, str):
        return value.removesuffix("T00:00:00")  # a date of a calendar that Polars lacks
    return f"{value:.6g}{unit}" if isinstance(value, int | float) else f"{value}{unit}"


def _step(labels: pl.Series) -> float | None:
    """Return the step of evenly spaced numbers."""
    if len(labels) < 3 or not labels.dtype.is_numeric():
        return None
    values = labels.cast(pl.Float64)
    steps = values.diff().drop_nulls()
    step = steps.median()
    if not isinstance(step, float) or step == 0:
        return None
    tolerance = max(abs(step) * 1e-3, float(values.abs().max() or 0) * 1e-6)  # type: ignore[arg-type]
    return step if bool(((steps - step).abs() <= tolerance).all()) else None
