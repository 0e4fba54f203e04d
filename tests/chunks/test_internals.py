"""Private parts of zarr that the reader by its codec pipeline is tied to: a release without one fails here, by name."""

import inspect

import numpy as np
import zarr
from zarr.core.codec_pipeline import BatchedCodecPipeline
from zarr.storage import StorePath

from rainbear_dask.chunks import pipeline
from rainbear_dask.chunks.read import read_regions
from rainbear_dask.metadata.opening import open_store
from tests.support.stores import CountingStore

ADVICE = "read the new release of zarr, and adapt rainbear_dask/chunks/pipeline.py"


def test_a_pipeline_reads_a_batch_of_chunks():
    parameters = list(inspect.signature(BatchedCodecPipeline.read).parameters)
    assert parameters == ["self", "batch_info", "out", "drop_axes"], f"BatchedCodecPipeline.read takes others: {ADVICE}"
    for name in ("from_codecs", "array_bytes_codec", "supports_partial_decode"):
        assert hasattr(BatchedCodecPipeline, name) or name in BatchedCodecPipeline.__dataclass_fields__, (
            f"BatchedCodecPipeline.{name} is gone: {ADVICE}"
        )


def test_an_array_reads_by_the_pipeline_that_is_set(monkeypatch):
    """Each chunk comes with the place of its object, its spec and a selection; shards are read by their parts."""
    store = zarr.storage.MemoryStore()
    group = zarr.open_group(store, mode="w")
    values = np.arange(8) * 1j
    group.create_array("plain", shape=(8,), chunks=(2,), dtype="c16")[:] = values
    group.create_array("shards", shape=(8,), chunks=(2,), shards=(8,), dtype="c16")[:] = values
    seen, fetch = [], pipeline._Pipeline._fetch

    async def watched(self, where, spec, selection):
        seen.append((type(where), spec.shape))
        return await fetch(self, where, spec, selection)

    monkeypatch.setattr(pipeline._Pipeline, "_fetch", watched)
    meta = open_store(CountingStore(store))
    for name, shape in (("plain", (2,)), ("shards", (8,))):
        seen.clear()
        (found,) = read_regions(meta.spec, [(meta.arrays[name], ((1, 3),))])
        assert found.tolist() == [1j, 2j]
        assert set(seen) == {(StorePath, shape)}, f"zarr does not read by AsyncArray.codec_pipeline: {ADVICE}"
