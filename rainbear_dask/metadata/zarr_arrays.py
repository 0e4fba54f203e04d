"""Documents as zarr understands them, and arrays that zarr reads."""

import json
import threading
import warnings
from collections.abc import Iterator
from contextlib import contextmanager
from typing import Any

from zarr import AsyncArray
from zarr.abc.store import Store
from zarr.core.config import config as zarr_config
from zarr.core.metadata import ArrayMetadata
from zarr.storage import MemoryStore, StorePath

from rainbear_dask.resources.cache import remembered

_warning_filters = threading.Lock()  # they are of the whole process


def open_array(store: Store, path: str, document: str) -> AsyncArray[Any]:
    """Give zarr one array, by its path in the store and its document (JSON); no request is made."""
    metadata = array_metadata(document)
    # a pipeline that the user's settings name may take no heed of bounds
    with silence(), zarr_config.set({"codec_pipeline.path": _PIPELINE}):
        return AsyncArray(metadata=metadata, store_path=StorePath(store, path))


_PIPELINE = "zarr.core.codec_pipeline.BatchedCodecPipeline"


def document_bytes(document: str) -> int:
    """Bytes that a document takes in memory with what zarr makes of it, at most."""
    return 8192 + 16 * len(document)


@remembered(2**25, lambda arguments, _: document_bytes(*arguments))
def array_metadata(document: str) -> ArrayMetadata:
    """A document as zarr understands it, which takes longer than most small reads; the same for whoever opens it again."""
    with silence():
        array = AsyncArray(metadata=json.loads(document), store_path=StorePath(MemoryStore()))
    metadata: ArrayMetadata = array.metadata
    return metadata


@contextmanager
def silence() -> Iterator[None]:
    """Hold back zarr's warnings of what is not in the specification yet: a matter for who writes."""
    with _warning_filters, warnings.catch_warnings():
        warnings.simplefilter("ignore")
        yield
