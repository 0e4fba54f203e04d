"""Arrays in a folder, as zarrs reads them: on the thread that asks, without a step through zarr's event loop."""

from collections.abc import Iterator
from dataclasses import dataclass
from functools import lru_cache
from itertools import product
from math import prod
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr.abc.store import Store
from zarr.codecs import BloscCodec, BytesCodec, TransposeCodec, ZstdCodec
from zarr.storage import LocalStore
from zarrs import ZarrsCodecPipeline
from zarrs._internal import ChunkItem

from rainbear_dask.documents import array_metadata, join_path, silence
from rainbear_dask.metadata import ArrayMeta, Region

CHUNK_LIMIT = 2**31  # bytes; what blosc can hold


@dataclass(frozen=True, slots=True)
class FileArray:
    """An array that zarrs reads.

    Parameters
    ----------
    path : str
        From the folder of the store.
    meta : ArrayMeta
        What is known of it.
    metadata : ArrayMetadata
        The same, as zarr has it.
    impl : CodecPipelineImpl
        What zarrs' pipeline for zarr calls, on another thread, after it took apart what zarr had put together.
    """

    path: str
    meta: ArrayMeta
    metadata: Any
    impl: Any

    def read(self, region: Region) -> npt.NDArray[Any]:
        """Values of a region, decoded into a new array of its shape; any error of a codec."""
        shape = [stop - start for start, stop in region]
        out = np.empty(shape, dtype=self.meta.dtype)
        if out.size:
            self.impl.retrieve_chunks_and_apply_index(list(self._items(region, shape)), out)
        return out

    def decoded_bytes(self, region: Region) -> int:
        """Bytes of all chunks that a region touches."""
        spans = zip(region, self.meta.chunks, strict=True)
        return self.meta.chunk_bytes * prod(-(-stop // size) - start // size for (start, stop), size in spans)

    def _items(self, region: Region, shape: list[int]) -> Iterator[ChunkItem]:
        """What is read of each chunk, or shard, and where it goes."""
        stored = self.meta.shards or self.meta.chunks
        along = [
            [
                (
                    i,
                    slice(max(start - i * size, 0), min(stop - i * size, size)),
                    slice(max(i * size - start, 0), min((i + 1) * size, stop) - start),
                )
                for i in range(start // size, -(-stop // size))
            ]
            for (start, stop), size in zip(region, stored, strict=True)
        ]
        for parts in product(*along):
            yield ChunkItem(
                key=join_path(self.path, self.metadata.encode_chunk_key(tuple(i for i, _, _ in parts))),
                chunk_subset=[part for _, part, _ in parts],
                chunk_shape=list(stored),
                subset=[place for _, _, place in parts],
                shape=shape,
            )


def file_array(store: Store, group: str, meta: ArrayMeta) -> FileArray | None:
    """An array of a group as zarrs reads it; None where zarr has to."""
    return _opened(str(store.root), join_path(group, meta.path), meta) if isinstance(store, LocalStore) else None


@lru_cache(maxsize=4096)
def _opened(root: str, path: str, meta: ArrayMeta) -> FileArray | None:
    """Kept for all openings of a store, as it depends on the array's document, and on where it is, alone."""
    metadata = array_metadata(meta.document)
    if not _is_suited(metadata, meta):
        return None
    with silence():
        try:
            impl = ZarrsCodecPipeline.from_array_metadata_and_store(metadata, LocalStore(root, read_only=True)).impl
        except Exception:  # noqa: BLE001  it says in many ways that it does not know a codec
            return None
    return None if impl is None else FileArray(path, meta, metadata, impl)


def forget_files() -> None:
    """Let go of all arrays that were opened."""
    _opened.cache_clear()


def _is_suited(metadata: Any, meta: ArrayMeta) -> bool:
    """Tell the local arrays that zarrs reads faster, and no less carefully, than zarr's own pipeline.

    Of a part of a chunk (and the chunk at an edge is one) it decodes as little as it can: a checksum, or the length of
    a chunk that is not compressed, is then not checked. So only zstd and blosc are left to it; of blosc it does check
    the length, which numcodecs does not. Over HTTP it asks twice for each chunk and keeps fewer requests in flight:
    with 50 ms an answer, a sixth of the speed.
    """
    dtype = metadata.dtype.to_native_dtype()
    if dtype.kind not in "biuf" or not dtype.isnative or prod(meta.shards or meta.chunks) * meta.itemsize > CHUNK_LIMIT:
        return False
    if metadata.zarr_format == 2:
        codec = getattr(metadata.compressor, "codec_id", None)
        return not metadata.filters and metadata.order == "C" and codec in ("blosc", "zstd")
    codecs = [type(codec) for codec in metadata.inner_codecs if not isinstance(codec, TransposeCodec)]
    return codecs in ([BytesCodec, ZstdCodec], [BytesCodec, BloscCodec])
