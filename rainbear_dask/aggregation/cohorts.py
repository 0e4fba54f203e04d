"""Parts of a selection that share no group and no chunk, so that each can be answered by itself."""

from collections.abc import Iterable, Iterator, Mapping, Sequence
from dataclasses import dataclass, replace
from itertools import pairwise, product
from math import prod

import numpy as np
import numpy.typing as npt

from rainbear_dask.aggregation.groups import Numbers, renumbered
from rainbear_dask.aggregation.partial import PartialTask
from rainbear_dask.aggregation.question import KeyBlock, Question, Unsplit
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Box
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.table.order import FRAME_RATIO

COHORT_BYTES = 2**26
"""Bytes of the states of a cohort, if the chunk grid allows it. Questions with fewer have one cohort."""

MAX_GROUPS = 2**25
"""Groups of a cohort, at most: states of 8 bytes are held for each."""

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


@dataclass(frozen=True, slots=True, eq=False)
class Cohort:
    """Groups of a question that no other cohort has, and the tasks that hold all their rows.

    Parameters
    ----------
    groups : tuple of ndarray of int32
        Numbers of the groups in each block, ascending.
    num_tasks : int
        Number of tasks.
    tasks : iterable of PartialTask
        The tasks, made lazily.
    """

    groups: tuple[Numbers, ...]
    num_tasks: int
    tasks: Iterable[PartialTask]


def group_sets(question: Question) -> dict[str, list[IndexSet]] | None:
    """Return the positions of each cohort along each dimension; None if all groups are one cohort.

    Raises
    ------
    Unsplit
        If a cohort has too many groups.
    """
    blocks = question.blocks
    largest = num_groups = prod(block.keys.height for block in blocks)
    sets = None
    if num_groups * question.group_bytes > COHORT_BYTES and not question.ordered:
        found = components(question.plan, blocks)
        weights = {dim: [1] * len(some) for dim, some in found.items()}
        for block in blocks:
            dim = block.dims[0]
            whole = [block.keys.height] * len(found[dim])
            weights[dim] = [len(_groups_of(block, one)) for one in found[dim]] if len(block.dims) == 1 else whole
        sets = joined(found, weights, COHORT_BYTES // question.group_bytes)
        largest = prod(max((len(_groups_of(block, one)) for one in sets[block.dims[0]]), default=0) for block in blocks)
    if largest > MAX_GROUPS:
        raise Unsplit(f"{largest:,} groups share chunks, and {MAX_GROUPS:,} are the limit")
    return sets


def cohorts(question: Question) -> Iterator[Cohort]:
    """Yield the cohorts of a question, lazily: one if its states are small, else as few as have small states."""
    sets, plan, blocks = group_sets(question), question.plan, question.blocks
    if sets is None:
        every = tuple(np.arange(block.keys.height, dtype=np.int32) for block in blocks)
        yield Cohort(every, plan.counts.num_tasks, question.tasks())
        return
    dims = list(plan.table.sizes)
    for some in product(*(sets[dim] for dim in dims)):
        box = dict(zip(dims, some, strict=True))
        boxes = within(plan, box)
        if boxes:
            layout = replace(plan.layout, boxes=tuple(boxes))
            groups = tuple(_groups_of(block, box[block.dims[0]]) for block in blocks)
            yield Cohort(groups, layout.tiling.num_tiles, question.partial_tasks(layout.tasks()))


def _groups_of(block: KeyBlock, positions: IndexSet) -> Numbers:
    """Return the groups of some positions; of a block of several dimensions, all groups."""
    if len(block.dims) > 1:
        return np.arange(block.keys.height, dtype=np.int32)
    codes = block.codes[positions.positions()]
    return renumbered(codes[codes >= 0], block.keys.height)[0]


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
