"""Start or join Dask clusters: on this machine, through a batch system, on Kubernetes, or at an address."""

from rainbear_dask.cluster.connection import connect

__all__ = ["connect"]
