"""Rows on their way from a worker: compact while they travel, a Polars frame on arrival.

A coordinate keeps the length of its dimension, and a mask over the box says which cells are rows. Within one process
nothing is copied. Between processes each column is an out-of-band buffer of pickle protocol 5. So submitting,
gathering, persisting and spilling all move the compact form, and the receiver needs no preparation.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, NamedTuple

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.table.tidy import CellMask, nest

Buffer = npt.NDArray[np.uint8]


class CompactColumn(NamedTuple):
    """One column: one value per row, or with ``dims`` the array over these dimensions, flat in C order."""

    values: pl.Series
    dims: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CompactFrame:
    """Rows in compact form.

    Parameters
    ----------
    height : int
        Number of rows.
    columns : tuple of CompactColumn
        In the order of the frame.
    cells : CellMask or None
        The cells of a box that are the rows; None if no column is an array over dimensions of the box.
    """

    height: int
    columns: tuple[CompactColumn, ...]
    cells: CellMask | None = None

    def to_polars(self) -> pl.DataFrame:
        """Return the rows as a Polars frame.

        Returns
        -------
        DataFrame
            ``height`` rows, in C order of the box. Columns named ``child/variable`` are one Struct column ``child``.
        """
        columns = [lay_out(part, self.cells).values for part in self.columns]
        return nest(pl.DataFrame(columns or None, height=self.height))

    def __sizeof__(self) -> int:
        """Return the bytes held; Dask sums them up to know the memory use of a worker."""
        places = 0 if self.cells is None or self.cells.is_whole else self.cells.nbytes
        return object.__sizeof__(self) + places + sum(int(part.values.estimated_size()) for part in self.columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack, pack(self)  # pickle sends NumPy arrays out of band


def compact(columns: Sequence[CompactColumn], cells: CellMask) -> CompactFrame:
    """Choose the smallest form for some cells of a box.

    Parameters
    ----------
    columns : sequence of CompactColumn
        Each with one value per wanted cell, or as the array over its own dimensions.
    cells : CellMask
        The cells of the box that are rows.

    Returns
    -------
    CompactFrame
        Arrays over few dimensions stay as they are, if together with the mask they are smaller than one value per row.
    """
    if cells.is_whole:
        return CompactFrame(cells.count, tuple(columns), cells)
    apart = [part if len(part.values) < cells.count else lay_out(part, cells) for part in columns]
    saved = sum(_width(part) * (cells.count - len(part.values)) for part in apart if part.dims is not None)
    if saved > min(_STEP_BYTES * cells.count, cells.size / 8):
        return CompactFrame(cells.count, tuple(apart), cells)
    return CompactFrame(cells.count, tuple(lay_out(part, cells) for part in apart))


_STEP_BYTES = 2
"""Typical bytes of a step from one row to the next, in the packed mask."""


def lay_out(part: CompactColumn, cells: CellMask | None) -> CompactColumn:
    """Return a column with one value per wanted cell, in C order of the box."""
    return part if part.dims is None or cells is None else CompactColumn(cells.lay_out(part.values, part.dims))


def _width(part: CompactColumn) -> float:
    return float(part.values.estimated_size()) / max(len(part.values), 1)


# ---------------------------------------------------------------------- buffers


class Label(NamedTuple):
    """Everything but the values of a column."""

    name: str
    dtype: pl.DataType
    dims: tuple[str, ...] | None
    length: int
    num_buffers: int


class Shape(NamedTuple):
    """Everything but the values of a compact frame; ``places`` is the format of its mask, which is the first buffer."""

    height: int
    box: Mapping[str, int] | None
    places: str | None
    labels: tuple[Label, ...]


def pack(parts: CompactFrame) -> tuple[Shape, list[Buffer]]:
    """Split rows into small plain data and large buffers.

    Parameters
    ----------
    parts : CompactFrame
        The rows.

    Returns
    -------
    Shape
        Everything but the values.
    list of ndarray of uint8
        Contiguous buffers. Numbers without nulls are not copied.
    """
    cells, labels = parts.cells, []
    places, buffers = (None, []) if cells is None or cells.is_whole else _pack_places(cells)
    for values, dims in parts.columns:
        packed = _pack_values(values)
        labels.append(Label(values.name, values.dtype, dims, len(values), len(packed)))
        buffers += packed
    return Shape(parts.height, None if cells is None else cells.box, places, tuple(labels)), buffers


def unpack(shape: Shape, buffers: Sequence[Buffer]) -> CompactFrame:
    """Rebuild the rows that `pack` split: the same values, types and nulls, bit by bit."""
    return _ReceivedFrame(shape, buffers)


class _ReceivedFrame(CompactFrame):
    """A compact frame that is rebuilt from its buffers on first use.

    Dask unpickles it on its event loop, which must not call Polars: Ctrl-C interrupts Polars on any thread, and the
    error would end the loop and with it the client.
    """

    packed: tuple[Shape, Sequence[Buffer]]

    def __init__(self, shape: Shape, buffers: Sequence[Buffer]) -> None:
        object.__setattr__(self, "height", shape.height)
        object.__setattr__(self, "packed", (shape, buffers))

    @cached_property
    def rebuilt(self) -> CompactFrame:
        """The frame, rebuilt from its buffers."""
        shape, buffers = self.packed
        left, cells = iter(buffers), None
        if shape.box is not None:
            cells = CellMask(shape.box) if shape.places is None else _unpack_places(shape.places, next(left), shape.box)
        columns = [
            CompactColumn(
                _unpack_values([next(left) for _ in range(label.num_buffers)], label).alias(label.name), label.dims
            )
            for label in shape.labels
        ]
        return CompactFrame(shape.height, tuple(columns), cells)

    @property
    def columns(self) -> tuple[CompactColumn, ...]:
        return self.rebuilt.columns

    @property
    def cells(self) -> CellMask | None:
        return self.rebuilt.cells

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + sum(buffer.nbytes for buffer in self.packed[1])

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack, self.packed


def _pack_places(cells: CellMask) -> tuple[str, list[Buffer]]:
    """Pack cells in the smaller of two formats: one bit per cell, or the steps from one wanted cell to the next."""
    steps = np.diff(cells.rows, prepend=0)
    narrow = np.min_scalar_type(int(steps.max(initial=0)))
    if len(steps) * narrow.itemsize < cells.size / 8:
        return narrow.str, [steps.astype(narrow).view(np.uint8)]
    return _BITS, [np.packbits(cells.mask)]


_BITS = "bits"


def _unpack_places(places: str, buffer: Buffer, box: Mapping[str, int]) -> CellMask:
    if places == _BITS:
        return CellMask(box, _unpack_bits(buffer, prod(box.values())).reshape(tuple(box.values())))
    return CellMask.of_rows(box, np.cumsum(buffer.view(places), dtype=np.int64))


def _pack_values(values: pl.Series) -> list[Buffer]:
    """Return numbers as they lie in memory, and a bit per row if there are nulls; all other types as an Arrow file."""
    if values.dtype not in _PLAIN:
        return [np.frombuffer(values.alias("").to_frame().write_ipc(None).getbuffer(), np.uint8)]
    numbers, nulls = values.to_physical(), []
    if numbers.has_nulls():
        nulls = [np.packbits(numbers.is_null().to_numpy())]
        numbers = numbers.fill_null(strategy="zero") if numbers.dtype.is_numeric() else numbers.fill_null(value=False)
    array = numbers.to_numpy()
    return [np.packbits(array) if array.dtype == np.bool_ else array.view(np.uint8), *nulls]


def _unpack_values(buffers: Sequence[Buffer], label: Label) -> pl.Series:
    numbers, *nulls = buffers
    if label.dtype not in _PLAIN:
        return pl.read_ipc(numbers.tobytes()).to_series()
    if label.dtype == pl.Boolean:
        values = pl.Series(_unpack_bits(numbers, label.length))
    else:
        stored = pl.Series(dtype=label.dtype).to_physical().to_numpy().dtype
        values = pl.Series(np.require(numbers.view(stored), requirements="A")).cast(label.dtype)
    return values.set(pl.Series(_unpack_bits(nulls[0], label.length)), None) if nulls else values


def _unpack_bits(buffer: Buffer, count: int) -> npt.NDArray[np.bool_]:
    return np.unpackbits(buffer, count=count).view(np.bool_)


_PLAIN = (  # types that NumPy has too, and counts of a time unit; a Datetime of any unit equals its class
    *(pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64, pl.Date, pl.Time, pl.Datetime, pl.Duration),
)
