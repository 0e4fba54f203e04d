"""``python -m rainbear_dask.cli``."""

from rainbear_dask.cli.parser import command

command()
