"""Checks of an array's metadata document, with reasons in our own words; zarr finds the rest."""

from collections.abc import Callable, Iterator, Mapping
from functools import partial
from typing import Any

import numcodecs
from zarr.registry import get_codec_class

from rainbear_dask.metadata.model import MAX_ITEM_BYTES
from rainbear_dask.metadata.zarr_arrays import get_data_type_from_json
from rainbear_dask.redaction import reason
from rainbear_dask.resources.limits import MAX_DIMENSIONS

MAX_NESTING = 64
"""Levels of nested lists and objects in a document, attributes included; libraries fail at deeper ones."""

MAX_LENGTH = 2**48
"""Length of a dimension; plans need some bytes for each few million positions."""

MAX_INTEGER = 2**63 - 1
TOO_DEEP = f"its metadata nests more than {MAX_NESTING} deep"


class DocumentError(ValueError):
    """A document describes no readable array. The message completes the sentence "It is left out: "."""


def is_deep(value: Any) -> bool:
    """Whether lists and objects nest more than `MAX_NESTING` deep."""
    level = [value]
    for _ in range(MAX_NESTING):
        below: list[Any] = []
        for outer in level:
            inner = outer.values() if isinstance(outer, dict) else outer if isinstance(outer, list) else ()
            below += [each for each in inner if isinstance(each, dict | list)]
        if not below:
            return False
        level = below
    return True


def check_name(name: str, what: str) -> None:
    """Raise DocumentError if a name is not valid Unicode, as columns and keys need it."""
    try:
        name.encode()
    except UnicodeEncodeError:
        raise DocumentError(f"{what} holds half a surrogate, which is no letter") from None


def check_document(document: Mapping[str, Any]) -> None:
    """Raise DocumentError if the shape, chunks or codecs of a document are invalid.

    Parameters
    ----------
    document : mapping
        Document of Zarr v2 or v3, from JSON, without attributes.
    """
    if is_deep(document):
        raise DocumentError(TOO_DEEP)
    if document.get("zarr_format") not in (2, 3):
        raise DocumentError(f"its zarr_format is {_shown(document.get('zarr_format'))}, not 2 or 3")
    shape = _lengths("shape", document.get("shape"))
    if max(shape, default=0) > MAX_LENGTH:
        raise DocumentError(f"its shape has a length above 2**{MAX_LENGTH.bit_length() - 1}: {_shown(shape)}")
    if len(shape) > MAX_DIMENSIONS:
        raise DocumentError(f"it has {len(shape):,} dimensions; NumPy supports at most {MAX_DIMENSIONS}")
    chunks = _chunk_shape(document)
    if len(chunks) != len(shape):
        raise DocumentError(f"its shape has {len(shape)} dimensions and its chunks have {len(chunks)}")
    if any(size == 0 < length for length, size in zip(shape, chunks, strict=True)):
        raise DocumentError(f"its chunks have no length: {_shown(chunks)}")  # some releases of zarr read 0 as 1
    if document["zarr_format"] == 3:
        _check_v3(document)
    else:
        _check_v2(document)


def _check_v3(document: Mapping[str, Any]) -> None:
    if document.get("node_type") != "array":
        raise DocumentError(f"its node_type is {_shown(document.get('node_type'))}, neither array nor group")
    codecs, outer = document.get("codecs"), _chunk_shape(document)
    if not isinstance(codecs, list) or not codecs:
        raise DocumentError(f"its codecs are not a list of codecs: {_shown(codecs)}")
    for codec in codecs:
        if isinstance(codec, dict) and codec.get("name") == "sharding_indexed":
            configuration = codec.get("configuration")
            inner = _lengths(
                "inner chunk shape", configuration.get("chunk_shape") if isinstance(configuration, dict) else None
            )
            if len(inner) != len(outer) or 0 in inner or any(a % b for a, b in zip(outer, inner, strict=True)):
                raise DocumentError(f"its shards, {_shown(outer)}, are no multiple of their chunks, {_shown(inner)}")
    if transformers := document.get("storage_transformers"):
        raise DocumentError(f"it has storage transformers, which zarr does not support: {_shown(transformers)}")
    for key, value in document.items():
        if key not in _FIELDS and not (isinstance(value, dict) and value.get("must_understand") is False):
            raise DocumentError(f"it has the field {_shown(key)}, which has to be understood and is not")
    encoding = document.get("chunk_key_encoding")
    name = encoding.get("name") if isinstance(encoding, dict) else encoding
    configuration = encoding.get("configuration") if isinstance(encoding, dict) else None
    separator = configuration.get("separator", "/") if isinstance(configuration, dict) else "/"
    if name not in ("default", "v2") or separator not in (".", "/"):
        raise DocumentError(f"its chunk key encoding is unknown: {_shown(encoding)}")


_FIELDS = {"zarr_format", "node_type", "attributes", "storage_transformers"}
_FIELDS |= {"shape", "data_type", "chunk_grid", "chunk_key_encoding", "codecs", "fill_value", "dimension_names"}


def _check_v2(document: Mapping[str, Any]) -> None:
    filters, compressor = document.get("filters"), document.get("compressor")
    if not isinstance(filters, list | None):
        raise DocumentError(f"its filters are not a list: {_shown(filters)}")
    codecs = [*(filters or ()), *([] if compressor is None else [compressor])]
    for codec in codecs:
        if not isinstance(codec, dict) or not isinstance(codec.get("id"), str):
            raise DocumentError(f"one of its codecs has no id: {_shown(codec)}")
        if codec["id"] == "pickle":
            raise DocumentError("its chunks are pickles, which can run any code")


