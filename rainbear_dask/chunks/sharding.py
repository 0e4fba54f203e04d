"""Where the chunks of a shard are: the index that is stored with them."""

from collections.abc import Sequence
from dataclasses import dataclass
from itertools import product
from math import prod
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

from rainbear_dask.resources.limits import INDEX_BYTES, check_size

EMPTY = 2**64 - 1
"""Start of a chunk that was never written."""

_CHECKSUM_BYTES = 4
_LAST_BYTE = 2**63 - 1


@dataclass(frozen=True, slots=True)
class IndexForm:
    """How a shard's index is stored.

    Parameters
    ----------
    counts : tuple of int
        Chunks of the shard along each dimension.
    at_start : bool
        Whether it is at the start of the shard; else at its end.
    checked : bool
        Whether a checksum follows it.
    order : str
        Order of its bytes, as NumPy writes it.
    inner_limit : int
        Most bytes that one of the chunks may have.
    """

    counts: tuple[int, ...]
    at_start: bool
    checked: bool
    order: str
    inner_limit: int

    @property
    def size(self) -> int:
        """Its length in bytes."""
        return 16 * prod(self.counts) + _CHECKSUM_BYTES * self.checked

    def spans(self, raw: bytes) -> npt.NDArray[np.uint64]:
        """Read it.

        Parameters
        ----------
        raw : bytes
            The index, with its checksum.

        Returns
        -------
        ndarray of uint64, shape (*counts, 2)
            Of each chunk, where in the shard it starts, and its length in bytes.

        Raises
        ------
        OSError
            If it is cut short.
        ValueError
            If it is not what its checksum says.
        """
        if len(raw) != self.size:
            raise self.short(len(raw))
        body = raw[: 16 * prod(self.counts)]
        if self.checked and google_crc32c.value(body) != int.from_bytes(raw[-_CHECKSUM_BYTES:], "little"):
            raise ValueError("the index of the shard is damaged: it is not what its checksum says")
        return np.frombuffer(body, dtype=f"{self.order}u8").reshape(*self.counts, 2)

    def short(self, length: int) -> OSError:
        """Give the error of an index that is cut short."""
        return OSError(f"the shard ends within its index: {length} bytes of {self.size}")

    def check_size(self) -> None:
        """Refuse an index that takes much more memory than the values of its shard.

        Raises
        ------
        TooLargeError
            If it does.
        """
        check_size(self.size, INDEX_BYTES + 2 * self.inner_limit * prod(self.counts), "the index of the shard")

    def span(self, spans: npt.NDArray[np.uint64], place: tuple[int, ...]) -> tuple[int, int] | None:
        """Look up where a chunk starts and ends; None if it was never written.

        Parameters
        ----------
        spans : ndarray of uint64
            As `spans` gives it.
        place : tuple of int
            Which chunk of the shard.

        Raises
        ------
        TooLargeError
            If it has more bytes than a chunk of the array can have.
        ValueError
            If it is where no file has bytes.
        """
        start, length = map(int, spans[place])  # of NumPy's own type the sum may wrap round
        if start == EMPTY:
            return None
        check_size(length, self.inner_limit, f"chunk {place} in the index of the shard")
        if start + length > _LAST_BYTE:
            raise ValueError(f"chunk {place} is at byte {start} in the index of the shard, where no file has bytes")
        return start, start + length

    def located(
        self, spans: npt.NDArray[np.uint64], touched: Sequence[tuple[int, int]]
    ) -> list[tuple[int, int] | None]:
        """Look up where chunks start and end, as `span` does for one.

        Parameters
        ----------
        spans : ndarray of uint64
            As `spans` gives it.
        touched : sequence of (int, int)
            Along each dimension, the first of them, and the one behind the last.

        Returns
        -------
        list
            In C order.
        """
        wanted = spans[tuple(slice(*places) for places in touched)].reshape(-1, 2)
        starts, lengths = wanted[:, 0], wanted[:, 1]
        written = starts != EMPTY
        if (written & ((lengths > self.inner_limit) | (starts > _LAST_BYTE - self.inner_limit))).any():
            return [self.span(spans, place) for place in product(*(range(*places) for places in touched))]
        found = zip(starts.tolist(), (starts + lengths).tolist(), strict=True)
        return [span if here else None for span, here in zip(found, written.tolist(), strict=True)]

    def of_shard(self, shard: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
        """Read it from a whole shard; as `spans`."""
        return self.spans((shard[: self.size] if self.at_start else shard[-self.size :]).tobytes())


def index_form(codec: ShardingCodec, shape: tuple[int, ...], inner_limit: int) -> IndexForm | None:
    """How the indexes of shards of some shape are stored; None if in a way that only zarr knows.

    Parameters
    ----------
    codec : ShardingCodec
        What makes the shards.
    shape : tuple of int
        Of a shard.
    inner_limit : int
        Most bytes that one of its chunks may have.
    """
    kinds = [type(one) for one in codec.index_codecs]
    if kinds not in ([BytesCodec], [BytesCodec, Crc32cCodec]):
        return None
    endian = next((one.endian for one in codec.index_codecs if isinstance(one, BytesCodec)), None)
    counts = tuple(length // size for length, size in zip(shape, codec.chunk_shape, strict=True))
    at_start = setting(codec.index_location) == "start"
    return IndexForm(counts, at_start, Crc32cCodec in kinds, ">" if setting(endian) == "big" else "<", inner_limit)


def setting(value: Any) -> Any:
    """Text of a setting of a codec, which is an enumeration's member before zarr 3.4."""
    return getattr(value, "value", value)
