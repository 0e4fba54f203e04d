"""How stored strings become text: which encoding their bytes are in, and which of them stand for nothing."""

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
    """Read the attribute ``_Encoding`` of an array of bytes.

    Returns
    -------
    str
        Python's name of the encoding; "" where none is declared, or where the array holds no bytes.

    Raises
    ------
    StoreFormatError
        If Python knows no such encoding of text.
    """
    declared = array.attributes.get("_Encoding") if array.dtype.kind in "SO" else None
    if declared is None:
        return ""
    try:
        if isinstance(declared, str):
            b"a".decode(declared, "replace")  # refuses codecs that make no text
            return lookup(declared).name
    except (LookupError, ValueError):
        pass
    raise StoreFormatError(
        f"array {array.path!r} has the _Encoding {declared!r:.80}, which is not an encoding of text that Python knows. "
        "Mend the attribute, leave the array out (variables=), or read the store with decode=False."
    )


def is_foreign(encoding: str) -> bool:
    """Whether an encoding is not the one that Polars has."""
    return encoding not in ("", _UTF_8)


def fills_of(array: ArrayMeta, declared: Iterable[Any], encoding: str) -> list[bytes]:
    """Fill values of strings, as text in UTF-8 or as bytes.

    As to xarray, the fill value of an array of Zarr v2 is compared with bytes, and never with the text that ``_Encoding``
    makes of them. In v3 xarray writes an attribute of bytes in base64.
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
    """Make a column of flat stored strings.

    Raises
    ------
    StoreFormatError
        If a value is not text in the encoding, or in UTF-8 where none is declared.
    """
    try:
        if is_foreign(encoding):
            return pl.Series([_word(value, encoding) for value in flat.tolist()], dtype=dtype)
        return pl.Series(flat.tolist() if flat.dtype.kind == "O" else flat).cast(dtype)
    except (TypeError, ValueError, pl.exceptions.PolarsError):
        pass
    if encoding:
        stored = ", or read the store with decode=False" if is_foreign(encoding) else ""
        raise StoreFormatError(
            f"array {path!r} holds bytes that are not text in {encoding}, which its attribute _Encoding declares. Mend the "
            f"attribute, leave the array out (variables=){stored}."
        )
    raise StoreFormatError(
        f"array {path!r} holds values that are not text in UTF-8, unlike those its column, {dtype!r}, was chosen by. Leave "
        "the array out (variables=), or declare the encoding in its attribute _Encoding."
    )


def _word(value: Any, encoding: str) -> Any:
    """Decode bytes from which NumPy has cut the zeros at the end, which may be half a letter of UTF-16."""
    if not isinstance(value, bytes):
        return value
    letter = 4 if encoding.startswith("utf-32") else 2 if encoding.startswith("utf-16") else 1
    return value.ljust(-(-len(value) // letter) * letter, b"\0").decode(encoding)
