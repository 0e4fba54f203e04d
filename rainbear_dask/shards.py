"""Where the chunks of a shard are: the index that is stored with them."""

from dataclasses import dataclass
from math import prod
from typing import Any

import google_crc32c
import numpy as np
import numpy.typing as npt
from zarr.codecs import BytesCodec, Crc32cCodec, ShardingCodec

EMPTY = 2**64 - 1
"""Start of a chunk that was never written."""

_CHECKSUM_BYTES = 4


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
    """

    counts: tuple[int, ...]
    at_start: bool
    checked: bool
    order: str

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
            raise OSError(f"the shard ends within its index: {len(raw)} bytes of {self.size}")
        body = raw[: 16 * prod(self.counts)]
        if self.checked and google_crc32c.value(body) != int.from_bytes(raw[-_CHECKSUM_BYTES:], "little"):
            raise ValueError("the index of the shard is damaged: it is not what its checksum says")
        return np.frombuffer(body, dtype=f"{self.order}u8").reshape(*self.counts, 2)

    def of_shard(self, shard: npt.NDArray[np.uint8]) -> npt.NDArray[np.uint64]:
        """Read it from a whole shard; as `spans`."""
        return self.spans((shard[: self.size] if self.at_start else shard[-self.size :]).tobytes())


def index_form(codec: ShardingCodec, shape: tuple[int, ...]) -> IndexForm | None:
    """How the indexes of shards of some shape are stored; None if in a way that only zarr knows."""
    kinds = [type(one) for one in codec.index_codecs]
    if kinds not in ([BytesCodec], [BytesCodec, Crc32cCodec]):
        return None
    endian = next((one.endian for one in codec.index_codecs if isinstance(one, BytesCodec)), None)
    counts = tuple(length // size for length, size in zip(shape, codec.chunk_shape, strict=True))
    at_start = setting(codec.index_location) == "start"
    return IndexForm(counts, at_start, Crc32cCodec in kinds, ">" if setting(endian) == "big" else "<")


def setting(value: Any) -> Any:
    """Text of a setting of a codec, which is an enumeration's member before zarr 3.4."""
    return getattr(value, "value", value)
