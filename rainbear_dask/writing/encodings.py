"""The arrays of columns: stored type, attributes, chunks and fill value, from column types, sources and the caller."""

import math
from base64 import b64encode
from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from difflib import get_close_matches
from struct import pack
from typing import Any

import numpy as np
import polars as pl

from rainbear_dask.coding.cf import Decoding
from rainbear_dask.coding.encode import can_encode
from rainbear_dask.exceptions import QueryError, RowsError, UnknownOptionError
from rainbear_dask.table.model import Column

CHUNK_BYTES = 4 * 2**20
"""Decoded bytes of a chunk, at most, unless the caller or the source decides."""

_CF = ("_FillValue", "missing_value", "scale_factor", "add_offset", "units", "calendar")
_KEYS = ("dtype", *_CF, "chunks", "shards", "compressors")
_PLAIN_CF = ("scale_factor", "add_offset", "calendar", "dtype", "valid_min", "valid_max", "valid_range")
_OF_OLD_FORM = {  # attributes that describe stored values, or name arrays that are not written
    *("_FillValue", "missing_value", "scale_factor", "add_offset", "calendar", "_Unsigned", "_Encoding", "dtype"),
    *("valid_min", "valid_max", "valid_range", "bounds", "coordinates", "_ARRAY_DIMENSIONS", "_nczarr_attrs"),
}


@dataclass(frozen=True)
class NewColumn:
    """A column for which an array is made.

    Parameters
    ----------
    name : str
        Name of the array.
    dims : tuple of str
        Its dimensions.
    dtype : DataType
        Type of its values.
    like : Column or None
        The column of the source that it continues.
    """

    name: str
    dims: tuple[str, ...]
    dtype: pl.DataType
    like: Column | None = None


def check_encoding(encoding: Mapping[str, Mapping[str, Any]], names: Sequence[str]) -> None:
    """Refuse encodings of columns that are not written, and unknown keys.

    Raises
    ------
    QueryError
        If there is no such column; `UnknownOptionError` for an unknown key.
    """
    for name, given in encoding.items():
        if name not in names:
            near = get_close_matches(name, names, n=1)
            hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(names)}."
            raise QueryError(f"The option `encoding` names {name!r}, and no such array is made. {hint}")
        for key in given:
            if key not in _KEYS:
                near = get_close_matches(key, _KEYS, n=1)
                hint = f"Did you mean {near[0]!r}?" if near else f"There are {', '.join(_KEYS)}."
                raise UnknownOptionError(f"The encoding of {name!r} has the unknown key {key!r}. {hint}")


def array_options(
    column: NewColumn,
    sizes: Mapping[str, int],
    given: Mapping[str, Any],
    chunks: Mapping[str, int],
    shards: Mapping[str, int],
) -> dict[str, Any]:
    """Return the options of ``zarr.create_array`` for a column.

    Parameters
    ----------
    column : NewColumn
        The column.
    sizes : mapping of str to int
        Length of each dimension.
    given : mapping
        The caller's encoding of it.
    chunks, shards : mapping of str to int
        The caller's lengths by dimension.

    Raises
    ------
    RowsError
        If no array holds the type.
    QueryError
        If lengths of chunks and shards do not fit, or a type or fill value is invalid.
    """
    dtype, attributes = _stored_form(column, given)
    shape = tuple(sizes[dim] for dim in column.dims)
    options = {
        "shape": shape,
        "dtype": str if dtype.kind == "T" else dtype,
        "fill_value": _zarr_fill(dtype, attributes),
        "attributes": _in_json(dtype, attributes),
        "dimension_names": column.dims,
    }
    options |= _grid(column, shape, dtype, given=given, chunks=chunks, shards=shards)
    return options | ({"compressors": given["compressors"]} if "compressors" in given else {})


