"""Reader of every array by zarr's codec pipeline, with our requests and bounded memory.

This module is tied to internals of zarr, as of 3.1.6: `BatchedCodecPipeline`, the `ArraySpec` that its codecs take, and
the attribute `AsyncArray.codec_pipeline`, which zarr sets from a global setting of the user.
"""

from collections.abc import Callable, Iterable, Iterator, Sequence
from contextlib import contextmanager
from dataclasses import dataclass, replace
from itertools import islice, product
from typing import Any

import numpy as np
import numpy.typing as npt
from zarr import AsyncArray
from zarr.abc.store import Store
from zarr.codecs import ShardingCodec
from zarr.core.array_spec import ArrayConfig, ArraySpec
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.storage import StorePath

from rainbear_dask.chunks.errors import ReadError, chunk_name
from rainbear_dask.chunks.fetch import FetchedChunk, fetch_chunk, gather, running
from rainbear_dask.chunks.sharding import index_form
from rainbear_dask.codecs.bounded import bounded, bytes_limit
from rainbear_dask.indexing.chunk_grid import Region, part_of_region, touched_chunks
from rainbear_dask.metadata.keys import documents_of, join_path
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.metadata.zarr_arrays import document_bytes, open_array
from rainbear_dask.resources.cache import ByteLRU
from rainbear_dask.resources.openings import when_gone
from rainbear_dask.storage.requests import FetchError, check_array_exists
from rainbear_dask.storage.spec import CacheKey, StoreSpec
from rainbear_dask.storage.zarr_internals import default_buffer_prototype, sync

MAX_ARRAY_BYTES = 2**24
"""Bytes of the arrays that a process keeps open for zarr."""

MAX_SEARCHED_CHUNKS = 10_000
"""Chunks that are read one by one to find a damaged one."""

_Opened = tuple[ArrayMeta, AsyncArray[Any]]


class PipelineReader:
    """Reader of all arrays that zarr can decode.

    Parameters
    ----------
    spec : StoreSpec
        The store's recipe.
    store : zarr.abc.store.Store
        The store.
    checks_documents : bool
        Whether a missing chunk is checked against the documents of its array, which may be gone with their store.
    """

    def __init__(self, spec: StoreSpec, store: Store, *, checks_documents: bool) -> None:
        self._spec, self._store, self._checks_documents = spec, store, checks_documents

    def open(self, meta: ArrayMeta) -> _Opened:
        """Return an array of zarr, opened from its document. No request is made."""
        key = self._spec.cache_key(), meta.path, meta.document
        (array,) = _arrays.get_all([key], lambda _: [self._new_array(meta)])
        return meta, array

    def _new_array(self, meta: ArrayMeta) -> AsyncArray[Any]:
        array = open_array(self._store, join_path(self._spec.group, meta.path), meta.document)
        documents = documents_of(meta, self._spec.group) if self._checks_documents else ()
        return with_own_pipeline(array, self._spec.opening_id, documents)

    @contextmanager
    def begin(self, requests: Sequence[tuple[_Opened, Region]]) -> Iterator[Callable[[], list[npt.NDArray[Any]]]]:
        """Begin to read regions on zarr's event loop; the callable waits for all of them."""
        with running(gather(_read(*opened, region) for opened, region in requests)) as task:

            async def result() -> list[npt.NDArray[Any]]:
                return await task

            yield lambda: sync(result())


_arrays: ByteLRU[tuple[CacheKey, str, str], AsyncArray[Any]] = ByteLRU(
    lambda: MAX_ARRAY_BYTES, lambda key, _: document_bytes(key[2]), lambda key: key[0][0]
)
when_gone(_arrays.forget_soon)


def forget_arrays() -> None:
    """Drop all arrays that are open for zarr."""
    _arrays.clear()


async def _read(meta: ArrayMeta, array: AsyncArray[Any], region: Region) -> npt.NDArray[Any]:
    shape = tuple(stop - start for start, stop in region)
    if 0 in shape:
        return np.empty(shape, meta.dtype)
    try:
        values = await array.getitem(tuple(slice(*span) for span in region))
    except Exception as err:
        cause = err
        raise ReadError(meta, array.path, cause, lambda: sync(_find_error(meta, array, region, cause))) from err
    return np.asarray(values, dtype=meta.dtype, order="C")


