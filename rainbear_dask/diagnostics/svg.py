"""A picture of the chunks that a plan reads, in plain SVG and HTML, in the style of ``dask.array``."""

from collections.abc import Mapping, Sequence
from dataclasses import dataclass
from functools import cache
from html import escape

import numpy as np
import numpy.typing as npt

from rainbear_dask.indexing.chunk_grid import ChunkGrid, touched_chunks
from rainbear_dask.indexing.index_set import IndexSet
from rainbear_dask.indexing.selection import Box
from rainbear_dask.redaction import escaped

_MAX_CELLS = 40  # along a dimension
_WIDTH, _STRIP, _LINE = 240, 12, 16  # pixels


def draw_report(title: str, facts: Sequence[tuple[str, str]], picture: str) -> str:
    """Lay out named facts beside a picture.

    Returns
    -------
    str
        HTML; well-formed XML if the picture is.
    """
    rows = "".join(
        f'<tr><th style="text-align:left">{_escape(name)}</th><td style="text-align:left">{_escape(text)}</td></tr>'
        for name, text in facts
    )
    return (
        f"<div><b>{_escape(title)}</b>"
        f'<div style="display:flex;gap:2em;align-items:flex-start"><table>{rows}</table>{picture}</div></div>'
    )


def draw_chunks(
    grid: ChunkGrid,
    boxes: Sequence[Box],
    ranges: Mapping[str, str] | None = None,
    lines: Sequence[npt.NDArray[np.float64]] = (),
) -> str:
    """Draw the chunks of a grid that some boxes touch.

    Parameters
    ----------
    grid : ChunkGrid
        The grid of an array.
    boxes : sequence of Box
        The selection; a box leaves out the dimensions that it does not constrain.
    ranges : mapping of str to str, optional
        Range of the labels of a dimension, as text; by default, and if it is empty, none is shown.
    lines : sequence of ndarray of float64, shape (n, 2)
        Closed lines over the last two dimensions: position across and down of each corner.

    Returns
    -------
    str
        An SVG. The last two dimensions are a grid, with a coloured cell for each touched chunk; above it is a strip for
        each other dimension. More than 40 chunks along a dimension share cells. A shared cell is coloured if any of its
        chunks is touched.
    """
    if not all(grid.shape):
        boxes = ()
    axes = [_Axis(axis.dim, max(axis.length, 1), axis.chunk) for axis in grid.axes]
    along = axes[:-2] if len(axes) > 1 else axes
    height, parts, known = 0, list[str](), ranges or {}

    def write(text: str, dim: str) -> None:
        nonlocal height
        for line in (text, known.get(dim, "")):
            if line:
                parts.append(_text(line, height))
                height += _LINE

    for axis in along:
        write(axis.label, axis.dim)
        parts.append(_strip(axis, boxes, height))
        height += _STRIP + _LINE // 2
    if len(axes) > 1:
        rows, columns = axes[-2:]
        tall = round(min(max(_WIDTH * rows.length / columns.length, _WIDTH / 4), _WIDTH))
        write(f"{rows.label} (down)", rows.dim)
        write(f"{columns.label} (across)", columns.dim)
        parts.append(_grid(rows, columns, boxes, height, tall))
        if lines:
            parts.append(_outline(rows, columns, lines, height, tall))
        height += tall
    return (
        f'<svg xmlns="http://www.w3.org/2000/svg" width="{_WIDTH + 2}" height="{height + 2}" '
        f'viewBox="-1 -1 {_WIDTH + 2} {height + 2}" font-family="sans-serif" font-size="11" role="img" '
        f'aria-label="{_escape(_spoken(axes, boxes, has_lines=len(axes) > 1 and bool(lines)))}">{"".join(parts)}</svg>'
    )


