"""Dask DataFrames of a scan: expression nodes, pushdown, partitions."""
