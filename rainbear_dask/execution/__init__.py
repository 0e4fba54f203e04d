"""Tasks on threads or on a Dask cluster: in order, bounded, cancellable."""
