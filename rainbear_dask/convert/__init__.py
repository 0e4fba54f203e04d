"""Rows as Arrow, pandas and xarray have them."""
