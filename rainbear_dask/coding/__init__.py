"""CF conventions: stored values to column values."""