@dataclass(frozen=True, slots=True)
class _Axis:
    dim: str
    length: int
    chunk: int

    @property
    def count(self) -> int:
        return len(touched_chunks(0, self.length, self.chunk))

    @property
    def cells(self) -> int:
        return min(self.count, _MAX_CELLS)

    @property
    def label(self) -> str:
        return f"{self.dim}: {self.length:,} in {self.count:,} chunk{'s' if self.count > 1 else ''}"

    def touched(self, index: IndexSet | None) -> IndexSet:
        """Return the cells that hold a chunk with some of the positions; all cells for None."""
        if index is None:
            return IndexSet.span(0, self.cells)
        found = index.chunks(self.chunk)
        first, last = (edge * self.cells // self.count for edge in (found.starts, found.stops - 1))
        return IndexSet.from_spans(np.column_stack([first, last + 1]))


def _spoken(axes: Sequence[_Axis], boxes: Sequence[Box], *, has_lines: bool) -> str:
    """Return the picture in words, for screen readers."""
    shape = ", ".join(axis.label for axis in axes)
    lines = " A line shows the outline of the polygons." if has_lines else ""
    if not boxes:
        return f"The plan reads no chunk: {shape}.{lines}"
    return f"The chunks that the plan reads are coloured: {shape}.{lines}"


def _strip(axis: _Axis, boxes: Sequence[Box], top: int) -> str:
    touched = [axis.touched(index) for index in {box.get(axis.dim) for box in boxes}]
    spans = IndexSet.union(touched) if touched else IndexSet.span(0, 0)
    kept = "".join(
        f'<rect x="{start}" width="{stop - start}" height="1"/>'
        for start, stop in zip(spans.starts, spans.stops, strict=True)
    )
    return _panel(kept, axis.cells, 1, top, _STRIP)


def _grid(rows: _Axis, columns: _Axis, boxes: Sequence[Box], top: int, height: int) -> str:
    kept = np.zeros((rows.cells, columns.cells), dtype=bool)
    down, across = cache(rows.touched), cache(columns.touched)  # boxes share index sets
    for box in boxes:
        kept[np.ix_(down(box.get(rows.dim)).positions(), across(box.get(columns.dim)).positions())] = True
    cells = "".join(f'<rect x="{x}" y="{y}" width="1" height="1"/>' for y, x in np.argwhere(kept))
    return _panel(cells, columns.cells, rows.cells, top, height)


def _outline(rows: _Axis, columns: _Axis, lines: Sequence[npt.NDArray[np.float64]], top: int, height: int) -> str:
    """Draw lines in the colour of the text, which suits light and dark themes; the inner picture cuts off the rest."""
    scale = _WIDTH / (columns.count * columns.chunk), height / (rows.count * rows.chunk)
    path = "".join(f"M{'L'.join(f'{x:.1f} {y:.1f}' for x, y in line * scale)}Z" for line in lines)
    return (
        f'<svg y="{top}" width="{_WIDTH}" height="{height}"><path d="{path}" fill="none" stroke="currentColor" '
        'stroke-width="1.5" stroke-linejoin="round"/></svg>'
    )


def _panel(kept: str, columns: int, rows: int, top: int, height: int) -> str:
    """Draw coloured cells, in units of cells, on a background with grid lines."""
    wide, tall = _WIDTH / columns, height / rows
    lines = "".join(f"M{x * wide:.4g} 0V{height}" for x in range(1, columns))
    lines += "".join(f"M0 {y * tall:.4g}H{_WIDTH}" for y in range(1, rows))
    return (
        f'<g transform="translate(0 {top})"><path d="M0 0H{_WIDTH}V{height}H0Z" fill="#888" fill-opacity=".2"/>'
        f'<g transform="scale({wide:.4g} {tall:.4g})" fill="#3b76af">{kept}</g>'
        f'<path d="{lines}M0 0H{_WIDTH}V{height}H0Z" fill="none" stroke="#888" stroke-opacity=".6"/></g>'
    )


def _text(text: str, top: int) -> str:
    return f'<text y="{top + _LINE - 4}" fill="currentColor">{_escape(text)}</text>'


def _escape(text: str) -> str:
    """Escape text for XML, which allows no control characters."""
    return escape(escaped(text))
