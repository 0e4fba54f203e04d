"""Rows to Zarr arrays: one writer for each stored object, visible once they are whole."""
