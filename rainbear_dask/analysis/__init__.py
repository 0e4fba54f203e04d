"""Collecting statistics of chunks where the chunks are decoded, and writing them."""