def _stored_form(column: NewColumn, given: Mapping[str, Any]) -> tuple[np.dtype[Any], dict[str, Any]]:
    """Return the stored type, and attributes with plain fill values."""
    like = column.like
    source = dict(like.array.attributes) if like is not None and like.array is not None else {}
    kept = {name: value for name, value in source.items() if name not in _OF_OLD_FORM}
    if like is not None and like.decoding is not None:
        is_same = like.decoding.stored.kind not in "mM" and can_encode(like.decoding)
        is_same = is_same and like.decoding.dtype == column.dtype
        if is_same and not given.keys() & {"dtype", *_CF}:
            return _form_of_source(like.decoding, source, kept)
        if like.decoding.clock is not None:
            kept.pop("units", None)
    dtype, attributes = _default_form(column)
    if "dtype" in given:
        dtype = _given_dtype(column, given["dtype"])
    attributes |= {name: value for name, value in given.items() if name in _CF}
    if attributes.keys() & {"scale_factor", "add_offset"} and "dtype" not in given:
        dtype = np.dtype("float64")
    if not attributes.keys() & {"_FillValue", "missing_value"}:
        attributes |= _default_fill(column, dtype)
    return dtype, kept | {name: value for name, value in attributes.items() if value is not None}


def _form_of_source(
    decoding: Decoding, source: Mapping[str, Any], kept: Mapping[str, Any]
) -> tuple[np.dtype[Any], dict[str, Any]]:
    """Return the form of a source's array, with its fill values in attributes, as Zarr v3 has them."""
    form = {name: source[name] for name in _PLAIN_CF if name in source}
    fills = [*decoding.fills, *([math.nan] if decoding.nan_is_fill else [])]
    if fills:
        form["_FillValue"] = fills[0]
    if len(fills) > 1:
        form["missing_value"] = fills[1:] if len(fills) > 2 else fills[1]
    return np.dtype("T") if decoding.stored.kind in "OT" else decoding.stored, {**kept, **form}


def _given_dtype(column: NewColumn, given: Any) -> np.dtype[Any]:
    try:
        dtype: np.dtype[Any] = np.dtype("T" if given in (str, "str", "string") else given)
    except TypeError as err:
        raise QueryError(f"The encoding of {column.name!r} has the dtype {given!r}, unknown to NumPy.") from err
    if dtype.kind not in "biufTU" or (dtype.kind in "TU") != (column.dtype == pl.String):
        raise RowsError(f"The column {column.name!r} is {column.dtype}, which an array of {dtype} cannot hold.")
    return dtype


def _default_fill(column: NewColumn, dtype: np.dtype[Any]) -> dict[str, Any]:
    """Return a fill value where one costs no value: NaN, "not a time", and text that cannot occur."""
    decoding = None if column.like is None else column.like.decoding
    if decoding is not None and decoding.clock is not None and dtype.kind == "T":
        return {"_FillValue": ""}
    is_packed = decoding is not None and (decoding.scale_factor is not None or decoding.add_offset is not None)
    if decoding is not None and decoding.fills and decoding.clock is None and not is_packed and dtype.kind in "Tiu":
        return {"_FillValue": decoding.fills[0]}  # a value that the column does not have
    if decoding is None and column.dims == (column.name,):  # the labels of a dimension have no null
        return {}
    if dtype.kind == "f":
        return {"_FillValue": math.nan}
    # xarray takes it for a date, unless it is declared
    return {"_FillValue": np.iinfo(np.int64).min} if dtype == np.int64 and column.dtype.is_temporal() else {}


def _default_form(column: NewColumn) -> tuple[np.dtype[Any], dict[str, Any]]:
    dtype = column.dtype
    if isinstance(dtype, pl.Datetime) and dtype.time_zone is None:
        words = {"ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds"}
        units = f"{words[dtype.time_unit]} since 1970-01-01"
        return np.dtype("int64"), {"units": units, "calendar": "proleptic_gregorian"}
    if dtype == pl.Date:
        return np.dtype("int64"), {"units": "days since 1970-01-01", "calendar": "proleptic_gregorian"}
    if isinstance(dtype, pl.Duration):
        words = {"ns": "nanoseconds", "us": "microseconds", "ms": "milliseconds"}
        return np.dtype("int64"), {"units": words[dtype.time_unit], "dtype": f"timedelta64[{dtype.time_unit}]"}
    if dtype == pl.String or isinstance(dtype, pl.Categorical | pl.Enum):
        return np.dtype("T"), {}
    if dtype == pl.Boolean or (dtype.is_numeric() and not dtype.is_decimal()):
        return pl.Series(dtype=dtype).to_numpy().dtype, {}
    if isinstance(dtype, pl.Datetime):
        raise RowsError(
            f"The column {column.name!r} has the time zone {dtype.time_zone}, and arrays have none. Convert it: "
            "pl.col(name).dt.convert_time_zone('UTC').dt.replace_time_zone(None)."
        )
    raise RowsError(f"The column {column.name!r} is {dtype}, which no array holds. Unnest, cast or drop it.")


