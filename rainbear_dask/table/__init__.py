"""A group as a tidy table: roles, columns, decodings, row order."""
