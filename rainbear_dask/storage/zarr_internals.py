"""Parts of zarr below its public API that this package needs to read bytes, as of zarr 3.1.6.

The buffers and `sync` have no public name. The open archive of a `ZipStore` and its lock are private attributes. The
store's own `get` is no replacement, because it reads each member whole, even a huge one.
"""

from collections.abc import Iterator
from contextlib import contextmanager
from zipfile import ZipFile

from zarr.core.buffer import Buffer, BufferPrototype, default_buffer_prototype
from zarr.core.sync import sync
from zarr.storage import ZipStore

__all__ = ["Buffer", "BufferPrototype", "default_buffer_prototype", "open_archive", "sync"]


@contextmanager
def open_archive(store: ZipStore) -> Iterator[ZipFile]:
    """Open the archive of a store, and lend it to one thread at a time."""
    if not store._is_open:
        store._sync_open()
    with store._lock:
        yield store._zf
