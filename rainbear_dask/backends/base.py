"""`Backend`: the public methods that all backends share, on top of a `CachedStore`."""

from collections.abc import Collection
from os import PathLike
from typing import Any, Self

import polars as pl

from rainbear_dask.backends.cached_store import BackendOptions, CachedStore
from rainbear_dask.chunks import cache
from rainbear_dask.diagnostics.explain import selected_chunks
from rainbear_dask.execution.run_async import call_on_workers
from rainbear_dask.options import checks_options
from rainbear_dask.query.expression import plan_expression
from rainbear_dask.storage.sources import IcechunkAddress
from rainbear_dask.typing import StoreLike


class Backend:
    """The base of all backends.

    Parameters
    ----------
    source : str, path or store
        As in `scan_zarr`.
    prefix : str, optional
        Path of the Zarr store inside the source.
    options : BackendOptions, optional
        Cache limits.
    """

    def __init__(
        self, source: "StoreLike | IcechunkAddress", prefix: str | None = None, options: BackendOptions | None = None
    ) -> None:
        self.options = options or BackendOptions()
        self.cached = CachedStore(source, prefix, self.options)

    def __repr__(self) -> str:
        return f"{type(self).__name__}({self.cached.opened.label})"

    def schema(self, variables: Collection[str] | None = None) -> dict[str, pl.DataType]:
        """Return the name and type of each column.

        Parameters
        ----------
        variables : collection of str, optional
            Data variables of the table; by default all.

        Returns
        -------
        dict of str to polars.DataType
            In column order.
        """
        return dict(self.cached.table(variables).schema)

    def root(self) -> str:
        """Return the path of the group inside the store; "/" is the root."""
        return f"/{self.cached.opened.root}"

    def selected_chunks_debug(self, expr: pl.Expr) -> dict[str, Any]:
        """List the chunks that an expression needs; planning reads no data variable.

        Parameters
        ----------
        expr : Expr
            As in ``scan_zarr_async``.

        Returns
        -------
        dict
            ``{"grids": [{"dims", "variables", "chunks": [{"indices", "origin", "shape", "shards"}]}], "coord_reads"}``.
        """
        return selected_chunks(plan_expression(self.cached.table(), expr, loosely=True).plan)


def without_backend(source: StoreLike) -> Any:
    """Return the opened store of a backend, so that a scan shares its caches; return other sources unchanged."""
    return source.cached.opened if isinstance(source, Backend) else source


class StoreBackend(Backend):
    """A backend of a Zarr store, by address or by store object."""

    @classmethod
    def from_url(cls, url: str | PathLike[str], options: BackendOptions | None = None) -> Self:
        """Create a backend for an address; nothing is read yet.

        Parameters
        ----------
        url : str or path
            A local path, or a URL that fsspec knows, with credentials from the environment.
        options : BackendOptions, optional
            Cache limits.

        Returns
        -------
        backend
            It pickles and holds no open connection.
        """
        return cls(url, options=options)

    @classmethod
    def from_store(cls, store: StoreLike, prefix: str | None = None, options: BackendOptions | None = None) -> Self:
        """Create a backend for a store object; nothing is read yet.

        Parameters
        ----------
        store : store
            A store of obstore, zarr or fsspec (a mapper), or an address.
        prefix : str, optional
            Path of the Zarr store inside. For ``LocalStore()``, an absolute path.
        options : BackendOptions, optional
            Cache limits.

        Returns
        -------
        backend
            It pickles if the store does.

        Raises
        ------
        StoreFormatError
            If the package cannot read from such an object.
        """
        return cls(store, prefix, options)


class AsyncBackend(Backend):
    """A backend whose calls return awaitables."""

    @checks_options
    async def scan_zarr_async(
        self,
        predicate: pl.Expr | None,
        max_concurrency: int | None = None,
        max_chunks_to_read: int | None = None,
    ) -> pl.DataFrame:
        """Evaluate an expression on the table without blocking the event loop.

        Parameters
        ----------
        predicate : Expr or None
            An expression that gives one Boolean for each row filters. Any other expression is evaluated like
            ``select`` on all rows. If all its columns pass through ``filter``, it is evaluated on the filtered rows.
            None returns all rows.
        max_concurrency : int, optional
            Upper bound of the tasks in flight. By default 8. On a Dask cluster, by default twice the threads of its
            workers.
        max_chunks_to_read : int, optional
            Upper bound of the chunks that the expression may need.

        Returns
        -------
        DataFrame
            The rows that pass the filter, in the order of `scan_zarr`, with all columns. For other expressions, the
            result of ``select``.

        Raises
        ------
        PlanTooLargeError
            If the expression needs more chunks than ``max_chunks_to_read``. Nothing has been read then.
        PredicateError
            If the predicate is not an expression.
        UnknownColumnError
            If the predicate names a column that the table does not have.
        StoreError
            If the store or a chunk cannot be read.

        Notes
        -----
        Cancelling the awaiting task starts no further read. Tasks run on the active Dask client, which may be
        ``Client(asynchronous=True)``. Without a client, threads run them.
        """
        return await self.cached.collect_async(predicate, max_concurrency, max_chunks_to_read)

    async def cache_stats(self) -> dict[str, Any]:
        """Return what the backend has cached in memory.

        Returns
        -------
        dict
            ``coord_entries``, ``var_entries``, ``bytes``, ``hits``, ``misses`` and ``has_metadata`` of this process.
            With an active Dask client, ``workers`` has the same for each worker by its address.
        """
        return self.cached.stats(await call_on_workers(cache.usage, *self.cached.usage_args()))

    async def clear_coord_cache(self) -> None:
        """Drop cached coordinates, here and on workers; metadata stays."""
        await _drop(self.cached.opened.openings)

    async def clear_all_caches(self) -> None:
        """Drop coordinates and metadata: the next query reopens the store, at the newest snapshot of a branch."""
        await _drop(self.cached.forget())


async def _drop(openings: list[str]) -> None:
    cache.forget(openings)
    await call_on_workers(cache.forget, openings)
