"""The public functions that write Zarr and Icechunk from rows."""

from collections.abc import Iterable, Mapping
from dataclasses import replace
from os import PathLike
from typing import TYPE_CHECKING, Any, Literal, get_args

import polars as pl

from rainbear_dask.api.plan import ScanPlan
from rainbear_dask.convert.grid import Dims
from rainbear_dask.dependencies import require
from rainbear_dask.exceptions import QueryError
from rainbear_dask.execution.clients import client_for
from rainbear_dask.options import checks_options
from rainbear_dask.planning.limits import check_limits
from rainbear_dask.planning.plan import ReadPlan
from rainbear_dask.query.scanned_frame import limits_of, plan_of_filters
from rainbear_dask.storage.targets import target_of
from rainbear_dask.typing import RepositoryLike
from rainbear_dask.writing.content import Rows
from rainbear_dask.writing.layout import Mode
from rainbear_dask.writing.rows import Options
from rainbear_dask.writing.zarr_target import write_target

if TYPE_CHECKING:
    from distributed import Client


@checks_options
def write_zarr(
    data: pl.DataFrame | pl.LazyFrame | ScanPlan | Iterable[pl.DataFrame],
    target: str | PathLike[str],
    dims: Dims | None = None,
    *,
    mode: Mode = "w-",
    region: Literal["auto"] | Mapping[str, slice] = "auto",
    append_dim: str | None = None,
    chunks: Mapping[str, int] | None = None,
    shards: Mapping[str, int] | None = None,
    encoding: Mapping[str, Mapping[str, Any]] | None = None,
    missing: Literal["fill", "error"] = "fill",
    duplicates: Literal["error", "last"] = "error",
    client: "Client | None" = None,
    storage_options: Mapping[str, Any] | None = None,
) -> None:
    """Write rows as a Zarr store, each row to the cell of its labels.

    A query that only filters and selects one scan is written by tasks, where they read, and keeps the attributes,
    encodings and chunks of its source. Each stored object (chunk or shard) has one writer. A new store is visible when
    it is whole, and after an error nothing of it is left.

    Parameters
    ----------
    data : DataFrame, LazyFrame, ScanPlan or iterable of DataFrame
        The rows. Other queries are collected first. An iterable is written frame by frame if the labels are known.
    target : str or path
        A local folder, or a URL of an object store.
    dims : sequence of str, or mapping of str to labels, optional
        Columns that become dimensions, in order. By names alone, labels are in order of appearance. The default is the
        dimensions of the scan or of the target.
    mode : {"w-", "w", "a", "r+"}
        "w-": make a new store. "w": replace a store. "r+": write into cells of a store, found by their labels. "a": the
        same, and columns that the store lacks become new arrays; or make a new store.
    region : "auto", or mapping of str to slice
        Positions within which the labels of "r+" and "a" must lie.
    append_dim : str, optional
        Dimension that becomes longer by new labels, which must continue its axis.
    chunks, shards : mapping of str to int, optional
        Lengths by dimension. The default is the source's chunks, else chunks of about 4 MiB, without shards.
    encoding : mapping of str to mapping, optional
        For each column as in xarray: ``dtype``, ``_FillValue``, ``missing_value``, ``scale_factor``, ``add_offset``,
        ``units``, ``calendar``, ``chunks``, ``shards``, ``compressors``.
    missing : {"fill", "error"}
        Whether cells without a row get the fill value. Integers, Booleans and texts have none unless ``encoding``
        declares it, and then that is an error, too.
    duplicates : {"error", "last"}
        Whether two rows of one cell are an error, or the last row counts.
    client : distributed.Client, optional
        Client that runs the tasks of a query; by default as in `scan_zarr`. This process writes frames.
    storage_options : mapping, optional
        Options of a URL in ``target``, in the spelling of `scan_zarr`.

    Raises
    ------
    TargetExistsError
        If the target exists, and ``mode`` does not allow to change it.
    RowsError
        If two rows have one cell, a label is not on the target's axis or does not continue it, a cell has no row and no
        fill, null has no fill value, or the target cannot hold a value.
    UnknownColumnError
        If a column or dimension is unknown.
    QueryError
        If the query reads the target, or an option is wrong.
    WriteError
        If the store fails.
    UnknownOptionError
        If a keyword is not an option of this function, or a key of ``encoding`` is unknown.

    Notes
    -----
    New stores are Zarr v3 with consolidated metadata; ``xarray.open_zarr`` reads them. A local store is written under
    another name and renamed. On object stores the document of the group comes last. "r+" and "a" change cells in place.
    With ``append_dim`` the chunks come first and the new lengths last. Floats get ``_FillValue`` NaN unless the source
    has another, so NaN is read as null.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> rd.write_zarr(rd.scan_zarr("sst.zarr").filter(pl.col("latitude") > 40), "north.zarr")
    >>> frame = pl.DataFrame({"x": [1, 2], "v": [0.5, 1.5]})
    >>> rd.write_zarr(frame, "v.zarr", ["x"])
    >>> rd.write_zarr(frame.with_columns(pl.col("x") + 2), "v.zarr", append_dim="x")
    """
    options = _options(
        mode, append_dim, region, encoding, chunks=chunks, shards=shards, missing=missing, duplicates=duplicates
    )
    place = target_of(target, storage_options)
    rows, runner = _rows(data, client)
    write_target(
        rows, place, dims, mode="a" if append_dim is not None else mode, options=replace(options, client=runner)
    )


