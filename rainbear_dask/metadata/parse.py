"""Documents to `ArrayMeta` and `StoreMeta`. A document that is not understood removes one array."""

import json
from collections.abc import Mapping
from dataclasses import replace
from typing import Any

import numpy as np

from rainbear_dask.codecs.bounded import check_codecs
from rainbear_dask.metadata.checks import (
    TOO_DEEP,
    DocumentError,
    check_dims,
    check_document,
    check_itemsize,
    check_name,
    explained,
    is_deep,
)
from rainbear_dask.metadata.codec_names import codec_names, with_zarr_names
from rainbear_dask.metadata.documents import is_group
from rainbear_dask.metadata.groups import with_texts
from rainbear_dask.metadata.keys import Document, Nodes
from rainbear_dask.metadata.model import ArrayMeta, StoreMeta
from rainbear_dask.metadata.zarr_arrays import array_metadata
from rainbear_dask.redaction import reason
from rainbear_dask.resources.cache import remembered
from rainbear_dask.storage.spec import StoreSpec


def store_meta(spec: StoreSpec, nodes: Nodes) -> StoreMeta:
    """Parse the documents of a group, and of all groups and arrays below it, from `Documents.below`.

    Parameters
    ----------
    spec : StoreSpec
        Recipe of the group.
    nodes : dict of str to (dict or str)
        Documents by path.

    Returns
    -------
    StoreMeta
        Metadata in the order of ``nodes``. An array that is not understood is in ``skipped``, with the reason.
    """
    arrays: dict[str, ArrayMeta] = {}
    groups: dict[str, Mapping[str, Any]] = {"": {}}
    skipped: dict[str, str] = {}
    for path, document in nodes.items():
        above = [path[:i] for i, letter in enumerate(path) if letter == "/"]
        if path and not all(part.strip(".") for part in path.split("/")):
            skipped[path] = "its path has an empty part, or one of dots alone"
            continue
        if isinstance(document, str):
            skipped[path] = f"its metadata is unusable: {document}"
            continue
        if any(isinstance(nodes.get(other), dict) and not is_group(nodes[other]) for other in above):
            skipped[path] = "it lies inside an array"
            continue
        for other in above:
            groups.setdefault(other, {})
        if not path or is_group(document):
            attributes = document.get("attributes")
            groups[path] = attributes if isinstance(attributes, dict) and not is_deep(attributes) else {}
            continue
        try:
            arrays[path] = _array_meta(path, document)
        except DocumentError as err:  # the other arrays stay readable
            skipped[path] = str(err)
        except Exception as err:  # noqa: BLE001  no check foresees everything
            skipped[path] = f"its metadata is not understood ({reason(err)})"
    return StoreMeta(spec=spec, arrays=arrays, groups=groups, skipped=skipped)


def coordinates_above(spec: StoreSpec, nodes: Nodes) -> dict[str, tuple[ArrayMeta, ...]]:
    """Parse the documents from `Documents.above`, and return the coordinates by dimension, nearest first."""
    found: dict[str, list[ArrayMeta]] = {}
    for path, document in nodes.items():
        level, name = path.count("../"), path.rpartition("/")[2]
        meta = with_texts(store_meta(spec, {name: document}))  # other arrays with the letters' dimension are unknown
        if name in meta.arrays and meta.arrays[name].dims == (name,):
            found.setdefault(name, []).append(_at("../" * level + name, meta.arrays[name]))
    return {name: tuple(sorted(arrays, key=lambda a: a.path.count("/"))) for name, arrays in found.items()}


def _at(path: str, array: ArrayMeta) -> ArrayMeta:
    return replace(array, path=path, letters=array.letters and replace(array.letters, path=path))


def _array_meta(path: str, document: Document) -> ArrayMeta:
    check_name(path, "its path")
    attributes = document.get("attributes") or {}
    if not isinstance(attributes, dict):
        raise DocumentError("its attributes are not a JSON object")
    if is_deep(attributes):
        raise DocumentError(TOO_DEEP)
    try:
        essential = json.dumps(document | {"attributes": {}})  # reading needs no attributes
    except RecursionError:
        raise DocumentError(TOO_DEEP) from None
    text, dtype = _checked(essential, tuple(sorted(codec_names.items())))
    metadata = array_metadata(text)
    return ArrayMeta(
        path=path,
        dims=_dims(document, attributes, len(metadata.shape)),
        shape=metadata.shape,
        chunks=tuple(max(size, 1) for size in metadata.chunks),
        shards=metadata.shards,
        dtype=dtype,
        fill_value=metadata.fill_value,
        attributes=attributes,
        document=text,
        zarr_format=metadata.zarr_format,
    )


@remembered(2**22, lambda arguments, _: 512 + 4 * len(arguments[0]))
def _checked(text: str, codec_names: tuple[tuple[str, str], ...]) -> tuple[str, np.dtype[Any]]:
    """Check a document, and return it in a form for zarr, with the type of its values; cached for later openings."""
    document = json.loads(text)
    check_document(document)
    if codec_names and document.get("codecs"):
        document["codecs"] = with_zarr_names(document["codecs"], dict(codec_names))
        text = json.dumps(document)
    try:
        metadata = array_metadata(text)
        dtype = metadata.dtype.to_native_dtype()
    except Exception as err:  # zarr and codecs may raise anything
        raise DocumentError(explained(document, err)) from err
    check_codecs(metadata)
    check_itemsize(dtype.itemsize)
    if filters := document.get("filters"):
        # netCDF-C declares elements of 0 bytes for its shuffle, with which numcodecs shuffles wrongly
        unsaid, said = {"id": "shuffle", "elementsize": 0}, {"id": "shuffle", "elementsize": dtype.itemsize}
        text = json.dumps(document | {"filters": [said if entry == unsaid else entry for entry in filters]})
    return text, dtype if dtype.isnative else dtype.newbyteorder("=")


def _dims(document: Document, attributes: Document, ndim: int) -> tuple[str, ...]:
    """Return the names of the dimensions: Zarr's own, xarray's or NCZarr's, or numbers."""
    names: Any = document.get("dimension_names") if document["zarr_format"] == 3 else None
    if names is None:
        names = attributes.get("_ARRAY_DIMENSIONS")
    if names is None:
        netcdf = document.get("_NCZARR_ARRAY") or attributes.get("_nczarr_array")
        netcdf = netcdf if isinstance(netcdf, dict) else {}
        names = netcdf.get("dimrefs", netcdf.get("dimension_references"))
        if isinstance(names, list):
            names = [name.rpartition("/")[2] if isinstance(name, str) else name for name in names]
    return check_dims([None] * ndim if names is None else names, ndim)
