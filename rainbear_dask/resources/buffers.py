"""Buffer pool: reused memory, because the first write to new pages takes as long as to decode a chunk into them."""

import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

MIN_POOLED_BYTES = 2**17
"""Bytes of the smallest pooled buffer. Smaller ones come from the heap of the C library, which reuses its pages."""

MAX_IDLE_BYTES = 2**26
"""Bytes of all idle buffers of a process."""

MAX_IDLE_BLOCKS = 64
"""Number of idle buffers of a process, few enough to be searched at once."""

POOL_SLACK = 1.25
"""Largest ratio between a borrowed buffer and the size that its caller needs."""

Block = npt.NDArray[np.uint8]

_idle: dict[int, Block] = {}  # in order of return


def borrow_array(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Return an uninitialized array from the pool, which gets it back with its last view.

    Parameters
    ----------
    shape : sequence of int
        Shape of the array.
    dtype : dtype
        A type of plain numbers.

    Returns
    -------
    ndarray
        The array, in C order.
    """
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    if size < MIN_POOLED_BYTES:
        return np.empty(shape, dtype)
    block = _borrow(size)
    lent = np.frombuffer(block.data, np.uint8, size)  # views of it keep this array alive, and not the block
    weakref.finalize(lent, _release, block).atexit = False
    return lent.view(dtype).reshape(shape)


class Scratch:
    """Two buffers of one thread, which grow on demand: one for stored bytes, one for decoded bytes."""

    def __init__(self) -> None:
        self._stored, self._decoded = borrow_array([0], np.uint8), borrow_array([0], np.uint8)

    def stored(self, length: int) -> Block:
        """Return the buffer of stored bytes, valid until the next call."""
        if len(self._stored) < length:
            self._stored = borrow_array([length], np.uint8)
        return self._stored[:length]

    def decoded(self, length: int) -> Block:
        """Return the buffer of decoded bytes, valid until the next call."""
        if len(self._decoded) < length:
            self._decoded = borrow_array([length], np.uint8)
        return self._decoded[:length]


class Slots:
    """Buffers for several arrays at a time, which the arrays of the next call reuse."""

    def __init__(self) -> None:
        self._blocks = list[Block]()

    def arrays(self, wanted: Sequence[tuple[Sequence[int], npt.DTypeLike]]) -> list[npt.NDArray[Any]]:
        """Return an uninitialized array for each shape and type, valid until the next call."""
        return [self._array(number, shape, np.dtype(dtype)) for number, (shape, dtype) in enumerate(wanted)]

    def _array(self, number: int, shape: Sequence[int], dtype: np.dtype[Any]) -> npt.NDArray[Any]:
        size = prod(shape) * dtype.itemsize
        if number == len(self._blocks):
            self._blocks.append(borrow_array([size], np.uint8))
        elif len(self._blocks[number]) < size:
            self._blocks[number] = borrow_array([size], np.uint8)
        return self._blocks[number][:size].view(dtype).reshape(shape)


def forget() -> None:
    """Drop all idle buffers."""
    _idle.clear()


def _borrow(size: int) -> Block:
    for key in reversed(list(_idle)):
        block = _idle.get(key)
        if block is not None and size <= len(block) <= POOL_SLACK * size and _idle.pop(key, None) is not None:
            return block
    step = 2 ** (size.bit_length() - 4)  # rounded up, because the next chunk may be slightly longer
    return np.empty(-(-size // step) * step, np.uint8)


def _release(block: Block) -> None:
    """Return a block to the pool: on any thread, at any moment, so without a lock and in atomic steps."""
    if len(block) > MAX_IDLE_BYTES:
        return
    _idle[id(block)] = block
    for key in list(_idle):
        if len(_idle) <= MAX_IDLE_BLOCKS and sum(map(len, list(_idle.values()))) <= MAX_IDLE_BYTES:
            break
        _idle.pop(key, None)
