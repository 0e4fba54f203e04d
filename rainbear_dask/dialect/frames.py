"""Objects and addresses that SQL statements may name, as LazyFrames."""

from collections.abc import Callable, Iterator
from functools import partial
from pathlib import Path
from typing import Any

import polars as pl

from rainbear_dask.dependencies import require

SUFFIXES = {".parquet": "parquet", ".pq": "parquet", ".csv": "csv", ".ipc": "ipc", ".arrow": "ipc", ".feather": "ipc"}
"""Formats of files of rows, by suffix."""

_READERS: dict[str, Callable[[str], pl.LazyFrame]] = {
    "parquet": pl.scan_parquet,
    "csv": partial(pl.scan_csv, try_parse_dates=True),
    "ipc": pl.scan_ipc,
}


def frame_of_object(value: Any) -> pl.LazyFrame | None:
    """Return a frame of Polars, pandas or Arrow as a LazyFrame; None for anything else."""
    if isinstance(value, pl.LazyFrame):
        return value
    if isinstance(value, pl.DataFrame):
        return value.lazy()
    if type(value).__module__.partition(".")[0] == "pandas" and type(value).__name__ == "DataFrame":
        require("pyarrow", extra="dataframe")
        return pl.from_pandas(value).lazy()
    if hasattr(value, "__arrow_c_stream__") and not isinstance(value, pl.Series):
        return pl.DataFrame(value).lazy()
    return None


def frame_of_file(address: str) -> pl.LazyFrame | None:
    """Return a file of rows as a LazyFrame; None if its suffix names no format."""
    form = SUFFIXES.get(Path(address).suffix.lower())
    return None if form is None else _READERS[form](address)


def stores_near(name: str) -> list[str]:
    """Return the paths of stores in the folder in which a name stands, 20 at most."""
    folder = Path(name).parent
    try:
        return sorted(_stores(folder))[:20]
    except OSError:
        return []


def _stores(folder: Path) -> Iterator[str]:
    for entry in folder.iterdir():
        if any((entry / mark).is_file() for mark in _MARKS):
            yield str(entry)


_MARKS = ("zarr.json", ".zgroup", ".zmetadata")
