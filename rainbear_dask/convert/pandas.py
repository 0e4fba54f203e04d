"""Rows to pandas DataFrames: dtypes, categoricals, missing values."""

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, get_args

import numpy as np
import pandas as pd
import polars as pl

from rainbear_dask.coding import cf
from rainbear_dask.exceptions import QueryError
from rainbear_dask.execution.run import iter_compact_frames
from rainbear_dask.execution.wire import CompactColumn, CompactFrame, lay_out
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.resources.cache import ByteLRU
from rainbear_dask.resources.openings import when_gone
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.columns import whole_column
from rainbear_dask.table.model import Column, Table, unknown_column
from rainbear_dask.table.tidy import CellMask
from rainbear_dask.typing import DtypeBackend

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True, slots=True)
class PandasSchema:
    """The pandas dtypes of a table's columns.

    Parameters
    ----------
    spec : StoreSpec
        Store of the coordinates that supply the categories.
    backend : {"numpy", "pyarrow"}
        As ``dtype_backend`` of `read_zarr`.
    index : str or None
        Column that becomes the index. None for an index that numbers the rows of each frame.
    categories : tuple of (Column, int)
        Coordinates of one dimension that become categoricals, each with its length.
    """

    spec: StoreSpec
    backend: DtypeBackend = "numpy"
    index: str | None = None
    categories: tuple[tuple[Column, int], ...] = ()

    def series(self, column: Column, values: pl.Series) -> Any:
        """Return values as a pandas Series of the column's dtype, which does not depend on the values."""
        return pd.Series(self._array(column, CompactColumn(values), None), name=column.name, copy=False)

    def empty(self, columns: Sequence[Column]) -> Any:
        """Return a frame with the columns' dtypes and no rows."""
        return self.frame(
            columns,
            CompactFrame(0, tuple(CompactColumn(pl.Series(column.name, dtype=column.dtype)) for column in columns)),
        )

    def frame(self, columns: Sequence[Column], rows: CompactFrame) -> Any:
        """Convert the rows of a task.

        Parameters
        ----------
        columns : sequence of Column
            Columns of the rows, including the index.
        rows : CompactFrame
            The rows.

        Returns
        -------
        pandas.DataFrame
            The same rows in the same order. The index column is the index only.
        """
        arrays = {c.name: self._array(c, part, rows.cells) for c, part in zip(columns, rows.columns, strict=True)}
        index = pd.RangeIndex(rows.height)
        if self.index is not None:
            index = pd.Index(arrays.pop(self.index), name=self.index, copy=False)
        return pd.DataFrame(arrays, index=index, columns=list(arrays), copy=False)

    def _array(self, column: Column, part: CompactColumn, cells: CellMask | None) -> Any:
        if (dtype := self._category_dtype(column)) is not None:
            # expanding the codes instead of the values takes a few bytes per row
            codes = np.asarray(pd.Categorical(_numpy_array(column, part.values), dtype=dtype).codes)
            return pd.Categorical.from_codes(
                lay_out(CompactColumn(pl.Series(codes), part.dims), cells).values.to_numpy(), dtype=dtype
            )
        values = lay_out(part, cells).values
        if self.backend == "pyarrow" and column.name != self.index:  # pandas makes no DatetimeIndex of Arrow times
            return pd.arrays.ArrowExtensionArray(values.to_arrow())
        return _numpy_array(column, values)

    def _category_dtype(self, column: Column) -> Any:
        for known, length in self.categories:
            if known.name == column.name:
                return _category_dtype(self.spec, known, length)
        return None


