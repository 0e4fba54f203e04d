"""Metadata documents of Zarr v2 and v3 to arrays and groups."""
