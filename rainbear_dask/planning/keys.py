"""`KeyCells`: the cells of a table whose keys have a partner in another table."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass

import numpy as np
import numpy.typing as npt

from rainbear_dask.indexing.index_set import IndexSet, Positions


@dataclass(frozen=True, slots=True, eq=False)
class TaskCells:
    """The cells of a task that count, along some of its dimensions.

    Parameters
    ----------
    axes : tuple of int
        Axes of these dimensions.
    numbers : ndarray of uint32
        Numbers of the cells, in C order of the positions of the task along these axes.
    """

    axes: tuple[int, ...]
    numbers: npt.NDArray[np.uint32]

    def mask(self, shape: Sequence[int]) -> npt.NDArray[np.bool_]:
        """Return a mask that broadcasts to the positions of the task."""
        lengths = [n if axis in self.axes else 1 for axis, n in enumerate(shape)]
        mask = np.zeros(lengths, dtype=np.bool_)
        mask.reshape(-1)[self.numbers] = True
        return mask


@dataclass(frozen=True, slots=True, eq=False)
class KeyCells:
    """The cells at which keys of a join have a partner.

    Parameters
    ----------
    dims : tuple of str
        Dimensions of the keys, in row order.
    cells : ndarray of int64, shape (n, len(dims))
        Positions of each cell; distinct rows in ascending order.
    label : str
        The keys, for reports.
    """

    dims: tuple[str, ...]
    cells: Positions
    label: str

    def within(self, index: Mapping[str, IndexSet]) -> TaskCells:
        """Return the cells that lie in a product of positions, which spans all dimensions of a table."""
        low, high = index[self.dims[0]].hull
        along_first = self.cells[:, 0]
        cells = self.cells[np.searchsorted(along_first, low) : np.searchsorted(along_first, high)]
        for axis, dim in enumerate(self.dims):
            begins = np.searchsorted(index[dim].starts, cells[:, axis], side="right") - 1
            cells = cells[(begins >= 0) & (cells[:, axis] < index[dim].stops[begins])]
        ranks = [index[dim].count_below(cells[:, axis]) for axis, dim in enumerate(self.dims)]
        numbers = np.ravel_multi_index(ranks, [len(index[dim]) for dim in self.dims])
        dims = list(index)
        return TaskCells(tuple(map(dims.index, self.dims)), numbers.astype(np.uint32))
