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
    ├── WriteError                      also OSError: make room, or check the rights to write
    │   └── ConflictError               somebody else has committed: repeat the call
    ├── TargetExistsError               also FileExistsError: name another target, or another mode
    ├── RowsError                       also ValueError: the rows do not fit the arrays or the target
    └── QueryError                      the query is at fault
        ├── UnknownColumnError          also KeyError: correct the name
        ├── PredicateError              also TypeError: the filter is not a Boolean expression
        ├── PointsError                 also ValueError: correct the points, or how they are matched
        ├── UnknownOptionError          also TypeError: correct the keyword
        ├── SQLError                    also polars' SQLInterfaceError and SQLSyntaxError: correct the SQL
        ├── UnknownTableError           also KeyError: correct the name, or pass the table
        ├── GeometryError               also ValueError: correct the geometry, or convert it to the grid's CRS
        └── PlanTooLargeError           also ValueError and polars' ComputeError: narrow the filter

Warnings have classes of their own, so that filters can name them::

    RainbearWarning                     also UserWarning
    ├── SkippedArrayWarning             an array has no column
    ├── RepeatedRowsWarning             rows repeat every variable many times
    ├── LargeResultWarning              a result may exceed the memory of this machine
    ├── SuspiciousFilterWarning         a filter is valid, but hardly meant
    ├── IgnoredStatisticsWarning        a file of chunk statistics is damaged, foreign, or of a later form
    └── UnknownSettingWarning           a setting is misspelt, and without effect

Every message says what happened, where (store, array, chunk) and what to do. An error holds nothing but its message, so
it pickles from a worker to the client. No message holds a secret or a control character.
"""

from polars.exceptions import ComputeError, SQLInterfaceError, SQLSyntaxError

from rainbear_dask.redaction import presentable


class RainbearError(Exception):
    """Base class of all errors that this package raises on purpose.

    Examples
    --------
    >>> import rainbear_dask as rd
    >>> try:
    ...     rd.scan_zarr("no_such_store.zarr")
    ... except rd.exceptions.RainbearError as error:
    ...     isinstance(error, FileNotFoundError)
    True
    """

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


class WriteError(RainbearError, OSError):
    """A file or a chunk could not be written."""


class ConflictError(WriteError):
    """Somebody else has changed the target meanwhile; nothing was written."""


class TargetExistsError(RainbearError, FileExistsError):
    """The target holds something that the call would not replace or continue."""


class RowsError(RainbearError, ValueError):
    """Rows do not fit the arrays that they should become."""


class NoClientError(ClusterError, ValueError):
    """A call needs a Dask client, and none is given or active."""


class QueryError(RainbearError):
    """The query cannot be answered as written."""


class UnknownColumnError(QueryError, KeyError):
    """The query names a column or variable that the table does not have."""


class PredicateError(QueryError, TypeError):
    """A filter is not an expression with one Boolean per row."""


class PointsError(QueryError, ValueError):
    """Points cannot be matched with the coordinates of a table as asked."""


class UnknownOptionError(QueryError, TypeError):
    """A keyword is not an option of the function."""


class SQLError(QueryError, SQLInterfaceError, SQLSyntaxError):
    """Polars does not understand an SQL statement; the message names the place."""


class UnknownTableError(QueryError, KeyError):
    """An SQL statement names a table that nobody passed, and that is no store."""


class GeometryError(QueryError, ValueError):
    """A geometry cannot be used: it cannot be read, has no inside, or is in another CRS than the grid."""


class PlanTooLargeError(QueryError, ValueError, ComputeError):
    """The plan would read more than the caller's limits allow."""


class RainbearWarning(UserWarning):
    """Base class of all warnings that this package gives."""


class SkippedArrayWarning(RainbearWarning):
    """A scan leaves out an array, because it cannot be a column."""


class RepeatedRowsWarning(RainbearWarning):
    """No variable spans the dimensions of a table, so that rows repeat every variable many times."""


class LargeResultWarning(RainbearWarning):
    """A result may be larger than the memory of this machine."""


class SuspiciousFilterWarning(RainbearWarning):
    """A filter is valid, but hardly means the caller's intention."""


class IgnoredStatisticsWarning(RainbearWarning):
    """A file of chunk statistics is damaged, foreign, or of a later form, so the scan reads without it."""


class UnknownSettingWarning(RainbearWarning):
    """The configuration has a setting that this package does not know."""
