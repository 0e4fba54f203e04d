"""From the metadata of a group to its table, or to its tables: roles, then decodings, then columns."""

from collections.abc import Collection, Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from math import prod

import polars as pl

from rainbear_dask.exceptions import StoreFormatError
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
from rainbear_dask.table.decodings import COORDINATES, Decodings, ReadArray
from rainbear_dask.table.model import Column, Table, TableKey, unknown_column
from rainbear_dask.typing import TimeUnit

MAX_COMPARED = 2**26
"""Labels, at most, that are compared between coordinates of two groups. Longer coordinates count as different."""


def build_table(
    meta: StoreMeta,
    *,
    read: ReadArray,
    sample: ReadArray,
    variables: Collection[str] | None = None,
    decode: bool = True,
    mask: bool = True,
    time_unit: TimeUnit = "ns",
) -> Table:
    """Build the table of a group and the groups below it.

    Parameters
    ----------
    meta : StoreMeta
        Metadata of the group.
    read : callable
        Returns all stored values of an array. Called only for coordinates that several groups have under one name.
    sample : callable
        Returns stored values of an array, its first and last chunk at least. Called only if the type of the column
        depends on them, for example the unit of times.
    variables : collection of str, optional
        Data variables (or other arrays) whose dimensions span the rows. By default all data variables.
    decode : bool
        Whether to decode CF attributes and to join letters to texts.
    mask : bool
        Whether masked values become null.
    time_unit : {"ns", "us", "ms"}
        Unit of times and durations, as in `rainbear_dask.coding.time_units.in_time_unit`.

    Returns
    -------
    Table
        Its rows are the product of the dimensions of the variables; without a variable, of all coordinates.

    Raises
    ------
    UnknownColumnError
        If ``variables`` names an array that the group does not have.
    StoreFormatError
        If ``variables`` names an array that cannot be read, or if arrays disagree on a dimension.
    """
    group = _group(meta, read, sample, decode=decode, mask=mask, time_unit=time_unit)
    names = {path for path, role in group.roles.items() if role == "data"} if variables is None else set(variables)
    data = [path for path, array in group.meta.arrays.items() if path in names and group.decodings.has(array)]
    _check_named(variables or (), group.meta, group.decodings.skipped)
    return group.table(data)


def build_tables(
    meta: StoreMeta,
    *,
    read: ReadArray,
    sample: ReadArray,
    decode: bool = True,
    mask: bool = True,
    time_unit: TimeUnit = "ns",
) -> tuple[dict[TableKey, Table], dict[str, str]]:
    """Build one table for each grid of a group and the groups below it.

    Parameters
    ----------
    meta, read, sample, decode, mask, time_unit
        As in `build_table`.

    Returns
    -------
    dict of TableKey to Table
        In store order. Variables of one group that have the same dimensions, in any order, and the same lengths share
        a table; the key is that of the first.
    dict of str to str
        Arrays that no table has, by path, each with the reason.
    """
    group = _group(meta, read, sample, decode=decode, mask=mask, time_unit=time_unit)
    skipped = group.decodings.skipped
    grids: dict[tuple[str, frozenset[tuple[str, int]]], list[ArrayMeta]] = {}
    for path, array in group.meta.arrays.items():
        if group.roles[path] == "data" and group.decodings.has(array):
            grids.setdefault((group_of(path), frozenset(array.sizes.items())), []).append(array)
    tables: dict[TableKey, Table] = {}
    for (holder, _), arrays in grids.items():
        key = TableKey(holder, arrays[0].dims, arrays[0].shape)
        try:
            tables[key] = _without_misfits(group, key).table([array.path for array in arrays])
        except StoreFormatError as err:
            skipped |= dict.fromkeys((array.path for array in arrays), str(err))
    return tables, skipped


def _group(
    meta: StoreMeta, read: ReadArray, sample: ReadArray, *, decode: bool, mask: bool, time_unit: TimeUnit
) -> "_Group":
    meta = with_times_of_bounds(meta)
    if decode:
        meta = with_texts(meta)
    else:
        above = {dim: [array for array in arrays if not array.letters] for dim, arrays in meta.above.items()}
        meta = replace(meta, above=above)
    roles = roles_of(meta)
    decodings = Decodings(meta, roles, sample, decode=decode, mask=mask, time_unit=time_unit)
    return _Group(meta, roles, decodings, read)


def _without_misfits(group: "_Group", key: TableKey) -> "_Group":
    """Return the group without coordinates whose lengths differ from the table's."""
    sizes, arrays = dict(zip(key.dims, key.shape, strict=True)), group.meta.arrays
    misfits = {
        path
        for path, array in arrays.items()
        if group_of(path) == key.group and group.roles[path] in COORDINATES
        if any(sizes.get(dim, length) != length for dim, length in array.sizes.items())
    }
    kept = {path: array for path, array in arrays.items() if path not in misfits}
    return replace(group, meta=replace(group.meta, arrays=kept))


