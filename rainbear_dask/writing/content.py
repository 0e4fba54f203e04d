"""The content to write: a plan whose tasks write, or frames; with dimensions, columns and labels."""

from collections.abc import Iterable, Mapping
from dataclasses import dataclass, field, replace
from typing import TYPE_CHECKING, Any

import polars as pl

from rainbear_dask.convert.grid import Dims, axes_of
from rainbear_dask.exceptions import QueryError, RowsError
from rainbear_dask.execution.run import iter_frames
from rainbear_dask.metadata.groups import grid_mappings
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.storage.credentials import unseal
from rainbear_dask.table.columns import whole_column
from rainbear_dask.table.model import Column
from rainbear_dask.writing.encodings import NewColumn
from rainbear_dask.writing.plans import selected

if TYPE_CHECKING:
    from distributed import Client

Rows = ReadPlan | pl.DataFrame | Iterable[pl.DataFrame]


@dataclass(frozen=True)
class Content:
    """Columns on named dimensions.

    Parameters
    ----------
    dims : tuple of str
        Dimensions in the order of the target.
    sizes : mapping of str to int
        Number of labels of each.
    columns : tuple of NewColumn
        Coordinates of dimensions, then all others.
    plan : ReadPlan or None
        The plan that reads them, with all columns; None for frames.
    axes : mapping of str to Series
        Labels of each dimension; of a plan only if `with_labels` has read them.
    frames : iterable of DataFrame
        The rows; empty for a plan.
    attributes, grid_mappings : mapping
        Attributes of the group, and of grid mappings by name.
    auxiliary : tuple of str
        Columns that are coordinates without being dimensions.
    is_one_frame : bool
        Whether one frame has all rows.
    """

    dims: tuple[str, ...]
    sizes: Mapping[str, int]
    columns: tuple[NewColumn, ...]
    plan: ReadPlan | None = None
    axes: Mapping[str, pl.Series] = field(default_factory=dict)
    frames: Iterable[pl.DataFrame] = ()
    attributes: Mapping[str, Any] = field(default_factory=dict)
    grid_mappings: Mapping[str, Mapping[str, Any]] = field(default_factory=dict)
    auxiliary: tuple[str, ...] = ()
    is_one_frame: bool = False


def content_of_plan(plan: ReadPlan, dims: Dims | None) -> Content:
    """Return the content of a plan. Labels stay unread.

    Raises
    ------
    QueryError
        If the plan has a limit or variables of child groups, or ``dims`` are not its dimensions.
    """
    table = plan.table
    if plan.limit is not None or plan.head is not None:
        raise QueryError(
            "The query is limited to its first rows, which are no grid. Filter by coordinates, or collect it first."
        )
    if below := [column.name for column in plan.columns if "/" in column.name]:
        raise QueryError(
            f"The query has variables of child groups, {below[0]}. Scan one group with `group`, or select others."
        )
    order = tuple(table.sizes) if dims is None else tuple([dims] if isinstance(dims, str) else dims)
    if sorted(order) != sorted(table.sizes):
        raise QueryError(
            f"The dimensions {', '.join(order)} are not those that the scan has: {', '.join(table.sizes)}."
        )
    axes = selected(plan)
    labels = [
        table.columns.get(dim) or Column(dim, "dimension", (dim,))
        for dim in order
        if dim not in table.columns
        or table.columns[dim].array is not None
        or (axes[dim].hull != (0, len(axes[dim])) and len(axes[dim]))
    ]
    labels = [column for column in labels if column.name in table.columns]
    others = [c for c in plan.columns if c.name not in order]
    columns = tuple(
        NewColumn(c.name, tuple(dim for dim in order if dim in c.dims), c.dtype, c) for c in (*labels, *others)
    )
    source, options = unseal(table.spec)
    meta = open_store(source, group=table.spec.group or None, storage_options=options)
    attributes = {n: v for n, v in meta.groups.get("", {}).items() if n != "coordinates"}
    return Content(
        dims=order,
        sizes={dim: len(axes[dim]) for dim in order},
        columns=columns,
        plan=replace(plan, columns=tuple(dict.fromkeys((*labels, *others)))),
        attributes=attributes,
        grid_mappings=grid_mappings(meta, [c.array for c in others if c.array is not None]),
        auxiliary=tuple(c.name for c in others if c.role == "auxiliary"),
    )


def plan_labels(plan: ReadPlan, dim: str) -> pl.Series:
    """Return the labels of a dimension that a plan selects."""
    column = plan.table.columns.get(dim) or Column(dim, "dimension", (dim,))
    whole = whole_column(plan.table.spec, column, plan.table.sizes[dim])
    return whole.gather(pl.Series(selected(plan)[dim].positions())).alias(dim)


def content_of_frames(data: pl.DataFrame | Iterable[pl.DataFrame], dims: Dims) -> Content:
    """Return the content of frames.

    Parameters
    ----------
    data : DataFrame or iterable of DataFrame
        Frames of one schema. If ``dims`` has no labels, all frames are held at once.
    dims : sequence of str, or mapping of str to labels
        Dimensions.

    Raises
    ------
    RowsError
        If there is no frame, or labels are null.
    """
    is_one = isinstance(data, pl.DataFrame) or not isinstance(dims, Mapping)
    if isinstance(data, pl.DataFrame):
        data = [data]
    elif is_one:
        data = [pl.concat(held)] if (held := list(data)) else []
    frames = iter(data)
    first = next(frames, None)
    if first is None:
        raise RowsError("There is no frame, so the columns are unknown. Give at least one frame, even without rows.")
    axes = axes_of(first, dims)
    columns = tuple(NewColumn(name, (name,), labels.dtype) for name, labels in axes.items())
    others = tuple(NewColumn(n, tuple(axes), dtype) for n, dtype in first.schema.items() if n not in axes)
    sizes = {dim: len(labels) for dim, labels in axes.items()}
    return Content(
        tuple(axes), sizes, (*columns, *others), axes=axes, frames=_chained(first, frames), is_one_frame=is_one
    )


def _chained(first: pl.DataFrame, frames: Iterable[pl.DataFrame]) -> Iterable[pl.DataFrame]:
    yield first
    for frame in frames:
        if frame.schema != first.schema:
            raise RowsError(f"The frames differ: one has {dict(first.schema)}, a later one {dict(frame.schema)}.")
        yield frame


def collected(plan: ReadPlan, client: "Client | None") -> pl.DataFrame:
    """Return the rows of a plan."""
    return pl.concat([plan.no_rows(), *iter_frames(plan.tasks(), client)])
