"""How a group of arrays is understood as one table: its dimensions, its columns and their types."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass
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
        A dimension's coordinate, another coordinate, or a data variable. (CF bounds and grid mappings are "support":
        columns only where they are asked for, and then data.)
    dims : tuple of str
        The array's dimensions; along the table's others it repeats.
    array : ArrayMeta or None
        Where the values are stored; None for positions 0, 1, ...
    decoding : Decoding or None
        How they are decoded; None for positions.
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
        """Bytes of one value in a frame, about."""
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
        Where the arrays are.
    sizes : mapping of str to int
        Length of each dimension; one row per cell of their product, the last dimension varying fastest.
    columns : mapping of str to Column
        Dimensions, then auxiliary coordinates, then data variables, then those of child groups.
    left_out : mapping of str to str
        Arrays that have no column, each with the reason.
    """

    spec: StoreSpec
    sizes: Mapping[str, int]
    columns: Mapping[str, Column]
    skipped: Mapping[str, str]

    @property
    def num_rows(self) -> int:
        """Rows of the whole table."""
        return prod(self.sizes.values()) if self.columns else 0

    @property
    def repeats(self) -> float:
        """How often the variable that repeats least stands in the table: 1 where one spans all dimensions."""
        spans = [prod(self.sizes[d] for d in c.dims) for c in self.columns.values() if c.role == "data"]
        return self.num_rows / max(spans, default=self.num_rows) if self.num_rows else 1.0

    @cached_property
    def blocks(self) -> dict[str, int]:
        """Lengths of the blocks that the order of rows follows (`order`); where they are ``sizes``, it is C order."""
        data = [column.array for column in self.columns.values() if column.role == "data" and column.array]
        return block_lengths(self.sizes, data, sum(column.width for column in self.columns.values()))

    @cached_property
    def schema(self) -> dict[str, pl.DataType]:
        """Name and type of each column as the user sees them: a child group is one Struct."""
        return _nested({name: column.dtype for name, column in self.columns.items()})

    @cached_property
    def blank(self) -> pl.LazyFrame:
        """A table without rows of this schema, to ask Polars what an expression would give."""
        return pl.LazyFrame(schema=self.schema)

    def leaves(self, names: Iterable[str] | None) -> tuple[Column, ...]:
        """Columns behind the names that a user sees, in the order asked for; all for None.

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
    """Names one table of a store, as `tables` gives them.

    Parameters
    ----------
    group : str
        Path of the group that holds the variables, below the group that is opened; "" is that group itself.
    dims : tuple of str
        Dimensions of the first of its variables, in array order.
    shape : tuple of int
        Length of each.
    """

    group: str
    dims: tuple[str, ...]
    shape: tuple[int, ...]


def unknown_column(name: str, available: Iterable[str], where: str) -> UnknownColumnError:
    """Error for a name that is not there, with the nearest that are."""
    names = list(available)
    near = get_close_matches(name, names, n=3)
    hint = f"Did you mean {', '.join(map(repr, near))}?" if near else f"It has {', '.join(names[:30])}."
    return UnknownColumnError(f"column {name!r} is not in {where}. {hint}")


def _nested(leaves: Mapping[str, pl.DataType]) -> dict[str, pl.DataType]:
    schema: dict[str, Any] = {}
    for name, dtype in leaves.items():
        head, _, rest = name.partition("/")
        if rest:
            schema.setdefault(head, {})[rest] = dtype
        else:
            schema[head] = dtype
    return {name: pl.Struct(_nested(kind)) if isinstance(kind, dict) else kind for name, kind in schema.items()}
