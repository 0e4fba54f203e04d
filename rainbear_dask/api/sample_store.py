"""The public function that opens the sample store."""

from os import PathLike
from pathlib import Path

import polars as pl

from rainbear_dask.api.scan import scan_zarr
from rainbear_dask.sample_data import sample_path, write_sample


def open_sample(path: str | PathLike[str] | None = None) -> pl.LazyFrame:
    """Open a small store of monthly sea-surface temperatures to try queries on; the first call writes it.

    Parameters
    ----------
    path : str or path, optional
        Folder of the store; a new one is written if nothing is there. By default a folder in the user's cache
        (``XDG_CACHE_HOME``, else ``~/.cache``).

    Returns
    -------
    LazyFrame
        As `scan_zarr` returns it. Columns: ``time`` (60 months from 2006 to 2010), ``latitude`` (72 labels in degrees
        north), ``longitude`` (144 labels in degrees east, 0 to 357.5) and ``sst`` (Float32, °C; null on land). 622,080
        rows in 45 chunks.

    Raises
    ------
    StoreNotFoundError
        If something else is at the path.

    Notes
    -----
    The values are synthetic and the same everywhere: zones by latitude, seasons, a slow wave in the Pacific and random
    weather. No network is used.

    Examples
    --------
    >>> import polars as pl
    >>> import rainbear_dask as rd
    >>> sst = rd.open_sample("sample.zarr")
    >>> sst.filter(pl.col("latitude").abs() < 5, pl.col("time").dt.year() == 2008).select(pl.len()).collect().item()
    6912
    """
    where = sample_path() if path is None else Path(path).expanduser()
    write_sample(where)
    return scan_zarr(where)
