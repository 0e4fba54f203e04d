"""Relations between the arrays of a group: roles, coordinates in scope, lengths, and texts stored letter by letter."""

from collections.abc import Collection, Iterable, Iterator, Mapping
from dataclasses import replace
from math import prod
from typing import Any, Literal

import numpy as np

from rainbear_dask.exceptions import StoreFormatError
from rainbear_dask.metadata.model import MAX_ITEM_BYTES, ArrayMeta, StoreMeta
from rainbear_dask.resources.limits import MAX_DIMENSIONS

MAX_ROWS = 2**63 - 1
"""Rows of a table, as many as 64-bit row numbers can count."""

Role = Literal["dimension", "auxiliary", "data", "support"]


def group_of(path: str) -> str:
    """Return the path of the group that holds an array."""
    return path.rpartition("/")[0]


def roles_of(meta: StoreMeta) -> dict[str, Role]:
    """Return the role of each array by path."""
    auxiliary: set[str] = set()
    support: set[str] = set()
    holders = [(group_of(path), array.attributes) for path, array in meta.arrays.items()]
    for group, attributes in [*holders, *meta.groups.items()]:
        auxiliary |= {_below(group, name) for name in _names(attributes.get("coordinates"))}
        support |= {_below(group, name) for key in ("bounds", "grid_mapping") for name in _names(attributes.get(key))}
    roles: dict[str, Role] = {}
    for path, array in meta.arrays.items():
        if array.dims == (array.name,):
            roles[path] = "dimension"
        elif path in support or "grid_mapping_name" in array.attributes:
            roles[path] = "support"
        else:
            roles[path] = "auxiliary" if path in auxiliary else "data"
    return roles


def grid_mappings(meta: StoreMeta, arrays: Iterable[ArrayMeta]) -> dict[str, Mapping[str, Any]]:
    """Return the attributes of the CF grid mappings that some arrays name, by path."""
    named = [_below(group_of(a.path), name) for a in arrays for name in _names(a.attributes.get("grid_mapping"))]
    return {path: meta.arrays[path].attributes for path in dict.fromkeys(named) if path in meta.arrays}


def with_times_of_bounds(meta: StoreMeta) -> StoreMeta:
    """Give CF bounds the unit and calendar of their time coordinate, unless they have their own."""
    described = dict(meta.arrays)
    for path, array in meta.arrays.items():
        if " since " in str(array.attributes.get("units")):
            time = {key: array.attributes[key] for key in ("units", "calendar") if key in array.attributes}
            for name in _names(array.attributes.get("bounds")):
                where = _below(group_of(path), name)
                if where in meta.arrays:
                    bounds = meta.arrays[where]
                    described[where] = replace(bounds, attributes=time | dict(bounds.attributes))
    return replace(meta, arrays=described)


def with_texts(meta: StoreMeta) -> StoreMeta:
    """Turn arrays of single letters into arrays of texts, by xarray's rule.

    The last dimension of an S1 array holds the letters under two conditions. In the array's group, only arrays of
    bytes have that dimension, each as its last one, and no array has its name.

    Returns
    -------
    StoreMeta
        Such an array has its other dimensions, and a dtype as long as its texts. ``ArrayMeta.letters`` is the array as
        stored. Each group decides by its own arrays.
    """
    holders: dict[tuple[str, str], list[ArrayMeta]] = {}
    for path, array in meta.arrays.items():
        for dim in array.dims:
            holders.setdefault((group_of(path), dim), []).append(array)

    def holds_letters(group: str, dim: str) -> bool:
        if _below(group, dim) in meta.arrays or _below(group, dim) in meta.skipped:
            return False
        return all(array.dtype.kind == "S" and array.dims[-1] == dim for array in holders[group, dim])

    arrays, skipped = dict(meta.arrays), dict(meta.skipped)
    for path, array in meta.arrays.items():
        if array.dtype != "S1" or not array.dims or array.letters or not holds_letters(group_of(path), array.dims[-1]):
            continue
        if array.shape[-1] > MAX_ITEM_BYTES:
            del arrays[path]
            skipped[path] = f"its texts have {array.shape[-1]:,} letters each, more than {MAX_ITEM_BYTES:,}"
        else:
            arrays[path] = _joined(array)
    return replace(meta, arrays=arrays, skipped=skipped)