@checks_options
def write_icechunk(
    data: pl.DataFrame | pl.LazyFrame | ScanPlan | Iterable[pl.DataFrame],
    repo: RepositoryLike,
    dims: Dims | None = None,
    *,
    message: str,
    branch: str = "main",
    mode: Mode = "w-",
    region: Literal["auto"] | Mapping[str, slice] = "auto",
    append_dim: str | None = None,
    chunks: Mapping[str, int] | None = None,
    shards: Mapping[str, int] | None = None,
    encoding: Mapping[str, Mapping[str, Any]] | None = None,
    missing: Literal["fill", "error"] = "fill",
    duplicates: Literal["error", "last"] = "error",
    client: "Client | None" = None,
) -> str:
    """Write rows to a branch of an Icechunk repository, in one step that everybody sees as a whole.

    Parameters
    ----------
    data
        As in `write_zarr`.
    repo : icechunk.Repository
        The repository; the arrays are in its root group.
    dims
        As in `write_zarr`.
    message : str
        Message of the commit.
    branch : str
        The branch that gets the commit.
    mode, region, append_dim, chunks, shards, encoding, missing, duplicates, client
        As in `write_zarr`.

    Returns
    -------
    str
        The id of the new snapshot; of the present one if nothing changed.

    Raises
    ------
    ConflictError
        If somebody else has committed meanwhile, and the changes exclude each other: both append, say. Nothing is
        committed. Commits to other chunks are no conflict.
    TargetExistsError
        If the branch has arrays, and ``mode`` does not allow to change them.
    StoreError
        If there is no such branch, or the storage fails.
    RowsError, UnknownColumnError, QueryError
        As in `write_zarr`.
    UnknownOptionError
        If a keyword is not an option of this function.

    Notes
    -----
    On a cluster, workers write into forks of a session. No two tasks write the same chunk, which Icechunk itself would
    merge without a word. New arrays and longer dimensions then are a commit of their own on a branch of the call's
    own, from which ``branch`` takes both commits at once.

    Examples
    --------
    >>> import icechunk
    >>> import rainbear_dask as rd
    >>> repo = icechunk.Repository.create(icechunk.in_memory_storage())
    >>> snapshot = rd.write_icechunk(rd.scan_zarr("sst.zarr"), repo, message="sea surface temperature")
    >>> lf = rd.scan_zarr(repo.readonly_session(snapshot_id=snapshot).store)
    """
    require("icechunk", extra="icechunk")
    from rainbear_dask.writing.icechunk_target import write_repository  # noqa: PLC0415  icechunk is an extra

    options = _options(
        mode, append_dim, region, encoding, chunks=chunks, shards=shards, missing=missing, duplicates=duplicates
    )
    rows, runner = _rows(data, client)
    wanted: Mode = "a" if append_dim is not None else mode
    return write_repository(
        rows, repo, dims, branch=branch, message=message, mode=wanted, options=replace(options, client=runner)
    )


def _options(
    mode: Mode,
    append_dim: str | None,
    region: Literal["auto"] | Mapping[str, slice],
    encoding: Mapping[str, Mapping[str, Any]] | None,
    *,
    chunks: Mapping[str, int] | None,
    shards: Mapping[str, int] | None,
    missing: Literal["fill", "error"],
    duplicates: Literal["error", "last"],
) -> Options:
    """Check the options of a call."""
    choices = {"mode": (mode, get_args(Mode)), "missing": (missing, ("fill", "error"))}
    for name, (value, known) in (choices | {"duplicates": (duplicates, ("error", "last"))}).items():
        if value not in known:
            raise QueryError(f"The option `{name}` is {value!r}, and not one of {', '.join(map(repr, known))}.")
    if append_dim is not None and mode not in ("w-", "a"):
        raise QueryError(f"The options `append_dim` and mode={mode!r} exclude each other. Omit one.")
    if append_dim is not None and region != "auto":
        raise QueryError("The options `append_dim` and `region` exclude each other. Omit one.")
    lengths = _lengths("chunks", chunks), _lengths("shards", shards)
    return Options(region, append_dim, *lengths, encoding or {}, missing, duplicates)


def _lengths(name: str, lengths: Mapping[str, int] | None) -> Mapping[str, int]:
    if lengths is not None and not isinstance(lengths, Mapping):
        raise QueryError(f"The option `{name}` is not a mapping. Give lengths by dimension: {{'time': 24}}.")
    return lengths or {}


def _rows(data: Any, client: "Client | None") -> tuple[Rows, "Client | None"]:
    """Return a plan or frames, and the client that runs a plan."""
    if isinstance(data, ScanPlan):
        return data.read_plan, client_for(data.read_plan, client)
    if isinstance(data, pl.LazyFrame):
        plan = _plan_of(data)
        if plan is None:
            return data.collect(), None
        check_limits(plan, limits_of(data))
        return plan, client_for(plan, client)
    if not isinstance(data, pl.DataFrame) and (
        isinstance(data, str | bytes | PathLike) or not isinstance(data, Iterable)
    ):
        raise QueryError(
            f"A {type(data).__name__} has no rows. Give a frame, a query such as scan_zarr(url), or a plan."
        )
    return data, None


def _plan_of(lf: pl.LazyFrame) -> ReadPlan | None:
    """Return the plan of a query that tasks can write; None for other queries."""
    try:
        plan = plan_of_filters(lf)
    except QueryError:
        return None
    return plan if plan.limit is None and plan.head is None else None
