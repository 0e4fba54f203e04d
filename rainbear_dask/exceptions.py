"""Errors of rainbear_dask: one base class, grouped by what a handler would do about them.

::

    RainbearError
    ├── StoreError                      the store, not the question, is at fault
    │   ├── StoreNotFoundError          also FileNotFoundError: mend the address
    │   ├── StoreAccessError            also PermissionError: mend the credentials
    │   ├── StoreFormatError            also ValueError: not a Zarr group, or metadata that contradicts itself
    │   └── ChunkReadError              also OSError: a chunk cannot be fetched or decoded
    ├── SettingError                    also ValueError: mend the configuration
    ├── ClusterError                    also ConnectionError: no Dask cluster to work on
    │   └── NoClientError               also ValueError: connect a Dask client, or pass one
    └── QueryError                      the question is at fault
        ├── UnknownColumnError          also KeyError: mend the name
        ├── PredicateError              also TypeError: the filter is not a Boolean expression
        ├── UnknownOptionError          also TypeError: mend the keyword
        └── PlanTooLargeError           also ValueError and polars' ComputeError: narrow the filter

Every message says what happened, where (store, array, chunk) and what to do. An error holds nothing but its
message, so that it pickles from a worker to the client. No message holds a secret or a control character.
"""

from polars.exceptions import ComputeError

from rainbear_dask.redaction import presentable


class RainbearError(Exception):
    """Base of all errors that this package raises on purpose."""

    def __init__(self, message: str) -> None:
        super().__init__(presentable(message))

    def __str__(self) -> str:  # KeyError would show the repr of the message
        return str(self.args[0])


class StoreError(RainbearError):
    """The store cannot be used as it is."""


class StoreNotFoundError(StoreError, FileNotFoundError):
    """Nothing is at the address."""


class StoreAccessError(StoreError, PermissionError):
    """The store refuses the credentials, or wants some."""


class StoreFormatError(StoreError, ValueError):
    """What is at the address is not a Zarr group that can be read as a table."""


class ChunkReadError(StoreError, OSError):
    """A chunk could not be fetched or decoded."""


class SettingError(RainbearError, ValueError):
    """A setting has a value that it cannot have."""


class ClusterError(RainbearError, ConnectionError):
    """A Dask cluster cannot be started or reached, or has no worker."""


class NoClientError(ClusterError, ValueError):
    """A call needs a Dask client, and none is given or active."""


class QueryError(RainbearError):
    """The question cannot be answered as it is put."""


class UnknownColumnError(QueryError, KeyError):
    """A column or variable is named that the table does not have."""


class PredicateError(QueryError, TypeError):
    """A filter is not an expression that gives one Boolean per row."""


class UnknownOptionError(QueryError, TypeError):
    """A keyword is not an option of the function."""


class PlanTooLargeError(QueryError, ValueError, ComputeError):
    """The plan would read more than the limits that were given."""
