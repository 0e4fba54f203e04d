"""Stored chunks to NumPy arrays: from folders, from object stores, and through zarr."""
