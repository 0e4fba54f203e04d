"""Partial aggregates: groups of cells, reductions of chunk groups, and merging their states."""
