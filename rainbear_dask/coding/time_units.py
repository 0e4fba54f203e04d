"""Times and durations in a unit that the caller chooses."""

from dataclasses import replace
from typing import Literal, TypeAlias

import polars as pl

from rainbear_dask.coding.cf import Decoding

TimeUnit: TypeAlias = Literal["ns", "us", "ms"]

_ORDER: tuple[TimeUnit, ...] = ("ns", "us", "ms")


def in_time_unit(decoding: Decoding, unit: TimeUnit) -> Decoding:
    """Return a decoding whose column has a unit of time.

    Parameters
    ----------
    decoding : Decoding
        Of any array; only Datetime and Duration change.
    unit : {"ns", "us", "ms"}
        "ns" is the default of columns, which keeps the unit that the values need.

    Returns
    -------
    Decoding
        Its values equal the values of ``decoding`` cast by Polars: values between two steps of a coarser unit are
        rounded down. Values that a finer unit cannot hold raise StoreFormatError when they are decoded.
    """
    dtype = decoding.dtype
    if unit == "ns" or not isinstance(dtype, pl.Datetime | pl.Duration) or dtype.time_unit == unit:
        return decoding
    is_finer = _ORDER.index(dtype.time_unit) < _ORDER.index(unit)
    return replace(decoding, dtype=type(dtype)(unit), finer=dtype.time_unit if is_finer else None)
