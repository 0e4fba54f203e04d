"""Memory that is used again, as pages that are new to a process take as long as to decode a chunk into them."""

import weakref
from collections.abc import Sequence
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt

SMALL = 2**17
"""Bytes below which memory comes from the heap of the C library, whose pages are not new."""

KEPT_BYTES = 2**26
"""Memory that waits to be used again, at most; and..."""

_NUM_KEPT = 64
"""...pieces of it, so that it takes no time to look through them."""

Block = npt.NDArray[np.uint8]

_idle: dict[int, Block] = {}  # in the order in which it came back


def borrow_array(shape: Sequence[int], dtype: npt.DTypeLike) -> npt.NDArray[Any]:
    """Give an array of any values, in memory that comes back when neither it nor a view of it is left.

    Parameters
    ----------
    shape : sequence of int
        Its shape.
    dtype : dtype
        A type of plain numbers.

    Returns
    -------
    ndarray
        In C order.
    """
    dtype = np.dtype(dtype)
    size = prod(shape) * dtype.itemsize
    if size < SMALL:
        return np.empty(shape, dtype)
    block = _taken(size)
    lent = np.frombuffer(block.data, np.uint8, size)  # what views of it keep alive is this, and not the block
    weakref.finalize(lent, _release, block).atexit = False
    return lent.view(dtype).reshape(shape)


class Scratch:
    """Two buffers for one thread, which grow as they have to: one for what is stored, one for what is decoded."""

    def __init__(self) -> None:
        self._stored, self._decoded = borrow_array([0], np.uint8), borrow_array([0], np.uint8)

    def stored(self, length: int) -> Block:
        """Place for the bytes of a chunk as they are stored, until others are."""
        if len(self._stored) < length:
            self._stored = borrow_array([length], np.uint8)
        return self._stored[:length]

    def decoded(self, length: int) -> Block:
        """Place for the bytes of a chunk, until another is decoded."""
        if len(self._decoded) < length:
            self._decoded = borrow_array([length], np.uint8)
        return self._decoded[:length]


def forget() -> None:
    """Let go of the memory that waits."""
    _idle.clear()


def _taken(size: int) -> Block:
    for key in reversed(list(_idle)):
        block = _idle.get(key)
        if block is not None and size <= len(block) <= LOOSE * size and _idle.pop(key, None) is not None:
            return block
    step = 2 ** (size.bit_length() - 4)  # so that what is a little longer has room in it, as the next chunk may be
    return np.empty(-(-size // step) * step, np.uint8)


LOOSE = 1.25
"""How many times as much memory as is asked for may be lent."""


def _release(block: Block) -> None:
    """Called on any thread, and in the middle of anything; so no lock, and only steps that are done at once."""
    if len(block) > KEPT_BYTES:
        return
    _idle[id(block)] = block
    for key in list(_idle):
        if len(_idle) <= _NUM_KEPT and sum(map(len, list(_idle.values()))) <= KEPT_BYTES:
            break
        _idle.pop(key, None)
