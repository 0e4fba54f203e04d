"""Chunks of all requested columns at one place of the grid, handed to consumers one after the other."""

from collections.abc import Callable, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy as np
import numpy.typing as npt

from rainbear_dask.chunks import read as storage
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column
from rainbear_dask.table.tidy import CellMask

S_co = TypeVar("S_co", covariant=True)
S = TypeVar("S")


@dataclass(frozen=True, slots=True, eq=False)
class ChunkGroup:
    """Chunks of all requested columns at one place, or at some neighbouring places, of the grid.

    Parameters
    ----------
    index : mapping of str to IndexSet
        Positions of the table along each of its dimensions, in row order.
    place : tuple of slice
        Where these positions lie in the box of the task's index.
    cells : CellMask
        The wanted cells of the group's box.
    stored : mapping of str to ndarray
        For each column, stored values at the group's positions, axes in the order of the column's own dimensions.
        Valid only during `Consumer.use`.
    """

    index: Mapping[str, IndexSet]
    place: tuple[slice, ...]
    cells: CellMask
    stored: Mapping[str, npt.NDArray[Any]]


class Consumer(Protocol[S_co]):
    """Takes the groups of a strip, in order, on one thread."""

    def use(self, group: ChunkGroup) -> None:
        """Take one group."""
        ...

    def done(self) -> S_co:
        """Return the state after the last group."""
        ...


def consume_groups(
    spec: StoreSpec,
    columns: Sequence[Column],
    index: Mapping[str, IndexSet],
    cells: CellMask,
    make: Callable[[], Consumer[S]],
) -> list[S]:
    """Read columns at some positions, and hand them to consumers.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    columns : sequence of Column
        Columns with an array.
    index : mapping of str to IndexSet
        Positions along each dimension of the table, in row order.
    cells : CellMask
        The wanted cells.
    make : callable
        Makes the consumer of a strip.

    Returns
    -------
    list
        The state of each strip, in the order of the strips. Strips are a function of the task alone.
    """
    stored = {}
    for each in columns:
        along = [index[dim] for dim in each.dims]
        hulls = tuple(one.hull for one in along)
        (values,) = storage.read_regions(spec, [(each.array, hulls)])  # type: ignore[list-item]
        stored[each.name] = values[np.ix_(*(one.positions() - one.hull[0] for one in along))] if along else values
    consumer = make()
    consumer.use(ChunkGroup(index, tuple(slice(0, len(one)) for one in index.values()), cells, stored))
    return [consumer.done()]
