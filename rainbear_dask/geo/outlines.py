"""The polygons of a filter, for pictures."""

from dataclasses import dataclass

import polars as pl

from rainbear_dask.geo.kernels import polygon_of_points


@dataclass(frozen=True)
class Outline:
    """Polygons over two coordinates of a table.

    Parameters
    ----------
    x, y : str
        Names of the coordinates; of longitude and latitude, x is the longitude.
    polygons : tuple of bytes
        WKB of each; an empty one has no outline.
    wraps : bool
        Whether x and x + 360 are the same place.
    """

    x: str
    y: str
    polygons: tuple[bytes, ...]
    wraps: bool


def outlines_of(expr: pl.Expr) -> list[Outline]:
    """Return the outline of each polygon that an expression compares with two columns."""
    found, todo = [], [expr]
    while todo:
        parts = todo.pop().meta.pop()
        todo += parts
        if len(parts) == 2 and (polygon := polygon_of_points(parts[1], parts[0])):  # Polars pops the last one first
            x, y = (part.meta.root_names() for part in reversed(parts))
            if len(x) == len(y) == 1:
                found.append(Outline(x[0], y[0], (polygon.wkb,), polygon.wraps))
    return found