@dataclass(frozen=True)
class _Group:
    """A group whose arrays have roles and decodings, ready to make tables."""

    meta: StoreMeta
    roles: Mapping[str, Role]
    decodings: Decodings
    read: ReadArray

    def table(self, data: Sequence[str]) -> Table:
        """Make the table of some usable arrays, given by their paths."""
        arrays = self.meta.arrays
        coordinates = [arrays[path] for path in arrays if self.roles[path] in COORDINATES]
        spanning = [arrays[path] for path in data] or [array for array in coordinates if self.decodings.has(array)]
        sizes = sizes_of(spanning, self.meta.spec.label)
        columns = self._dimension_columns(sizes, spanning)
        groups, named = {group_of(array.path) for array in spanning}, set(data)
        for array in coordinates:
            is_auxiliary = self.roles[array.path] == "auxiliary" and "/" not in array.path and array.path not in named
            if is_auxiliary and _has_rows(array, sizes) and ("" in groups or self._is_of_grid(array, columns, sizes)):
                self._add(array, "auxiliary", columns, sizes, spanning)
        for path in sorted(data, key=lambda path: "/" in path):
            if _has_rows(arrays[path], sizes):
                self._add(arrays[path], "data", columns, sizes, spanning)
        support = {path: array for path, array in arrays.items() if self.roles[path] == "support"}
        attributes = self.meta.groups.get("", {})
        return Table(self.meta.spec, sizes, columns, dict(self.decodings.skipped), support, attributes)

    def _dimension_columns(self, sizes: Mapping[str, int], spanning: Sequence[ArrayMeta]) -> dict[str, Column]:
        """Return a column for each dimension: its coordinate, or positions."""
        columns = {}
        for dim in sizes:
            array = self._coordinate(dim, spanning)
            if array:
                check_lengths(array, sizes, spanning, self.meta.spec.label)
            columns[dim] = Column(dim, "dimension", (dim,), array, self.decodings[array.path] if array else None)
        return columns

    def _add(
        self,
        array: ArrayMeta,
        role: Role,
        columns: dict[str, Column],
        sizes: Mapping[str, int],
        spanning: Sequence[ArrayMeta],
    ) -> None:
        """Add the column of an array, unless another column has its name or it has no decoding."""
        path, skipped = array.path, self.decodings.skipped
        if path in sizes:
            skipped[path] = f"it has the name of a dimension and the dimensions {array.dims}"
        elif holder := next((above for above in groups_from(group_of(path)) if above in columns), None):
            skipped[path] = f"its group has the name of the column {holder!r}"
        elif self.decodings.has(array):
            check_lengths(array, sizes, spanning, self.meta.spec.label)
            columns[path] = Column(path, role, array.dims, array, self.decodings[path])

    def _coordinate(self, dim: str, spanning: Iterable[ArrayMeta]) -> ArrayMeta | None:
        """Find the one coordinate that all variables with a dimension share."""
        found = [coordinate_of(dim, array, self.meta, self.roles) for array in spanning if dim in array.dims]
        holders = {array.path: array for array in found if array is not None and self.decodings.has(array)}
        candidates = sorted(holders.values(), key=lambda array: array.path.count("/"))
        if not all(self._same_labels(candidates[0], other) for other in candidates[1:]):
            raise StoreFormatError(
                f"Dimension {dim!r} has different coordinates in {self.meta.spec.label}: {', '.join(holders)}. Scan one "
                "group with `group=`, name variables of one group in `variables=`, or call `tables()`."
            )
        return candidates[0] if candidates else None

    def _same_labels(self, a: ArrayMeta, b: ArrayMeta) -> bool:
        if a.shape != b.shape or prod(a.shape) > MAX_COMPARED:
            return False
        labels = [self.decodings[array.path].decode(self.read(array)) for array in (a, b)]
        try:
            return bool(labels[0].eq_missing(labels[1]).all())
        except pl.exceptions.PolarsError:  # a number never equals a text
            return False

    def _is_of_grid(self, array: ArrayMeta, columns: Mapping[str, Column], sizes: Mapping[str, int]) -> bool:
        """Whether a coordinate lies on the grid of the variables, although their groups differ."""
        for dim, length in array.sizes.items():
            labels, held = coordinate_of(dim, array, self.meta, self.roles), columns[dim].array
            if length != sizes[dim] or (labels is not None and (held is None or labels.path != held.path)):
                return False
        return True


def _has_rows(array: ArrayMeta, sizes: Mapping[str, int]) -> bool:
    """Whether an array is a column of its own: not a dimension's coordinate, and of the table's dimensions alone."""
    return array.dims != (array.name,) and set(array.dims) <= sizes.keys()


def _check_named(variables: Collection[str], meta: StoreMeta, skipped: Mapping[str, str]) -> None:
    for name in variables:
        if name in skipped:
            raise StoreFormatError(
                f"Cannot read array {name!r} of {meta.spec.label}: {skipped[name].rstrip('.')}. Leave it out of "
                "`variables=`."
            )
        if name not in meta.arrays:
            raise unknown_column(name, meta.arrays, meta.spec.label)
