"""Partial states of tasks, and their merge."""

from collections.abc import Iterable, Mapping, Sequence
from dataclasses import dataclass, replace
from functools import reduce
from typing import Any

import numpy as np
import numpy.typing as npt

from rainbear_dask.aggregation.groups import Array, Numbers
from rainbear_dask.aggregation.states import GroupStates, by_operand


@dataclass(frozen=True, slots=True, eq=False)
class Product:
    """Numbers of cells of some groups, as an outer product of vectors.

    Parameters
    ----------
    groups : tuple of ndarray of int32
        Numbers of the groups in each block.
    factor : int
        A factor of all.
    vectors : tuple of ndarray of int64
        For each block, a number for each of its groups.
    """

    groups: tuple[Numbers, ...]
    factor: int
    vectors: tuple[npt.NDArray[np.int64], ...]

    def cells(self) -> Array:
        """Return the number of cells of each group."""
        return reduce(np.multiply.outer, self.vectors, np.array(self.factor, dtype=np.int64))

    @property
    def shape(self) -> tuple[bytes, ...]:
        """The groups and the vectors; products of one shape add up by their factors."""
        arrays: tuple[Array, ...] = (*self.groups, *self.vectors)
        return tuple(each.tobytes() for each in arrays)


@dataclass(frozen=True, slots=True, eq=False)
class Partial:
    """Partial states of some groups. Pickle sends its arrays out of band.

    Parameters
    ----------
    groups : tuple of ndarray of int32
        Numbers of the groups in each block, ascending.
    states : mapping
        Arrays over the groups, by operand and kind.
    products : tuple of Product
        Cells that all count, but for the ones that ``missing`` states name. ``n`` states count all others.
    """

    groups: tuple[Numbers, ...]
    states: Mapping[tuple[int, str], Any]
    products: tuple[Product, ...] = ()

    @property
    def nbytes(self) -> int:
        """Bytes of all arrays."""
        vectors = [each for product in self.products for each in (*product.groups, *product.vectors)]
        return sum(int(array.nbytes) for array in (*self.groups, *self.states.values(), *vectors))

    def __sizeof__(self) -> int:
        """Return the bytes held; Dask sums them up to know the memory use of a worker."""
        return object.__sizeof__(self) + self.nbytes


def merge_partials(partials: Sequence[Partial]) -> Partial:
    """Merge partial states in their order; a top-level function, which workers call.

    Parameters
    ----------
    partials : sequence of Partial
        States of the same operands, at least one.

    Returns
    -------
    Partial
        States of the union of their groups.
    """
    blocks = zip(*(partial.groups for partial in partials), strict=True)
    groups = tuple(np.unique(np.concatenate(numbers)) for numbers in blocks)
    states = GroupStates(tuple(map(len, groups)))
    for partial in partials:
        at = index_of(groups, partial.groups)
        for operand, parts in by_operand(partial.states):
            states.add(operand, at, parts)
    products: dict[tuple[bytes, ...], Product] = {}
    add_products(products, (product for partial in partials for product in partial.products))
    return Partial(groups, states.arrays, tuple(products.values()))


def add_products(known: dict[tuple[bytes, ...], Product], products: Iterable[Product]) -> None:
    """Add products to known ones, which their shapes name."""
    for product in products:
        found = known.get(shape := product.shape)
        known[shape] = product if found is None else replace(found, factor=found.factor + product.factor)


def index_of(groups: Sequence[Numbers], some: Sequence[Numbers]) -> Any:
    """Return the index of some groups in an array over groups: slices, if possible, because these copy nothing."""
    places = [np.searchsorted(every, numbers) for every, numbers in zip(groups, some, strict=True)]
    if all(len(each) and each[-1] - each[0] + 1 == len(each) for each in places):
        return tuple(slice(int(each[0]), int(each[-1]) + 1) for each in places)
    return np.ix_(*places)
