"""Jobs on an existing group: cells found by their labels, new arrays, and longer dimensions."""

from collections.abc import Callable, Mapping
from dataclasses import dataclass, replace
from math import prod
from typing import Any

import polars as pl
from zarr.abc.store import Store

from rainbear_dask.convert.grid import Dims, positions_of
from rainbear_dask.exceptions import QueryError, RowsError
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.table.model import Table, unknown_column
from rainbear_dask.writing.content import Content, Rows, collected, content_of_frames, content_of_plan, plan_labels
from rainbear_dask.writing.encodings import NewColumn
from rainbear_dask.writing.layout import Layout, labels_of, new_layout, slot_of, with_length
from rainbear_dask.writing.plans import filters_of, is_contiguous
from rainbear_dask.writing.rows import Job, Options, check_missing, plan_writer, write_frames, write_labels
from rainbear_dask.writing.slots import Slot


@dataclass(frozen=True)
class Existing:
    """A group that is there.

    Parameters
    ----------
    table : Table
        The group as a table.
    path : str
        Its path in the store that is written to.
    """

    table: Table
    path: str


def region_job(data: Rows, dims: Dims | None, existing: Existing, options: Options, *, may_add: bool) -> Job:
    """Return the job that writes into cells of an existing group, found by their labels.

    Parameters
    ----------
    data, dims, options
        As in `new.new_job`. ``dims`` may be None.
    existing : Existing
        The group.
    may_add : bool
        Whether columns that the group lacks become new arrays.

    Raises
    ------
    RowsError
        If a label is not on the axis of the target, or an array cannot hold a column.
    UnknownColumnError
        If the group lacks a column, and nothing may be added.
    """
    table = existing.table
    order = _order(dims, table)
    axes = {dim: labels_of(table, dim) for dim in order}
    sizes = {dim: len(labels) for dim, labels in axes.items()}
    _check_region(options.region, sizes)
    for dim, labels in axes.items():
        if labels.n_unique() < len(labels):
            raise RowsError(
                f"The labels of {dim!r} in {table.spec.label} repeat, so rows fit several cells. Write a new target."
            )
    if isinstance(data, ReadPlan):
        placed = None if filters_of(data) or options.region != "auto" else _stretches(data, axes)
        if placed is not None and all(c.name in table.columns for c in data.columns):
            content = content_of_plan(data, list(order))
            slots = _existing_slots(
                [c for c in content.columns if c.name not in sizes and set(c.dims) == set(order)], existing
            )
            rest = [c.name for c in content.columns if c.name not in slots and c.name not in sizes]
            if not rest:
                return Job(Layout(slots), plan_writer(content.plan or data, slots, placed, options))
        data = collected(data, options.client)
    content = content_of_frames(data, axes if not isinstance(data, pl.DataFrame) else list(order))
    known = [c for c in content.columns if c.name not in axes and c.name in table.columns]
    added = [c for c in content.columns if c.name not in axes and c.name not in table.columns]
    if added and not may_add:
        raise unknown_column(added[0].name, [n for n in table.columns if n not in axes], table.spec.label)
    slots = _existing_slots(known, existing)
    layout = Layout(slots)
    if added:
        made = new_layout(
            added,
            sizes,
            existing.path,
            attributes={},
            grid_mappings={},
            auxiliary=(),
            encoding=options.encoding,
            chunks=options.chunks,
            shards=options.shards,
        )
        documents = {key: text for key, text in made.documents.items() if key != "zarr.json"}
        layout = Layout({**slots, **made.slots}, documents, consolidate=True)
    own = prod(content.sizes.values())

    def write(place: Callable[[], Store]) -> None:
        within = _within(content, axes, options.region)
        write_frames(place(), layout.slots, within, axes, options, own_cells=own)
        if added and own < prod(sizes.values()):
            check_missing(
                [layout.slots[c.name] for c in added], prod(sizes.values()) - own, replace(options, missing="fill")
            )

    return Job(layout, write)


