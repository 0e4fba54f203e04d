"""Dask clusters by name: of this machine, of a batch system, of Kubernetes, or at an address."""

from rainbear_dask.cluster.connection import connect

__all__ = ["connect"]
