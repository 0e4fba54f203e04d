"""Hints about a filter that keeps no row: the range and the convention of the coordinates that it names."""

from collections.abc import Iterator

import polars as pl

from rainbear_dask.diagnostics.labels import labels_of, range_of, shown, unit_of
from rainbear_dask.planning.literals import Comparison, comparisons_of, suspicious
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.predicate import Conjunct
from rainbear_dask.table.model import Table


def hints_of(plan: ReadPlan) -> list[str]:
    """Return hints about the filter of a plan, one sentence or two each.

    Parameters
    ----------
    plan : ReadPlan
        The plan. If its filter keeps no row, the hints read the coordinates that it names.
    """
    table = plan.table
    dtypes = {column.name: column.dtype for column in plan.filter_columns}
    found = [text for conjunct in plan.conjuncts for text in suspicious(conjunct.expr, dtypes)]
    if plan.selection.boxes or not table.num_rows:
        return found
    empty = [conjunct for conjunct in plan.conjuncts if not conjunct.selection.boxes]
    if not empty and len(plan.conjuncts) > 1:
        found.append("Each filter keeps rows, but no row passes all of them.")
    for conjunct in empty:
        found += dict.fromkeys(_about(conjunct, table))
    return list(dict.fromkeys(found))


def _about(conjunct: Conjunct, table: Table) -> Iterator[str]:
    """Yield the ranges of the coordinates of a filter that keeps nothing, with the probable mistake."""
    compared: dict[str, Comparison] = {}
    for comparison in comparisons_of(conjunct.expr, conjunct.expr.meta.root_names()):
        compared.setdefault(comparison.column, comparison)
    for name in dict.fromkeys(conjunct.expr.meta.root_names()):
        extent = range_of(table, name)
        if extent:
            mistake = _mistake(compared[name], table) if name in compared else ""
            yield f"{name} is {extent}. {mistake}".rstrip()


def _mistake(comparison: Comparison, table: Table) -> str:
    name, values = comparison.column, comparison.values
    labels = labels_of(table, name)
    if labels is None or any(value is None for value in values):
        return ""
    unit = unit_of(table, name)
    if comparison.kind == "between" and values[0] > values[1]:
        low, high = (shown(value, unit) for value in values)
        return f"The lower bound {low} is above the upper bound {high}. Swap them."
    if labels.dtype.is_numeric() and (text := _other_longitudes(name, values, labels, table)):
        return text
    if comparison.kind == "equal" and labels.dtype.is_numeric():
        return _nearest(values[0], labels, unit)
    return ""


def _other_longitudes(name: str, values: tuple[float, ...], labels: pl.Series, table: Table) -> str:
    """Return a hint if a filter has longitudes of the other convention."""
    array = table.columns[name].array
    attributes = {} if array is None else array.attributes
    is_longitude = name.lower().startswith("lon") or "longitude" in (
        str(attributes.get("standard_name", "")),
        "longitude" if str(attributes.get("units", "")).startswith("degrees_e") else "",
    )
    low, high = float(labels.min() or 0), float(labels.max() or 0)  # type: ignore[arg-type]
    if not is_longitude:
        return ""
    if low >= 0 and high > 180 and min(values) < 0:
        moved = " to ".join(shown(value % 360, "°") for value in values)
        return f"These longitudes are 0° to 360°: add 360 to negative ones ({moved})."
    if low < 0 and high <= 180 and max(values) > 180:
        moved = " to ".join(shown((value + 180) % 360 - 180, "°") for value in values)
        return f"These longitudes are -180° to 180°: subtract 360 from those above 180 ({moved})."
    return ""


def _nearest(value: float, labels: pl.Series, unit: str) -> str:
    numbers = labels.drop_nulls().cast(pl.Float64).unique()
    below, above = numbers.filter(numbers < value).max(), numbers.filter(numbers > value).min()
    near = " and ".join(f"{number:.9g}{unit}" for number in (below, above) if isinstance(number, float))
    kind = " of Float32" if labels.dtype == pl.Float32 else ""
    return f"No label{kind} equals {value:.9g}{unit}. The nearest: {near}. Use is_between with a tolerance."
