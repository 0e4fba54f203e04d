"""Stored chunks to NumPy arrays: in folders, in object stores, and by zarr."""
