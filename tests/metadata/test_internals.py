"""Private parts of zarr that metadata is tied to: a release without one of them fails here, by name."""

import importlib
import json

import numpy as np
from zarr import AsyncArray
from zarr.storage import MemoryStore

from rainbear_dask.metadata import zarr_arrays

ADVICE = "read the new release of zarr, and adapt rainbear_dask/metadata/zarr_arrays.py"
DOCUMENT = {
    "zarr_format": 3,
    "node_type": "array",
    "shape": [4],
    "data_type": "float32",
    "chunk_grid": {"name": "regular", "configuration": {"chunk_shape": [2]}},
    "chunk_key_encoding": {"name": "default"},
    "codecs": [{"name": "bytes", "configuration": {"endian": "little"}}],
    "fill_value": 0,
    "attributes": {},
}


def test_the_codec_pipeline_stands_where_its_setting_says():
    module, _, name = zarr_arrays.PIPELINE.rpartition(".")
    assert hasattr(importlib.import_module(module), name), f"{zarr_arrays.PIPELINE} is gone: {ADVICE}"
    assert "codec_pipeline.path" in zarr_arrays.zarr_config, f"the setting codec_pipeline.path is gone: {ADVICE}"


def test_a_document_is_understood_as_metadata():
    metadata = zarr_arrays.array_metadata(json.dumps(DOCUMENT))
    names = {
        "shape",
        "chunks",
        "shards",
        "dtype",
        "fill_value",
        "zarr_format",
        "encode_chunk_key",
        "inner_codecs",
        "codecs",
    }
    assert not names - set(dir(metadata)), f"ArrayMetadata has no {names - set(dir(metadata))}: {ADVICE}"
    assert metadata.dtype.to_native_dtype() == np.dtype("f4"), f"its dtype is another one: {ADVICE}"
    assert metadata.encode_chunk_key((1,)) == "c/1"


def test_an_array_is_opened_from_its_document_alone():
    array = zarr_arrays.open_array(MemoryStore(), "a", json.dumps(DOCUMENT))
    assert isinstance(array, AsyncArray)
    assert (array.path, array.store_path.path) == ("a", "a"), f"the path of an array is another one: {ADVICE}"


def test_a_data_type_is_parsed():
    dtype = zarr_arrays.get_data_type_from_json("float32", zarr_format=3)
    assert dtype.from_json_scalar(1, zarr_format=3) == 1, f"a data type reads no fill value: {ADVICE}"
