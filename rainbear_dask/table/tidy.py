"""From arrays to columns of equal length: one value per cell of a box, or of the wanted cells."""

from collections.abc import Collection, Mapping
from functools import cached_property
from math import prod
from typing import Any
from weakref import WeakValueDictionary

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.resources.buffers import borrow_array


class CellMask:
    """The wanted cells of a box, held as a mask, or as row numbers where few cells are wanted.

    Parameters
    ----------
    box : mapping of str to int
        Length of each dimension, in row order.
    wanted : ndarray of bool, optional
        Mask of the box's shape. By default all cells are wanted.
    """

    def __init__(self, box: Mapping[str, int], wanted: npt.NDArray[np.bool_] | None = None) -> None:
        self.box = dict(box)
        self.size = prod(box.values())
        self.count = self.size if wanted is None else int(np.count_nonzero(wanted))
        self._wanted = wanted

    @classmethod
    def of_rows(cls, box: Mapping[str, int], rows: npt.NDArray[np.int64]) -> "CellMask":
        """Return the cells with some numbers in C order of the box, ascending. A mask is built only on demand."""
        cells = cls(box)
        cells.count = len(rows)
        cells.rows = rows
        return cells

    @property
    def is_whole(self) -> bool:
        """Whether all cells of the box are wanted."""
        return self.count == self.size

    @property
    def is_sparse(self) -> bool:
        """Whether the cells are held as row numbers."""
        return self._wanted is None and not self.is_whole

    @property
    def nbytes(self) -> int:
        """Bytes of the mask or of the row numbers."""
        return self.rows.nbytes if self._wanted is None else self._wanted.nbytes

    @property
    def wanted(self) -> npt.NDArray[np.bool_] | None:
        """Mask of the wanted cells, of the box's shape; None if all are wanted."""
        if self.is_whole:
            return None
        if self._wanted is None:
            self._wanted = np.zeros(tuple(self.box.values()), dtype=np.bool_)
            self._wanted.reshape(-1)[self.rows] = True
        return self._wanted

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """Numbers of the wanted cells, in C order of the box, ascending."""
        return np.arange(self.size) if self._wanted is None else np.flatnonzero(self._wanted)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Mask of the wanted cells, of the box's shape."""
        return np.ones(tuple(self.box.values()), dtype=np.bool_) if self.wanted is None else self.wanted

    def positions(self) -> dict[str, npt.NDArray[np.int64]]:
        """Return, for each dimension, the position in the box of each wanted cell."""
        return dict(zip(self.box, np.unravel_index(self.rows, tuple(self.box.values())), strict=True))

    def along(self, dims: Collection[str]) -> "CellMask":
        """Project the wanted cells onto some dimensions; the others get length 1. Return itself if nothing changes."""
        if all(dim in dims or n == 1 for dim, n in self.box.items()):
            return self
        box = {dim: n if dim in dims else 1 for dim, n in self.box.items()}
        if self.is_whole:
            return CellMask(box)
        own = tuple(dim for dim in self.box if dim in dims)
        return CellMask(box, self.project(own).reshape(tuple(box.values())))

    def where(self, values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return a mask of the box from one Boolean for each wanted cell; unwanted cells are false."""
        if self.wanted is None:
            return values.reshape(tuple(self.box.values()))
        found = np.zeros(self.wanted.shape, dtype=np.bool_)
        found[self.wanted] = values
        return found

    def keep(self, values: npt.NDArray[np.bool_]) -> "CellMask":
        """Return the wanted cells that one Boolean for each of them keeps."""
        if self.is_sparse:
            return CellMask.of_rows(self.box, self.rows[values])
        return CellMask(self.box, self.where(values))

    def at(self, mask: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Return the values of a mask, which broadcasts to the box, at the wanted cells."""
        everywhere = np.broadcast_to(mask, tuple(self.box.values()))
        if self.is_sparse:
            return everywhere[tuple(self.positions().values())]
        return everywhere[self.mask]

    def project(self, dims: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        """Return the mask of the positions, one axis for each of ``dims``, that have a wanted cell."""
        if self.is_sparse:
            along = self.positions()
            found = np.zeros([self.box[dim] for dim in dims], dtype=np.bool_)
            found[tuple(along[dim] for dim in dims)] = True
            return found
        aside = tuple(axis for axis, dim in enumerate(self.box) if dim not in dims)
        some = np.logical_or.reduce(self.mask, axis=aside)
        order = [dim for dim in self.box if dim in dims]
        projected: npt.NDArray[np.bool_] = some.transpose([order.index(dim) for dim in dims])
        return projected

    def lay_out(self, values: pl.Series, dims: tuple[str, ...]) -> pl.Series:
        """Return one value of an array, flat over its dimensions, for each wanted cell, in C order of the box."""
        if self.is_whole:
            return spread(values, dims, self.box)
        if 3 * self.count > self.size:  # building all is faster than looking up most
            return spread(values, dims, self.box).filter(pl.Series(self.mask.reshape(-1)))
        return pick(values, dims, self.box, self.rows)


def spread(values: pl.Series, dims: tuple[str, ...], box: Mapping[str, int]) -> pl.Series:
    """Repeat an array along the dimensions that it lacks, to one value per cell of a box.

    Parameters
    ----------
    values : Series
        The array, flat in C order of ``dims``.
    dims : tuple of str
        Its dimensions, in array order; each is in ``box``. Empty for a scalar.
    box : mapping of str to int
        Lengths (n_0, n_1, ...) of the box's dimensions, in row order.

    Returns
    -------
    Series
        n_0 * n_1 * ... values in C order of the box (the last dimension varies fastest). If ``dims`` are all dimensions
        of the box in order, it is ``values`` itself. If values repeat often, columns may share read-only memory.

    Notes
    -----
    The order is that of ``xarray.Dataset.to_dataframe(dim_order=list(box))``, the oracle of the tests.
    """
    if dims == tuple(box) or (all(n == 1 for d, n in box.items() if d not in dims) and _in_order(dims, box)):
        return values
    if values.dtype.is_numeric() or values.dtype.is_temporal():
        physical = values if values.dtype.is_numeric() else values.to_physical()
        if not physical.has_nulls():
            return pl.Series(values.name, _repeated(physical.to_numpy(), dims, box)).cast(values.dtype)
    index = np.arange(len(values), dtype=np.uint32 if len(values) < 2**32 else np.uint64)
    everywhere = np.broadcast_to(_aligned(index, dims, box), tuple(box.values()))
    return values.gather(pl.Series(everywhere.reshape(-1)))


def _repeated(flat: npt.NDArray[Any], dims: tuple[str, ...], box: Mapping[str, int]) -> npt.NDArray[Any]:
    """Repeat plain numbers as `spread` does. If they repeat often, all callers share one read-only column.

    Most tasks of a scan differ along one dimension only, so the coordinates of the others are equal in all frames.
    """
    shape = tuple(box.values())
    key = (flat.dtype, flat.tobytes(), dims, shape, tuple(box)) if REPEATS_TO_SHARE * flat.size <= prod(shape) else None
    repeated = _shared.get(key)
    if repeated is None:
        column = borrow_array(shape, flat.dtype)
        column[...] = _aligned(flat, dims, box)
        repeated = column.reshape(-1)
        repeated.flags.writeable = False
        if key is not None:
            _shared[key] = repeated
    return repeated


REPEATS_TO_SHARE = 64
"""Repeats of each value from which on columns are shared: comparing the values is then cheap beside repeating them."""

_shared: WeakValueDictionary[Any, npt.NDArray[Any]] = WeakValueDictionary()


def pick(values: pl.Series, dims: tuple[str, ...], box: Mapping[str, int], rows: npt.NDArray[np.int64]) -> pl.Series:
    """Return an array's values at some rows of a box: ``spread(values, dims, box).gather(rows)``, without the rest.

    Parameters
    ----------
    values, dims, box
        As in `spread`.
    rows : ndarray of int64, shape (k,)
        Row numbers in C order of the box.

    Returns
    -------
    Series
        k values.
    """
    if dims == tuple(box):
        return values.gather(pl.Series(rows))
    index = np.zeros(len(rows), dtype=np.int64)
    strides = _strides(box)
    step = len(values)
    for dim in dims:
        step //= max(box[dim], 1)
        index += rows // strides[dim] % box[dim] * step
    return values.gather(pl.Series(index))


def nest(frame: pl.DataFrame) -> pl.DataFrame:
    """Pack the columns named ``child/variable`` into one Struct column ``child``, level by level.

    Returns
    -------
    DataFrame
        A struct takes the place of its first field; fields keep their order.
    """
    if not any("/" in name for name in frame.columns):
        return frame
    packed: dict[str, list[pl.Series]] = {}
    for column in frame.iter_columns():
        head, _, rest = column.name.partition("/")
        packed.setdefault(head, []).append(column.alias(rest))
    return pl.DataFrame(
        [
            frame[head] if head in frame.columns else nest(pl.DataFrame(fields)).to_struct(head)
            for head, fields in packed.items()
        ]
    )


def _in_order(dims: tuple[str, ...], box: Mapping[str, int]) -> bool:
    order = list(box)
    places = [order.index(d) for d in dims if box[d] != 1]
    return places == sorted(places)


def _aligned(flat: npt.NDArray[np.generic], dims: tuple[str, ...], box: Mapping[str, int]) -> npt.NDArray[np.generic]:
    """Reshape a flat array so that NumPy broadcasts it against the box."""
    cube = flat.reshape([box[d] for d in dims])
    cube = cube.transpose(sorted(range(len(dims)), key=lambda i: list(box).index(dims[i])))
    return cube.reshape([n if d in dims else 1 for d, n in box.items()])


def _strides(box: Mapping[str, int]) -> dict[str, int]:
    lengths = list(box.values())
    return {d: prod(lengths[i + 1 :]) for i, d in enumerate(box)}
