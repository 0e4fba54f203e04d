"""The file of one array's statistics: Parquet, one row for each chunk that was read.

Columns: ``chunk.0``, ``chunk.1``, ... (index of the chunk in the grid), ``min`` and ``max`` of the decoded values in the
column's own type (without null and NaN; null if there is no such value), ``nulls``, ``nans``, ``count`` (cells of the
chunk inside the array), ``stamp`` and ``size`` (identity of the stored object). The metadata of the file say which array
and decoding it describes. The form is private to this package, and has a version.
"""

import io
import json
from collections.abc import Sequence
from dataclasses import asdict, dataclass, fields
from datetime import UTC, datetime
from hashlib import blake2b
from typing import IO, Any

import numpy as np
import numpy.typing as npt
import polars as pl

from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.storage.identities import Kind, Stamps
from rainbear_dask.table.model import Column

VERSION = 1

_KEY = "rainbear_dask.statistics"

COUNTS = ("nulls", "nans", "count")
IDENTITY = ("stamp", "size")


class FormError(Exception):
    """Bytes are no file of statistics, or one of a later form. The message ends the sentence "it is ignored, because"."""


@dataclass(frozen=True, slots=True)
class Subject:
    """The values that a file describes: it holds for a scan with an equal subject only.

    Parameters
    ----------
    chunks : tuple of int
        Lengths of a chunk.
    document : str
        Digest of the array's document without its shape: data type, codecs, fill value, shards.
    decoding : str
        Decoding from stored values to values of the column, as JSON.
    identity : str
        Kind of the identities of stored objects.
    """

    chunks: tuple[int, ...]
    document: str
    decoding: str
    identity: Kind

    @classmethod
    def of(cls, column: Column, identity: Kind) -> "Subject":
        """Return the subject of a column with an array."""
        array, decoding = column.array, column.decoding
        assert array is not None  # noqa: S101  only columns with an array are collected
        assert decoding is not None  # noqa: S101
        document = {key: value for key, value in json.loads(array.document).items() if key not in _OF_NO_VALUE}
        digest = blake2b(json.dumps(document, sort_keys=True).encode(), digest_size=16).hexdigest()
        values = {each.name: getattr(decoding, each.name) for each in fields(decoding) if each.name != "path"}
        # two equal types of NumPy may have different reprs
        texts = {key: one.str if isinstance(one, np.dtype) else repr(one) for key, one in values.items()}
        return cls(array.chunks, digest, json.dumps(texts), identity)


_OF_NO_VALUE = frozenset({"shape", "attributes", "dimension_names", "consolidated_metadata"})
"""Entries of a document that change no value of a chunk. The decoding holds what attributes mean."""


@dataclass(frozen=True, slots=True, eq=False)
class ChunkStatistics:
    """Statistics of the chunks of one array.

    Parameters
    ----------
    rows : DataFrame
        One row for each chunk of the grid, in C order, with the columns of the file but the indices. ``count`` is null
        for a chunk without statistics.
    made : datetime
        When they were last collected, in UTC.
    """

    rows: pl.DataFrame
    made: datetime

    @property
    def known(self) -> npt.NDArray[np.bool_]:
        """The chunks that have statistics, shape (n,)."""
        return self.rows["count"].is_not_null().to_numpy()

    @property
    def stamps(self) -> Stamps:
        """Identities of the chunks' objects when they were read, shape (n, 2)."""
        return self.rows.select(pl.col(IDENTITY).fill_null(0)).to_numpy()


def columns_of(dtype: pl.DataType) -> dict[str, Any]:
    """Return the columns of `ChunkStatistics.rows`, each with its type."""
    counts = dict.fromkeys((*COUNTS, *IDENTITY), pl.Int64())
    return {"min": dtype, "max": dtype, **counts}


def no_statistics(grid: ChunkGrid, dtype: pl.DataType) -> ChunkStatistics:
    """Return statistics that know no chunk."""
    none = {name: pl.Series([None], dtype=kind) for name, kind in columns_of(dtype).items()}
    rows = pl.DataFrame({name: one.new_from_index(0, grid.num_chunks) for name, one in none.items()})
    return ChunkStatistics(rows, datetime.now(UTC))


def cells_of(grid: ChunkGrid) -> npt.NDArray[np.int64]:
    """Return the number of cells of each chunk inside the array, in C order."""
    cells = np.ones((), dtype=np.int64)
    for axis in grid.axes:
        starts = np.arange(axis.num_chunks, dtype=np.int64) * axis.chunk
        cells = np.multiply.outer(cells, np.minimum(axis.length - starts, axis.chunk))
    return cells.reshape(-1)


