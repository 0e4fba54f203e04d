"""Rows of plans and frames into the slots of a job, with the checks that need all rows."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, field
from math import prod
from typing import TYPE_CHECKING, Any, Literal

import numpy as np
import numpy.typing as npt
import polars as pl
from zarr.abc.store import Store

from rainbear_dask.coding.encode import encode
from rainbear_dask.convert.grid import flat_cells, last_of_each, positions_of
from rainbear_dask.exceptions import RowsError
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.writing.content import Content
from rainbear_dask.writing.frames import write_frame
from rainbear_dask.writing.layout import Layout
from rainbear_dask.writing.plans import can_drop, filters_of, write_plan, write_task
from rainbear_dask.writing.slots import Slot, Spans, no_fill

if TYPE_CHECKING:
    from distributed import Client


@dataclass(frozen=True)
class Options:
    """Options of a call; `rainbear_dask.write_zarr` documents them. ``run`` is the function of a plan's tasks."""

    region: Literal["auto"] | Mapping[str, slice] = "auto"
    append_dim: str | None = None
    chunks: Mapping[str, int] = field(default_factory=dict)
    shards: Mapping[str, int] = field(default_factory=dict)
    encoding: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    missing: Literal["fill", "error"] = "fill"
    duplicates: Literal["error", "last"] = "error"
    client: "Client | None" = None
    run: Callable[..., Any] = write_task


@dataclass(frozen=True)
class Job:
    """All that is needed to write, and to make the result visible.

    Parameters
    ----------
    layout : Layout
        Arrays and documents.
    write : callable
        Write the rows, given a function that returns the writable store. For a plan, return the results of its tasks.
    grows : tuple of str and int, optional
        The dimension that becomes longer, and its new length.
    """

    layout: Layout
    write: Callable[[Callable[[], Store]], Any]
    grows: tuple[str, int] | None = None


def plan_writer(
    plan: ReadPlan, slots: Mapping[str, Slot], starts: Mapping[str, int], options: Options
) -> Callable[[Callable[[], Store]], Any]:
    """Return the function that writes the columns of a plan, from some positions of the target on.

    Raises
    ------
    RowsError
        If a condition may drop cells, and an array has no fill value.
    """
    may_miss = options.missing == "fill"
    if may_miss and filters_of(plan):
        for column in plan.columns:
            if column.name in slots and can_drop(column, plan) and slots[column.name].fill is None:
                raise no_fill(column.name)

    def write(place: Callable[[], Store]) -> list[Any]:
        return list(write_plan(plan, place, slots, starts, may_miss=may_miss, client=options.client, run=options.run))

    return write


def write_labels(
    store: Store, slots: Mapping[str, Slot], axes: Mapping[str, pl.Series], start: int, dims: list[str]
) -> None:
    """Write the labels of dimensions, from a position on."""
    for dim in dims:
        labels = axes[dim][start:]
        if dim in slots and len(labels):
            at = np.arange(start, start + len(labels))
            part = {dim: (start, start + len(labels))}
            write_frame(store, [slots[dim]], labels.to_frame(), {dim: at}, part, keep=False)


def write_frames(
    store: Store,
    slots: Mapping[str, Slot],
    content: Content,
    axes: Mapping[str, pl.Series],
    options: Options,
    *,
    part: Spans | None = None,
    own_cells: int | None = None,
) -> None:
    """Write all frames of a content.

    Parameters
    ----------
    store : Store
        Writable store.
    slots : mapping of str to Slot
        Arrays by column.
    content : Content
        The frames.
    axes : mapping of str to Series
        Labels of each dimension of the target.
    options : Options
        Options of the caller.
    part : mapping, optional
        The part of the target that is new, in which cells without a row are fill. By default cells keep their values.
    own_cells : int, optional
        Number of cells that should have a row, if ``part`` does not tell.

    Raises
    ------
    RowsError
        If a row has no cell, shares it, cannot be stored, or if a cell has neither row nor fill.
    """
    sizes = {dim: len(labels) for dim, labels in axes.items()}
    data = [slots[column.name] for column in content.columns if column.name not in axes]
    whole = {dim: (0, size) for dim, size in sizes.items()} if part is None else part
    total = prod(stop - start for start, stop in whole.values()) if own_cells is None else own_cells
    count, seen = 0, None
    for frame in content.frames:
        positions = positions_of(frame, axes)
        cells = flat_cells(positions, sizes, frame.height)
        kept = last_of_each(frame, cells, sizes, options.duplicates)
        if kept is not None:
            frame = frame[pl.Series(kept)]  # noqa: PLW2901  the rows that count
            positions, cells = {dim: at[kept] for dim, at in positions.items()}, cells[kept]
        seen = _new_cells(seen, cells, sizes, frame, options)
        count = int(np.count_nonzero(seen))
        if content.is_one_frame:  # known as a whole, so that nothing is written if anything is wrong
            if count < total:
                check_missing(data, total - count, options)
            for slot in data if own_cells is not None or any(start for start, _ in whole.values()) else ():
                encode(frame[slot.name], slot.decoding)
        write_frame(store, data, frame, positions, whole, keep=part is None or not content.is_one_frame)
    if count < total:
        check_missing(data, total - count, options)


def _new_cells(
    seen: npt.NDArray[np.bool_] | None,
    cells: npt.NDArray[np.int64],
    sizes: Mapping[str, int],
    frame: pl.DataFrame,
    options: Options,
) -> npt.NDArray[np.bool_]:
    """Return the mask of cells that have a row so far; a cell of an earlier frame is a duplicate."""
    if seen is None:
        seen = np.zeros(prod(sizes.values()), dtype=np.bool_)
    elif options.duplicates == "error" and seen[cells].any():
        row = int(seen[cells].argmax())
        place = ", ".join(f"{dim}={frame[dim][row]}" for dim in sizes)
        raise RowsError(f"Two frames have a row for the same cell, {place}. Aggregate them first.")
    seen[cells] = True
    return seen


def check_missing(slots: list[Slot], count: int, options: Options) -> None:
    if options.missing == "error":
        raise RowsError(f"{count:,} cells have no row. Give all rows, or pass missing='fill'.")
    for slot in slots:
        if slot.fill is None:
            raise no_fill(slot.name)
