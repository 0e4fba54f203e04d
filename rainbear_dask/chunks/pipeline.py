"""How zarr reads what only it can decode: chunks are fetched as `fetch` does, and decoded into bounded memory."""

import asyncio
from collections.abc import Iterable, Sequence
from dataclasses import dataclass, replace
from typing import Any

from zarr import AsyncArray
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.buffer import default_buffer_prototype
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.storage import StorePath

from rainbear_dask.chunks.fetch import FetchedChunk, fetch_chunk
from rainbear_dask.chunks.sharding import index_form
from rainbear_dask.codecs.bounded import bounded, bytes_limit
from rainbear_dask.indexing.chunk_grid import touched_chunks
from rainbear_dask.storage.requests import check_is_there


def fetching(array: AsyncArray[Any], opening_id: str, documents: Sequence[str]) -> AsyncArray[Any]:
    """Let an array read its chunks as `fetch` does, and decode them into bounded memory.

    Parameters
    ----------
    array : zarr.AsyncArray
        To be changed.
    opening_id : str
        Which opening of the store it is of: indexes of shards are kept under it.
    documents : sequence of str
        Keys of which one is there as long as the array is: a chunk is only missing if its array is not. Without any, nothing
        is asked.
    """
    metadata = array.metadata
    spec = ArraySpec(
        shape=getattr(metadata, "shards", None) or metadata.chunks,
        dtype=metadata.dtype,
        fill_value=metadata.fill_value,
        config=ArrayConfig.from_dict({}),
        prototype=default_buffer_prototype(),
    )
    codecs = bounded(tuple(array.codec_pipeline), spec)  # type: ignore[arg-type]
    pipeline = replace(_Pipeline.from_codecs(codecs), opening_id=opening_id, documents=tuple(documents))
    # zarr chooses it by a global setting, which is the user's
    object.__setattr__(array, "codec_pipeline", pipeline)
    return array


@dataclass(frozen=True)
class _Pipeline(BatchedCodecPipeline):
    """Fetches each chunk, or the parts of a shard, before zarr's own pipeline decodes it.

    zarr itself asks for `async.concurrency` (10) chunks of an array at a time, and before 3.4 for one inner chunk of a shard
    after the other.
    """

    opening_id: str = ""
    documents: tuple[str, ...] = ()

    async def read(self, batch_info: Iterable[Any], out: Any, drop_axes: tuple[int, ...] = ()) -> Any:
        """Decode some chunks into an array."""
        whole = super().read

        missing: list[StorePath] = []

        async def read_one(getter: Any, spec: Any, selection: Any, *rest: Any) -> Any:
            # zarr looks chunks of an inner pipeline up in shards that are here already
            held = await self._held(getter, spec, selection) if isinstance(getter, StorePath) else getter
            if isinstance(held, FetchedChunk) and held.is_missing:
                missing.append(getter)
            return await whole([(held, spec, selection, *rest)], out, drop_axes)

        tasks = [asyncio.ensure_future(read_one(*info)) for info in batch_info]
        try:
            results = await asyncio.gather(*tasks)
        except BaseException:
            for task in tasks:
                task.cancel()
            raise
        if missing:
            await check_is_there(missing[0].store, missing[0].path, self.documents)
        return tuple(result for found in results for result in found or ())  # of zarr 3.1 None

    async def _held(self, where: StorePath, spec: Any, selection: Any) -> "FetchedChunk":
        codec, form, touched = self.array_bytes_codec, None, list[range]()
        limit = bytes_limit(self, spec)
        if self.supports_partial_decode and isinstance(codec, ShardingCodec):
            inner = bytes_limit(codec.codecs, replace(spec, shape=codec.chunk_shape))
            form = index_form(codec, spec.shape, inner)
            sizes = zip(selection, spec.shape, codec.chunk_shape, strict=True)
            touched = [_touched(part, length, size) for part, length, size in sizes]
        return await fetch_chunk(where, self.opening_id, form, touched, limit)


def _touched(part: Any, length: int, size: int) -> range:
    """Which chunks of that size a slice of a dimension, or a position, lies in."""
    start, stop, _ = part.indices(length) if isinstance(part, slice) else (int(part), int(part) + 1, 1)
    return touched_chunks(start, stop, size)
