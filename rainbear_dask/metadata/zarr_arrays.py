"""zarr's view of metadata documents, and the arrays that zarr reads.

This module is tied to internals of zarr, as of 3.1.6: its configuration, the path of its codec pipeline,
`ArrayMetadata`, and the function that parses a data type.
"""

import json
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zarr import AsyncArray
from zarr.abc.store import Store
from zarr.core.config import config as zarr_config
from zarr.core.dtype import get_data_type_from_json
from zarr.core.metadata import ArrayMetadata
from zarr.storage import MemoryStore, StorePath

from rainbear_dask.resources.cache import remembered

__all__ = ["array_metadata", "document_bytes", "get_data_type_from_json", "open_array", "silence"]

PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"

_warning_filters = threading.Lock()  # one for the process, as the filters are


def open_array(store: Store, path: str, document: str) -> AsyncArray[Any]:
    """Return an array of zarr, from its path in the store and its document (JSON). No request is made."""
    metadata = array_metadata(document)
    # the pipeline in the user's settings may ignore our bounds
    with silence(), zarr_config.set({"codec_pipeline.path": PIPELINE}):
        return AsyncArray(metadata=metadata, store_path=StorePath(store, path))


def document_bytes(document: str) -> int:
    """Return an upper bound on the memory of a document together with zarr's metadata of it, in bytes."""
    return 6144 + 16 * len(document)


@remembered(2**25, lambda arguments, _: document_bytes(*arguments))
def array_metadata(document: str) -> ArrayMetadata:
    """Return zarr's metadata of a document. It is cached, because parsing takes longer than most small reads."""
    with silence():
        array = AsyncArray(metadata=json.loads(document), store_path=StorePath(MemoryStore()))
    metadata: ArrayMetadata = array.metadata
    return metadata


@contextmanager
def silence() -> Iterator[None]:
    """Suppress zarr's warnings about features beyond the specification, which concern writers."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
