"""How a group of arrays is understood as one table: its dimensions, its columns and their types."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, cached_property
from math import prod
from typing import Any, NamedTuple

import numpy.typing as npt
import polars as pl

from rainbear_dask import cf
from rainbear_dask.exceptions import ChunkReadError, RainbearError, StoreFormatError, UnknownColumnError
from rainbear_dask.groups import (
    Role,
    check_lengths,
    coordinate_of,
    group_of,
    groups_from,
    roles_of,
    sizes_of,
    with_texts,
    with_times_of_bounds,
)
from rainbear_dask.limits import FILTERED_VALUES
from rainbear_dask.metadata import ArrayMeta, StoreMeta, StoreSpec
from rainbear_dask.order import block_lengths
from rainbear_dask.redaction import reason

Reader = Callable[[ArrayMeta], npt.NDArray[Any]]


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
    left_out: Mapping[str, str]

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


def build_table(
    meta: StoreMeta,
    *,
    read: Reader,
    sample: Reader,
    variables: Collection[str] | None = None,
    decode: bool = True,
    mask: bool = True,
) -> Table:
    """Understand a group, and the groups below it, as a table.

    Parameters
    ----------
    meta : StoreMeta
        What the store holds.
    read : callable
        Gives all stored values of an array. Asked only for coordinates that several groups have under one name.
    sample : callable
        Gives stored values of an array, at least those of its first and last chunk. Asked only where the type of the
        column depends on them, as the unit of times does, and where they are less than `MAX_SAMPLE_BYTES`.
    variables : collection of str, optional
        The data variables (or any other arrays) whose dimensions make the rows. By default all data variables.
    decode, mask : bool
        Whether CF attributes are decoded and letters joined to texts, and masked values made null.

    Returns
    -------
    Table
        Rows are the product of the dimensions of the variables; without a variable, of all coordinates.

    Raises
    ------
    UnknownColumnError
        If ``variables`` names an array that the group does not have.
    StoreFormatError
        If it names one that cannot be read, or if arrays disagree on a dimension.
    """
    meta = _prepared(meta, decode=decode)
    found = _Columns(meta, roles_of(meta), read, sample, decode=decode, mask=mask)
    asked = [path for path, role in found.roles.items() if role == "data"] if variables is None else variables
    names = set(asked)
    data = [path for path, array in meta.arrays.items() if path in names and found.usable(array)]
    _check_named(variables or (), meta, found.left_out)
    return found.table(meta, data)


def build_tables(
    meta: StoreMeta, *, read: Reader, sample: Reader, decode: bool = True, mask: bool = True
) -> tuple[dict[TableKey, Table], dict[str, str]]:
    """Understand a group, and the groups below it, as one table for each grid.

    Parameters
    ----------
    meta, read, sample, decode, mask
        As in `build_table`.

    Returns
    -------
    dict of TableKey to Table
        In store order. Variables of one group that have the same dimensions, in whatever order, and the same lengths
        share a table; the key is that of the first.
    dict of str to str
        Arrays that no table has, each with the reason.
    """
    meta = _prepared(meta, decode=decode)
    found = _Columns(meta, roles_of(meta), read, sample, decode=decode, mask=mask)
    grids: dict[tuple[str, frozenset[tuple[str, int]]], list[ArrayMeta]] = {}
    for path, array in meta.arrays.items():
        if found.roles[path] == "data" and found.usable(array):
            grids.setdefault((group_of(path), frozenset(array.sizes.items())), []).append(array)
    tables: dict[TableKey, Table] = {}
    for (group, _), arrays in grids.items():
        key = TableKey(group, arrays[0].dims, arrays[0].shape)
        try:
            tables[key] = found.table(_fitting(meta, found.roles, key), [array.path for array in arrays])
        except StoreFormatError as err:
            found.left_out |= dict.fromkeys((array.path for array in arrays), str(err))
    return tables, found.left_out


def _fitting(meta: StoreMeta, roles: Mapping[str, Role], key: TableKey) -> StoreMeta:
    """Leave out the coordinates of a table's group that have other lengths than the table."""
    sizes = dict(zip(key.dims, key.shape, strict=True))
    misfits = {
        path
        for path, array in meta.arrays.items()
        if group_of(path) == key.group and roles[path] in _COORDINATES
        if any(sizes.get(dim, length) != length for dim, length in array.sizes.items())
    }
    return replace(meta, arrays={path: array for path, array in meta.arrays.items() if path not in misfits})


def _prepared(meta: StoreMeta, *, decode: bool) -> StoreMeta:
    meta = with_times_of_bounds(meta)
    if decode:
        return with_texts(meta)
    return replace(meta, above={dim: [a for a in arrays if not a.letters] for dim, arrays in meta.above.items()})


_COORDINATES = ("dimension", "auxiliary")

MAX_SAMPLE_BYTES = 2**30
"""Decoded bytes of the chunks that are read, at most, to choose the type of a column; else attributes alone choose it."""

MAX_COMPARED = 2**26
"""Labels of a coordinate that are compared with those of another group, at most: longer coordinates count as different."""


