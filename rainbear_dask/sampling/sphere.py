"""`SphereIndex`: the nearest cells of a curvilinear grid, whose coordinates have two dimensions."""

from dataclasses import dataclass
from typing import Any

import numpy as np
import numpy.typing as npt

from rainbear_dask.dependencies import require
from rainbear_dask.indexing.index_set import Positions
from rainbear_dask.sampling.axes import Valid

Floats = npt.NDArray[np.float64]

EARTH_RADIUS = 6_371_008.8
"""Mean radius of the Earth in metres (IUGG)."""


def unit_vectors(longitudes: npt.NDArray[Any], latitudes: npt.NDArray[Any]) -> Floats:
    """Return the vectors, of shape (..., 3), from the centre of a sphere of radius 1 to places in degrees."""
    lon, lat = np.radians(longitudes.astype(np.float64)), np.radians(latitudes.astype(np.float64))
    return np.stack([np.cos(lat) * np.cos(lon), np.cos(lat) * np.sin(lon), np.sin(lat)], axis=-1)


def metres(chords: Floats) -> Floats:
    """Return the great-circle distances, in metres, of chords of a sphere of radius 1."""
    return 2 * EARTH_RADIUS * np.arcsin(np.minimum(chords / 2, 1))


@dataclass(frozen=True)
class SphereIndex:
    """Cells of a grid of two dimensions on the sphere.

    Parameters
    ----------
    vectors : ndarray, shape (m, n, 3)
        The cells, from `unit_vectors`; NaN where a coordinate is null.
    tree : scipy.spatial.KDTree
        Of the cells without NaN.
    cells : ndarray of int64
        Number of each cell of the tree, in C order of the grid.
    """

    vectors: Floats
    tree: Any
    cells: Positions

    def nearest(self, points: Floats) -> tuple[Positions, Positions, Floats, Valid]:
        """Find the nearest cell of each point.

        Parameters
        ----------
        points : ndarray, shape (k, 3)
            From `unit_vectors`, without NaN.

        Returns
        -------
        rows, columns : ndarray of int64
            Positions of the cells along both dimensions.
        distances : ndarray
            In metres.
        beyond : ndarray of bool
            Which points lie outside of the grid: farther from the cell than half of the way from it to the farthest of
            its eight neighbours.
        """
        chords, found = self.tree.query(points)
        rows, columns = np.unravel_index(self.cells[found], self.vectors.shape[:2])
        reach = np.zeros(len(points))
        own = self.vectors[rows, columns]
        for down in (-1, 0, 1):
            for right in (-1, 0, 1):
                row, column = rows + down, columns + right
                there = (row >= 0) & (row < self.vectors.shape[0]) & (column >= 0) & (column < self.vectors.shape[1])
                other = self.vectors[np.where(there, row, rows), np.where(there, column, columns)]
                reach = np.fmax(reach, np.linalg.norm(other - own, axis=-1))
        beyond = (chords > reach / 2 * (1 + 1e-9)) & (reach > 0)
        return rows, columns, metres(chords), beyond


def sphere_index(longitudes: npt.NDArray[Any], latitudes: npt.NDArray[Any]) -> SphereIndex:
    """Return the index of a grid.

    Parameters
    ----------
    longitudes, latitudes : ndarray, shape (m, n)
        In degrees; NaN for cells that match no point.

    Raises
    ------
    MissingDependencyError
        If SciPy is not installed.
    """
    vectors = unit_vectors(longitudes, latitudes)
    cells = np.flatnonzero(np.isfinite(vectors).all(axis=-1))
    tree = require("scipy.spatial", extra="sample").KDTree(vectors.reshape(-1, 3)[cells])
    return SphereIndex(vectors, tree, cells)
