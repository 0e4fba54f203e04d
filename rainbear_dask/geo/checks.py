"""The check that planning makes: geometries of a filter are in the CRS of the grid."""

import polars as pl

from rainbear_dask.geo.crs import check_crs
from rainbear_dask.geo.kernels import crs_of_points
from rainbear_dask.table.model import Table


def check_geometries(predicate: pl.Expr, table: Table) -> None:
    """Raise an error if a geometry of a filter is in another CRS than the columns that it is compared with.

    Columns that the filter computes, for example by `rd.geo.transform`, are not checked.

    Raises
    ------
    GeometryError
        The message says how to convert.
    """
    todo = [predicate]
    while todo:
        parts = todo.pop().meta.pop()
        todo += parts
        if len(parts) == 2 and (crs := crs_of_points(parts[1], parts[0])):  # Polars pops the last one first
            columns = [part.meta.root_names() for part in parts]
            if all(len(names) == 1 and _is_column(part) for part, names in zip(parts, columns, strict=True)):
                check_crs(crs, table, columns[1][0], columns[0][0], "the filter's geometry")


def _is_column(aliased: pl.Expr) -> bool:
    """Whether an expression is a column under another name, without any computation."""
    (inner,) = aliased.meta.pop()
    return inner.meta.is_column()
