"""The work of one task of an export: read its rows, and write them as Parquet files."""

from collections.abc import Mapping
from dataclasses import dataclass
from functools import partial
from math import prod
from typing import IO, Any, Literal

import polars as pl
from dask.base import tokenize

from rainbear_dask.execution.worker import make_frame
from rainbear_dask.export.geoparquet import geo_metadata, points
from rainbear_dask.export.manifest import TaskRecord
from rainbear_dask.export.partitions import check_found, partitions
from rainbear_dask.planning.task import ScanTask
from rainbear_dask.storage.targets import Target

Compression = Literal["zstd", "lz4", "snappy", "gzip", "brotli", "uncompressed"]


@dataclass(frozen=True)
class FileForm:
    """The form of the files of an export, as plain data.

    Parameters
    ----------
    columns : tuple of str
        Columns that the caller asked for. Frames may have more, which keys and points need.
    keys : mapping of str to bytes
        Serialized expression of each partition key.
    geo : tuple of str, optional
        Columns of x and y of the points.
    crs
        CRS of the points, as `geoparquet.crs_of` returns it.
    row_group_rows : int
        Upper bound on the rows of a row group.
    compression : str
        Codec of the pages.
    metadata : str
        JSON with the attributes of the columns, for the metadata of each file.
    """

    columns: tuple[str, ...]
    keys: Mapping[str, bytes]
    geo: tuple[str, str] | None
    crs: Any
    row_group_rows: int
    compression: Compression
    metadata: str

    def write(self, frame: pl.DataFrame, row_group_rows: int, file: IO[bytes]) -> None:
        """Write rows with the columns of the caller, and points if wanted, into a binary file."""
        metadata = {"rainbear_dask": self.metadata}
        names = [name for name in self.columns if name not in self.keys]
        wanted = frame.select(names)
        if self.geo is not None:
            x, y = (frame[name] for name in self.geo)
            wanted = wanted.with_columns(points(x, y))
            metadata["geo"] = geo_metadata(x, y, self.crs)
        wanted.write_parquet(
            file, compression=self.compression, row_group_size=row_group_rows, metadata=metadata, statistics=True
        )


@dataclass(frozen=True)
class ParquetWriter:
    """Writes the files of a task.

    Parameters
    ----------
    target : Target
        The folder of the export.
    form : FileForm
        The form of the files.
    sizes : mapping of str to int
        Length of each dimension of the table.
    """

    target: Target
    form: FileForm
    sizes: Mapping[str, int]

    __name__ = "write-parquet"  # for Dask's keys

    def __call__(self, task: ScanTask, frame: pl.DataFrame) -> TaskRecord:
        """Write the rows of a task; several files if it has rows of several partitions, none without rows."""
        name, files = task_name(task, self.sizes), dict[str, int]()
        if not frame.height:
            return TaskRecord(name, 0, {})
        keys = {key: pl.Expr.deserialize(content) for key, content in self.form.keys.items()}
        group = row_group_length(task, self.form.row_group_rows, frame.height)
        found = partitions(frame, keys, self.form.geo or ())
        check_found(keys, len(found))
        for folder, rows in found:
            path = f"{folder}/{name}.parquet".lstrip("/")
            files[path] = self.target.write(path, partial(self.form.write, rows, group))
        return TaskRecord(name, frame.height, files)


def write_task(task: ScanTask, writer: ParquetWriter) -> TaskRecord:
    """Read the rows of one task and write them; a retry writes the same files."""
    return writer(task, make_frame(task))


def task_name(task: ScanTask, sizes: Mapping[str, int]) -> str:
    """Return the name of a task's files: the number of its first row, which sorts, and a token of its content."""
    first = min(_rank([p.hull[0] for p in box], task, sizes) for box in task.boxes or [task.index])
    return f"{first:016d}-{tokenize(task, ensure_deterministic=True)[:16]}"


def _rank(cell: list[int], task: ScanTask, sizes: Mapping[str, int]) -> int:
    """Return the number of a cell in the order of the table's rows."""
    lengths = [sizes[dim] for dim in task.scan.dims]
    blocks = task.scan.blocks or tuple(lengths)
    starts = [position // block * block for position, block in zip(cell, blocks, strict=True)]
    inside = [min(block, size - start) for block, size, start in zip(blocks, lengths, starts, strict=True)]
    rank = 0
    for axis, (position, start) in enumerate(zip(cell, starts, strict=True)):
        rank += prod(inside[:axis]) * start * prod(lengths[axis + 1 :])
        rank += (position - start) * prod(inside[axis + 1 :])
    return rank


def row_group_length(task: ScanTask, most: int, rows: int) -> int:
    """Return the rows of a row group: whole steps of an outer dimension if ``most`` allows, for narrow statistics."""
    if rows != prod(map(len, task.index)):
        return most
    step = 1
    for positions in reversed(task.index):
        if step * len(positions) > most:
            break
        step *= len(positions)
    return most // step * step