def write_statistics(found: ChunkStatistics, subject: Subject, array: str, grid: ChunkGrid, file: IO[bytes]) -> None:
    """Write a file of statistics; chunks without statistics have no row in it."""
    known = np.flatnonzero(found.known)
    places = np.unravel_index(known, grid.counts)
    index = [pl.Series(f"chunk.{axis}", place.astype(np.uint32)) for axis, place in enumerate(places)]
    rows = pl.DataFrame(index).hstack(found.rows[known])
    about = {"version": VERSION, "array": array, "dims": grid.dims, "shape": grid.shape, "made": found.made.isoformat()}
    rows.write_parquet(file, metadata={_KEY: json.dumps(about | asdict(subject))})


def read_statistics(content: bytes, subject: Subject, grid: ChunkGrid, dtype: pl.DataType) -> ChunkStatistics | None:
    """Read a file of statistics.

    Parameters
    ----------
    content : bytes
        The file.
    subject : Subject
        The wanted subject.
    grid : ChunkGrid
        The grid of the array as it is now. It may be longer or shorter than the grid of the file: a chunk that then has
        another number of cells counts as unknown.
    dtype : DataType
        Type of the column.

    Returns
    -------
    ChunkStatistics or None
        None if the file has another subject, for example values of another decoding.

    Raises
    ------
    FormError
        If the bytes are no such file, or of a later form.
    """
    described, made = _described(content)
    if described != subject:
        return None
    names = [f"chunk.{axis}" for axis in range(len(grid.dims))]
    limit = _MAX_SHRINKING * grid.num_chunks + _MIN_LIMIT
    try:
        rows = pl.read_parquet(io.BytesIO(content), n_rows=limit + 1)
        rows = rows.select(*names, *columns_of(dtype))
    except Exception as err:
        raise FormError("it is damaged") from err
    if rows.height > limit:
        raise FormError("it has many more rows than the array has chunks")
    if dict(rows.schema) != dict.fromkeys(names, pl.UInt32()) | columns_of(dtype):
        raise FormError("its columns have other types")
    places = tuple(rows[name].to_numpy() for name in names)
    return ChunkStatistics(_on_grid(rows.drop(names), places, grid), made)


_MAX_SHRINKING, _MIN_LIMIT = 4, 1024
"""Upper bound on the rows of a file: for each chunk of the present grid, and in addition. The array may have shrunk."""


def _described(content: bytes) -> tuple[Subject, datetime]:
    """Return the subject of a file, and when it was made."""
    try:
        found = pl.read_parquet_metadata(io.BytesIO(content))
    except Exception as err:
        raise FormError("it is damaged, or no Parquet file") from err
    if _KEY not in found:
        raise FormError("it holds something else")
    try:
        about: dict[str, Any] = json.loads(found[_KEY])
        if about["version"] > VERSION:
            raise FormError(f"it has form {about['version']}, of a later version of this package")
        subject = Subject(tuple(about["chunks"]), about["document"], about["decoding"], about["identity"])
        return subject, datetime.fromisoformat(about["made"])
    except (ValueError, KeyError, TypeError) as err:
        raise FormError("its description is damaged") from err


def _on_grid(rows: pl.DataFrame, places: Sequence[npt.NDArray[np.uint32]], grid: ChunkGrid) -> pl.DataFrame:
    """Return one row for each chunk of the grid; chunks with another number of cells are unknown."""
    shape, cells = grid.counts, cells_of(grid)
    inside = np.ones(rows.height, dtype=np.bool_)
    for place, length in zip(places, shape, strict=True):
        inside &= place < length
    if not inside.all():
        rows, places = rows.filter(pl.Series(inside)), [place[inside] for place in places]
    numbers = np.ravel_multi_index(tuple(place.astype(np.int64) for place in places), shape)
    if len(numbers) != len(cells) or not np.array_equal(numbers, np.arange(len(cells))):
        row_of = np.full(len(cells), -1, dtype=np.int64)
        row_of[numbers] = np.arange(len(numbers))
        rows = rows.select(pl.all().gather(pl.Series(row_of).replace(-1, None)))
    fits = pl.Series(rows["count"].fill_null(-1).to_numpy() == cells)
    return rows if fits.all() else rows.with_columns(pl.when(fits).then(pl.col("count")).alias("count"))
