"""The command ``rainbear-dask``."""
