"""From arrays over some dimensions to columns with one row per cell of a box."""

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
    """Some cells of a box, or all of them.

    Parameters
    ----------
    box : mapping of str to int
        Length of each dimension, in row order.
    wanted : ndarray of bool, optional
        Of the box's shape. By default all cells are wanted.
    """

    def __init__(self, box: Mapping[str, int], wanted: npt.NDArray[np.bool_] | None = None) -> None:
        self.box = dict(box)
        self.size = prod(box.values())
        self.count = self.size if wanted is None else int(np.count_nonzero(wanted))
        self.wanted = None if self.count == self.size else wanted

    @cached_property
    def rows(self) -> npt.NDArray[np.int64]:
        """Numbers of the wanted cells in C order of the box, ascending."""
        return np.arange(self.size) if self.wanted is None else np.flatnonzero(self.wanted)

    @property
    def mask(self) -> npt.NDArray[np.bool_]:
        """Which cells are wanted, of the box's shape."""
        return np.ones(tuple(self.box.values()), dtype=np.bool_) if self.wanted is None else self.wanted

    def along(self, dims: Collection[str]) -> "CellMask":
        """The wanted cells as seen along some dimensions, the others having length one; itself where that is all."""
        if all(dim in dims or n == 1 for dim, n in self.box.items()):
            return self
        box = {dim: n if dim in dims else 1 for dim, n in self.box.items()}
        if self.wanted is None:
            return CellMask(box)
        aside = tuple(axis for axis, dim in enumerate(self.box) if dim not in dims)
        return CellMask(box, np.logical_or.reduce(self.wanted, axis=aside, keepdims=True))

    def where(self, values: npt.NDArray[np.bool_]) -> npt.NDArray[np.bool_]:
        """Lay a Boolean for each wanted cell out over the box; cells that are not wanted are false."""
        if self.wanted is None:
            return values.reshape(tuple(self.box.values()))
        found = np.zeros(self.wanted.shape, dtype=np.bool_)
        found[self.wanted] = values
        return found

    def project(self, dims: tuple[str, ...]) -> npt.NDArray[np.bool_]:
        """Which positions of some dimensions, one axis for each, have a wanted cell."""
        aside = tuple(axis for axis, dim in enumerate(self.box) if dim not in dims)
        some = np.logical_or.reduce(self.wanted, axis=aside)  # type: ignore[arg-type]  # only asked for as above
        order = [dim for dim in self.box if dim in dims]
        projected: npt.NDArray[np.bool_] = some.transpose([order.index(dim) for dim in dims])
        return projected

    def lay_out(self, values: pl.Series, dims: tuple[str, ...]) -> pl.Series:
        """Give an array, flat over its dimensions, one value for each wanted cell, in C order of the box."""
        if self.wanted is None:
            return spread(values, dims, self.box)
        if 3 * self.count > self.size:  # most are wanted: all are built faster than some are looked up
            return spread(values, dims, self.box).filter(pl.Series(self.wanted.reshape(-1)))
        return pick(values, dims, self.box, self.rows)


def spread(values: pl.Series, dims: tuple[str, ...], box: Mapping[str, int]) -> pl.Series:
    """Repeat an array along the dimensions that it lacks, so that it has one value per cell of a box.

    Parameters
    ----------
    values : Series
        The array, flat in C order of ``dims``.
    dims : tuple of str
        Its dimensions, in array order; each is in ``box``. None for a scalar.
    box : mapping of str to int
        Lengths (n_0, n_1, ...) of the box's dimensions, in row order.

    Returns
    -------
    Series
        n_0 * n_1 * ... values in C order of the box (the last dimension varies fastest). Where ``dims`` are all the
        box's dimensions in order, it is ``values`` itself; where few numbers are repeated often, it may have its memory in
        common with other columns, so nothing may be written there (and Polars writes nothing).

    Notes
    -----
    Same order as ``xarray.Dataset.to_dataframe(dim_order=list(box))``, which the tests use as the oracle.
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
    """What `spread` makes of plain numbers. Where few are repeated often, all who ask are given one and the same memory.

    The tasks of a scan mostly differ in one dimension, and the coordinates of the others are the same in all frames.
    """
    shape = tuple(box.values())
    key = (flat.dtype, flat.tobytes(), dims, shape, tuple(box)) if _OFTEN * flat.size <= prod(shape) else None
    repeated = _shared.get(key)
    if repeated is None:
        column = borrow_array(shape, flat.dtype)
        column[...] = _aligned(flat, dims, box)
        repeated = column.reshape(-1)
        repeated.flags.writeable = False
        if key is not None:
            _shared[key] = repeated
    return repeated


_OFTEN = 64
"""How often values are repeated, at least, to be looked for: what tells them apart is small beside what is made of them."""

_shared: WeakValueDictionary[Any, npt.NDArray[Any]] = WeakValueDictionary()


def pick(values: pl.Series, dims: tuple[str, ...], box: Mapping[str, int], rows: npt.NDArray[np.int64]) -> pl.Series:
    """Give an array's values at some rows of a box: ``spread(values, dims, box).gather(rows)``, built for them alone.

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
        A struct stands where its first field stood; fields keep their order.
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
    """Shape a flat array so that NumPy broadcasts it against the box."""
    cube = flat.reshape([box[d] for d in dims])
    cube = cube.transpose(sorted(range(len(dims)), key=lambda i: list(box).index(dims[i])))
    return cube.reshape([n if d in dims else 1 for d, n in box.items()])


def _strides(box: Mapping[str, int]) -> dict[str, int]:
    lengths = list(box.values())
    return {d: prod(lengths[i + 1 :]) for i, d in enumerate(box)}
