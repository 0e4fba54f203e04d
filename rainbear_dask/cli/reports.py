"""What the commands print: a store as a table of its columns, and reports as JSON."""

import json
from collections.abc import Iterator
from typing import Any

import polars as pl

from rainbear_dask.diagnostics.explanation import Explanation
from rainbear_dask.diagnostics.labels import attribute_of, range_of
from rainbear_dask.redaction import escaped
from rainbear_dask.table.model import Table


def text_of_table(table: Table) -> str:
    """Return the columns of a table, one on each line, below its name and its rows."""
    return "\n".join([f"{escaped(table.spec.label)}: {table.num_rows:,} rows", *_aligned(_described(table))])


def json_of_table(table: Table) -> str:
    """Return the table as JSON: ``store``, ``rows``, ``sizes`` and ``columns``."""
    columns = [
        {
            "name": name,
            "type": _type(column.dtype),
            "role": column.role if column.array else "index",
            "dimensions": list(column.dims),
            "chunks": list(column.array.chunks) if column.array else None,
            "shards": list(column.array.shards) if column.array and column.array.shards else None,
            "units": attribute_of(column, "units") or None,
            "long_name": attribute_of(column, "long_name") or None,
        }
        for name, column in table.columns.items()
    ]
    found = {"store": table.spec.label, "rows": table.num_rows, "sizes": dict(table.sizes), "columns": columns}
    return json.dumps(found, indent=2)


def json_of_explanation(found: Explanation) -> str:
    """Return the attributes of an explanation as JSON."""
    names = ("chunks_kept", "chunks_total", "bytes", "rows", "tasks", "memory", "runs_on", "split", "kept_by_polars")
    values: dict[str, Any] = {name: getattr(found, name) for name in names}
    return json.dumps({"stores": [plan.table.spec.label for plan in found.plans], **values}, indent=2)


def _described(table: Table) -> Iterator[tuple[str, ...]]:
    yield ("column", "type", "role", "dimensions", "chunks", "shards", "units", "long name", "range")
    for name, column in table.columns.items():
        array = column.array
        sizes = dict(zip(array.dims, array.shape, strict=True)) if array else {name: table.sizes[name]}
        yield (
            name,
            _type(column.dtype),
            column.role if array else "index",
            ", ".join(f"{dim}: {size:,}" for dim, size in sizes.items()),
            " x ".join(map(str, array.chunks)) if array else "",
            " x ".join(map(str, array.shards)) if array and array.shards else "",
            attribute_of(column, "units"),
            attribute_of(column, "long_name"),
            range_of(table, name) if column.role == "dimension" else "",
        )


def _type(dtype: pl.DataType) -> str:
    return f"{type(dtype).__name__}[{dtype.time_unit}]" if isinstance(dtype, pl.Datetime | pl.Duration) else str(dtype)


def _aligned(rows: Iterator[tuple[str, ...]]) -> Iterator[str]:
    """Yield rows of cells as lines, without columns that are empty below their heading."""
    heading, *lines = [tuple(map(escaped, row)) for row in rows]
    kept = [number for number in range(len(heading)) if any(line[number] for line in lines)]
    cells = [[line[number] for number in kept] for line in (heading, *lines)]
    widths = [max(map(len, column)) for column in zip(*cells, strict=True)]
    for row in cells:
        yield "  ".join(cell.ljust(width) for cell, width in zip(row, widths, strict=True)).rstrip()
