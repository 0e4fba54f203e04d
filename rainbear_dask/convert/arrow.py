"""Frames of Polars to Arrow record batches."""

from collections.abc import Callable, Iterator, Sequence
from contextlib import closing
from typing import TYPE_CHECKING

import polars as pl

from rainbear_dask.dependencies import require
from rainbear_dask.table.model import Column

if TYPE_CHECKING:
    import pyarrow as pa


def arrow_schema(empty: pl.DataFrame, columns: Sequence[Column]) -> "pa.Schema":
    """Return the Arrow schema of frames; fields have the units and names of CF as metadata.

    Parameters
    ----------
    empty : DataFrame
        A frame with the schema of all frames.
    columns : sequence of Column
        Columns of the frames. A column inside of a struct has no field of its own.
    """
    require("pyarrow", extra="dataframe")
    schema = empty.to_arrow().schema
    for column in columns:
        attributes = {} if column.array is None else column.array.attributes
        known = {name: value for name in _DESCRIBING if isinstance(value := attributes.get(name), str)}
        place = schema.get_field_index(column.name)
        if known and place >= 0 and not column.dtype.is_temporal():  # decoded times have other units
            schema = schema.set(place, schema.field(place).with_metadata(known))
    return schema


_DESCRIBING = ("units", "long_name", "standard_name")


def arrow_reader(schema: "pa.Schema", frames: Callable[[], Iterator[pl.DataFrame]]) -> "pa.RecordBatchReader":
    """Stream frames as Arrow record batches.

    Parameters
    ----------
    schema : pyarrow.Schema
        The schema of all frames.
    frames : callable
        Returns the frames. The reader calls it for the first batch.

    Returns
    -------
    pyarrow.RecordBatchReader
        At least one batch for each frame.
    """
    require("pyarrow", extra="dataframe")
    import pyarrow as pa  # noqa: PLC0415  an extra

    def batches() -> Iterator[pa.RecordBatch]:
        with closing(frames()) as source:  # type: ignore[type-var]  # a generator
            for frame in source:
                yield from frame.to_arrow().cast(schema).to_batches()

    return pa.RecordBatchReader.from_batches(schema, batches())
