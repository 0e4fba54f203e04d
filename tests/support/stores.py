"""Stores for several test modules, and one that counts its requests."""

from collections import Counter

import numpy as np
import pytest
import xarray as xr
import zarr
from zarr.storage import WrapperStore

TREE = xr.Dataset(
    {"t": (("y", "x"), np.arange(6.0).reshape(2, 3), {"units": "K"}), "scalar": ((), 7)},
    {"x": [10, 20, 30], "name": ("x", np.array(["a", "bb", ""], dtype=object))},
    attrs={"title": "test"},
)
ALL_KINDS = pytest.mark.parametrize(
    ("zarr_format", "consolidated"), [(2, True), (2, False), (3, True), (3, False)], ids=str
)


def write_tree(path, *, zarr_format, consolidated):
    """Write a root, a group of arrays two levels below, and an empty group between them."""
    TREE.to_zarr(path, zarr_format=zarr_format, consolidated=False)
    TREE.drop_vars("name").to_zarr(path, group="model/run", zarr_format=zarr_format, consolidated=False)
    if consolidated:
        zarr.consolidate_metadata(path, zarr_format=zarr_format)


def write_field(path, chunks=(24, 4, 5)):
    """Return a small field of two variables: 24 chunks each (2 x 3 x 4), hourly time, descending latitude."""
    sizes = {"time": 48, "lat": 12, "lon": 20}
    values = {
        name: (tuple(sizes), np.random.default_rng(seed).normal(280, 10, tuple(sizes.values())).astype("f4"))
        for seed, name in enumerate(["t2m", "sst"])
    }
    coords = {
        "time": np.datetime64("2020-01-31T12", "ns") + np.arange(48) * np.timedelta64(1, "h"),
        "lat": np.linspace(82.5, -82.5, 12),
        "lon": np.arange(20) * 18.0,
    }
    encoding = {name: {"chunks": chunks} for name in values}
    xr.Dataset(values, coords).to_zarr(path, encoding=encoding, zarr_format=3, consolidated=False)


class CountingStore(WrapperStore):
    """A store that counts requests by key, for metadata and for the chunks of each array."""

    def __init__(self, store):
        super().__init__(store)
        self.requests = Counter()

    async def get(self, key, prototype, byte_range=None):
        """Count a request and forward it."""
        self.requests[key] += 1
        return await super().get(key, prototype, byte_range)

    async def get_partial_values(self, prototype, key_ranges):
        """Count each range and forward the requests."""
        key_ranges = list(key_ranges)
        self.requests.update(key for key, _ in key_ranges)
        return await super().get_partial_values(prototype, key_ranges)

    def chunks(self, array: str) -> set[str]:
        """Return the keys of the requested chunks of an array."""
        found = set()
        for key in self.requests:
            path, _, name = key.rpartition(f"{array}/")
            if not path and key.startswith(f"{array}/") and not name.startswith((".z", "zarr.json")):
                found.add(key)
        return found
