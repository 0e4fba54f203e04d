"""Regions of an array, and the cells of a regular grid that they touch."""

from collections.abc import Iterator, Sequence
from itertools import product
from typing import Any

Region = tuple[tuple[int, int], ...]
"""A part of an array: the half-open range of positions along each dimension."""


def cells_along(region: Region, sizes: Sequence[int]) -> list[list[tuple[int, tuple[int, int], slice]]]:
    """Cells of a grid that a region touches, along each dimension by itself; as `cut` gives them together."""
    return [
        [
            (
                i,
                (max(start - i * size, 0), min(stop - i * size, size)),
                slice(max(i * size - start, 0), min((i + 1) * size, stop) - start),
            )
            for i in range(start // size, -(-stop // size))
        ]
        for (start, stop), size in zip(region, sizes, strict=True)
    ]


def cut(region: Region, sizes: Sequence[int]) -> Iterator[tuple[tuple[int, ...], Region, tuple[Any, ...]]]:
    """Cells of a grid that a region touches: the index of each, what is wanted of it, and where in the region that is."""
    for parts in product(*cells_along(region, sizes)):
        place = (*(at for _, _, at in parts), ...)  # of no dimension too it is a part, and no value
        yield tuple(i for i, _, _ in parts), tuple(inside for _, inside, _ in parts), place
