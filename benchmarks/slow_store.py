"""A folder with the latency of a remote store."""

import asyncio
from typing import Any

from zarr.storage import LocalStore, WrapperStore

METADATA = ("zarr.json", ".zarray", ".zattrs", ".zgroup", ".zmetadata")


class SlowStore(WrapperStore[LocalStore]):
    """Delay each request of a chunk. The store pickles, so workers can open it.

    Parameters
    ----------
    path : str
        The folder.
    seconds : float
        Delay of each request.
    """

    _supports_sync_io = False  # so that zarr calls only `get`

    def __init__(self, path: str, seconds: float) -> None:
        super().__init__(LocalStore(path, read_only=True))
        self._arguments = path, seconds

    def __reduce__(self) -> tuple[type["SlowStore"], tuple[str, float]]:
        return SlowStore, self._arguments

    async def get(self, key: str, prototype: Any, byte_range: Any = None) -> Any:
        """Wait, then read from the folder."""
        if not key.endswith(METADATA):
            await asyncio.sleep(self._arguments[1])
        return await super().get(key, prototype, byte_range)
