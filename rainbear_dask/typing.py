"""Types of the public functions: what a scan reads from, and the options of a scan.

For annotations: ``def load(source: StoreLike, **options: Unpack[ScanOptions]) -> pl.LazyFrame``.
"""

from collections.abc import Collection, Mapping, MutableMapping
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, Protocol, TypeAlias, TypedDict

if TYPE_CHECKING:
    from icechunk import Repository, Session
    from obstore.store import ObjectStore
    from xarray import Dataset
    from zarr import Array, Group
    from zarr.abc.store import Store


class BackendLike(Protocol):
    """A backend of this package: `ZarrBackend`, `ZarrBackendSync` or `IcechunkBackend`."""

    def root(self) -> str: ...
    def schema(self, variables: Collection[str] | None = None) -> Mapping[str, Any]: ...


class ItemLike(Protocol):
    """A STAC item or collection, for example of pystac."""

    @property
    def assets(self) -> Mapping[str, Any]: ...


class AssetLike(Protocol):
    """A STAC asset, for example of pystac."""

    @property
    def href(self) -> str: ...


StoreLike: TypeAlias = (
    "str | PathLike[str] | Store | Group | Array[Any] | Dataset | ObjectStore | MutableMapping[str, bytes] | Session "
    "| BackendLike | ItemLike | AssetLike | dict[str, Any]"
)
"""A path, a URL, a store, group or array of zarr, a Dataset that xarray opened, a store of obstore, an fsspec mapper, an
Icechunk session or store, a backend, or a STAC item or asset."""

TimeUnit: TypeAlias = Literal["ns", "us", "ms"]
"""The unit of times and durations; see `scan_zarr`."""

RepositoryLike: TypeAlias = "Repository"
"""A repository of Icechunk."""

DtypeBackend: TypeAlias = Literal["numpy", "pyarrow"]
"""Which types a pandas or Dask DataFrame has; see `read_zarr`."""


StatisticsOption: TypeAlias = Literal["auto", False] | str | PathLike[str]
"""Where a scan looks for statistics of chunks; see `scan_zarr`."""


class TableOptions(TypedDict, total=False):
    """Options of `tables`: where the store begins, and how its values are decoded. `scan_zarr` documents them."""

    group: str | None
    prefix: str | None
    storage_options: Mapping[str, Any] | None
    decode: bool
    mask: bool
    statistics: StatisticsOption
    time_unit: TimeUnit


class ScanOptions(TableOptions, total=False):
    """Options of `scan_zarr`, `plan` and `read_zarr`: `TableOptions` and the variables of one table."""

    variables: Collection[str] | None
