"""The report of a plan, as text and as HTML, and the list of its chunks."""

from collections.abc import Sequence
from functools import reduce
from operator import and_
from typing import Any

import polars as pl

from rainbear_dask.diagnostics.hints import hints_of
from rainbear_dask.diagnostics.labels import attribute_of, range_of
from rainbear_dask.diagnostics.outlines import lines_of
from rainbear_dask.diagnostics.report import Report
from rainbear_dask.diagnostics.svg import draw_chunks, draw_report
from rainbear_dask.indexing.chunk_grid import ChunkGrid
from rainbear_dask.indexing.selection import Box
from rainbear_dask.metadata.model import ArrayMeta
from rainbear_dask.planning.plan import ReadPlan, num_chunks_kept_by
from rainbear_dask.planning.pruning import StatisticsUse
from rainbear_dask.redaction import escaped
from rainbear_dask.resources.limits import readable_bytes
from rainbear_dask.table.model import Column, Table

MIN_REPORTED_AMPLIFICATION = 1.5
"""Bytes read for each byte of the selected chunks, from which on the report mentions them."""


def as_text(report: Report, place: str) -> str:
    """Return the report: chunks, rows, tasks, and the chunks that each conjunct of the filter keeps.

    Parameters
    ----------
    report : Report
        The source.
    place : str
        Where its tasks run.
    """
    return "\n".join(map(escaped, [_title(report), *(f"  {name:8} {text}" for name, text in _facts(report, place))]))


def as_html(report: Report, place: str) -> str:
    """Return the report as HTML, with a picture of the chunks kept, the ranges of the coordinates, and polygons."""
    drawn, plan = "", report.plan
    if plan.arrays:
        array = plan.layout.cut_along[0]
        boxes: Sequence[Box] = plan.selection.boxes
        if plan.counts.is_cut_short:
            boxes = [
                dict(zip(task.scan.dims, box, strict=True))
                for task in plan.tasks()
                for box in task.boxes or [task.index]
            ]
        lines = [
            line
            for outline in (report.outlines if len(array.dims) > 1 else ())
            for line in lines_of(outline, plan.table, *array.dims[-2:])
        ]
        drawn = draw_chunks(array.grid, boxes, {dim: range_of(plan.table, dim) for dim in array.dims}, lines)
    described = ", ".join(map(_described, plan.columns))
    facts = [(name, described if name == "columns" else text) for name, text in _facts(report, place)]
    return draw_report(_title(report), facts, drawn)


def _described(column: Column) -> str:
    """Return the name of a column with its long name and its unit."""
    found = [text for name in ("long_name", "units") if (text := attribute_of(column, name))]
    return f"{column.name} ({', '.join(found)})" if found and column.role != "dimension" else column.name


def _title(report: Report) -> str:
    return f"{report.kind} {report.plan.table.spec.label}"


def _facts(report: Report, place: str) -> Sequence[tuple[str, str]]:
    """Return the lines of the report, each with its name."""
    plan, counts = report.plan, report.plan.counts
    chunks = f"{counts.num_chunks_kept:,} of {counts.num_chunks:,}"
    facts = [
        ("chunks", f"{chunks}, {readable_bytes(counts.bytes_kept)} of {readable_bytes(counts.bytes_total)} decoded"),
        ("rows", f"{report.rows:,} at most" + (f", of {plan.table.num_rows:,}" if report.own_rows is None else "")),
        ("tasks", f"{report.tasks:,}, each in {readable_bytes(report.memory)} of memory at most"),
        ("runs on", place),
        *([("order", _order(plan.table))] if report.own_rows is None else []),
        ("columns", ", ".join(c.name for c in plan.columns)),
    ]
    for conjunct in plan.conjuncts:
        alone = num_chunks_kept_by(plan, conjunct)
        note = f"; workers filter rows, because {conjunct.obstacle}" if conjunct.obstacle else ""
        facts.append(("filter", f"{_short(conjunct.expr)}: keeps {alone:,} chunks{note}"))
    for keys in plan.keys:
        alone = num_chunks_kept_by(plan, keys)
        facts.append(("keys", f"{keys.label}: {len(keys.cells):,} cells in {alone:,} chunks"))
    facts += [("pruned", _pruned(plan, use)) for use in plan.statistics]
    facts += [("hint", text) for text in hints_of(plan)]
    if not plan.selection.exact:
        facts.append(
            ("bounds", "counts are upper bounds, because the filter matches more regions than a selection can hold")
        )
    if (amplification := counts.amplification) > MIN_REPORTED_AMPLIFICATION:
        facts.append(("reads", f"{amplification:.1f} times the bytes of its chunks, because chunk grids differ"))
    if plan.table.repeats > 1:
        facts.append(("repeats", f"{plan.table.repeats:,.3g} rows for each value of the largest variable"))
    return facts