def _joined(array: ArrayMeta) -> ArrayMeta:
    return replace(
        array,
        dims=array.dims[:-1],
        shape=array.shape[:-1],
        chunks=array.chunks[:-1],
        shards=array.shards[:-1] if array.shards else None,
        dtype=np.dtype(f"S{max(array.shape[-1], 1)}"),
        letters=array,
    )


def coordinate_of(dim: str, array: ArrayMeta, meta: StoreMeta, roles: Mapping[str, Role]) -> ArrayMeta | None:
    """Find the coordinate of one of an array's dimensions.

    Parameters
    ----------
    dim : str
        The dimension.
    array : ArrayMeta
        An array with that dimension.
    meta : StoreMeta
        Metadata that holds the array.
    roles : mapping of str to Role
        Role of each array of ``meta``.

    Returns
    -------
    ArrayMeta or None
        The coordinate of the array's own group, of any length. Without it, that of the nearest group above it, if its
        length fits. None if there is none, or if the nearest cannot be read.
    """
    length, own = array.shape[array.dims.index(dim)], group_of(array.path)
    for group in groups_from(own):
        path = _below(group, dim)
        if path in meta.skipped:
            return None
        found = meta.arrays.get(path) if roles.get(path) == "dimension" else None
        if found is not None and (group == own or found.shape == (length,)):
            return found
    return next((found for found in meta.above.get(dim, ()) if found.shape == (length,)), None)


def groups_from(group: str) -> Iterator[str]:
    """Yield a group and the groups above it, nearest first; the last is the root."""
    while group:
        yield group
        group = group_of(group)
    yield ""


def unlabelled(meta: StoreMeta) -> list[str]:
    """Return the dimensions without a coordinate in the opened group or below it."""
    roles = roles_of(meta)
    pairs = [(dim, array) for array in meta.arrays.values() for dim in array.dims]
    return list(dict.fromkeys(dim for dim, array in pairs if coordinate_of(dim, array, meta, roles) is None))


def sizes_of(arrays: Collection[ArrayMeta], where: str) -> dict[str, int]:
    """Return lengths by dimension. Arrays with most dimensions come first, so that rows follow their chunks."""
    sizes: dict[str, int] = {}
    for array in sorted(arrays, key=lambda a: -len(a.dims)):
        for dim, length in zip(array.dims, array.shape, strict=True):
            sizes.setdefault(dim, length)
        check_lengths(array, sizes, arrays, where)
    if len(sizes) > MAX_DIMENSIONS or prod(sizes.values()) > MAX_ROWS:
        excess = f"{len(sizes):,} dimensions" if len(sizes) > MAX_DIMENSIONS else f"{prod(sizes.values()):.3g} rows"
        raise StoreFormatError(
            f"The table of {where} would have {excess}; it can have {MAX_DIMENSIONS} dimensions and {MAX_ROWS:,} rows. "
            "Name variables that belong together in `variables=`, or call tables()."
        )
    return sizes


def check_lengths(array: ArrayMeta, sizes: Mapping[str, int], others: Iterable[ArrayMeta], where: str) -> None:
    """Check that an array has the lengths of its table."""
    for dim, length in zip(array.dims, array.shape, strict=True):
        if sizes[dim] != length:
            shown = {a.path: a.shape[a.dims.index(dim)] for a in (*others, array) if dim in a.dims}
            raise StoreFormatError(
                f"Dimension {dim!r} has more than one length in {where}: "
                f"{', '.join(f'{n:,} in {path}' for path, n in shown.items())}. "
                "Name variables that belong together in `variables=`, scan one group with `group=`, or call tables()."
            )


def _below(group: str, name: str) -> str:
    return f"{group}/{name}" if group else name


def _names(attribute: Any) -> list[str]:
    """Return the arrays that a CF attribute names: all its words, or those before a colon if there are colons."""
    words = attribute.split() if isinstance(attribute, str) else []
    return [word[:-1] for word in words if word.endswith(":")] or words
