"""Parts of a selection that share no group and no chunk, so that each can be answered by itself."""

from collections.abc import Iterator, Mapping, Sequence
from itertools import pairwise, product
from math import prod

import numpy as np
import numpy.typing as npt

from rainbear_dask.aggregation.question import KeyBlock, Unsplit
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Box
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.table.order import FRAME_RATIO

MAX_WHOLE_TASKS = 4
"""Bytes of a task that holds whole groups, at most, in units of the bytes of a task."""


def components(plan: ReadPlan, blocks: Sequence[KeyBlock]) -> dict[str, list[IndexSet]]:
    """Cut each dimension into sets of positions that share no group and no chunk with each other.

    Parameters
    ----------
    plan : ReadPlan
        The rows.
    blocks : sequence of KeyBlock
        The groups.

    Returns
    -------
    dict of str to list of IndexSet
        For each dimension of the table, sets in the order of their first positions. Dimensions without a key, and the
        dimensions of a key of several, have one set. The product of one set of each dimension holds all rows of its
        groups.
    """
    found = {dim: [IndexSet.span(0, length)] for dim, length in plan.table.sizes.items()}
    for block in blocks:
        if len(block.dims) == 1:
            (dim,) = block.dims
            found[dim] = _connected(block.codes, plan.layout.unit[dim])
    return found


def _connected(codes: npt.NDArray[np.int32], unit: int) -> list[IndexSet]:
    """Return the connected positions: two are, if they have the same code, or lie in the same unit."""
    positions = np.flatnonzero(codes >= 0)
    if not len(positions):
        return []
    places, codes = positions // unit, codes[positions]
    by_code = np.argsort(codes, kind="stable")
    starts_of_code = np.flatnonzero(np.append(True, np.diff(codes[by_code]) > 0))
    starts_of_place = np.flatnonzero(np.append(True, np.diff(places) > 0))
    labels, number = np.arange(len(starts_of_place)), np.cumsum(np.append(0, np.diff(places) > 0))
    while True:  # each place takes the lowest label that it reaches; labels of labels shorten the way
        of_codes = np.minimum.reduceat(labels[number[by_code]], starts_of_code)
        spread = np.empty(len(codes), dtype=labels.dtype)
        spread[by_code] = np.repeat(of_codes, np.diff(np.append(starts_of_code, len(codes))))
        lower = np.minimum.reduceat(spread, starts_of_place)
        lower = lower[lower]
        if (lower == labels).all():
            break
        labels = lower
    label_of = labels[number]
    order = np.argsort(label_of, kind="stable")
    cuts = np.flatnonzero(np.diff(label_of[order])) + 1
    return [IndexSet.from_positions(each) for each in np.split(positions[order], cuts)]


def joined(
    sets: Mapping[str, Sequence[IndexSet]], weights: Mapping[str, Sequence[int]], limit: int
) -> dict[str, list[IndexSet]]:
    """Join neighbours, along the last dimensions first, as long as the product of their weights is within a limit.

    Parameters
    ----------
    sets : mapping of str to sequence of IndexSet
        Sets of positions along each dimension.
    weights : mapping of str to sequence of int
        The weight of each.
    limit : int
        Upper bound of the product of the weights of one set of each dimension, unless a product has more by itself.

    Returns
    -------
    dict of str to list of IndexSet
        Fewer sets, in the same order.
    """
    weight, found = prod(max(each, default=1) for each in weights.values()), {}
    for dim, some in reversed(list(sets.items())):
        together = min(max(limit // max(weight, 1), 1), max(len(some), 1))
        found[dim] = [IndexSet.union(some[start : start + together]) for start in range(0, len(some), together)]
        weight *= together
    return {dim: found[dim] for dim in sets}


def whole_sets(plan: ReadPlan, blocks: Sequence[KeyBlock]) -> dict[str, list[IndexSet]]:
    """Return sets of positions along each dimension, whose products are tasks that hold whole groups.

    Raises
    ------
    Unsplit
        If such a task reads more than `MAX_WHOLE_TASKS` times the bytes of a task.
    """
    sets = components(plan, blocks)
    layout = plan.layout
    num_rows = max(prod(layout.unit.values()), 1)
    row_bytes = sum(column.width for column in layout.scan.columns)
    unit_bytes = max(layout.unit_chunk_bytes, num_rows * row_bytes // FRAME_RATIO, 1)
    limit = max(plan.task_bytes * num_rows // unit_bytes, 1)
    weights = {dim: list(map(len, some)) for dim, some in sets.items()}
    most = prod(max(each, default=0) for each in weights.values())
    if most > MAX_WHOLE_TASKS * limit:
        raise Unsplit(
            f"a task with whole groups would hold {most:,} rows, and {MAX_WHOLE_TASKS * limit:,} are the limit"
        )
    return joined(sets, weights, limit)


def keeps_order(plan: ReadPlan, sets: Mapping[str, Sequence[IndexSet]]) -> bool:
    """Whether the products of some sets are intervals of the row order, one after the other."""
    first, *others = plan.table.sizes
    hulls = [one.hull for one in sets[first]]
    apart = all(before[1] <= after[0] for before, after in pairwise(hulls))
    in_c_order = all(plan.table.blocks[dim] >= length for dim, length in plan.table.sizes.items())
    return apart and in_c_order and all(len(sets[dim]) <= 1 for dim in others)


def within(plan: ReadPlan, box: Box) -> list[Box]:
    """Return the boxes of a plan's selection inside of a box that names all dimensions."""
    found = [{dim: other.get(dim, one) & one for dim, one in box.items()} for other in plan.selection.boxes]
    return [each for each in found if all(each.values())]


def whole_tasks(plan: ReadPlan, sets: Mapping[str, Sequence[IndexSet]]) -> Iterator[ScanTask]:
    """Yield one task for each product of sets that holds a row of the plan, in C order of the sets."""
    dims = list(plan.table.sizes)
    for some in product(*(sets[dim] for dim in dims)):
        boxes = within(plan, dict(zip(dims, some, strict=True)))
        if not boxes:
            continue
        index = tuple(IndexSet.union([box[dim] for box in boxes]) for dim in dims)
        num_cells = prod(map(len, index))
        if len(boxes) == 1:
            yield ScanTask(plan.layout.scan, index, num_cells)
        else:
            max_rows = min(num_cells, sum(prod(map(len, box.values())) for box in boxes))
            yield ScanTask(plan.layout.scan, index, max_rows, tuple(tuple(box[dim] for dim in dims) for box in boxes))