class _Columns:
    """Arrays as columns; each is looked at once, when first asked for, however many tables it is in."""

    def __init__(
        self, meta: StoreMeta, roles: Mapping[str, Role], read: Reader, sample: Reader, *, decode: bool, mask: bool
    ) -> None:
        self.roles = roles
        self.left_out = dict(meta.left_out)
        self._read, self._sample, self._decode, self._mask = read, sample, decode, mask
        self._decodings: dict[str, cf.Decoding] = {}

    def usable(self, array: ArrayMeta) -> bool:
        """Whether an array can be a column; else it is left out, with the reason."""
        path, coordinate = array.path, self.roles.get(array.path, "dimension") in _COORDINATES
        if path not in self._decodings and path not in self.left_out:
            if coordinate and len(array.dims) == 1 and prod(array.shape) > FILTERED_VALUES:
                self.left_out[path] = (
                    f"it declares {prod(array.shape):,} labels; a coordinate has {FILTERED_VALUES:,} at most"
                )
                return False
            try:
                self._decodings[path] = cf.decoding_of(
                    array, coordinate=coordinate, decode=self._decode, mask=self._mask, sample=self._sampled(array)
                )
            except StoreFormatError as err:
                self.left_out[path] = str(err)
            except RainbearError:  # of a chunk: it is the store's fault, or the network's
                raise
            except Exception as err:  # noqa: BLE001  whatever an attribute makes of NumPy, the others are usable
                self.left_out[path] = f"its attributes are not understood ({reason(err)})"
        return path in self._decodings

    def _sampled(self, array: ArrayMeta) -> npt.NDArray[Any] | None:
        """Read what the type of a column depends on, if anything; None where attributes alone have to choose it."""
        if not cf.needs_sample(array, decode=self._decode) or _sample_bytes(array) > MAX_SAMPLE_BYTES:
            return None
        try:
            return self._sample(array)
        except ChunkReadError:  # those who read the column are told; the others need it not
            return None

    def table(self, meta: StoreMeta, data: Sequence[str]) -> Table:
        """Make the table of some usable arrays."""
        label, roles = meta.spec.label, self.roles
        coordinates = [path for path in meta.arrays if roles[path] in _COORDINATES]
        spanning = [meta.arrays[path] for path in data] or [
            meta.arrays[path] for path in coordinates if self.usable(meta.arrays[path])
        ]
        sizes = sizes_of(spanning, label)
        columns: dict[str, Column] = {}
        for dim in sizes:
            array = self._coordinate(dim, spanning, meta)
            if array:
                check_lengths(array, sizes, spanning, label)
            columns[dim] = Column(dim, "dimension", (dim,), array, self._decodings[array.path] if array else None)
        groups, named = {group_of(array.path) for array in spanning}, set(data)
        beside = [path for path in coordinates if roles[path] == "auxiliary" and "/" not in path and path not in named]
        for path in [*beside, *sorted(data, key=lambda path: "/" in path)]:
            array = meta.arrays[path]
            if array.dims == (array.name,) or not set(array.dims) <= sizes.keys():
                continue  # a dimension's coordinate has its column; what has other dimensions has no row
            if path not in named and "" not in groups and not self._belongs(array, columns, sizes, meta):
                continue  # it is of another grid than that of the variables
            if path in sizes:
                self.left_out[path] = f"it has the name of a dimension and the dimensions {array.dims}"
            elif holder := next((above for above in groups_from(group_of(path)) if above in columns), None):
                self.left_out[path] = f"its group has the name of the column {holder!r}"
            elif self.usable(array):
                check_lengths(array, sizes, spanning, label)
                role: Role = "data" if path in named else "auxiliary"
                columns[path] = Column(path, role, array.dims, array, self._decodings[path])
        return Table(meta.spec, sizes, columns, dict(self.left_out))

    def _coordinate(self, dim: str, spanning: Iterable[ArrayMeta], meta: StoreMeta) -> ArrayMeta | None:
        """Find the one coordinate that all variables with a dimension have."""
        found = [coordinate_of(dim, array, meta, self.roles) for array in spanning if dim in array.dims]
        holders = {array.path: array for array in found if array is not None and self.usable(array)}
        candidates = sorted(holders.values(), key=lambda array: array.path.count("/"))
        if not all(self._same_labels(candidates[0], other) for other in candidates[1:]):
            raise StoreFormatError(
                f"dimension {dim!r} has different coordinates in {meta.spec.label}: {', '.join(holders)}. Scan one group at "
                "a time with group=, name variables of one group in variables=, or call tables()."
            )
        return candidates[0] if candidates else None

    def _same_labels(self, a: ArrayMeta, b: ArrayMeta) -> bool:
        if a.shape != b.shape or prod(a.shape) > MAX_COMPARED:
            return False
        labels = [self._decodings[array.path].decode(self._read(array)) for array in (a, b)]
        try:
            return bool(labels[0].eq_missing(labels[1]).all())
        except pl.exceptions.PolarsError:  # a number is no text
            return False

    def _belongs(
        self, array: ArrayMeta, columns: Mapping[str, Column], sizes: Mapping[str, int], meta: StoreMeta
    ) -> bool:
        """Whether a coordinate of another group than the variables' lies on the grid of the variables."""
        for dim, length in array.sizes.items():
            labels, held = coordinate_of(dim, array, meta, self.roles), columns[dim].array
            if length != sizes[dim] or (labels is not None and (held is None or labels.path != held.path)):
                return False
        return True


def _sample_bytes(array: ArrayMeta) -> int:
    """Decoded bytes of the chunks that a sample is taken from, at most."""
    return array.chunk_bytes * min(array.num_chunks, 16)


def _check_named(variables: Collection[str], meta: StoreMeta, left_out: Mapping[str, str]) -> None:
    for name in variables:
        if name in left_out:
            raise StoreFormatError(
                f"array {name!r} of {meta.spec.label} cannot be read: {left_out[name]}. Leave it out of variables=."
            )
        if name not in meta.arrays:
            raise unknown_column(name, meta.arrays, meta.spec.label)


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
