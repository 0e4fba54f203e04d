"""Code of a user, for mypy."""
