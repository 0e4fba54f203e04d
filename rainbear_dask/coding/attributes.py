"""Numbers and fill values that array attributes declare."""

import struct
from base64 import b64decode
from math import isinf
from typing import Any

import numpy as np

from rainbear_dask.exceptions import StoreFormatError
from rainbear_dask.metadata.model import ArrayMeta


def declared_fills(array: ArrayMeta) -> list[Any]:
    """Return the declared fill values, unparsed; for Zarr v2 also the ``fill_value`` of the array."""
    declared = [*_as_list(array.attributes.get("_FillValue")), *_as_list(array.attributes.get("missing_value"))]
    return [*declared, array.fill_value] if array.zarr_format == 2 else declared


def fill_numbers(array: ArrayMeta, number: np.dtype[Any]) -> list[float]:
    """Return the declared fills as values of type ``number``, without those that no stored value can equal."""
    fills = []
    for declared in declared_fills(array):
        if (fill := _to_number(declared)) is None:
            continue
        if (stored := _exact(fill, array.dtype)) is not None:
            fills.append(np.array(stored, array.dtype).view(number).item())
        elif (stored := _exact(fill, number)) is not None:  # with _Unsigned, some writers declare 255 for the byte -1
            fills.append(stored)
    return list(dict.fromkeys(fills))


def _exact(fill: float, dtype: np.dtype[Any]) -> float | None:
    """Return a fill value in a stored type: rounded to a float type, unchanged in an integer type, else None."""
    if dtype.kind == "f":
        with np.errstate(over="ignore"):
            rounded = float(dtype.type(fill))
        return rounded if isinf(rounded) == isinf(fill) else None
    limits = np.iinfo(dtype)
    return int(fill) if limits.min <= fill <= limits.max and int(fill) == fill else None


def number_attribute(array: ArrayMeta, name: str) -> float | None:
    """Return a numeric attribute; None if the array lacks it.

    Raises
    ------
    StoreFormatError
        If the attribute is not a number.
    """
    listed = _as_list(array.attributes.get(name))
    if not listed:
        return None
    if len(listed) > 1 or (number := _to_number(listed[0])) is None:
        raise StoreFormatError(
            f"Array {array.path!r} has {name} {array.attributes[name]!r:.80}, which is not a number. "
            "Read the store with `decode=False`, or leave the array out with `variables=`."
        )
    return float(number)


def _as_list(value: Any) -> list[Any]:
    return value if isinstance(value, list) else [] if value is None else [value]


def _to_number(value: Any) -> float | None:
    """Parse a number from JSON, from text, or from base64 of a little-endian double, as xarray writes fills."""
    if not isinstance(value, str):
        number = value.item() if isinstance(value, np.generic) else value
        return number if isinstance(number, float) or (isinstance(number, int) and _fits_a_double(number)) else None
    for parse in (int, float, lambda text: struct.unpack("<d", b64decode(text, validate=True))[0]):
        try:
            number = parse(value)
        except (ValueError, struct.error):
            continue
        return number if _fits_a_double(number) else None
    return None


def _fits_a_double(number: Any) -> bool:
    """Whether a number converts to a float without an error; no stored value equals a longer integer."""
    return isinstance(number, float) or number.bit_length() < 1024
