"""Rows for other libraries: Arrow, pandas and xarray."""
