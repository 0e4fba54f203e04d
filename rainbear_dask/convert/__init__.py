"""Rows as Arrow, pandas and xarray."""
