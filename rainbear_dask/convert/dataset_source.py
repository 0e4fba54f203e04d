"""From an xarray Dataset to the Zarr group that it was opened from, if it still holds exactly that.

xarray keeps the name of the store through `isel` and arithmetic, so the name proves nothing. Here each data variable
must still be backed lazily by its whole array, and each coordinate must have the labels of the store.
"""

from collections.abc import Mapping
from typing import TYPE_CHECKING, Any, NamedTuple

import numpy as np

from rainbear_dask.exceptions import StoreFormatError
from rainbear_dask.table.columns import whole_column
from rainbear_dask.table.model import Table

if TYPE_CHECKING:
    import xarray as xr

_UNDECODED = {"scale_factor", "add_offset", "_FillValue", "missing_value"}
"""Attributes that xarray moves away when it decodes a variable."""


class DatasetSource(NamedTuple):
    """Where the data variables of a Dataset are stored.

    Parameters
    ----------
    store : zarr.abc.store.Store
        The store.
    group : str
        Path of their group.
    variables : list of str
        Their names.
    """

    store: Any
    group: str
    variables: list[str]


def source_of_dataset(data: "xr.Dataset") -> DatasetSource:
    """Return the group that holds the data variables of a Dataset, unchanged.

    Raises
    ------
    StoreFormatError
        If a variable is in memory, is a part or a function of an array, has another name, or is not decoded.
    """
    found: dict[tuple[str, str], Any] = {}
    for name, variable in data.variables.items():
        if name not in data.data_vars:
            continue
        array = _whole_array(variable)
        if array is None or array.basename != name or array.shape != variable.shape:
            raise _changed(f"variable {name!r} is no longer exactly an array of a Zarr store")
        if left := sorted(_UNDECODED & set(variable.attrs)):
            raise _changed(f"variable {name!r} is not decoded: it has the attribute {left[0]!r}")
        found[str(array.store), array.path.rpartition("/")[0]] = array.store
    if len(found) != 1:
        raise _changed("it has no data variables of one group of a store")
    (((_, group), store),) = found.items()
    return DatasetSource(store, group, [str(name) for name in data.data_vars])


def check_same(data: "xr.Dataset", table: Table) -> None:
    """Refuse a Dataset whose dimensions or coordinates differ from the table of its store.

    Raises
    ------
    StoreFormatError
        If it differs.
    """
    sizes = {dim: data.sizes.get(dim) for dim in table.sizes}
    if sizes != dict(table.sizes):
        raise _changed(f"its sizes are {sizes}, and the store has {dict(table.sizes)}")
    columns = {name: column for name, column in table.columns.items() if column.role != "data" and column.array}
    own = {str(name) for name, labels in data.coords.items() if set(labels.dims) <= table.sizes.keys()}
    if unlike := sorted(own ^ columns.keys()):
        raise _changed(f"the coordinate {unlike[0]!r} is only in one of the Dataset and the store")
    for name, column in columns.items():
        labels = data.coords[name].values
        stored = whole_column(table.spec, column, labels.size).to_numpy()
        if data.coords[name].dims != column.dims or not _equal(labels.ravel(), stored):
            raise _changed(f"the coordinate {name!r} has other labels than the store")


def _changed(why: str) -> StoreFormatError:
    return StoreFormatError(
        f"This Dataset cannot be scanned, because {why}. Scan its store by path, or write the Dataset with to_zarr() first."
    )


def _equal(labels: Any, stored: Any) -> bool:
    if labels.dtype.kind in "fc":
        return bool(np.array_equal(labels, stored, equal_nan=True))
    return bool(np.array_equal(labels, stored))


def _whole_array(variable: Any) -> Any:
    """Return the Zarr array that backs a variable as a whole; None for any other backing."""
    backing = variable._data  # noqa: SLF001  xarray has no public way
    if hasattr(backing, "dask"):
        layers: Mapping[str, Any] = backing.dask.layers
        original = f"original-{backing.name}"
        if set(layers) != {backing.name, original}:
            return None
        backing = layers[original][original]
    while hasattr(backing, "array"):
        key = getattr(getattr(backing, "key", None), "tuple", ())
        if any(each != slice(None) for each in key if isinstance(each, slice)) or not all(
            isinstance(each, slice) for each in key
        ):
            return None
        backing = backing.array
    array = getattr(backing, "_array", None)
    return array if type(array).__module__.partition(".")[0] == "zarr" else None