async def _find_error(meta: ArrayMeta, array: AsyncArray[Any], region: Region, err: Exception) -> tuple[str, Exception]:
    """Find the chunk at fault by the key in the error, or by reading the chunks of a region one by one."""
    stored = meta.grid.stored
    for index, _, place in islice(stored.iter_chunks(region), MAX_SEARCHED_CHUNKS):
        key = join_path(array.path, array.metadata.encode_chunk_key(index))
        if stored.count_in(region) == 1:
            return chunk_name(meta, index, key), err
        if isinstance(err, FetchError):
            if key == err.key:
                return chunk_name(meta, index, key), err
            continue
        try:
            await array.getitem(tuple(slice(*span) for span in part_of_region(region, place)))
        except Exception as own:  # noqa: BLE001  stores and codecs have no common error
            return chunk_name(meta, index, key), own
    return "one of the chunks", err


def with_own_pipeline(array: AsyncArray[Any], opening_id: str, documents: Sequence[str]) -> AsyncArray[Any]:
    """Let an array fetch its chunks by `fetch_chunk`, and decode them into bounded memory.

    Parameters
    ----------
    array : zarr.AsyncArray
        The array, which is changed.
    opening_id : str
        Name of the opening of the store, under which indexes of shards are cached.
    documents : sequence of str
        Keys at which the array may have its document. If a chunk is missing, one of them has to exist.
        Without any, there is no such check.
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
    object.__setattr__(array, "codec_pipeline", pipeline)  # zarr's setting of it is the user's
    return array


@dataclass(frozen=True)
class _Pipeline(BatchedCodecPipeline):
    """zarr's pipeline, with chunks and parts of shards from `fetch_chunk`.

    By itself zarr has `async.concurrency` (10) chunks of an array in flight. Before zarr 3.4 it requests the inner
    chunks of a shard one after the other.
    """

    opening_id: str = ""
    documents: tuple[str, ...] = ()

    async def read(self, batch_info: Iterable[Any], out: Any, drop_axes: tuple[int, ...] = ()) -> Any:
        """Fetch and decode chunks into an array."""
        decode = super().read
        missing: list[StorePath] = []

        async def read_one(getter: Any, spec: Any, selection: Any, *rest: Any) -> Any:
            # for the inner chunks of a shard, zarr calls this with the shard, which is here already
            fetched = await self._fetch(getter, spec, selection) if isinstance(getter, StorePath) else getter
            if isinstance(fetched, FetchedChunk) and fetched.is_missing:
                missing.append(getter)
            return await decode([(fetched, spec, selection, *rest)], out, drop_axes)

        results = await gather(read_one(*info) for info in batch_info)
        if missing:
            await check_array_exists(missing[0].store, missing[0].path, self.documents)
        return tuple(result for found in results for result in found or ())  # None in zarr 3.1

    async def _fetch(self, where: StorePath, spec: Any, selection: Any) -> FetchedChunk:
        codec, form, places = self.array_bytes_codec, None, list[tuple[int, ...]]()
        limit = bytes_limit(self, spec)
        if self.supports_partial_decode and isinstance(codec, ShardingCodec):
            inner = bytes_limit(codec.codecs, replace(spec, shape=codec.chunk_shape))
            form = index_form(codec, spec.shape, inner)
            sizes = zip(selection, spec.shape, codec.chunk_shape, strict=True)
            places = list(product(*(_touched(part, length, size) for part, length, size in sizes)))
        return await fetch_chunk(where, self.opening_id, form, places, limit)


def _touched(part: Any, length: int, size: int) -> range:
    """Return the chunks of a dimension that a slice, or a position, touches."""
    start, stop, _ = part.indices(length) if isinstance(part, slice) else (int(part), int(part) + 1, 1)
    return touched_chunks(start, stop, size)
