"""The layout of a target: which arrays exist, which are made, and the documents that make them visible."""

import json
from collections.abc import Mapping, Sequence
from dataclasses import dataclass, field, replace
from typing import Any, Literal

import polars as pl
import zarr
from zarr.abc.store import Store
from zarr.storage import MemoryStore

from rainbear_dask.coding.cf import decoding_of
from rainbear_dask.coding.encode import can_encode
from rainbear_dask.exceptions import QueryError, RowsError
from rainbear_dask.metadata.keys import join_path
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.metadata.parse import store_meta
from rainbear_dask.metadata.zarr_arrays import silence
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.storage.zarr_internals import default_buffer_prototype, sync
from rainbear_dask.table.columns import whole_column
from rainbear_dask.table.model import Column, Table
from rainbear_dask.writing.encodings import NewColumn, array_options, check_encoding
from rainbear_dask.writing.slots import Slot

Mode = Literal["w-", "w", "a", "r+"]


@dataclass(frozen=True)
class Layout:
    """The arrays that a call writes, and the documents that it writes last.

    Parameters
    ----------
    slots : mapping of str to Slot
        Arrays by column.
    documents : mapping of str to bytes
        Documents by key below the group, the group's own last.
    consolidate : bool
        Whether the group has consolidated metadata that must be renewed.
    """

    slots: Mapping[str, Slot]
    documents: Mapping[str, bytes] = field(default_factory=dict)
    consolidate: bool = False


def new_layout(
    columns: Sequence[NewColumn],
    sizes: Mapping[str, int],
    group: str,
    *,
    attributes: Mapping[str, Any],
    grid_mappings: Mapping[str, Mapping[str, Any]],
    auxiliary: Sequence[str],
    encoding: Mapping[str, Mapping[str, Any]],
    chunks: Mapping[str, int],
    shards: Mapping[str, int],
) -> Layout:
    """Return the layout of a new group.

    Parameters
    ----------
    columns : sequence of NewColumn
        Its arrays.
    sizes : mapping of str to int
        Length of each dimension.
    group : str
        Path of the group in the store.
    attributes : mapping
        Attributes of the group.
    grid_mappings : mapping of str to mapping
        Attributes of grid mappings, which become scalar arrays.
    auxiliary : sequence of str
        Columns that are coordinates without being dimensions.
    encoding, chunks, shards
        As in `rainbear_dask.write_zarr`.

    Raises
    ------
    RowsError, QueryError
        If a column has no array, or an option does not fit.
    """
    check_encoding(encoding, [column.name for column in columns])
    for what, lengths in (("chunks", chunks), ("shards", shards)):
        for dim in lengths:
            if dim not in sizes:
                raise QueryError(
                    f"The option `{what}` names {dim!r}, which is not among the dimensions {', '.join(sizes)}."
                )
    store, documents = MemoryStore(), dict[str, bytes]()
    options = {c.name: array_options(c, sizes, encoding.get(c.name, {}), chunks, shards) for c in columns}
    own = {c.name: c.dims for c in columns}
    for name, dims in own.items():
        beside = [a for a in auxiliary if a != name and set(own[a]) <= set(dims)]
        if beside and name not in auxiliary and dims != (name,):
            options[name]["attributes"]["coordinates"] = " ".join(beside)
    scattered = [
        a for a in auxiliary if not any(a in o["attributes"].get("coordinates", "").split() for o in options.values())
    ]
    with silence():
        root = zarr.create_group(
            store, attributes={**attributes, **({"coordinates": " ".join(scattered)} if scattered else {})}
        )
        for name, given in options.items():
            try:
                root.create_array(name, **given)
            except (ValueError, TypeError, KeyError) as err:
                raise QueryError(f"zarr cannot make the array of {name!r}: {err}. Change its encoding.") from err
        for name, described in grid_mappings.items():
            root.create_array(name, shape=(), dtype="int32", fill_value=0, attributes=dict(described))
        zarr.consolidate_metadata(store)
    for key in (*(f"{name}/zarr.json" for name in (*own, *grid_mappings)), "zarr.json"):
        found = sync(store.get(key, default_buffer_prototype()))
        documents[key] = b"" if found is None else found.to_bytes()
    return Layout(_slots(documents, {c.name: c for c in columns}, group, auxiliary), documents)


def _slots(
    documents: Mapping[str, bytes], columns: Mapping[str, NewColumn], group: str, auxiliary: Sequence[str]
) -> dict[str, Slot]:
    nodes: dict[str, Any] = {name: json.loads(documents[f"{name}/zarr.json"]) for name in columns}
    arrays = store_meta(StoreSpec("the new group", None, ""), nodes).arrays
    return {
        name: slot_of(
            arrays[name], columns[name].dtype, group, coordinate=columns[name].dims == (name,) or name in auxiliary
        )
        for name in columns
    }


def slot_of(array: ArrayMeta, dtype: pl.DataType, group: str, *, coordinate: bool) -> Slot:
    """Return the slot of an array for a column.

    Raises
    ------
    RowsError
        If this package cannot encode values of the array.
    """
    is_wide = coordinate or "dtype" in array.attributes
    decoding = decoding_of(array, coordinate=is_wide)
    if not can_encode(decoding):
        raise RowsError(
            f"The array {array.path!r} has a form that cannot be written: {array.dtype} with the attributes "
            f"{dict(array.attributes)!r:.200}. Write to a new target, or drop the column."
        )
    slot = Slot(
        name=array.name,
        path=join_path(group, array.path),
        dims=array.dims,
        objects=array.shards or array.chunks,
        document=array.document,
        decoding=decoding,
    )
    return slot.for_column(dtype)


def labels_of(table: Table, dim: str) -> pl.Series:
    """Return the labels of a dimension of an existing target."""
    column = table.columns.get(dim) or Column(dim, "dimension", (dim,))
    return whole_column(table.spec, column, table.sizes[dim]).alias(dim)


def with_length(slot: Slot, dim: str, length: int) -> Slot:
    """Return a slot whose array is as long along a dimension as it will be after the call."""
    document = json.loads(slot.document)
    document["shape"][slot.dims.index(dim)] = length
    return replace(slot, document=json.dumps(document))


async def longer_document(store: Store, path: str, axis: int, length: int) -> tuple[str, bytes]:
    """Return key and content of the document of an array that has another length."""
    for name in ("zarr.json", ".zarray"):
        found = await store.get(f"{path}/{name}", default_buffer_prototype())
        if found is not None:
            document = json.loads(found.to_bytes())
            document["shape"][axis] = length
            return f"{path}/{name}", json.dumps(document).encode()
    raise QueryError(f"The document of {path} is gone. Somebody else changes the target.")
