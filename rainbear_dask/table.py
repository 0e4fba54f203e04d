"""How a group of arrays is understood as one table: its dimensions, its columns and their types."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from difflib import get_close_matches
from functools import cache, cached_property
from math import prod
from typing import Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask import cf
from rainbear_dask.exceptions import StoreFormatError, UnknownColumnError
from rainbear_dask.metadata import ArrayMeta, StoreMeta, StoreSpec
from rainbear_dask.order import block_lengths

Role = Literal["dimension", "auxiliary", "data", "support"]
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
        column depends on them, as the unit of times does.
    variables : collection of str, optional
        The data variables (or any other arrays) whose dimensions make the rows. By default all data variables.
    decode, mask : bool
        Whether CF attributes are decoded, and masked values made null.

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
    meta = replace(meta, arrays=_with_times_of_bounds(meta.arrays))
    roles = _roles(meta)
    left_out = dict(meta.left_out)
    decodings: dict[str, cf.Decoding] = {}

    def usable(path: str) -> bool:
        """Whether an array can be a column; else it is left out, with the reason."""
        if path not in decodings and path not in left_out:
            array = meta.arrays[path]
            try:
                values = sample(array) if decode and cf.needs_sample(array) else None
                coordinate = roles[path] in ("dimension", "auxiliary")
                decodings[path] = cf.decoding_of(array, coordinate=coordinate, decode=decode, mask=mask, sample=values)
            except StoreFormatError as reason:
                left_out[path] = str(reason)
        return path in decodings

    asked = [path for path, role in roles.items() if role == "data"] if variables is None else variables
    data = [path for path in meta.arrays if path in asked and usable(path)]
    _check_named(variables or (), meta, left_out)
    coordinates = [path for path, role in roles.items() if role in ("dimension", "auxiliary")]
    spanning = [meta.arrays[path] for path in data or filter(usable, coordinates)]
    sizes = _sizes(spanning, meta.spec.label)

    columns: dict[str, Column] = {}
    for dim in sizes:
        named = [p for p in coordinates if roles[p] == "dimension" and meta.arrays[p].name == dim]
        array = _coordinate(dim, [meta.arrays[p] for p in filter(usable, named)], read, meta.spec.label)
        if array:
            _check_lengths(array, sizes, spanning, meta.spec.label)
        columns[dim] = Column(dim, "dimension", (dim,), array, decodings[array.path] if array else None)
    beside = [p for p in coordinates if roles[p] == "auxiliary" and "/" not in p and p not in data]
    for path in [*beside, *sorted(data, key=lambda p: "/" in p)]:
        array = meta.arrays[path]
        if array.dims == (array.name,) or not set(array.dims) <= sizes.keys():
            continue  # a dimension's coordinate has its column; what has other dimensions has no row
        if path in sizes:
            left_out[path] = f"it has the name of a dimension and the dimensions {array.dims}"
        elif usable(path):
            _check_lengths(array, sizes, spanning, meta.spec.label)
            role: Role = "data" if path in data else "auxiliary"
            columns[path] = Column(path, role, array.dims, array, decodings[path])
    return Table(meta.spec, sizes, columns, left_out)


def variables_by_dims(meta: StoreMeta) -> dict[tuple[str, ...], list[str]]:
    """Paths of the data variables of a group, by the set of their dimensions.

    Parameters
    ----------
    meta : StoreMeta
        What the store holds.

    Returns
    -------
    dict
        In store order; each key is the dimensions of the first variable that has that set.
    """
    kinds: dict[frozenset[str], list[str]] = {}
    for path, role in _roles(meta).items():
        if role == "data":
            kinds.setdefault(frozenset(meta.arrays[path].dims), []).append(path)
    return {meta.arrays[paths[0]].dims: paths for paths in kinds.values()}


def _roles(meta: StoreMeta) -> dict[str, Role]:
    """Role of each array by path."""
    auxiliary: set[str] = set()
    support: set[str] = set()
    holders = [(path.rpartition("/")[0], array.attributes) for path, array in meta.arrays.items()]
    for group, attributes in [*holders, *meta.groups.items()]:
        prefix = f"{group}/" if group else ""
        auxiliary |= {prefix + name for name in _names(attributes.get("coordinates"))}
        support |= {prefix + name for key in ("bounds", "grid_mapping") for name in _names(attributes.get(key))}
    roles: dict[str, Role] = {}
    for path, array in meta.arrays.items():
        if array.dims == (array.name,):
            roles[path] = "dimension"
        elif path in support or "grid_mapping_name" in array.attributes:
            roles[path] = "support"
        else:
            roles[path] = "auxiliary" if path in auxiliary else "data"
    return roles


def _with_times_of_bounds(arrays: Mapping[str, ArrayMeta]) -> dict[str, ArrayMeta]:
    """Arrays by path, where CF bounds have unit and calendar of the times that they bound, unless they have their own."""
    described = dict(arrays)
    for path, array in arrays.items():
        if " since " in str(array.attributes.get("units")):
            time = {key: array.attributes[key] for key in ("units", "calendar") if key in array.attributes}
            group = path.rpartition("/")[0]
            for name in _names(array.attributes.get("bounds")):
                where = f"{group}/{name}" if group else name
                if where in arrays:
                    described[where] = replace(arrays[where], attributes=time | dict(arrays[where].attributes))
    return described


def _names(attribute: object) -> list[str]:
    """Arrays that a CF attribute names: all its words, or those before a colon where it has any."""
    words = attribute.split() if isinstance(attribute, str) else []
    return [word[:-1] for word in words if word.endswith(":")] or words


def _check_named(variables: Collection[str], meta: StoreMeta, left_out: Mapping[str, str]) -> None:
    for name in variables:
        if name in left_out:
            raise StoreFormatError(
                f"array {name!r} of {meta.spec.label} cannot be read: {left_out[name]}. Leave it out of variables=."
            )
        if name not in meta.arrays:
            raise unknown_column(name, meta.arrays, meta.spec.label)


def _coordinate(dim: str, holders: Sequence[ArrayMeta], read: Reader, where: str) -> ArrayMeta | None:
    """The array that holds a dimension's coordinate: the group's own, else that of the groups below it."""
    own = [array for array in holders if array.path == dim]
    candidates = own or holders
    for other in candidates[1:]:
        if other.shape != candidates[0].shape or not _same(read(candidates[0]), read(other)):
            raise StoreFormatError(
                f"dimension {dim!r} has different coordinates in {where}: {', '.join(a.path for a in candidates)}. "
                "Scan one group at a time with group=, or name variables of one group in variables=."
            )
    return candidates[0] if candidates else None


def _same(a: npt.NDArray[Any], b: npt.NDArray[Any]) -> bool:
    return bool(np.array_equal(a, b, equal_nan=a.dtype.kind == b.dtype.kind == "f"))


def _sizes(arrays: Collection[ArrayMeta], where: str) -> dict[str, int]:
    """Lengths by dimension, in the order of the arrays of most dimensions, so that rows follow their chunks."""
    sizes: dict[str, int] = {}
    for array in sorted(arrays, key=lambda a: -len(a.dims)):
        for dim, length in zip(array.dims, array.shape, strict=True):
            sizes.setdefault(dim, length)
        _check_lengths(array, sizes, arrays, where)
    return sizes


def _check_lengths(array: ArrayMeta, sizes: Mapping[str, int], others: Iterable[ArrayMeta], where: str) -> None:
    for dim, length in zip(array.dims, array.shape, strict=True):
        if sizes[dim] != length:
            shown = {a.path: a.shape[a.dims.index(dim)] for a in (*others, array) if dim in a.dims}
            raise StoreFormatError(
                f"dimension {dim!r} has more than one length in {where}: "
                f"{', '.join(f'{n:,} in {path}' for path, n in shown.items())}. "
                "Name variables that belong together in variables=, or scan one group with group=."
            )


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
