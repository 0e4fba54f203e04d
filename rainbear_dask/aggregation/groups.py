"""Which group each cell of a box falls into, and reductions of arrays over cells to arrays over groups.

The groups of a question are a product of blocks. A block holds the keys that share dimensions, and numbers the groups of
the cells of these dimensions. Dimensions without a key are plain.
"""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cached_property
from math import prod
from typing import Any, TypeAlias

import numpy as np
import numpy.typing as npt

Array: TypeAlias = npt.NDArray[Any]
Numbers: TypeAlias = npt.NDArray[np.int32]
Place: TypeAlias = tuple[slice, ...]


@dataclass(frozen=True, slots=True, eq=False)
class BlockCodes:
    """The groups of one block among the positions of a task.

    Parameters
    ----------
    axes : tuple of int
        Axes of the task's box, ascending.
    codes : ndarray of int32
        Number of the group of each cell of these axes, from 0; one axis for each of ``axes``.
    groups : ndarray of int32
        Number of each of these groups in the question, ascending. Each is the group of some cell.
    """

    axes: tuple[int, ...]
    codes: npt.NDArray[np.int32]
    groups: Numbers

    @property
    def count(self) -> int:
        """Number of groups."""
        return len(self.groups)


class TaskGroups:
    """The groups of a task.

    Parameters
    ----------
    box : sequence of int
        Length of each axis of the task's box.
    blocks : sequence of BlockCodes
        The blocks; no axis is in two.
    """

    def __init__(self, box: Sequence[int], blocks: Sequence[BlockCodes]) -> None:
        self.box, self.blocks = tuple(box), tuple(blocks)
        self.shape = tuple(block.count for block in blocks)
        self._parts: dict[Any, _Part] = {}
        self._reducers: dict[Any, Reducer] = {}

    @property
    def counts(self) -> tuple[int, tuple[npt.NDArray[np.int64], ...]]:
        """Cells of each group: a number, and for each block a vector, whose outer product they are."""
        keyed = {axis for block in self.blocks for axis in block.axes}
        plain = prod(length for axis, length in enumerate(self.box) if axis not in keyed)
        return plain, tuple(np.bincount(block.codes.reshape(-1), minlength=block.count) for block in self.blocks)

    def reducer(self, place: Place) -> "Reducer":
        """Return the reducer of the cells at a place of the box."""
        key = tuple((one.start, one.stop) for one in place)
        if key not in self._reducers:
            parts = tuple(self._part(number, block, place) for number, block in enumerate(self.blocks))
            self._reducers[key] = Reducer(tuple(one.stop - one.start for one in place), parts)
        return self._reducers[key]

    def _part(self, number: int, block: BlockCodes, place: Place) -> "_Part":
        key = (number, *((place[axis].start, place[axis].stop) for axis in block.axes))
        if key not in self._parts:
            codes = block.codes[tuple(place[axis] for axis in block.axes)].reshape(-1)
            self._parts[key] = _part(block.axes, codes)
        return self._parts[key]


@dataclass(frozen=True, slots=True, eq=False)
class _Part:
    """The groups of one block at one place.

    Parameters
    ----------
    axes : tuple of int
        Axes of the box.
    groups : ndarray of int32
        Numbers of the groups in the task, ascending.
    local : ndarray of int32
        For each cell of the axes, in C order, the place of its group in ``groups``.
    order : ndarray of int or None
        Order in which the cells of a group are neighbours; None if they are.
    starts : ndarray of int or None
        First cell of each group in that order; None if each cell is a group of its own.
    """

    axes: tuple[int, ...]
    groups: npt.NDArray[np.int32]
    local: npt.NDArray[np.int32]
    order: npt.NDArray[np.intp] | None
    starts: npt.NDArray[np.intp] | None

    @property
    def target(self) -> slice | npt.NDArray[np.int32]:
        """Index of the groups along the block's axis of a state."""
        first, last = int(self.groups[0]), int(self.groups[-1])
        return slice(first, last + 1) if last - first + 1 == len(self.groups) else self.groups


def _part(axes: tuple[int, ...], codes: npt.NDArray[np.int32]) -> _Part:
    if (codes[1:] > codes[:-1]).all():
        return _Part(axes, codes, np.arange(len(codes), dtype=np.int32), None, None)
    groups, local = renumbered(codes, int(codes.max()) + 1)
    order = None if (local[1:] >= local[:-1]).all() else np.argsort(local, kind="stable")
    ordered = local if order is None else local[order]
    starts = np.flatnonzero(np.append(True, ordered[1:] != ordered[:-1]))
    return _Part(axes, groups, local, order, starts)