def pandas_schema(
    table: Table, dtype_backend: DtypeBackend, index: str | None, categories: Collection[str]
) -> PandasSchema:
    """Return the pandas dtypes of a table; raise QueryError if an argument is not valid for it."""
    if dtype_backend not in get_args(DtypeBackend):
        raise QueryError(f"`dtype_backend` is {dtype_backend!r}, which is not supported. Pass 'numpy' or 'pyarrow'.")
    known = []
    for name in [categories] if isinstance(categories, str) else categories:
        column = find_column(name, table)
        if not is_1d_coordinate(column):
            raise QueryError(
                f"Column {name!r} of {table.spec.label} cannot be a categorical, because only reading it would tell "
                "its categories. Name coordinates of one dimension in `categories`."
            )
        if name != index:
            known.append((column, table.sizes[column.dims[0]]))
    return PandasSchema(table.spec, dtype_backend, index, tuple(known))


def find_column(name: str, table: Table) -> Column:
    """Return a column by name, ``child/variable`` for a variable of a child group; raise UnknownColumnError."""
    if name not in table.columns:
        raise unknown_column(name, table.columns, table.spec.label)
    return table.columns[name]


def is_1d_coordinate(column: Column) -> bool:
    """Whether a column is a coordinate of one dimension."""
    return column.role != "data" and len(column.dims) == 1


CATEGORY_CACHE_BYTES = 2**26
"""Upper bound of the categories that a process caches."""

_category_cache: ByteLRU[tuple[str, cf.Decoding | None, str], Any] = ByteLRU(
    lambda: CATEGORY_CACHE_BYTES,
    lambda _, dtype: int(dtype.categories.memory_usage(deep=True)),
    lambda key: key[0],
)
when_gone(_category_cache.forget_soon)


def _category_dtype(spec: StoreSpec, column: Column, length: int) -> Any:
    """Return the categorical dtype of a coordinate: its distinct labels in ascending order."""
    key = spec.key(), column.decoding, column.name
    return _category_cache.get_all([key], lambda _: [_read_category_dtype(spec, column, length)])[0]


def _read_category_dtype(spec: StoreSpec, column: Column, length: int) -> Any:
    values = whole_column(spec, column, length).drop_nulls().unique().sort()
    if values.dtype.is_float():
        values = values.drop_nans()  # like null, NaN is not a category
    return pd.CategoricalDtype(pd.Index(_numpy_array(column, values)), ordered=True)


def _numpy_array(column: Column, values: pl.Series) -> Any:
    """Return values with a NumPy dtype, except strings and Booleans that may be null."""
    dtype = column.dtype
    if dtype == pl.String:
        return pd.array(values.to_arrow(), dtype=pd.StringDtype("pyarrow"))
    if _is_nullable(column):
        if dtype == pl.Boolean:
            return pd.arrays.BooleanArray(
                values.fill_null(value=False).to_numpy(writable=True), values.is_null().to_numpy(writable=True)
            )
        if dtype.is_integer():
            narrow = dtype in (pl.Int8, pl.UInt8, pl.Int16, pl.UInt16)
            values = values.cast(pl.Float32 if narrow else pl.Float64)
    return values.to_numpy(writable=True)  # the receiver of a frame may change it in place


def _is_nullable(column: Column) -> bool:
    """Whether values may be masked. The attributes tell, so that all partitions have one dtype."""
    return column.decoding is not None and bool(column.decoding.fills or column.decoding.nan_is_fill)


def concat_frames(frames: Sequence[Any], schema: PandasSchema) -> Any:
    """Concatenate frames; without an index, number all rows from 0."""
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=schema.index is None)


def pandas_frame(
    plan: ReadPlan, client: "Client | None", dtype_backend: DtypeBackend, categories: Collection[str]
) -> pd.DataFrame:
    """Run a plan and return its rows; `ScanPlan.to_pandas` documents the parameters."""
    schema, left = pandas_schema(plan.table, dtype_backend, None, categories), plan.limit
    pieces = []
    with closing(iter_compact_frames(plan.tasks(), client, ramp_up=left is not None)) as source:  # type: ignore[type-var]
        for rows in source:
            pieces.append(schema.frame(plan.columns, rows))
            if left is not None and (left := left - rows.height) <= 0:
                break
    frame = concat_frames(pieces, schema) if pieces else schema.empty(plan.columns)
    return frame if plan.limit is None else frame.head(plan.limit)
