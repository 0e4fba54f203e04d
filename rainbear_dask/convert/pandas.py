"""Rows as pandas has them: types, categories, missing values."""

from collections.abc import Collection, Sequence
from contextlib import closing
from dataclasses import dataclass
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import pandas as pd
import polars as pl

from rainbear_dask.coding import cf
from rainbear_dask.exceptions import QueryError
from rainbear_dask.execution.run import iter_parts
from rainbear_dask.execution.wire import CompactColumn, CompactFrame, lay_out
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.resources.cache import ByteLRU, when_gone
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.columns import whole_column
from rainbear_dask.table.model import Column, Table, unknown_column
from rainbear_dask.table.tidy import CellMask

if TYPE_CHECKING:
    from distributed import Client

Backend = Literal["numpy", "pyarrow"]


@dataclass(frozen=True, slots=True)
class Form:
    """How columns become pandas'.

    Parameters
    ----------
    spec : StoreSpec
        Where the coordinates are whose values are categories.
    backend : {"numpy", "pyarrow"}
        Which types. NumPy's have NaN for null in numbers, so that integers that may be null are floats.
    index : str or None
        Column that is the index; None for the number of the row in the frame.
    categories : tuple of (Column, int)
        Coordinates of one dimension that become categoricals, with their lengths.
    """

    spec: StoreSpec
    backend: Backend = "numpy"
    index: str | None = None
    categories: tuple[tuple[Column, int], ...] = ()

    def series(self, column: Column, values: pl.Series) -> Any:
        """Values of a column as a pandas Series of the column's type, whatever values they are."""
        return pd.Series(self._array(column, CompactColumn(values), None), name=column.name, copy=False)

    def empty(self, columns: Sequence[Column]) -> Any:
        """A frame without rows, of the columns' types."""
        return self.frame(
            columns,
            CompactFrame(0, tuple(CompactColumn(pl.Series(column.name, dtype=column.dtype)) for column in columns)),
        )

    def frame(self, columns: Sequence[Column], rows: CompactFrame) -> Any:
        """Put rows together.

        Parameters
        ----------
        columns : sequence of Column
            What they have, among it the index.
        rows : Parts
            The rows, taken apart.

        Returns
        -------
        pandas.DataFrame
            The same rows in the same order; the index is no column.
        """
        arrays = {c.name: self._array(c, part, rows.cells) for c, part in zip(columns, rows.columns, strict=True)}
        index = pd.RangeIndex(rows.height)
        if self.index is not None:
            index = pd.Index(arrays.pop(self.index), name=self.index, copy=False)
        return pd.DataFrame(arrays, index=index, columns=list(arrays), copy=False)

    def _array(self, column: Column, part: CompactColumn, cells: CellMask | None) -> Any:
        if (dtype := self._categories(column)) is not None:
            # codes are laid out, not values: few bytes for each row
            codes = np.asarray(pd.Categorical(_numpy_array(column, part.values), dtype=dtype).codes)
            return pd.Categorical.from_codes(
                lay_out(CompactColumn(pl.Series(codes), part.dims), cells).values.to_numpy(), dtype=dtype
            )
        values = lay_out(part, cells).values
        if self.backend == "pyarrow" and column.name != self.index:  # of Arrow's times pandas makes no DatetimeIndex
            return pd.arrays.ArrowExtensionArray(values.to_arrow())
        return _numpy_array(column, values)

    def _categories(self, column: Column) -> Any:
        for known, length in self.categories:
            if known.name == column.name:
                return _categories(self.spec, known, length)
        return None