def append_job(data: Rows, dims: Dims | None, existing: Existing, options: Options) -> Job:
    """Return the job that makes a dimension of an existing group longer.

    Parameters
    ----------
    data, dims, options
        As in `new.new_job`. ``dims`` may be None.
    existing : Existing
        The group; ``options.append_dim`` is one of its dimensions.

    Raises
    ------
    RowsError
        If a label is there already or does not continue the axis, or the rows lack a column.
    """
    table = existing.table
    dim, order = str(options.append_dim), _order(dims, table)
    if dim not in order:
        raise unknown_column(dim, list(order), f"the dimensions of {table.spec.label}")
    axes = {name: labels_of(table, name) for name in order}
    plan = data if isinstance(data, ReadPlan) else None
    if plan is not None:
        new = plan_labels(plan, dim)
    else:
        content = content_of_frames(data, list(order)) if isinstance(data, pl.DataFrame) else _all_frames(data, order)
        new = content.axes[dim]
    start, is_index = len(axes[dim]), dim not in table.columns or table.columns[dim].array is None
    axes[dim] = _longer(axes[dim], new, table, is_index=is_index)
    growing = {n: c for n, c in table.columns.items() if dim in c.dims and c.array is not None and n != dim}
    given = [c.name for c in plan.columns] if plan is not None else [c.name for c in content.columns]
    _check_columns(given, list(growing), table, dim)
    placed = None if plan is None else _stretches(plan, axes)
    if plan is not None and placed is not None:
        whole = content_of_plan(plan, list(order))
        slots = _grown([c for c in whole.columns if c.name in growing], existing, dim, len(axes[dim]))
        labels = _label_slots(existing, dim, axes)
        write_rows = plan_writer(whole.plan or plan, slots, placed, options)

        def write(place: Callable[[], Store]) -> Any:
            done = write_rows(place)
            write_labels(place(), labels, axes, start, [dim])
            return done

        return Job(Layout({**slots, **labels}, consolidate=True), write, (dim, len(axes[dim])))
    if plan is not None:
        content = content_of_frames(collected(plan, options.client), list(order))
    slots = _grown([c for c in content.columns if c.name in growing], existing, dim, len(axes[dim]))
    slots |= _label_slots(existing, dim, axes)
    content = replace(content, columns=tuple(c for c in content.columns if c.name in slots))
    part = {name: (start if name == dim else 0, len(labels)) for name, labels in axes.items()}

    def write_grown(place: Callable[[], Store]) -> None:
        store = place()
        write_frames(store, slots, content, axes, options, part=part)
        write_labels(store, slots, axes, start, [dim])

    return Job(Layout(slots, consolidate=True), write_grown, (dim, len(axes[dim])))


def _check_columns(given: list[str], growing: list[str], table: Table, dim: str) -> None:
    for name in growing:
        if name not in given:
            raise RowsError(f"The rows lack the column {name!r}, which {table.spec.label} has along {dim}. Add it.")
    for name in given:
        if name not in table.columns and name not in table.sizes:
            raise unknown_column(name, [n for n in table.columns if n not in table.sizes], table.spec.label)


def _all_frames(data: Any, order: tuple[str, ...]) -> Content:
    return content_of_frames(pl.concat(list(data)), list(order))


def _order(dims: Dims | None, table: Table) -> tuple[str, ...]:
    order = tuple(table.sizes) if dims is None else tuple([dims] if isinstance(dims, str) else dims)
    if sorted(order) != sorted(table.sizes):
        raise QueryError(
            f"The target {table.spec.label} has the dimensions {', '.join(table.sizes)}, not {', '.join(order)}."
        )
    return order


def _existing_slots(columns: list[NewColumn], existing: Existing) -> dict[str, Slot]:
    slots, table = {}, existing.table
    for column in columns:
        there = table.columns[column.name]
        if there.array is None or set(there.dims) != set(column.dims):
            raise RowsError(
                f"The array {column.name!r} of {table.spec.label} has the dimensions {', '.join(there.dims)}, and the rows "
                f"have {', '.join(column.dims)}. Leave the column out."
            )
        slots[column.name] = slot_of(there.array, column.dtype, existing.path, coordinate=there.role != "data")
    return slots


