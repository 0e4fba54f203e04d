"""From a source and the options of the public functions to its table, or to its tables."""

from collections.abc import Collection, Mapping
from dataclasses import replace
from typing import Any, get_args

from rainbear_dask.backends.base import without_backend
from rainbear_dask.exceptions import QueryError, RepeatedRowsWarning
from rainbear_dask.metadata.opening import open_store
from rainbear_dask.redaction import warn
from rainbear_dask.statistics.places import checked_option
from rainbear_dask.storage.sources import is_array, is_dataset, place_in_store
from rainbear_dask.table.model import Table, TableKey
from rainbear_dask.table.open import open_table, open_tables
from rainbear_dask.typing import StatisticsOption, StoreLike, TimeUnit

REPEATS_TO_WARN = 10
"""Least rows per value of the largest variable for a warning: users rarely want so many repeats."""


def opened_table(
    source: StoreLike,
    variables: Collection[str] | None = None,
    group: str | None = None,
    prefix: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    decode: bool = True,
    mask: bool = True,
    statistics: StatisticsOption = "auto",
    time_unit: TimeUnit = "ns",
) -> Table:
    """Return the table of a source that `scan_zarr` accepts, with the meaning of its options; warn if rows repeat.

    Raises
    ------
    QueryError
        If an option has no meaning for the source.
    """
    _check_time_unit(time_unit)
    if is_dataset(source) or is_array(source):
        if variables is not None or group or prefix or storage_options:
            raise QueryError(
                "A Dataset or an array names its store and its variables itself, so `variables`, `group`, `prefix` and "
                "`storage_options` have no meaning. Select variables from it, or pass the path of the store."
            )
        return replace(
            _table_of_object(source, decode=decode, mask=mask, time_unit=time_unit),
            statistics=checked_option(statistics),
        )
    places = checked_option(statistics)
    meta = open_store(without_backend(source), group=group, prefix=prefix, storage_options=storage_options)
    names = [variables] if isinstance(variables, str) else variables
    table = open_table(meta, variables=names, decode=decode, mask=mask, time_unit=time_unit)
    table = replace(table, statistics=places)
    if table.repeats >= REPEATS_TO_WARN:
        warn(
            f"The table of {table.spec.label} has {table.num_rows:,} rows, {table.repeats:,.0f} for each value of its "
            f"largest variable, because no variable has all its dimensions ({', '.join(table.sizes)}). Name variables "
            "that share dimensions in `variables=`, or scan one table for each set of dimensions with tables().",
            RepeatedRowsWarning,
        )
    return table


def _check_time_unit(time_unit: Any) -> None:
    if time_unit not in get_args(TimeUnit):
        raise QueryError(f"There is no time unit {time_unit!r}. Pass 'ns', 'us' or 'ms'.")


def _table_of_object(source: Any, *, decode: bool, mask: bool, time_unit: TimeUnit) -> Table:
    """Return the table of a Dataset of xarray, or of an array of zarr."""
    if is_array(source):
        store, path = place_in_store(source)
        group, _, name = path.rpartition("/")
        return opened_table(store, [name], group, decode=decode, mask=mask, time_unit=time_unit)
    from rainbear_dask.convert.dataset_source import check_same, source_of_dataset  # noqa: PLC0415  xarray is an extra

    found = source_of_dataset(source)
    whole = opened_table(found.store, None, found.group, decode=decode, mask=mask)
    names = [name for name, column in whole.columns.items() if column.role == "data" and name in found.variables]
    table = opened_table(found.store, names or found.variables, found.group, decode=decode, mask=mask)
    check_same(source, table)  # its labels have the finest unit
    if time_unit == "ns":
        return table
    return opened_table(
        found.store, names or found.variables, found.group, decode=decode, mask=mask, time_unit=time_unit
    )


def opened_tables(
    source: StoreLike,
    group: str | None = None,
    prefix: str | None = None,
    storage_options: Mapping[str, Any] | None = None,
    *,
    decode: bool = True,
    mask: bool = True,
    statistics: StatisticsOption = "auto",
    time_unit: TimeUnit = "ns",
) -> dict[TableKey, Table]:
    """Return the tables of a source, one for each group and grid; options as in `opened_table`."""
    _check_time_unit(time_unit)
    places = checked_option(statistics)
    meta = open_store(without_backend(source), group=group, prefix=prefix, storage_options=storage_options)
    found = open_tables(meta, decode=decode, mask=mask, time_unit=time_unit)
    return {key: replace(table, statistics=places) for key, table in found.items()}
