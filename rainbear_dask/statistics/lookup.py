"""Statistics of the arrays of a scan: found once for each opening of a store, and compared with the stored objects."""

from collections.abc import Sequence
from dataclasses import dataclass
from functools import cached_property
from typing import Any

import numpy as np
import numpy.typing as npt

from rainbear_dask.exceptions import IgnoredStatisticsWarning, RainbearError
from rainbear_dask.logs import logger
from rainbear_dask.metadata.keys import join_path
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.metadata.zarr_arrays import array_metadata
from rainbear_dask.redaction import warn
from rainbear_dask.resources.cache import ByteLRU
from rainbear_dask.resources.limits import TooLargeError
from rainbear_dask.resources.openings import when_gone
from rainbear_dask.statistics.form import ChunkStatistics, FormError, Subject, read_statistics
from rainbear_dask.statistics.places import Place, place_of, places_for
from rainbear_dask.storage.identities import UNKNOWN, Identities, Stamps, identities_below
from rainbear_dask.storage.local_files import SpecialFileError
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.table.model import Column, Table

_LOG = logger("statistics")

MAX_CHUNKS = 2**24
"""Chunks of an array with statistics, at most: each takes about 100 bytes of memory."""

MAX_CACHED_BYTES = 2**27
"""Bytes of statistics that a process keeps."""

_FILE_BYTES, _ROW_BYTES = 2**20, 2**11
"""Upper bound on the bytes of a file of statistics: in any case, and in addition for each chunk."""

Mask = npt.NDArray[np.bool_]


@dataclass(eq=False)
class Known:
    """Statistics of one array, with the identities of its stored objects.

    Parameters
    ----------
    found : ChunkStatistics
        The statistics.
    label : str
        Address of their file.
    spec : StoreSpec
        The store.
    array : ArrayMeta
        The array.
    identities : Identities
        The identities of its objects.
    """

    found: ChunkStatistics
    label: str
    spec: StoreSpec
    array: ArrayMeta
    identities: Identities

    @cached_property
    def known(self) -> Mask:
        """The chunks that have statistics, shape (n,), in C order of the grid."""
        return self.found.known

    def unchanged(self, chunks: npt.NDArray[np.int64]) -> Mask:
        """Whether the objects of some chunks are those that the statistics describe.

        Parameters
        ----------
        chunks : ndarray of int64
            Numbers of chunks in C order of the grid.

        Returns
        -------
        ndarray of bool
            One for each. A chunk without statistics has changed. Files are looked at now; other objects are as the
            opening of the store has found them.
        """
        now = stamps_of(self.spec, self.array, self.identities, chunks)
        same: Mask = (now == self._stamps[chunks]).all(axis=1) & (now[:, 1] != UNKNOWN[1]) & self.known[chunks]
        return same

    @cached_property
    def _stamps(self) -> Stamps:
        return self.found.stamps


def stamps_of(spec: StoreSpec, array: ArrayMeta, identities: Identities, chunks: npt.NDArray[np.int64]) -> Stamps:
    """Return the identity of the stored object of each of some chunks; the chunks of a shard have one object."""
    grid = array.grid
    index = np.stack(np.unravel_index(chunks, grid.counts), axis=1)
    if grid.shards is not None:
        index = index * np.array(grid.chunks) // np.array(grid.shards)
    stored, which = np.unique(np.ravel_multi_index(tuple(index.T), grid.stored.counts), return_inverse=True)
    return identities.of(_keys(spec, array, stored))[which.reshape(-1)]


def _keys(spec: StoreSpec, array: ArrayMeta, numbers: npt.NDArray[np.int64]) -> Sequence[str]:
    path = join_path(spec.group, array.path)
    encode = array_metadata(array.document).encode_chunk_key
    index = np.stack(np.unravel_index(numbers, array.grid.stored.counts), axis=1)
    return [f"{path}/{encode(tuple(one))}" for one in index.tolist()]


def known_statistics(table: Table, column: Column) -> Known | None:
    """Return the statistics of a data variable of a scan; None if there are none for its values.

    Parameters
    ----------
    table : Table
        The scan's table, which says where to look.
    column : Column
        The variable.

    Warns
    -----
    IgnoredStatisticsWarning
        If a file is damaged, foreign, or of a later form. It is then ignored.
    """
    if table.statistics is False or not can_have_statistics(column):
        return None
    key = table.spec.key(), f"{table.spec.label} {table.statistics}", column.name, repr(column.decoding)
    (found,) = _known.get_all([key], lambda _: [_look_up(table, column)])
    return found.value


def can_have_statistics(column: Column) -> bool:
    """Whether the chunks of a column are stored objects with a decoding of their own."""
    array = column.array
    if array is None or column.decoding is None or array.letters is not None:
        return False
    return len(array.shape) > 0 and 0 < array.num_chunks <= MAX_CHUNKS


def forget_statistics() -> None:
    """Drop all statistics that this process keeps, so that the next plan looks for them again."""
    _known.clear()


@dataclass(frozen=True, slots=True, eq=False)
class _Found:
    value: Known | None


_known: ByteLRU[tuple[str, str, str, str], _Found] = ByteLRU(
    lambda: MAX_CACHED_BYTES,
    lambda _, found: 0 if found.value is None else int(found.value.found.rows.estimated_size()),
    lambda key: key[0],
)
when_gone(_known.forget_soon)


def _look_up(table: Table, column: Column) -> _Found:
    spec, array = table.spec, column.array
    assert array is not None  # noqa: S101  asked before
    try:
        identities = identities_below(spec, join_path(spec.group, array.path))
    except (RainbearError, OSError) as err:
        _LOG.info("no identities of %s in %s: %s", column.name, spec.label, err)
        return _Found(None)
    if identities is None:
        return _Found(None)
    for where in places_for(table.statistics, in_store=can_hold_files(identities)):
        place = place_of(where, spec, array.path)
        try:
            found = find(place, column, identities)
        except (RainbearError, OSError) as err:  # without statistics the scan still works
            _LOG.info("no statistics at %s: %s", place.label, err)
            continue
        if found is not None:
            return _Found(Known(found, place.label, spec, array, identities))
    return _Found(None)


def can_hold_files(identities: Identities) -> bool:
    """Whether a store can hold a file of statistics: a folder or an object store."""
    return identities.kind in ("files", "objects")


def find(place: Place, column: Column, identities: Identities) -> ChunkStatistics | None:
    """Return the statistics of a column at one place; None if there are none that hold for its values.

    Raises
    ------
    StoreError
        If the place cannot be read.

    Warns
    -----
    IgnoredStatisticsWarning
        If the file is damaged, foreign, or of a later form.
    """
    array: Any = column.array
    try:
        content = place.folder.read_at_most(place.name, _FILE_BYTES + _ROW_BYTES * array.num_chunks)
        if content is None:
            return None
        return read_statistics(content, Subject.of(column, identities.kind), array.grid, column.dtype)
    except (FormError, TooLargeError, SpecialFileError) as reason:
        warn(
            f"The file of statistics {place.label} is ignored, because {reason}. Delete it, or replace it with "
            "rd.analyze(source).",
            IgnoredStatisticsWarning,
        )
        return None
