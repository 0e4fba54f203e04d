"""The chunk loop: a task as a stream of chunk groups, which consumers reduce to what they keep.

A group is the chunks of all columns at one place of the chunk grid, or at several places next to each other, of about
2 MiB. Its values are decoded into buffers that the next group reuses, so a consumer finds them in the processor's cache.
Only what a consumer keeps outlives its group. So a task needs the memory of a group for each thread and of that,
however large the task is.
"""

from collections.abc import Callable, Iterator, Mapping, Sequence
from dataclasses import dataclass
from typing import Any, Protocol, TypeVar

import numpy.typing as npt

from rainbear_dask.chunks import cache as value_cache
from rainbear_dask.chunks.read import can_stream, read_regions, stream_regions
from rainbear_dask.execution.group_places import GroupPlace, find_groups, group_unit
from rainbear_dask.indexing.chunk_grid import Region
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.resources import threads
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.storage.stores import is_remote
from rainbear_dask.table.model import Column
from rainbear_dask.table.tidy import CellMask

GROUP_BYTES = 2**21
"""Decoded bytes of a group: small enough for the processor's cache, large enough for one call of Polars."""

STRIP_BYTES = 2**23
"""Decoded bytes of a strip, the part of a task that one consumer sees."""

Values = npt.NDArray[Any]
S_co = TypeVar("S_co", covariant=True)
S = TypeVar("S")


@dataclass(frozen=True, slots=True)
class ChunkGroup:
    """The chunks of some columns at one place of the grid, decoded.

    Parameters
    ----------
    index : dict of str to IndexSet
        Positions of the table along each of its dimensions.
    place : tuple of slice
        Place of these positions among the positions of the task, along each dimension.
    cells : CellMask
        The wanted cells of their product.
    stored : dict of str to ndarray
        For each column with an array, the stored values at the positions of its own dimensions, with the axes of the
        array. Valid until the consumer returns.
    """

    index: dict[str, IndexSet]
    place: tuple[slice, ...]
    cells: CellMask
    stored: dict[str, Values]


class Consumer(Protocol[S_co]):
    """Reduces the groups of one strip to a state. It belongs to one thread."""

    def use(self, group: ChunkGroup) -> None:
        """Use a group. Nothing that the consumer keeps may be a view of ``group.stored``."""

    def done(self) -> S_co:
        """Return the state after the last group."""


def consume_groups(
    spec: StoreSpec,
    columns: Sequence[Column],
    index: Mapping[str, IndexSet],
    cells: CellMask,
    make: Callable[[], Consumer[S]],
) -> list[S]:
    """Read a task group by group, and reduce the groups.

    The task is cut into strips, which depend on the task alone. Each strip has a consumer of its own, which sees the
    groups of the strip in order. So the states do not depend on the number of threads.

    Parameters
    ----------
    spec : StoreSpec
        The store.
    columns : sequence of Column
        Columns to read; those without an array are ignored.
    index : mapping of str to IndexSet
        Positions along each dimension of the table, in row order.
    cells : CellMask
        The wanted cells of the product of all positions. Groups without a wanted cell are not read.
    make : callable
        Return a new consumer; called on several threads.

    Returns
    -------
    list
        The state of each strip, in order.

    Raises
    ------
    ChunkReadError
        If a chunk cannot be fetched or decoded.
    """
    reading = _Reading(spec, columns, index)
    places = find_groups(index, cells, reading.unit)
    strips = [places] if is_remote(spec) else list(_strips(places, reading.bytes_of))
    states: dict[int, S] = {}

    def start() -> Callable[[int], None]:
        def process(number: int) -> None:
            consumer = make()
            for group in reading.groups(strips[number]):
                consumer.use(group)
            states[number] = consumer.done()

        return process

    threads.share(range(len(strips)), start)
    return [states[number] for number in range(len(strips))]


class _Reading:
    """How the columns of a task are read."""

    def __init__(self, spec: StoreSpec, columns: Sequence[Column], index: Mapping[str, IndexSet]) -> None:
        self._spec = spec
        spanning = _spanning(columns, index)
        # a column that only zarr decodes is read at once for the whole task
        self._streamed = spanning if all(can_stream(spec, array) for array in spanning.values()) else {}
        self._others = {c.name: c for c in columns if c.array is not None and c.name not in self._streamed}
        self._cell_bytes = sum(array.itemsize for array in self._streamed.values())
        self.unit = group_unit(index, list(self._streamed.values()), GROUP_BYTES)

    def bytes_of(self, place: GroupPlace) -> int:
        """Return the bytes of the values of a group."""
        return place.cells.size * self._cell_bytes

    def groups(self, strip: Sequence[GroupPlace]) -> Iterator[ChunkGroup]:
        """Read the groups of a strip."""
        requests = [[(a, _region(a.dims, place.index)) for a in self._streamed.values()] for place in strip]
        found: Iterator[list[Values]] = (
            stream_regions(self._spec, requests) if self._streamed else iter([[]] * len(strip))
        )
        for place, values in zip(strip, found, strict=True):
            stored = {
                name: _taken(piece, array.dims, place.index)
                for (name, array), piece in zip(self._streamed.items(), values, strict=True)
            }
            yield ChunkGroup(place.index, place.box, place.cells, stored | self._read_others(place.index))

    def _read_others(self, index: dict[str, IndexSet]) -> dict[str, Values]:
        """Read columns of fewer dimensions, which the cache holds for all groups, and those that only zarr decodes."""
        if not self._others:
            return {}
        arrays = [(c, c.array) for c in self._others.values() if c.array is not None]
        found = dict[str, Values]()
        for read, some in (
            (value_cache.read, [pair for pair in arrays if len(pair[1].dims) < len(index)]),
            (read_regions, [pair for pair in arrays if len(pair[1].dims) == len(index)]),
        ):
            pieces = read(self._spec, [(array, _region(array.dims, index)) for _, array in some]) if some else []
            for (column, array), piece in zip(some, pieces, strict=True):
                found[column.name] = _taken(piece, array.dims, index)
        return found


def _spanning(columns: Sequence[Column], index: Mapping[str, IndexSet]) -> dict[str, ArrayMeta]:
    """Return the arrays that span all dimensions of the table, by column."""
    return {c.name: c.array for c in columns if c.array is not None and len(c.dims) == len(index)}


def _strips(places: Sequence[GroupPlace], bytes_of: Callable[[GroupPlace], int]) -> Iterator[list[GroupPlace]]:
    strip, size = list[GroupPlace](), 0
    for place in places:
        strip.append(place)
        size += bytes_of(place)
        if size >= STRIP_BYTES:
            yield strip
            strip, size = [], 0
    if strip:
        yield strip


def _region(dims: Sequence[str], index: Mapping[str, IndexSet]) -> Region:
    """Return the smallest region of an array that holds some positions."""
    return tuple(index[dim].hull for dim in dims)


def _taken(values: Values, dims: Sequence[str], index: Mapping[str, IndexSet]) -> Values:
    """Take the positions of a group from a region that holds them."""
    for axis, dim in enumerate(dims):
        positions = index[dim]
        if len(positions) < values.shape[axis]:
            values = values.take(positions.positions() - positions.hull[0], axis=axis)
    return values
