"""Rows to cells of a grid: labels of each dimension, the cell of each row, and values in the cells."""

from collections.abc import Mapping, Sequence
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.exceptions import RowsError
from rainbear_dask.table.model import unknown_column

Axes = Mapping[str, pl.Series]
"""Labels of each dimension, in the order of its positions."""

Dims = Sequence[str] | Mapping[str, Any]
"""Names of dimensions, or labels by name."""


def axes_of(frame: pl.DataFrame, dims: Dims, what: str = "the rows") -> dict[str, pl.Series]:
    """Return the labels of each dimension.

    Parameters
    ----------
    frame : DataFrame
        Rows with a column for each dimension.
    dims : sequence of str, or mapping of str to labels
        Dimensions in order. By names alone, labels are in order of appearance.
    what : str
        How messages call the rows.

    Returns
    -------
    dict of str to Series
        Labels without repetition, of the type of the column.

    Raises
    ------
    UnknownColumnError
        If a dimension is not a column.
    RowsError
        If a label is null, NaN or given twice, or the labels are not of the type of the column.
    """
    if isinstance(dims, str):
        dims = [dims]
    axes = {}
    for dim in dims:
        if dim not in frame.columns:
            raise unknown_column(dim, frame.columns, what)
        found = frame[dim].unique(maintain_order=True)
        axes[dim] = _labels(dim, dims[dim], found.dtype) if isinstance(dims, Mapping) else found
        if axes[dim].has_nulls() or (axes[dim].dtype.is_float() and axes[dim].is_nan().any()):
            raise RowsError(
                f"The dimension {dim!r} has a null or NaN among its labels. Drop these rows, or name a value."
            )
    if len(axes) != len(dims):
        raise RowsError(f"A dimension is named twice: {', '.join(dims)}. Name each once.")
    return axes


def _labels(dim: str, given: Any, dtype: pl.DataType) -> pl.Series:
    try:
        labels = pl.Series(dim, given if isinstance(given, pl.Series) else np.asarray(given)).cast(dtype)
    except (pl.exceptions.PolarsError, TypeError, ValueError) as err:
        raise RowsError(f"The labels of dimension {dim!r} are not of type {dtype}, as its column is.") from err
    if labels.n_unique() < len(labels):
        raise RowsError(
            f"The labels of dimension {dim!r} repeat, and rows would fit several cells. Give each label once."
        )
    return labels


def positions_of(
    frame: pl.DataFrame, axes: Axes, what: str = "the labels of `dims`"
) -> dict[str, npt.NDArray[np.int64]]:
    """Return the position of each row along each dimension.

    Parameters
    ----------
    frame : DataFrame
        Rows with a column for each dimension.
    axes : mapping of str to Series
        Labels of each dimension.
    what : str
        How messages call the labels.

    Raises
    ------
    RowsError
        If a row has a label that is not on its axis; the message names the first.
    """
    found = {}
    for dim, labels in axes.items():
        numbered = pl.DataFrame({"label": labels, "at": np.arange(len(labels))})
        column = frame.select(pl.col(dim).alias("label"))
        if column["label"].dtype != labels.dtype:
            column = column.with_columns(_cast(column["label"], labels.dtype, dim))
        at = column.join(numbered, on="label", how="left", maintain_order="left")["at"]
        if at.has_nulls():
            row = int(at.is_null().arg_max() or 0)
            raise RowsError(f"Row {row} has the label {dim}={frame[dim][row]}, which is not among {what}.")
        found[dim] = at.to_numpy()
    return found


def _cast(labels: pl.Series, dtype: pl.DataType, dim: str) -> pl.Series:
    try:
        cast = labels.cast(dtype)
    except pl.exceptions.PolarsError as err:
        raise RowsError(f"The column {dim!r} is {labels.dtype}, and the axis holds {dtype}. Cast it first.") from err
    if not cast.cast(labels.dtype).equals(labels):
        raise RowsError(f"The column {dim!r} is {labels.dtype}, and loses values as {dtype}. Cast it first.")
    return cast


