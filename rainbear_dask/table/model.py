"""`Table` and `Column`: dimensions, columns and their types, as plain data."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field
from difflib import get_close_matches
from functools import cache, cached_property
from math import prod
from typing import Any, NamedTuple

import polars as pl

from rainbear_dask.coding import cf
from rainbear_dask.exceptions import UnknownColumnError
from rainbear_dask.metadata.groups import Role
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.order import block_lengths


@dataclass(frozen=True, slots=True)
class Column:
    """One array as a column, or the positions along a dimension that has no array.

    Parameters
    ----------
    name : str
        Name in the table; ``child/variable`` for a variable of a child group.
    role : {"dimension", "auxiliary", "data"}
        A dimension's coordinate, another coordinate, or a data variable. (CF bounds and grid mappings are "support".
        They become columns, as data, only if ``variables`` names them.)
    dims : tuple of str
        Dimensions of the array. Along the other dimensions of the table, the column repeats.
    array : ArrayMeta or None
        The array of the stored values; None for positions 0, 1, ...
    decoding : Decoding or None
        The decoding of the stored values; None for positions.
    """

    name: str
    role: Role
    dims: tuple[str, ...]
    array: ArrayMeta | None = None
    decoding: cf.Decoding | None = None

    @property
    def dtype(self) -> pl.DataType:
        """Polars type of the column."""
        return self.decoding.dtype if self.decoding else pl.Int64()

    @property
    def width(self) -> int:
        """Estimated bytes of one value in a frame."""
        return _width(self.dtype)


@cache
def _width(dtype: pl.DataType) -> int:
    return int(pl.Series(dtype=dtype).to_physical().to_numpy().dtype.itemsize)


@dataclass(frozen=True)
class Table:
    """The row set and the columns of one scan.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    sizes : mapping of str to int
        Length of each dimension. There is one row per cell of their product; the last dimension varies fastest.
    columns : mapping of str to Column
        Dimensions, then auxiliary coordinates, then data variables, then variables of child groups.
    skipped : mapping of str to str
        Arrays that have no column, by path, each with the reason.
    support : mapping of str to ArrayMeta
        Arrays that describe others, CF bounds and grid mappings, by path.
    attributes : mapping of str to any
        Attributes of the group.
    statistics : "auto", False or str
        Where to look for statistics of chunks: in the store and in the user's cache folder, nowhere, or in a folder.
    """

    spec: StoreSpec
    sizes: Mapping[str, int]
    columns: Mapping[str, Column]
    skipped: Mapping[str, str]
    support: Mapping[str, ArrayMeta] = field(default_factory=dict)
    attributes: Mapping[str, Any] = field(default_factory=dict)
    statistics: str | bool = "auto"

    @property
    def num_rows(self) -> int:
        """Number of rows of the whole table."""
        return prod(self.sizes.values()) if self.columns else 0

    @property
    def repeats(self) -> float:
        """Rows for each value of the largest data variable: 1 if it spans all dimensions."""
        spans = [prod(self.sizes[d] for d in c.dims) for c in self.columns.values() if c.role == "data"]
        return self.num_rows / max(spans, default=self.num_rows) if self.num_rows else 1.0

    @property
    def data_arrays(self) -> tuple[ArrayMeta, ...]:
        """Arrays of the data variables, in column order."""
        return tuple(column.array for column in self.columns.values() if column.role == "data" and column.array)

    @cached_property
    def blocks(self) -> dict[str, int]:
        """Lengths of the blocks that row order follows (see `order`); if they equal ``sizes``, row order is C order."""
        return block_lengths(self.sizes, self.data_arrays, sum(column.width for column in self.columns.values()))

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Name and type of each column as users see them: a child group is one Struct."""
        return _nested({name: column.dtype for name, column in self.columns.items()})

    @cached_property
    def blank(self) -> pl.LazyFrame:
        """A lazy table of this schema without rows, for asking Polars about the result of an expression."""
        return pl.LazyFrame(schema=self.schema)

    def leaves(self, names: Iterable[str] | None) -> tuple[Column, ...]:
        """Return the columns behind names that users see, in the order of the names; all for None.

        Raises
        ------
        UnknownColumnError
            If the table has no such column.
        """
        if names is None:
            return tuple(self.columns.values())
        found: dict[str, Column] = {}
        for name in names:
            below = {n: c for n, c in self.columns.items() if n == name or n.startswith(f"{name}/")}
            if not below:
                raise unknown_column(name, self.columns, self.spec.label)
            found |= below
        return tuple(found.values())


class TableKey(NamedTuple):
    """The key of one table in the result of `tables`.

    Parameters
    ----------
    group : str
        Path of the group that holds the variables, relative to the opened group; "" is that group itself.
    dims : tuple of str
        Dimensions of the first of its variables, in array order.
    shape : tuple of int
        Length of each.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> for key in rd.tables("sst.zarr"):
    ...     key.dims, key.shape[1:]
    (('time', 'latitude', 'longitude'), (17, 12))
    """

    group: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]


def unknown_column(name: str, available: Iterable[str], where: str) -> UnknownColumnError:
    """Return the error for an unknown name, with the most similar known names."""
    names = list(available)
    near = get_close_matches(name, names, n=3)
    hint = f"Did you mean {', '.join(map(repr, near))}?" if near else f"Its columns are {', '.join(names[:30])}."
    return UnknownColumnError(f"Column {name!r} is not in {where}. {hint}")


def _nested(leaves: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    schema: dict[str, Any] = {}
    for name, dtype in leaves.items():
        head, _, rest = name.partition("/")
        if rest:
            schema.setdefault(head, {})[rest] = dtype
        else:
            schema[head] = dtype
    return {name: pl.Struct(_nested(kind)) if isinstance(kind, dict) else kind for name, kind in schema.items()}
