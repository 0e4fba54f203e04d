"""A store that counts what is asked of it."""

from collections import Counter

from zarr.storage import WrapperStore


class CountingStore(WrapperStore):
    """Counts requests by key, and sorts them into metadata and the chunks of each array."""

    def __init__(self, store):
        super().__init__(store)
        self.requests = Counter()

    async def get(self, key, prototype, byte_range=None):
        """Pass on and count."""
        self.requests[key] += 1
        return await super().get(key, prototype, byte_range)

    async def get_partial_values(self, prototype, key_ranges):
        """Pass on and count each range."""
        key_ranges = list(key_ranges)
        self.requests.update(key for key, _ in key_ranges)
        return await super().get_partial_values(prototype, key_ranges)

    def chunks(self, array: str) -> set[str]:
        """Keys of the chunks of an array that were asked for."""
        found = set()
        for key in self.requests:
            path, _, name = key.rpartition(f"{array}/")
            if not path and key.startswith(f"{array}/") and not name.startswith((".z", "zarr.json")):
                found.add(key)
        return found
