"""Rows as a worker hands them over: taken apart as long as they travel, a Polars frame on arrival.

A coordinate stays as long as its dimension, and the rows that a filter left are known by their place in the box. In one
process nothing is copied for it. Between processes each column is one buffer of pickle's protocol 5, out of band, so that
submitting, gathering, persisting and spilling all move the compact form, and who receives it needs to know nothing beforehand.
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
    """One column: a value for each row; or where ``dims`` are given, the array over them, flat in C order."""

    values: pl.Series
    dims: tuple[str, ...] | None = None


@dataclass(frozen=True, slots=True, eq=False)
class CompactFrame:
    """Some rows, taken apart.

    Parameters
    ----------
    height : int
        Number of rows.
    columns : tuple of Part
        In the order of the frame.
    cells : Cells or None
        The cells of a box that the rows are; None where no column is an array over dimensions of the box.
    """

    height: int
    columns: tuple[CompactColumn, ...]
    cells: CellMask | None = None

    def frame(self) -> pl.DataFrame:
        """Put the rows together.

        Returns
        -------
        DataFrame
            ``height`` rows, in C order of the box. Columns named ``child/variable`` are one Struct column ``child``.
        """
        columns = [lay_out(part, self.cells).values for part in self.columns]
        return nest(pl.DataFrame(columns or None, height=self.height))

    def __sizeof__(self) -> int:
        """Bytes held, by which Dask counts what a worker has in memory."""
        places = 0 if self.cells is None or self.cells.wanted is None else self.cells.wanted.nbytes
        return object.__sizeof__(self) + places + sum(int(part.values.estimated_size()) for part in self.columns)

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack, pack(self)  # NumPy's arrays are what pickle takes out of band


def compact(columns: Sequence[CompactColumn], cells: CellMask) -> CompactFrame:
    """Choose the smallest form of some cells of a box.

    Parameters
    ----------
    columns : sequence of Part
        A value for each wanted cell, or the array over its own dimensions.
    cells : Cells
        Which cells of the box are rows.

    Returns
    -------
    Parts
        Arrays over few dimensions stay as they are, if together with the places of the rows they are smaller than a
        value for each row.
    """
    if cells.wanted is None:
        return CompactFrame(cells.count, tuple(columns), cells)
    apart = [part if len(part.values) < cells.count else lay_out(part, cells) for part in columns]
    saved = sum(_width(part) * (cells.count - len(part.values)) for part in apart if part.dims is not None)
    if saved > min(_STEP_BYTES * cells.count, cells.size / 8):
        return CompactFrame(cells.count, tuple(apart), cells)
    return CompactFrame(cells.count, tuple(lay_out(part, cells) for part in apart))


_STEP_BYTES = 2  # of the steps from row to row, mostly


def lay_out(part: CompactColumn, cells: CellMask | None) -> CompactColumn:
    """Give a column a value for each wanted cell, in C order of the box."""
    return part if part.dims is None or cells is None else CompactColumn(cells.lay_out(part.values, part.dims))


def _width(part: CompactColumn) -> float:
    return float(part.values.estimated_size()) / max(len(part.values), 1)


# ---------------------------------------------------------------------- buffers


class Label(NamedTuple):
    """What else is to be known of a column to make it from its buffers."""

    name: str
    dtype: pl.DataType
    dims: tuple[str, ...] | None
    length: int
    num_buffers: int


class Shape(NamedTuple):
    """What else is to be known of rows to make them from buffers; ``places`` says how the first one tells the cells."""

    height: int
    box: Mapping[str, int] | None
    places: str | None
    labels: tuple[Label, ...]


def pack(parts: CompactFrame) -> tuple[Shape, list[Buffer]]:
    """Give rows as small plain data and large buffers.

    Parameters
    ----------
    parts : Parts
        The rows.

    Returns
    -------
    Shape
        All but the values.
    list of ndarray of uint8
        Each in one piece. Numbers without a null are not copied.
    """
    cells, labels = parts.cells, []
    places, buffers = (None, []) if cells is None or cells.wanted is None else _pack_places(cells.wanted)
    for values, dims in parts.columns:
        packed = _pack_values(values)
        labels.append(Label(values.name, values.dtype, dims, len(values), len(packed)))
        buffers += packed
    return Shape(parts.height, None if cells is None else cells.box, places, tuple(labels)), buffers


def unpack(shape: Shape, buffers: Sequence[Buffer]) -> CompactFrame:
    """Make rows again of what `pack` gave: the same values, types and nulls to the last bit."""
    return _Arrived(shape, buffers)


class _Arrived(CompactFrame):
    """Rows as they arrive, which are made of their buffers only when they are wanted.

    Dask takes them in on its event loop. Ctrl-C ends whatever Polars does, on any thread, with an error of which a loop dies,
    and with it the client.
    """

    packed: tuple[Shape, Sequence[Buffer]]

    def __init__(self, shape: Shape, buffers: Sequence[Buffer]) -> None:
        object.__setattr__(self, "height", shape.height)
        object.__setattr__(self, "packed", (shape, buffers))

    @cached_property
    def made(self) -> CompactFrame:
        """The rows."""
        shape, buffers = self.packed
        left, cells = iter(buffers), None
        if shape.box is not None:
            lengths = tuple(shape.box.values())
            cells = CellMask(
                shape.box, None if shape.places is None else _unpack_places(shape.places, next(left), lengths)
            )
        columns = [
            CompactColumn(
                _unpack_values([next(left) for _ in range(label.num_buffers)], label).alias(label.name), label.dims
            )
            for label in shape.labels
        ]
        return CompactFrame(shape.height, tuple(columns), cells)

    @property
    def columns(self) -> tuple[CompactColumn, ...]:
        return self.made.columns

    @property
    def cells(self) -> CellMask | None:
        return self.made.cells

    def __sizeof__(self) -> int:
        return object.__sizeof__(self) + sum(buffer.nbytes for buffer in self.packed[1])

    def __reduce__(self) -> tuple[Any, ...]:
        return unpack, self.packed


def _pack_places(wanted: npt.NDArray[np.bool_]) -> tuple[str, list[Buffer]]:
    """Which cells are wanted: a bit for each cell, or the steps from one to the next."""
    steps = np.diff(np.flatnonzero(wanted), prepend=0)
    narrow = np.min_scalar_type(int(steps.max(initial=0)))
    if len(steps) * narrow.itemsize < wanted.size / 8:
        return narrow.str, [steps.astype(narrow).view(np.uint8)]
    return _BITS, [np.packbits(wanted)]


_BITS = "bits"


def _unpack_places(places: str, buffer: Buffer, lengths: tuple[int, ...]) -> npt.NDArray[np.bool_]:
    if places == _BITS:
        return _unpack_bits(buffer, prod(lengths)).reshape(lengths)
    wanted = np.zeros(prod(lengths), dtype=np.bool_)
    wanted[np.cumsum(buffer.view(places), dtype=np.int64)] = True
    return wanted.reshape(lengths)


def _pack_values(values: pl.Series) -> list[Buffer]:
    """Numbers as they lie in memory, then a bit for each null if there are nulls; all else as an Arrow file."""
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


_PLAIN = (  # numbers that NumPy has too, and counts of a unit of time; a Datetime of any unit equals its class
    *(pl.Boolean, pl.Int8, pl.Int16, pl.Int32, pl.Int64, pl.UInt8, pl.UInt16, pl.UInt32, pl.UInt64),
    *(pl.Float32, pl.Float64, pl.Date, pl.Time, pl.Datetime, pl.Duration),
)
