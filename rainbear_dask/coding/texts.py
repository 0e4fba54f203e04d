"""Stored strings: their encodings, their fill values, and their columns."""

from base64 import b64decode
from codecs import lookup
from collections.abc import Iterable
from typing import Any

import numpy.typing as npt
import polars as pl

from rainbear_dask.exceptions import StoreFormatError
from rainbear_dask.metadata.model import ArrayMeta

_UTF_8 = "utf-8"


def encoding_of(array: ArrayMeta) -> str:
    """Return the encoding that the attribute ``_Encoding`` of an array of bytes declares.

    Returns
    -------
    str
        Python's name of the encoding; "" if none is declared, or if the array does not hold bytes.

    Raises
    ------
    StoreFormatError
        If Python lacks that text encoding.
    """
    declared = array.attributes.get("_Encoding") if array.dtype.kind in "SO" else None
    if declared is None:
        return ""
    try:
        if isinstance(declared, str):
            b"a".decode(declared, "replace")  # raises for codecs that do not return text
            return lookup(declared).name
    except (LookupError, ValueError):
        pass
    raise StoreFormatError(
        f"Array {array.path!r} has the _Encoding {declared!r:.80}, which is not a text encoding of Python. Correct the "
        "attribute, leave the array out with `variables=`, or read the store with `decode=False`."
    )


def is_foreign(encoding: str) -> bool:
    """Whether an encoding differs from UTF-8, the encoding of Polars."""
    return encoding not in ("", _UTF_8)


def fills_of(array: ArrayMeta, declared: Iterable[Any], encoding: str) -> list[bytes]:
    """Return the fill values of strings, as UTF-8 text or as bytes.

    As in xarray, the ``fill_value`` of a Zarr v2 array is compared with stored bytes, never with the text that
    ``_Encoding`` makes of them. In v3, xarray writes an attribute of bytes in base64.
    """
    fills: list[bytes] = []
    for fill in declared:
        if isinstance(fill, bytes) and not encoding:
            fills.append(bytes(fill))
        elif isinstance(fill, str):
            fills.append(fill.encode(errors="surrogatepass"))
            if array.dtype.kind == "S" and array.zarr_format == 3:
                fills += _from_base64(fill)
    return list(dict.fromkeys(fills))


def _from_base64(text: str) -> list[bytes]:
    try:
        return [b64decode(text, validate=True)]
    except ValueError:
        return []


def as_column(flat: npt.NDArray[Any], dtype: pl.DataType, encoding: str, path: str) -> pl.Series:
    """Return a column of flat stored strings.

    Raises
    ------
    StoreFormatError
        If a value is not text in the declared encoding, by default UTF-8.
    """
    try:
        if is_foreign(encoding):
            return pl.Series([_word(value, encoding) for value in flat.tolist()], dtype=dtype)
        return pl.Series(flat.tolist() if flat.dtype.kind == "O" else flat).cast(dtype)
    except (TypeError, ValueError, pl.exceptions.PolarsError):
        pass
    if encoding:
        stored = ", or read the store with `decode=False`" if is_foreign(encoding) else ""
        raise StoreFormatError(
            f"Array {path!r} holds bytes that are not text in {encoding}, the encoding that its attribute _Encoding "
            f"declares. Correct the attribute, leave the array out with `variables=`{stored}."
        )
    raise StoreFormatError(
        f"Array {path!r} holds values that are not UTF-8, unlike the sample that determined the type of its column, "
        f"{dtype!r}. Leave the array out with `variables=`, or declare the encoding in its attribute _Encoding."
    )


def _word(value: Any, encoding: str) -> Any:
    """Decode bytes whose trailing zeros NumPy has removed; in UTF-16 these may be half a letter."""
    if not isinstance(value, bytes):
        return value
    letter = 4 if encoding.startswith("utf-32") else 2 if encoding.startswith("utf-16") else 1
    return value.ljust(-(-len(value) // letter) * letter, b"\0").decode(encoding)
