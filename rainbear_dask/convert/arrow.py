"""Rows as Arrow has them."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import polars as pl

from rainbear_dask.dependencies import require

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_reader(empty: pl.DataFrame, frames: Callable[[], Iterator[pl.DataFrame]]) -> "pa.RecordBatchReader":
    """Record batches of some frames.

    Parameters
    ----------
    empty : DataFrame
        Without rows, of the same columns.
    frames : callable
        Gives them; called when the first batch is asked for.

    Returns
    -------
    pyarrow.RecordBatchReader
        One batch or several for each frame.
    """
    require("pyarrow", extra="dataframe")
    import pyarrow as pa  # noqa: PLC0415  an extra

    schema = empty.to_arrow().schema

    def batches() -> Iterator[pa.RecordBatch]:
        with closing(frames()) as source:  # type: ignore[type-var]  # a generator
            for frame in source:
                yield from frame.to_arrow().cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())
