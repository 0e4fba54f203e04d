"""CF conventions: from stored values to column values."""
