"""From a group's metadata to its table, or to its tables: roles, decodings, columns."""

from collections.abc import Callable, Collection, Iterable, Mapping, Sequence
from dataclasses import replace
from math import prod
from typing import Any

import numpy.typing as npt
import polars as pl

from rainbear_dask.coding import cf
from rainbear_dask.exceptions import ChunkReadError, RainbearError, StoreFormatError
from rainbear_dask.metadata.groups import (
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
from rainbear_dask.metadata.model import ArrayMeta, StoreMeta
from rainbear_dask.redaction import reason
from rainbear_dask.resources.limits import FILTERED_VALUES
from rainbear_dask.table.model import Column, Table, TableKey, unknown_column

Reader = Callable[[ArrayMeta], npt.NDArray[Any]]


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
    _check_named(variables or (), meta, found.skipped)
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
            found.skipped |= dict.fromkeys((array.path for array in arrays), str(err))
    return tables, found.skipped


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
        self.skipped = dict(meta.skipped)
        self._read, self._sample, self._decode, self._mask = read, sample, decode, mask
        self._decodings: dict[str, cf.Decoding] = {}

    def usable(self, array: ArrayMeta) -> bool:
        """Whether an array can be a column; else it is left out, with the reason."""
        path, coordinate = array.path, self.roles.get(array.path, "dimension") in _COORDINATES
        if path not in self._decodings and path not in self.skipped:
            if coordinate and len(array.dims) == 1 and prod(array.shape) > FILTERED_VALUES:
                self.skipped[path] = (
                    f"it declares {prod(array.shape):,} labels; a coordinate has {FILTERED_VALUES:,} at most"
                )
                return False
            try:
                self._decodings[path] = cf.decoding_of(
                    array, coordinate=coordinate, decode=self._decode, mask=self._mask, sample=self._sampled(array)
                )
            except StoreFormatError as err:
                self.skipped[path] = str(err)
            except RainbearError:  # of a chunk: it is the store's fault, or the network's
                raise
            except Exception as err:  # noqa: BLE001  whatever an attribute makes of NumPy, the others are usable
                self.skipped[path] = f"its attributes are not understood ({reason(err)})"
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
                self.skipped[path] = f"it has the name of a dimension and the dimensions {array.dims}"
            elif holder := next((above for above in groups_from(group_of(path)) if above in columns), None):
                self.skipped[path] = f"its group has the name of the column {holder!r}"
            elif self.usable(array):
                check_lengths(array, sizes, spanning, label)
                role: Role = "data" if path in named else "auxiliary"
                columns[path] = Column(path, role, array.dims, array, self._decodings[path])
        return Table(meta.spec, sizes, columns, dict(self.skipped))

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


def _check_named(variables: Collection[str], meta: StoreMeta, skipped: Mapping[str, str]) -> None:
    for name in variables:
        if name in skipped:
            raise StoreFormatError(
                f"array {name!r} of {meta.spec.label} cannot be read: {skipped[name]}. Leave it out of variables=."
            )
        if name not in meta.arrays:
            raise unknown_column(name, meta.arrays, meta.spec.label)
