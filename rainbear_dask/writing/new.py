"""The job that makes a new group."""

from collections.abc import Callable, Mapping

from zarr.abc.store import Store

from rainbear_dask.convert.grid import Dims
from rainbear_dask.exceptions import QueryError
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.writing.content import Rows, collected, content_of_frames, content_of_plan
from rainbear_dask.writing.layout import new_layout
from rainbear_dask.writing.rows import Job, Options, plan_writer, write_frames, write_labels


def new_job(data: Rows, dims: Dims | None, group: str, options: Options) -> Job:
    """Return the job that makes a new group.

    Parameters
    ----------
    data : ReadPlan, DataFrame, or iterable of DataFrame
        The rows.
    dims : sequence of str, mapping of str to labels, or None
        Dimensions; None only for a plan.
    group : str
        Path of the new group in the store.
    options : Options
        Options of the caller.
    """
    if isinstance(data, ReadPlan) and not isinstance(dims, Mapping):
        content = content_of_plan(data, dims)
    elif dims is None:
        raise QueryError("A new target needs dimensions. Name columns: dims=['time', 'lat', 'lon'].")
    else:
        content = content_of_frames(collected(data, options.client) if isinstance(data, ReadPlan) else data, dims)
    layout = new_layout(
        content.columns,
        content.sizes,
        group,
        attributes=content.attributes,
        grid_mappings=content.grid_mappings,
        auxiliary=content.auxiliary,
        encoding=options.encoding,
        chunks=options.chunks,
        shards=options.shards,
    )
    if content.plan is not None:
        return Job(layout, plan_writer(content.plan, layout.slots, {}, options))

    def write(place: Callable[[], Store]) -> None:
        store = place()
        write_labels(store, layout.slots, content.axes, 0, list(content.axes))
        write_frames(
            store, layout.slots, content, content.axes, options, part={d: (0, n) for d, n in content.sizes.items()}
        )

    return Job(layout, write)
