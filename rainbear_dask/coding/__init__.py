"""CF conventions: stored values to the values of columns."""
