"""Errors of rainbear_dask: one base class, with groups by remedy.

::

    RainbearError
    ├── StoreError                      the store is at fault
    │   ├── StoreNotFoundError          also FileNotFoundError: correct the address
    │   ├── StoreAccessError            also PermissionError: correct the credentials
    │   ├── StoreFormatError            also ValueError: no Zarr group, or contradictory metadata
    │   └── ChunkReadError              also OSError: a chunk cannot be fetched or decoded
    ├── SettingError                    also ValueError: correct the configuration
    ├── ClusterError                    also ConnectionError: no Dask cluster can run the tasks
    │   └── NoClientError               also ValueError: connect a Dask client, or pass one
    ├── MissingDependencyError          also ImportError: install the extra that the message names
    └── QueryError                      the query is at fault
        ├── UnknownColumnError          also KeyError: correct the name
        ├── PredicateError              also TypeError: the filter is not a Boolean expression
        ├── UnknownOptionError          also TypeError: correct the keyword
        ├── GeometryError               also ValueError: correct the geometry, or convert it to the grid's CRS
        └── PlanTooLargeError           also ValueError and polars' ComputeError: narrow the filter

Every message says what happened, where (store, array, chunk) and what to do. An error holds nothing but its message, so
it pickles from a worker to the client. No message holds a secret or a control character.
"""

from polars.exceptions import ComputeError

from rainbear_dask.redaction import presentable


class RainbearError(Exception):
    """Base class of all errors that this package raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(presentable(message))

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class StoreError(RainbearError):
    """The store cannot be used in its present state."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """There is no store at the address."""


class StoreAccessError(StoreError, PermissionError):
    """The store rejects the credentials, or requires some."""


class StoreFormatError(StoreError, ValueError):
    """The address does not hold a Zarr group that can be read as a table."""


class ChunkReadError(StoreError, OSError):
    """A chunk could not be fetched or decoded."""


class SettingError(RainbearError, ValueError):
    """A setting has an invalid value."""


class ClusterError(RainbearError, ConnectionError):
    """A Dask cluster cannot be started or reached, or has no worker."""


class MissingDependencyError(RainbearError, ImportError):
    """An optional package is not installed; the message names the extra that installs it."""


class NoClientError(ClusterError, ValueError):
    """A call needs a Dask client, and none is given or active."""


class QueryError(RainbearError):
    """The query cannot be answered as written."""


class UnknownColumnError(QueryError, KeyError):
    """The query names a column or variable that the table does not have."""


class PredicateError(QueryError, TypeError):
    """A filter is not an expression with one Boolean per row."""


class UnknownOptionError(QueryError, TypeError):
    """A keyword is not an option of the function."""


class GeometryError(QueryError, ValueError):
    """A geometry cannot be used: it cannot be read, has no inside, or is in another CRS than the grid."""


class PlanTooLargeError(QueryError, ValueError, ComputeError):
    """The plan would read more than the caller's limits allow."""
