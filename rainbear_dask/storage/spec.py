"""Recipes of stores: how to open one group of a store again, in any process."""

from collections.abc import Mapping
from dataclasses import dataclass, field
from typing import Any

from rainbear_dask.resources.openings import Opening, arrived_opening, opening

CacheKey = tuple[str, str, str, str]


@dataclass(frozen=True, slots=True)
class StoreSpec:
    """A recipe to open one group of a store again, in any process: plain data that pickles.

    Parameters
    ----------
    label : str
        Name of the store in messages, plans and reprs: its address without credentials.
    source
        A path or URL (str), or a ``zarr.abc.store.Store``.
    version : str
        Digest of the metadata documents, and of other cheap signs of the store's state. It changes with a resize, a new
        codec or a rewritten store, and not with a chunk overwritten in place.
    group : str
        Path of the group inside the store, without a slash at either end; "" is the root.
    options : mapping of str to object
        Storage options of a URL. They may hold credentials, so no repr and no key shows them.
    opening_id : str
        Name of this opening. Cache keys contain it, so a scan of a rewritten store never gets values that an earlier
        scan cached. Dask keys do not contain it, so equal questions have equal keys.
    max_cached : int or None
        Upper bound on the pieces of coordinates that a process caches for this opening.
    max_chunks : int or None
        Upper bound on the chunks of data variables that a process caches for this opening. None: it caches none.
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
    """Keeps the values of this opening in caches, so no cache key may hold it."""

    def __post_init__(self) -> None:
        if self.opening_id:
            object.__setattr__(self, "_alive", opening(self.opening_id))

    def cache_key(self) -> "CacheKey":
        """Return a key for caches that names this opening without keeping it alive, as the recipe itself would."""
        return (self.key(), self.label, self.version, self.group)

    def key(self) -> str:
        """Return the name of the opening. Caches drop entries under it some time after its last recipe is gone."""
        if self.opening_id and self._alive is None:  # from a pickle
            object.__setattr__(self, "_alive", arrived_opening(self.opening_id))
        return self.opening_id

    def __dask_tokenize__(self) -> tuple[str, str, str]:
        """Return the content for a Dask key, without credentials."""
        return (self.label, self.version, self.group)