def renumbered(codes: npt.NDArray[Any], count: int) -> tuple[npt.NDArray[np.int32], npt.NDArray[np.int32]]:
    """Return the distinct codes, ascending, and for each code its place among them; codes are below ``count``.

    Faster than `numpy.unique`, which sorts.
    """
    present = np.zeros(count, dtype=np.bool_)
    present[codes] = True
    places = np.cumsum(present, dtype=np.int32) - np.int32(1)
    return np.flatnonzero(present).astype(np.int32), places[codes]


@dataclass(frozen=True)
class Reducer:
    """Reduces arrays over the cells of a box to arrays over the groups that the box meets.

    Parameters
    ----------
    box : tuple of int
        Length of each axis.
    parts : tuple
        The blocks of the groups.
    """

    box: tuple[int, ...]
    parts: tuple[_Part, ...]

    @cached_property
    def at(self) -> tuple[Any, ...]:
        """Index of the groups in a state of the task."""
        targets = tuple(part.target for part in self.parts)
        if all(isinstance(target, slice) for target in targets):
            return targets
        return np.ix_(*(part.groups for part in self.parts))

    @cached_property
    def shape(self) -> tuple[int, ...]:
        """Number of groups of each block."""
        return tuple(len(part.groups) for part in self.parts)

    @cached_property
    def plain(self) -> tuple[int, ...]:
        """Axes along which all cells lie in the same groups."""
        keyed = {axis for part in self._split for axis in part.axes}
        return tuple(axis for axis in range(len(self.box)) if axis not in keyed)

    @cached_property
    def _split(self) -> tuple[_Part, ...]:
        return tuple(part for part in self.parts if len(part.groups) > 1)

    @cached_property
    def counts(self) -> npt.NDArray[np.int64]:
        """Number of cells of each group."""
        return np.asarray(self.reduce(np.ones([1] * len(self.box), dtype=np.int64), np.add, np.int64))

    def resized(self, lengths: Mapping[int, int]) -> "Reducer":
        """Return the reducer of a box that has other lengths along some plain axes."""
        return Reducer(tuple(lengths.get(axis, length) for axis, length in enumerate(self.box)), self.parts)

    def reduce(self, values: Array, operation: np.ufunc, dtype: Any = None) -> Array:
        """Reduce values to one for each group.

        Parameters
        ----------
        values : ndarray
            One axis for each of the box. An axis of length 1 stands for equal values along it.
        operation : ufunc
            `numpy.add`, or one that maps equal values to the same value.
        dtype : dtype, optional
            Type in which the operation works. Values that are alone in their group keep their own type.

        Returns
        -------
        ndarray
            Of the shape of the groups.
        """
        factor = 1
        if operation is np.add:
            factor = prod(self.box[axis] for axis in self.plain if values.shape[axis] == 1)
        if along := tuple(axis for axis in self.plain if values.shape[axis] > 1):
            values = operation.reduce(values, axis=along, dtype=dtype, keepdims=True)
        if self._split:
            values = self._by_group(values, operation, dtype)
        values = values.reshape(self.shape)
        return values * factor if factor != 1 else values

    def _by_group(self, values: Array, operation: np.ufunc, dtype: Any) -> Array:
        keyed = [axis for part in self._split for axis in part.axes]
        full = [self.box[axis] if axis in keyed else 1 for axis in range(len(self.box))]
        if list(values.shape) != full:
            values = np.broadcast_to(values, full)
        lengths = [prod(self.box[axis] for axis in part.axes) for part in self._split]
        values = values.transpose([*keyed, *self.plain]).reshape(lengths)
        for axis, part in enumerate(self._split):
            if part.order is not None:
                values = values.take(part.order, axis=axis)
            if part.starts is not None:
                values = operation.reduceat(values, part.starts, axis=axis, dtype=dtype)
        return values

    def spread(self, values: Array) -> Array:
        """Return the value of each cell's group, of length 1 along the plain axes."""
        values = values.reshape([len(part.groups) for part in self._split])
        for axis, part in enumerate(self._split):
            values = values.take(part.local, axis=axis)
        keyed = [axis for part in self._split for axis in part.axes]
        values = values.reshape([self.box[axis] for axis in keyed]).transpose(np.argsort(keyed, kind="stable"))
        return values.reshape([self.box[axis] if axis in keyed else 1 for axis in range(len(self.box))])
