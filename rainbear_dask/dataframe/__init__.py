"""Dask DataFrames: expression nodes, filters, pushdown, partitions."""
