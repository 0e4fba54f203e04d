"""Polars queries: the IO source, and what Polars pushes down to it."""
