"""Indexes of shards: the position of each inner chunk, stored with the shard."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from rainbear_dask.resources.limits import MAX_INDEX_BYTES, check_size

EMPTY = 2**64 - 1
"""Start of a chunk that was never written, in the index of a shard."""

_CHECKSUM_BYTES = 4
_LAST_BYTE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class IndexForm:
    """Layout of a shard's index.

    Parameters
    ----------
    counts : tuple of int
        Inner chunks of a shard along each dimension.
    at_start : bool
        Whether the index is at the start of the shard instead of its end.
    checked : bool
        Whether a checksum follows the index.
    order : str
        Byte order, as NumPy writes it.
    inner_limit : int
        Upper bound on the bytes of an inner chunk.
    """

    counts: tuple[int, ...]
    at_start: bool
    checked: bool
    order: str
    inner_limit: int

    @property
    def size(self) -> int:
        """Return the bytes of the index, with its checksum."""
        return 16 * prod(self.counts) + _CHECKSUM_BYTES * self.checked

    def spans(self, raw: bytes) -> npt.NDArray[np.uint64]:
        """Parse an index.

        Parameters
        ----------
        raw : bytes
            The index, with its checksum.

        Returns
        -------
        ndarray of uint64, shape (*counts, 2)
            Start of each chunk in the shard, and its length, both in bytes.

        Raises
        ------
        OSError
            If the index is truncated.
        ValueError
            If the index does not match its checksum.
        """
        if len(raw) != self.size:
            raise self.short(len(raw))
        body = raw[: 16 * prod(self.counts)]
        if self.checked and google_crc32c.value(body) != int.from_bytes(raw[-_CHECKSUM_BYTES:], "little"):
            raise ValueError("the index of the shard is damaged: it does not match its checksum")
        return np.frombuffer(body, dtype=f"{self.order}u8").reshape(*self.counts, 2)

    def short(self, length: int) -> OSError:
        """Return the error of a truncated index."""
        return OSError(f"the shard ends within its index: {length} bytes of {self.size}")

    def check_size(self) -> None:
        """Refuse an index that takes much more memory than the values of its shard.

        Raises
        ------
        TooLargeError
            If the index is too large.
        """
        check_size(self.size, MAX_INDEX_BYTES + 2 * self.inner_limit * prod(self.counts), "the index of the shard")

    def span(self, spans: npt.NDArray[np.uint64], place: tuple[int, ...]) -> tuple[int, int] | None:
        """Return the start and end of a chunk in bytes; None if it was never written.

        Parameters
        ----------
        spans : ndarray of uint64
            The index, from `spans`.
        place : tuple of int
            Place of the chunk in the shard.

        Raises
        ------
        TooLargeError
            If the chunk has more bytes than a chunk of the array can have.
        ValueError
            If the chunk lies beyond the largest file.
        """
        start, length = map(int, spans[place])  # as Python's integers, whose sum does not wrap round
        if start == EMPTY:
            return None
        check_size(length, self.inner_limit, f"chunk {place} in the index of the shard")
        if start + length > _LAST_BYTE:
            raise ValueError(f"chunk {place} is at byte {start} in the index of the shard, beyond the largest file")
        return start, start + length

    def located(
        self, spans: npt.NDArray[np.uint64], touched: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int] | None]:
        """Return the start and end of several chunks, as `span` does for one.

        Parameters
        ----------
        spans : ndarray of uint64
            The index, from `spans`.
        touched : sequence of (int, int)
            Half-open range of places along each dimension.

        Returns
        -------
        list
            One entry for each place, in C order.
        """
        wanted = spans[tuple(slice(*places) for places in touched)].reshape(-1, 2)
        starts, lengths = wanted[:, 0], wanted[:, 1]
        written = starts != EMPTY
        if (written & ((lengths > self.inner_limit) | (starts > _LAST_BYTE - self.inner_limit))).any():
            return [self.span(spans, place) for place in product(*(range(*places) for places in touched))]
        found = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
        return [span if here else None for span, here in zip(found, written.tolist(), strict=True)]

    def of_shard(self, shard: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
        """Parse the index of a whole shard, as `spans` does."""
        return self.spans((shard[: self.size] if self.at_start else shard[-self.size :]).tobytes())


def index_form(codec: ShardingCodec, shape: tuple[int, ...], inner_limit: int) -> IndexForm | None:
    """Return the layout of the indexes of an array's shards; None if only zarr can parse them.

    Parameters
    ----------
    codec : ShardingCodec
        The codec of the shards.
    shape : tuple of int
        Shape of a shard.
    inner_limit : int
        Upper bound on the bytes of an inner chunk.
    """
    kinds = [type(one) for one in codec.index_codecs]
    if kinds not in ([BytesCodec], [BytesCodec, Crc32cCodec]):
        return None
    endian = next((one.endian for one in codec.index_codecs if isinstance(one, BytesCodec)), None)
    counts = tuple(length // size for length, size in zip(shape, codec.chunk_shape, strict=True))
    at_start = setting(codec.index_location) == "start"
    return IndexForm(counts, at_start, Crc32cCodec in kinds, ">" if setting(endian) == "big" else "<", inner_limit)


def beyond_end(start: int, stop: int, size: int) -> OSError:
    """Return the error of a chunk that its index puts beyond the end of a shard of ``size`` bytes."""
    return OSError(f"bytes {start} to {stop} are in the index of a shard of {size} bytes")


def setting(value: Any) -> Any:
    """Return a setting of a codec as text; before zarr 3.4 it is a member of an enumeration."""
    return getattr(value, "value", value)
