"""Polars queries: the IO source, pushdown, and expressions as plans."""
