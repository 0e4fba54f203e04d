"""The table of a store that was opened."""

from collections.abc import Collection, Mapping
from typing import TYPE_CHECKING

from rainbear_dask.metadata.model import StoreMeta
from rainbear_dask.redaction import warn
from rainbear_dask.table import coordinates as coords
from rainbear_dask.table.build import build_table, build_tables
from rainbear_dask.table.model import Table, TableKey

if TYPE_CHECKING:
    pass


def open_table(
    meta: StoreMeta, *, variables: Collection[str] | None = None, decode: bool = True, mask: bool = True
) -> Table:
    """Understand an opened group as a table, and warn of what is left out; parameters as in `table.build_table`."""
    table = build_table(
        meta,
        read=lambda array: coords.whole(meta.spec, array),
        sample=lambda array: coords.first_and_last_chunk(meta.spec, array),
        variables=variables,
        decode=decode,
        mask=mask,
    )
    _warn_of(table.skipped, meta)
    return table


def open_tables(meta: StoreMeta, *, decode: bool = True, mask: bool = True) -> dict[TableKey, Table]:
    """Understand an opened group as one table for each grid, and warn once of each array that is left out."""
    tables, skipped = build_tables(
        meta,
        read=lambda array: coords.whole(meta.spec, array),
        sample=lambda array: coords.first_and_last_chunk(meta.spec, array),
        decode=decode,
        mask=mask,
    )
    _warn_of(skipped, meta)
    return tables


def _warn_of(skipped: Mapping[str, str], meta: StoreMeta) -> None:
    for path, reason in skipped.items():
        warn(f"array {path!r} of {meta.spec.label} is left out: {reason}")
