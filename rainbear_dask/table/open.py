"""From an opened group to its tables, with warnings for skipped arrays."""

from collections.abc import Collection, Mapping

from rainbear_dask.chunks import cache
from rainbear_dask.exceptions import SkippedArrayWarning
from rainbear_dask.metadata.model import StoreMeta
from rainbear_dask.redaction import warn
from rainbear_dask.table.build import build_table, build_tables
from rainbear_dask.table.model import Table, TableKey
from rainbear_dask.typing import TimeUnit


def open_table(
    meta: StoreMeta,
    *,
    variables: Collection[str] | None = None,
    decode: bool = True,
    mask: bool = True,
    time_unit: TimeUnit = "ns",
) -> Table:
    """Return the table of an opened group, and warn of skipped arrays; parameters as in `build_table`."""
    table = build_table(
        meta,
        read=lambda array: cache.whole(meta.spec, array),
        sample=lambda array: cache.first_and_last_chunk(meta.spec, array),
        variables=variables,
        decode=decode,
        mask=mask,
        time_unit=time_unit,
    )
    _warn_of(table.skipped, meta)
    return table


def open_tables(
    meta: StoreMeta, *, decode: bool = True, mask: bool = True, time_unit: TimeUnit = "ns"
) -> dict[TableKey, Table]:
    """Return one table for each grid of an opened group, and warn once of each skipped array."""
    tables, skipped = build_tables(
        meta,
        read=lambda array: cache.whole(meta.spec, array),
        sample=lambda array: cache.first_and_last_chunk(meta.spec, array),
        decode=decode,
        mask=mask,
        time_unit=time_unit,
    )
    _warn_of(skipped, meta)
    return tables


def _warn_of(skipped: Mapping[str, str], meta: StoreMeta) -> None:
    for path, reason in skipped.items():
        warn(f"array {path!r} of {meta.spec.label} is left out: {reason}", SkippedArrayWarning)
