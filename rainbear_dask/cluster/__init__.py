"""Dask clusters by name: local, a batch system, Kubernetes, or an address."""

from rainbear_dask.cluster.connection import connect

__all__ = ["connect"]
