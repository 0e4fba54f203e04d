"""The report of a plan, the picture of its chunks, progress bars, versions."""
