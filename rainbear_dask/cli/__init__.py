"""The command ``rainbear-dask``: arguments, signals, output files."""
