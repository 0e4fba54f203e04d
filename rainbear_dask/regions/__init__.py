"""Zonal statistics: polygons to weights of cells, chunks to partial sums, partial sums to a table."""