def form_of(table: Table, backend: Backend, index: str | None, categories: Collection[str]) -> Form:
    """How a table's columns become pandas', as a user wants them."""
    if backend not in ("numpy", "pyarrow"):
        raise QueryError(f"dtype_backend is {backend!r}. It is 'numpy' or 'pyarrow'.")
    known = []
    for name in [categories] if isinstance(categories, str) else categories:
        column = column_of(name, table)
        if not on_one_dimension(column):
            raise QueryError(
                f"column {name!r} of {table.spec.label} cannot be a categorical: its values are known only when they are "
                "read. Name coordinates of one dimension in categories=."
            )
        if name != index:
            known.append((column, table.sizes[column.dims[0]]))
    return Form(table.spec, backend, index, tuple(known))


def column_of(name: str, table: Table) -> Column:
    """A column of the table by its name, a variable of a child group as ``child/variable``."""
    if name not in table.columns:
        raise unknown_column(name, table.columns, table.spec.label)
    return table.columns[name]


def on_one_dimension(column: Column) -> bool:
    """Whether it is a coordinate of one dimension."""
    return column.role != "data" and len(column.dims) == 1


_CATEGORY_BYTES = 2**26

_kept_categories: ByteLRU[tuple[str, cf.Decoding | None, str], Any] = ByteLRU(
    lambda: _CATEGORY_BYTES,
    lambda _, dtype: int(dtype.categories.memory_usage(deep=True)),
    lambda key: key[0],
)
when_gone(_kept_categories.forget_soon)


def _categories(spec: StoreSpec, column: Column, length: int) -> Any:
    """The values of a coordinate in ascending order, once each."""
    key = spec.key(), column.decoding, column.name
    return _kept_categories.get_all([key], lambda _: [_found_categories(spec, column, length)])[0]


def _found_categories(spec: StoreSpec, column: Column, length: int) -> Any:
    values = whole_column(spec, column, length).drop_nulls().unique().sort()
    if values.dtype.is_float():
        values = values.drop_nans()  # as null, it is no category
    return pd.CategoricalDtype(pd.Index(_numpy_array(column, values)), ordered=True)


def _numpy_array(column: Column, values: pl.Series) -> Any:
    """Values as pandas has them without Arrow, but for text and for Booleans that may be null."""
    dtype = column.dtype
    if dtype == pl.String:
        return pd.array(values.to_arrow(), dtype=pd.StringDtype("pyarrow"))
    if _may_be_null(column):
        if dtype == pl.Boolean:
            return pd.arrays.BooleanArray(_own(values.fill_null(value=False)), _own(values.is_null()))
        if dtype.is_integer():
            narrow = dtype in (pl.Int8, pl.UInt8, pl.Int16, pl.UInt16)
            values = values.cast(pl.Float32 if narrow else pl.Float64)
    return values.to_numpy(writable=True)  # who is given a frame may change it


def _own(values: pl.Series) -> npt.NDArray[np.bool_]:
    return values.to_numpy(writable=True)


def _may_be_null(column: Column) -> bool:
    """Whether a number may be masked: from its attributes, so that all partitions have one type."""
    return column.decoding is not None and bool(column.decoding.fills or column.decoding.nan_is_fill)


def joined(frames: Sequence[Any], form: Form) -> Any:
    """Frames one after the other; without an index, their rows are numbered on."""
    return frames[0] if len(frames) == 1 else pd.concat(frames, ignore_index=form.index is None)


def pandas_frame(
    plan: ReadPlan, client: "Client | None", dtype_backend: Backend, categories: Collection[str]
) -> pd.DataFrame:
    """The rows of a plan in pandas; parameters as in `plans.ScanPlan.to_pandas`."""
    form, left = form_of(plan.table, dtype_backend, None, categories), plan.limit
    pieces = []
    with closing(iter_parts(plan.tasks(), client, ramp_up=left is not None)) as source:  # type: ignore[type-var]  # a generator
        for rows in source:
            pieces.append(form.frame(plan.columns, rows))
            if left is not None and (left := left - rows.height) <= 0:
                break
    frame = joined(pieces, form) if pieces else form.empty(plan.columns)
    return frame if plan.limit is None else frame.head(plan.limit)
