"""Slots: the arrays of a target that a call writes, and the units that one writer writes at a time."""

from collections.abc import Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise
from math import lcm, prod
from typing import Any

import numpy as np
import numpy.typing as npt
import polars as pl
from zarr.abc.store import Store

from rainbear_dask.coding.cf import Decoding
from rainbear_dask.coding.encode import encode, stored_fill
from rainbear_dask.exceptions import RowsError, WriteError
from rainbear_dask.metadata.zarr_arrays import open_array
from rainbear_dask.redaction import reason
from rainbear_dask.storage.zarr_internals import sync

Spans = Mapping[str, tuple[int, int]]
"""Start and stop along each dimension."""


@dataclass(frozen=True)
class Slot:
    """An array of a target.

    Parameters
    ----------
    name : str
        The column that fills it.
    path : str
        Path of the array in the store.
    dims : tuple of str
        Its dimensions.
    objects : tuple of int
        Lengths of a stored object: a shard, or a chunk without shards.
    document : str
        Metadata document of the array, with its length after the call.
    decoding : Decoding
        How readers decode it.
    """

    name: str
    path: str
    dims: tuple[str, ...]
    objects: tuple[int, ...]
    document: str
    decoding: Decoding

    def for_column(self, dtype: pl.DataType) -> "Slot":
        """Return the slot with times in the unit of a column, in which they are encoded without a detour."""
        if isinstance(self.decoding.dtype, pl.Datetime | pl.Duration):
            unit = pl.Datetime("ms") if dtype == pl.Date else dtype
            if unit.base_type() == self.decoding.dtype.base_type():
                return replace(self, decoding=replace(self.decoding, dtype=unit))
        return self

    @property
    def fill(self) -> Any:
        """Stored value of a cell without a row; None if the array has no such value."""
        fill = stored_fill(self.decoding)
        return np.float64("nan") if fill is None and self.decoding.stored.kind == "f" else fill


def write_unit(
    store: Store,
    slot: Slot,
    spans: Spans,
    values: pl.Series,
    cells: npt.NDArray[np.int64] | None,
    *,
    keep: bool,
) -> None:
    """Write the rows of a unit into one array. No other writer may touch the stored objects of the unit.

    Parameters
    ----------
    store : Store
        Writable store.
    slot : Slot
        The array.
    spans : mapping
        The unit, in the order of the rows' dimensions.
    values : Series
        Values of the rows.
    cells : ndarray of int64 or None
        Cell of each row, in C order of the unit; None if there is one row for each cell in this order.
    keep : bool
        Whether cells without a row keep their stored values. Otherwise they are fill.

    Raises
    ------
    RowsError
        If a value cannot be stored, or a cell has neither row nor fill.
    WriteError
        If the store fails.
    """
    stored = encode(values.alias(slot.name), slot.decoding)
    shape = tuple(stop - start for start, stop in spans.values())
    order = [list(spans).index(dim) for dim in slot.dims]
    region = tuple(slice(*spans[dim]) for dim in slot.dims)
    try:
        array = open_array(store, slot.path, slot.document)
        if cells is None:
            block = stored.reshape(shape).transpose(order)
        else:
            found = np.asarray(sync(array.getitem(region))).transpose(np.argsort(order)) if keep else None
            block = _scattered(slot, shape, stored, cells, found).transpose(order)
        sync(array.setitem(region, block))
    except (RowsError, WriteError):
        raise
    except Exception as err:  # noqa: BLE001  disks, services and codecs have no common error
        raise WriteError(
            f"Cannot write {slot.path} of {store}: {reason(err)}. Make room, or check the rights to write."
        ) from None


def _scattered(
    slot: Slot, shape: tuple[int, ...], stored: npt.NDArray[Any], cells: npt.NDArray[np.int64], found: Any
) -> npt.NDArray[Any]:
    """Return the cells of a unit, with ``found`` or fill where there is no row."""
    if found is not None:
        block = np.array(found, dtype=slot.decoding.stored, order="C")
    elif slot.fill is None and len(cells) < prod(shape):
        raise no_fill(slot.name)
    else:
        fill = slot.fill if slot.fill is not None else stored[0] if len(stored) else 0
        filled = np.full(shape, fill, dtype=slot.decoding.number)
        is_same = slot.decoding.number == slot.decoding.stored  # NumPy refuses a view of texts, even of the same type
        block = filled if is_same else filled.view(slot.decoding.stored)
    block.reshape(-1)[cells] = stored
    return block


def no_fill(name: str) -> RowsError:
    """Return the error for cells without a row in an array that has no fill value."""
    return RowsError(
        f"Some cells have no row, and the array of {name!r} declares no fill value. Declare one, "
        f"encoding={{{name!r}: {{'_FillValue': -1}}}}, or give a row for each cell."
    )


def unit_lengths(
    sizes: Mapping[str, int], slots: Sequence[Slot], preferred: Mapping[str, int], row_bytes: int, most: int
) -> dict[str, int]:
    """Return the lengths of units: whole stored objects of all slots, and if possible whole chunks of the source.

    Parameters
    ----------
    sizes : mapping of str to int
        Length of each dimension of the target.
    slots : sequence of Slot
        The arrays.
    preferred : mapping of str to int
        Lengths of the source's chunks.
    row_bytes : int
        Bytes of the values of one cell.
    most : int
        Bytes of a unit, unless stored objects are larger.
    """
    least = dict.fromkeys(sizes, 1)
    for slot in slots:
        for dim, length in zip(slot.dims, slot.objects, strict=True):
            least[dim] = lcm(least[dim], length)
    wide = {dim: lcm(length, preferred.get(dim, 1)) for dim, length in least.items()}
    lengths, wide = ({dim: min(n[dim], max(sizes[dim], 1)) for dim in sizes} for n in (least, wide))
    if prod(wide.values()) * row_bytes <= most:
        lengths = wide
    for dim in reversed(list(sizes)):
        room = max(most // (prod(lengths.values()) * max(row_bytes, 1)), 1)
        lengths[dim] = min(lengths[dim] * room, max(sizes[dim], 1)) if lengths[dim] < sizes[dim] else lengths[dim]
    return lengths


def units(spans: Spans, lengths: Mapping[str, int]) -> Iterator[dict[str, tuple[int, int]]]:
    """Yield the units of a part of the target; their borders are multiples of the lengths."""
    found: list[dict[str, tuple[int, int]]] = [{}]
    for dim, (start, stop) in spans.items():
        cuts = [start, *range((start // lengths[dim] + 1) * lengths[dim], stop, lengths[dim]), stop]
        along = [(a, b) for a, b in pairwise(cuts) if a < b]
        found = [unit | {dim: span} for unit in found for span in along]
    yield from found
