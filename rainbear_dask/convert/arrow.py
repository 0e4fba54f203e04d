"""Frames of Polars to Arrow record batches."""

from collections.abc import Callable, Iterator
from contextlib import closing
from typing import TYPE_CHECKING

import polars as pl

from rainbear_dask.dependencies import require

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_reader(empty: pl.DataFrame, frames: Callable[[], Iterator[pl.DataFrame]]) -> "pa.RecordBatchReader":
    """Stream frames as Arrow record batches.

    Parameters
    ----------
    empty : DataFrame
        A frame with the schema of all frames and no rows.
    frames : callable
        Returns the frames. The reader calls it for the first batch.

    Returns
    -------
    pyarrow.RecordBatchReader
        At least one batch for each frame.
    """
    require("pyarrow", extra="dataframe")
    import pyarrow as pa  # noqa: PLC0415  an extra

    schema = empty.to_arrow().schema

    def batches() -> Iterator[pa.RecordBatch]:
        with closing(frames()) as source:  # type: ignore[type-var]  # a generator
            for frame in source:
                yield from frame.to_arrow().cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())
