"""Residual filters on rows, evaluated by Polars."""

import io
from collections.abc import Mapping

import numpy as np
import numpy.typing as npt
import polars as pl
from polars.exceptions import PanicException

from rainbear_dask.planning.task import Filter
from rainbear_dask.table.tidy import nest


class EvaluationError(Exception):
    """Polars cannot evaluate a filter on some rows.

    Parameters
    ----------
    error : BaseException
        The error of Polars, or of a Python function in the filter.
    """

    def __init__(self, error: BaseException) -> None:
        super().__init__(str(error))
        self.error = error


def evaluate(test: Filter, known: Mapping[str, pl.Series], count: int) -> pl.Series:
    """Evaluate a filter on rows.

    Parameters
    ----------
    test : Filter
        The filter.
    known : mapping of str to Series
        Values of its columns.
    count : int
        Number of rows.

    Returns
    -------
    Series
        A Boolean for each row, without nulls.

    Raises
    ------
    EvaluationError
        If the filter fails on one of the rows.
    """
    frame = pl.DataFrame([known[c.name] for c in test.columns] or None, height=count)
    # expressions name a variable of a child group as a field of a struct, or as `child/variable`
    frame = nest(frame).hstack([column for column in frame.iter_columns() if "/" in column.name])
    try:
        passed = frame.select(pl.Expr.deserialize(io.BytesIO(test.predicate))).to_series().fill_null(value=False)
    except (Exception, PanicException) as err:
        raise EvaluationError(err) from err
    # one value if the expression names no column
    return passed.new_from_index(0, count) if len(passed) == 1 else passed


def mask_of(passed: pl.Series) -> npt.NDArray[np.bool_]:
    """Build sparse masks from row numbers: Polars converts Booleans bit by bit, and holds the GIL meanwhile."""
    if _SPARSE_RATIO * passed.sum() > len(passed):
        return passed.to_numpy()
    mask = np.zeros(len(passed), dtype=np.bool_)
    mask[passed.arg_true().to_numpy()] = True
    return mask


_SPARSE_RATIO = 100
"""A mask is sparse if at most one of so many rows passes."""
