"""Unmodified Polars queries, answered where the chunks are: reading plans, rewriting them, the sources of answers."""