def flat_cells(
    positions: Mapping[str, npt.NDArray[np.int64]], sizes: Mapping[str, int], height: int
) -> npt.NDArray[np.int64]:
    """Return the number of the cell of each of ``height`` rows, in C order of the sizes."""
    cells: npt.NDArray[np.int64] = np.zeros(height, dtype=np.int64)
    for dim, size in sizes.items():
        cells *= size
        cells += positions[dim]
    return cells


def last_of_each(
    frame: pl.DataFrame, cells: npt.NDArray[np.int64], sizes: Mapping[str, int], duplicates: Literal["error", "last"]
) -> npt.NDArray[np.intp] | None:
    """Return the rows to keep, the last of each cell; None if no two rows have one cell.

    Raises
    ------
    RowsError
        If two rows have one cell and ``duplicates`` is "error"; the message names the first two.
    """
    seen = np.zeros(prod(sizes.values()), dtype=np.bool_)
    seen[cells] = True
    if np.count_nonzero(seen) == len(cells):
        return None
    del seen
    order = np.argsort(cells, kind="stable")
    same = cells[order][1:] == cells[order][:-1]
    if duplicates == "error":
        first = int(np.flatnonzero(same)[0])
        a, b = sorted((int(order[first]), int(order[first + 1])))
        place = ", ".join(f"{dim}={frame[dim][a]}" for dim in sizes)
        raise RowsError(f"Rows {a} and {b} have the same cell, {place or 'the only one'}. Aggregate them first.")
    kept: npt.NDArray[np.intp] = np.sort(order[np.append(~same, [True])])
    return kept


def plain_array(values: pl.Series, cells: npt.NDArray[np.int64], count: int) -> npt.NDArray[Any]:
    """Return values in their cells, as xarray would hold them.

    Parameters
    ----------
    values : Series
        One value per row.
    cells : ndarray of int64
        Cell of each row; no cell twice.
    count : int
        Number of cells.

    Returns
    -------
    ndarray, shape (count,)
        Cells without a row, and nulls, are NaN or NaT. Integers then become float32 (up to 16 bits) or float64;
        Booleans and texts become objects.

    Raises
    ------
    RowsError
        If NumPy has no type for the values.
    """
    dtype = values.dtype
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is not None:
        raise RowsError(
            f"The column {values.name!r} has the time zone {dtype.time_zone}, which NumPy lacks. Convert it: "
            "pl.col(name).dt.convert_time_zone('UTC').dt.replace_time_zone(None)."
        )
    if dtype == pl.Date:
        values = values.cast(pl.Datetime("ms"))
    elif isinstance(dtype, pl.Categorical | pl.Enum):
        values = values.cast(pl.String)
    elif dtype.is_nested() or dtype in (pl.Time, pl.Null, pl.Object) or dtype.is_decimal():
        raise RowsError(f"The column {values.name!r} is {dtype}, which no array holds. Unnest, cast or drop it.")
    whole = len(cells) == count and not values.has_nulls()
    if values.dtype.is_temporal():
        kind = "M" if isinstance(values.dtype, pl.Datetime) else "m"
        stored = np.dtype(f"{kind}8[{values.dtype.time_unit}]")  # type: ignore[attr-defined]  # both have units
        array = np.full(count, "NaT", dtype=stored)
        array[cells] = values.to_numpy()
        return array
    if values.dtype.is_integer() and not whole:
        values = values.cast(pl.Float32 if values.to_physical().to_numpy().dtype.itemsize <= 2 else pl.Float64)
    if values.dtype.is_numeric():
        numbers = values.to_numpy()
        array = np.empty(count, numbers.dtype) if whole else np.full(count, np.nan, dtype=numbers.dtype)
    elif values.dtype == pl.Boolean and whole:
        numbers, array = values.to_numpy(), np.empty(count, np.bool_)
    else:
        listed: list[Any] = [np.nan if value is None else value for value in values.to_list()]
        numbers, array = np.empty(len(listed), dtype=object), np.full(count, np.nan, dtype=object)
        numbers[:] = listed
    array[cells] = numbers
    return array