def _pruned(plan: ReadPlan, use: StatisticsUse) -> str:
    """Say what the statistics of a variable keep, together with the other conditions of its conjuncts."""
    (array,) = (column.array for column in plan.table.leaves([use.column]))
    own = (c.selection for c in plan.conjuncts if use.column in c.expr.meta.root_names())
    kept = array.grid.count(reduce(and_, own).boxes) if array else 0
    total = array.num_chunks if array else 0
    return f"statistics of {use.made:%Y-%m-%d}: {use.column} keeps {kept:,} of {total:,} chunks ({use.label})"


def _order(table: Table) -> str:
    dims = ", ".join(table.sizes)
    if all(length >= table.sizes[dim] for dim, length in table.blocks.items()):
        return f"C order of {dims}"
    return f"C order of {dims} in blocks of {' x '.join(f'{n:,}' for n in table.blocks.values())}, block by block"


def _short(expr: pl.Expr) -> str:
    text = str(expr)
    return text if len(text) <= 100 else f"{text[:97]}..."


def selected_chunks(plan: ReadPlan) -> dict[str, Any]:
    """List the chunks that hold a selected position, grid by grid.

    Parameters
    ----------
    plan : ReadPlan
        The plan.

    Returns
    -------
    dict
        ``{"grids": [{"dims", "variables", "chunks": [{"indices", "origin", "shape", "shards"}]}], "coord_reads"}``:
        a grid for each (dims, chunk shape, shard shape), sorted by them; chunks in C order, with their nominal shape;
        ``shards`` holds the shard of the chunk, clipped to the array. A coordinate's own grid is listed only if no
        larger grid has its dimension. ``coord_reads`` is the number of coordinates that planning has read.

    Notes
    -----
    Every chunk has an entry. The list is meant for debugging, not for large scans.
    """
    grids: dict[ChunkGrid, list[ArrayMeta]] = {}
    labels = {column.array.path for column in plan.columns if column.array and column.role == "dimension"}
    for column in plan.columns:
        if column.array is not None and column.dims:
            grids.setdefault(column.array.grid, []).append(column.array)
    listed = []
    for grid in sorted(grids, key=lambda grid: (grid.dims, grid.chunks, grid.shards or ())):
        arrays, covered = grids[grid], any(set(grid.dims) < set(other.dims) for other in grids)
        if covered and all(array.path in labels for array in arrays):
            continue
        if found := [_chunk_entry(grid, place) for place in sorted(grid.blocks(plan.selection.boxes).places())]:
            listed.append(
                {"dims": list(grid.dims), "variables": sorted(array.path for array in arrays), "chunks": found}
            )
    named = {name for conjunct in plan.conjuncts for name in conjunct.expr.meta.root_names()}
    reads = sum(column.array is not None and column.role != "data" for column in plan.table.leaves(named))
    return {"grids": listed, "coord_reads": reads}


def _chunk_entry(grid: ChunkGrid, place: Sequence[int]) -> dict[str, Any]:
    origin = [start for start, _ in grid.extent(place)]
    entry: dict[str, Any] = {
        "indices": list(place),
        "origin": origin,
        "shape": list(grid.chunks),
        "shards": [],
    }
    if grid.shards:
        holder = [at // size for at, size in zip(origin, grid.shards, strict=True)]
        spans = grid.stored.extent(holder)
        corner, clipped = [start for start, _ in spans], [stop - start for start, stop in spans]
        entry["shards"] = [{"indices": holder, "origin": corner, "shape": clipped}]
    return entry
