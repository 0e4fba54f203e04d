"""Which arrays can be columns, and how each is decoded."""

from collections.abc import Callable, Mapping
from typing import Any

import numpy.typing as npt

from rainbear_dask.coding import cf
from rainbear_dask.coding.time_units import in_time_unit
from rainbear_dask.exceptions import ChunkReadError, RainbearError, StoreFormatError
from rainbear_dask.metadata.groups import Role
from rainbear_dask.metadata.model import ArrayMeta, StoreMeta
from rainbear_dask.redaction import reason
from rainbear_dask.resources.limits import FILTERED_VALUES
from rainbear_dask.typing import TimeUnit

ReadArray = Callable[[ArrayMeta], npt.NDArray[Any]]
"""Returns stored values of an array."""

COORDINATES: tuple[Role, ...] = ("dimension", "auxiliary")
"""Roles of the arrays that are coordinates."""

MAX_SAMPLE_BYTES = 2**30
"""Decoded bytes of a sample, at most; the type of a column with a larger sample follows from its attributes alone."""

_SAMPLED_CHUNKS = 16  # chunks of a sample, at most


class Decodings:
    """How arrays become columns; each array is examined once, when it is first asked for.

    Parameters
    ----------
    meta : StoreMeta
        The group.
    roles : mapping of str to Role
        Role of each array by path.
    sample : callable
        Returns stored values of an array, its first and last chunk at least. Called only if the type of the column
        depends on them.
    decode, mask, time_unit
        As in `rainbear_dask.table.build.build_table`.

    Attributes
    ----------
    skipped : dict of str to str
        Arrays that cannot be columns, by path, each with the reason.
    """

    def __init__(
        self,
        meta: StoreMeta,
        roles: Mapping[str, Role],
        sample: ReadArray,
        *,
        decode: bool,
        mask: bool,
        time_unit: TimeUnit,
    ) -> None:
        self.skipped = dict(meta.skipped)
        self._roles, self._sample, self._decode, self._mask = roles, sample, decode, mask
        self._time_unit = time_unit
        self._found: dict[str, cf.Decoding] = {}

    def __getitem__(self, path: str) -> cf.Decoding:
        """Return the decoding of an array that has one."""
        return self._found[path]

    def has(self, array: ArrayMeta) -> bool:
        """Whether an array can be a column; if not, record the reason in ``skipped``."""
        path = array.path
        if path not in self._found and path not in self.skipped:
            try:
                self._found[path] = self._decoding_of(array)
            except StoreFormatError as err:
                self.skipped[path] = str(err)
            except RainbearError:  # of a chunk: the store or the network failed, not this array
                raise
            except Exception as err:  # noqa: BLE001  NumPy may refuse any attribute, and the other arrays are usable
                self.skipped[path] = f"its attributes are not understood ({reason(err)})"
        return path in self._found

    def _decoding_of(self, array: ArrayMeta) -> cf.Decoding:
        coordinate = self._roles.get(array.path, "dimension") in COORDINATES
        num_labels = array.shape[0] if coordinate and len(array.dims) == 1 else 0
        if num_labels > FILTERED_VALUES:
            raise StoreFormatError(f"it declares {num_labels:,} labels; a coordinate has {FILTERED_VALUES:,} at most")
        sample = self._sample_of(array)
        found = cf.decoding_of(array, coordinate=coordinate, decode=self._decode, mask=self._mask, sample=sample)
        return in_time_unit(found, self._time_unit)

    def _sample_of(self, array: ArrayMeta) -> npt.NDArray[Any] | None:
        """Read the values on which the type of a column depends; None if attributes alone decide."""
        sample_bytes = array.chunk_bytes * min(array.num_chunks, _SAMPLED_CHUNKS)
        if not cf.needs_sample(array, decode=self._decode) or sample_bytes > MAX_SAMPLE_BYTES:
            return None
        try:
            return self._sample(array)
        except ChunkReadError:  # a query that reads the column reports it; other queries need not fail
            return None