def _chunk_shape(document: Mapping[str, Any]) -> list[int]:
    """Return the length of a chunk along each dimension of a regular grid."""
    if document["zarr_format"] == 2:
        chunks = document.get("chunks")
        if isinstance(chunks, list) and any(isinstance(size, list) for size in chunks):
            raise DocumentError("its chunks are of unequal lengths; only chunks of one shape can be read")
        return _lengths("chunk shape", chunks)
    grid = document.get("chunk_grid")
    name = grid.get("name") if isinstance(grid, dict) else grid
    if isinstance(name, str) and name != "regular":
        raise DocumentError(f"its chunk grid is {_shown(name)}; only chunks of one shape (a regular grid) can be read")
    configuration = grid.get("configuration") if isinstance(grid, dict) else None
    if name != "regular" or not isinstance(configuration, dict):
        raise DocumentError(f"its chunk grid is not one: {_shown(grid)}")
    chunks = configuration.get("chunk_shape")
    if isinstance(chunks, list) and any(isinstance(size, list) for size in chunks):
        raise DocumentError("its chunks are of unequal lengths; only chunks of one shape can be read")
    return _lengths("chunk shape", chunks)


def _lengths(what: str, value: Any) -> list[int]:
    if not isinstance(value, list) or not all(type(length) is int for length in value):
        raise DocumentError(f"its {what} is not a list of whole numbers: {_shown(value)}")
    if min(value, default=0) < 0:
        raise DocumentError(f"its {what} has a negative length: {_shown(value)}")
    if max(value, default=0) > MAX_INTEGER:
        raise DocumentError(f"its {what} has a length above 2**63 - 1")
    return value


def check_dims(names: Any, ndim: int) -> tuple[str, ...]:
    """Return the names of dimensions, with ``dim_<number>`` for those without one.

    Raises
    ------
    DocumentError
        If a name is invalid or repeated, or if there are not ``ndim`` of them.
    """
    if not isinstance(names, list | tuple) or not all(name is None or isinstance(name, str) for name in names):
        raise DocumentError(f"its dimension names are not a list of names: {_shown(names)}")
    if len(names) != ndim:
        raise DocumentError(f"it has {ndim} dimensions and {len(names)} names for them")
    dims = tuple(name or f"dim_{i}" for i, name in enumerate(names))
    if len(set(dims)) < ndim:
        raise DocumentError(f"a dimension is repeated: {_shown(dims)}")
    for dim in dims:
        check_name(dim, "the name of a dimension")
        if "/" in dim:
            raise DocumentError(
                f"the name of its dimension {_shown(dim)} has a slash, which stands for groups in columns"
            )
    return dims


def check_itemsize(itemsize: int) -> None:
    """Raise DocumentError if a single value is larger than any chunk should be."""
    if itemsize > MAX_ITEM_BYTES:
        raise DocumentError(f"one of its values takes {itemsize:,} bytes, more than {MAX_ITEM_BYTES:,}")


def explained(document: Mapping[str, Any], err: Exception) -> str:
    """Return the reason why zarr refuses a document that passed `check_document`."""
    if (codec := next(_unknown_codecs(document), None)) is not None:
        return f"its codec {_shown(codec)} is unknown here, or its settings are; the package that has it may be missing"
    zarr_format, fill = document["zarr_format"], document.get("fill_value")
    stored = named = document.get("data_type" if zarr_format == 3 else "dtype")
    if zarr_format == 2:
        named = {"name": stored, "object_codec_id": next((one["id"] for one in document.get("filters") or ()), None)}
    parsed = partial(get_data_type_from_json, named, zarr_format=zarr_format)
    if _fails(parsed):
        return f"its type {_shown(stored)} is unknown" + ("" if zarr_format == 3 else ", or it names no codec for it")
    if not (fill is None and zarr_format == 2) and _fails(
        lambda: parsed().from_json_scalar(fill, zarr_format=zarr_format)
    ):
        return f"its fill value {_shown(fill)} is none of its type"
    return f"zarr makes no array of its metadata ({reason(err)})"


def _unknown_codecs(document: Mapping[str, Any]) -> Iterator[Any]:
    """Yield unknown codecs, also inside of shards."""
    if document["zarr_format"] == 2:
        of_v2 = [*(document.get("filters") or ()), document.get("compressor")]
        yield from (codec for codec in of_v2 if codec is not None and _fails(partial(numcodecs.get_codec, codec)))
        return
    todo = list(document["codecs"])
    while todo:
        codec = todo.pop(0)
        name = codec.get("name") if isinstance(codec, dict) else codec
        if not isinstance(name, str) or _fails(partial(get_codec_class, name)):
            yield str(name)
        configuration = codec.get("configuration") if isinstance(codec, dict) else None
        for inner in configuration.values() if isinstance(configuration, dict) else ():
            todo += inner if isinstance(inner, list) and all(isinstance(one, dict) for one in inner) else []


def _fails(call: Callable[[], Any]) -> bool:
    """Whether a call of zarr or numcodecs raises."""
    try:
        call()
    except Exception:  # noqa: BLE001  values from JSON may cause any error
        return True
    return False


def _shown(value: Any) -> str:
    return f"{value!r:.80}"
