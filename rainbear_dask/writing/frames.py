"""Frames into slots: each row to its cell, unit by unit."""

from collections.abc import Mapping, Sequence
from concurrent.futures import ThreadPoolExecutor
from functools import partial
from math import prod

import numpy as np
import numpy.typing as npt
import polars as pl
from zarr.abc.store import Store

from rainbear_dask.convert.grid import flat_cells
from rainbear_dask.planning.plan import TASK_BYTES
from rainbear_dask.resources.settings import num_threads
from rainbear_dask.writing.slots import Slot, Spans, unit_lengths, units, write_unit


def write_frame(
    store: Store,
    slots: Sequence[Slot],
    frame: pl.DataFrame,
    positions: Mapping[str, npt.NDArray[np.int64]],
    part: Spans,
    *,
    keep: bool,
) -> None:
    """Write the rows of a frame. Threads write units, so each stored object has one writer.

    Parameters
    ----------
    store : Store
        Writable store.
    slots : sequence of Slot
        Arrays of columns of the frame; all have the same dimensions, in any order.
    frame : DataFrame
        The rows; no two have the same cell.
    positions : mapping of str to ndarray of int64
        Position of each row along each dimension of the target.
    part : mapping of str to tuple of int
        The part of the target in which all rows lie.
    keep : bool
        Whether cells without a row keep their stored values.
    """
    if not frame.height or not slots:
        return
    spans = {dim: (int(at.min()), int(at.max()) + 1) for dim, at in positions.items()}
    row_bytes = sum(slot.decoding.number.itemsize or 16 for slot in slots)
    lengths = unit_lengths({dim: stop for dim, (_, stop) in part.items()}, slots, {}, row_bytes, TASK_BYTES)
    whole = list(units(part, lengths))
    first = {dim: start // lengths[dim] for dim, (start, _) in part.items()}
    counts = {dim: -(-stop // lengths[dim]) - first[dim] for dim, (_, stop) in part.items()}
    numbers = flat_cells({d: at // lengths[d] - first[d] for d, at in positions.items()}, counts, frame.height)
    order = None
    if (numbers[1:] < numbers[:-1]).any():
        order = np.argsort(numbers, kind="stable")
        numbers = numbers[order]
    starts = np.flatnonzero(np.diff(numbers, prepend=-1))
    stops = np.append(starts[1:], len(numbers))

    def write(start: int, stop: int) -> None:
        unit = whole[int(numbers[start])]
        tight = unit if not keep else {d: (max(a, spans[d][0]), min(b, spans[d][1])) for d, (a, b) in unit.items()}
        rows = slice(start, stop) if order is None else order[start:stop]
        inside = {dim: positions[dim][rows] - tight[dim][0] for dim in part}
        shape = {dim: b - a for dim, (a, b) in tight.items()}
        cells = flat_cells(inside, shape, stop - start)
        in_order = len(cells) == prod(shape.values()) and bool((np.diff(cells) == 1).all())
        some = frame[start:stop] if order is None else frame[pl.Series(order[start:stop])]
        for slot in slots:
            write_unit(store, slot, tight, some[slot.name], None if in_order else cells, keep=keep)

    with ThreadPoolExecutor(num_threads()) as pool:
        jobs = [pool.submit(partial(write, int(a), int(b))) for a, b in zip(starts, stops, strict=True)]
        try:
            for job in jobs:
                job.result()
        except BaseException:
            pool.shutdown(wait=True, cancel_futures=True)
            raise