def _grown(columns: list[NewColumn], existing: Existing, dim: str, length: int) -> dict[str, Slot]:
    return {name: with_length(slot, dim, length) for name, slot in _existing_slots(columns, existing).items()}


def _label_slots(existing: Existing, dim: str, axes: Mapping[str, pl.Series]) -> dict[str, Slot]:
    column = existing.table.columns.get(dim)
    if column is None or column.array is None:
        return {}
    slot = slot_of(column.array, axes[dim].dtype, existing.path, coordinate=True)
    return {dim: with_length(slot, dim, len(axes[dim]))}


def _stretches(plan: ReadPlan, axes: Mapping[str, pl.Series]) -> dict[str, int] | None:
    """Return where the labels of a plan begin on each axis; None if one is no stretch of its axis."""
    if set(plan.table.sizes) != set(axes):
        raise QueryError(
            f"The scan has the dimensions {', '.join(plan.table.sizes)}, and the target {', '.join(axes)}."
        )
    starts = {}
    for dim, labels in axes.items():
        own = plan_labels(plan, dim)
        at = positions_of(own.to_frame(), {dim: labels}, f"the labels of {dim} in the target")[dim]
        if not is_contiguous(at):
            return None
        starts[dim] = int(at[0]) if len(at) else 0
    return starts


def _longer(old: pl.Series, new: pl.Series, table: Table, *, is_index: bool) -> pl.Series:
    """Return the labels of an axis with new ones behind."""
    name, label = old.name, table.spec.label
    if is_index:
        new = new.sort()
        if new.dtype.is_integer() and new.to_list() == list(range(len(old), len(old) + len(new))):
            return old.append(new.cast(old.dtype))
        raise RowsError(f"The dimension {name!r} of {label} has no labels, so new rows count on from {len(old)}.")
    found = new.cast(old.dtype, strict=False)
    if found.null_count() > new.null_count() or not found.cast(new.dtype).equals(new):
        raise RowsError(
            f"The column {name!r} is {new.dtype}, and the axis of {label} holds {old.dtype}. Cast it first."
        )
    if found.n_unique() < len(found):
        raise RowsError(f"The new labels of {name!r} repeat. Give each label once.")
    if (there := found.filter(found.is_in(old.implode()))).len():
        raise RowsError(
            f"The label {name}={there[0]} is in {label} already. Write it with mode='r+', or drop these rows."
        )
    up, down = old.is_sorted(), old.is_sorted(descending=True)
    if len(old) > 1 and (up or down):
        found = found.sort(descending=not up)
    whole = old.append(found)
    if (up or down) and len(old) > 1 and not whole.is_sorted(descending=not up):
        raise RowsError(f"The new labels of {name!r} do not continue the axis of {label}, which ends at {old[-1]}.")
    return whole


def _check_region(region: Any, sizes: Mapping[str, int]) -> None:
    if region == "auto":
        return
    if not isinstance(region, Mapping) or not all(isinstance(each, slice) for each in region.values()):
        raise QueryError("The option `region` is neither 'auto' nor slices by dimension: {'time': slice(0, 24)}.")
    for dim in region:
        if dim not in sizes:
            raise QueryError(f"The option `region` names {dim!r}, and the dimensions are {', '.join(sizes)}.")


def _within(content: Content, axes: Mapping[str, pl.Series], region: Any) -> Content:
    """Return content whose frames have been compared with the region."""
    if region == "auto":
        return content

    def checked() -> Any:
        for frame in content.frames:
            for dim, at in positions_of(frame, axes).items():
                wanted = range(*region.get(dim, slice(None)).indices(len(axes[dim])))
                if len(at) and not (wanted and wanted[0] <= at.min() and at.max() <= wanted[-1]):
                    raise RowsError(f"Rows have labels of {dim!r} outside of the region {region[dim]}.")
            yield frame

    return replace(content, frames=checked())
