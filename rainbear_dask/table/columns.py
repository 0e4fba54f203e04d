"""Whole columns: the decoded values of coordinates, for planners and indexes."""

from collections.abc import Sequence
from functools import lru_cache

import polars as pl

from rainbear_dask.chunks import cache
from rainbear_dask.coding.cf import Decoding
from rainbear_dask.exceptions import PlanTooLargeError
from rainbear_dask.resources.limits import WHOLE_VALUES
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column


def prefetch(spec: StoreSpec, columns: Sequence[Column]) -> None:
    """Read the stored values of some columns into the cache, all at the same time."""
    arrays = [column.array for column in columns if column.array is not None and not _is_decoded(spec, column)]
    cache.prefetch(spec, arrays)


def whole_column(spec: StoreSpec, column: Column, length: int) -> pl.Series:
    """Return all decoded values of a column.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    column : Column
        A column of any rank.
    length : int
        Number of its values.

    Returns
    -------
    Series
        Flat in C order of the column's dimensions. For a dimension without an array, its positions.

    Raises
    ------
    PlanTooLargeError
        If the column has more than ``WHOLE_VALUES`` values. The planner then leaves its filter to the workers.
    """
    if length > WHOLE_VALUES:
        raise PlanTooLargeError(
            f"Column {column.name!r} of {spec.label} has {length:,} values, and at most {WHOLE_VALUES:,} are held at "
            "once. Choose another index or filter, or a part of the rows."
        )
    array, decoding = column.array, column.decoding
    if array is None or decoding is None:
        return pl.int_range(length, dtype=pl.Int64, eager=True).alias(column.name)
    values = cache.decoded(spec, _text_of(decoding), lambda: decoding.decode(cache.whole(spec, array)))
    return values.alias(column.name)


def _is_decoded(spec: StoreSpec, column: Column) -> bool:
    return column.decoding is not None and cache.is_decoded(spec, _text_of(column.decoding))


@lru_cache(maxsize=2**10)
def _text_of(decoding: Decoding) -> str:
    """Return a text that identifies a decoding; to build it takes longer than to look it up."""
    return repr(decoding)