def _zarr_fill(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> Any:
    """Return the value of missing chunks: the declared fill, if there is one."""
    declared = attributes.get("_FillValue", attributes.get("missing_value"))
    if isinstance(declared, list | tuple):
        declared = declared[0] if declared else None
    if declared is None:
        is_time = dtype == np.int64 and (" since " in str(attributes.get("units")) or "dtype" in attributes)
        return (
            np.iinfo(np.int64).min
            if is_time
            else math.nan
            if dtype.kind == "f"
            else ""
            if dtype.kind in "TU"
            else dtype.type(0)
        )
    try:
        if dtype.kind in "TU":
            return str(declared)
        fill = dtype.type(declared)
    except (TypeError, ValueError, OverflowError):
        fill = None
    if fill is None or not (fill == declared or dtype.kind == "f"):
        raise QueryError(f"The fill value {declared!r} is not of the stored type, {dtype}. Declare another _FillValue.")
    return fill


def _in_json(dtype: np.dtype[Any], attributes: Mapping[str, Any]) -> dict[str, Any]:
    """Return attributes as JSON holds them; the fill of floats is text, as xarray writes it in Zarr v3."""
    found = {}
    if dtype.kind in "TU" and "_FillValue" in attributes:  # xarray reads no _FillValue of texts in Zarr v3
        attributes = {n: v for n, v in attributes.items() if n != "_FillValue"} | {
            "missing_value": attributes["_FillValue"]
        }
    for name, value in attributes.items():
        plain = value.item() if isinstance(value, np.generic) else value
        if name == "_FillValue" and dtype.kind == "f":
            plain = b64encode(pack("<d", dtype.type(plain))).decode()  # rounded, as the cells are
        elif name == "_FillValue" and dtype.kind in "iu":
            plain = int(plain)
        found[name] = plain
    return found


def _grid(
    column: NewColumn,
    shape: tuple[int, ...],
    dtype: np.dtype[Any],
    *,
    given: Mapping[str, Any],
    chunks: Mapping[str, int],
    shards: Mapping[str, int],
) -> dict[str, Any]:
    source = column.like.array if column.like is not None else None
    wide: list[int | None] = []
    lengths = [max(n, 1) for n in shape]
    if source is not None and set(source.dims) == set(column.dims):
        own = dict(zip(source.dims, source.chunks, strict=True))
        lengths = [min(own[dim], n) for dim, n in zip(column.dims, lengths, strict=True)]
    else:
        while math.prod(lengths) * (dtype.itemsize or 16) > CHUNK_BYTES:
            longest = lengths.index(max(lengths))
            lengths[longest] = -(-lengths[longest] // 2)
    if column.dims != (column.name,):  # labels are read as a whole
        lengths = [chunks.get(dim, n) for dim, n in zip(column.dims, lengths, strict=True)]
        wide = [shards.get(dim) for dim in column.dims]
    lengths = list(given.get("chunks", lengths))
    inner = dict(zip(column.dims, lengths, strict=False))
    found: list[int] | None = list(given["shards"]) if given.get("shards") else None
    if found is None and any(wide):
        found = [n or inner[dim] for dim, n in zip(column.dims, wide, strict=True)]
    for what, numbers in (("chunks", lengths), ("shards", found)):
        if numbers is not None and (len(numbers) != len(shape) or not all(type(n) is int and n > 0 for n in numbers)):
            raise QueryError(f"The {what} of {column.name!r} are {numbers}, and it has the dimensions {column.dims}.")
    if found is not None and any(n % c for n, c in zip(found, lengths, strict=True)):
        raise QueryError(f"The shards of {column.name!r}, {found}, are not whole multiples of its chunks, {lengths}.")
    return {"chunks": tuple(lengths)} | ({"shards": tuple(found)} if found is not None else {})
