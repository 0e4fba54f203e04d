"""A recipe to open a store again, in any process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rainbear_dask.resources.cache import Opening, arrived_opening, opening

CacheKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """A recipe to open one group of a store again, in any process: plain data that pickles.

    Parameters
    ----------
    label : str
        How messages, plans and reprs name the store: its address without any credentials.
    source
        What to open: a path or URL (str), or an object that zarr reads from (a ``zarr.abc.store.Store``).
    version : str
        Digest of the metadata documents and of what else the store tells cheaply of its state. It catches a resize,
        a new codec or a rewritten store, not a chunk overwritten in place.
    group : str
        Path of the group inside the store, without a slash at either end; "" is the root.
    options : mapping of str to object
        Storage options that go with a URL. They may hold credentials, so no repr and no key shows them.
    opening_id : str
        Names this opening. Caches are keyed by it, so that a scan made after the store was rewritten never meets
        what an earlier scan had cached; results are not, so that the same question has the same Dask key.
    max_cached : int or None
        Pieces of coordinates that a process keeps of this opening at most.
    max_chunks : int or None
        Chunks of data variables that a process keeps of this opening at most. None: none is kept.
    """

    label: str
    source: Any = field(repr=False, compare=False)
    version: str
    group: str = ""
    options: Mapping[str, Any] = field(default_factory=dict, repr=False, compare=False)
    opening_id: str = ""
    max_cached: int | None = field(default=None, compare=False)
    max_chunks: int | None = field(default=None, compare=False)

    _alive: Opening | None = field(default=None, init=False, repr=False, compare=False)
    """Lives as long as anybody can ask for what caches keep of this opening; no key of a cache may hold it, nor this recipe."""

    def __post_init__(self) -> None:
        if self.opening_id:
            object.__setattr__(self, "_alive", opening(self.opening_id))

    def cache_key(self) -> "CacheKey":
        """Return a key for caches, which tells openings apart and keeps none of them alive, as the recipe itself would."""
        return (self.key(), self.label, self.version, self.group)

    def key(self) -> str:
        """Name of the opening for the key of a cache, which drops what it has under it some time after the last recipe is gone."""
        if self.opening_id and self._alive is None:  # from a pickle
            object.__setattr__(self, "_alive", arrived_opening(self.opening_id))
        return self.opening_id

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        """Content for a Dask key: which data, never with which credentials."""
        return (self.label, self.version, self.group)
