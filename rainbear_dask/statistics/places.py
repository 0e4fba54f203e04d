"""Where statistics of an array are: in its store, in the user's cache folder, or in a named folder."""

import os
from dataclasses import dataclass
from hashlib import blake2b
from pathlib import Path

from rainbear_dask.exceptions import QueryError
from rainbear_dask.metadata.keys import join_path
from rainbear_dask.storage.sources import is_url
from rainbear_dask.storage.spec import StoreSpec
from rainbear_dask.storage.targets import Target, target_of

NAME = ".rainbear/statistics.parquet"
"""Path of the file below an array in its store. No reader of Zarr lists the folder of an array for other nodes."""


@dataclass(frozen=True, slots=True)
class Place:
    """The place of the statistics of one array.

    Parameters
    ----------
    folder : Target
        A folder.
    name : str
        Path of the file in it.
    """

    folder: Target
    name: str

    @property
    def label(self) -> str:
        """Address of the file for messages."""
        return f"{self.folder.label}/{self.name}"


def place_of(where: str, spec: StoreSpec, path: str) -> Place:
    """Return the place of the statistics of an array.

    Parameters
    ----------
    where : str
        "store", "cache", or the address of a folder.
    spec : StoreSpec
        The store, opened at a group.
    path : str
        Path of the array below the group.
    """
    array = join_path(spec.group, path)
    if where == "store":
        return Place(Target(spec, array), NAME)
    if where == "cache":
        name = blake2b(spec.label.encode(), digest_size=12).hexdigest()
        return Place(target_of(cache_folder() / name), f"{array}.parquet")
    return Place(target_of(where), f"{array}.parquet")


def places_for(option: str | bool, *, in_store: bool) -> list[str]:
    """Return where to look for statistics, first found first used.

    Parameters
    ----------
    option : "auto", False or str
        The option ``statistics`` of a scan.
    in_store : bool
        Whether the store could hold them: a folder or an object store.
    """
    if option is False:
        return []
    return [str(option)] if option != "auto" else ["store", "cache"] if in_store else ["cache"]


def cache_folder() -> Path:
    """Return the folder of statistics in the user's cache folder (``XDG_CACHE_HOME``, else ``~/.cache``)."""
    cache = os.environ.get("XDG_CACHE_HOME")
    return (Path(cache) if cache else Path.home() / ".cache") / "rainbear-dask" / "statistics"


def checked_option(option: object) -> str | bool:
    """Return the option ``statistics`` of a scan in the form that `Table` keeps.

    Raises
    ------
    QueryError
        If the option is none of "auto", False and a folder, or if the local folder does not exist.
    """
    if option is False or option == "auto":
        return "auto" if option else False
    if not isinstance(option, str | os.PathLike):
        raise QueryError(
            f"The option `statistics` is {option!r}. Give 'auto', False, or the folder of rd.analyze(where=...)."
        )
    folder = os.fspath(option)
    if is_url(folder):
        return folder
    if not Path(folder).expanduser().is_dir():
        raise QueryError(
            f"There are no statistics at {folder}: it is not a folder. Collect them with "
            f"rd.analyze(source, where={folder!r}), or give 'auto'."
        )
    return str(Path(folder).expanduser().absolute())
